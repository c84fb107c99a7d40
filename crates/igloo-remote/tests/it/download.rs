use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use igloo_base::Sha256;
use igloo_base::event::Silent;
use igloo_remote::{Download, RemoteError, file_url};
use igloo_test::archive::{Archive, Fault, Package, Served};

use super::{Recorder, chain, client};

/// A package that does not compress.
fn package(name: &str, kib: usize) -> Package {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..kib << 10)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    Package::new(name, "1:1.0+b~1").file("usr/share/noise", 0o644, noise)
}

fn served(packages: &[Package]) -> Served {
    Archive::new().suite("stable").packages(packages.to_vec()).serve()
}

fn download(served: &Served, package: &Package) -> Download {
    let deb = package.build();
    Download {
        urls: vec![file_url(&served.url, &package.pool_path())],
        size: deb.len() as u64,
        sha256: Sha256::of(&deb),
        label: "a label".to_owned(),
    }
}

fn fetch(downloads: &[Download], into: &Path) -> Result<Vec<PathBuf>, RemoteError> {
    let done = Mutex::new(vec![PathBuf::new(); downloads.len()]);
    client().fetch(downloads, into, &Silent, &|at, path| done.lock().unwrap()[at] = path.to_owned())?;
    Ok(done.into_inner().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn many_files_come_over_few_connections() {
    let packages: Vec<Package> = (0..40).map(|i| package(&format!("p{i}"), 20 + i)).collect();
    let served = served(&packages);
    served.fault("", Fault::Slow(Duration::from_millis(5)));
    let downloads: Vec<Download> = packages.iter().map(|p| download(&served, p)).collect();
    let cache = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let count = Mutex::new(0);
    client()
        .fetch(&downloads, cache.path(), &recorder, &|at, path| {
            assert_eq!(std::fs::read(path).unwrap(), packages[at].build());
            *count.lock().unwrap() += 1;
        })
        .expect("fetch");
    assert_eq!(*count.lock().unwrap(), 40);
    assert_eq!(recorder.advanced(), downloads.iter().map(|d| d.size).sum::<u64>());
    assert!(served.connections() <= 8, "{} connections", served.connections());
    assert!((2..=8).contains(&served.peak()), "{} at one time", served.peak());
    assert_eq!(names(cache.path()).len(), 40, "nothing but the files: {:?}", names(cache.path()));

    served.forget();
    assert_eq!(fetch(&downloads, cache.path()).expect("again").len(), 40);
    assert!(served.requests().is_empty());
}

#[test]
fn a_broken_connection_is_resumed() {
    let package = package("p", 300);
    let served = served(std::slice::from_ref(&package));
    let wanted = download(&served, &package);
    let cache = tempfile::tempdir().unwrap();
    // More breaks than retries, but each brings something.
    served.fault_times(5, "pool/", Fault::Drop(40_000));
    let paths = fetch(std::slice::from_ref(&wanted), cache.path()).expect("fetch");
    assert_eq!(std::fs::read(&paths[0]).unwrap(), package.build());
    let ranges: Vec<Option<String>> = served.requests().iter().map(|r| r.range.clone()).collect();
    assert_eq!(ranges.len(), 6);
    assert_eq!(ranges[0], None);
    assert!(ranges[1..].iter().all(|r| r.as_ref().is_some_and(|r| r.starts_with("bytes=") && r != "bytes=0-")));
}

#[test]
fn what_another_process_left_is_continued() {
    let package = package("p", 100);
    let served = served(std::slice::from_ref(&package));
    let wanted = download(&served, &package);
    let deb = package.build();
    let rounds: [(&[u8], usize); 6] = [
        (&deb[..50_000], 1),
        // All of it: nothing is asked.
        (&deb, 0),
        // Not of this file: asked again from the start.
        (&[b'x'; 50_000], 2),
        (&vec![b'x'; deb.len()], 1),
        (&vec![b'x'; deb.len() + 1], 1),
        (b"", 1),
    ];
    for (left, requests) in rounds {
        let cache = tempfile::tempdir().unwrap();
        std::fs::write(cache.path().join(format!("{}.part", wanted.sha256)), left).unwrap();
        served.forget();
        let paths = fetch(std::slice::from_ref(&wanted), cache.path()).expect("fetch");
        assert_eq!(std::fs::read(&paths[0]).unwrap(), deb);
        assert_eq!(served.requests().len(), requests, "{:?}", served.requests());
        assert_eq!(names(cache.path()), [format!("{}.deb", wanted.sha256)]);
    }
}

#[test]
fn servers_that_know_no_ranges_send_everything() {
    for fault in [Fault::NoRange, Fault::WrongRange] {
        let package = package("p", 100);
        let served = served(std::slice::from_ref(&package));
        let wanted = download(&served, &package);
        served.fault_times(1, "pool/", Fault::Drop(50_000));
        served.fault_times(2, "pool/", fault);
        let cache = tempfile::tempdir().unwrap();
        let paths = fetch(&[wanted], cache.path()).expect("fetch");
        assert_eq!(std::fs::read(&paths[0]).unwrap(), package.build());
    }
}

#[test]
fn other_content_is_refused_and_not_kept() {
    for (fault, expected) in [
        (Fault::Tamper, "has the sha256"),
        (Fault::Truncate(1000), "has 1000 bytes where"),
        (Fault::Extend(1), "bytes where"),
    ] {
        for chunked in [false, true] {
            let package = package("p", 20);
            let served = served(std::slice::from_ref(&package));
            served.fault("pool/", fault.clone());
            if chunked {
                served.fault("pool/", Fault::Chunked);
            }
            let wanted = download(&served, &package);
            let cache = tempfile::tempdir().unwrap();
            let error = fetch(std::slice::from_ref(&wanted), cache.path()).expect_err("refused");
            let text = chain(&error);
            assert!(text.contains(&wanted.urls[0]), "{text}");
            // Without a length, a file cut short looks like a broken connection.
            assert!(text.contains(expected) || (chunked && text.contains("to its end")), "{fault:?}: {text}");
            assert!(!names(cache.path()).iter().any(|n| n.ends_with(".deb")));
        }
    }
}

#[test]
fn a_file_that_is_gone_is_told_apart() {
    let package = package("p", 1);
    let served = served(std::slice::from_ref(&package));
    let wanted = download(&served, &package);
    served.remove("pool/");
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(std::slice::from_ref(&wanted), cache.path()).expect_err("gone");
    let RemoteError::Gone { label, url } = &error else { panic!("{error:?}") };
    assert_eq!((label.as_str(), url), ("a label", &wanted.urls[0]));
    assert_eq!(served.requests().len(), 1, "it is not asked for again");
}

#[test]
fn addresses_are_tried_in_order() {
    let package = package("p", 50);
    let (bad, good) = (served(std::slice::from_ref(&package)), served(std::slice::from_ref(&package)));
    for fault in [Fault::Status(404), Fault::Status(403), Fault::Status(503), Fault::Tamper, Fault::Drop(20_000)] {
        bad.heal();
        bad.fault("pool/", fault);
        let mut wanted = download(&bad, &package);
        wanted.urls.insert(0, "http://127.0.0.1:9/nobody".to_owned());
        wanted.urls.extend(download(&good, &package).urls);
        let cache = tempfile::tempdir().unwrap();
        let paths = fetch(&[wanted], cache.path()).expect("fetch");
        assert_eq!(std::fs::read(&paths[0]).unwrap(), package.build());
    }
    bad.heal();
    bad.fault("pool/", Fault::Status(403));
    let mut wanted = download(&bad, &package);
    good.remove("pool/");
    wanted.urls.extend(download(&good, &package).urls);
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&[wanted], cache.path()).expect_err("nowhere");
    assert!(matches!(error, RemoteError::Status { status: 403, .. }), "{error:?}");
}

#[test]
fn a_truncated_file_of_the_cache_is_fetched_again() {
    let package = package("p", 50);
    let served = served(std::slice::from_ref(&package));
    let wanted = download(&served, &package);
    let cache = tempfile::tempdir().unwrap();
    let path = cache.path().join(format!("{}.deb", wanted.sha256));
    std::fs::write(&path, &package.build()[..1000]).unwrap();
    assert_eq!(fetch(&[wanted], cache.path()).expect("fetch"), std::slice::from_ref(&path));
    assert_eq!(std::fs::read(&path).unwrap(), package.build());
}

#[test]
fn files_of_this_machine_stay_where_they_are() {
    let package = package("p", 50);
    let served = served(std::slice::from_ref(&package));
    let mirror = served.dir().join("mirror");
    served.write_to(&mirror);
    let mut wanted = download(&served, &package);
    wanted.urls = vec![file_url(&format!("file://{}", mirror.display()), &package.pool_path())];
    let cache = tempfile::tempdir().unwrap();
    let paths = fetch(std::slice::from_ref(&wanted), cache.path()).expect("fetch");
    assert_eq!(paths, [mirror.join(package.pool_path())]);
    assert_eq!(names(cache.path()), [""; 0]);
    std::fs::write(&paths[0], b"other").unwrap();
    assert!(matches!(fetch(std::slice::from_ref(&wanted), cache.path()), Err(RemoteError::Size { .. })));
    std::fs::remove_file(&paths[0]).unwrap();
    assert!(matches!(fetch(&[wanted], cache.path()), Err(RemoteError::Gone { .. })));
}

#[test]
fn two_that_want_the_same_file_fetch_it_once() {
    let package = package("p", 200);
    let served = served(std::slice::from_ref(&package));
    served.fault("pool/", Fault::Slow(Duration::from_millis(10)));
    let wanted = download(&served, &package);
    let cache = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let paths = fetch(std::slice::from_ref(&wanted), cache.path()).expect("fetch");
                assert_eq!(std::fs::read(&paths[0]).unwrap(), package.build());
            });
        }
    });
    assert_eq!(served.requests().len(), 1);
    assert_eq!(names(cache.path()), [format!("{}.deb", wanted.sha256)]);
}

#[test]
fn redirections_are_followed_within_reason() {
    let package = package("p", 5);
    let (from, to) = (served(std::slice::from_ref(&package)), served(std::slice::from_ref(&package)));
    let wanted = download(&from, &package);
    let target = download(&to, &package).urls.remove(0);
    let cache = tempfile::tempdir().unwrap();
    from.fault("pool/", Fault::Redirect(target));
    assert!(fetch(std::slice::from_ref(&wanted), cache.path()).is_ok());
    assert_eq!(to.requests().len(), 1);

    for (target, why) in
        [(wanted.urls[0].as_str(), "too many"), ("file:///etc/passwd", "no address"), ("", "no address")]
    {
        let cache = tempfile::tempdir().unwrap();
        from.heal();
        from.fault("pool/", Fault::Redirect(target.to_owned()));
        let error = fetch(std::slice::from_ref(&wanted), cache.path()).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn one_failure_ends_the_others_and_keeps_what_they_have() {
    let packages: Vec<Package> = (0..6).map(|i| package(&format!("p{i}"), 400)).collect();
    let served = served(&packages);
    served.fault("p0_", Fault::Status(403));
    served.fault("pool/", Fault::Slow(Duration::from_millis(20)));
    let downloads: Vec<Download> = packages.iter().map(|p| download(&served, p)).collect();
    let cache = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let error = fetch(&downloads, cache.path()).expect_err("forbidden");
    assert!(matches!(error, RemoteError::Status { status: 403, .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    served.heal();
    assert!(fetch(&downloads, cache.path()).is_ok());
}

#[test]
fn a_full_disk_is_named() {
    let package = package("p", 100);
    let served = served(std::slice::from_ref(&package));
    let wanted = download(&served, &package);
    // A size limit on files stands for a full disk: both are told by the write that fails.
    let cache = tempfile::tempdir().unwrap();
    let part = cache.path().join(format!("{}.part", wanted.sha256));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = fetch(&[wanted], cache.path()).expect_err("full");
    assert!(matches!(error, RemoteError::Full { .. }), "{error:?}");
    assert!(error.to_string().starts_with("no space left to write"), "{error}");
}
