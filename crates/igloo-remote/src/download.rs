//! Files by digest: parallel, resumed, verified.

#![allow(clippy::todo)]

use std::path::Path;

use igloo_base::{Reporter, Sha256};

use crate::{Client, Config, RemoteError};

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where it may be had, tried in order.
    pub urls: Vec<String>,
    /// Its length in bytes; not a byte more is read.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// What a person calls it: `hello 2.10-3`.
    pub label: String,
}

/// Fetches files with the settings of [`Config::default`]; see [`Client::fetch`].
pub fn fetch(
    downloads: &[Download],
    into: &Path,
    reporter: &dyn Reporter,
    on_done: &(dyn Fn(usize, &Path) + Sync),
) -> Result<(), RemoteError> {
    Client::new(Config::default())?.fetch(downloads, into, reporter, on_done)
}

impl Client {
    /// Fetches files into a directory as `<sha256>.deb`, several at a time. `on_done` is called with the position in
    /// `downloads` and the path as soon as that file is there and verified, from the thread that fetched it.
    pub fn fetch(
        &self,
        _downloads: &[Download],
        _into: &Path,
        _reporter: &dyn Reporter,
        _on_done: &(dyn Fn(usize, &Path) + Sync),
    ) -> Result<(), RemoteError> {
        todo!()
    }
}
