//! `nix-cache-info`, the first thing that is asked of a binary cache. Lines of `Key: value`, as narinfo has them; Nix's
//! `http-binary-cache-store.cc` says which keys there are. Old caches have `StoreDir` only.

use super::STORE_DIR;

/// Longest file that is read: three short lines are expected.
pub const MAX_LENGTH: usize = 64 << 10;

/// What a cache says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheInfo {
    /// The store directory whose paths it has.
    pub store_dir: String,
    /// It likes to be asked for many paths at once.
    pub want_mass_query: bool,
    /// Lower ones are asked first.
    pub priority: u32,
}

impl Default for CacheInfo {
    fn default() -> Self {
        Self { store_dir: STORE_DIR.to_owned(), want_mass_query: false, priority: 50 }
    }
}

/// A `nix-cache-info` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheInfoError {
    /// Too long, or no text.
    #[error("it is no text of at most {MAX_LENGTH} bytes")]
    NoText,
    /// A line without a colon.
    #[error("`{0}` is no `Key: value`")]
    BadLine(String),
    /// A priority that is no number.
    #[error("`{0}` is no priority")]
    BadPriority(String),
    /// Nothing says for which store directory it is.
    #[error("it has no `StoreDir`")]
    NoStoreDir,
}

impl CacheInfo {
    /// Reads a `nix-cache-info`; unknown keys are ignored, as Nix does.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheInfoError> {
        let text = std::str::from_utf8(bytes).ok().filter(|t| t.len() <= MAX_LENGTH).ok_or(CacheInfoError::NoText)?;
        let mut info = Self { store_dir: String::new(), ..Self::default() };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let shown = || line.chars().take(80).collect::<String>();
            let (key, value) = line.split_once(':').ok_or_else(|| CacheInfoError::BadLine(shown()))?;
            let value = value.trim();
            match key {
                "StoreDir" => info.store_dir = value.to_owned(),
                "WantMassQuery" => info.want_mass_query = value == "1",
                "Priority" => info.priority = value.parse().map_err(|_| CacheInfoError::BadPriority(shown()))?,
                _ => {}
            }
        }
        if info.store_dir.is_empty() { Err(CacheInfoError::NoStoreDir) } else { Ok(info) }
    }

    /// The file.
    pub fn to_text(&self) -> String {
        let mass = u8::from(self.want_mass_query);
        format!("StoreDir: {}\nWantMassQuery: {mass}\nPriority: {}\n", self.store_dir, self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_caches_say() {
        let new = CacheInfo::parse(b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\nMore: x\n").expect("parse");
        assert_eq!(new, CacheInfo { store_dir: "/nix/store".into(), want_mass_query: true, priority: 40 });
        assert_eq!(CacheInfo::parse(new.to_text().as_bytes()), Ok(new));
        assert_eq!(CacheInfo::parse(b"StoreDir: /nix/store\n"), Ok(CacheInfo::default()));
        assert_eq!(CacheInfo::parse(b"Priority: 1\n"), Err(CacheInfoError::NoStoreDir));
        assert!(CacheInfo::parse(b"<html>").is_err());
        assert!(CacheInfo::parse(b"StoreDir: /nix/store\nPriority: -1\n").is_err());
        assert_eq!(CacheInfo::parse(b"\xff"), Err(CacheInfoError::NoText));
    }
}
