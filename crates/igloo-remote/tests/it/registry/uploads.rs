//! Registries that take uploads badly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use igloo_base::event::Silent;
use igloo_formats::oci::{Digest, media};
use igloo_remote::registry::{BlobSource, RegistryError, Sent, push};

use super::hostile::{blob_of, guarded, hasty, told};
use super::server::{Answer, Script, Seen, Server};
use super::{image, layer, noise, registry, with_login};

/// Takes uploads, and breaks them as a test says.
#[derive(Default)]
struct Uploads {
    held: Mutex<Vec<u8>>,
    stored: Mutex<Vec<Vec<u8>>>,
    patches: AtomicUsize,
    /// How many pieces are cut, after how many bytes each.
    cuts: usize,
    cut: u64,
    /// How many pieces are answered by 416.
    refused: usize,
    /// The largest piece.
    most: Option<usize>,
    location: Option<String>,
}

struct Shared(Arc<Uploads>);

impl Uploads {
    fn session(&self, status: u16) -> Answer {
        let held = self.held.lock().unwrap().len();
        let range = format!("0-{}", held.saturating_sub(1));
        let location = self.location.as_deref().unwrap_or("/v2/a/blobs/uploads/1?_state=s");
        Answer::with(status, &[("Location", location), ("Range", &range)], "")
    }
}

impl Script for Shared {
    fn cut(&self, head: &Seen) -> Option<u64> {
        (head.method == "PATCH" && self.0.patches.load(Ordering::Relaxed) < self.0.cuts).then_some(self.0.cut)
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let state = &self.0;
        match seen.method.as_str() {
            "HEAD" => Answer::status(404),
            "POST" => {
                state.held.lock().unwrap().clear();
                state.session(202)
            }
            "PATCH" => {
                let number = state.patches.fetch_add(1, Ordering::Relaxed);
                if state.most.is_some_and(|most| seen.body.len() > most) {
                    return Answer::status(413);
                }
                let start = seen.header("content-range").split('-').next().and_then(|s| s.parse().ok());
                let mut held = state.held.lock().unwrap();
                if number < state.refused || start != Some(held.len()) {
                    return Answer::status(416);
                }
                held.extend(&seen.body);
                drop(held);
                state.session(202)
            }
            "PUT" => {
                state.held.lock().unwrap().extend(&seen.body);
                let content = std::mem::take(&mut *state.held.lock().unwrap());
                let digest = Digest::of(&content).to_string();
                state.stored.lock().unwrap().push(content);
                Answer::with(201, &[("Docker-Content-Digest", &digest)], "")
            }
            _ => state.session(204),
        }
    }
}

/// Uploads so many bytes.
fn upload(length: usize, uploads: Uploads) -> (Server, Arc<Uploads>, Vec<u8>, Result<Sent, RegistryError>) {
    let uploads = Arc::new(uploads);
    let server = Server::start(Shared(Arc::clone(&uploads)));
    let content = noise(9, length);
    let source = BlobSource::bytes(content.clone());
    let result = registry(&server.host).upload_blob("a", &blob_of(&content), &|o| source.open(o), &[]);
    (server, uploads, content, result)
}

#[test]
fn uploads_that_break_are_taken_up() {
    let broken = Uploads { cuts: 4, cut: 3_000_000, ..Uploads::default() };
    let (server, uploads, content, result) = upload(20 << 20, broken);
    assert_eq!(result.unwrap(), Sent::Uploaded);
    assert!(uploads.stored.lock().unwrap()[0] == content);
    assert_eq!(server.count("POST", ""), 1, "one session for all of it");
    let sent: usize = server.seen().iter().map(|s| s.body.len()).sum();
    assert_eq!(sent, 20 << 20, "nothing is sent twice");
    // 416 once: the registry is asked how far it got.
    let (_, uploads, content, result) = upload(9 << 20, Uploads { refused: 1, ..Uploads::default() });
    assert_eq!(result.unwrap(), Sent::Uploaded);
    assert!(uploads.stored.lock().unwrap()[0] == content);
    // A registry that takes small pieces only.
    let (server, uploads, content, result) = upload(40 << 20, Uploads { most: Some(16 << 20), ..Uploads::default() });
    assert_eq!(result.unwrap(), Sent::Uploaded);
    assert!(uploads.stored.lock().unwrap()[0] == content);
    assert_eq!(server.count("PATCH", ""), 4);
    // Those that never get any further are given up.
    let (server, _, _, result) = upload(9 << 20, Uploads { refused: 1000, ..Uploads::default() });
    told(&server, &result.unwrap_err());
    assert!(server.seen().len() < 60, "{}", server.seen().len());
    let (server, _, _, result) = upload(9 << 20, Uploads { cuts: 1000, cut: 10, ..Uploads::default() });
    told(&server, &result.unwrap_err());
    assert!(server.seen().len() < 60, "{}", server.seen().len());
}

#[test]
fn uploads_to_another_host() {
    // Plain HTTP to a stranger is refused, and the state of the upload is not shown.
    let (server, _, _, result) =
        upload(100, Uploads { location: Some("http://h.invalid/x?_state=hidden".to_owned()), ..Uploads::default() });
    let text = told(&server, &result.unwrap_err());
    assert!(text.contains("not encrypted") && !text.contains("hidden"), "{text}");
    // A host that may be spoken to gets the blob but no login.
    let other = Server::start(|seen: &Seen| {
        let digest = Digest::of(&seen.body).to_string();
        Answer::with(201, &[("Docker-Content-Digest", &digest)], "")
    });
    let to = format!("http://{}/elsewhere", other.host);
    let server = guarded(move |seen| match seen.method.as_str() {
        "HEAD" => Answer::status(404),
        _ => Answer::with(202, &[("Location", &to)], ""),
    });
    let content = noise(1, 5000);
    let source = BlobSource::bytes(content.clone());
    let registry = with_login(&server.host, "u", "hidden");
    registry.upload_blob("a", &blob_of(&content), &|o| source.open(o), &[]).unwrap();
    assert_eq!(other.seen().len(), 1);
    assert_eq!((other.seen()[0].header("authorization"), other.seen()[0].body.len()), ("", 5000));
    assert!(other.seen()[0].target.contains("digest=sha256%3A"));
}

#[test]
fn answers_to_uploads_that_are_wrong() {
    let content = noise(1, 5000);
    let source = BlobSource::bytes(content.clone());
    let other = Digest::of(b"other").to_string();
    type Told = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;
    let cases: Vec<(&str, Told)> = vec![
        ("does not say where", Box::new(|_| Answer::status(202))),
        ("answered 200", Box::new(|_| Answer::status(200))),
        ("does not allow", Box::new(|_| Answer::status(403))),
        (
            "another digest",
            Box::new(move |seen| match seen.method.as_str() {
                "POST" => Answer::with(202, &[("Location", "/v2/x")], ""),
                _ => Answer::with(201, &[("Docker-Content-Digest", &other)], ""),
            }),
        ),
        (
            "not redirected",
            Box::new(|seen| match seen.method.as_str() {
                "POST" => Answer::with(202, &[("Location", "/v2/x")], ""),
                _ => Answer::with(307, &[("Location", "/v2/y")], ""),
            }),
        ),
    ];
    for (expected, answer) in cases {
        let server = Server::start(answer);
        let result = registry(&server.host).upload_blob("a", &blob_of(&content), &|o| source.open(o), &[]);
        let text = told(&server, &result.unwrap_err());
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // A mount that is refused is an upload.
    let server = Server::start(|seen: &Seen| match (seen.method.as_str(), seen.target.contains("mount=")) {
        ("POST", true) => Answer::status(403),
        ("POST", false) => Answer::with(202, &[("Location", "/v2/x")], ""),
        _ => Answer::status(201),
    });
    let result = registry(&server.host).upload_blob("a", &blob_of(&content), &|o| source.open(o), &["b".to_owned()]);
    assert_eq!(result.unwrap(), Sent::Uploaded);
}

#[test]
fn an_old_image_whose_blobs_are_gone() {
    // The tag names an image that shares the base, but a collector of garbage took that.
    let base = layer(1, 1000);
    let (old, new) = (image("amd64", std::slice::from_ref(&base)), image("amd64", &[base, layer(2, 1000)]));
    let stored = Arc::new(Mutex::new(Vec::<Digest>::new()));
    let (old_bytes, kept) = (old.top.1.clone(), Arc::clone(&stored));
    let needed: Vec<Digest> = new.blobs.iter().map(|b| b.0.digest).collect();
    let server = Server::start(move |seen: &Seen| {
        let mut kept = kept.lock().unwrap();
        let there = kept.iter().any(|d| seen.target.contains(&d.to_string()));
        match seen.method.as_str() {
            "GET" => Answer::manifest(media::MANIFEST, &old_bytes),
            "HEAD" => Answer::status(if there { 200 } else { 404 }),
            "POST" => Answer::with(202, &[("Location", "/v2/upload")], ""),
            "PUT" if seen.target.contains("/upload") => {
                kept.push(Digest::of(&seen.body));
                Answer::status(201)
            }
            _ if needed.iter().all(|d| kept.contains(d)) => Answer::status(201),
            _ => Answer::with(400, &[], r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#),
        }
    });
    let pushed = push(&registry(&server.host), "a", &["x".to_owned()], &new, &Silent).unwrap();
    assert_eq!(stored.lock().unwrap().len(), 3);
    assert_eq!(pushed.manifests, 1);
    assert_eq!(server.count("PUT", "/manifests/x"), 2);
}

#[test]
fn an_unchanged_image_costs_one_request() {
    let image = image("amd64", &[layer(1, 1000)]);
    let bytes = image.top.1.clone();
    let server = Server::start(move |_: &Seen| Answer::manifest(media::MANIFEST, &bytes));
    assert!(push(&registry(&server.host), "a", &["x".to_owned()], &image, &Silent).unwrap().is_unchanged());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn uploads_that_nobody_reads() {
    // Takes the announcement and is silent then, for small blobs and large ones.
    let server = Server::start(|seen: &Seen| match seen.method.as_str() {
        "HEAD" => Answer::status(404),
        "POST" => Answer::with(202, &[("Location", "/v2/a/blobs/uploads/1")], ""),
        _ => Answer::raw(|_| {
            std::thread::sleep(std::time::Duration::from_secs(2));
            Ok(())
        }),
    });
    for length in [1000, 9 << 20] {
        let content = noise(1, length);
        let source = BlobSource::bytes(content.clone());
        let result = hasty(&server.host).upload_blob("a", &blob_of(&content), &|o| source.open(o), &[]);
        told(&server, &result.unwrap_err());
    }
    assert!(server.seen().len() < 20, "{}", server.seen().len());
}
