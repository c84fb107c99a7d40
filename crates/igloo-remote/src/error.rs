//! What can go wrong between here and an archive.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use igloo_base::{PathError, Sha256};
use igloo_formats::deb::index::IndexError;
use igloo_formats::deb::release::{ReleaseError, format_date};
use igloo_formats::deb::signature::SignatureError;

/// An act of this room that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A path of the cache or of the machine's configuration.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file system of the cache has no space left.
    #[error("no space left to write `{}`", path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address that cannot be used.
    #[error("cannot use the address `{url}`: {why}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The proxy of the settings or of apt.
    #[error("cannot use the proxy `{proxy}`")]
    Proxy {
        /// Its address, without a password.
        proxy: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// A file of certificates or a key that cannot be used.
    #[error("cannot use `{}`: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A connection that did not come about or broke.
    #[error("cannot fetch `{url}`")]
    Transport {
        /// What was asked for.
        url: String,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// A connection that broke while content came.
    #[error("cannot read `{url}` to its end")]
    Read {
        /// What was asked for.
        url: String,
        /// What happened.
        source: io::Error,
    },
    /// An answer other than the content.
    #[error("`{url}` answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A redirection that is not followed.
    #[error("`{url}` redirects to `{to}`: {why}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it wants to send us.
        to: String,
        /// Why we do not go there.
        why: &'static str,
    },
    /// The archive no longer has a file that the lock names.
    #[error("`{label}` is no longer at `{url}`")]
    Gone {
        /// What a person calls the file.
        label: String,
        /// Where it was looked for.
        url: String,
    },
    /// Content of another length than promised.
    #[error("`{url}` has {found} bytes where {expected} were expected")]
    Size {
        /// What was asked for.
        url: String,
        /// The length that was signed or locked.
        expected: u64,
        /// The length that is there; one more than expected if reading stopped there.
        found: u64,
    },
    /// Content of another digest than promised.
    #[error("`{url}` has the sha256 {found} where {expected} was expected")]
    Digest {
        /// What was asked for.
        url: String,
        /// The digest that was signed or locked.
        expected: Sha256,
        /// The digest of what is there.
        found: Sha256,
    },
    /// No address for a file.
    #[error("there is no address to fetch `{label}` from")]
    NoAddress {
        /// What a person calls the file.
        label: String,
    },
    /// The machine's apt knows no archive for a suite.
    #[error("the machine's apt sources name no archive for the suite `{suite}`; set `[sources.debian] url`")]
    NoSource {
        /// The suite.
        suite: String,
    },
    /// A keyring that cannot be used.
    #[error("cannot use the keyring `{}`", path.display())]
    Keyring {
        /// The keyring.
        path: PathBuf,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// No keyring at all.
    #[error("there is no keyring to verify `{url}` with; set `[sources.debian] keyring`")]
    NoKeyring {
        /// The archive's address.
        url: String,
    },
    /// The archive has no such suite.
    #[error("there is no suite `{suite}` at `{url}`")]
    NoSuite {
        /// The suite.
        suite: String,
        /// Where its release file was looked for.
        url: String,
    },
    /// A release file that is not signed well.
    #[error("cannot trust `{url}`")]
    Signature {
        /// The release file.
        url: String,
        /// What is wrong with its signatures.
        source: SignatureError,
    },
    /// Good signatures, but none by a key that apt's `Signed-By` names.
    #[error("`{url}` is signed by {}, none of which `Signed-By` names", found.join(", "))]
    Signer {
        /// The release file.
        url: String,
        /// Who signed it.
        found: Vec<String>,
    },
    /// A release file that cannot be read.
    #[error("cannot understand `{url}`")]
    Release {
        /// The release file.
        url: String,
        /// What is wrong with it.
        source: ReleaseError,
    },
    /// A release file of another suite.
    #[error("`{url}` is of suite `{suite}`, codename `{codename}`, not of `{asked}`")]
    WrongSuite {
        /// The release file.
        url: String,
        /// The suite that was asked for.
        asked: String,
        /// What it says it is.
        suite: String,
        /// What it says it is.
        codename: String,
    },
    /// A release file past its `Valid-Until`.
    #[error("`{url}` was valid until {}: the archive is stale, or somebody shows an old state of it", format_date(*.until))]
    Expired {
        /// The release file.
        url: String,
        /// Its end.
        until: SystemTime,
    },
    /// A release file older than the one seen before.
    #[error(
        "`{url}` is of {}, but one of {} was seen before: a mirror lags behind, or somebody shows an old state of it",
        format_date(*.offered), format_date(*.seen)
    )]
    Rollback {
        /// The release file.
        url: String,
        /// Its date.
        offered: SystemTime,
        /// The date of the one in the cache.
        seen: SystemTime,
    },
    /// A release file from the future.
    #[error("`{url}` is of {}, which is in the future: check this machine's clock", format_date(*.date))]
    FromFuture {
        /// The release file.
        url: String,
        /// Its date.
        date: SystemTime,
    },
    /// A component that the suite does not have.
    #[error("the suite `{suite}` has no component `{component}` for {arch} (it has {})", available.join(", "))]
    NoComponent {
        /// The suite.
        suite: String,
        /// The component that was asked for.
        component: String,
        /// The architecture that was asked for.
        arch: String,
        /// Those it has.
        available: Vec<String>,
    },
    /// An architecture that the suite does not have.
    #[error("the suite `{suite}` has no packages for {arch} (it has {})", available.join(", "))]
    NoArchitecture {
        /// The suite.
        suite: String,
        /// The architecture that was asked for.
        arch: String,
        /// Those it has.
        available: Vec<String>,
    },
    /// A package list that cannot be read.
    #[error("cannot index `{url}`")]
    Index {
        /// The package list.
        url: String,
        /// What is wrong with it.
        source: Box<IndexError>,
    },
    /// The network may not be asked and the cache has nothing.
    #[error("the suite `{suite}` is not in the cache, and the network may not be asked")]
    NotCached {
        /// The suite.
        suite: String,
    },
}

impl RemoteError {
    /// A write to the cache that failed.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned(), source },
            _ => Self::Path(PathError { act: "write", path: path.to_owned(), source }),
        }
    }

    /// A write to the cache by something that reports [`PathError`].
    pub(crate) fn from_path(error: PathError) -> Self {
        match error.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path: error.path, source: error.source }
            }
            _ => Self::Path(error),
        }
    }

    /// How often the same act may be tried again, of `most`: it may succeed a moment later when a connection broke or a
    /// server is overloaded; hardly when none came about, as on a machine without network; not at all otherwise.
    pub(crate) fn retries(&self, most: u32) -> u32 {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, TimedOut, UnexpectedEof, WouldBlock,
        };
        match self {
            Self::Transport { source, .. } => match &**source {
                ureq::Error::Io(e) => match e.kind() {
                    // Certificates that are not good.
                    InvalidData => 0,
                    BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock => most,
                    _ => most.min(1),
                },
                ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
                | ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::ConnectProxyFailed(_) => most.min(1),
                ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => most,
                _ => 0,
            },
            Self::Read { .. } => most,
            Self::Status { status: 408 | 425 | 429 | 500 | 502 | 503 | 504, .. } => most,
            _ => 0,
        }
    }

    /// Whether the fault lies with one address, so that another one may be tried.
    pub(crate) fn is_of_address(&self) -> bool {
        matches!(
            self,
            Self::Address { .. }
                | Self::Transport { .. }
                | Self::Read { .. }
                | Self::Status { .. }
                | Self::Redirect { .. }
                | Self::Gone { .. }
                | Self::Size { .. }
                | Self::Digest { .. }
                | Self::NoSuite { .. }
        ) || matches!(self, Self::Path(error) if error.is_not_found())
    }
}
