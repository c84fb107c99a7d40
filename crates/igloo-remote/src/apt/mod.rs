//! Client of apt archives: where they are, what they offer, and whether that can be believed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use igloo_base::{Reporter, Sha256};
use igloo_formats::deb::index::Index;

use crate::{Client, Config, RemoteError};

pub(crate) mod conf;
pub mod machine;
mod mapped;
mod packages;
mod refresh;
mod release;
mod state;

pub use mapped::Mapped;
pub(crate) use refresh::parallel;

/// A package index, mapped from the cache.
pub type PackageIndex = Index<Mapped>;

/// A suite that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuiteRequest {
    /// Its name as in `dists/<suite>`: `bookworm`, `bookworm-security`.
    pub suite: String,
    /// Its components: `main`.
    pub components: Vec<String>,
    /// The archive's address; the machine's apt configuration decides when there is none.
    pub url: Option<String>,
    /// The keyring its signers must be in; as above.
    pub keyring: Option<PathBuf>,
    /// The address is a snapshot that never changes again, so that its release is expected to be past its
    /// `Valid-Until`.
    pub frozen: bool,
}

/// How new what is in the cache must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the cache holds; the network is not asked.
    CacheOnly,
    /// The archive is asked unless it was asked within this time.
    MaxAge(Duration),
    /// The archive is asked.
    Now,
}

/// A suite whose release file was verified, with the indexes of its packages.
#[derive(Debug)]
pub struct Suite {
    /// The name that was asked for.
    pub name: String,
    /// `Suite` of the release file: `oldstable-security`.
    pub suite: String,
    /// `Codename` of the release file.
    pub codename: String,
    /// `Origin` of the release file.
    pub origin: String,
    /// The archive's address, without a slash at the end: files are at `<url>/<filename of a record>`.
    pub url: String,
    /// `Date` of the release file.
    pub date: SystemTime,
    /// `Valid-Until` of the release file.
    pub valid_until: Option<SystemTime>,
    /// Digest of the release file (`InRelease`).
    pub release: Sha256,
    /// Primary keys whose signatures are good, in hexadecimal.
    pub signers: Vec<String>,
    /// The components whose indexes are here.
    pub components: Vec<String>,
    /// `NotAutomatic: yes`: versions of this suite are taken only when it is named (experimental, backports).
    pub not_automatic: bool,
    /// `ButAutomaticUpgrades: yes`: ... but what came from it is upgraded from it (backports).
    pub but_automatic_upgrades: bool,
    indexes: Vec<(String, String, PackageIndex)>,
}

impl Suite {
    /// The indexes of this suite for an architecture, one a component.
    pub fn index<'a>(&'a self, arch: &'a str) -> impl Iterator<Item = &'a PackageIndex> {
        self.indexes.iter().filter(move |(_, a, _)| a == arch).map(|(_, _, index)| index)
    }
}

/// Brings suites up to `policy` and opens their indexes, with the settings of [`Config::default`].
pub fn refresh(
    requests: &[SuiteRequest],
    arch: &[&str],
    cache: &Path,
    policy: Freshness,
    reporter: &dyn Reporter,
) -> Result<Vec<Suite>, RemoteError> {
    Client::new(Config::default())?.refresh(requests, arch, cache, policy, reporter)
}
