//! Nix's formats: base 32, store paths, archives, and what binary caches say of them. Facts proved against real Nix by
//! vectors in each module.

pub mod base32;
pub mod cache_info;
pub mod content_address;
pub mod nar;
pub mod narinfo;
pub mod signature;
pub mod store_path;

pub use cache_info::CacheInfo;
pub use content_address::ContentAddress;
pub use narinfo::NarInfo;
pub use signature::{PublicKey, SecretKey, Signature};
pub use store_path::{STORE_DIR, StorePath};

/// A digest as Nix writes it: `sha256:` and 52 digits of base 32.
pub fn show_hash(digest: &igloo_base::Sha256) -> String {
    format!("sha256:{}", base32::encode(&digest.0))
}

/// A digest as Nix reads it: `sha256:` with base 32 or hexadecimal digits, or `sha256-` with base 64.
pub fn parse_hash(text: &str) -> Option<igloo_base::Sha256> {
    use base64::Engine;
    if let Some(text) = text.strip_prefix("sha256-") {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        return Some(igloo_base::Sha256(bytes.try_into().ok()?));
    }
    let digits = text.strip_prefix("sha256:")?;
    match digits.len() {
        64 => digits.parse().ok(),
        _ => base32::decode(digits).map(igloo_base::Sha256),
    }
}
