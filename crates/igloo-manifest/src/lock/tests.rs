use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn relations(text: &str) -> Relations {
    Relations::parse(text).unwrap()
}

fn package(name: &str, v: &str, depends: &str) -> LockedPackage {
    LockedPackage {
        source: "debian".into(),
        name: name.into(),
        version: version(v),
        architecture: "amd64".into(),
        system: System::X86_64Linux,
        suite: "bookworm".into(),
        file: format!("pool/main/{}/{name}/{name}_{v}_amd64.deb", &name[..1]),
        size: 1000,
        sha256: Sha256::of(name.as_bytes()),
        installed_size: 12,
        essential: false,
        multi_arch: MultiArch::No,
        depends: relations(depends),
        recommends: Relations::default(),
        conflicts: Relations::default(),
        replaces: Relations::default(),
        provides: Relations::default(),
        priority: Priority::Optional,
        section: "misc".into(),
        store: None,
    }
}

fn small() -> Lock {
    let mut lock = Lock::new(Sha256::of(b"request"));
    (lock.triggers, lock.unpack) = (1, 1);
    let suite = LockedSuite {
        name: "bookworm".into(),
        codename: "bookworm".into(),
        date: "2026-09-05T09:21:41Z".into(),
        release: Sha256::of(b"release"),
        signers: vec!["4CB50190207B4758A3F73A796ED0E7B82643E131".into()],
        components: vec!["main".into()],
    };
    lock.sources.insert("debian".into(), LockedSource { suites: vec![suite], flakes: Vec::new() });
    let mut libc = package("libc6", "2.36-9+deb12u14", "");
    libc.multi_arch = MultiArch::Same;
    libc.conflicts = relations("locales (<< 2.36)");
    libc.store = Some(StorePath::parse("6l3zdvqyhs0k1cdbx0j8j0ivjyp94h6v-deb-libc6-2.36-9+deb12u14-amd64").unwrap());
    let mut bash = package("bash", "5.2.15-2+b13", "libc6 (>= 2.36), debianutils (>= 2.15) | libc6");
    (bash.essential, bash.priority) = (true, Priority::Required);
    // Out of order, to be put right.
    lock.packages = vec![libc, bash];
    lock.environments = vec![LockedEnvironment {
        key: "shells.default".into(),
        system: System::X86_64Linux,
        source: "debian".into(),
        roots: vec!["bash".into()],
        packages: vec![("libc6".into(), version("2.36-9+deb12u14")), ("bash".into(), version("5.2.15-2+b13"))],
        why: [("bash".into(), "root".into()), ("libc6".into(), "bash".into())].into(),
    }];
    lock.users = vec![LockedUser {
        name: "postgres".into(),
        uid: 100,
        gid: 101,
        home: "/var/lib/postgresql".into(),
        shell: "/bin/bash".into(),
        gecos: "the \"database\" \\ élan\u{7}".into(),
        package: "postgresql-common".into(),
    }];
    lock.groups = vec![LockedGroup {
        name: "ssl-cert".into(),
        gid: 102,
        package: "ssl-cert".into(),
        members: vec!["postgres".into()],
    }];
    lock.scripts = [("g++".into(), "ignore".into()), ("udev".into(), "recipe".into())].into();
    lock
}

#[test]
fn the_text_of_a_lock() {
    expect![[r##"
        # Written by igloo; keep it under version control. To change it, edit igloo.toml and run `igloo lock`.
        version = 1
        request = "1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047"
        triggers = 1
        unpack = 1

        [source.debian]

        [[source.debian.suite]]
        name = "bookworm"
        codename = "bookworm"
        date = "2026-09-05T09:21:41Z"
        release = "a4d451ec23463726f72c43d64c710968f6b602cd653b4de8adee1b556240a829"
        signers = ["4CB50190207B4758A3F73A796ED0E7B82643E131"]
        components = ["main"]

        [[environment]]
        key = "shells.default"
        system = "x86_64-linux"
        source = "debian"
        roots = ["bash"]
        packages = [
          "bash 5.2.15-2+b13 root",
          "libc6 2.36-9+deb12u14 bash",
        ]

        [[package]]
        name = "bash"
        version = "5.2.15-2+b13"
        source = "debian"
        system = "x86_64-linux"
        architecture = "amd64"
        suite = "bookworm"
        file = "pool/main/b/bash/bash_5.2.15-2+b13_amd64.deb"
        size = 1000
        sha256 = "37d2b12d5d9abc2a364ef9448767ee03938e383c0284193477dc7618f4b7c6c2"
        installed-size = 12
        essential = true
        priority = "required"
        section = "misc"
        depends = "libc6 (>= 2.36), debianutils (>= 2.15) | libc6"

        [[package]]
        name = "libc6"
        version = "2.36-9+deb12u14"
        source = "debian"
        system = "x86_64-linux"
        architecture = "amd64"
        suite = "bookworm"
        file = "pool/main/l/libc6/libc6_2.36-9+deb12u14_amd64.deb"
        size = 1000
        sha256 = "fb9ce3b804ed6882db53398f268a9c8e59ab103221188aee6513dfddde5b9aff"
        installed-size = 12
        multi-arch = "same"
        section = "misc"
        conflicts = "locales (<< 2.36)"
        store = "6l3zdvqyhs0k1cdbx0j8j0ivjyp94h6v-deb-libc6-2.36-9+deb12u14-amd64"

        [[user]]
        name = "postgres"
        uid = 100
        gid = 101
        home = "/var/lib/postgresql"
        shell = "/bin/bash"
        gecos = "the \"database\" \\ élan\u0007"
        package = "postgresql-common"

        [[group]]
        name = "ssl-cert"
        gid = 102
        package = "ssl-cert"
        members = ["postgres"]

        [scripts]
        "g++" = "ignore"
        "udev" = "recipe"
    "##]]
    .assert_eq(&small().render());
}

#[test]
fn a_lock_reads_back_both_ways() {
    let mut lock = small();
    let text = lock.render();
    lock.sort();
    assert_eq!(lock.render(), text);
    let path = Path::new("igloo.lock");
    assert!(scan::scan(&text).is_some(), "what igloo writes is read the fast way");
    assert_eq!(Lock::parse(&text, path).unwrap(), lock);
    // Good TOML that igloo does not write is left to the general parser.
    let edited = text.replace("version = 1\n", "'version' = 1\n");
    assert!(scan::scan(&edited).is_none());
    assert_eq!(Lock::parse(&edited, path).unwrap(), lock);
    assert_eq!(Lock::parse(&Lock::new(Sha256([7; 32])).render(), path).unwrap(), Lock::new(Sha256([7; 32])));
}

fn check(from: &str, to: &str, expect: Expect) {
    let text = small().render();
    assert!(text.contains(from), "{from}");
    let error = Lock::parse(&text.replacen(from, to, 1), Path::new("dir/igloo.lock")).unwrap_err();
    expect.assert_eq(&error.to_string());
}

#[test]
fn errors_say_where() {
    check(
        "version = 1",
        "version = 2",
        expect![
            "`dir/igloo.lock` has format 2, this igloo knows up to 1: update igloo, or remove the file and run `igloo lock`"
        ],
    );
    check("version = 1", "version = 0", expect!["dir/igloo.lock:2:11: there is no such version of locks"]);
    check("version = 1", "", expect!["dir/igloo.lock:1:1: there is no `version`: this is no lock of igloo's"]);
    check("size = 1000", "size = \"1000\"", expect!["dir/igloo.lock:35:8: `size` must be a whole number, not a text"]);
    check("size = 1000", "sise = 1000", expect!["dir/igloo.lock:35:1: `sise` is no key of a lock"]);
    check(
        "size = 1000",
        "size = 1000 1",
        expect!["dir/igloo.lock:35:8: string values must be quoted, expected literal string"],
    );
    check("size = 1000\n", "", expect!["dir/igloo.lock:27:3: `size` is missing"]);
    check("size = 1000", "size = 1000\nsize = 1000", expect!["dir/igloo.lock:36:1: duplicate key"]);
    check(
        "libc6 (>= 2.36)",
        "libc6 (>= 2.36",
        expect!["dir/igloo.lock:41:11: cannot read the relation `libc6 (>= 2.36`: the parenthesis is not closed"],
    );
    check(
        "x86_64-linux",
        "sparc",
        expect![
            "dir/igloo.lock:19:10: `sparc` is no system that igloo knows (x86_64-linux or amd64, aarch64-linux or arm64)"
        ],
    );
    check(
        "file = \"pool",
        "file = \"../pool",
        expect!["dir/igloo.lock:34:8: `file` must be a path below the archive's root"],
    );
    check(
        "\"bash 5.2.15-2+b13 root\"",
        "\"bash\"",
        expect!["dir/igloo.lock:23:3: a package must be `name version` or `name version why`"],
    );
    check(
        "[[environment]]",
        "<<<<<<< HEAD\n[[environment]]",
        expect!["dir/igloo.lock:17:1: an unresolved merge conflict: take either side, then run `igloo lock`"],
    );
    check("[[package]]", "[package]", expect!["dir/igloo.lock:43:3: duplicate key"]);
}

#[test]
fn a_good_lock_is_found_good() {
    assert_eq!(small().verify(), Ok(()));
}

#[test]
fn a_broken_lock_is_found_out() {
    let mut lock = small();
    lock.packages.push(package("dash", "1", "libc6 (>= 3)"));
    lock.packages.push(package("dash", "1", ""));
    lock.packages[0].conflicts = relations("bash");
    lock.packages[1].size = 0;
    lock.environments[0].roots.push("zsh".into());
    lock.environments[0].packages.push(("absent".into(), version("1")));
    lock.environments[0].packages.push(("dash".into(), version("1")));
    lock.users.push(LockedUser { name: "other".into(), ..lock.users[0].clone() });
    lock.packages.swap(2, 3);
    let problems: Vec<String> = lock
        .verify()
        .unwrap_err()
        .into_iter()
        .map(|p| format!("{}: {}\n", p.environment.unwrap_or_default(), p.message))
        .collect();
    expect![[r#"
        : `bash 5.2.15-2+b13 for x86_64-linux` has the size 0
        : `dash 1 for x86_64-linux` is listed twice
        : the users `postgres` and `other` have the number 100
        shells.default on x86_64-linux: `absent 1` is not among the packages of the lock
        shells.default on x86_64-linux: `zsh` was asked for and is not there
        shells.default on x86_64-linux: `libc6 2.36-9+deb12u14` cannot be together with `bash 5.2.15-2+b13`: it conflicts with or breaks `bash`
        shells.default on x86_64-linux: `dash 1` depends on `libc6 (>= 3)`, which no package satisfies
    "#]].assert_eq(&problems.concat());
}

#[test]
fn what_changed() {
    let old = small();
    let mut new = small();
    new.environments[0].packages = vec![("bash".into(), version("5.3-1")), ("dash".into(), version("0.5"))];
    let changes: Vec<String> = Lock::diff(&old, &new)
        .into_iter()
        .map(|c| {
            let text = |version: Option<String>| version.unwrap_or_else(|| "none".to_owned());
            format!("{} {} {} -> {}", c.environment, c.package, text(c.old), text(c.new))
        })
        .collect();
    assert_eq!(
        changes,
        [
            "shells.default bash 5.2.15-2+b13 -> 5.3-1",
            "shells.default dash none -> 0.5",
            "shells.default libc6 2.36-9+deb12u14 -> none",
        ]
    );
    assert_eq!(Lock::diff(&old, &old), []);
}

/// A small lock with a package of Nix's.
fn of_nix() -> Lock {
    let mut lock = small();
    let path = |name: &str| StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
    let flake = LockedFlake {
        asked: "github:a/b".into(),
        locked: "github:a/b/0123".into(),
        revision: "0123".into(),
        nar_hash: "sha256-x".into(),
        files: Some(Sha256([7; 32])),
        caches: vec!["https://cache.example".into()],
        keys: vec!["k:x".into()],
    };
    lock.sources.insert("nixpkgs".into(), LockedSource { suites: Vec::new(), flakes: vec![flake] });
    lock.environments.push(LockedEnvironment {
        key: "shells.default".into(),
        system: System::X86_64Linux,
        source: "nixpkgs".into(),
        roots: vec!["jq".into()],
        packages: Vec::new(),
        why: Default::default(),
    });
    lock.outputs.push(LockedOutput {
        source: "nixpkgs".into(),
        name: "jq".into(),
        system: System::X86_64Linux,
        version: "1.7".into(),
        output: "bin".into(),
        priority: -3,
        path: path("jq-1.7-bin"),
        deriver: path("jq-1.7.drv"),
    });
    lock.paths.push(LockedPath {
        path: path("jq-1.7-bin"),
        nar_hash: Sha256([9; 32]),
        nar_size: 120,
        references: vec![path("jq-1.7-bin")],
        content_address: None,
        signatures: vec!["k:y".into()],
    });
    lock.sort();
    lock
}

#[test]
fn packages_of_nix_are_read_back_and_their_closures_are_whole() {
    let lock = of_nix();
    assert_eq!(Lock::parse(&lock.render(), Path::new("igloo.lock")).unwrap(), lock);
    assert_eq!(lock.verify(), Ok(()));
    let mut broken = lock.clone();
    broken.paths[0].references.push(StorePath::parse(&format!("{}-libc", "1".repeat(32))).unwrap());
    broken.environments.iter_mut().for_each(|e| e.roots.push("yq".into()));
    let problems: Vec<String> = broken.verify().unwrap_err().iter().map(|p| p.message.clone()).collect();
    assert!(problems.iter().any(|p| p.contains("-libc`, which is not among the paths")), "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("`yq` was asked for and is not there")), "{problems:?}");
    // Another build of the same version is a change, and told by what it is.
    let mut rebuilt = lock.clone();
    rebuilt.outputs[0].path = StorePath::parse(&format!("{}-jq-1.7-bin", "1".repeat(32))).unwrap();
    let changes = Lock::diff(&lock, &rebuilt);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].old.as_deref(), Some("1.7@00000000"));
    assert_eq!(changes[0].new.as_deref(), Some("1.7@11111111"));
}

/// A value as text, without its place, keys sorted.
fn plain(node: &crate::node::Node) -> String {
    use crate::node::Value;
    match &node.value {
        Value::List(list) => format!("{:?}", list.iter().map(plain).collect::<Vec<_>>()),
        Value::Table(entries) => {
            let entries: BTreeMap<_, _> = entries.iter().map(|e| (&e.key, plain(&e.node))).collect();
            format!("{entries:?}")
        }
        other => format!("{other:?}"),
    }
}

/// A lock with a part of it replaced by something that means something in TOML.
fn mangled() -> impl Strategy<Value = String> {
    let pieces = [
        "",
        "\"",
        "\n",
        "[",
        "]]",
        "=",
        ",",
        "#",
        "\\",
        ".",
        "a = 1\n",
        "[a]\n",
        "[[package]]\n",
        "é",
        "\t",
        "0",
        "-1",
        "true",
        " ",
    ];
    let piece = prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), ".{0,4}"];
    (any::<prop::sample::Index>(), 0usize..20, piece).prop_map(|(at, length, piece)| {
        let mut text = small().render();
        let mut start = at.index(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + length).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        text.replace_range(start..end, &piece);
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    /// What the fast parser takes, the general one takes for the same.
    #[test]
    fn the_fast_parser_is_a_subset(text in mangled()) {
        if let Some(fast) = scan::scan(&text) {
            let general = crate::node::Node::parse(&text);
            prop_assert!(general.is_ok(), "{:?}", general);
            prop_assert_eq!(plain(&fast), plain(&general.unwrap()));
        }
        // Good or bad, but never a panic.
        if let Ok(lock) = Lock::parse(&text, Path::new("igloo.lock")) {
            let _ = lock.verify();
            prop_assert_eq!(Lock::parse(&lock.render(), Path::new("igloo.lock")).unwrap(), lock);
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(text in "[a-z\\[\\]=\"'#.,\\\\ \n0-9é{}]{0,80}") {
        if let Some(fast) = scan::scan(&text) {
            prop_assert_eq!(Some(plain(&fast)), crate::node::Node::parse(&text).ok().map(|n| plain(&n)));
        }
        let _ = Lock::parse(&text, Path::new("igloo.lock"));
    }
}

/// A lock of 500 packages; `cargo test --release -p igloo-manifest --lib -- --ignored speed` runs it.
#[test]
#[ignore = "a measurement, of a release build"]
fn speed() {
    let mut lock = small();
    let depends = "libc6 (>= 2.36), libgcc-s1 (>= 3.0), libstdc++6 (>= 12), zlib1g (>= 1:1.2.3.4), debconf (>= 0.5) | debconf-2.0";
    for i in 0..500 {
        let mut one = package(&format!("package-{i}"), "1:2.39.5-0+deb12u3", depends);
        one.recommends = relations("ca-certificates, patch, less, ssh-client");
        one.conflicts = relations("bash-completion (<< 1:1.90-1), cogito (<= 0.18.2+)");
        lock.environments[0].packages.push((one.name.clone(), one.version.clone()));
        lock.environments[0].why.insert(one.name.clone(), "root".into());
        lock.packages.push(one);
    }
    let text = lock.render();
    let path = Path::new("igloo.lock");
    let best = |f: &dyn Fn()| {
        (0..20)
            .map(|_| {
                let start = std::time::Instant::now();
                f();
                start.elapsed()
            })
            .min()
    };
    let fast = best(&|| drop(Lock::parse(&text, path).unwrap()));
    let scan = best(&|| drop(scan::scan(&text).unwrap()));
    let general = best(&|| drop(crate::node::Node::parse(&text).unwrap()));
    let render = best(&|| drop(lock.render()));
    let report =
        format!("{} bytes: {fast:?} (of it {scan:?} to scan), toml_edit {general:?}, render {render:?}", text.len());
    assert!(fast < Some(std::time::Duration::from_millis(5)), "{report}");
}
