//! Real Nix looks at what was written here.

use std::fs;
use std::process::Output;

use igloo_base::event::Silent;
use igloo_store::{Store, StoreError};

use crate::support::*;

fn good(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    format!("{out}{err}")
}

#[test]
fn nix_verifies_lists_copies_and_collects() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    if nix(&dir, "nix-store", &["--version"]).is_none() {
        return;
    }
    let store = Store::open(&root).expect("open");
    let paths = add(&store, &debs_in(&dir, 4));
    let staged = store
        .stage::<StoreError>("env-default", &paths[..3], |out| {
            fs::create_dir(out.join("root")).expect("mkdir");
            let members: Vec<String> = paths[..3].iter().map(|p| p.full()).collect();
            fs::write(out.join("env.json"), members.join(" ")).expect("write");
            Ok(())
        })
        .expect("stage");
    let env = store.commit(vec![staged]).expect("commit").remove(0);
    store.add_root("demo", "shells.default", &env.path).expect("root");
    drop(store);

    let said = good(&nix(&root, "nix-store", &["--verify", "--check-contents"]).expect("nix"));
    assert!(!said.contains("differs") && !said.contains("disappeared") && !said.contains("error"), "{said}");
    let closure = good(&nix(&root, "nix", &["path-info", "-rsS", &env.path.full()]).expect("nix"));
    assert_eq!(closure.lines().filter(|l| l.starts_with("/nix/store/")).count(), 4, "{closure}");
    let json = good(&nix(&root, "nix", &["path-info", "--json", &env.path.full()]).expect("nix"));
    let content_address = env.content_address.expect("ca");
    assert!(json.contains(&content_address), "{json}");
    // Content addresses are checked by Nix when it copies without signatures.
    good(&nix(&root, "nix", &["store", "verify", "--all", "--no-trust"]).expect("nix"));
    let other = dir.join("other");
    let to = format!("local?root={}", other.display());
    good(&nix(&root, "nix", &["copy", "--to", &to, &env.path.full()]).expect("nix"));
    good(&nix(&other, "nix-store", &["--verify", "--check-contents"]).expect("nix"));
    // And we read what Nix wrote.
    let copy = Store::open(&other).expect("open");
    assert!(copy.verify(true, &Silent).expect("verify").is_good());
    let infos = copy.list().expect("list");
    assert_eq!(infos.len(), 4);
    let theirs = infos.iter().find(|i| i.path == env.path).expect("env");
    assert_eq!((theirs.nar_hash, &theirs.references), (env.nar_hash, &env.references));

    let roots = good(&nix(&root, "nix-store", &["--gc", "--print-roots"]).expect("nix"));
    assert!(roots.contains("gcroots/igloo/demo/shells.default"), "{roots}");
    good(&nix(&root, "nix-store", &["--gc"]).expect("nix"));
    let store = Store::open(&root).expect("open");
    assert_eq!(store.list().expect("list").len(), 4);
    assert!(!store.exists(&paths[3]));
    assert!(store.verify(true, &Silent).expect("verify").is_good());
    // What Nix collected is unpacked again, and is what it was.
    assert_eq!(add(&store, &debs_in(&dir, 4)), paths);
    store.remove_roots("demo").expect("remove");
    drop(store);
    good(&nix(&root, "nix-store", &["--gc"]).expect("nix"));
    assert_eq!(object_count(&root), 0);
}

#[test]
fn nix_waits_for_what_we_protect_and_shares_files_as_it_likes() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    if nix(&dir, "nix-store", &["--version"]).is_none() {
        return;
    }
    let store = Store::open(&root).expect("open");
    let paths = add(&store, &debs_in(&dir, 3));
    good(&nix(&root, "nix-store", &["--optimise"]).expect("nix"));
    good(&nix(&root, "nix-store", &["--gc"]).expect("nix"));
    assert!(paths.iter().all(|p| store.exists(p)), "our temporary roots hold against Nix's collector");
    assert!(store.verify(true, &Silent).expect("verify").is_good());
    drop(store);
    let store = Store::open(&root).expect("open");
    let report = store.collect(false, &|p| *p == paths[0], &Silent).expect("collect");
    assert_eq!(report.dead.len(), 2);
    assert!(report.freed >= 600_000, "what only `.links` still had is free as well: {}", report.freed);
    let links = fs::read_dir(root.join("nix/store/.links")).expect("list").count();
    good(&nix(&root, "nix-store", &["--gc", "--print-dead"]).expect("nix"));
    good(&nix(&root, "nix-store", &["--verify", "--check-contents"]).expect("nix"));
    assert!(links > 0 && links < 10, "{links}");
}
