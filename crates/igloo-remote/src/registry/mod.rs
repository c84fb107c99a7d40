//! The registry client: manifests and blobs of the OCI distribution specification 1.1, in both directions.
//!
//! Takes references and sources of blobs, gives verified documents and bytes. A registry is never trusted: every
//! length has a cap, every digest is checked, nothing is waited for without limit, and what we know of a person goes
//! to that registry (and the token server it names) alone. It names no registry: a host is always said by the caller.

mod auth;
mod blob;
mod call;
mod credentials;
mod error;
mod pull;
mod push;
mod read;
mod upload;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use credentials::Credentials;
pub use error::{RegistryError, Said};
pub use pull::{BlobSink, BlobWriter, Choice, Pulled, pull};
pub use push::{BlobSource, PushImage, Pushed, push};
pub use read::Found;
pub use upload::{Sent, Source};

use crate::Client;
use crate::client::url;

/// To which registries plain HTTP may be spoken. Those are asked by it first and, where they turn out to speak TLS,
/// by that; everybody else is asked by TLS only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// To none.
    Never,
    /// To this machine: `localhost`, `127.0.0.0/8`, `::1`.
    #[default]
    Loopback,
    /// To this machine and these, `host` or `host:port`.
    Hosts(Vec<String>),
}

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Proxies, authorities, connections, retries. Nothing of apt's is read.
    pub client: crate::Config,
    /// Logins.
    pub credentials: Credentials,
    /// Where plain HTTP is allowed.
    pub plain_http: PlainHttp,
    /// A directory like docker's and podman's `certs.d`: `HOST[:PORT]/{*.crt,NAME.cert,NAME.key}`.
    pub certs: Option<PathBuf>,
    /// What we call ourselves.
    pub user_agent: String,
    /// The longest silence that is waited through, and the time a document may take.
    pub patience: Duration,
    /// How long it is waited for an image that a registry may be making while we ask, in several attempts.
    pub making: Duration,
    /// The longest pause that a registry may ask for before we give up instead.
    pub longest_pause: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            client: crate::Config::default(),
            credentials: Credentials::anonymous(),
            plain_http: PlainHttp::default(),
            certs: None,
            user_agent: concat!("igloo/", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: Duration::from_secs(30),
            making: Duration::from_secs(300),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// One registry. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    client: Client,
    config: RegistryConfig,
    auth: auth::Auth,
    /// Whether TLS is spoken, once that is known.
    tls: OnceLock<bool>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("host", &self.inner.host).finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry `host[:port]`. Opens no connection; an error if this is no host.
    pub fn new(config: RegistryConfig, host: &str) -> Result<Self, RegistryError> {
        let refuse = || RegistryError::Host { host: error::clean(host, 200) };
        let host = host.to_ascii_lowercase();
        // The one parser of hosts is that of references.
        let reference: igloo_formats::oci::Reference = format!("{host}/x").parse().map_err(|_| refuse())?;
        // A name without dot and port would be taken for a part of the path there, but may be a host here.
        if reference.host.is_none() && (host.contains('/') || reference.repository != format!("{host}/x")) {
            return Err(refuse());
        }
        if ureq::http::HeaderValue::from_str(&config.user_agent).is_err() {
            return Err(RegistryError::Name { name: error::clean(&config.user_agent, 80) });
        }
        let client = Client::for_registries(config.client.clone(), config.patience, config.certs.clone());
        let tls = OnceLock::new();
        let registry = Self { inner: Arc::new(Inner { host, client, config, auth: auth::Auth::default(), tls }) };
        // Whoever lays down certificates for a host wants TLS.
        let certs = registry.config().certs.as_deref();
        if certs.is_some_and(|dir| dir.join(registry.host()).is_dir()) || !registry.may_be_plain(registry.host()) {
            let _ = registry.inner.tls.set(true);
        }
        Ok(registry)
    }

    /// `host[:port]`, in lower case.
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    /// Whether plain HTTP is allowed for `host[:port]`.
    fn may_be_plain(&self, host: &str) -> bool {
        let loopback = host.parse::<ureq::http::uri::Authority>().is_ok_and(|a| url::is_loopback(a.host()));
        match &self.config().plain_http {
            PlainHttp::Never => false,
            PlainHttp::Loopback => loopback,
            PlainHttp::Hosts(hosts) => loopback || hosts.iter().any(|h| h.eq_ignore_ascii_case(host)),
        }
    }
}
