//! Signatures of store objects: ed25519 over a text that names path, archive and references (Nix's `crypto.cc`,
//! `path-info.cc`). Keys and signatures are written as `name:base64`.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use igloo_base::Sha256;

use super::{StorePath, show_hash};

/// Longest name of a key; those in use are host names with a number.
const MAX_NAME: usize = 256;

/// What is signed: everything that decides what an object is. Deriver, content address and where it is to be had are not
/// part of it.
pub fn fingerprint(path: &StorePath, nar_hash: &Sha256, nar_size: u64, references: &[StorePath]) -> String {
    let mut sorted: Vec<String> = references.iter().map(StorePath::full).collect();
    sorted.sort();
    sorted.dedup();
    format!("1;{};{};{nar_size};{}", path.full(), show_hash(nar_hash), sorted.join(","))
}

/// A text that is no key or signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// No `name:`, or a bad one.
    #[error("it does not begin with the name of a key and a colon")]
    NoName,
    /// Not base 64.
    #[error("what follows the name `{0}` is not base 64")]
    NotBase64(String),
    /// Another number of bytes.
    #[error("what follows the name `{name}` has {found} bytes, expected are {expected}")]
    Length {
        /// The key's name.
        name: String,
        /// As many as there should be.
        expected: usize,
        /// As many as there are.
        found: usize,
    },
    /// The halves of a secret key are not of one key, or it is no point of the curve.
    #[error("the key `{0}` is damaged")]
    Damaged(String),
}

fn split<const N: usize>(text: &str) -> Result<(String, [u8; N]), BadKey> {
    let (name, data) = text.trim().split_once(':').ok_or(BadKey::NoName)?;
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_NAME || name.contains(bad) {
        return Err(BadKey::NoName);
    }
    // Twice what is needed is refused before it is decoded.
    let bytes = STANDARD.decode(data.get(..2 * N).unwrap_or(data)).map_err(|_| BadKey::NotBase64(name.to_owned()))?;
    let found = if data.len() > 2 * N { data.len() / 4 * 3 } else { bytes.len() };
    match bytes.try_into() {
        Ok(bytes) => Ok((name.to_owned(), bytes)),
        Err(_) => Err(BadKey::Length { name: name.to_owned(), expected: N, found }),
    }
}

fn join(name: &str, bytes: &[u8]) -> String {
    format!("{name}:{}", STANDARD.encode(bytes))
}

/// A signature and the name of the key that made it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    /// Which key it is said to be of.
    pub name: String,
    bytes: [u8; 64],
}

impl FromStr for Signature {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (name, bytes) = split(text)?;
        Ok(Self { name, bytes })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.name, &self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The key's name, as signatures have it.
    pub name: String,
    key: VerifyingKey,
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (name, bytes) = split::<32>(text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| BadKey::Damaged(name.clone()))?;
        Ok(Self { name, key })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.name, self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PublicKey {
    /// Whether this key made `signature` over `fingerprint`. A key that every signature would fit is refused.
    pub fn verify(&self, fingerprint: &str, signature: &Signature) -> bool {
        let signed = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        signature.name == self.name && self.key.verify_strict(fingerprint.as_bytes(), &signed).is_ok()
    }
}

/// The first of `keys` that made one of `signatures` over `fingerprint`.
pub fn signer<'a>(keys: &'a [PublicKey], fingerprint: &str, signatures: &[Signature]) -> Option<&'a PublicKey> {
    keys.iter().find(|key| signatures.iter().any(|signature| key.verify(fingerprint, signature)))
}

/// A key that signs. Its file holds `name:base64` of 64 bytes, the secret half first.
pub struct SecretKey {
    /// The key's name.
    pub name: String,
    key: SigningKey,
}

impl FromStr for SecretKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (name, bytes) = split::<64>(text)?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| BadKey::Damaged(name.clone()))?;
        Ok(Self { name, key })
    }
}

impl fmt::Debug for SecretKey {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl SecretKey {
    /// A key made of 32 random bytes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) }
    }

    /// The text of the key's file.
    pub fn to_secret_text(&self) -> String {
        join(&self.name, &self.key.to_keypair_bytes())
    }

    /// The half that others get.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// A signature over a [`fingerprint`].
    pub fn sign(&self, fingerprint: &str) -> Signature {
        Signature { name: self.name.clone(), bytes: self.key.sign(fingerprint.as_bytes()).to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `nix-store --generate-binary-cache-key test-1`, Nix 2.8.
    const SECRET: &str =
        "test-1:NKt7NFrz9GplT3MKP0BB4h28lMEawhs/hn4Yp5s7MTcRRPkcKKQD8cH9060bhSPE+Vt0fteeIN1vKah+rdl3rg==";
    const PUBLIC: &str = "test-1:EUT5HCikA/HB/dOtG4UjxPlbdH7XniDdbymofq3Zd64=";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn vector_of_rfc_8032() {
        let seed: Sha256 = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb".parse().expect("hex");
        let key = SecretKey::from_seed("t", &seed.0);
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(hex(key.public().key.as_bytes()), public);
        assert_eq!(
            hex(&key.sign("r").bytes),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
    }

    #[test]
    fn a_signature_of_nix() {
        // nix store sign -k, then nix path-info --json
        let path = StorePath::parse("jzn04982309sg9ndizv9ny2bc3a8zlgi-libgreet-1.2.0-dev").expect("path");
        let other = StorePath::parse("hdyxh8kra8napy0cxbnv83jz4sbxwzv5-libgreet-1.2.0").expect("path");
        let hash = super::super::parse_hash("sha256-SIwQIKu/yCCxHOKiHh5UFL8bAff45wOcT0GE21qf7bo=").expect("hash");
        let text = fingerprint(&path, &hash, 1208, &[path.clone(), other]);
        let secret: SecretKey = SECRET.parse().expect("key");
        let public: PublicKey = PUBLIC.parse().expect("key");
        let made = "test-1:Vppfddbt1VPYK5ps3HTwqSEKI20s/lCQbTBWlE49WXmUgM1/plvvJAJ/NnyCH7k7VqDuTXTVETqG3KQ2cO67Ag==";
        assert_eq!(secret.sign(&text).to_string(), made);
        assert_eq!(secret.to_secret_text(), SECRET);
        assert_eq!(secret.public(), public);
        let signature: Signature = made.parse().expect("signature");
        let keys = [SecretKey::from_seed("test-1", &[7; 32]).public(), public];
        assert_eq!(signer(&keys, &text, std::slice::from_ref(&signature)), Some(&keys[1]));
        assert_eq!(signer(&keys, &text.replace("1208", "1209"), std::slice::from_ref(&signature)), None);
        let renamed: Signature = made.replace("test-1", "test-2").parse().expect("signature");
        assert_eq!(signer(&keys, &text, &[renamed]), None);
    }

    #[test]
    fn bad_texts_are_refused_and_secrets_are_not_shown() {
        let long = format!("a:{}", "A".repeat(1 << 20));
        for text in ["", "a", ":AAAA", "a b:AAAA", "a:!!!!", "a:AAAA", &long, PUBLIC] {
            assert!(text.parse::<Signature>().is_err(), "{}", &text[..text.len().min(20)]);
        }
        assert!(SECRET.parse::<PublicKey>().is_err());
        let damaged = SECRET.replace("RRPkc", "RRPkd");
        assert!(matches!(damaged.parse::<SecretKey>(), Err(BadKey::Damaged(_))));
        assert_eq!(format!("{:?}", SECRET.parse::<SecretKey>().expect("key")), "SecretKey(test-1)");
    }
}
