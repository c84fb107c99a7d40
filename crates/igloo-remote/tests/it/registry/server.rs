//! A registry that does what a test tells it, byte for byte, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use igloo_formats::oci::Digest;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// Which request of the whole server it is, from 0.
    pub(super) number: usize,
}

impl Seen {
    pub(super) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

type Raw = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What is answered.
pub(super) enum Answer {
    /// Status, headers, content. The length is added.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Whatever it writes; then the connection ends.
    Raw(Raw),
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self::Full(status, Vec::new(), Vec::new())
    }

    pub(super) fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Self::Full(status, headers, body.into())
    }

    pub(super) fn raw(act: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Self {
        Self::Raw(Box::new(act))
    }

    /// A manifest as registries serve them.
    pub(super) fn manifest(media_type: &str, bytes: &[u8]) -> Self {
        let digest = Digest::of(bytes).to_string();
        Self::with(200, &[("Content-Type", media_type), ("Docker-Content-Digest", &digest)], bytes)
    }
}

/// What is done with a request, told of its head first: how much of its content is read before the connection is cut.
pub(super) trait Script: Send + Sync {
    fn cut(&self, _head: &Seen) -> Option<u64> {
        None
    }
    fn answer(&self, seen: &Seen) -> Answer;
}

impl<F: Fn(&Seen) -> Answer + Send + Sync> Script for F {
    fn answer(&self, seen: &Seen) -> Answer {
        self(seen)
    }
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    stop: AtomicBool,
    number: AtomicUsize,
}

/// Ends with the test.
pub(super) struct Server {
    pub(super) host: String,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(script: impl Script + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let (shared, script) = (Arc::clone(&state), Arc::new(script));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                std::thread::spawn(move || {
                    // Nobody waits for a client that does not come back.
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                    let _ = stream.set_nodelay(true);
                    // A client that goes away is what many tests are about.
                    let _ = serve(&shared, &*script, stream);
                });
            }
        });
        Self { host, state, acceptor: Some(acceptor) }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(super) fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|s| s.is(method, part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(state: &State, script: &dyn Script, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut seen = Seen { method, target, ..Seen::default() };
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) => seen.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        seen.number = state.number.fetch_add(1, Ordering::Relaxed);
        let length: u64 = seen.header("content-length").parse().unwrap_or(0);
        if !seen.header("expect").is_empty() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.get_mut().flush()?;
        }
        let cut = script.cut(&seen);
        (&mut stream).take(cut.unwrap_or(length)).read_to_end(&mut seen.body)?;
        state.seen.lock().unwrap().push(seen.clone());
        let answer = script.answer(&seen);
        if cut.is_some() {
            return Ok(());
        }
        let out = stream.get_mut();
        match answer {
            Answer::Raw(act) => {
                act(out)?;
                return out.flush();
            }
            Answer::Full(status, headers, body) => {
                let mut text = format!("HTTP/1.1 {status} Told\r\n");
                headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
                if status != 204 {
                    text += &format!("Content-Length: {}\r\n", body.len());
                }
                out.write_all((text + "\r\n").as_bytes())?;
                if seen.method != "HEAD" {
                    out.write_all(&body)?;
                }
                out.flush()?;
            }
        }
    }
}
