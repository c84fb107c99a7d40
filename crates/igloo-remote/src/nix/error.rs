//! What can fail with a binary cache. Every message names the cache, since there are several and one of them lies.

use std::io;

use igloo_base::{PathError, Sha256};
use igloo_formats::nix::StorePath;
use igloo_formats::nix::cache_info::CacheInfoError;
use igloo_formats::nix::narinfo::NarInfoError;

use crate::RemoteError;

/// What failed with a binary cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// An address that is none, or of a kind that is not known.
    #[error("`{url}` is no address of a binary cache: {why}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The network.
    #[error("the cache `{cache}` cannot be reached")]
    Remote {
        /// The cache.
        cache: String,
        /// Why.
        #[source]
        source: Box<RemoteError>,
    },
    /// A file of a cache on this machine.
    #[error("the cache `{cache}` cannot be used")]
    File {
        /// The cache.
        cache: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// An answer that is no success.
    #[error("the cache `{cache}` answers {status} for `{name}`{}", hint(*.status))]
    Status {
        /// The cache.
        cache: String,
        /// What was asked for.
        name: String,
        /// The answer.
        status: u16,
    },
    /// A directory or server that is no binary cache.
    #[error("`{cache}` is no binary cache: it has no `nix-cache-info`")]
    NoCache {
        /// The cache.
        cache: String,
    },
    /// A `nix-cache-info` that cannot be read.
    #[error("cannot understand `nix-cache-info` of the cache `{cache}`")]
    Info {
        /// The cache.
        cache: String,
        /// Why.
        #[source]
        source: CacheInfoError,
    },
    /// A cache for another store directory.
    #[error("the cache `{cache}` is for the store directory `{found}`, not for `/nix/store`")]
    StoreDir {
        /// The cache.
        cache: String,
        /// Its store directory.
        found: String,
    },
    /// A document that is longer than any good one.
    #[error("`{name}` of the cache `{cache}` is longer than {most} bytes")]
    TooLong {
        /// The cache.
        cache: String,
        /// The document.
        name: String,
        /// What it may have.
        most: usize,
    },
    /// A narinfo file that cannot be read.
    #[error("cannot understand what the cache `{cache}` says of `{path}`")]
    NarInfo {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: NarInfoError,
    },
    /// The cache speaks of another path.
    #[error("the cache `{cache}` was asked for `{path}` and speaks of `{found}`")]
    OtherPath {
        /// The cache.
        cache: String,
        /// What it was asked for.
        path: StorePath,
        /// What it speaks of.
        found: StorePath,
    },
    /// The cache says something else than what is known.
    #[error("the cache `{cache}` lies about `{path}`: its {what} is `{found}`, expected is `{expected}`")]
    Differs {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// What differs.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What the cache says.
        found: String,
    },
    /// No trusted key vouches for it.
    #[error("the cache `{cache}` has no good signature for `{path}` by a trusted key ({})", signed(.by))]
    Untrusted {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// Who is said to have signed.
        by: Vec<String>,
    },
    /// A packed archive that breaks off, cannot be unpacked, or goes on.
    #[error("cannot read the archive of `{path}` from the cache `{cache}`")]
    Read {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The packed archive is not what the cache said.
    #[error("the cache `{cache}` sends {found} bytes for `{path}`, it promised {expected}")]
    FileSize {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// What it said.
        expected: u64,
        /// What came, or how much until this was clear.
        found: u64,
    },
    /// The packed archive is not what the cache said.
    #[error("the cache `{cache}` sends other bytes for `{path}` than it promised: sha256 {found}, expected {expected}")]
    FileHash {
        /// The cache.
        cache: String,
        /// The path.
        path: StorePath,
        /// What it said.
        expected: Sha256,
        /// What came.
        found: Sha256,
    },
    /// A cache that cannot be written to.
    #[error("the cache `{cache}` does not take `{name}`: it answers {status}{}", hint(*.status))]
    Refused {
        /// The cache.
        cache: String,
        /// What was sent.
        name: String,
        /// The answer.
        status: u16,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (is there a login for it in netrc, or are the keys right?)",
        _ => "",
    }
}

fn signed(by: &[String]) -> String {
    if by.is_empty() { "it is not signed".to_owned() } else { format!("signed by {}", by.join(", ")) }
}

impl CacheError {
    /// A name that did not resolve, a port where nobody listens, a server that is down: nothing that the cache said.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Remote { .. } | Self::NoCache { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::File { source, .. } => source.is_not_found(),
            _ => false,
        }
    }
}
