//! What points at content: digest, size, media type.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use igloo_base::{Sha256, System};
use serde::{Deserialize, Serialize};

/// A content digest, `sha256:` and 64 lower-case hexadecimal digits. Other algorithms are refused: what igloo cannot
/// check it does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Sha256);

/// A text that is no digest igloo can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of the form `sha256:<64 hexadecimal digits>`")]
pub struct BadDigestText(pub String);

impl Digest {
    /// Digest of a byte string held in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::of(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = BadDigestText;

    fn from_str(text: &str) -> Result<Self, BadDigestText> {
        let bad = || BadDigestText(text.chars().take(160).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        hex.parse().map(Digest).map_err(|_| bad())
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigestText;

    fn try_from(text: String) -> Result<Self, BadDigestText> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A reference to content by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// One of [`super::media`], or something igloo hands on.
    pub media_type: String,
    /// Of the content as it is stored.
    pub digest: Digest,
    /// Bytes of the content as it is stored.
    pub size: u64,
    /// Other places to get it from; read, never written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What runs it, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Describes bytes in memory.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name, `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl From<System> for Platform {
    /// Debian's names of our systems are Go's as well.
    fn from(system: System) -> Self {
        Self { architecture: system.deb_arch().to_owned(), os: "linux".to_owned(), variant: None }
    }
}
