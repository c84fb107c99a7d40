//! The HTTP client: one set of connections, limits on everything, proxies, redirections.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{Connector, DefaultConnector, TcpConnector};
use ureq::{Agent, AsSendBody, Proxy};

use crate::RemoteError;
use crate::apt::conf::AptConfig;

pub(crate) mod base64;
mod certs;
mod forward;
mod resolve;
pub(crate) mod url;

const CONNECT: Duration = Duration::from_secs(10);
const RESOLVE: Duration = Duration::from_secs(10);
/// Longest silence while an answer or its content is awaited.
const IDLE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// Where the machine keeps things, and what the binary read from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The machine's apt configuration.
    pub etc_apt: PathBuf,
    /// Where packages install keyrings.
    pub keyrings: PathBuf,
    /// Certificate authorities in PEM; built-in ones when the file is absent.
    pub ca_bundle: PathBuf,
    /// `http_proxy`; apt's own setting is used when there is none.
    pub http_proxy: Option<String>,
    /// `https_proxy`; likewise.
    pub https_proxy: Option<String>,
    /// `no_proxy`: hosts and domains, separated by commas.
    pub no_proxy: Option<String>,
    /// Connections to one host at a time.
    pub connections: usize,
    /// How often a transient failure is tried again.
    pub retries: u32,
    /// The first pause before that; each further one is twice as long.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            etc_apt: "/etc/apt".into(),
            keyrings: "/usr/share/keyrings".into(),
            ca_bundle: "/etc/ssl/certs/ca-certificates.crt".into(),
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            connections: 8,
            retries: 4,
            pause: Duration::from_millis(250),
        }
    }
}

/// All that leaves this machine goes through one of these. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    apt: AptConfig,
    /// Longest silence while an answer or its content is awaited.
    idle: Duration,
    /// This machine itself is asked directly, whatever proxy is set.
    loopback_direct: bool,
    /// Where authorities and identities of single hosts are, as registries have them.
    certs: Option<PathBuf>,
    roots: OnceLock<RootCerts>,
    /// By proxy and by whether TLS is needed; the authorities are read only for the latter.
    agents: Mutex<HashMap<AgentKey, Agent>>,
    /// Connections in use by host.
    busy: Mutex<HashMap<String, usize>>,
    freed: Condvar,
}

/// What decides which connections may serve a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AgentKey {
    proxy: Option<String>,
    tls: bool,
    /// `host[:port]`, when it has certificates of its own.
    own: Option<String>,
}

/// What goes along with a request.
pub(crate) enum Content<'a> {
    /// Nothing, as with GET and HEAD.
    None,
    /// Bytes in memory; none at all for a POST without content.
    Bytes(&'a [u8]),
    /// So many bytes of a reader, which must fail rather than end early.
    Stream(&'a mut dyn Read, u64),
}

/// One request, no redirection followed.
pub(crate) struct Ask<'a> {
    pub(crate) method: ureq::http::Method,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) content: Content<'a>,
    /// How long the whole of the answer's content may take; without, only each pause is limited.
    pub(crate) whole: Option<Duration>,
    /// How long the answer may be awaited, if not as long as any other.
    pub(crate) answer: Option<Duration>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// An answer whose content is yet to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: ureq::http::HeaderMap,
    body: Option<ureq::Body>,
    _permit: Permit,
}

impl Answer {
    pub(crate) fn is_redirection(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The content. The answer must live as long, since it holds the place among the host's connections.
    pub(crate) fn reader(&mut self) -> Box<dyn Read + Send> {
        match self.body.take() {
            Some(body) => Box::new(body.into_reader()),
            None => Box::new(std::io::empty()),
        }
    }
}

/// A place among a host's connections.
struct Permit {
    inner: Arc<Inner>,
    host: String,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.inner.busy).get_mut(&self.host) {
            *count -= 1;
        }
        self.inner.freed.notify_all();
    }
}

/// Sends one request.
fn call(
    agent: &Agent,
    request: ureq::http::request::Builder,
    body: impl AsSendBody,
    (whole, answer): (Option<Duration>, Option<Duration>),
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let request = request.body(body)?;
    if whole.is_none() && answer.is_none() {
        return agent.run(request);
    }
    let mut config = agent.configure_request(request).timeout_recv_body(whole);
    if answer.is_some() {
        // Each single read is limited, too, that of the answer's first byte as well.
        config = config.timeout_recv_response(answer).timeout_per_read(answer);
    }
    agent.run(config.build())
}

/// The maps are consistent between any two statements, so that a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client with these settings. Reads apt's settings, opens no connection.
    pub fn new(config: Config) -> Result<Self, RemoteError> {
        let apt = AptConfig::read(&config.etc_apt)?;
        Ok(Self::with(config, apt, IDLE, false, None))
    }

    /// A client for registries: apt's proxies are none of their business, but some hosts have certificates of their
    /// own below `certs`.
    pub(crate) fn for_registries(config: Config, idle: Duration, certs: Option<PathBuf>) -> Self {
        Self::with(config, AptConfig::default(), idle, true, certs)
    }

    /// A client for binary caches: apt's proxies are none of their business.
    pub fn for_caches(config: Config) -> Self {
        Self::with(config, AptConfig::default(), IDLE, true, None)
    }

    fn with(config: Config, apt: AptConfig, idle: Duration, loopback_direct: bool, certs: Option<PathBuf>) -> Self {
        let inner = Inner {
            config,
            apt,
            idle,
            loopback_direct,
            certs,
            roots: OnceLock::new(),
            agents: Mutex::default(),
            busy: Mutex::default(),
            freed: Condvar::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn apt(&self) -> &AptConfig {
        &self.inner.apt
    }

    /// Asks once; any answer but a redirection is returned, whatever its status.
    pub(crate) fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, RemoteError> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let content = Content::None;
            let ask = Ask { method: ureq::http::Method::GET, url: &at, headers, content, whole: None, answer: None };
            let answer = self.exchange(ask)?;
            if !answer.is_redirection() {
                return Ok(answer);
            }
            let to = answer.header("location").unwrap_or_default().to_owned();
            let next = url::redirect(&url::parse(&at)?, &to);
            let next = next.map_err(|why| RemoteError::Redirect { url: at.clone(), to, why })?;
            at = next;
        }
        Err(RemoteError::Redirect { url: url.to_owned(), to: at, why: "there are too many redirections" })
    }

    /// Asks once and returns the answer, whatever its status.
    pub(crate) fn exchange(&self, ask: Ask<'_>) -> Result<Answer, RemoteError> {
        let uri = url::parse(ask.url)?;
        let permit = self.permit(url::host(&uri));
        let agent = self.agent(&uri)?;
        let transport = |source| RemoteError::Transport { url: ask.url.to_owned(), source: Box::new(source) };
        let mut request = ureq::http::Request::builder().method(ask.method).uri(uri);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let limits = (ask.whole, ask.answer);
        let answered = match ask.content {
            Content::None => call(&agent, request, (), limits),
            Content::Bytes(bytes) => call(&agent, request, bytes, limits),
            Content::Stream(reader, length) => {
                let request = request.header("Content-Length", length);
                call(&agent, request, ureq::SendBody::from_reader(reader), limits)
            }
        };
        let (head, body) = answered.map_err(transport)?.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: Some(body), _permit: permit })
    }

    /// Does `act` again while it fails in a way that may pass, with growing pauses.
    pub(crate) fn retry<T>(&self, mut act: impl FnMut() -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        let mut attempt = 0;
        loop {
            match act() {
                Err(error) if attempt < error.retries(self.inner.config.retries) => {
                    std::thread::sleep(self.pause(attempt));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// The pause before an attempt, spread out so that those who failed together do not come back together.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let pause = self.inner.config.pause.saturating_mul(1 << attempt.min(6));
        // The randomness of a hash map's keys is all that is needed here.
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), attempt);
        pause.mul_f64(0.75 + 0.5 * (random as f64 / u64::MAX as f64))
    }

    /// Waits for a place among a host's connections.
    fn permit(&self, host: &str) -> Permit {
        let most = self.inner.config.connections.max(1);
        let mut busy = lock(&self.inner.busy);
        while busy.get(host).is_some_and(|count| *count >= most) {
            busy = self.inner.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy.entry(host.to_owned()).or_default() += 1;
        Permit { inner: Arc::clone(&self.inner), host: host.to_owned() }
    }

    fn agent(&self, uri: &Uri) -> Result<Agent, RemoteError> {
        let tls = uri.scheme_str() == Some("https");
        let own = self.inner.certs.as_deref().filter(|_| tls).and_then(|dir| certs::directory(dir, uri));
        let key = AgentKey {
            proxy: self.proxy(uri),
            tls,
            own: uri.authority().filter(|_| own.is_some()).map(|a| a.to_string()),
        };
        if let Some(agent) = lock(&self.inner.agents).get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.build(key.proxy.as_deref(), tls, own.as_deref())?;
        Ok(lock(&self.inner.agents).entry(key).or_insert(agent).clone())
    }

    /// The proxy for an address: what the binary was told, or else what apt was told.
    fn proxy(&self, uri: &Uri) -> Option<String> {
        let config = &self.inner.config;
        let host = url::host(uri);
        let scheme = uri.scheme_str().unwrap_or("http");
        if self.inner.loopback_direct && url::is_loopback(host) {
            return None;
        }
        if config.no_proxy.as_deref().is_some_and(|list| url::is_listed(host, list)) {
            return None;
        }
        let told = if scheme == "https" { &config.https_proxy } else { &config.http_proxy };
        let proxy = match told {
            Some(proxy) => proxy.clone(),
            None => self.inner.apt.proxy(scheme, host)?.to_owned(),
        };
        (!proxy.is_empty() && proxy != "DIRECT").then_some(proxy)
    }

    fn build(&self, proxy: Option<&str>, tls: bool, own: Option<&Path>) -> Result<Agent, RemoteError> {
        let proxy = proxy
            .map(|text| {
                Proxy::new(text).map_err(|source| {
                    let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
                    RemoteError::Proxy { proxy: shown.to_owned(), source: Box::new(source) }
                })
            })
            .transpose()?;
        // Plain HTTP goes through a plain proxy by naming the whole address, as every proxy allows; `CONNECT`, which
        // is all that ureq knows, is refused by most for any port but 443.
        let forward = proxy.clone().filter(|p| !tls && p.protocol() == ureq::ProxyProtocol::Http);
        let (most, idle) = (self.inner.config.connections, self.inner.idle);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if forward.is_some() { None } else { proxy })
            .user_agent(concat!("igloo/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(RESOLVE))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(idle))
            .timeout_per_read(Some(idle))
            .timeout_per_write(Some(idle))
            .max_idle_connections(2 * most)
            .max_idle_connections_per_host(most);
        let config = match tls {
            true => config.tls_config(self.tls(own)?).build(),
            false => config.build(),
        };
        Ok(match forward {
            Some(proxy) => {
                let connector = ().chain(TcpConnector::default()).chain(forward::ForwardConnector::new(&proxy));
                Agent::with_parts(config, connector, forward::ProxyResolver::new(&proxy))
            }
            None => Agent::with_parts(config, DefaultConnector::default(), resolve::Remembering::default()),
        })
    }

    /// Whom to trust, and who we are to a host that has certificates of its own.
    fn tls(&self, own: Option<&Path>) -> Result<TlsConfig, RemoteError> {
        let (roots, identity) = match own {
            Some(directory) => certs::read(directory, self.roots()?)?,
            None => (self.roots()?, None),
        };
        Ok(TlsConfig::builder().root_certs(roots).client_cert(identity).build())
    }

    /// The machine's certificate authorities, or the built-in ones.
    fn roots(&self) -> Result<RootCerts, RemoteError> {
        if let Some(roots) = self.inner.roots.get() {
            return Ok(roots.clone());
        }
        let roots = match igloo_base::file::read_optional(&self.inner.config.ca_bundle)? {
            Some(pem) => {
                let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() { RootCerts::WebPki } else { certificates.into_iter().into() }
            }
            None => RootCerts::WebPki,
        };
        Ok(self.inner.roots.get_or_init(|| roots).clone())
    }
}
