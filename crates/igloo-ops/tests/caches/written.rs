//! Caches that are written to over a network, read again by us and by real Nix.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use igloo_ops::caches::{self, Copy};
use igloo_ops::context::AwsKeys;
use igloo_ops::error::OpsError;
use igloo_test::nix::fixture;

use crate::support::*;

/// `bucket.py`, ended with the test.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    fn start(world: &World, keys: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/caches/bucket.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(world.path("bucket")).args(keys).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3");
        let mut port = String::new();
        BufReader::new(process.stdout.take().expect("stdout")).read_line(&mut port).expect("a port");
        Self { process, port: port.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(world: &World, secret: &Path, to: &str, path: &str) -> Result<caches::Copied, OpsError> {
    let copy = Copy {
        from: Some(fixture().expect("built").store.root.display().to_string()),
        to: Some(to.to_owned()),
        paths: vec![path.to_owned()],
        trusted: Vec::new(),
        key: Some(secret.to_owned()),
        level: 0,
    };
    caches::copy(&world.ctx(), &copy)
}

#[test]
fn what_was_put_over_http_nix_takes() {
    let Some(fixture) = fixture() else { return };
    let world = World::new();
    let (secret, public) = fixture.store.key(world.dir.path(), "test-1");
    let server = Server::start(&world, &[]);
    let url = format!("http://127.0.0.1:{}", server.port);
    let hello = fixture.path("hello").full();
    let wanted = locked(&fixture.store.root, &[fixture.path("hello")]);
    let copied = write(&world, &secret, &url, &hello).expect("written");
    assert_eq!((copied.copied, copied.present), (wanted.len(), 0));
    let again = write(&world, &secret, &url, &hello).expect("written");
    assert_eq!((again.copied, again.present), (0, wanted.len()));
    let nix = igloo_test::nix::NixStore::at(world.path("of-nix"));
    nix.ok("nix", &["copy", "--from", &url, "--option", "trusted-public-keys", &public, &hello]);
    nix.check();
    world.realise(&wanted, &[url], &[&public]).expect("fetched");
    world.nix().check();
}

#[test]
fn a_bucket_takes_what_is_signed_by_its_keys() {
    let Some(fixture) = fixture() else { return };
    let mut world = World::new();
    let (secret, public) = fixture.store.key(world.dir.path(), "test-1");
    let server = Server::start(&world, &["AKIDEXAMPLE", "secret"]);
    let url = format!("s3://cache?endpoint=127.0.0.1:{}&scheme=http&region=eu-west-1", server.port);
    let hello = fixture.path("hello").full();
    let wanted = locked(&fixture.store.root, &[fixture.path("hello")]);
    let keys = |secret: &str| Some(AwsKeys { id: "AKIDEXAMPLE".into(), secret: secret.into(), token: None });
    world.nix.aws = keys("wrong");
    let refused = write(&world, &secret, &url, &hello).expect_err("refused").to_string();
    assert!(refused.contains("s3://cache") && refused.contains("403"), "{refused}");
    world.nix.aws = keys("secret");
    let copied = write(&world, &secret, &url, &hello).expect("written");
    assert_eq!(copied.copied, wanted.len());
    world.realise(&wanted, &[url], &[&public]).expect("fetched");
    world.nix().check();
    // The objects are the files of a cache as Nix has it.
    let nix = igloo_test::nix::NixStore::at(world.path("of-nix"));
    let files = file_url(&world.path("bucket").join("cache"));
    nix.ok("nix", &["copy", "--from", &files, "--option", "trusted-public-keys", &public, &hello]);
    nix.check();
}
