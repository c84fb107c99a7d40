//! A package index made for looking up single packages: built once per downloaded `Packages`, then mapped into
//! memory and searched in place.

use std::io::{self, BufRead, Write};

use super::record::{Record, RecordError};

/// What can be wrong with an index, or with the text it is made from.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading the `Packages` text.
    #[error("cannot read the package list")]
    Read(#[source] io::Error),
    /// Writing the index.
    #[error("cannot write the package index")]
    Write(#[source] io::Error),
    /// More than this format, or anybody, needs.
    #[error("the package list has {0}")]
    TooLarge(&'static str),
    /// Bytes that are no index of this version.
    #[error("this is no package index: {0}")]
    Malformed(&'static str),
    /// A stanza that cannot be used.
    #[error("cannot use a package of the index")]
    Record(#[from] RecordError),
}

/// Makes an index from the decompressed text of a `Packages` file.
pub fn build(packages: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), IndexError> {
    let _ = (packages, out);
    Err(IndexError::Malformed("not built"))
}

/// An index over bytes, usually a memory map. Opening reads a few bytes; looking up parses only what is found.
pub struct Index<B: AsRef<[u8]>> {
    bytes: B,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Checks that these bytes are an index.
    pub fn open(bytes: B) -> Result<Self, IndexError> {
        Ok(Self { bytes })
    }

    /// All versions of a package.
    pub fn find(&self, name: &str) -> impl Iterator<Item = Result<Record, IndexError>> + '_ {
        let _ = (name, self.bytes.as_ref());
        std::iter::empty()
    }

    /// Names of the packages that provide a virtual package, in some version.
    pub fn providers(&self, virtual_name: &str) -> impl Iterator<Item = &str> + '_ {
        let _ = virtual_name;
        std::iter::empty()
    }

    /// Names of all packages, sorted, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        std::iter::empty()
    }

    /// Names of the packages that are Essential.
    pub fn essential(&self) -> impl Iterator<Item = &str> + '_ {
        std::iter::empty()
    }
}
