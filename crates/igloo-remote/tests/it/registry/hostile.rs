//! Registries that lie, stall, send us elsewhere or never end. Each ends with an error that names the registry, or
//! with what was asked for; none learns more than it is to know.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use igloo_base::event::Silent;
use igloo_formats::oci::{Descriptor, Digest, Index, Reference, media};
use igloo_remote::registry::{Choice, Credentials, Registry, RegistryConfig, RegistryError, pull};

use super::server::{Answer, Seen, Server};
use super::{Memory, image, layer, noise, registry, settings, with_login};

/// Does not wait for those who are silent.
pub(super) fn hasty(host: &str) -> Registry {
    Registry::new(
        RegistryConfig { patience: Duration::from_millis(300), making: Duration::from_millis(1500), ..settings() },
        host,
    )
    .unwrap()
}

pub(super) fn blob_of(content: &[u8]) -> Descriptor {
    Descriptor::of(media::LAYER, content)
}

/// Fetches a blob; what came and how it ended.
fn fetch(registry: &Registry, descriptor: &Descriptor) -> (Vec<u8>, Result<(), RegistryError>) {
    let mut sink = Vec::new();
    let result = registry.blob("a", descriptor, &mut sink);
    (sink, result)
}

fn manifest(registry: &Registry, select: &str) -> Result<(String, Vec<u8>, Digest), RegistryError> {
    registry.manifest_at("a", select)
}

/// An error that says who did it.
pub(super) fn told(server: &Server, error: &RegistryError) -> String {
    let text = super::super::chain(error);
    assert!(text.contains(&server.host), "{text}");
    assert!(!text.chars().any(char::is_control) && text.len() < 1500, "{text:?}");
    text
}

#[test]
fn content_of_another_digest() {
    let (asked, other) = (image("amd64", &[layer(1, 10)]).top.1, image("arm64", &[layer(2, 10)]).top.1);
    let (digest, bytes) = (Digest::of(&asked).to_string(), other.clone());
    let server = Server::start(move |seen: &Seen| match seen.target.contains("/blobs/") {
        true => Answer::with(200, &[], bytes.clone()),
        // By tag: the header says one thing and the content another.
        false => {
            let digest = Digest::of(b"something").to_string();
            Answer::with(200, &[("Content-Type", media::MANIFEST), ("Docker-Content-Digest", &digest)], bytes.clone())
        }
    });
    let registry = registry(&server.host);
    for select in [digest.as_str(), "latest"] {
        let error = manifest(&registry, select).unwrap_err();
        assert!(matches!(error, RegistryError::Digest { .. }), "{}", told(&server, &error));
    }
    let descriptor = Descriptor::new(media::LAYER, Digest::of(b"x"), other.len() as u64);
    let (_, result) = fetch(&registry, &descriptor);
    assert!(matches!(result, Err(RegistryError::Digest { .. })), "{result:?}");
    assert_eq!(server.count("GET", "/blobs/"), 1, "what is wrong is not asked for again");
}

#[test]
fn content_without_end() {
    let server = Server::start(|seen: &Seen| {
        let kind = if seen.target.contains("/manifests/") { media::MANIFEST } else { "application/octet-stream" };
        Answer::raw(move |out| {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(out, "10000\r\n")?;
                out.write_all(&vec![b' '; 0x10000])?;
                out.write_all(b"\r\n")?;
            }
        })
    });
    let registry = registry(&server.host);
    let error = manifest(&registry, "latest").unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 4_194_304, .. }), "{}", told(&server, &error));
    let error = registry.tags("a").unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{}", told(&server, &error));
    let (sink, result) = fetch(&registry, &blob_of(&[b' '; 100_000]));
    let error = result.unwrap_err();
    assert!(
        matches!(error, RegistryError::Size { expected: 100_000, found: 100_001, .. }),
        "{}",
        told(&server, &error)
    );
    assert!(sink.len() <= 100_000, "not a byte more is handed on");
}

#[test]
fn lengths_that_are_not_those_promised() {
    let content = noise(1, 5000);
    let bytes = content.clone();
    let server = Server::start(move |seen: &Seen| match seen.target.contains("/manifests/") {
        true => Answer::raw(|out| {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: 4194305\r\n\r\n", media::MANIFEST)
        }),
        false => Answer::with(200, &[], &bytes[..4000]),
    });
    let registry = registry(&server.host);
    let (_, result) = fetch(&registry, &blob_of(&content));
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Size { expected: 5000, found: 4000, .. }), "{}", told(&server, &error));
    let error = manifest(&registry, "big").unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{}", told(&server, &error));
}

/// Serves a blob, breaking off again and again, and taking ranges or not.
fn breaking(content: Vec<u8>, each: usize, ranges: bool) -> Server {
    Server::start(move |seen: &Seen| {
        let start = seen.header("range").strip_prefix("bytes=").and_then(|r| r.split('-').next()?.parse().ok());
        let start: usize = start.filter(|_| ranges).unwrap_or(0);
        let part = content[start..].to_vec();
        let (total, ranged) = (content.len(), start > 0);
        // Without ranges it gets a little further each time.
        let most = if ranges { each } else { each * (seen.number + 1) };
        Answer::raw(move |out| {
            match ranged {
                true => write!(out, "HTTP/1.1 206 Part\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1)?,
                false => write!(out, "HTTP/1.1 200 OK\r\n")?,
            }
            write!(out, "Content-Length: {}\r\n\r\n", part.len())?;
            out.write_all(&part[..most.min(part.len())])
        })
    })
}

#[test]
fn blobs_go_on_where_they_broke() {
    let content = noise(2, 900_000);
    for ranges in [true, false] {
        let server = breaking(content.clone(), 100_000, ranges);
        let (sink, result) = fetch(&registry(&server.host), &blob_of(&content));
        result.unwrap();
        assert!(sink == content);
        assert!(server.seen()[1].header("range").starts_with("bytes="), "the rest is asked for");
    }
    // One that never gets any further is given up.
    let server = breaking(content.clone(), 0, true);
    let error = fetch(&registry(&server.host), &blob_of(&content)).1.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{}", told(&server, &error));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn another_range_than_was_asked_for() {
    let content = noise(3, 200_000);
    let bytes = content.clone();
    let server = Server::start(move |seen: &Seen| {
        let bytes = bytes.clone();
        let resumed = !seen.header("range").is_empty();
        Answer::raw(move |out| match resumed {
            true => {
                write!(
                    out,
                    "HTTP/1.1 206 P\r\nContent-Range: bytes 5-199999/200000\r\nContent-Length: 199995\r\n\r\n"
                )?;
                out.write_all(&bytes[5..])
            }
            false => {
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")?;
                out.write_all(&bytes[..100_000])
            }
        })
    });
    let error = fetch(&registry(&server.host), &blob_of(&content)).1.unwrap_err();
    assert!(told(&server, &error).contains("another range"));
}

#[test]
fn silence_and_trickles_end() {
    let silent = Server::start(|_: &Seen| {
        Answer::raw(|_| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })
    });
    let error = manifest(&hasty(&silent.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{}", told(&silent, &error));
    let trickle = |head: &'static str| {
        Server::start(move |_: &Seen| {
            Answer::raw(move |out| {
                out.write_all(head.as_bytes())?;
                for _ in 0..400 {
                    out.write_all(b"a")?;
                    out.flush()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            })
        })
    };
    let body = trickle("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n");
    let error = fetch(&hasty(&body.host), &blob_of(&noise(1, 100_000))).1.unwrap_err();
    assert!(matches!(error, RegistryError::Slow { .. }), "{}", told(&body, &error));
    let error = manifest(&hasty(&body.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{}", told(&body, &error));
    let failure = trickle("HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n");
    let error = fetch(&hasty(&failure.host), &blob_of(b"x")).1.unwrap_err();
    assert!(matches!(error, RegistryError::Forbidden { .. }), "{}", told(&failure, &error));
    let head = trickle("HTTP/1.1 200 OK\r\nX-Long: ");
    let error = manifest(&hasty(&head.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{}", told(&head, &error));
}

#[test]
fn an_image_that_is_made_while_we_ask() {
    let image = image("amd64", &[layer(1, 1000)]);
    // What it consists of is there already.
    let sink = Memory::default();
    sink.blobs.lock().unwrap().extend(image.blobs.iter().map(|(blob, _)| (blob.digest, Vec::new())));
    let bytes = image.top.1.clone();
    let began = std::time::Instant::now();
    let server = Server::start(move |_: &Seen| match began.elapsed() < Duration::from_millis(900) {
        // Silent, and the connection stays.
        true => Answer::raw(|_| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        }),
        false => Answer::manifest(media::MANIFEST, &bytes),
    });
    let reference: Reference = format!("{}/a:latest", server.host).parse().unwrap();
    pull(&hasty(&server.host), &reference, &Choice::All, &sink, &Silent).unwrap();
    assert!(server.count("GET", "/manifests/latest") > 2);

    // One that never does is given up, and one that goes away is found out before.
    let server = Server::start(|_: &Seen| {
        Answer::raw(|_| {
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        })
    });
    let reference: Reference = format!("{}/a:latest", server.host).parse().unwrap();
    let began = std::time::Instant::now();
    let error = pull(&hasty(&server.host), &reference, &Choice::All, &sink, &Silent).unwrap_err();
    assert!(told(&server, &error).contains("timeout"), "{error}");
    assert!(began.elapsed() > Duration::from_millis(1500) && began.elapsed() < Duration::from_secs(10));
}

#[test]
fn headers_without_end() {
    let server = Server::start(|_: &Seen| {
        Answer::raw(|out| {
            write!(out, "HTTP/1.1 200 OK\r\n")?;
            for at in 0..1_000_000 {
                write!(out, "X-{at}: {}\r\n", "y".repeat(1000))?;
            }
            Ok(())
        })
    });
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{}", told(&server, &error));
}

/// Wants a basic login for everything.
pub(super) fn guarded(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |seen: &Seen| match seen.header("authorization").is_empty() {
        true => Answer::with(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], ""),
        false => answer(seen),
    })
}

#[test]
fn logins_stay_when_blobs_are_elsewhere() {
    let content = noise(4, 1000);
    let bytes = content.clone();
    let store = Server::start(move |_: &Seen| Answer::with(200, &[], bytes.clone()));
    let to = format!("http://{}/store/x?signature=s", store.host);
    let server = guarded(move |_| Answer::with(307, &[("Location", &to)], ""));
    let (sink, result) = fetch(&with_login(&server.host, "u", "hidden"), &blob_of(&content));
    result.unwrap();
    assert_eq!(sink, content);
    let there = store.seen();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].header("authorization"), "", "the login stays here");
    // A store that wants a login gets none.
    let greedy = Server::start(|_: &Seen| Answer::with(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], ""));
    let to = format!("http://{}/x?signature=s", greedy.host);
    let server = guarded(move |_| Answer::with(307, &[("Location", &to)], ""));
    let error = fetch(&with_login(&server.host, "u", "hidden"), &blob_of(&content)).1.unwrap_err();
    assert!(!told(&server, &error).contains("hidden"));
    assert!(greedy.seen().iter().all(|s| s.header("authorization").is_empty()));
    // Nor does it come back to where it would get one: here → there → here.
    let back = Arc::new(Mutex::new(String::new()));
    let target = Arc::clone(&back);
    let there = Server::start(move |_: &Seen| Answer::with(307, &[("Location", &target.lock().unwrap())], ""));
    let to = format!("http://{}/x", there.host);
    let server = guarded(move |seen| match seen.target.contains("returned") {
        true => Answer::with(200, &[], "leaked"),
        false => Answer::with(307, &[("Location", &to)], ""),
    });
    *back.lock().unwrap() = format!("http://{}/returned", server.host);
    fetch(&with_login(&server.host, "u", "hidden"), &blob_of(&content)).1.unwrap_err();
    assert!(
        server.seen().iter().filter(|s| s.target.contains("returned")).all(|s| s.header("authorization").is_empty())
    );
}

#[test]
fn redirections_that_are_not_followed() {
    let endless = Server::start(|seen: &Seen| Answer::with(302, &[("Location", &format!("/x{}", seen.number))], ""));
    let error = manifest(&registry(&endless.host), "x").unwrap_err();
    assert!(told(&endless, &error).contains("too many redirections"));
    assert!(endless.seen().len() < 10);
    for to in ["file:///etc/passwd", "ftp://h.example/", "", "http://h.invalid/x", "http://u:p@127.0.0.1:1/"] {
        let server = Server::start(move |_: &Seen| Answer::with(302, &[("Location", to)], ""));
        let error = manifest(&registry(&server.host), "x").unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{to}: {}", told(&server, &error));
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn refusals_without_end() {
    // A token server that gives tokens which are never accepted.
    let server = Server::start(|seen: &Seen| match seen.target.starts_with("/token") {
        true => Answer::with(200, &[], format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.number)),
        false => {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", seen.header("host"));
            Answer::with(
                401,
                &[("WWW-Authenticate", &challenge)],
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"no\u001b[2J"}]}"#,
            )
        }
    });
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    assert!(told(&server, &error).contains("log in"));
    assert_eq!(server.seen().len(), 3, "asked, got a token, asked again");
    // Challenges that cannot be met.
    for challenge in ["", "Negotiate", "Bearer", "Bearer realm=\"\"", "Bearer realm=\"file:///etc/passwd\"", "\"\"\","]
    {
        let server = Server::start(move |_: &Seen| Answer::with(401, &[("WWW-Authenticate", challenge)], ""));
        let error = manifest(&with_login(&server.host, "u", "hidden"), "x").unwrap_err();
        assert!(!told(&server, &error).contains("hidden"));
        assert_eq!(server.seen().len(), 1, "{challenge}");
    }
    // Answers of token servers that are no tokens.
    for answer in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":"a\r\nX-Evil: b"}"#, r#"{"token":5}"#] {
        let server = Server::start(move |seen: &Seen| match seen.target.starts_with("/token") {
            true => Answer::with(200, &[], answer),
            false => {
                let challenge = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
                Answer::with(401, &[("WWW-Authenticate", &challenge)], "")
            }
        });
        let error = manifest(&registry(&server.host), "x").unwrap_err();
        assert!(matches!(error, RegistryError::Token { .. }), "{answer}: {}", told(&server, &error));
    }
}

#[test]
fn logins_go_to_no_stranger_in_plain_text() {
    for realm in ["http://h.invalid/token", "http://127.0.0.1.h.invalid/token", "http://u:p@127.0.0.1:1/t"] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let server = Server::start(move |_: &Seen| Answer::with(401, &[("WWW-Authenticate", &challenge)], ""));
        let error = manifest(&with_login(&server.host, "u", "hidden"), "x").unwrap_err();
        assert!(matches!(error, RegistryError::Token { .. }), "{}", told(&server, &error));
        assert!(!told(&server, &error).contains("hidden"));
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn tokens_are_kept_by_scope_and_renewed_once() {
    let issued = Arc::new(AtomicUsize::new(0));
    let good = Arc::new(Mutex::new(String::new()));
    let (count, accepted) = (Arc::clone(&issued), Arc::clone(&good));
    let server = Server::start(move |seen: &Seen| {
        if seen.target.starts_with("/token") {
            let token = format!("t{}", count.fetch_add(1, Ordering::Relaxed));
            *accepted.lock().unwrap() = format!("Bearer {token}");
            return Answer::with(200, &[], format!(r#"{{"access_token":"{token}","expires_in":300}}"#));
        }
        let accepted = accepted.lock().unwrap();
        if accepted.is_empty() || seen.header("authorization") != *accepted {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", seen.header("host"));
            return Answer::with(401, &[("WWW-Authenticate", &challenge)], "");
        }
        Answer::with(200, &[("Content-Length-Of", "x")], "")
    });
    let registry = with_login(&server.host, "u", "p");
    for _ in 0..3 {
        assert!(registry.head_blob("a", Digest::of(b"x")).unwrap().is_some());
    }
    assert_eq!((issued.load(Ordering::Relaxed), server.count("HEAD", "")), (1, 4));
    let asked = server.seen().into_iter().find(|s| s.target.starts_with("/token")).unwrap();
    assert!(
        asked.target.contains("service=s") && asked.target.contains("scope=repository%3Aa%3Apull"),
        "{}",
        asked.target
    );
    assert_eq!(asked.header("authorization"), "Basic dTpw");
    // The token ends early.
    *good.lock().unwrap() = "Bearer other".to_owned();
    assert!(registry.head_blob("a", Digest::of(b"x")).unwrap().is_some());
    assert_eq!(issued.load(Ordering::Relaxed), 2);
    // Another scope costs a token, not a refusal.
    let before = server.seen().len();
    registry.head_blob("b", Digest::of(b"x")).unwrap();
    assert_eq!(server.seen().len(), before + 2);
    // An identity token is traded by POST.
    let credentials = Credentials::identity("identity/1");
    let registry = Registry::new(RegistryConfig { credentials, ..settings() }, &server.host).unwrap();
    registry.head_blob("a", Digest::of(b"x")).unwrap();
    let traded = server.seen().into_iter().find(|s| s.is("POST", "/token")).unwrap();
    let form = String::from_utf8(traded.body).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=identity%2F1"), "{form}");
}

#[test]
fn registries_that_are_busy() {
    let content = b"hello".to_vec();
    let bytes = content.clone();
    let server = Server::start(move |seen: &Seen| match seen.number {
        0 => Answer::with(429, &[("Retry-After", "1")], ""),
        1 => Answer::status(503),
        _ => Answer::with(200, &[], bytes.clone()),
    });
    let (sink, result) = fetch(&registry(&server.host), &blob_of(&content));
    result.unwrap();
    assert_eq!(sink, content);
    let server = Server::start(|_: &Seen| {
        Answer::with(
            429,
            &[("Retry-After", "86400")],
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        )
    });
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    let text = told(&server, &error);
    assert!(text.contains("in 86400 s") && text.contains("slow down"), "{text}");
    assert_eq!(server.seen().len(), 1);
    let server = Server::start(|_: &Seen| Answer::with(500, &[("Content-Type", "text/plain")], vec![b'x'; 1 << 20]));
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 500, .. }), "{}", told(&server, &error));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn what_is_no_image() {
    let top = image("amd64", &[layer(1, 10)]).top.1;
    let serve = |kind: &'static str, bytes: Vec<u8>| Server::start(move |_: &Seen| Answer::manifest(kind, &bytes));
    // Served as an index, calls itself a manifest.
    let server = serve(media::INDEX, top.clone());
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::Document { .. }), "{}", told(&server, &error));
    let server = serve("text/html", b"<html>".to_vec());
    let error = manifest(&registry(&server.host), "x").unwrap_err();
    assert!(matches!(error, RegistryError::MediaType { .. }), "{}", told(&server, &error));
    // An artifact: its configuration is of another kind.
    let text = String::from_utf8(top.clone()).unwrap();
    let artifact = text.replace(media::CONFIG, "application/vnd.example+json");
    for bytes in [artifact, text.replace(media::LAYER, "application/vnd.example.layer")] {
        let server = serve(media::MANIFEST, bytes.into_bytes());
        let reference: Reference = format!("{}/a:x", server.host).parse().unwrap();
        let error = pull(&registry(&server.host), &reference, &Choice::All, &Memory::default(), &Silent).unwrap_err();
        assert!(matches!(error, RegistryError::MediaType { .. }), "{}", told(&server, &error));
        assert_eq!(server.count("GET", "/blobs/"), 0, "nothing of it is fetched");
    }
    // Without a media type outside, the one inside counts.
    let server = serve("application/json", top);
    assert_eq!(manifest(&registry(&server.host), "x").unwrap().0, media::MANIFEST);
}

#[test]
fn indexes_without_end() {
    // Served for every digest: an index that names itself cannot have its own digest.
    let of = |entries: Vec<Descriptor>| serde_json::to_vec(&Index::new(entries)).unwrap();
    let own = of(vec![Descriptor::new(media::INDEX, Digest::of(b"itself"), 300)]);
    let bytes = own.clone();
    let server = Server::start(move |_: &Seen| Answer::manifest(media::INDEX, &bytes));
    let reference = |server: &Server| -> Reference { format!("{}/a:x", server.host).parse().unwrap() };
    let fetch = |server: &Server| {
        pull(&registry(&server.host), &reference(server), &Choice::All, &Memory::default(), &Silent).unwrap_err()
    };
    let error = fetch(&server);
    assert!(matches!(error, RegistryError::Digest { .. }), "{}", told(&server, &error));
    // A chain of honest ones.
    let mut chain = vec![of(Vec::new())];
    for _ in 0..20 {
        let last = chain.last().unwrap();
        chain.push(of(vec![Descriptor::of(media::INDEX, last)]));
    }
    let server = Server::start(move |seen: &Seen| {
        let found = chain.iter().find(|c| seen.target.contains(&Digest::of(c).to_string()));
        Answer::manifest(media::INDEX, found.or(chain.last()).unwrap())
    });
    assert!(told(&server, &fetch(&server)).contains("nested too deeply"));
    assert!(server.seen().len() < 6);
    // A wide one.
    let child = |at: usize| of(vec![Descriptor::new(media::INDEX, Digest::of(&at.to_le_bytes()), 1)]);
    let leaf = |at: usize| {
        let annotations = [("n".to_owned(), at.to_string())].into();
        serde_json::to_vec(&Index { annotations, ..Index::new(Vec::new()) }).unwrap()
    };
    let leaves: Vec<Vec<u8>> = (0..300).map(leaf).collect();
    let wide = of(leaves.iter().map(|l| Descriptor::of(media::INDEX, l)).collect());
    let server = Server::start(move |seen: &Seen| {
        let found = leaves.iter().find(|c| seen.target.contains(&Digest::of(c).to_string()));
        Answer::manifest(media::INDEX, found.unwrap_or(&wide))
    });
    assert!(told(&server, &fetch(&server)).contains("more than 256 manifests"));
    // A child of another length, and of another kind, than its index says.
    for entry in [Descriptor::new(media::INDEX, Digest::of(&child(1)), 5), Descriptor::of(media::MANIFEST, &child(1))] {
        let (top, bytes) = (of(vec![entry]), child(1));
        let server =
            Server::start(move |seen: &Seen| match seen.target.ends_with(":x") || seen.target.ends_with("/x") {
                true => Answer::manifest(media::INDEX, &top),
                false => Answer::manifest(media::INDEX, &bytes),
            });
        let error = fetch(&server);
        assert!(
            matches!(error, RegistryError::Size { .. } | RegistryError::MediaType { .. }),
            "{}",
            told(&server, &error)
        );
    }
}

#[test]
fn tags_without_end() {
    let server = Server::start(|seen: &Seen| {
        let link = format!("</v2/a/tags/list?last={}>; rel=\"next\"", seen.number);
        Answer::with(200, &[("Link", &link)], r#"{"name":"a","tags":["x"]}"#)
    });
    assert!(told(&server, &registry(&server.host).tags("a").unwrap_err()).contains("no end"));
    let server = Server::start(|_: &Seen| Answer::with(200, &[("Link", "</v2/a/tags/list?last=x>; rel=next")], "{}"));
    assert!(told(&server, &registry(&server.host).tags("a").unwrap_err()).contains("follows itself"));
    let server = Server::start(|_: &Seen| Answer::with(200, &[("Link", "<http://127.0.0.1:1/x>; rel=next")], "{}"));
    assert!(told(&server, &registry(&server.host).tags("a").unwrap_err()).contains("another host"));
    let server = Server::start(|_: &Seen| Answer::with(200, &[], r#"{"tags":["ok","../evil","a\u001b[2J",""]}"#));
    assert_eq!(registry(&server.host).tags("a").unwrap(), ["ok"]);
}

/// A sink that is full.
struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_not_the_registrys_fault() {
    let server = Server::start(|_: &Seen| Answer::with(200, &[], "hello"));
    let error = registry(&server.host).blob("a", &blob_of(b"hello"), &mut Full).unwrap_err();
    assert!(matches!(error, RegistryError::Sink { .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}
