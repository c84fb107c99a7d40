//! The cache of release files and indexes.
//!
//! ```text
//! <cache>/<host and path>-<suite>-<digest>/   one per archive and suite
//!     lock          held exclusively while the suite is refreshed
//!     InRelease     the last one that was believed
//!     state.json    what is known about it; written after it
//! <cache>/indexes/<sha256 of Packages>.index
//! ```
//! All of it may be deleted at any time; what is lost is the protection against being shown an older release.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use igloo_base::file::{FileLock, create_dirs, read_optional, write_atomic};
use igloo_base::{At, PathError, Sha256};
use serde::{Deserialize, Serialize};

use crate::RemoteError;

/// Version of `state.json`; another one counts as nothing cached.
const VERSION: u32 = 1;

/// Temporary files older than this belong to nobody who is still alive.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// `state.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The address that it was got from.
    pub(super) url: String,
    /// `Date` of the release file, in seconds.
    date: u64,
    /// When the archive last said that this is its release, in seconds.
    checked: u64,
    /// Digest of `InRelease`.
    pub(super) release: Sha256,
    /// What the server called this version of the file.
    pub(super) etag: Option<String>,
    /// When the server says it changed, in its own words.
    pub(super) modified: Option<String>,
    /// Indexes that were made for it.
    pub(super) indexes: Vec<Sha256>,
}

impl State {
    pub(super) fn new(url: &str, date: SystemTime, checked: SystemTime, release: Sha256) -> Self {
        let (url, date, checked) = (url.to_owned(), seconds(date), seconds(checked));
        Self { version: VERSION, url, date, checked, release, etag: None, modified: None, indexes: Vec::new() }
    }

    pub(super) fn date(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.date)
    }

    pub(super) fn checked(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.checked)
    }

    pub(super) fn set_checked(&mut self, checked: SystemTime) {
        self.checked = seconds(checked);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// What the cache has of a suite.
pub(super) struct Cached {
    pub(super) state: State,
    /// The release file, unless it is lost or does not belong to the state.
    pub(super) release: Option<Vec<u8>>,
}

/// The cache's directory of one archive and suite.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SuiteDir {
    path: PathBuf,
    indexes: PathBuf,
}

impl SuiteDir {
    pub(super) fn new(cache: &Path, url: &str, suite: &str) -> Self {
        let digest = Sha256::of(format!("{url} {suite}").as_bytes()).to_string();
        let place = url.split_once("//").map_or(url, |(_, place)| place);
        let name: String = format!("{place}-{suite}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' })
            .take(100)
            .collect();
        let name = format!("{}-{}", name.trim_start_matches('.'), &digest[..12]);
        Self { path: cache.join(name), indexes: cache.join("indexes") }
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// For reading only, so that a refresh under way is waited for.
    pub(super) fn lock_shared(&self) -> Result<FileLock, PathError> {
        FileLock::shared(self.lock_path())
    }

    pub(super) fn load(&self) -> Result<Option<Cached>, PathError> {
        let Some(text) = read_optional(self.path.join("state.json"))? else { return Ok(None) };
        let Ok(state) = serde_json::from_slice::<State>(&text) else { return Ok(None) };
        if state.version != VERSION {
            return Ok(None);
        }
        let release = read_optional(self.path.join("InRelease"))?;
        let release = release.filter(|bytes| Sha256::of(bytes) == state.release);
        Ok(Some(Cached { state, release }))
    }

    /// Records a release file that was verified.
    pub(super) fn store(&self, state: &State, release: Option<&[u8]>) -> Result<(), RemoteError> {
        create_dirs(&self.path).map_err(RemoteError::from_path)?;
        if let Some(bytes) = release {
            write_atomic(self.path.join("InRelease"), bytes).map_err(RemoteError::from_path)?;
        }
        let text = serde_json::to_vec_pretty(state).map_err(std::io::Error::from);
        let path = self.path.join("state.json");
        write_atomic(&path, &text.at("write", &path)?).map_err(RemoteError::from_path)
    }

    /// Where the index of a package list is, by the list's digest.
    pub(super) fn index(&self, packages: &Sha256) -> PathBuf {
        self.indexes.join(format!("{packages}.index"))
    }

    pub(super) fn indexes(&self) -> &Path {
        &self.indexes
    }

    /// Removes indexes that the suite no longer needs, and what writers that were killed left behind. Whoever has one
    /// of them mapped keeps it.
    pub(super) fn prune(&self, old: &[Sha256], new: &[Sha256]) {
        for digest in old.iter().filter(|digest| !new.contains(digest)) {
            // Nothing is lost if it stays.
            let _ = std::fs::remove_file(self.index(digest));
        }
        for entry in std::fs::read_dir(&self.indexes).into_iter().flatten().flatten() {
            let temporary = entry.file_name().to_string_lossy().starts_with(".igloo-");
            let modified = entry.metadata().and_then(|m| m.modified());
            if temporary && modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
