//! The one place where files are mapped into memory.
#![allow(unsafe_code)] // mapping a file is unsafe because others may change it; see `Mapped::open`

use std::fs::File;
use std::path::Path;

use igloo_base::{At, PathError};

/// A file of the cache, mapped read-only.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file of the cache.
    pub(crate) fn open(path: &Path) -> Result<Self, PathError> {
        let file = File::open(path).at("open", path)?;
        // SAFETY: index files are written under another name, renamed into place once complete, and after that only
        // ever unlinked, never written or truncated; the directory belongs to the user who runs us, and nobody else
        // is let in. So the mapping does not change for as long as it lives.
        let map = unsafe { memmap2::Mmap::map(&file) }.at("map", path)?;
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
