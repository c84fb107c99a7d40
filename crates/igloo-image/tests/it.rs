//! Images made of hand-made packages, read back as others read them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use igloo_base::System;
use igloo_base::event::Silent;
use igloo_env::{Attr, AttrKind, Environment};
use igloo_formats::deb::meta::{Entry as MetaEntry, Kind, META_FORMAT, Meta};
use igloo_formats::nix::StorePath;
use igloo_formats::oci::{Config, Descriptor, media};
use igloo_image::content::{Content, Packed};
use igloo_image::export::{self, Export};
use igloo_image::plan::PlannedLayer;
use igloo_image::reader::{ReadKind, walk};
use igloo_image::tree::ImageTree;
use igloo_image::{
    Account, Additions, Blobs, BuiltImage, Compression, ImageError, ImageSpec, Package, PackageKind, build, join,
};

const HASHES: [&str; 6] = [
    "0ff6i579ks18y9yf2k8dnprmhlc4nrbf",
    "1ff6i579ks18y9yf2k8dnprmhlc4nrbf",
    "2ff6i579ks18y9yf2k8dnprmhlc4nrbf",
    "3ff6i579ks18y9yf2k8dnprmhlc4nrbf",
    "4ff6i579ks18y9yf2k8dnprmhlc4nrbf",
    "5ff6i579ks18y9yf2k8dnprmhlc4nrbf",
];

fn store_path(at: usize, name: &str) -> StorePath {
    StorePath::parse(&format!("{}-{name}", HASHES[at])).expect("a store path")
}

/// A path of a package: name, what it is (`Ok` is content, `Err` a link), mode and owner.
type Row<'a> = (&'a str, Option<Result<&'a str, &'a str>>, u32, u32);

fn package(root: &Path, at: usize, name: &str, rows: &[Row<'_>]) -> Package {
    let path = store_path(at, &format!("deb-{name}-1-amd64"));
    let physical = root.join(path.to_string());
    let data = physical.join("data");
    std::fs::create_dir_all(&data).expect("data");
    std::fs::create_dir_all(physical.join("control")).expect("control");
    std::fs::write(physical.join("control/control"), format!("Package: {name}\nMulti-Arch: same\n")).expect("control");
    let mut entries = Vec::new();
    for (path, what, mode, uid) in rows {
        let mut entry = MetaEntry {
            path: (*path).to_owned(),
            kind: Kind::Dir,
            mode: *mode,
            uid: *uid,
            gid: *uid,
            uname: String::new(),
            gname: String::new(),
            size: 0,
            target: None,
            xattrs: Vec::new(),
        };
        match what {
            None => std::fs::create_dir(data.join(path)).expect("a directory"),
            Some(Ok(text)) => {
                std::fs::write(data.join(path), text).expect("a file");
                entry.kind = Kind::File;
                entry.size = text.len() as u64;
            }
            Some(Err(target)) => match target.strip_prefix("hard:") {
                Some(target) => {
                    std::fs::copy(data.join(target), data.join(path)).expect("a second name");
                    entry.kind = Kind::Hard;
                    entry.target = Some(target.to_owned());
                }
                None => {
                    std::os::unix::fs::symlink(target, data.join(path)).expect("a link");
                    entry.kind = Kind::Link;
                    entry.target = Some((*target).to_owned());
                }
            },
        }
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let meta = Meta {
        format: META_FORMAT,
        name: name.to_owned(),
        version: "1".to_owned(),
        architecture: "amd64".to_owned(),
        conffiles: Vec::new(),
        entries,
    };
    std::fs::write(physical.join("meta.json"), serde_json::to_vec(&meta).expect("JSON")).expect("meta.json");
    let (name, version, architecture) = (name.to_owned(), "1".to_owned(), "amd64".to_owned());
    Package { kind: PackageKind::Debian, path, physical, name, version, architecture }
}

/// Two packages, a generated layer, own code.
fn spec(root: &Path) -> ImageSpec {
    let a = package(
        root,
        0,
        "a",
        &[
            ("usr", None, 0o755, 0),
            ("usr/bin", None, 0o755, 0),
            ("usr/bin/a", Some(Ok("program a")), 0o755, 0),
            ("usr/bin/a2", Some(Err("hard:usr/bin/a")), 0o755, 0),
            ("usr/bin/su", Some(Ok("set uid")), 0o4755, 0),
            ("var", None, 0o755, 0),
            ("var/spool", None, 0o1777, 0),
        ],
    );
    let b = package(
        root,
        1,
        "b",
        &[
            ("usr", None, 0o755, 0),
            ("usr/bin", None, 0o755, 0),
            ("usr/bin/b", Some(Err("a")), 0o777, 0),
            ("var", None, 0o755, 0),
            ("var/lib", None, 0o755, 0),
            ("var/lib/b", None, 0o755, 0),
            ("var/lib/b/data", Some(Ok("data")), 0o640, 0),
        ],
    );
    let path = store_path(2, "env-images.x");
    let generated = root.join(path.to_string()).join("root");
    std::fs::create_dir_all(generated.join("etc")).expect("etc");
    std::fs::create_dir_all(generated.join("var/lib/dpkg/info")).expect("info");
    std::fs::write(generated.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
    std::fs::write(generated.join("etc/group"), "root:x:0:\n").expect("group");
    std::fs::write(generated.join("var/lib/dpkg/info/a:amd64.list"), "in the layer of its package").expect("list");
    let attr = |path: &str, kind, mode, uid| Attr { path: path.to_owned(), kind, mode, uid, gid: uid };
    let copy = store_path(3, "copy-images.x");
    let code = root.join(copy.to_string()).join("data");
    std::fs::create_dir_all(code.join("srv/app")).expect("code");
    std::fs::create_dir_all(code.join("var/spool")).expect("code");
    std::fs::write(code.join("srv/app/main.py"), "print()\n").expect("code");
    ImageSpec {
        name: "x (amd64)".to_owned(),
        system: System::X86_64Linux,
        environment: Environment {
            path,
            root: generated,
            members: vec![(a.path.clone(), a.physical.clone()), (b.path.clone(), b.physical.clone())],
            layers: Vec::new(),
            attrs: vec![
                attr("usr/bin/su", AttrKind::File, 0o4755, 0),
                attr("var/lib/b/data", AttrKind::File, 0o640, 33),
                attr("var/spool", AttrKind::Dir, 0o1777, 0),
            ],
            env: BTreeMap::new(),
            users: Vec::new(),
            groups: Vec::new(),
        },
        weights: vec![10, 20],
        packages: vec![a, b],
        layers: vec![
            PlannedLayer { name: "low".to_owned(), packages: vec![1] },
            PlannedLayer { name: "high".to_owned(), packages: vec![0] },
        ],
        profile: None,
        copies: vec![(copy, code)],
        additions: Additions {
            account: Some(Account {
                name: "app".to_owned(),
                id: 1000,
                home: "/home/app".to_owned(),
                shell: "/usr/sbin/nologin".to_owned(),
            }),
            directories: vec![("/data".to_owned(), 1000, 1000), ("/usr/bin".to_owned(), 1000, 1000)],
            ..Additions::default()
        },
        config: Config { user: Some("1000:1000".to_owned()), ..Config::default() },
        created: Some("2026-11-20T00:00:00Z".to_owned()),
        annotations: BTreeMap::new(),
    }
}

fn made(root: &Path, blobs: &Blobs, compression: Compression) -> BuiltImage {
    let mut built = build(blobs, &[spec(root)], compression, &Silent).expect("an image");
    built.remove(0)
}

/// Every layer of an image, one line an entry.
fn listed(content: &dyn Content, tree: &ImageTree) -> String {
    let mut text = String::new();
    for image in &tree.images {
        for (at, (blob, diff_id)) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).enumerate() {
            let (found, _) = walk(content, blob, "x", &mut |entry, from| {
                let what = match &entry.kind {
                    ReadKind::Dir => "dir".to_owned(),
                    ReadKind::Link(target) => format!("-> {target}"),
                    ReadKind::Hard(target) => format!("== {target}"),
                    ReadKind::Gone => "gone".to_owned(),
                    ReadKind::Opaque => "opaque".to_owned(),
                    ReadKind::File(_) => {
                        let mut content = String::new();
                        from.read_to_string(&mut content).expect("content");
                        format!("{content:?}")
                    }
                };
                text += &format!("{at} {:04o} {}:{} {} {what}\n", entry.mode, entry.uid, entry.gid, entry.path);
                Ok(())
            })
            .expect("a layer");
            assert_eq!(found, *diff_id);
        }
    }
    text
}

fn check(text: &str, expect: Expect) {
    expect.assert_eq(text);
}

/// A store path of Nix's.
fn of_nix(root: &Path, at: usize, name: &str) -> Package {
    let path = store_path(at, name);
    let physical = root.join(path.to_string());
    let (name, version, architecture) = (format!("nix:{name}"), "1".to_owned(), "amd64".to_owned());
    Package { kind: PackageKind::Nix, path, physical, name, version, architecture }
}

#[test]
fn store_paths_are_as_nix_has_them_and_links_go_into_directories_that_are_there() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let tool = of_nix(root, 4, "tool");
    let script = of_nix(root, 5, "script.sh");
    std::fs::create_dir_all(tool.physical.join("bin")).expect("mkdir");
    std::fs::create_dir_all(tool.physical.join("share/doc")).expect("mkdir");
    std::fs::write(tool.physical.join("bin/tool"), "a tool").expect("write");
    std::fs::write(tool.physical.join("share/note"), "a note").expect("write");
    std::os::unix::fs::symlink(format!("/nix/store/{}", script.path), tool.physical.join("bin/other")).expect("link");
    std::fs::set_permissions(tool.physical.join("bin/tool"), PermissionsExt::from_mode(0o700)).expect("chmod");
    std::fs::write(&script.physical, "a file alone").expect("write");
    let profile = store_path(3, "profile-x");
    let data = root.join(profile.to_string()).join("data");
    std::fs::create_dir_all(data.join("usr/local")).expect("mkdir");
    for name in ["bin", "share"] {
        let target = format!("/nix/store/{}/{name}", tool.path);
        std::os::unix::fs::symlink(target, data.join("usr/local").join(name)).expect("link");
    }
    let mut spec = spec(root);
    // Debian's has one of these directories; the other is Nix's alone.
    let own = [("usr", None, 0o755, 0), ("usr/local", None, 0o755, 0), ("usr/local/share", None, 0o755, 0)];
    spec.packages = vec![package(root, 0, "c", &own), tool, script];
    spec.weights = vec![1, 1, 1];
    spec.layers = vec![
        PlannedLayer { name: "debian".to_owned(), packages: vec![0] },
        PlannedLayer { name: "nix".to_owned(), packages: vec![1, 2] },
    ];
    spec.profile = Some((profile, data));
    spec.copies.clear();
    spec.additions = Additions::default();
    let blobs = Blobs::new(root.join("oci"));
    let built = build(&blobs, &[spec], Compression::None, &Silent).expect("an image");
    assert_eq!(built[0].layers[1].packages, ["nix:tool=1", "nix:script.sh=1"]);
    let tree = ImageTree::read("x", &blobs, &built[0].manifest).expect("documents");
    let all = listed(&blobs, &tree);
    let of_nix: Vec<&str> = all.lines().filter(|line| line.starts_with('1') || line.contains("usr/local")).collect();
    check(
        &of_nix.join("\n"),
        expect![[r#"
        0 0755 0:0 usr/local dir
        0 0755 0:0 usr/local/share dir
        0 0644 0:0 var/lib/dpkg/info/c:amd64.list "/.\n/usr\n/usr/local\n/usr/local/share\n"
        1 0755 0:0 nix dir
        1 0755 0:0 nix/store dir
        1 0555 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool dir
        1 0555 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/bin dir
        1 0777 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/bin/other -> /nix/store/5ff6i579ks18y9yf2k8dnprmhlc4nrbf-script.sh
        1 0555 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/bin/tool "a tool"
        1 0555 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/share dir
        1 0555 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/share/doc dir
        1 0444 0:0 nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/share/note "a note"
        1 0444 0:0 nix/store/5ff6i579ks18y9yf2k8dnprmhlc4nrbf-script.sh "a file alone"
        2 0755 0:0 usr/local dir
        2 0777 0:0 usr/local/bin -> /nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/bin
        2 0755 0:0 usr/local/share dir
        2 0777 0:0 usr/local/share/doc -> /nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/share/doc
        2 0777 0:0 usr/local/share/note -> /nix/store/4ff6i579ks18y9yf2k8dnprmhlc4nrbf-tool/share/note"#]],
    );
}

#[test]
fn layers_hold_packages_then_what_is_generated_then_code() {
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path().join("oci"));
    let built = made(root.path(), &blobs, Compression::Zstd);
    let tree = ImageTree::read("x", &blobs, &built.manifest).expect("documents");
    check(
        &listed(&blobs, &tree),
        expect![[r#"
        0 0755 0:0 usr dir
        0 0755 0:0 usr/bin dir
        0 0777 0:0 usr/bin/b -> a
        0 0755 0:0 var dir
        0 0755 0:0 var/lib dir
        0 0755 0:0 var/lib/b dir
        0 0640 0:0 var/lib/b/data "data"
        0 0755 0:0 var/lib/dpkg dir
        0 0755 0:0 var/lib/dpkg/info dir
        0 0644 0:0 var/lib/dpkg/info/b:amd64.list "/.\n/usr\n/usr/bin\n/usr/bin/b\n/var\n/var/lib\n/var/lib/b\n/var/lib/b/data\n"
        1 0755 0:0 usr dir
        1 0755 0:0 usr/bin dir
        1 0755 0:0 usr/bin/a "program a"
        1 0755 0:0 usr/bin/a2 == usr/bin/a
        1 4755 0:0 usr/bin/su "set uid"
        1 0755 0:0 var dir
        1 0755 0:0 var/lib dir
        1 0755 0:0 var/lib/dpkg dir
        1 0755 0:0 var/lib/dpkg/info dir
        1 0644 0:0 var/lib/dpkg/info/a:amd64.list "/.\n/usr\n/usr/bin\n/usr/bin/a\n/usr/bin/a2\n/usr/bin/su\n/var\n/var/spool\n"
        1 1777 0:0 var/spool dir
        2 0755 1000:1000 data dir
        2 0755 0:0 etc dir
        2 0644 0:0 etc/group "root:x:0:\napp:x:1000:\n"
        2 0644 0:0 etc/passwd "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/usr/sbin/nologin\n"
        2 0755 0:0 home dir
        2 0755 1000:1000 home/app dir
        2 0755 0:0 var dir
        2 0755 0:0 var/lib dir
        2 0755 0:0 var/lib/b dir
        2 0640 33:33 var/lib/b/data "data"
        2 0755 0:0 var/lib/dpkg dir
        2 0755 0:0 var/lib/dpkg/info dir
        3 0755 0:0 srv dir
        3 0755 0:0 srv/app dir
        3 0644 0:0 srv/app/main.py "print()\n"
        3 0755 0:0 var dir
        3 1777 0:0 var/spool dir
    "#]],
    );
}

#[test]
fn the_same_input_gives_the_same_bytes_whoever_packs_it() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for compression in [Compression::Zstd, Compression::Gzip] {
        let first = made(one.path(), &Blobs::new(one.path().join("oci")), compression);
        std::fs::remove_dir_all(one.path().join("oci")).expect("removed");
        let second = made(two.path(), &Blobs::new(two.path().join("oci")), compression);
        assert_eq!(first, second, "{compression:?}");
        for path in [one.path(), two.path()] {
            for entry in std::fs::read_dir(path).expect("listed").flatten() {
                std::fs::remove_dir_all(entry.path()).expect("removed");
            }
        }
    }
}

#[test]
fn what_is_remembered_is_believed_only_with_its_blobs() {
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path().join("oci"));
    let spec = spec(root.path());
    let make = || build(&blobs, std::slice::from_ref(&spec), Compression::Zstd, &Silent).expect("an image").remove(0);
    let first = make();
    let layer = blobs.path(&first.layers[0].layer.blob.digest);
    std::fs::remove_file(&layer).expect("removed");
    assert_eq!(make(), first);
    assert!(layer.exists());
    for record in std::fs::read_dir(root.path().join("oci/layers")).expect("listed").flatten() {
        std::fs::write(record.path(), "{ half").expect("damaged");
    }
    for record in std::fs::read_dir(root.path().join("oci/images")).expect("listed").flatten() {
        std::fs::write(record.path(), "").expect("damaged");
    }
    assert_eq!(make(), first);
}

#[test]
fn a_package_that_is_not_what_its_record_says_is_no_image() {
    let root = tempfile::tempdir().expect("a directory");
    let spec = spec(root.path());
    std::fs::write(spec.packages[0].physical.join("data/usr/bin/a"), "longer than the record says").expect("damaged");
    let blobs = Blobs::new(root.path().join("oci"));
    let error = build(&blobs, &[spec], Compression::Zstd, &Silent).expect_err("damage");
    assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    let left: Vec<PathBuf> =
        std::fs::read_dir(blobs.directory()).expect("listed").flatten().map(|e| e.path()).collect();
    assert!(left.iter().all(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'))), "{left:?}");
}

#[test]
fn others_forms_hold_the_same_image() {
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path().join("oci"));
    let built = made(root.path(), &blobs, Compression::Zstd);
    let top = join(&blobs, &[built], &BTreeMap::new()).expect("a name");
    let tree = ImageTree::read("x", &blobs, &top).expect("documents");
    let expected = listed(&blobs, &tree);
    let exports = || [Export { tree: &tree, names: vec!["r.example/x:1".to_owned()] }];
    let (layout, oci, docker) = (root.path().join("layout"), root.path().join("o.tar"), root.path().join("d.tar"));
    export::layout(&blobs, &exports(), &layout).expect("a layout");
    export::layout(&blobs, &exports(), &layout).expect("a layout over a layout");
    export::oci_archive(&blobs, &exports(), &oci).expect("an archive");
    export::docker_archive(&blobs, &exports(), "amd64", &docker).expect("an archive");
    for path in [layout, oci, docker] {
        let packed = Packed::open(&path).expect("opened");
        let tops = packed.tops().expect("an index");
        let [(top, name)] = tops.as_slice() else { panic!("{tops:?}") };
        assert_eq!(name.as_deref(), Some("r.example/x:1"), "{}", path.display());
        let read = ImageTree::read("x", &packed, top).expect("documents");
        assert_eq!(listed(&packed, &read), expected, "{}", path.display());
        assert_eq!(read.images[0].config, tree.images[0].config);
    }
}

/// All that an error says.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
}

/// A layer of raw tar blocks.
fn layer_of(blobs: &Blobs, media_type: &str, tar: &[u8]) -> Descriptor {
    blobs.put(media_type, tar).expect("a blob")
}

fn raw(path: &str, kind: tar::EntryType, link: Option<&str>) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    if let Some(link) = link {
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    [header.as_bytes().as_slice(), &[0; 1024]].concat()
}

#[test]
fn hostile_layers_are_refused() {
    use tar::EntryType;
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path());
    let refused = |media_type: &str, bytes: &[u8]| {
        let blob = layer_of(&blobs, media_type, bytes);
        walk(&blobs, &blob, "x", &mut |_, _| Ok(())).map(drop).expect_err("refused").to_string()
    };
    for (path, kind, link) in [
        ("../etc/passwd", EntryType::Regular, None),
        ("a/../../b", EntryType::Regular, None),
        ("a/.wh...", EntryType::Regular, None),
        (".wh..", EntryType::Regular, None),
        ("a", EntryType::Link, Some("../../etc/shadow")),
        ("a", EntryType::Link, None),
        ("a", EntryType::Symlink, None),
        ("./", EntryType::Regular, None),
    ] {
        let said = refused(media::LAYER, &raw(path, kind, link));
        assert!(said.contains("is refused") || said.contains("cannot be read"), "{path}: {said}");
    }
    assert!(refused(media::LAYER, &[1; 700]).contains("cannot be read"));
    assert!(refused(media::LAYER_GZIP, b"not gzip at all").contains("cannot be read"));
    assert!(refused(media::LAYER_ZSTD, b"not zstd at all").contains("cannot be read"));
    assert!(refused("application/x-thing", b"").contains("does not read"));
    // Devices and pipes have no meaning in an image, and are no reason to refuse it.
    let blob = layer_of(&blobs, media::LAYER, &raw("dev/sda", EntryType::Block, None));
    let mut seen = 0;
    walk(&blobs, &blob, "x", &mut |_, _| {
        seen += 1;
        Ok(())
    })
    .expect("read");
    assert_eq!(seen, 0);
}

#[test]
fn what_costs_nothing_to_claim_is_not_believed() {
    use tar::EntryType;
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path());
    let walked = |tar: &[u8]| {
        let bytes = zstd::encode_all(tar, 1).expect("compressed");
        assert!(bytes.len() < 10_000);
        let blob = blobs.put(media::LAYER_ZSTD, &bytes).expect("a blob");
        let mut seen = Vec::new();
        let result = walk(&blobs, &blob, "x", &mut |entry, _| {
            seen.push((entry.path, entry.kind));
            Ok(())
        });
        (result.map(drop).map_err(|e| chain(&e)), seen)
    };
    // Names and attributes are held in memory.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(64 << 20);
        header.set_cksum();
        let tar = [header.as_bytes().as_slice(), &vec![0; 64 << 20], &raw("a", EntryType::Regular, None)].concat();
        let (result, seen) = walked(&tar);
        assert!(result.expect_err("refused").contains("too long") && seen.is_empty(), "{kind:?}");
    }
    // A file that is nothing but a hole.
    let mut header = tar::Header::new_gnu();
    header.set_path("hole").expect("a path");
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("GNU");
    gnu.set_real_size(1 << 32 << 10);
    gnu.sparse[0].set_offset(1 << 32 << 10);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let (result, _) = walked(&[header.as_bytes().as_slice(), &[0; 1024]].concat());
    assert!(result.expect_err("refused").contains("too large"));
    // Large content is read in pieces, whoever looks at it or not.
    let mut header = tar::Header::new_gnu();
    header.set_path("large").expect("a path");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(64 << 20);
    header.set_cksum();
    let tar = [header.as_bytes().as_slice(), &vec![0; 64 << 20], &raw("a", EntryType::Regular, None)].concat();
    let (result, seen) = walked(&tar);
    result.expect("read");
    assert_eq!(seen, [("large".to_owned(), ReadKind::File(64 << 20)), ("a".to_owned(), ReadKind::File(0))]);
}

#[test]
fn nobody_waits_at_a_pipe_that_is_called_an_image() {
    let root = tempfile::tempdir().expect("a directory");
    let pipe = root.path().join("index.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let error = Packed::open(root.path()).and_then(|p| p.tops()).expect_err("refused");
    assert!(chain(&error).contains("no regular file"));
    assert!(Packed::open(&pipe).is_err());
}

#[test]
fn documents_that_lie_are_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::new(root.path());
    let read = |top: &Descriptor| ImageTree::read("x", &blobs, top).map(drop).expect_err("refused").to_string();
    let config =
        blobs.put(media::CONFIG, br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let config = serde_json::to_string(&config.expect("a blob")).expect("JSON");
    let layer = serde_json::to_string(&Descriptor::of(media::LAYER, b"x")).expect("JSON");
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
    let top = blobs.put(media::MANIFEST, manifest.as_bytes()).expect("a blob");
    check(&read(&top), expect!["`x`: its manifest has 1 layers and its configuration 0"]);
    let gone = Descriptor::of(media::MANIFEST, b"nowhere");
    check(
        &read(&gone),
        expect![
            "`x` names sha256:20aeff0494e828d188c704e1f488a589b15ae01d11f6cb129f62129caa6cc543, which is not in it"
        ],
    );
    let mut file = std::fs::File::create(blobs.path(&top.digest)).expect("opened");
    file.write_all(b"other content").expect("written");
    check(
        &read(&top),
        expect![
            "sha256:c09d9516328a44d651a0fc75e85dce7fd7adb848005dc73ae41a7b7c2c03d28c of `x` has other content than its digest says"
        ],
    );
    let huge = Descriptor { size: 1 << 40, ..top };
    assert!(read(&huge).contains("too large"));
}
