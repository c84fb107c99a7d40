//! `igloo registry`: images that are built when they are pulled, and pushed ones, with real packages.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;

use crate::world::{Person, people};

/// One server a data directory, which the tests share.
static TURN: Mutex<()> = Mutex::new(());

struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    host: String,
}

impl Server {
    fn start(person: &Person, directory: &Path, words: &[&str]) -> Self {
        let all = ["registry", "serve", "--listen", "127.0.0.1:0"].iter().chain(words);
        let mut child = person
            .command("igloo")
            .args(all)
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let host = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        Self { child, host }
    }

    /// Asks it to end, and waits.
    fn stop(mut self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(status.success());
        assert!(self.child.wait().expect("wait").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn names_are_images_of_packages() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let person = &people()[0];
    let directory = person.directory("adhoc");
    let server = Server::start(person, &directory, &["--suite", "bookworm"]);
    // A machine of its own, as far as blobs go.
    let other = person.directory("elsewhere");
    let elsewhere = |words: &[&str]| {
        let output = person.command("igloo").args(words).env("IGLOO_CACHE_DIR", other.join("cache")).output();
        let output = output.expect("igloo");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let name = format!("{}/shell/jq", server.host);
    let (done, pulled, said) = elsewhere(&["image", "pull", "--json", &name]);
    assert!(done, "{said}");
    let digest = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value["digest"].as_str().unwrap_or_else(|| panic!("no digest: {text}")).to_owned()
    };
    let first = digest(&pulled);
    let (_, listed, said) = elsewhere(&["image", "ls", &name]);
    for path in ["/usr/bin/jq", "/usr/bin/bash", "/etc/ssl/certs/ca-certificates.crt"] {
        assert!(listed.contains(path), "{path}: {said}");
    }
    let (_, inspected, _) = elsewhere(&["image", "inspect", "--json", &format!("{}/arm64/jq", server.host)]);
    assert!(inspected.contains("linux/arm64"), "{inspected}");
    let (done, _, said) = elsewhere(&["image", "pull", &format!("{}/jq/no-such-package-at-all", server.host)]);
    assert!(!done && said.contains("there is no package `no-such-package-at-all`"), "{said}");
    runs(&name);
    // Another server, the same lock: the same digest.
    server.stop();
    let server = Server::start(person, &directory, &["--suite", "bookworm"]);
    let name = format!("{}/shell/jq:bookworm", server.host);
    let (_, pulled, _) = elsewhere(&["image", "pull", "--json", &name]);
    assert_eq!(digest(&pulled), first);
    server.stop();
}

/// Pulls and runs an image with podman, if it is there.
fn runs(name: &str) {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Command::new("podman").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: no `podman` or not root; tests/run installs it");
        return;
    }
    let store = tempfile::tempdir_in("/var/tmp").expect("tempdir");
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(store.path().join("root")).arg("--runroot").arg(store.path().join("run"));
        command.args(["--storage-driver", "vfs"]).args(words).output().expect("podman")
    };
    let pulled = podman(&["pull", "--tls-verify=false", name]);
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let run = podman(&["run", "--rm", "--network=none", name, "bash", "-c", "echo '{\"a\":1}' | jq -c .a"]);
    let said = String::from_utf8_lossy(&run.stderr);
    // Where containers can't be made at all, that is not the image's fault.
    match run.status.success() {
        true => assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), "1", "{said}"),
        false => println!("skipped: podman can't run containers here: {said}"),
    }
}

const MANIFEST: &str = r#"
[project]
name = "pushed"

[sources.debian]
suite = "bookworm"

[images.tool]
packages = ["jq"]
"#;

#[test]
fn images_are_pushed_listed_and_collected() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let person = &people()[0];
    let project = person.project("pushed", MANIFEST);
    let tokens = project.join("tokens");
    let made = person.igloo(&project, &["registry", "token", "ci", "--push", "--prefix", "acme", "--tokens", "tokens"]);
    let token = made.ok().trim().to_owned();
    assert!(!fs::read_to_string(&tokens).expect("tokens").contains(&token));
    let server = Server::start(person, &project, &["--no-adhoc", "--tokens", "tokens"]);
    let to = format!("{}/acme/tool", server.host);
    let push = ["image", "push", "tool", "--to", to.as_str(), "--tag", "v1", "--json"];
    assert!(person.igloo(&project, &push).fails().contains("login"));
    let login = project.join("docker");
    fs::create_dir(&login).expect("mkdir");
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("anybody:{token}"));
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host);
    fs::write(login.join("config.json"), auth).expect("write");
    let pushed = |words: &[&str]| {
        let command = person.command("igloo").args(words).env("DOCKER_CONFIG", &login).current_dir(&project).output();
        command.expect("igloo")
    };
    let first = pushed(&push);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let elsewhere = format!("{}/other/tool", server.host);
    let refused = pushed(&["image", "push", "tool", "--to", &elsewhere]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not allow"), "{refused:?}");
    let listed = person.igloo(&project, &["registry", "ls", "--json"]).json();
    let one = listed.as_array().and_then(|all| all.iter().find(|r| r["name"] == "acme/tool")).expect("acme/tool");
    assert!(one["tags"]["v1"].as_str().is_some_and(|d| d.starts_with("sha256:")), "{one}");
    assert!(one["bytes"].as_u64().is_some_and(|n| n > 1_000_000), "{one}");
    // All of it is needed.
    let collected = person.igloo(&project, &["registry", "gc", "--grace", "0s", "--untagged", "--json"]).json();
    assert_eq!(collected["blobs"], serde_json::json!([]));
    server.stop();
    let said = person.igloo(&project, &["registry", "serve", "--listen", "127.0.0.1:0", "--refresh", "soon"]);
    assert_eq!(said.code(), Some(2), "{said:?}");
}
