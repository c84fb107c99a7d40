//! From the text of `igloo.toml` to a [`Manifest`], with every error at once.

use std::path::Path;

use crate::error::ManifestError;
use crate::manifest::Manifest;

/// Reads a manifest; strict, and every error is in the result.
pub fn parse(_text: &str, _path: &Path) -> Result<Manifest, ManifestError> {
    todo!()
}
