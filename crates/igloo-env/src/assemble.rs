//! Writes the generated layer of an environment and its `env.json`.

use std::collections::BTreeMap;
use std::path::Path;

use igloo_formats::nix::StorePath;

use crate::{EnvError, Identities, Member};

/// What an environment is beside its packages.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Variables beside `PATH` and `LANG`; they win.
    pub env: BTreeMap<String, String>,
    /// Bundles made with [`crate::merge`] in place of members, top first: see [`crate::bundles`]. Empty: no bundles.
    pub layers: Vec<StorePath>,
}

/// Writes `out/root/**` and `out/env.json`. `out` is an empty directory.
pub fn assemble(
    _name: &str,
    _members: &[Member],
    _identities: &Identities,
    _settings: &Settings,
    _out: &Path,
) -> Result<(), EnvError> {
    todo!()
}
