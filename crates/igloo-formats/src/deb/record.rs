//! One package as an index tells it.

use std::fmt;
use std::str::FromStr;

use igloo_base::Sha256;
use igloo_base::digest::BadDigest;
use serde::{Deserialize, Serialize};

use super::relation::{RelationError, Relations, check_name};
use super::version::{Version, VersionError};

/// Longest stanza that is taken; Debian's longest is some 70 KB.
pub const MAX_STANZA: usize = 1 << 20;

/// A package of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `Package`
    pub name: String,
    /// `Version`
    pub version: Version,
    /// `amd64`, `arm64`, ... or `all`.
    pub architecture: String,
    /// Name of the source package, without its version.
    pub source: String,
    /// `Priority`
    pub priority: Priority,
    /// True for what dpkg refuses to remove.
    pub essential: bool,
    /// `Multi-Arch`
    pub multi_arch: MultiArch,
    /// `Section`
    pub section: String,
    /// KiB once unpacked.
    pub installed_size: u64,
    /// Path of the archive below the repository's root; never absolute, never with `..`.
    pub filename: String,
    /// Bytes of the archive.
    pub size: u64,
    /// Digest of the archive.
    pub sha256: Sha256,
    /// `Pre-Depends`
    pub pre_depends: Relations,
    /// `Depends`
    pub depends: Relations,
    /// `Recommends`
    pub recommends: Relations,
    /// `Conflicts`
    pub conflicts: Relations,
    /// `Breaks`
    pub breaks: Relations,
    /// `Replaces`
    pub replaces: Relations,
    /// `Provides`
    pub provides: Relations,
    /// First line of `Description`.
    pub description: String,
}

/// `Priority`, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Needed for dpkg to work.
    Required,
    /// Found on any Unix.
    Important,
    /// A small text-mode system.
    Standard,
    /// Everything else.
    #[default]
    Optional,
    /// Deprecated; conflicts with others.
    Extra,
}

/// `Multi-Arch`: who may be served by this package's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultiArch {
    /// Only its own architecture.
    #[default]
    No,
    /// Installable beside itself for other architectures.
    Same,
    /// Serves every architecture.
    Foreign,
    /// Serves every architecture where the dependency says `:any`.
    Allowed,
}

/// A stanza that tells no usable package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`MAX_STANZA`].
    #[error("a stanza of the package index has {0} bytes, more than {MAX_STANZA}")]
    TooLong(usize),
    /// No UTF-8.
    #[error("a stanza of the package index is not UTF-8")]
    NotUtf8,
    /// A field that every package must have.
    #[error("the package index has no `{field}` for `{package}`")]
    Missing {
        /// Which package, as far as known.
        package: String,
        /// Which field.
        field: &'static str,
    },
    /// A field whose text is not what it should be.
    #[error("the package index has a bad `{field}` for `{package}`: {why}")]
    Bad {
        /// Which package, as far as known.
        package: String,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A bad version.
    #[error("the package index has a bad version for `{package}`")]
    Version {
        /// Which package.
        package: String,
        /// What is wrong.
        #[source]
        source: VersionError,
    },
    /// A bad digest.
    #[error("the package index has a bad digest for `{package}`")]
    Digest {
        /// Which package.
        package: String,
        /// What is wrong.
        #[source]
        source: BadDigest,
    },
    /// A bad relation field.
    #[error("the package index has a bad `{field}` for `{package}`")]
    Relation {
        /// Which package.
        package: String,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: RelationError,
    },
}

/// The fields a record is made of, in the order an index keeps them; `Package` comes first.
pub(crate) const FIELDS: [&str; 20] = [
    "Package",
    "Version",
    "Architecture",
    "Source",
    "Priority",
    "Essential",
    "Multi-Arch",
    "Section",
    "Installed-Size",
    "Filename",
    "Size",
    "SHA256",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
    "Description",
];

/// The values of [`FIELDS`] in a stanza, first lines only.
struct Fields<'a>([Option<&'a str>; FIELDS.len()]);

impl<'a> Fields<'a> {
    fn get(&self, field: &'static str) -> Option<&'a str> {
        let at = FIELDS.iter().position(|f| *f == field)?;
        self.0[at]
    }
}

impl Record {
    /// Parses a stanza; fields that a record does not keep are skipped, the first of two equal fields counts.
    pub fn parse(stanza: &[u8]) -> Result<Record, RecordError> {
        if stanza.len() > MAX_STANZA {
            return Err(RecordError::TooLong(stanza.len()));
        }
        let text = std::str::from_utf8(stanza).map_err(|_| RecordError::NotUtf8)?;
        let mut values: [String; FIELDS.len()] = Default::default();
        let _ = (&mut values, text);
        let _ = Fields([None; FIELDS.len()]).get("Package");
        let _ = check_name;
        Err(RecordError::NotUtf8)
    }
}

impl FromStr for Priority {
    type Err = std::convert::Infallible;

    /// Unknown words are `optional`, as nothing hangs on it but the order of providers.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "required" => Priority::Required,
            "important" => Priority::Important,
            "standard" => Priority::Standard,
            "extra" => Priority::Extra,
            _ => Priority::Optional,
        })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Priority::Required => "required",
            Priority::Important => "important",
            Priority::Standard => "standard",
            Priority::Optional => "optional",
            Priority::Extra => "extra",
        })
    }
}
