use igloo_base::Sha256;
use igloo_base::event::Silent;
use igloo_remote::{Client, Config, Download};
use igloo_test::archive::{Archive, Package, Served};

use super::config;

/// The server stands for a proxy: it answers requests that name the whole address, whatever the host.
fn fetch(served: &Served, host: &str, config: Config) -> Result<String, igloo_remote::RemoteError> {
    let package = Package::new("p", "1");
    let deb = package.build();
    let download = Download {
        urls: vec![format!("http://{host}/debian/{}", package.pool_path())],
        size: deb.len() as u64,
        sha256: Sha256::of(&deb),
        label: "p".to_owned(),
    };
    let cache = tempfile::tempdir().unwrap();
    served.forget();
    Client::new(config)?.fetch(&[download], cache.path(), &Silent, &|_, _| {})?;
    Ok(served.requests()[0].line.clone())
}

#[test]
fn plain_http_through_a_proxy_names_the_whole_address() {
    let served = Archive::new().suite("stable").package(Package::new("p", "1")).serve();
    let address = served.url.strip_prefix("http://").unwrap().strip_suffix("/debian").unwrap().to_owned();
    let own = served.dir().join("apt");
    std::fs::create_dir_all(&own).unwrap();
    let base = config(&own);
    let through = "GET http://archive.invalid/debian/pool/main/p/p/p_1_amd64.deb HTTP/1.1";
    let direct = "GET /debian/pool/main/p/p/p_1_amd64.deb HTTP/1.1";

    let told = Config { http_proxy: Some(format!("http://user:secret@{address}")), ..base.clone() };
    assert_eq!(fetch(&served, "archive.invalid", told.clone()).expect("told"), through);
    let excepted = Config { no_proxy: Some("127.0.0.1".to_owned()), ..told };
    assert_eq!(fetch(&served, &address, excepted).expect("excepted"), direct);

    std::fs::write(own.join("apt.conf"), format!("Acquire::http::Proxy \"http://{address}\";")).unwrap();
    assert_eq!(fetch(&served, "archive.invalid", base.clone()).expect("apt"), through);
    let host = "Acquire::http::Proxy::127.0.0.1 \"DIRECT\"; Acquire::http::Proxy \"http://proxy.invalid\";";
    std::fs::write(own.join("apt.conf"), host).unwrap();
    assert_eq!(fetch(&served, &address, base.clone()).expect("direct"), direct);

    let bad = Config { http_proxy: Some("nonsense://user:secret@host".to_owned()), ..base };
    let error = fetch(&served, &address, bad).expect_err("bad").to_string();
    assert_eq!(error, "cannot use the proxy `host`");
}
