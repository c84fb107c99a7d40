//! A server for a test, a client that says exactly what it is told to say, and small images.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use igloo_base::{Event, Reporter};
use igloo_formats::oci::{Descriptor, Digest, Manifest, media};
use igloo_serve::registry::{Options, Server, Stop};

/// Keeps what a server says.
#[derive(Default)]
pub struct Log(Mutex<Vec<Event>>);

impl Reporter for Log {
    fn event(&self, event: Event) {
        self.0.lock().expect("lock").push(event);
    }
}

impl Log {
    pub fn text(&self) -> String {
        format!("{:?}", self.0.lock().expect("lock"))
    }
}

/// A server in threads of this process; dropped, it ends and its directory goes.
pub struct Running {
    pub client: Client,
    pub log: Arc<Log>,
    pub directory: PathBuf,
    stop: Stop,
    thread: Option<std::thread::JoinHandle<()>>,
    _keep: Option<tempfile::TempDir>,
}

impl Running {
    /// With these changes to the usual options.
    pub fn start(change: impl FnOnce(&mut Options)) -> Self {
        let keep = tempfile::tempdir().expect("tempdir");
        let mut running = Self::start_in(keep.path(), change);
        running._keep = Some(keep);
        running
    }

    pub fn start_in(directory: &Path, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = options(&directory.join("registry"));
        change(&mut options);
        let log = Arc::new(Log::default());
        let reporter: Arc<dyn Reporter> = Arc::clone(&log) as Arc<dyn Reporter>;
        let directory = options.directory.clone();
        let server = Server::bind(options, reporter).expect("bind");
        let client = Client { address: server.addresses()[0], authorization: None };
        let stop = server.stop();
        let thread = std::thread::spawn(move || server.run().expect("run"));
        Self { client, log, directory, stop, thread: Some(thread), _keep: None }
    }

    /// Paths below the storage that exist, sorted, without locks.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.directory, &mut found);
        let prefix = format!("{}/", self.directory.display());
        let mut names: Vec<String> = found.iter().map(|p| p.display().to_string().replace(&prefix, "")).collect();
        names.retain(|n| !n.ends_with(".lock"));
        names.sort();
        names
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("list").flatten() {
        match entry.path().is_dir() {
            true => walk(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the server ends well");
            }
        }
    }
}

/// Any free port, no garbage collection, deleting allowed.
pub fn options(directory: &Path) -> Options {
    let mut options = Options::new(directory);
    options.listen = vec!["127.0.0.1:0".parse().expect("address")];
    options.collect = None;
    options.allow_delete = true;
    options
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Of all bytes that came.
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())));
        Some(Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// Panics with everything unless the status is this.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", String::from_utf8_lossy(&self.body), self.headers);
        self
    }

    /// Panics unless it is an error of the specification's form, with this status and code.
    #[track_caller]
    pub fn refuses(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.json()["errors"][0]["code"], code, "{answer:?}");
        assert!(answer.json()["errors"][0]["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
        answer
    }

    /// The path that `Location` names.
    #[track_caller]
    pub fn location(&self) -> String {
        self.header("location").unwrap_or_else(|| panic!("no location: {self:?}")).to_owned()
    }
}

/// Speaks HTTP/1.1, a connection a request.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub authorization: Option<String>,
}

impl Client {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        stream
    }

    /// The head of a request, up to and with the empty line.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        if let Some(authorization) = &self.authorization {
            head += &format!("Authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        if !matches!(method, "GET" | "HEAD") && !headers.iter().any(|(n, _)| *n == "Transfer-Encoding") {
            all.push(("Content-Length", &length));
        }
        let mut stream = self.connect();
        stream.write_all(self.head(method, path, &all).as_bytes()).expect("send the head");
        // A server may refuse before it has everything.
        let _ = stream.write_all(body);
        read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }

    pub fn head_of(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], &[])
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], &[])
    }

    pub fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[], &[])
    }

    /// Pushes a blob in one request.
    #[track_caller]
    pub fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes).is(201);
        digest
    }

    pub fn put_manifest(&self, name: &str, select: &str, media_type: &str, bytes: &[u8]) -> Answer {
        self.send("PUT", &format!("/v2/{name}/manifests/{select}"), &[("Content-Type", media_type)], bytes)
    }

    /// Pushes an image of one layer; its manifest.
    #[track_caller]
    pub fn image(&self, name: &str, tag: &str, content: &str) -> Pushed {
        let layer = self.blob(name, content.as_bytes());
        let config_text = config(content);
        self.blob(name, config_text.as_bytes());
        let bytes = manifest(&config_text, content);
        self.put_manifest(name, tag, media::MANIFEST, &bytes).is(201);
        Pushed { digest: Digest::of(&bytes), bytes, layer }
    }
}

/// An image that is in a registry.
pub struct Pushed {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub layer: Digest,
}

/// All that comes until the server closes.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer still has answered.
    let ended = stream.read_to_end(&mut bytes);
    Answer::parse(&bytes).unwrap_or_else(|| panic!("no answer ({ended:?}): {:?}", String::from_utf8_lossy(&bytes)))
}

/// A configuration for an image of one layer.
pub fn config(layer: &str) -> String {
    let diff = Digest::of(layer.as_bytes());
    format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#)
}

/// A manifest for an image of one layer.
pub fn manifest(config: &str, layer: &str) -> Vec<u8> {
    let config = Descriptor::of(media::CONFIG, config.as_bytes());
    let layer = Descriptor::of(media::LAYER, layer.as_bytes());
    serde_json::to_vec(&Manifest::new(config, vec![layer])).expect("JSON")
}
