//! One package of an environment, unpacked.

use std::path::PathBuf;

use igloo_formats::deb::Version;
use igloo_formats::nix::StorePath;

/// A package as a store object: `data/` (the tree, usrmerge-normalised), `control/` and `meta.json`.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its store path.
    pub path: StorePath,
    /// Where the object lies on this machine.
    pub physical: PathBuf,
    /// Package name.
    pub name: String,
    /// Exact version, epoch included.
    pub version: Version,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
}
