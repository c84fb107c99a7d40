//! Programs that tests start from this binary. They are ignored, so that they run only when asked for.

use std::io::Read;
use std::path::PathBuf;

use igloo_base::event::Silent;
use igloo_formats::nix::StorePath;
use igloo_store::Store;

use crate::support::{add, debs_in, word};

/// Adds `COUNT` packages, whose archives it makes in `DEBS`, to the store below `ROOT`.
#[test]
#[ignore = "a program for other tests"]
fn adds() {
    let debs = debs_in(&PathBuf::from(word("DEBS")), word("COUNT").parse().expect("count"));
    let store = Store::open(&PathBuf::from(word("ROOT"))).expect("open");
    for path in add(&store, &debs) {
        println!("\npath={path}");
    }
}

/// Adds, roots, lets go and collects, again and again until it is killed.
#[test]
#[ignore = "a program for other tests"]
fn churns() {
    let debs = debs_in(&PathBuf::from(word("DEBS")), 6);
    let mut seed = word("SEED").parse::<u32>().expect("seed");
    for _ in 0.. {
        let store = Store::open(&PathBuf::from(word("ROOT"))).expect("open");
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let some: Vec<_> =
            debs.iter().enumerate().filter(|(i, _)| seed >> (16 + i) & 1 == 1).map(|(_, d)| d.clone()).collect();
        for (i, path) in add(&store, &some).iter().enumerate() {
            store.add_root("churn", &format!("k{i}"), path).expect("root");
        }
        if seed >> 24 & 1 == 1 {
            store.remove_roots("churn").expect("remove");
        }
        drop(store);
        let store = Store::open(&PathBuf::from(word("ROOT"))).expect("open");
        store.collect(false, &|_| false, &Silent).expect("collect");
    }
}

/// Protects `PATHS`, says so, and waits for the end of its input.
#[test]
#[ignore = "a program for other tests"]
fn protects() {
    let paths: Vec<StorePath> = word("PATHS").split(' ').map(|p| StorePath::parse(p).expect("path")).collect();
    let store = Store::open(&PathBuf::from(word("ROOT"))).expect("open");
    store.protect(&paths).expect("protect");
    println!("\nready");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Reads a store that it may not write.
#[test]
#[ignore = "a program for other tests"]
fn reads() {
    let store = Store::open_readonly(&PathBuf::from(word("ROOT"))).expect("open");
    let report = store.verify(true, &Silent).expect("verify");
    assert!(report.is_good(), "{report:?}");
    println!("\nverified={}", report.checked);
    println!("dry={}", store.collect(true, &|_| false, &Silent).expect("dry run").dead.len());
    assert!(store.collect(false, &|_| false, &Silent).is_err());
}
