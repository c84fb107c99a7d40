//! Push: blobs in one request, in two, in pieces, mounted; manifests.

use igloo_formats::oci::{Descriptor, Digest, Index, Manifest, media};

use crate::world::{Running, config, manifest};

#[test]
fn a_blob_in_one_request() {
    let server = Running::start(|_| {});
    let digest = Digest::of(b"content");
    let path = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    let answer = server.client.send("POST", &path, &[("Content-Type", "application/octet-stream")], b"content").is(201);
    assert_eq!(answer.location(), format!("/v2/a/b/blobs/{digest}"));
    assert_eq!(server.client.get(&answer.location()).is(200).body, b"content");
    // The same once more, and into another repository.
    server.client.send("POST", &path, &[], b"content").is(201);
    server.client.get(&format!("/v2/c/blobs/{digest}")).refuses(404, "BLOB_UNKNOWN");
    server.client.blob("c", b"content");
    server.client.get(&format!("/v2/c/blobs/{digest}")).is(200);
    let blobs = server.files().iter().filter(|f| f.starts_with("blobs/")).count();
    assert_eq!(blobs, 1, "content is kept once");
}

#[test]
fn a_blob_in_two_requests() {
    let server = Running::start(|_| {});
    let begun = server.client.post("/v2/a/blobs/uploads/").is(202);
    assert_eq!(begun.header("range"), Some("0-0"));
    let digest = Digest::of(b"content");
    let done = format!("{}?digest={digest}", begun.location());
    let answer = server.client.send("PUT", &done, &[], b"content").is(201);
    assert_eq!(server.client.get(&answer.location()).is(200).body, b"content");
    server.client.get(&begun.location()).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    assert!(!server.files().iter().any(|f| f.starts_with("uploads/")), "{:?}", server.files());
}

#[test]
fn a_blob_in_pieces() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let at = client.post("/v2/a/blobs/uploads/").is(202).location();
    let piece = |range: &str, body: &[u8]| client.send("PATCH", &at, &[("Content-Range", range)], body);
    let first = piece("0-3", b"abcd").is(202);
    assert_eq!(first.header("range"), Some("0-3"));
    assert_eq!(first.location(), at);
    // Out of order, again, too long, too short, nonsense: nothing of it counts.
    let again = piece("0-3", b"abcd").refuses(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(again.header("range"), Some("0-3"));
    assert_eq!(again.location(), at);
    piece("8-9", b"ij").is(416);
    piece("4-5", b"efg").refuses(400, "SIZE_INVALID");
    piece("4-9", b"ef").refuses(400, "SIZE_INVALID");
    piece("5-4", b"").refuses(400, "BLOB_UPLOAD_INVALID");
    piece("x-y", b"ef").refuses(400, "BLOB_UPLOAD_INVALID");
    piece("9-4", b"ef").refuses(400, "BLOB_UPLOAD_INVALID");
    let status = client.get(&at).is(204);
    assert_eq!((status.header("range"), status.location()), (Some("0-3"), at.clone()));
    piece("4-5", b"ef").is(202);
    // A stream without a range goes to the end.
    let chunked = [("Transfer-Encoding", "chunked")];
    let streamed = client.send("PATCH", &at, &chunked, b"2\r\ngh\r\n0\r\n\r\n").is(202);
    assert_eq!(streamed.header("range"), Some("0-7"));
    let digest = Digest::of(b"abcdefghij");
    let last = client.send("PUT", &format!("{at}?digest={digest}"), &[("Content-Range", "8-9")], b"ij").is(201);
    assert_eq!(last.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(client.get(&last.location()).is(200).body, b"abcdefghij");
}

#[test]
fn a_chunked_piece_is_held_to_its_range() {
    let server = Running::start(|_| {});
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let headers = [("Transfer-Encoding", "chunked"), ("Content-Range", "0-1")];
    server.client.send("PATCH", &at, &headers, b"4\r\nabcd\r\n0\r\n\r\n").refuses(400, "SIZE_INVALID");
}

#[test]
fn uploads_are_cancelled() {
    let server = Running::start(|_| {});
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    server.client.send("PATCH", &at, &[], b"abc").is(202);
    server.client.delete(&at).is(204);
    server.client.get(&at).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    server.client.delete(&at).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.files(), Vec::<String>::new());
}

#[test]
fn content_with_another_digest_is_not_taken() {
    let server = Running::start(|_| {});
    let digest = Digest::of(b"content");
    let other = format!("/v2/a/blobs/uploads/?digest={digest}");
    server.client.send("POST", &other, &[], b"something").refuses(400, "DIGEST_INVALID");
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    server.client.send("PUT", &format!("{at}?digest={digest}"), &[], b"something").refuses(400, "DIGEST_INVALID");
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    server.client.send("PUT", &at, &[], b"content").refuses(400, "DIGEST_INVALID");
    server.client.send("PUT", &format!("{at}?digest=sha512:00"), &[], b"content").refuses(400, "DIGEST_INVALID");
    server.client.get(&format!("/v2/a/blobs/{digest}")).is(404);
    // The last one may still be done right.
    server.client.send("PUT", &format!("{at}?digest={digest}"), &[], b"content").is(201);
    assert_eq!(server.files().len(), 2, "{:?}", server.files());
}

#[test]
fn an_upload_belongs_to_its_repository() {
    let server = Running::start(|_| {});
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let elsewhere = at.replace("/v2/a/", "/v2/b/");
    server.client.get(&elsewhere).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    server.client.send("PATCH", &elsewhere, &[], b"x").refuses(404, "BLOB_UPLOAD_UNKNOWN");
    for id in ["..", "%2e%2e", "x", "-", "%2e%2e%2f%2e%2e%2fetc%2fpasswd"] {
        assert_eq!(server.client.get(&format!("/v2/a/blobs/uploads/{id}")).status / 100, 4, "{id}");
    }
}

#[test]
fn blobs_are_mounted_from_other_repositories() {
    let server = Running::start(|_| {});
    let digest = server.client.blob("from", b"content");
    let mount =
        |digest: &Digest, from: &str| server.client.post(&format!("/v2/to/blobs/uploads/?mount={digest}&from={from}"));
    let mounted = mount(&digest, "from").is(201);
    assert_eq!(mounted.location(), format!("/v2/to/blobs/{digest}"));
    server.client.get(&mounted.location()).is(200);
    // What isn't there is awaited.
    for answer in [mount(&Digest::of(b"x"), "from"), mount(&digest, "nowhere"), mount(&digest, "..%2F..")] {
        assert!(answer.is(202).location().contains("/uploads/"));
    }
    // Without a place to mount from, the blob is awaited.
    server.client.post(&format!("/v2/to/blobs/uploads/?mount={digest}")).is(202);
}

#[test]
fn manifests_need_all_their_parts() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let bytes = manifest(&config("layer"), "layer");
    let put = |bytes: &[u8]| client.put_manifest("a", "v1", media::MANIFEST, bytes);
    let said = put(&bytes).refuses(400, "MANIFEST_BLOB_UNKNOWN");
    assert!(String::from_utf8_lossy(&said.body).contains("sha256:"));
    client.blob("a", b"layer");
    put(&bytes).refuses(400, "MANIFEST_BLOB_UNKNOWN");
    // In another repository is not here.
    client.blob("b", config("layer").as_bytes());
    put(&bytes).refuses(400, "MANIFEST_BLOB_UNKNOWN");
    client.get("/v2/a/manifests/v1").is(404);
    client.blob("a", config("layer").as_bytes());
    let made = put(&bytes).is(201);
    let digest = Digest::of(&bytes);
    assert_eq!(made.location(), format!("/v2/a/manifests/{digest}"));
    assert_eq!(made.header("docker-content-digest"), Some(digest.to_string().as_str()));
    client.get(&made.location()).is(200);
    // A size that is not the blob's.
    let lying = String::from_utf8(bytes).expect("text").replace("\"size\":5", "\"size\":6");
    put(lying.as_bytes()).refuses(400, "MANIFEST_INVALID");
}

#[test]
fn manifests_are_put_by_their_own_digest_only() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    let put = |select: &str| server.client.put_manifest("a", select, media::MANIFEST, &pushed.bytes);
    put(&pushed.digest.to_string()).is(201);
    put(&Digest::of(b"x").to_string()).refuses(400, "DIGEST_INVALID");
    assert_eq!(put(&"x".repeat(129)).status, 404);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    let put = |media_type: &str, bytes: &[u8]| server.client.put_manifest("a", "v2", media_type, bytes);
    put(media::MANIFEST, b"{}").refuses(400, "MANIFEST_INVALID");
    put(media::MANIFEST, b"not JSON").refuses(400, "MANIFEST_INVALID");
    put(media::MANIFEST, &[b"[".repeat(100_000), b"]".repeat(100_000)].concat()).refuses(400, "MANIFEST_INVALID");
    put(media::DOCKER_MANIFEST, &pushed.bytes).refuses(400, "MANIFEST_INVALID");
    put("text/html", &pushed.bytes).refuses(400, "MANIFEST_INVALID");
    // The media type inside is as good as one outside.
    put("", &pushed.bytes).is(201);
}

#[test]
fn a_tag_moves() {
    let server = Running::start(|_| {});
    let one = server.client.image("a", "latest", "one");
    let two = server.client.image("a", "latest", "two");
    assert_eq!(server.client.get("/v2/a/manifests/latest").is(200).body, two.bytes);
    assert_eq!(server.client.get(&format!("/v2/a/manifests/{}", one.digest)).is(200).body, one.bytes);
}

#[test]
fn indexes_need_their_manifests() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let child = client.image("a", "child", "layer");
    let of = |bytes: &[u8]| Index::new(vec![Descriptor::of(media::MANIFEST, bytes)]);
    let good = serde_json::to_vec(&of(&child.bytes)).expect("JSON");
    client.put_manifest("a", "all", media::INDEX, &good).is(201);
    let got = client.get("/v2/a/manifests/all").is(200);
    assert_eq!(got.header("content-type"), Some(media::INDEX));
    assert_eq!(got.body, good);
    client.put_manifest("b", "all", media::INDEX, &good).refuses(400, "MANIFEST_BLOB_UNKNOWN");
    let missing = serde_json::to_vec(&of(b"{}")).expect("JSON");
    client.put_manifest("a", "none", media::INDEX, &missing).refuses(400, "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn dockers_names_and_artifacts_are_stored_as_they_are() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let (config, layer) = (client.blob("a", b"{}"), client.blob("a", b"signature"));
    let mut artifact = Manifest::new(
        Descriptor::new("application/vnd.oci.empty.v1+json", config, 2),
        vec![Descriptor::new("application/vnd.example.signature", layer, 9)],
    );
    artifact.artifact_type = Some("application/vnd.example".to_owned());
    let bytes = serde_json::to_vec(&artifact).expect("JSON");
    client.put_manifest("a", "sig", media::MANIFEST, &bytes).is(201);
    artifact.media_type = Some(media::DOCKER_MANIFEST.to_owned());
    artifact.artifact_type = None;
    let bytes = serde_json::to_vec(&artifact).expect("JSON");
    client.put_manifest("a", "docker", media::DOCKER_MANIFEST, &bytes).is(201);
    let got = client.get("/v2/a/manifests/docker").is(200);
    assert_eq!((got.header("content-type"), &got.body), (Some(media::DOCKER_MANIFEST), &bytes));
}

#[test]
fn several_push_the_same_at_once() {
    let server = Running::start(|_| {});
    std::thread::scope(|scope| {
        for n in 0..12 {
            let client = server.client.clone();
            scope.spawn(move || {
                let layer = "the same content".repeat(20_000);
                let name = format!("r{}", n % 3);
                for tag in ["a", "b"] {
                    client.image(&name, tag, &layer);
                }
            });
        }
    });
    for n in 0..3 {
        server.client.get(&format!("/v2/r{n}/manifests/b")).is(200);
    }
    assert_eq!(server.files().iter().filter(|f| f.starts_with("blobs/")).count(), 3);
    assert!(!server.files().iter().any(|f| f.starts_with("uploads/")));
}
