//! Content management: deleting tags, manifests and blobs; what tells about the server.

use igloo_formats::oci::media;

use crate::world::Running;

#[test]
fn a_tag_is_deleted_and_its_manifest_stays() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    server.client.put_manifest("a", "v2", media::MANIFEST, &pushed.bytes).is(201);
    server.client.delete("/v2/a/manifests/v1").is(202);
    server.client.get("/v2/a/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
    server.client.get("/v2/a/manifests/v2").is(200);
    server.client.get(&format!("/v2/a/manifests/{}", pushed.digest)).is(200);
    server.client.delete("/v2/a/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn a_manifest_is_deleted_with_its_tags() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    let other = server.client.image("b", "v1", "layer");
    server.client.put_manifest("a", "v2", media::MANIFEST, &pushed.bytes).is(201);
    let kept = server.client.image("a", "v3", "other");
    server.client.delete(&format!("/v2/a/manifests/{}", pushed.digest)).is(202);
    for select in ["v1", "v2", &pushed.digest.to_string()] {
        server.client.get(&format!("/v2/a/manifests/{select}")).refuses(404, "MANIFEST_UNKNOWN");
    }
    server.client.get(&format!("/v2/a/manifests/{}", kept.digest)).is(200);
    server.client.get(&format!("/v2/b/manifests/{}", other.digest)).is(200);
    server.client.delete(&format!("/v2/a/manifests/{}", pushed.digest)).refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn a_blob_is_deleted_when_no_manifest_needs_it() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    server.client.image("b", "v1", "layer");
    let path = format!("/v2/a/blobs/{}", pushed.layer);
    let said = server.client.delete(&path).refuses(405, "UNSUPPORTED");
    assert!(String::from_utf8_lossy(&said.body).contains(&pushed.digest.to_string()));
    server.client.delete(&format!("/v2/a/manifests/{}", pushed.digest)).is(202);
    server.client.delete(&path).is(202);
    server.client.get(&path).refuses(404, "BLOB_UNKNOWN");
    server.client.delete(&path).refuses(404, "BLOB_UNKNOWN");
    server.client.get(&format!("/v2/b/blobs/{}", pushed.layer)).is(200);
}

#[test]
fn nothing_is_deleted_unless_it_is_allowed() {
    let server = Running::start(|options| options.allow_delete = false);
    let pushed = server.client.image("a", "v1", "layer");
    server.client.delete("/v2/a/manifests/v1").refuses(405, "UNSUPPORTED");
    server.client.delete(&format!("/v2/a/manifests/{}", pushed.digest)).refuses(405, "UNSUPPORTED");
    server.client.delete(&format!("/v2/a/blobs/{}", pushed.layer)).refuses(405, "UNSUPPORTED");
    server.client.get("/v2/a/manifests/v1").is(200);
}

#[test]
fn methods_that_do_nothing_are_refused() {
    let server = Running::start(|_| {});
    let pushed = server.client.image("a", "v1", "layer");
    let blob = format!("/v2/a/blobs/{}", pushed.layer);
    for (method, path) in [
        ("POST", "/v2/a/manifests/v1"),
        ("PATCH", "/v2/a/manifests/v1"),
        ("PUT", blob.as_str()),
        ("POST", blob.as_str()),
        ("GET", "/v2/a/blobs/uploads/"),
        ("DELETE", "/v2/a/tags/list"),
        ("POST", "/v2/_catalog"),
        ("OPTIONS", "/v2/"),
    ] {
        server.client.send(method, path, &[], b"").refuses(405, "UNSUPPORTED");
    }
    server.client.get("/").refuses(404, "UNSUPPORTED");
}

#[test]
fn health_and_metrics() {
    let server = Running::start(|_| {});
    assert_eq!(server.client.get("/healthz").is(200).body, b"ok\n");
    let pushed = server.client.image("a", "v1", "layer");
    server.client.get(&format!("/v2/a/blobs/{}", pushed.layer)).is(200);
    server.client.post("/v2/a/blobs/uploads/").is(202);
    let metrics = String::from_utf8(server.client.get("/metrics").is(200).body).expect("text");
    for line in [
        "igloo_registry_requests_total{route=\"manifest\",method=\"PUT\",status=\"201\"} 1",
        "igloo_registry_requests_total{route=\"blob\",method=\"GET\",status=\"200\"} 1",
        "igloo_registry_uploads 1",
        "igloo_registry_builds_total 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find(|l| l.starts_with(name) && !l.starts_with('#')).expect(name);
        line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect(name)
    };
    let sizes = pushed.bytes.len() + "layer".len() + crate::world::config("layer").len();
    assert_eq!(value("igloo_registry_received_bytes_total "), sizes as u64);
    assert!(value("igloo_registry_store_bytes ") >= sizes as u64);
    server.client.send("GET", "/metrics", &[("X-Forwarded-For", "192.0.2.1")], b"").refuses(403, "DENIED");
}

#[test]
fn one_server_a_directory() {
    let server = Running::start(|_| {});
    let options = crate::world::options(&server.directory);
    let second = igloo_serve::registry::Server::bind(options, std::sync::Arc::new(igloo_base::event::Silent));
    assert!(second.err().expect("refused").to_string().contains("another server"));
}
