//! The HTTP client and its settings.

#![allow(clippy::todo)]

use std::path::PathBuf;

use crate::RemoteError;

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
    /// `https_proxy`.
    pub https_proxy: Option<String>,
    /// `no_proxy`: hosts and domains, separated by commas.
    pub no_proxy: Option<String>,
    /// Connections to one host at a time.
    pub connections: usize,
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
        }
    }
}

/// All that leaves this machine goes through one of these. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// A client with these settings. Opens no connection.
    pub fn new(_config: Config) -> Result<Self, RemoteError> {
        todo!()
    }
}
