//! A small HTTP/1.1 server on loopback: keep-alive, ranges, conditional requests, and faults on demand.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use igloo_base::Sha256;

use super::Archive;

/// Where the archive is on the server, so that a client which forgets the path of its address is caught.
const ROOT: &str = "/debian/";

/// Bytes that are written at once.
const CHUNK: usize = 16 << 10;

/// What the server does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and no content.
    Status(u16),
    /// Sends the client elsewhere.
    Redirect(String),
    /// Flips a bit in the middle.
    Tamper,
    /// Breaks off after so many bytes although more were promised.
    Drop(usize),
    /// Serves the first so many bytes as if they were all.
    Truncate(usize),
    /// Adds bytes at the end.
    Extend(usize),
    /// Waits so long before each 16 KiB.
    Slow(Duration),
    /// Answers a range request with the whole file.
    NoRange,
    /// Says which bytes it sends, and sends others.
    WrongRange,
    /// Sends the content in chunks, without its length.
    Chunked,
}

/// A request that the server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Below the archive's address.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// Which connection it came over, counted from 0.
    pub connection: usize,
    /// The request line as it came.
    pub line: String,
}

#[derive(Default)]
struct State {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    faults: Mutex<Vec<(String, Fault, usize)>>,
    requests: Mutex<Vec<Request>>,
    stop: AtomicBool,
    connections: AtomicUsize,
    busy: AtomicUsize,
    peak: AtomicUsize,
}

/// An archive that is being served. Dropping it stops the server.
pub struct Served {
    /// The archive's address: `http://127.0.0.1:<port>/debian`.
    pub url: String,
    /// A binary keyring with the keys that signed it.
    pub keyring: PathBuf,
    /// Their fingerprints.
    pub signers: Vec<String>,
    dir: tempfile::TempDir,
    state: Arc<State>,
    address: std::net::SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Served {
    pub(super) fn start(archive: &Archive) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let keyring = dir.path().join("keyring.gpg");
        let certificates: Vec<u8> = archive.keys.iter().flat_map(|k| k.certificate()).collect();
        std::fs::write(&keyring, certificates).expect("write the keyring");

        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { files: Mutex::new(archive.render()), ..State::default() });
        let shared = Arc::clone(&state);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let id = shared.connections.fetch_add(1, Ordering::Relaxed);
                    // A client that goes away is no concern of ours.
                    let _ = serve(&shared, stream, id);
                });
            }
        });
        let mut signers: Vec<_> = archive.keys.iter().map(super::Key::fingerprint).collect();
        signers.sort();
        let url = format!("http://{address}{}", ROOT.trim_end_matches('/'));
        Self { url, keyring, signers, dir, state, address, acceptor: Some(acceptor) }
    }

    /// A directory that lives as long as the server, for whatever a test needs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces what is served by another state of the archive, and keeps the pool, as archives do for a while.
    pub fn publish(&self, archive: &Archive) {
        let mut files = lock(&self.state.files);
        files.retain(|path, _| path.starts_with("pool/"));
        files.extend(archive.render());
    }

    /// From now on, requests whose path contains this text are answered wrongly.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.fault_times(usize::MAX, path, fault);
    }

    /// The next so many requests whose path contains this text are answered wrongly.
    pub fn fault_times(&self, times: usize, path: &str, fault: Fault) {
        lock(&self.state.faults).push((path.to_owned(), fault, times));
    }

    /// Everything is answered rightly again.
    pub fn heal(&self) {
        lock(&self.state.faults).clear();
    }

    /// A file as it is served, e.g. `dists/stable/InRelease`.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.state.files).get(path).cloned()
    }

    /// Puts a file in place.
    pub fn put(&self, path: &str, content: Vec<u8>) {
        lock(&self.state.files).insert(path.to_owned(), content);
    }

    /// Removes every file whose path contains this text.
    pub fn remove(&self, path: &str) {
        lock(&self.state.files).retain(|p, _| !p.contains(path));
    }

    /// Paths of the files that are served.
    pub fn paths(&self) -> Vec<String> {
        lock(&self.state.files).keys().cloned().collect()
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.state.requests).clear();
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The most requests that were answered at one time.
    pub fn peak(&self) -> usize {
        self.state.peak.load(Ordering::Relaxed)
    }

    /// Writes the archive's files below a directory, for addresses that begin with `file:`.
    pub fn write_to(&self, directory: &Path) {
        for (path, content) in lock(&self.state.files).iter() {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
            std::fs::write(path, content).expect("write a file");
        }
    }

    /// Writes an apt configuration that lists this archive into a directory that stands for `/etc/apt`.
    pub fn write_apt(&self, etc_apt: &Path, suites: &[&str]) {
        let sources = etc_apt.join("sources.list.d");
        std::fs::create_dir_all(&sources).expect("create a directory");
        let keyring = self.keyring.display();
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {keyring}\n",
            self.url,
            suites.join(" ")
        );
        std::fs::write(sources.join("test.sources"), text).expect("write the source");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// A test that panicked while it held the lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(state: &State, stream: TcpStream, connection: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut reader = BufReader::new(Patient { stream: stream.try_clone()?, state });
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if (&mut reader).take(64 << 10).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            (&mut reader).take(64 << 10).read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let busy = state.busy.fetch_add(1, Ordering::Relaxed) + 1;
        state.peak.fetch_max(busy, Ordering::Relaxed);
        let answered = answer(state, line.trim_end(), &headers, connection, &mut writer);
        state.busy.fetch_sub(1, Ordering::Relaxed);
        answered?;
        if headers.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
}

/// Reads until the server stops, so that idle connections end with it.
struct Patient<'a> {
    stream: TcpStream,
    state: &'a State,
}

impl Read for Patient<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buf) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.state.stop.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

fn answer(
    state: &State,
    line: &str,
    headers: &BTreeMap<String, String>,
    connection: usize,
    out: &mut TcpStream,
) -> io::Result<()> {
    let target = line.split(' ').nth(1).unwrap_or_default();
    // A client that speaks to a proxy names the host too.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |i| &rest[i..]),
        None => target,
    };
    let path = decode(target.strip_prefix(ROOT).unwrap_or(target));
    let faults = take_faults(state, &path);
    let range = headers.get("range").cloned();
    let log = |status: u16| {
        let (path, range, line) = (path.clone(), range.clone(), line.to_owned());
        lock(&state.requests).push(Request { path, range, status, connection, line });
    };
    for fault in &faults {
        match fault {
            Fault::Status(status) => {
                log(*status);
                return write!(out, "HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\n\r\n");
            }
            Fault::Redirect(to) => {
                log(302);
                return write!(out, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            }
            _ => {}
        }
    }
    let content = if target.starts_with(ROOT) { lock(&state.files).get(&path).cloned() } else { None };
    let Some(mut content) = content else {
        log(404);
        return write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let tag = format!("\"{}\"", &Sha256::of(&content).to_string()[..16]);
    if headers.get("if-none-match").is_some_and(|v| *v == tag) {
        log(304);
        return write!(out, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n");
    }
    damage(&mut content, &faults);

    let mut start = 0;
    let mut status = 200;
    let same = headers.get("if-range").is_none_or(|v| *v == tag);
    let wanted = range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    if let Some(wanted) = wanted.filter(|_| same && !faults.contains(&Fault::NoRange)) {
        if wanted >= content.len() {
            log(416);
            let length = content.len();
            return write!(out, "HTTP/1.1 416 Range\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\n\r\n");
        }
        (start, status) = (wanted, 206);
    }
    log(status);
    let body = &content[start..];
    let chunked = faults.contains(&Fault::Chunked);
    write!(out, "HTTP/1.1 {status} Yes\r\nETag: {tag}\r\nContent-Type: application/octet-stream\r\n")?;
    if status == 206 {
        let said = if faults.contains(&Fault::WrongRange) { start + 1 } else { start };
        write!(out, "Content-Range: bytes {said}-{}/{}\r\n", content.len() - 1, content.len())?;
    }
    match chunked {
        true => write!(out, "Transfer-Encoding: chunked\r\n\r\n")?,
        false => write!(out, "Content-Length: {}\r\n\r\n", body.len())?,
    }
    if line.starts_with("HEAD ") {
        return Ok(());
    }
    let dropped = faults.iter().find_map(|f| if let Fault::Drop(at) = f { Some(*at) } else { None });
    let mut sent = 0;
    for part in body.chunks(CHUNK) {
        for fault in &faults {
            if let Fault::Slow(pause) = fault {
                std::thread::sleep(*pause);
            }
        }
        if let Some(at) = dropped.filter(|at| sent + part.len() > *at) {
            out.write_all(&part[..at - sent])?;
            out.shutdown(std::net::Shutdown::Both)?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if chunked {
            write!(out, "{:x}\r\n", part.len())?;
        }
        out.write_all(part)?;
        if chunked {
            out.write_all(b"\r\n")?;
        }
        sent += part.len();
    }
    if chunked {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.flush()
}

fn take_faults(state: &State, path: &str) -> Vec<Fault> {
    let mut faults = lock(&state.faults);
    let hit = |(part, _, times): &mut (String, Fault, usize)| {
        let hit = path.contains(part.as_str()) && *times > 0;
        *times -= usize::from(hit && *times != usize::MAX);
        hit
    };
    let mut taken = Vec::new();
    for fault in faults.iter_mut() {
        if hit(fault) {
            taken.push(fault.1.clone());
        }
    }
    taken
}

fn damage(content: &mut Vec<u8>, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Tamper if !content.is_empty() => {
                let middle = content.len() / 2;
                content[middle] ^= 1;
            }
            Fault::Truncate(length) => content.truncate(*length),
            Fault::Extend(by) => content.resize(content.len() + by, b'x'),
            _ => {}
        }
    }
}

/// `%2B` and the like.
fn decode(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let code = (byte == b'%').then(|| [bytes.next(), bytes.next()].map(|b| b.unwrap_or(b'?')));
        match code.and_then(|c| u8::from_str_radix(std::str::from_utf8(&c).ok()?, 16).ok()) {
            Some(decoded) => out.push(decoded),
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
