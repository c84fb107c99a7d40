//! One request to a registry: login, redirections, retries, the registry's errors.

use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime};

use igloo_formats::oci::Digest;
use ureq::http::{Method, Uri};

use super::Registry;
use super::auth::Scope;
use super::error::{RegistryError, Said, shown};
use crate::RemoteError;
use crate::client::{Answer, Ask, Content, url};

/// Largest error answer that is read.
const MAX_ERROR: usize = 64 << 10;
const MAX_REDIRECTS: usize = 5;
/// A registry may hash and move all that it got before it answers; for each so many bytes it gets the time of patience
/// once more, which the slowest disks do not need.
const STORED: u64 = 256 << 20;

pub(super) const LOG_IN: &str = "log in first, as with `podman login` or `docker login`";
const LOG_IN_AGAIN: &str = "it does not accept the login that is stored; log in again";

/// Opens what is sent; called once an attempt.
pub(super) type Open<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Stream { open: Open<'a>, length: u64, digest: Digest },
}

/// Where to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// Below `/v2/`, escaped.
    Path(&'a str),
    /// As the registry said it, in full.
    Address(&'a str),
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    pub(super) scope: &'a Scope,
    pub(super) headers: Vec<(&'a str, String)>,
    pub(super) body: Body<'a>,
    /// For errors.
    pub(super) what: &'a str,
    /// Whether the answer is a document, all of which must come in due time.
    pub(super) document: bool,
    /// How many bytes the registry has to store before it answers.
    pub(super) stores: u64,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: &'a str, scope: &'a Scope, what: &'a str) -> Self {
        let (headers, body) = (Vec::new(), Body::None);
        Self { method, target: Target::Path(path), scope, headers, body, what, document: true, stores: 0 }
    }
}

/// An answer, and from where it came.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) url: String,
    /// Whether it is the registry's own, not that of a place it sent us to.
    home: bool,
}

impl Reply {
    pub(super) fn status(&self) -> u16 {
        self.answer.status
    }

    /// The media type without parameters.
    pub(super) fn kind(&self) -> String {
        let kind = self.answer.header("content-type").unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

impl Registry {
    pub(super) fn is_tls(&self) -> bool {
        *self.inner.tls.get().unwrap_or(&false)
    }

    /// `https://host` or `http://host`.
    pub(super) fn origin(&self, tls: bool) -> String {
        format!("{}://{}", if tls { "https" } else { "http" }, self.host())
    }

    /// Asks until there is an answer that is neither a passing failure nor a refusal that a login would change; any
    /// other status is an answer.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Reply, RegistryError> {
        let client = &self.inner.client;
        let mut attempt = 0;
        loop {
            let (failure, after) = match self.attempt(call) {
                Ok(mut reply) if is_passing(reply.status()) => {
                    let after = retry_after(&reply.answer);
                    (self.refused(call, &mut reply), after)
                }
                Ok(reply) => return Ok(reply),
                Err(error) => (error, None),
            };
            if attempt >= retries(&failure, client.config().retries) {
                return Err(failure);
            }
            self.pause(attempt, after, failure)?;
            attempt += 1;
        }
    }

    /// Waits before another attempt, or gives the failure back where the registry wants too long a pause.
    pub(super) fn pause(&self, attempt: u32, after: Option<u64>, failure: RegistryError) -> Result<(), RegistryError> {
        let own = self.inner.client.pause(attempt);
        let asked = after.map_or(Duration::ZERO, Duration::from_secs);
        if asked > self.config().longest_pause {
            return Err(failure);
        }
        std::thread::sleep(own.max(asked));
        Ok(())
    }

    /// One attempt, with a login where one is wanted. Never more than two requests, apart from redirections.
    pub(super) fn attempt(&self, call: &Call<'_>) -> Result<Reply, RegistryError> {
        let settled = self.inner.tls.get().is_some();
        let sent = if settled { self.ready(call.scope)? } else { None };
        let reply = match (settled, call.body) {
            (true, _) => self.follow(call, sent.as_deref())?,
            (false, Body::None) => self.settle(call)?,
            // What has content goes when it is known how.
            (false, _) => {
                drop(self.settle(&Call::new(Method::GET, "", call.scope, call.what))?);
                self.follow(call, None)?
            }
        };
        if reply.status() != 401 || !reply.home {
            return self.unless_refused(call, reply);
        }
        let challenges: Vec<String> = reply.answer.all("www-authenticate").map(str::to_owned).collect();
        // Read to its end, so that the connection can be used again.
        let mut reply = reply;
        let _ = self.read_error(&mut reply);
        drop(reply);
        let fresh = self.login(call.scope, sent.as_deref(), &challenges)?;
        let reply = self.follow(call, Some(&fresh))?;
        self.unless_refused(call, reply)
    }

    fn unless_refused(&self, call: &Call<'_>, mut reply: Reply) -> Result<Reply, RegistryError> {
        match reply.status() {
            401 => Err(self.refused(call, &mut reply)),
            _ => Ok(reply),
        }
    }

    /// The first request to a registry that may be spoken to plainly, which tells whether it speaks TLS.
    fn settle(&self, call: &Call<'_>) -> Result<Reply, RegistryError> {
        let plain = self.follow(call, None);
        let looks_like_tls = match &plain {
            Ok(reply) => reply.home && reply.status() == 400,
            Err(RegistryError::Connection { source, .. }) => is_confused(source),
            Err(_) => false,
        };
        if looks_like_tls {
            let address = format!("{}/v2/", self.origin(true));
            let probe = Call { target: Target::Address(&address), ..Call::new(Method::GET, "", call.scope, call.what) };
            if self.ask(&probe, &address, None).is_ok() {
                let _ = self.inner.tls.set(true);
                return self.follow(call, None);
            }
        }
        let reply = plain?;
        let _ = self.inner.tls.set(false);
        Ok(reply)
    }

    /// Follows redirections of what only reads. Our login goes to the registry's own origin and nowhere else.
    fn follow(&self, call: &Call<'_>, authorization: Option<&str>) -> Result<Reply, RegistryError> {
        let own = self.origin(self.is_tls());
        let mut at = match call.target {
            Target::Path(path) => format!("{own}/v2/{path}"),
            Target::Address(address) => address.to_owned(),
        };
        let mut home = true;
        let reads = matches!(call.method, Method::GET | Method::HEAD);
        for _ in 0..=MAX_REDIRECTS {
            // Once away, always away: who sent us back here could have put anything into the address.
            home &= is_at(&at, &own);
            let answer = self.ask(call, &at, authorization.filter(|_| home))?;
            if !answer.is_redirection() {
                return Ok(Reply { answer, url: at, home });
            }
            let to = answer.header("location").unwrap_or_default().to_owned();
            if !reads {
                return Err(self.astray(call.what, &to, "an upload is not redirected"));
            }
            at = self.resolve(&at, &to, call.what)?;
        }
        Err(self.astray(call.what, &at, "there are too many redirections"))
    }

    /// An address that the registry gave, in full, if one may go there.
    pub(super) fn resolve(&self, base: &str, to: &str, what: &str) -> Result<String, RegistryError> {
        let uri: Uri = url::parse(base)?;
        let next = url::redirect(&uri, to).map_err(|why| self.astray(what, to, why))?;
        let there = url::parse(&next).map_err(|_| self.astray(what, to, "this is no address"))?;
        if there.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(self.astray(what, to, "there is a login in it"));
        }
        if there.scheme_str() == Some("http") && !there.authority().is_some_and(|a| self.may_be_plain(a.as_str())) {
            return Err(self.astray(what, to, "it is not encrypted; allow plain HTTP for that host if this is right"));
        }
        Ok(next)
    }

    pub(super) fn astray(&self, what: &str, to: &str, why: &'static str) -> RegistryError {
        RegistryError::Redirect { host: self.host().to_owned(), what: what.to_owned(), to: shown(to), why }
    }

    /// One exchange.
    fn ask(&self, call: &Call<'_>, address: &str, authorization: Option<&str>) -> Result<Answer, RegistryError> {
        let mut headers = vec![("User-Agent", self.config().user_agent.as_str())];
        headers.extend(call.headers.iter().map(|(name, value)| (*name, value.as_str())));
        headers.extend(authorization.map(|value| ("Authorization", value)));
        let mut stream: Box<dyn Read + '_>;
        let mut failure = None;
        let mut told;
        let content = match call.body {
            Body::None if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) => Content::None,
            Body::None => Content::Bytes(&[]),
            Body::Bytes(bytes) => Content::Bytes(bytes),
            Body::Stream { open, length, digest } => {
                stream = open().map_err(|source| RegistryError::Source { digest, source })?;
                told = Told { inner: &mut stream, left: length, failure: &mut failure };
                Content::Stream(&mut told, length)
            }
        };
        let whole = call.document.then_some(self.config().patience);
        let times = 1 + u32::try_from(call.stores / STORED).unwrap_or(u32::MAX).min(100);
        let answer = (times > 1).then(|| self.config().patience * times);
        let ask = Ask { method: call.method.clone(), url: address, headers: &headers, content, whole, answer };
        let answer = self.inner.client.exchange(ask);
        // A source that fails is no fault of the registry's.
        if let (Some(source), Body::Stream { digest, .. }) = (failure, call.body) {
            return Err(RegistryError::Source { digest, source });
        }
        answer.map_err(|source| match source {
            RemoteError::Transport { .. } => RegistryError::Connection {
                host: self.host().to_owned(),
                what: call.what.to_owned(),
                source: Box::new(hide(source)),
            },
            other => RegistryError::Client(other),
        })
    }

    /// The error that an answer is. Reads what the registry has to say.
    pub(super) fn refused(&self, call: &Call<'_>, reply: &mut Reply) -> RegistryError {
        let kind = reply.kind();
        let after = retry_after(&reply.answer);
        let body = self.read_error(reply);
        let said = Said::read(&kind, &body);
        let (host, what) = (self.host().to_owned(), call.what.to_owned());
        match reply.status() {
            401 => {
                let next = if self.is_anonymous(call.scope) { LOG_IN } else { LOG_IN_AGAIN };
                RegistryError::Unauthorized { host, what, said, next }
            }
            403 => RegistryError::Forbidden { host, what, said },
            404 => RegistryError::NotFound { host, what, said },
            429 => RegistryError::Busy { host, said, after },
            status => RegistryError::Status { host, what, status, said },
        }
    }

    /// What comes with a status, as far as it comes in due time and is not too much. A registry that cannot even say
    /// what is wrong says nothing.
    fn read_error(&self, reply: &mut Reply) -> Vec<u8> {
        let began = Instant::now();
        let mut reader = reply.answer.reader();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4 << 10]);
        while bytes.len() < MAX_ERROR && began.elapsed() < self.config().patience {
            match reader.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        bytes
    }

    pub(super) fn broken(&self, what: &str, source: io::Error) -> RegistryError {
        RegistryError::Broken { host: self.host().to_owned(), what: what.to_owned(), source }
    }

    pub(super) fn protocol(&self, what: &str, why: &'static str) -> RegistryError {
        RegistryError::Protocol { host: self.host().to_owned(), what: what.to_owned(), why }
    }
}

/// A reader that must give so many bytes and remembers why it did not.
struct Told<'a, 'b> {
    inner: &'a mut Box<dyn Read + 'b>,
    left: u64,
    failure: &'a mut Option<io::Error>,
}

impl Read for Told<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let failure = loop {
            match self.inner.read(&mut buffer[..most]) {
                Ok(0) => break io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than its descriptor says"),
                Ok(count) => {
                    self.left -= count as u64;
                    return Ok(count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e,
            }
        };
        let copy = io::Error::new(failure.kind(), failure.to_string());
        *self.failure = Some(failure);
        Err(copy)
    }
}

/// Whether an address belongs to an origin `scheme://host[:port]`.
pub(super) fn is_at(address: &str, origin: &str) -> bool {
    let parts = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let plain = !uri.authority()?.as_str().contains('@');
        Some((tls, uri.host()?.to_ascii_lowercase(), port, plain))
    };
    matches!((parts(address), parts(origin)), (Some(a), Some(b)) if a == b && a.3)
}

/// The same without queries, in which states of uploads and signatures stand.
fn hide(error: RemoteError) -> RemoteError {
    match error {
        RemoteError::Transport { url, source } => RemoteError::Transport { url: shown(&url), source },
        other => other,
    }
}

/// Reads all of a document, or `None` when there is more than may be.
pub(super) fn read_capped(reader: &mut dyn Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Statuses that a moment later may be others.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The seconds of `Retry-After`, which may be a date.
pub(super) fn retry_after(answer: &Answer) -> Option<u64> {
    seconds(answer.header("retry-after")?.trim(), SystemTime::now())
}

fn seconds(text: &str, now: SystemTime) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    // The dates of HTTP are those of archives.
    let until = igloo_formats::deb::release::parse_date(text)?;
    Some(until.duration_since(now).map_or(0, |d| d.as_secs() + 1))
}

/// How often a failure may be tried again, of `most`.
pub(super) fn retries(error: &RegistryError, most: u32) -> u32 {
    match error {
        // Who was silent for so long once will hardly be faster the third time.
        RegistryError::Connection { source, .. } if is_timeout(source) => most.min(1),
        RegistryError::Connection { source, .. } => source.retries(most),
        RegistryError::Broken { source, .. } if source.kind() == io::ErrorKind::TimedOut => most.min(1),
        RegistryError::Broken { .. } | RegistryError::Busy { .. } => most,
        RegistryError::Status { status, .. } if is_passing(*status) => most,
        _ => 0,
    }
}

fn is_timeout(error: &RemoteError) -> bool {
    match error {
        RemoteError::Transport { source, .. } => match &**source {
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(e) => e.kind() == io::ErrorKind::TimedOut,
            _ => false,
        },
        _ => false,
    }
}

/// Whether a registry took a request and did not begin to answer it.
pub(super) fn is_silence(error: &RegistryError) -> bool {
    use ureq::Timeout::{PerRead, RecvResponse};
    let RegistryError::Connection { source, .. } = error else { return false };
    let RemoteError::Transport { source, .. } = &**source else { return false };
    matches!(**source, ureq::Error::Timeout(RecvResponse | PerRead))
}

/// Failures that a server speaking TLS has with plain HTTP.
fn is_confused(error: &RemoteError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        RemoteError::Transport { source, .. } => match &**source {
            ureq::Error::Io(e) => {
                matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            }
            ureq::Error::Protocol(_) => true,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_that_are_asked_for() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(seconds("120", now), Some(120));
        // The example of RFC 9110, seven seconds later.
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(8));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:20 GMT", now), Some(0));
        assert_eq!(seconds("soon", now), None);
    }

    #[test]
    fn origins() {
        assert!(is_at("https://h.example/v2/", "https://h.example"));
        assert!(is_at("https://H.example:443/v2/", "https://h.example"));
        assert!(!is_at("https://h.example:444/v2/", "https://h.example"));
        assert!(!is_at("http://h.example/v2/", "https://h.example"));
        assert!(!is_at("https://h.example.evil/v2/", "https://h.example"));
        assert!(!is_at("https://u@h.example/v2/", "https://h.example"));
        assert!(!is_at("https://evil.example/@h.example/", "https://h.example"));
    }
}
