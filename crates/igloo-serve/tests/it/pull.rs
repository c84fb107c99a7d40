//! Pull: "Pulling manifests", "Pulling blobs" and "Checking if content exists" of the specification.

use igloo_formats::oci::{Digest, media};

use crate::world::Running;

#[test]
fn the_base_tells_that_this_is_a_registry() {
    let server = Running::start(|_| {});
    for path in ["/v2/", "/v2"] {
        let answer = server.client.get(path).is(200);
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
        server.client.head_of(path).is(200);
    }
    server.client.send("PUT", "/v2/", &[], b"").refuses(405, "UNSUPPORTED");
}

#[test]
fn manifests_are_had_by_tag_and_by_digest_byte_for_byte() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let pushed = client.image("acme/web", "v1", "layer");
    for select in ["v1".to_owned(), pushed.digest.to_string()] {
        let path = format!("/v2/acme/web/manifests/{select}");
        let got = client.get(&path).is(200);
        assert_eq!(got.body, pushed.bytes);
        assert_eq!(got.header("content-type"), Some(media::MANIFEST));
        assert_eq!(got.header("docker-content-digest"), Some(pushed.digest.to_string().as_str()));
        let head = client.head_of(&path).is(200);
        assert_eq!(head.header("content-length"), Some(pushed.bytes.len().to_string().as_str()));
        assert_eq!(head.header("docker-content-digest"), Some(pushed.digest.to_string().as_str()));
        assert!(head.body.is_empty());
    }
}

#[test]
fn what_is_not_there_is_404_with_the_codes_of_the_specification() {
    let server = Running::start(|_| {});
    let client = &server.client;
    client.image("acme/web", "v1", "layer");
    let nothing = Digest::of(b"nothing");
    client.get("/v2/acme/web/manifests/v2").refuses(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/acme/web/manifests/{nothing}")).refuses(404, "MANIFEST_UNKNOWN");
    client.get("/v2/acme/other/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/acme/web/blobs/{nothing}")).refuses(404, "BLOB_UNKNOWN");
    client.head_of(&format!("/v2/acme/web/blobs/{nothing}")).is(404);
    client.head_of("/v2/acme/web/manifests/v2").is(404);
}

#[test]
fn accept_decides_whether_a_manifest_is_shown() {
    let server = Running::start(|_| {});
    let client = &server.client;
    client.image("acme/web", "v1", "layer");
    let ask = |accept: &str| client.send("GET", "/v2/acme/web/manifests/v1", &[("Accept", accept)], b"").status;
    assert_eq!(ask(media::MANIFEST), 200);
    assert_eq!(ask(&format!("{}, {};q=0.5", media::INDEX, media::MANIFEST)), 200);
    assert_eq!(ask("*/*"), 200);
    assert_eq!(ask(media::DOCKER_MANIFEST), 404);
    let both = [("Accept", media::INDEX), ("Accept", media::MANIFEST)];
    client.send("GET", "/v2/acme/web/manifests/v1", &both, b"").is(200);
}

#[test]
fn blobs_are_had_whole_and_in_parts() {
    let server = Running::start(|_| {});
    let client = &server.client;
    // Longer than what is read at a time.
    let content: Vec<u8> = (0..700_001u32).flat_map(|n| n.to_le_bytes()).collect();
    let digest = client.blob("acme/web", &content);
    let path = format!("/v2/acme/web/blobs/{digest}");
    let whole = client.get(&path).is(200);
    assert!(whole.body == content);
    assert_eq!(whole.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let head = client.head_of(&path).is(200);
    assert_eq!(head.header("content-length"), Some(content.len().to_string().as_str()));
    let part = |range: &str| client.send("GET", &path, &[("Range", range)], b"");
    let some = part("bytes=1000-600000").is(206);
    assert!(some.body == content[1000..=600_000]);
    assert_eq!(some.header("content-range"), Some(format!("bytes 1000-600000/{}", content.len()).as_str()));
    assert!(part("bytes=2800000-").is(206).body == content[2_800_000..]);
    assert!(part("bytes=-5").is(206).body == content[content.len() - 5..]);
    assert_eq!(part("bytes=0-0").is(206).body, content[..1]);
    let beyond = part("bytes=2800004-").refuses(416, "SIZE_INVALID");
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", content.len()).as_str()));
    // Only the content that was meant is gone on with.
    let other = [("Range", "bytes=5-"), ("If-Range", "\"sha256:0\"")];
    assert_eq!(client.send("GET", &path, &other, b"").is(200).body.len(), content.len());
    let tag = whole.header("etag").expect("etag").to_owned();
    client.send("GET", &path, &[("If-None-Match", &tag)], b"").is(304);
    client.send("GET", &path, &[("Range", "bytes=5-"), ("If-Range", &tag)], b"").is(206);
}

#[test]
fn an_empty_blob_is_a_blob() {
    let server = Running::start(|_| {});
    let digest = server.client.blob("a", b"");
    assert!(server.client.get(&format!("/v2/a/blobs/{digest}")).is(200).body.is_empty());
    server.client.send("GET", &format!("/v2/a/blobs/{digest}"), &[("Range", "bytes=0-")], b"").is(416);
}

#[test]
fn many_requests_on_one_connection() {
    use std::io::{Read, Write};
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    let mut stream = server.client.connect();
    let path = format!("/v2/a/blobs/{}", pushed.layer);
    for _ in 0..20 {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.client.address);
        stream.write_all(head.as_bytes()).expect("send");
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\nlayer") {
            let mut byte = [0; 1];
            assert_eq!(stream.read(&mut byte).expect("receive"), 1, "{}", String::from_utf8_lossy(&got));
            got.push(byte[0]);
        }
    }
}
