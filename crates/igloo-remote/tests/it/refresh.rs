use std::path::Path;
use std::time::{Duration, SystemTime};

use igloo_base::event::Silent;
use igloo_remote::{Client, Freshness, RemoteError, Suite, SuiteRequest};
use igloo_test::archive::{Archive, Fault, Key, Package};

use super::{Recorder, chain, client, config, request};

const DAY: Duration = Duration::from_secs(86_400);

fn archive() -> Archive {
    Archive::new()
        .suite("stable")
        .package(Package::new("hello", "2.10-3").depends("libc6").file("usr/bin/hello", 0o755, b"hello"))
        .package(Package::new("tzdata", "2026a").architecture("all"))
        .suite("stable-updates")
        .package(Package::new("hello", "2.10-4"))
}

fn refresh(requests: &[SuiteRequest], cache: &Path, policy: Freshness) -> Result<Vec<Suite>, RemoteError> {
    client().refresh(requests, &["amd64"], cache, policy, &Silent)
}

/// One suite, asked of the archive.
fn now(request: &SuiteRequest, cache: &Path) -> Result<Suite, RemoteError> {
    refresh(std::slice::from_ref(request), cache, Freshness::Now).map(|mut suites| suites.remove(0))
}

fn versions(suite: &Suite, arch: &str, name: &str) -> Vec<String> {
    suite
        .index(arch)
        .flat_map(|index| index.find(name).map(|r| r.expect("record").version.as_str().to_owned()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn suites_are_refreshed_and_found_again_without_asking() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    let requests = [request(&served, "stable"), request(&served, "stable-updates")];
    let recorder = Recorder::default();
    let suites =
        client().refresh(&requests, &["amd64", "arm64"], cache.path(), Freshness::Now, &recorder).expect("refresh");
    assert_eq!(suites.len(), 2);
    assert_eq!(versions(&suites[0], "amd64", "hello"), ["2.10-3"]);
    assert_eq!(versions(&suites[1], "amd64", "hello"), ["2.10-4"]);
    assert_eq!(versions(&suites[0], "arm64", "hello"), [""; 0]);
    assert_eq!(versions(&suites[0], "arm64", "tzdata"), ["2026a"]);
    assert_eq!((suites[0].codename.as_str(), suites[0].url.as_str()), ("stable", served.url.as_str()));
    assert_eq!(suites[0].signers, served.signers);
    assert_eq!(suites[0].release, igloo_base::Sha256::of(&served.file("dists/stable/InRelease").unwrap()));
    assert!(!suites[0].not_automatic);
    assert!(recorder.advanced() > 0);
    let asked: Vec<String> = served.requests().iter().map(|r| r.path.clone()).collect();
    assert_eq!(asked.iter().filter(|p| p.contains("/by-hash/SHA256/")).count(), 4, "{asked:?}");
    assert_eq!(asked.len(), 6);

    served.forget();
    for policy in [Freshness::MaxAge(DAY), Freshness::CacheOnly] {
        let suites = refresh(&requests, cache.path(), policy).expect("cached");
        assert_eq!(versions(&suites[1], "amd64", "hello"), ["2.10-4"]);
    }
    assert!(served.requests().is_empty());

    // Asked again, the archive says that nothing changed.
    now(&requests[0], cache.path()).expect("again");
    refresh(&requests[..1], cache.path(), Freshness::MaxAge(Duration::ZERO)).expect("again");
    let statuses: Vec<u16> = served.requests().iter().map(|r| r.status).collect();
    assert!(statuses.iter().all(|s| *s == 304) && !statuses.is_empty(), "{statuses:?}");
}

#[test]
fn a_new_release_brings_new_packages_and_lets_go_of_old_indexes() {
    let old = archive().suite("stable").age(DAY).package(Package::new("hello", "1"));
    let served = old.serve();
    let cache = tempfile::tempdir().unwrap();
    let wanted = request(&served, "stable");
    let before = now(&wanted, cache.path()).expect("before");
    served.publish(&archive());
    let after = now(&wanted, cache.path()).expect("after");
    assert_eq!(versions(&after, "amd64", "hello"), ["2.10-3"]);
    assert!(after.date > before.date);
    // What was opened before stays readable although its file is gone.
    assert_eq!(versions(&before, "amd64", "hello"), ["1"]);
    assert_eq!(std::fs::read_dir(cache.path().join("indexes")).unwrap().count(), 1);
}

#[test]
fn an_older_release_is_refused_and_both_dates_are_named() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    let wanted = request(&served, "stable");
    now(&wanted, cache.path()).expect("new");
    served.publish(&Archive::new().suite("stable").age(30 * DAY).package(Package::new("hello", "1")));
    let error = now(&wanted, cache.path()).expect_err("old");
    let RemoteError::Rollback { offered, seen, .. } = &error else { panic!("{error:?}") };
    let text = error.to_string();
    for date in [offered, seen] {
        assert!(text.contains(&igloo_formats::deb::release::format_date(*date)), "{text}");
    }
    // What was believed is still there.
    let suites = refresh(&[wanted], cache.path(), Freshness::CacheOnly).expect("cached");
    assert_eq!(versions(&suites[0], "amd64", "hello"), ["2.10-3"]);
}

#[test]
fn an_expired_release_is_refused_unless_it_is_frozen() {
    let expired = |a: Archive| a.valid_until(SystemTime::now() - DAY);
    let served = expired(archive().suite("old").age(8 * DAY).package(Package::new("hello", "1"))).serve();
    let cache = tempfile::tempdir().unwrap();
    let mut wanted = request(&served, "old");
    let error = now(&wanted, cache.path()).expect_err("expired");
    assert!(error.to_string().contains("was valid until 20"), "{error}");
    wanted.frozen = true;
    assert_eq!(versions(&now(&wanted, cache.path()).expect("frozen"), "amd64", "hello"), ["1"]);
    // Without the network it is said and used.
    wanted.frozen = false;
    let recorder = Recorder::default();
    let offline = client().refresh(&[wanted.clone()], &["amd64"], cache.path(), Freshness::CacheOnly, &recorder);
    assert!(offline.is_ok());
    assert_eq!(recorder.warnings().len(), 1, "{:?}", recorder.warnings());
    // An age that would do does not when the release is past its end.
    let again = refresh(&[wanted], cache.path(), Freshness::MaxAge(DAY)).expect_err("expired");
    assert!(matches!(again, RemoteError::Expired { .. }));
}

#[test]
fn a_machine_with_a_frozen_archive_is_warned() {
    let served = Archive::new().suite("stable").age(8 * DAY).valid_until(SystemTime::now() - DAY).serve();
    let cache = tempfile::tempdir().unwrap();
    let etc = served.dir().join("apt");
    served.write_apt(&etc, &["stable"]);
    let wanted =
        SuiteRequest { suite: "stable".to_owned(), components: vec!["main".to_owned()], ..SuiteRequest::default() };
    let refresh = |recorder: &Recorder| {
        let client = Client::new(config(&etc)).expect("client");
        client.refresh(std::slice::from_ref(&wanted), &["amd64"], cache.path(), Freshness::Now, recorder)
    };
    let strict = refresh(&Recorder::default()).expect_err("expired");
    assert!(matches!(strict, RemoteError::Expired { .. }), "{strict:?}");
    std::fs::write(etc.join("apt.conf"), "Acquire::Check-Valid-Until \"false\";").unwrap();
    let recorder = Recorder::default();
    assert!(refresh(&recorder).is_ok());
    assert!(recorder.warnings()[0].contains("was valid until"), "{:?}", recorder.warnings());
}

#[test]
fn a_release_from_the_future_is_refused() {
    let served = Archive::new().suite("stable").date(SystemTime::now() + DAY).serve();
    let cache = tempfile::tempdir().unwrap();
    let error = now(&request(&served, "stable"), cache.path()).expect_err("future");
    assert!(error.to_string().contains("in the future"), "{error}");
}

#[test]
fn a_release_of_another_suite_is_refused() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    served.put("dists/testing/InRelease", served.file("dists/stable/InRelease").unwrap());
    let error = now(&request(&served, "testing"), cache.path()).expect_err("other");
    assert!(error.to_string().ends_with("is of suite `stable`, codename `stable`, not of `testing`"), "{error}");

    // Either of its names will do.
    let named =
        Archive::new().suite("bookworm").suite_name("oldstable").suite("oldstable").codename("bookworm").serve();
    for suite in ["bookworm", "oldstable"] {
        assert_eq!(now(&request(&named, suite), cache.path()).expect("refresh").codename, "bookworm");
    }
}

#[test]
fn only_good_signatures_of_the_keyring_count() {
    let cache = tempfile::tempdir().unwrap();
    let served = archive().serve();
    served.fault("InRelease", Fault::Tamper);
    let error = chain(&now(&request(&served, "stable"), cache.path()).expect_err("tampered"));
    assert!(error.contains("is not what key"), "{error}");

    let stranger = archive().signed_by(&[Key::generate()]).serve();
    let mut wanted = request(&stranger, "stable");
    wanted.keyring = Some(served.keyring.clone());
    let error = chain(&now(&wanted, cache.path()).expect_err("stranger"));
    assert!(error.contains(&format!("key {} is not in the keyring", stranger.signers[0])), "{error}");

    let both = archive().signed_by(&[Key::generate(), Key::shared()]).serve();
    let mut wanted = request(&both, "stable");
    wanted.keyring = Some(served.keyring.clone());
    assert_eq!(now(&wanted, cache.path()).expect("both").signers, served.signers);

    let unsigned = archive().signed_by(&[]).serve();
    let mut wanted = request(&unsigned, "stable");
    wanted.keyring = Some(served.keyring.clone());
    let error = chain(&now(&wanted, cache.path()).expect_err("unsigned"));
    assert!(error.contains("not clear-signed"), "{error}");

    // The cache is held against the keyring too.
    now(&request(&both, "stable"), cache.path()).expect("both keys");
    let mut wanted = request(&both, "stable");
    let other = both.dir().join("other.gpg");
    std::fs::write(&other, Key::generate().certificate()).unwrap();
    wanted.keyring = Some(other);
    assert!(matches!(refresh(&[wanted], cache.path(), Freshness::CacheOnly), Err(RemoteError::Signature { .. })));
}

#[test]
fn keyrings_that_are_absent_are_named() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    let mut wanted = request(&served, "stable");
    wanted.keyring = Some("/nonexistent.gpg".into());
    let error = now(&wanted, cache.path()).expect_err("absent").to_string();
    assert_eq!(error, "cannot read the keyring `/nonexistent.gpg`");
    wanted.keyring = None;
    let error = now(&wanted, cache.path()).expect_err("none").to_string();
    assert!(error.starts_with("there is no keyring to verify"), "{error}");
}

#[test]
fn package_lists_are_held_against_the_release() {
    for fault in [Fault::Tamper, Fault::Truncate(100), Fault::Extend(10)] {
        let served = archive().serve();
        served.fault("/binary-amd64/", fault.clone());
        let cache = tempfile::tempdir().unwrap();
        let error = now(&request(&served, "stable"), cache.path()).expect_err("bad list");
        assert!(matches!(error, RemoteError::Digest { .. } | RemoteError::Size { .. }), "{fault:?}: {error:?}");
        let left = std::fs::read_dir(cache.path().join("indexes")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{fault:?}");
        // Healed, it works from the same cache.
        served.heal();
        assert_eq!(
            versions(&now(&request(&served, "stable"), cache.path()).expect("healed"), "amd64", "hello"),
            ["2.10-3"]
        );
    }
}

#[test]
fn other_forms_and_places_are_tried() {
    let cache = tempfile::tempdir().unwrap();
    let check = |archive: Archive, faults: &[(&str, Fault)]| {
        let served = archive.serve();
        for (path, fault) in faults {
            served.fault(path, fault.clone());
        }
        let suite = now(&request(&served, "stable"), cache.path()).expect("refresh");
        assert_eq!(versions(&suite, "amd64", "hello"), ["1"]);
        served.requests().iter().filter(|r| r.status == 200).map(|r| r.path.clone()).next_back().unwrap()
    };
    // Differing contents, so that no index of another round is found.
    let one =
        |extra: &str| Archive::new().suite("stable").packages([Package::new("hello", "1"), Package::new(extra, "1")]);
    let path = "dists/stable/main/binary-amd64/Packages";
    assert_eq!(check(one("a").without_by_hash(), &[]), format!("{path}.xz"));
    assert_eq!(check(one("b").without_by_hash().compressions(&["gz"]), &[]), format!("{path}.gz"));
    assert_eq!(check(one("c").without_by_hash().compressions(&[]), &[]), path);
    assert_eq!(check(one("d"), &[("/by-hash/", Fault::Status(404))]), format!("{path}.xz"));
    let missing = [("/by-hash/", Fault::Status(404)), ("Packages.xz", Fault::Status(404))];
    assert_eq!(check(one("e"), &missing), format!("{path}.gz"));
    assert_eq!(check(one("f").without_by_hash(), &[("Packages.xz", Fault::Chunked)]), format!("{path}.xz"));
}

#[test]
fn transient_failures_are_tried_again() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    served.fault_times(2, "InRelease", Fault::Status(503));
    served.fault_times(1, "/binary-amd64/", Fault::Drop(50));
    served.fault_times(1, "/binary-amd64/", Fault::Status(500));
    now(&request(&served, "stable"), cache.path()).expect("in the end");
    served.fault("InRelease", Fault::Status(503));
    let error = now(&request(&served, "stable"), cache.path()).expect_err("never");
    assert!(matches!(error, RemoteError::Status { status: 503, .. }), "{error:?}");
}

#[test]
fn what_is_not_there_is_named() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    let error = now(&request(&served, "stable-security"), cache.path()).expect_err("no suite").to_string();
    let expected = format!("there is no suite `stable-security` at `{}/dists/stable-security/InRelease`", served.url);
    assert_eq!(error, expected);

    let mut wanted = request(&served, "stable");
    wanted.components = vec!["contrib".to_owned()];
    let error = now(&wanted, cache.path()).expect_err("no component").to_string();
    assert_eq!(error, "the suite `stable` has no component `contrib` for amd64 (it has main)");

    let wanted = [request(&served, "stable")];
    let error = client().refresh(&wanted, &["riscv64"], cache.path(), Freshness::Now, &Silent).expect_err("no arch");
    assert_eq!(error.to_string(), "the suite `stable` has no packages for riscv64 (it has amd64, arm64)");

    let empty = tempfile::tempdir().unwrap();
    let error = refresh(&wanted, empty.path(), Freshness::CacheOnly).expect_err("no cache").to_string();
    assert_eq!(error, "the suite `stable` is not in the cache, and the network may not be asked");
}

#[test]
fn backports_say_that_they_are_not_automatic() {
    let served = Archive::new().suite("stable-backports").not_automatic().serve();
    let cache = tempfile::tempdir().unwrap();
    let suite = now(&request(&served, "stable-backports"), cache.path()).expect("refresh");
    assert!(suite.not_automatic && suite.but_automatic_upgrades);
}

#[test]
fn the_machines_apt_says_where_a_suite_is() {
    let served = archive().serve();
    let etc = served.dir().join("apt");
    served.write_apt(&etc, &["stable", "stable-updates"]);
    let cache = tempfile::tempdir().unwrap();
    let wanted =
        SuiteRequest { suite: "stable".to_owned(), components: vec!["main".to_owned()], ..SuiteRequest::default() };
    let client = Client::new(config(&etc)).expect("client");
    let suites = client.refresh(&[wanted], &["amd64"], cache.path(), Freshness::Now, &Silent).expect("refresh");
    assert_eq!(suites[0].url, served.url);
}

#[test]
fn archives_on_disk_are_read_in_place() {
    let served = archive().serve();
    let mirror = served.dir().join("a mirror");
    served.write_to(&mirror);
    let cache = tempfile::tempdir().unwrap();
    for kind in ["file", "copy"] {
        let mut wanted = request(&served, "stable");
        wanted.url = Some(format!("{kind}://{}", mirror.display().to_string().replace(' ', "%20")));
        let suite = now(&wanted, cache.path()).expect("refresh");
        assert_eq!(versions(&suite, "amd64", "hello"), ["2.10-3"]);
        wanted.suite = "testing".to_owned();
        assert!(matches!(now(&wanted, cache.path()), Err(RemoteError::NoSuite { .. })));
    }
    assert!(served.requests().is_empty());
}

#[test]
fn several_at_once_share_the_work() {
    let served = archive().serve();
    served.fault("/by-hash/", Fault::Slow(Duration::from_millis(50)));
    let cache = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let wanted = request(&served, "stable");
                let suites = refresh(&[wanted], cache.path(), Freshness::MaxAge(DAY)).expect("refresh");
                assert_eq!(versions(&suites[0], "amd64", "hello"), ["2.10-3"]);
            });
        }
    });
    let lists = served.requests().iter().filter(|r| r.path.contains("/by-hash/")).count();
    assert_eq!((lists, served.requests().len()), (1, 2), "the others waited and found it in the cache");
}

#[test]
fn a_cache_that_was_cut_short_is_made_again() {
    let served = archive().serve();
    let cache = tempfile::tempdir().unwrap();
    let wanted = request(&served, "stable");
    now(&wanted, cache.path()).expect("first");
    let index = std::fs::read_dir(cache.path().join("indexes")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&index, b"").unwrap();
    let dir = std::fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().path());
    for dir in dir.filter(|d| d.join("InRelease").exists()) {
        std::fs::write(dir.join("InRelease"), b"half").unwrap();
    }
    assert!(matches!(
        refresh(std::slice::from_ref(&wanted), cache.path(), Freshness::CacheOnly),
        Err(RemoteError::NotCached { .. })
    ));
    let suites = refresh(&[wanted], cache.path(), Freshness::MaxAge(DAY)).expect("again");
    assert_eq!(versions(&suites[0], "amd64", "hello"), ["2.10-3"]);
}
