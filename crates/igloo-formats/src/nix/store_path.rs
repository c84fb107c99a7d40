//! Names of store objects: `<32 digits>-<name>` below `/nix/store`.

use std::fmt;
use std::str::FromStr;

use igloo_base::Sha256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base32;

/// The logical store directory. It is part of every path's digest, wherever the store lies on disk.
pub const STORE_DIR: &str = "/nix/store";

/// Nix's limit, so that `<32>-<name>` and suffixes such as `.lock` stay below 255 bytes.
const MAX_NAME: usize = 211;

/// A store path: digest part and name, both checked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath {
    // The text is kept, since paths are printed and looked up far more often than made.
    base: Box<str>,
}

/// Why a text is no store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// Not below the store directory, or deeper than one level.
    #[error("`{0}` is not directly below {STORE_DIR}")]
    NotInStore(String),
    /// Does not begin with 32 base-32 digits and a dash.
    #[error("`{0}` does not begin with 32 digits and a dash")]
    BadHash(String),
    /// The name is empty, too long, or has a character that store names must not have.
    #[error(
        "`{0}` is no store name: 1 to {MAX_NAME} of the characters 0-9 A-Z a-z + - . _ ? =, and not `.` or `..` alone or before a dash"
    )]
    BadName(String),
}

fn shown(text: &str) -> String {
    text.chars().take(260).collect()
}

/// Checks a store name by Nix's rules.
pub fn check_name(name: &str) -> Result<(), StorePathError> {
    let bad = || StorePathError::BadName(shown(name));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        return Err(bad());
    }
    if matches!(name, "." | "..") || name.starts_with(".-") || name.starts_with("..-") {
        return Err(bad());
    }
    Ok(())
}

impl StorePath {
    /// Takes `<32>-<name>` or `/nix/store/<32>-<name>`.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        let base = match text.strip_prefix(STORE_DIR) {
            Some(rest) => rest.strip_prefix('/').ok_or_else(|| StorePathError::NotInStore(shown(text)))?,
            None => text,
        };
        if base.contains('/') {
            return Err(StorePathError::NotInStore(shown(text)));
        }
        let (hash, name) = base
            .split_at_checked(32)
            .and_then(|(hash, rest)| Some((hash, rest.strip_prefix('-')?)))
            .filter(|(hash, _)| hash.bytes().all(base32::is_digit))
            .ok_or_else(|| StorePathError::BadHash(shown(text)))?;
        debug_assert_eq!(hash.len(), 32);
        check_name(name)?;
        Ok(Self { base: base.into() })
    }

    /// Path of a content-addressed object: `nar` is the digest of its archive (with `self_ref`, of the archive in
    /// which its own digest part is blanked), `references` the objects it names. Order does not matter.
    pub fn fixed_recursive(
        name: &str,
        nar: Sha256,
        references: &[StorePath],
        self_ref: bool,
    ) -> Result<Self, StorePathError> {
        let mut kind = String::from("source");
        append_references(&mut kind, references);
        if self_ref {
            kind.push_str(":self");
        }
        Self::make(&kind, nar, name)
    }

    /// Path of a text object (a derivation, `builtins.toFile`): `content` is the digest of the file's bytes.
    pub fn text(name: &str, content: Sha256, references: &[StorePath]) -> Result<Self, StorePathError> {
        let mut kind = String::from("text");
        append_references(&mut kind, references);
        Self::make(&kind, content, name)
    }

    /// Path of a single file known by the digest of its bytes (`nix store add-file`).
    pub fn fixed_flat(name: &str, content: Sha256) -> Result<Self, StorePathError> {
        Self::make("output:out", Sha256::of(format!("fixed:out:sha256:{content}:").as_bytes()), name)
    }

    fn make(kind: &str, inner: Sha256, name: &str) -> Result<Self, StorePathError> {
        check_name(name)?;
        let fingerprint = format!("{kind}:sha256:{inner}:{STORE_DIR}:{name}");
        let digest = Sha256::of(fingerprint.as_bytes());
        let mut folded = [0u8; 20];
        for (i, byte) in digest.0.iter().enumerate() {
            folded[i % 20] ^= byte;
        }
        Ok(Self { base: format!("{}-{name}", base32::encode(&folded)).into() })
    }

    /// `<32>-<name>`, as in narinfo files and in directories.
    pub fn base_name(&self) -> &str {
        &self.base
    }

    /// The 32 digits.
    pub fn hash_part(&self) -> &str {
        &self.base[..32]
    }

    /// The 20 bytes that the digits stand for.
    pub fn hash(&self) -> [u8; 20] {
        // 32 digits are exactly 160 bits, so that nothing that `parse` let through can fail here.
        base32::decode(self.hash_part()).unwrap_or_default()
    }

    /// What follows the digits.
    pub fn name(&self) -> &str {
        &self.base[33..]
    }

    /// The logical path, `/nix/store/<32>-<name>`.
    pub fn full(&self) -> String {
        format!("{STORE_DIR}/{}", self.base)
    }
}

fn append_references(kind: &mut String, references: &[StorePath]) {
    let mut sorted: Vec<&StorePath> = references.iter().collect();
    sorted.sort();
    sorted.dedup();
    for reference in sorted {
        kind.push(':');
        kind.push_str(&reference.full());
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.base)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, StorePathError> {
        Self::parse(text)
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.base)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_path_is_that_of_to_file() {
        // builtins.toFile "greet" "hello\n"
        let path = StorePath::text("greet", Sha256::of(b"hello\n"), &[]).expect("path");
        assert_eq!(path.full(), "/nix/store/yyr7r82l08607461bjnaqxw54fiafnqw-greet");
    }

    #[test]
    fn names_are_strict() {
        let hash = "yyr7r82l08607461bjnaqxw54fiafnqw";
        for name in ["a", "deb-libc6-2.36-9+deb12u1_1-amd64", "...", "_?=", ".a", "..a", &"x".repeat(211)] {
            let text = format!("{hash}-{name}");
            let path = StorePath::parse(&text).expect(name);
            assert_eq!(path.name(), name);
            assert_eq!(path, StorePath::parse(&path.full()).expect(name));
        }
        for name in ["", ".", "..", ".-a", "..-a", "a~b", "a:b", "a/b", "a b", "ä", &"x".repeat(212)] {
            assert!(StorePath::parse(&format!("{hash}-{name}")).is_err(), "{name}");
        }
        for text in
            ["", "x", hash, "/nix/store", "/nix/storey/x", "/nix/store/", "/other/yyr7r82l08607461bjnaqxw54fiafnqw-a"]
        {
            assert!(StorePath::parse(text).is_err(), "{text}");
        }
        assert!(StorePath::parse("eyr7r82l08607461bjnaqxw54fiafnqw-greet").is_err(), "`e` is no digit");
        assert!(StorePath::parse(&format!("{}ä-greet", "0".repeat(31))).is_err(), "cut inside a letter");
    }

    #[test]
    fn serde_is_the_base_name() {
        let path: StorePath = serde_json::from_str("\"yyr7r82l08607461bjnaqxw54fiafnqw-greet\"").expect("parse");
        assert_eq!(serde_json::to_string(&path).expect("text"), "\"yyr7r82l08607461bjnaqxw54fiafnqw-greet\"");
    }
}
