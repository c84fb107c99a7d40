//! Caches as Nix writes them.

use igloo_base::event::Silent;
use igloo_ops::error::OpsError;
use igloo_test::nix::fixture;

use crate::support::*;

#[test]
fn every_packing_of_nix_is_fetched_and_is_what_nix_built() {
    let Some(fixture) = fixture() else { return };
    let hello = fixture.path("hello");
    let wanted = locked(&fixture.store.root, &[hello]);
    for compression in ["none", "xz", "bzip2", "gzip", "zstd", "br", "lz4", "lzip"] {
        let world = World::new();
        let (secret, public) = fixture.store.key(world.dir.path(), "test-1");
        let cache = world.path("cache");
        let to = format!("{}?compression={compression}&secret-key={}", file_url(&cache), secret.display());
        fixture.store.ok("nix", &["copy", "--to", &to, &hello.full()]);
        let realised =
            world.realise(&wanted, &[file_url(&cache)], &[&public]).unwrap_or_else(|e| panic!("{compression}: {e}"));
        assert_eq!((realised.present, realised.fetched.len()), (0, wanted.len()), "{compression}");
        assert_eq!(realised.bytes, wanted.iter().map(|w| w.nar_size).sum::<u64>());
        world.nix().check();
        world.nix().ok("nix", &["store", "verify", "--all", "--option", "trusted-public-keys", &public]);
        assert!(world.store().verify(true, &Silent).expect("verify").is_good());
        // Nothing is asked a second time, not even whether the cache is there.
        std::fs::remove_dir_all(&cache).expect("remove");
        let again = world.realise(&wanted, &[], &[]).expect("present");
        assert_eq!((again.present, again.bytes), (wanted.len(), 0));
    }
}

#[test]
fn the_hosts_store_is_copied_from_before_any_cache_is_asked() {
    let Some(fixture) = fixture() else { return };
    let mut world = World::new();
    world.nix.host_store = Some(fixture.store.root.clone());
    let wanted = locked(&fixture.store.root, &[fixture.path("git")]);
    let realised = world.realise(&wanted, &[], &[]).expect("copied");
    assert_eq!((realised.copied.len(), realised.fetched.len()), (wanted.len(), 0));
    world.nix().check();
    let info = world.store().path_info(fixture.path("git")).expect("db").expect("valid");
    assert!(!info.ultimate, "it was not built here");
    assert!(info.deriver.is_some());
}

#[test]
fn without_a_signature_nothing_is_taken_unless_the_cache_is_trusted() {
    let Some(fixture) = fixture() else { return };
    let world = World::new();
    let hello = fixture.path("hello");
    let wanted = locked(&fixture.store.root, &[hello]);
    let cache = file_url(&world.path("plain"));
    fixture.store.ok("nix", &["copy", "--to", &cache, &hello.full()]);
    let (secret, public) = fixture.store.key(world.dir.path(), "test-1");
    let (_, other) = fixture.store.key(world.dir.path(), "test-2");
    let error = world.realise(&wanted, std::slice::from_ref(&cache), &[&public]).expect_err("unsigned");
    let OpsError::NotInCaches { paths, faults, .. } = &error else { panic!("{error}") };
    assert_eq!(paths.len(), wanted.len());
    assert!(faults[0].contains(&cache) && faults[0].contains("not signed"), "{error}");
    assert!(world.store().list().expect("list").is_empty());

    let signed = file_url(&world.path("signed"));
    let to = format!("{signed}?secret-key={}", secret.display());
    fixture.store.ok("nix", &["copy", "--to", &to, &hello.full()]);
    let error = world.realise(&wanted, std::slice::from_ref(&signed), &[&other]).expect_err("another key").to_string();
    assert!(error.contains("signed by test-1"), "{error}");
    // The first cache is refused, the second one serves.
    let realised = world.realise(&wanted, &[cache.clone(), signed], &[&public]).expect("signed");
    assert_eq!(realised.fetched.len(), wanted.len());
    let said = world.ears.warnings.lock().expect("lock").join("\n");
    assert!(said.contains("plain") && said.contains("no good signature"), "{said}");

    let careless = World::new();
    careless.realise(&wanted, &[format!("{cache}?trusted=1")], &[]).expect("trusted");
    careless.nix().check();
}
