//! Other people's clients, and igloo's own.

use std::process::Command;

use igloo_base::event::Silent;
use igloo_formats::oci::{Descriptor, Digest, Manifest, media};
use igloo_remote::registry::{BlobSource, Credentials, PushImage, Registry, RegistryConfig, push};
use igloo_serve::registry::tokens::{Right, create};

use crate::world::{Running, config};

/// Larger than what the client sends in one request.
fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn image(layer: &[u8]) -> PushImage {
    let text = config(&String::from_utf8_lossy(layer));
    let config = Descriptor::of(media::CONFIG, text.as_bytes());
    let layer_descriptor = Descriptor::of(media::LAYER, layer);
    let manifest = Manifest::new(config.clone(), vec![layer_descriptor.clone()]);
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    PushImage {
        blobs: vec![
            (config, BlobSource::bytes(text.into_bytes())),
            (layer_descriptor, BlobSource::bytes(layer.to_vec())),
        ],
        manifests: Vec::new(),
        top: (Descriptor::of(media::MANIFEST, &bytes), bytes),
        mount_from: Vec::new(),
    }
}

#[test]
fn igloos_own_client_pushes_and_finds() {
    let server = Running::start(|_| {});
    let registry = Registry::new(RegistryConfig::default(), &server.client.address.to_string()).expect("registry");
    let layer = large();
    let mut image = image(&layer);
    let tags = ["v1".to_owned(), "v2".to_owned()];
    let pushed = push(&registry, "acme/web", &tags, &image, &Silent).expect("push");
    assert_eq!((pushed.uploaded, pushed.skipped), (2, 0));
    assert!(push(&registry, "acme/web", &tags, &image, &Silent).expect("push").is_unchanged());
    image.mount_from = vec!["acme/web".to_owned()];
    let mounted = push(&registry, "acme/other", &tags[..1], &image, &Silent).expect("push");
    assert_eq!((mounted.uploaded, mounted.mounted), (0, 2));
    let digests: Vec<Digest> = image.blobs.iter().map(|(d, _)| d.digest).collect();
    assert_eq!(registry.has_blobs("acme/other", &digests).expect("ask"), [true, true]);
    let got = server.client.get(&format!("/v2/acme/other/blobs/{}", digests[1])).is(200);
    assert!(got.body == layer);
}

#[test]
fn igloos_own_client_logs_in() {
    let keep = tempfile::tempdir().expect("tempdir");
    let file = keep.path().join("tokens");
    let token = create("ci", Right::Push, None, Some(&file)).expect("create").token;
    let server = Running::start(|options| options.tokens = Some(file.clone()));
    let host = server.client.address.to_string();
    let login = |password: &str| RegistryConfig {
        credentials: Credentials::login("anybody", password),
        ..RegistryConfig::default()
    };
    let registry = Registry::new(login(&token), &host).expect("registry");
    push(&registry, "a", &["v1".to_owned()], &image(b"layer"), &Silent).expect("push");
    let wrong = Registry::new(login("wrong"), &host).expect("registry");
    let refused = push(&wrong, "a", &["v1".to_owned()], &image(b"layer"), &Silent).expect_err("refused");
    assert!(refused.to_string().contains("login"), "{refused}");
}

/// Whether a program is there; says so when a test is skipped for want of it.
fn there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: there is no `{program}`; tests/run installs what can be had");
    }
    there
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn skopeo_copies_both_ways_logged_in_and_over_tls() {
    if !there("skopeo") || !there("openssl") {
        return;
    }
    let keep = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| keep.path().join(name).display().to_string();
    let (key, certificate) = (at("server.key"), at("server.crt"));
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", &key, "-out", &certificate];
    run("openssl", &[&new[..], &subject[..]].concat());
    std::fs::create_dir(keep.path().join("certs")).expect("mkdir");
    std::fs::copy(&certificate, keep.path().join("certs/ca.crt")).expect("copy");
    let file = keep.path().join("tokens");
    let token = create("ci", Right::Admin, None, Some(&file)).expect("create").token;
    let server = Running::start(|options| {
        options.tokens = Some(file.clone());
        options.tls = Some((certificate.clone().into(), key.clone().into()));
    });
    let host = format!("127.0.0.1:{}", server.client.address.port());
    let local = layout(keep.path(), &large());
    let login = format!("anybody:{token}");
    let certs = at("certs");
    let remote = format!("docker://{host}/acme/web:v1");
    let to = ["copy", "--dest-cert-dir", &certs, "--dest-creds", &login, &local, &remote];
    run("skopeo", &to);
    run("skopeo", &to);
    let back = format!("oci:{}:x", at("back"));
    run("skopeo", &["copy", "--src-cert-dir", &certs, "--src-creds", &login, &remote, &back]);
    let inspected = run("skopeo", &["inspect", "--raw", "--cert-dir", &certs, "--creds", &login, &remote]);
    let layers = serde_json::from_str::<serde_json::Value>(&inspected).expect("JSON")["layers"].clone();
    assert_eq!(layers.as_array().map(Vec::len), Some(1));
    let bare = format!("docker://{host}/acme/web");
    let tags = run("skopeo", &["list-tags", "--cert-dir", &certs, "--creds", &login, &bare]);
    assert!(tags.contains("\"v1\""), "{tags}");
    let refused = Command::new("skopeo").args(["inspect", "--cert-dir", &certs, "--no-creds", &remote]).output();
    assert!(!refused.expect("skopeo").status.success());
}

/// An image as an OCI layout, as skopeo reads it.
fn layout(directory: &std::path::Path, content: &[u8]) -> String {
    let mut archive = Vec::new();
    let mut header = [0u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    let blobs = directory.join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("mkdir");
    let put = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(descriptor.digest.0.to_string()), bytes).expect("write");
        descriptor
    };
    let layer = put(media::LAYER, &archive);
    let diff = layer.digest;
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    );
    let config = put(media::CONFIG, text.as_bytes());
    let manifest = Manifest::new(config, vec![layer]);
    let mut top = put(media::MANIFEST, &serde_json::to_vec(&manifest).expect("JSON"));
    top.annotations.insert("org.opencontainers.image.ref.name".to_owned(), "x".to_owned());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [top] });
    std::fs::write(directory.join("layout/index.json"), index.to_string()).expect("write");
    std::fs::write(directory.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    format!("oci:{}:x", directory.join("layout").display())
}

#[test]
fn podman_pulls_and_pushes() {
    if !there("podman") || !there("skopeo") {
        return;
    }
    let keep = tempfile::tempdir().expect("tempdir");
    let server = Running::start(|_| {});
    let host = server.client.address.to_string();
    let local = layout(keep.path(), b"hello");
    run("skopeo", &["copy", "--dest-tls-verify=false", &local, &format!("docker://{host}/a:v1")]);
    let at = |name: &str| keep.path().join(name).display().to_string();
    let (root, runroot) = (at("root"), at("runroot"));
    let podman = |words: &[&str]| {
        let store = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        run("podman", &[&store[..], words].concat())
    };
    podman(&["pull", "--tls-verify=false", &format!("{host}/a:v1")]);
    podman(&["push", "--tls-verify=false", &format!("{host}/a:v1"), &format!("{host}/b:v2")]);
    server.client.get("/v2/b/manifests/v2").is(200);
}
