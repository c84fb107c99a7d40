//! Against the archive that this machine's apt uses: `cargo test -p igloo-remote -- --ignored --nocapture`.
#![allow(clippy::print_stdout)] // measurements for whoever asked for them

use std::time::{Duration, Instant};

use igloo_base::System;
use igloo_base::event::Silent;
use igloo_remote::{Client, Config, Download, Freshness, SuiteRequest, file_url};

fn requests(release: &str) -> Vec<SuiteRequest> {
    ["", "-updates", "-security"]
        .map(|suffix| SuiteRequest {
            suite: format!("{release}{suffix}"),
            components: vec!["main".to_owned()],
            ..SuiteRequest::default()
        })
        .to_vec()
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "asks a real archive"]
fn the_machines_archive() {
    let cache = tempfile::tempdir().unwrap();
    let arch = System::current().deb_arch();
    let client = Client::new(Config::default()).unwrap();
    for release in ["bookworm", "trixie"] {
        for (what, policy) in [
            ("cold", Freshness::Now),
            ("asked again", Freshness::Now),
            ("warm", Freshness::MaxAge(Duration::from_secs(3600))),
            ("offline", Freshness::CacheOnly),
        ] {
            let start = Instant::now();
            let suites = client.refresh(&requests(release), &[arch], cache.path(), policy, &Silent).unwrap();
            println!("{release} {what}: {:?}, {}", start.elapsed(), peak());
            assert!(suites.iter().all(|s| !s.signers.is_empty()));
            assert!(suites[0].index(arch).next().unwrap().find("hello").next().is_some());
            for suite in suites.iter().filter(|_| what == "cold") {
                println!("  {} ({}, {}), signed by {}", suite.name, suite.codename, suite.url, suite.signers.len());
            }
        }
    }

    let suites = client.refresh(&requests("bookworm"), &[arch], cache.path(), Freshness::CacheOnly, &Silent).unwrap();
    let index = suites[0].index(arch).next().unwrap();
    let mut downloads = Vec::new();
    for name in index.names().filter(|n| n.starts_with("postgresql-15") || n.starts_with("libp") || *n == "gcc-12") {
        let record = index.find(name).next().unwrap().unwrap();
        if downloads.len() < 90 && record.size < 20_000_000 {
            downloads.push(Download {
                urls: vec![file_url(&suites[0].url, &record.filename)],
                size: record.size,
                sha256: record.sha256,
                label: format!("{name} {}", record.version.as_str()),
            });
        }
    }
    let debs = cache.path().join("debs");
    let bytes: u64 = downloads.iter().map(|d| d.size).sum();
    for what in ["cold", "warm"] {
        let start = Instant::now();
        client.fetch(&downloads, &debs, &Silent, &|_, _| {}).unwrap();
        println!("{} debs, {} MB {what}: {:?}, {}", downloads.len(), bytes / 1_000_000, start.elapsed(), peak());
    }
}
