//! Who may do what.

use base64::Engine as _;
use igloo_serve::registry::tokens::{Right, create};

use crate::world::{Client, Running};

struct Tokens {
    server: Running,
    _directory: tempfile::TempDir,
    pull: String,
    push: String,
    acme: String,
    admin: String,
}

fn start() -> Tokens {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("tokens");
    let make = |name: &str, right, prefix: Option<&str>| {
        let prefix = prefix.map(|p| p.parse().expect("prefix"));
        create(name, right, prefix.as_ref(), Some(&file)).expect("create").token
    };
    let (pull, push) = (make("reader", Right::Pull, None), make("ci", Right::Push, None));
    let (acme, admin) = (make("acme", Right::Push, Some("acme")), make("root", Right::Admin, None));
    let server = Running::start(|options| options.tokens = Some(file.clone()));
    Tokens { server, _directory: directory, pull, push, acme, admin }
}

impl Tokens {
    fn basic(&self, token: &str) -> Client {
        let login = base64::engine::general_purpose::STANDARD.encode(format!("anybody:{token}"));
        Client { authorization: Some(format!("Basic {login}")), ..self.server.client.clone() }
    }

    fn bearer(&self, token: &str) -> Client {
        Client { authorization: Some(format!("Bearer {token}")), ..self.server.client.clone() }
    }
}

#[test]
fn without_a_token_there_is_a_challenge() {
    let tokens = start();
    for path in ["/v2/", "/v2/_catalog", "/v2/a/manifests/v1", "/metrics"] {
        let answer = tokens.server.client.get(path).refuses(401, "UNAUTHORIZED");
        assert!(answer.header("www-authenticate").is_some_and(|v| v.starts_with("Basic realm=")), "{answer:?}");
    }
    tokens.bearer("wrong").get("/v2/").refuses(401, "UNAUTHORIZED");
    tokens.basic("").get("/v2/").refuses(401, "UNAUTHORIZED");
    tokens.server.client.get("/healthz").is(200);
}

#[test]
fn rights_are_held_to() {
    let tokens = start();
    tokens.basic(&tokens.pull).get("/v2/").is(200);
    tokens.bearer(&tokens.pull).get("/v2/").is(200);
    tokens.basic(&tokens.pull).post("/v2/a/blobs/uploads/").refuses(403, "DENIED");
    let ci = tokens.basic(&tokens.push);
    let pushed = ci.image("a", "v1", "layer");
    tokens.basic(&tokens.pull).get("/v2/a/manifests/v1").is(200);
    ci.delete("/v2/a/manifests/v1").refuses(403, "DENIED");
    let admin = tokens.bearer(&tokens.admin);
    admin.delete("/v2/a/manifests/v1").is(202);
    admin.image("a", "v2", "layer");
    assert!(tokens.server.log.text().contains("127.0.0.1 root DELETE"), "{}", tokens.server.log.text());
    tokens.basic(&tokens.pull).get("/metrics").is(200);
    tokens.basic(&tokens.acme).get("/metrics").refuses(403, "DENIED");
    let at = ci.post("/v2/a/blobs/uploads/").is(202).location();
    tokens.basic(&tokens.pull).get(&at).refuses(403, "DENIED");
    drop(pushed);
}

#[test]
fn a_prefix_hides_everything_else() {
    let tokens = start();
    let (acme, ci) = (tokens.basic(&tokens.acme), tokens.basic(&tokens.push));
    acme.image("acme/web", "v1", "layer");
    let secret = ci.image("secret", "v1", "another layer");
    ci.image("acme2", "v1", "layer");
    acme.get("/v2/secret/manifests/v1").refuses(403, "DENIED");
    acme.get("/v2/acme2/tags/list").refuses(403, "DENIED");
    assert_eq!(acme.get("/v2/_catalog").json()["repositories"], serde_json::json!(["acme/web"]));
    assert_eq!(ci.get("/v2/_catalog").json()["repositories"].as_array().map(Vec::len), Some(3));
    // What one may not read can't be mounted, nor read by its digest alone.
    let mount = format!("/v2/acme/web/blobs/uploads/?mount={}&from=secret", secret.layer);
    acme.post(&mount).is(202);
    acme.get(&format!("/v2/acme/web/blobs/{}", secret.layer)).refuses(404, "BLOB_UNKNOWN");
    ci.post(&mount).is(201);
}

#[test]
fn tokens_come_and_go_while_the_server_runs() {
    let tokens = start();
    let file = tokens._directory.path().join("tokens");
    let made = create("late", Right::Pull, None, Some(&file)).expect("create").token;
    let eventually = |client: Client, status: u16| {
        let found = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            client.get("/v2/").status == status
        });
        assert!(found, "never {status}: {}", tokens.server.log.text());
    };
    eventually(tokens.basic(&made), 200);
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text.replace("late ", "# late ")).expect("write");
    eventually(tokens.basic(&made), 401);
    // A file that is broken changes nothing.
    std::fs::write(&file, "nonsense").expect("write");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    tokens.basic(&tokens.push).get("/v2/").is(200);
    assert!(tokens.server.log.text().contains("line 1"), "{}", tokens.server.log.text());
}

#[test]
fn without_tokens_only_this_machine_pushes() {
    let server = Running::start(|_| {});
    server.client.image("a", "v1", "layer");
    // Through a proxy, from a page in a browser.
    let others = [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"), ("Origin", "https://evil.example")];
    for header in others {
        server.client.send("POST", "/v2/a/blobs/uploads/", &[header], b"").refuses(403, "DENIED");
        server.client.send("DELETE", "/v2/a/manifests/v1", &[header], b"").refuses(403, "DENIED");
        server.client.send("GET", "/v2/a/manifests/v1", &[header], b"").is(200);
    }
    server.client.send("POST", "/v2/a/blobs/uploads/", &[("Host", "some.name")], b"").is(202);
}
