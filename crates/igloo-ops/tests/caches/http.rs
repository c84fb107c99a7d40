//! Caches behind HTTP: transfers that break, servers that send elsewhere, logins.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use igloo_ops::context::AwsKeys;
use igloo_test::archive::{Archive, Fault, Served};
use igloo_test::nix::fixture;

use crate::support::*;

/// A cache with `hello`, as Nix wrote it, behind HTTP; the longest archive in it.
fn served(world: &World, compression: &str) -> Option<(Served, String, String)> {
    let fixture = fixture()?;
    let (secret, public) = fixture.store.key(world.dir.path(), "test-1");
    let dir = world.path("served");
    let to = format!("{}?compression={compression}&secret-key={}", file_url(&dir), secret.display());
    fixture.store.ok("nix", &["copy", "--to", &to, &fixture.path("hello").full()]);
    let server = Archive::new().serve();
    let mut longest = (0, String::new());
    for (below, sub) in [("", dir.clone()), ("nar/", dir.join("nar"))] {
        for entry in std::fs::read_dir(sub).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_file() {
                let name = format!("{below}{}", path.file_name().expect("name").to_str().expect("text"));
                let content = std::fs::read(&path).expect("read");
                longest = longest.max((content.len(), name.clone()));
                server.put(&name, content);
            }
        }
    }
    Some((server, public, longest.1))
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let world = World::new();
    let Some((server, public, long)) = served(&world, "none") else { return };
    let wanted = locked(&fixture().expect("built").store.root, &[fixture().expect("built").path("hello")]);
    server.fault_times(3, &long, Fault::Drop(1 << 20));
    world.realise(&wanted, std::slice::from_ref(&server.url), &[&public]).expect("in the end");
    let ranges: Vec<_> = server.requests().into_iter().filter(|r| r.path == long).map(|r| r.range).collect();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert!(ranges[0].is_none() && ranges[3].as_deref().is_some_and(|r| r > "bytes=1"), "{ranges:?}");
    world.nix().check();
}

#[test]
fn what_a_run_got_the_next_one_has() {
    let world = World::new();
    let Some((server, public, long)) = served(&world, "none") else { return };
    let wanted = locked(&fixture().expect("built").store.root, &[fixture().expect("built").path("hello")]);
    server.fault_times(1, &long, Fault::Drop(2 << 20));
    // The first run is ended by an answer that no retry helps against.
    let dropped = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.realise(&wanted, std::slice::from_ref(&server.url), &[&public]));
        while !server.requests().iter().any(|r| r.path == long) {
            std::thread::sleep(Duration::from_millis(1));
        }
        server.fault(&long, Fault::Status(404));
        run.join().expect("run")
    });
    assert!(dropped.is_err(), "it was gone");
    server.heal();
    server.forget();
    world.realise(&wanted, std::slice::from_ref(&server.url), &[&public]).expect("the second run");
    let ranges: Vec<_> = server.requests().into_iter().filter(|r| r.path == long).map(|r| r.range).collect();
    assert!(ranges[0].as_deref().is_some_and(|r| r.starts_with("bytes=")), "{ranges:?}");
    assert!(std::fs::read_dir(world.path("cache/nars")).expect("list").next().is_none(), "nothing is kept of it");
    world.nix().check();
}

#[test]
fn odd_servers_serve_and_bad_parts_do_no_harm() {
    for fault in [Fault::Chunked, Fault::NoRange, Fault::Slow(Duration::from_millis(1))] {
        let world = World::new();
        let Some((server, public, long)) = served(&world, "zstd") else { return };
        let wanted = locked(&fixture().expect("built").store.root, &[fixture().expect("built").path("hello")]);
        server.fault(&long, fault.clone());
        server.fault_times(1, &long, Fault::Drop(1 << 20));
        // What somebody else left of it, which is wrong.
        let digest = long.trim_start_matches("nar/").split('.').next().expect("digest");
        let digest = igloo_formats::nix::parse_hash(&format!("sha256:{digest}")).expect("digest");
        std::fs::create_dir_all(world.path("cache/nars")).expect("mkdir");
        std::fs::write(world.path(&format!("cache/nars/{digest}.part")), [7; 5000]).expect("write");
        world
            .realise(&wanted, std::slice::from_ref(&server.url), &[&public])
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        world.nix().check();
    }
}

#[test]
fn a_cache_that_breaks_for_good_is_named_and_the_next_one_serves() {
    let world = World::new();
    let Some((server, public, long)) = served(&world, "zstd") else { return };
    let wanted = locked(&fixture().expect("built").store.root, &[fixture().expect("built").path("hello")]);
    for fault in [Fault::Tamper, Fault::Truncate(1000), Fault::Status(403)] {
        server.heal();
        server.fault(&long, fault.clone());
        let other = World::new();
        let error = other.realise(&wanted, std::slice::from_ref(&server.url), &[&public]).expect_err("bad").to_string();
        assert!(error.contains(&server.url), "{fault:?}: {error}");
        let good = file_url(&world.path("served"));
        other.realise(&wanted, &[format!("{}?priority=1", server.url), good], &[&public]).expect("the next one");
        other.nix().check();
    }
}

/// A server that answers every request with `answer` and tells their heads.
fn scripted(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let (send, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut content = vec![0; length.unwrap_or(0)];
            let _ = reader.read_exact(&mut content);
            let text = answer(head.lines().next().unwrap_or_default());
            // The test is over when nobody listens.
            if send.send(head).is_err() || stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}"), heads)
}

fn reply(content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

#[test]
fn logins_go_to_the_cache_and_not_to_where_it_sends() {
    let (elsewhere, their_heads) = scripted(|_| reply("StoreDir: /nix/store\n"));
    let (cache, heads) = scripted(move |_| {
        format!("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n")
    });
    let mut world = World::new();
    std::fs::write(world.path("netrc"), "machine 127.0.0.1 login me password secret\n").expect("write");
    world.nix.netrc = Some(world.path("netrc"));
    assert_eq!(igloo_ops::realise::caches(&world.ctx(), std::slice::from_ref(&cache)).expect("caches").len(), 1);
    let head = heads.recv().expect("asked").to_ascii_lowercase();
    assert!(head.contains("authorization: basic bwu6c2vjcmv0"), "{head}");
    let head = their_heads.recv().expect("asked").to_ascii_lowercase();
    assert!(!head.contains("authorization") && !head.contains("secret"), "{head}");

    world.nix.tokens = vec![(cache.trim_start_matches("http://").to_owned(), "t0ken".into())];
    igloo_ops::realise::caches(&world.ctx(), &[cache]).expect("caches");
    let head = heads.recv().expect("asked").to_ascii_lowercase();
    assert!(head.contains("authorization: bearer t0ken"), "{head}");
    assert!(!their_heads.recv().expect("asked").to_ascii_lowercase().contains("t0ken"));
}

#[test]
fn buckets_are_asked_with_signed_requests_or_none() {
    let (cache, heads) = scripted(|_| reply("StoreDir: /nix/store\n"));
    let mut world = World::new();
    let url = format!("s3://bucket/dir?region=eu-west-1&scheme=http&endpoint={}", cache.trim_start_matches("http://"));
    igloo_ops::realise::caches(&world.ctx(), std::slice::from_ref(&url)).expect("caches");
    let head = heads.recv().expect("asked");
    assert!(head.starts_with("GET /bucket/dir/nix-cache-info "), "{head}");
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    world.nix.aws = Some(AwsKeys { id: "ID".into(), secret: "hidden".into(), token: None });
    igloo_ops::realise::caches(&world.ctx(), &[url]).expect("caches");
    let head = heads.recv().expect("asked");
    assert!(head.contains("AWS4-HMAC-SHA256 Credential=ID/") && head.contains("/eu-west-1/s3/aws4_request"), "{head}");
    assert!(head.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date") && !head.contains("hidden"), "{head}");
}
