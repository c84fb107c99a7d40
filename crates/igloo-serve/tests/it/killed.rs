//! `kill -9` in the middle of a push, and what is there after a restart.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use igloo_formats::oci::Digest;
use igloo_serve::registry::Server;

use crate::world::{Client, Running, options};

/// Where the child serves.
const DIRECTORY: &str = "IGLOO_SERVE_TEST_DIRECTORY";

/// Not a test: the server that is killed. Does nothing unless it is told where to serve.
#[test]
fn the_server_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut options = options(Path::new(&directory));
    options.signals = true;
    let server = Server::bind(options, Arc::new(igloo_base::event::Silent)).expect("bind");
    println!("\nlistening {}", server.addresses()[0]);
    server.run().expect("run");
}

struct Process {
    child: Child,
    client: Client,
    /// Kept open: what a test says at its end must have a place to go.
    _out: BufReader<std::process::ChildStdout>,
}

fn start(directory: &Path) -> Process {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "killed::the_server_that_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let line = out.by_ref().lines().map_while(Result::ok).find_map(|l| l.strip_prefix("listening ").map(str::to_owned));
    let address = line.expect("an address").parse().expect("an address");
    Process { child, client: Client { address, authorization: None }, _out: out }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_push_goes_on_after_the_server_was_killed() {
    let keep = tempfile::tempdir().expect("tempdir");
    let directory = keep.path().join("registry");
    let content: Vec<u8> = (0..1_500_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let server = start(&directory);
    let kept = server.client.image("a", "kept", "layer");
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let half = content.len() / 2;
    let range = format!("0-{}", half - 1);
    server.client.send("PATCH", &at, &[("Content-Range", &range)], &content[..half]).is(202);
    // Killed while the second half comes.
    let mut stream = server.client.connect();
    let length = (content.len() - half).to_string();
    stream.write_all(server.client.head("PATCH", &at, &[("Content-Length", &length)]).as_bytes()).expect("send");
    stream.write_all(&content[half..half + 2_000_000]).expect("send");
    drop(server);

    let server = start(&directory);
    assert_eq!(server.client.get("/v2/a/manifests/kept").is(200).body, kept.bytes);
    assert_eq!(server.client.get(&format!("/v2/a/blobs/{}", kept.layer)).is(200).body, b"layer");
    let range = server.client.get(&at).is(204).header("range").expect("range").to_owned();
    let there: usize = range.strip_prefix("0-").and_then(|n| n.parse::<usize>().ok()).expect("a number") + 1;
    assert!(there >= half && there <= half + 2_000_000, "{range}");
    let digest = Digest::of(&content);
    let range = format!("{there}-{}", content.len() - 1);
    let done = format!("{at}?digest={digest}");
    let pushed = server.client.send("PUT", &done, &[("Content-Range", &range)], &content[there..]).is(201);
    assert!(server.client.get(&pushed.location()).is(200).body == content);
}

#[test]
fn killed_at_any_moment_nothing_is_half_there() {
    let keep = tempfile::tempdir().expect("tempdir");
    let directory = keep.path().join("registry");
    for round in 0..8u64 {
        let mut server = start(&directory);
        let client = server.client.clone();
        let pushing = std::thread::spawn(move || {
            for n in 0..200 {
                let layer = format!("round {round} image {n} ").repeat(5000);
                // The server goes away under it at some point, which is what is tried.
                if std::panic::catch_unwind(|| client.image("a", &format!("t{}", n % 5), &layer)).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(40 + 37 * round));
        server.child.kill().expect("kill");
        pushing.join().expect("join");
    }
    let server = Running::start_in(keep.path(), |_| {});
    for tag in server.client.get("/v2/a/tags/list").is(200).json()["tags"].as_array().expect("tags") {
        let manifest = server.client.get(&format!("/v2/a/manifests/{}", tag.as_str().expect("text"))).is(200);
        let parsed = manifest.json();
        for part in parsed["layers"].as_array().expect("layers").iter().chain([&parsed["config"]]) {
            let digest = part["digest"].as_str().expect("digest");
            let blob = server.client.get(&format!("/v2/a/blobs/{digest}")).is(200);
            assert_eq!(Digest::of(&blob.body).to_string(), digest);
        }
    }
    // Everything that has a name has the content of that name.
    for file in server.files().iter().filter(|f| f.starts_with("blobs/sha256/") && !f.contains("/.")) {
        let content = std::fs::read(server.directory.join(file)).expect("read");
        assert_eq!(format!("blobs/sha256/{}", Digest::of(&content).0), *file);
    }
}

#[test]
fn sigterm_lets_a_request_end() {
    let keep = tempfile::tempdir().expect("tempdir");
    let mut server = start(&keep.path().join("registry"));
    let at = server.client.post("/v2/a/blobs/uploads/").is(202).location();
    let digest = Digest::of(b"content");
    let mut stream = server.client.connect();
    let path = format!("{at}?digest={digest}");
    stream.write_all(server.client.head("PUT", &path, &[("Content-Length", "7")]).as_bytes()).expect("send");
    stream.write_all(b"con").expect("send");
    // The request is being answered when the signal comes.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let killed = Command::new("kill").arg(server.child.id().to_string()).status().expect("kill");
    assert!(killed.success());
    std::thread::sleep(std::time::Duration::from_millis(200));
    stream.write_all(b"tent").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(server.child.wait().expect("wait").success());
}
