//! Clients that mean harm.

use std::io::{Read, Write};
use std::time::Duration;

use igloo_formats::oci::{Digest, media};

use crate::world::{Running, read};

#[test]
fn an_upload_without_end_ends() {
    let server = Running::start(|options| options.max_upload = 3 << 20);
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let mut stream = server.client.connect();
    let head = server.client.head("PATCH", &at, &[("Transfer-Encoding", "chunked")]);
    stream.write_all(head.as_bytes()).expect("send");
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend([7; 0x10000]);
    chunk.extend(b"\r\n");
    // Far more than is taken, until the server has enough of it.
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&chunk).is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 64 << 20, "the server took {sent} bytes");
    server.client.get(&at).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.files(), Vec::<String>::new());
    // Announced, it is refused before it comes.
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let mut stream = server.client.connect();
    let head = server.client.head("PATCH", &at, &[("Content-Length", "4000000"), ("Expect", "100-continue")]);
    stream.write_all(head.as_bytes()).expect("send");
    read(&mut stream).refuses(413, "SIZE_INVALID");
    let most = vec![1; 3 << 20];
    server.client.blob("a", &most);
}

#[test]
fn pieces_do_not_add_up_to_more_than_is_taken() {
    let server = Running::start(|options| options.max_upload = 1000);
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    server.client.send("PATCH", &at, &[], &[1; 600]).is(202);
    server.client.send("PATCH", &at, &[], &[1; 600]).refuses(413, "SIZE_INVALID");
    server.client.send("PATCH", &at, &[], &[1; 400]).is(202);
    let digest = Digest::of(&[1; 1000]);
    server.client.send("PUT", &format!("{at}?digest={digest}"), &[], b"").is(201);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Running::start(|options| options.idle = Duration::from_millis(300));
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    for path in [at.as_str(), "/v2/a/manifests/v1"] {
        let mut stream = server.client.connect();
        let method = if path.contains("uploads") { "PATCH" } else { "PUT" };
        stream.write_all(server.client.head(method, path, &[("Content-Length", "100")]).as_bytes()).expect("send");
        stream.write_all(b"{").expect("send");
        read(&mut stream).is(408);
    }
    // What came is there, and the upload goes on.
    assert_eq!(server.client.get(&at).is(204).header("range"), Some("0-0"));
    server.client.send("PUT", &format!("{at}?digest={}", Digest::of(b"{}")), &[], b"}").is(201);
}

#[test]
fn who_comes_again_is_not_held_up_by_a_dead_connection() {
    let server = Running::start(|_| {});
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let mut dead = server.client.connect();
    dead.write_all(server.client.head("PATCH", &at, &[("Content-Length", "100")]).as_bytes()).expect("send");
    dead.write_all(b"abc").expect("send");
    // Well before the first one's silence is noticed.
    let wait = std::time::Instant::now();
    while server.client.send("PATCH", &at, &[("Content-Range", "3-4")], b"de").status != 202 {
        assert!(wait.elapsed() < Duration::from_secs(20), "held up");
    }
    server.client.send("PUT", &format!("{at}?digest={}", Digest::of(b"abcde")), &[], b"").is(201);
    drop(dead);
}

#[test]
fn a_huge_manifest_is_not_taken() {
    let server = Running::start(|_| {});
    let huge = vec![b' '; (4 << 20) + 1];
    server.client.put_manifest("a", "v1", media::MANIFEST, &huge).refuses(413, "SIZE_INVALID");
    let mut stream = server.client.connect();
    let head = server.client.head("PUT", "/v2/a/manifests/v1", &[("Transfer-Encoding", "chunked")]);
    stream.write_all(head.as_bytes()).expect("send");
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend([b' '; 0x10000]);
    chunk.extend(b"\r\n");
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&chunk).is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 64 << 20, "the server took {sent} bytes");
}

#[test]
fn names_lead_nowhere_else() {
    let server = Running::start(|_| {});
    let outside = server.directory.parent().expect("parent").join("outside");
    let digest = Digest::of(b"x");
    for name in
        ["../outside", "a/../../outside", "%2e%2e/outside", "a%2f..%2f..%2foutside", "/outside", "_tags", "a/_blobs"]
    {
        let answer = server.client.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], b"x");
        assert!(matches!(answer.status, 400 | 404), "{name}: {answer:?}");
    }
    let long = format!("/v2/{}/blobs/uploads/", "a/".repeat(200) + "a");
    server.client.post(&long).refuses(400, "NAME_INVALID");
    let deep = vec!["a"; 128].join("/");
    server.client.image(&deep, "v1", "layer");
    assert!(!outside.exists());
    for tag in ["..", "%2e%2e", ".hidden", "-x", "%00"] {
        let answer = server.client.put_manifest("a", tag, media::MANIFEST, b"{}");
        assert!(matches!(answer.status, 400 | 404), "{tag}: {answer:?}");
    }
}

#[test]
fn ranges_are_not_abused() {
    let server = Running::start(|_| {});
    let digest = server.client.blob("a", b"content");
    let path = format!("/v2/a/blobs/{digest}");
    let many = format!("bytes={}0-", "0-,".repeat(2000));
    for (range, status) in [
        (many.as_str(), 200),
        ("bytes=0-0,1-1", 200),
        ("bytes=5-2", 200),
        ("bytes=18446744073709551615-", 416),
        ("bytes=0-18446744073709551616", 206),
        ("bytes=-18446744073709551616", 206),
        ("bytes=-0", 416),
        ("bytes= 1 - 2 ", 206),
        ("lines=0-1", 200),
    ] {
        let answer = server.client.send("GET", &path, &[("Range", range)], b"");
        assert_eq!(answer.status, status, "{range}");
    }
}

#[test]
fn what_is_no_http_harms_nobody() {
    let server = Running::start(|_| {});
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    ] {
        let mut stream = server.client.connect();
        stream.write_all(bytes).expect("send");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
    }
    // A head without end.
    let mut stream = server.client.connect();
    let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\n");
    let line = format!("X: {}\r\n", "x".repeat(8000));
    let mut sent = 0;
    while sent < 16 << 20 && stream.write_all(line.as_bytes()).is_ok() {
        sent += line.len();
    }
    assert!(sent < 16 << 20, "the server took a head of {sent} bytes");
    server.client.get("/v2/").is(200);
}

#[test]
fn uploads_are_counted() {
    let server = Running::start(|options| options.max_uploads = 3);
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    server.client.post("/v2/b/blobs/uploads/").is(202);
    server.client.post("/v2/c/blobs/uploads/").is(202);
    let busy = server.client.post("/v2/d/blobs/uploads/").refuses(429, "TOOMANYREQUESTS");
    assert!(busy.header("retry-after").is_some());
    assert_eq!(server.files().len(), 3);
    server.client.delete(&at).is(204);
    server.client.post("/v2/d/blobs/uploads/").is(202);
}

#[test]
fn connections_are_counted_and_the_next_waits() {
    let server = Running::start(|options| options.max_connections = 2);
    let one = server.client.connect();
    let two = server.client.connect();
    let client = server.client.clone();
    let waiting = std::thread::spawn(move || client.get("/v2/").status);
    drop((one, two));
    assert_eq!(waiting.join().expect("answer"), 200);
}

#[test]
fn who_takes_nothing_of_what_is_sent_is_given_up() {
    let server = Running::start(|options| {
        options.idle = Duration::from_millis(500);
        options.max_connections = 1;
    });
    // More than all buffers on the way hold.
    let digest = server.client.blob("a", &vec![1; 64 << 20]);
    let mut stalled = server.client.connect();
    let head = server.client.head("GET", &format!("/v2/a/blobs/{digest}"), &[]);
    stalled.write_all(head.as_bytes()).expect("send");
    // There is one place, which the stalled one holds until then.
    server.client.get("/v2/").is(200);
    let mut rest = Vec::new();
    let ended = stalled.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.len() < 64 << 20, "all {} bytes came", rest.len());
}

/// A file system of little room, for as long as it is needed.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let keep = tempfile::tempdir().expect("tempdir");
    let at = keep.path().join("small");
    std::fs::create_dir(&at).expect("mkdir");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=2M", "small"]).arg(&at).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        println!("skipped: no small file system can be mounted here; this needs root");
        return;
    }
    let small = Small(at);
    {
        let server = Running::start_in(&small.0, |_| {});
        let image = server.client.image("a", "v1", "layer");
        let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
        server.client.send("PATCH", &at, &[], &vec![1; 4 << 20]).refuses(507, "UNKNOWN");
        server.client.delete(&at).is(204);
        assert_eq!(server.client.get("/v2/a/manifests/v1").is(200).body, image.bytes);
        server.client.image("a", "v2", "another layer");
    }
    drop(small);
}
