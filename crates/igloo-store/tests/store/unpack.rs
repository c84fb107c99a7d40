//! What an archive becomes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use igloo_base::event::Silent;
use igloo_base::{Event, Reporter};
use igloo_formats::deb::meta::{Kind, Meta};
use igloo_store::{ListedKind, Store, StoreError};

use crate::support::*;

/// Frozen: a change of it changes every lock that names store paths, and asks for a new `UNPACK`.
const ORDINARY: &str = "sailarga5hdgq7bhvkkkiqyd27lffqjp-deb-x-1.0-1-amd64";

#[test]
fn a_package_becomes_a_canonical_object_and_a_record_of_what_was_lost() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let path = add(&store, &[ordinary(&dir, "x", 1)]).remove(0);
    assert_eq!(path.base_name(), ORDINARY);
    let object = store.physical(&path);

    let meta: Meta = serde_json::from_slice(&fs::read(object.join("meta.json")).expect("read")).expect("parse");
    assert_eq!((meta.name.as_str(), meta.version.as_str(), meta.architecture.as_str()), ("x", "1.0-1", "amd64"));
    assert_eq!(meta.conffiles, ["/etc/x.conf"]);
    let names: Vec<&str> = meta.entries.iter().map(|e| e.path.as_str()).collect();
    let expected = [
        "etc",
        "etc/x.conf",
        "usr",
        "usr/bin",
        "usr/bin/su",
        "usr/bin/x",
        "usr/bin/y",
        "usr/lib",
        "usr/lib/early.so",
        "usr/lib/l",
        "usr/share",
        "usr/share/empty",
    ];
    assert_eq!(names, expected);
    let entry = |path: &str| meta.entries.iter().find(|e| e.path == path).expect(path);
    assert_eq!((entry("usr/bin/su").mode, entry("usr/bin/su").kind), (0o4755, Kind::File));
    assert_eq!((entry("usr/bin/y").kind, entry("usr/bin/y").target.as_deref()), (Kind::Hard, Some("usr/bin/x")));
    assert_eq!(entry("usr/lib/l").target.as_deref(), Some("../bin/x"));

    for listed in store.ls(&path, Path::new("")).expect("ls") {
        let meta = fs::symlink_metadata(object.join(&listed.path)).expect("stat");
        let mode = match listed.kind {
            ListedKind::Dir => 0o555,
            ListedKind::File { executable, .. } => {
                if executable {
                    0o555
                } else {
                    0o444
                }
            }
            ListedKind::Link(_) => 0o777,
        };
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (mode, 1), "{}", listed.path.display());
    }
    assert_eq!(fs::read(object.join("data/usr/lib/early.so")).expect("read"), b"moves below usr");
    assert_eq!(fs::read(object.join("data/usr/lib/l")).expect("read"), noise(1, 300_000));
    let inode = |name: &str| fs::metadata(object.join("data/usr/bin").join(name)).expect("stat").ino();
    assert_eq!(inode("x"), inode("y"), "one content, two names");
    assert_eq!(fs::read(object.join("control/postinst")).expect("read"), b"#!/bin/sh\n");
    assert!(!object.join("data/lib").exists());

    let report = store.verify(true, &Silent).expect("verify");
    assert!(report.is_good() && report.checked == 1, "{report:?}");
    let info = store.path_info(&path).expect("info").expect("valid");
    assert_eq!(info.content_address.as_deref().map(|ca| &ca[..15]), Some("fixed:r:sha256:"));
    drop(store);
    assert!(staging_is_empty(&dir.join("root")));
}

#[test]
fn the_same_archive_is_the_same_object_for_everybody() {
    let (_guard, dir) = tempdir();
    for name in ["root", "debs"] {
        fs::create_dir(dir.join(name)).expect("mkdir");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let mut program = helper("adds", &[("COUNT", "3"), ("LC_ALL", "C"), ("TZ", "Asia/Tokyo")]);
    program.env("ROOT", dir.join("root")).env("DEBS", dir.join("debs"));
    if !as_ordinary_user(&mut program) {
        return;
    }
    let script = "umask 077; exec \"$0\" \"$@\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).arg(program.get_program()).args(program.get_args());
    shell.envs(program.get_envs().filter_map(|(k, v)| Some((k, v?))));
    as_ordinary_user(&mut shell);
    let output = shell.output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let theirs: BTreeSet<String> = text.lines().filter_map(|l| l.strip_prefix("path=")).map(str::to_owned).collect();

    let (_guard, mine) = tempdir();
    let store = Store::open(&mine.join("root")).expect("open");
    let ours = add(&store, &debs_in(&mine, 3)).iter().map(ToString::to_string).collect();
    assert_eq!(theirs, ours);
    let file = fs::read_dir(dir.join("root/nix/store")).expect("list").flatten().find(|e| e.file_name() != ".links");
    let meta = fs::metadata(file.expect("object").path().join("data/usr/bin/x")).expect("stat");
    assert_eq!(meta.mode() & 0o777, 0o555, "whatever the umask");
}

#[test]
fn archives_in_any_order_hash_alike() {
    // Out of the order of a Nix archive, so that the tree has to be read again.
    let sorted = Tar::default().dir("./usr/").dir("./usr/a/").file("./usr/a/x", b"1").file("./usr/b", b"2");
    let mixed = Tar::default().file("./usr/b", b"2").file("./usr/a/x", b"1").dir("./usr/a/").dir("./usr/");
    let hash = |tar: Tar| {
        let (_guard, dir) = tempdir();
        let store = Store::open(&dir.join("root")).expect("open");
        let path = add(&store, &[write_deb(&dir, "x", tar)]).remove(0);
        assert!(store.verify(true, &Silent).expect("verify").is_good());
        path
    };
    assert_eq!(hash(sorted), hash(mixed));
}

#[test]
fn both_halves_of_a_split_system_become_one() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let tar = Tar::default()
        .dir("./bin/")
        .exe("./bin/a", b"a")
        .link("./sbin", "usr/sbin")
        .dir("./usr/")
        .dir("./usr/bin/")
        .exe("./usr/bin/b", b"b")
        .dir("./usr/sbin/")
        .hard("./usr/sbin/a", "./bin/a");
    let path = add(&store, &[write_deb(&dir, "x", tar)]).remove(0);
    let data = store.physical(&path).join("data");
    for (name, content) in [("usr/bin/a", "a"), ("usr/bin/b", "b"), ("usr/sbin/a", "a")] {
        assert_eq!(fs::read_to_string(data.join(name)).expect(name), content);
    }
    assert_eq!(fs::read_dir(&data).expect("list").count(), 1);
    // The same path from both halves is a collision, not a merge.
    let tar = Tar::default().exe("./bin/a", b"a").exe("./usr/bin/a", b"a");
    let error = store.add_debs(&[write_deb(&dir, "y", tar)], &Silent, 1).expect_err("twice");
    assert!(matches!(error, StoreError::Deb { .. }));
}

#[test]
fn known_archives_are_not_unpacked_again_and_their_absence_is_no_matter() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let debs = debs_in(&dir, 3);
    let first = add(&store, &debs);
    debs.iter().for_each(|deb| fs::remove_file(&deb.path).expect("remove"));
    assert_eq!(add(&store, &debs), first);
    let digests: Vec<_> = debs.iter().map(|d| d.sha256).collect();
    let known: Vec<_> = store.deb_paths(&digests).expect("ask").into_iter().flatten().collect();
    assert_eq!(known, first);
}

#[test]
fn archives_arrive_one_by_one_from_many_threads() {
    struct Count(Mutex<u64>);
    impl Reporter for Count {
        fn event(&self, event: Event) {
            if let Event::Advanced { by, .. } = event {
                *self.0.lock().expect("lock") += by;
            }
        }
    }
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let debs = debs_in(&dir, 12);
    let importer = store.importer(2);
    std::thread::scope(|scope| {
        for some in debs.chunks(3) {
            let importer = &importer;
            scope.spawn(move || some.iter().for_each(|deb| importer.submit(deb.clone())));
        }
    });
    importer.submit(debs[0].clone());
    let count = Count(Mutex::new(0));
    let paths = importer.finish(&count).expect("finish");
    assert_eq!(paths.len(), 12);
    assert_eq!(*count.0.lock().expect("lock"), 13);
    assert_eq!(store.list().expect("list").len(), 12);
    assert!(store.verify(true, &Silent).expect("verify").is_good());
}

#[test]
fn one_bad_archive_leaves_nothing_behind_and_is_named() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let store = Store::open(&root).expect("open");
    let mut debs = debs_in(&dir, 5);
    let bad = &mut debs[3];
    let mut bytes = fs::read(&bad.path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bad.path, &bytes).expect("write");
    let error = store.add_debs(&debs, &Silent, 2).expect_err("tampered");
    assert!(matches!(&error, StoreError::DebDigest { path, .. } if path.ends_with("p3.deb")), "{error:?}");
    assert_eq!(object_count(&root), 0);
    fs::write(&debs[3].path, &bytes[..middle]).expect("write");
    let error = store.add_debs(&debs, &Silent, 2).expect_err("truncated");
    assert!(matches!(&error, StoreError::DebSize { path, .. } if path.ends_with("p3.deb")), "{error:?}");
    // Even if it was truncated before the index was made.
    let short = write_bytes(&dir, "p3", "1.0-1", &bytes[..middle]);
    let error = store.add_debs(&[short], &Silent, 2).expect_err("truncated");
    assert!(matches!(&error, StoreError::Deb { .. }), "{error:?}");
    drop(store);
    assert_eq!(object_count(&root), 0);
    assert!(staging_is_empty(&root));
}
