//! TLS: authorities and identities of single hosts, and what leaves TLS.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use igloo_base::event::Silent;
use igloo_remote::registry::{BlobSource, Credentials, PlainHttp, Registry, RegistryConfig, RegistryError, push};

use super::hostile::blob_of;
use super::real::{has, push_to, start};
use super::{image, layer, settings};

/// Makes an authority, and for `server` and `client` a key and a certificate by it.
fn certificates(dir: &Path) {
    let run = |line: &str| {
        let out = Command::new("openssl").args(line.split(' ')).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    run(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=igloo-test"));
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    for name in ["server", "client"] {
        run(&format!("req -new {} -keyout {name}.key -out {name}.csr -subj /CN={name}", key.replace(" -days 2", "")));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.cert"
        ));
    }
}

/// `certs.d` with a directory for a host.
fn certs(dir: &Path, host: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let certs = dir.join(format!("certs-{}", files.len()));
    std::fs::create_dir_all(certs.join(host)).unwrap();
    for (from, to) in files {
        std::fs::copy(dir.join(from), certs.join(host).join(to)).unwrap();
    }
    certs
}

#[test]
fn authorities_and_identities() {
    if !has("openssl") {
        return;
    }
    let tls =
        "  tls:\n    certificate: @DIR@/server.cert\n    key: @DIR@/server.key\n    clientcas:\n      - @DIR@/ca.crt\n";
    let Some(real) = start(tls, "", certificates) else { return };
    let (dir, host) = (real.dir.path(), real.host.as_str());
    let with = |certs: Option<std::path::PathBuf>, plain_http| {
        Registry::new(RegistryConfig { certs, plain_http, ..settings() }, host).unwrap()
    };
    // An authority that nobody knows.
    let error = with(None, PlainHttp::Never).ping().unwrap_err();
    let text = super::super::chain(&error);
    assert!(matches!(error, RegistryError::Connection { .. }) && text.to_lowercase().contains("certificate"), "{text}");
    // One that is known, but not who we are.
    let authority = certs(dir, host, &[("ca.crt", "ca.crt")]);
    let error = with(Some(authority), PlainHttp::Loopback).ping().unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error}");
    let both = certs(dir, host, &[("ca.crt", "ca.crt"), ("client.cert", "client.cert"), ("client.key", "client.key")]);
    let registry = with(Some(both), PlainHttp::Loopback);
    assert_eq!(push_to(&registry, "a", "x", &image("amd64", &[layer(1, 100_000)])).uploaded, 2);
    // A key that is missing is named.
    let half = certs(dir, host, &[("ca.crt", "ca.crt"), ("client.cert", "client.cert")]);
    let error = with(Some(half), PlainHttp::Loopback).ping().unwrap_err();
    assert!(super::super::chain(&error).contains("client.key"), "{error}");
}

#[test]
fn loopback_that_speaks_tls_is_found_out() {
    if !has("openssl") {
        return;
    }
    let tls = "  tls:\n    certificate: @DIR@/server.cert\n    key: @DIR@/server.key\n";
    let Some(real) = start(tls, "", certificates) else { return };
    let mut config = settings();
    config.client.ca_bundle = real.dir.path().join("ca.crt");
    let registry = Registry::new(config, &real.host).unwrap();
    assert_eq!(push_to(&registry, "a", "x", &image("amd64", &[layer(1, 100)])).uploaded, 2);
}

/// A server with TLS that sends everybody to plain HTTP.
const LEAVES: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, name, value = {
            "redirect": (302, "Location", "http://127.0.0.1:1/x"),
            "upload": (202, "Location", "http://127.0.0.1:1/x"),
            "realm": (401, "WWW-Authenticate", 'Bearer realm="http://127.0.0.1:1/token"'),
        }.get(self.path.split("/")[2], (200, "X-Nothing", ""))
        self.send_response(status)
        self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_POST = answer
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.cert", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_leaves_tls() {
    if !has("openssl") || !has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let mut server = Command::new("python3");
    let server = server.args(["-c", LEAVES]).current_dir(dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut server = Ending(server);
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let host = format!("127.0.0.1:{}", port.trim());
    let mut config = RegistryConfig { credentials: Credentials::login("u", "hidden"), ..settings() };
    config.client.ca_bundle = dir.path().join("ca.crt");
    let registry = Registry::new(config, &host).unwrap();
    let error = registry.manifest_at("redirect", "x").unwrap_err();
    assert!(error.to_string().contains("it leaves https"), "{error}");
    let error = registry.manifest_at("realm", "x").unwrap_err();
    assert!(matches!(error, RegistryError::Token { .. }) && error.to_string().contains("not encrypted"), "{error}");
    let source = BlobSource::bytes(&b"hello"[..]);
    let error = registry.upload_blob("upload", &blob_of(b"hello"), &|o| source.open(o), &[]).unwrap_err();
    assert!(error.to_string().contains("it leaves https"), "{error}");
    let error = push(&registry, "redirect", &["x".to_owned()], &image("amd64", &[]), &Silent).unwrap_err();
    assert!(error.to_string().contains(&host), "{error}");
}
