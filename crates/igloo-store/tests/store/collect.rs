//! What stays and what goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use igloo_base::event::Silent;
use igloo_base::file::FileLock;
use igloo_store::{Holder, Store, StoreError};

use crate::support::*;

fn nobody(_: &igloo_formats::nix::StorePath) -> bool {
    false
}

/// Adds packages by a process that is gone afterwards, so that its temporary roots are gone as well.
fn add_by_another(root: &Path, debs: &Path, count: u32) -> Vec<igloo_formats::nix::StorePath> {
    let output =
        helper("adds", &[("COUNT", &count.to_string())]).env("ROOT", root).env("DEBS", debs).output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|l| l.strip_prefix("path=")).map(|p| p.parse().expect("path")).collect()
}

#[test]
fn what_roots_reach_stays_and_the_rest_goes() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let paths = add_by_another(&root, &dir, 4);
    let store = Store::open(&root).expect("open");
    let staged = store
        .stage::<StoreError>("env-default", &paths[..2], |out| {
            fs::write(out.join("env.json"), format!("{} {}", paths[0].full(), paths[1].full())).expect("write");
            Ok(())
        })
        .expect("stage");
    let env = store.commit(vec![staged]).expect("commit").remove(0);
    assert_eq!(env.references.len(), 2);
    store.add_root("demo-12345678", "shells.default", &env.path).expect("root");
    drop(store);

    let store = Store::open(&root).expect("open");
    assert_eq!(store.root_target("demo-12345678", "shells.default").expect("target"), Some(env.path.clone()));
    assert_eq!(store.referrers(&paths[0]).expect("referrers"), std::slice::from_ref(&env.path));
    assert_eq!(store.closure(std::slice::from_ref(&env.path)).expect("closure").len(), 3);
    let mut doomed = paths[2..].to_vec();
    doomed.sort();

    let dry = store.collect(true, &nobody, &Silent).expect("dry run");
    assert_eq!(dry.dead.iter().map(|(p, _)| p.clone()).collect::<Vec<_>>(), doomed);
    assert_eq!(object_count(&root), 5);
    let holder = Holder::Project { project: "demo-12345678".into(), key: "shells.default".into() };
    assert!(dry.kept.iter().all(|(_, r)| r.holder == holder), "{:?}", dry.kept);
    assert_eq!(dry.kept.len(), 3);
    assert!(dry.freed >= 600_000, "two files of 300 kB: {}", dry.freed);
    assert!(dry.freed < 900_000, "hard links are counted once: {}", dry.freed);

    let asked = doomed[0].clone();
    let real = store.collect(false, &|p| *p == asked, &Silent).expect("collect");
    assert_eq!(real.dead, [dry.dead[1].clone()]);
    assert_eq!(object_count(&root), 4);
    let real = store.collect(false, &nobody, &Silent).expect("collect");
    assert_eq!(real.dead, [dry.dead[0].clone()]);
    assert!(store.verify(true, &Silent).expect("verify").is_good());
    assert_eq!(store.list().expect("list").len(), 3);

    store.remove_root("demo-12345678", "shells.default").expect("remove");
    assert_eq!(store.collect(false, &nobody, &Silent).expect("collect").dead.len(), 3);
    assert_eq!(object_count(&root), 0);
    assert!(fs::read_dir(root.join("nix/var/igloo/debs/1")).expect("list").next().is_none(), "the map is empty, too");
}

#[test]
fn an_archive_whose_object_was_collected_is_unpacked_again() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let before = add_by_another(&root, &dir, 2);
    let store = Store::open(&root).expect("open");
    store.collect(false, &nobody, &Silent).expect("collect");
    let debs = debs_in(&dir, 2);
    assert_eq!(store.deb_path(&debs[0].sha256).expect("ask"), None);
    assert_eq!(add(&store, &debs), before);
    assert_eq!(store.deb_path(&debs[0].sha256).expect("ask"), Some(before[0].clone()));
}

#[test]
fn what_a_living_process_protects_stays() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let paths = add_by_another(&root, &dir, 2);
    let store = Store::open(&root).expect("open");
    let mut child = helper("protects", &[("PATHS", &paths[0].to_string())])
        .env("ROOT", &root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let out = BufReader::new(child.stdout.take().expect("stdout"));
    assert!(out.lines().map_while(Result::ok).any(|line| line.contains("ready")));
    let report = store.collect(false, &nobody, &Silent).expect("collect");
    assert_eq!(report.kept.len(), 1);
    assert_eq!(
        (report.kept[0].0.clone(), report.kept[0].1.holder.clone()),
        (paths[0].clone(), Holder::Temporary(child.id()))
    );
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(store.collect(false, &nobody, &Silent).expect("collect").dead.len(), 1);
    assert!(
        fs::read_dir(root.join("nix/var/nix/temproots")).expect("list").next().is_none(),
        "the dead one's file is gone"
    );
}

#[test]
fn roots_are_read_as_nix_reads_them() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let paths = add_by_another(&root, &dir, 5);
    let state = root.join("nix/var/nix");
    let link = |at: &Path, to: &Path| std::os::unix::fs::symlink(to, at).expect("symlink");
    fs::create_dir_all(state.join("profiles/per-user/someone")).expect("mkdir");
    link(&state.join("profiles/per-user/someone/profile-1-link"), Path::new(&paths[0].full()));
    link(&dir.join("result"), Path::new(&format!("{}/data", paths[1].full())));
    link(&state.join("gcroots/auto/abc"), &dir.join("result"));
    fs::write(state.join("gcroots").join(paths[2].base_name()), "").expect("write");
    link(&state.join("gcroots/dangling"), Path::new("/nowhere"));
    let store = Store::open(&root).expect("open");
    let report = store.collect(false, &nobody, &Silent).expect("collect");
    let kept: Vec<_> = report.kept.iter().map(|(p, _)| p.clone()).collect();
    let mut expected = paths[..3].to_vec();
    expected.sort();
    assert_eq!(kept, expected);
    let why = |path| report.kept.iter().find(|(p, _)| *p == path).map(|(_, r)| r.holder.clone());
    assert_eq!(why(paths[1].clone()), Some(Holder::Link(dir.join("result"))));
}

#[test]
fn garbage_goes_unless_it_is_locked() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let store = Store::open(&root).expect("open");
    let objects = root.join("nix/store");
    fs::create_dir_all(objects.join("00000000000000000000000000000000-half/data/x")).expect("mkdir");
    fs::write(objects.join("00000000000000000000000000000000-half.lock"), "").expect("write");
    fs::write(objects.join("odd name"), "x").expect("write");
    let held = objects.join("11111111111111111111111111111111-other.lock");
    let lock = FileLock::exclusive(&held).expect("lock");
    let dry = store.collect(true, &nobody, &Silent).expect("dry run");
    let report = store.collect(false, &nobody, &Silent).expect("collect");
    assert_eq!(dry, report);
    assert_eq!(report.orphans.len(), 3, "{:?}", report.orphans);
    assert!(held.exists());
    drop(lock);
    store.collect(false, &nobody, &Silent).expect("collect");
    assert_eq!(object_count(&root), 0);
}

#[test]
fn bad_names_and_invalid_objects_get_no_root() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let path = igloo_formats::nix::StorePath::parse("00000000000000000000000000000000-x").expect("path");
    assert!(matches!(store.add_root("p", "k", &path), Err(StoreError::NotValid(_))));
    for (project, key) in [("..", "k"), ("p", "../../x"), ("", "k"), ("p", ""), ("p/q", "k"), ("p", ".k")] {
        assert!(matches!(store.add_root(project, key, &path), Err(StoreError::BadRoot(_))), "{project} {key}");
        assert!(store.root_target(project, key).is_err());
    }
    let staged = store
        .stage::<StoreError>("env", std::slice::from_ref(&path), |out| {
            fs::write(out.join("f"), "").expect("write");
            Ok(())
        })
        .expect("stage");
    assert!(matches!(store.commit(vec![staged]), Err(StoreError::MissingReference { .. })));
    assert!(store.list().expect("list").is_empty());
}

#[test]
fn changed_and_missing_objects_are_found() {
    use std::os::unix::fs::PermissionsExt;
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let store = Store::open(&root).expect("open");
    let paths = add(&store, &debs_in(&dir, 3));
    let file = store.physical(&paths[0]).join("data/etc/x.conf");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(&file, "x = 2\n").expect("write");
    igloo_base::file::remove_tree(store.physical(&paths[1])).expect("remove");
    assert!(!store.exists(&paths[1]) && store.exists(&paths[2]));
    let quick = store.verify(false, &Silent).expect("verify");
    assert_eq!((quick.missing.as_slice(), quick.modified.len()), (&paths[1..2], 0));
    let full = store.verify(true, &Silent).expect("verify");
    assert_eq!(full.missing, paths[1..2]);
    assert_eq!(full.modified.iter().map(|(p, _, _)| p.clone()).collect::<Vec<_>>(), paths[..1]);
}

#[test]
fn a_store_of_somebody_else_can_be_read() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let paths = add_by_another(&root, &dir, 3);
    let mut program = helper("reads", &[]);
    program.env("ROOT", &root);
    if !as_ordinary_user(&mut program) {
        return;
    }
    let mut check = |expected: &str| {
        let output = program.output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("dry=3") || expected != "verified=3", "{text}");
    };
    check("verified=3");
    // While somebody writes.
    let store = Store::open(&root).expect("open");
    store.protect(&paths[..1]).expect("protect");
    add(&store, &[ordinary(&dir, "more", 99)]);
    check("verified=4");
    drop(store);
    // And if the log of the database is gone.
    for name in ["db.sqlite-wal", "db.sqlite-shm"] {
        let _ = fs::remove_file(root.join("nix/var/nix/db").join(name));
    }
    check("verified=4");
    assert!(matches!(Store::open_readonly(&dir.join("nothing")), Err(StoreError::NoStore(_))));
}
