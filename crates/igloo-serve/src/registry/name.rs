//! Names of repositories: what passes here is safe as a path on disk.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use igloo_formats::oci::{Digest, is_repository, is_tag};

/// The name of a repository, `acme/guestbook`. No component of it begins with `.` or `_`, so that none is ever taken
/// for one of our own directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }

    /// Whether this is the repository `prefix`, or one below it.
    pub(crate) fn is_below(&self, prefix: &str) -> bool {
        self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A text that names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a repository: lower-case letters, digits, `.`, `_`, `-`, with `/` between components"
)]
pub struct BadName(String);

impl FromStr for Repository {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match is_repository(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName(text.chars().filter(|c| !c.is_control()).take(100).collect())),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.contains(':') {
            true => text.parse().ok().map(Selector::Digest),
            false => is_tag(text).then(|| Selector::Tag(text.to_owned())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => f.write_str(tag),
            Selector::Digest(digest) => digest.fmt(f),
        }
    }
}
