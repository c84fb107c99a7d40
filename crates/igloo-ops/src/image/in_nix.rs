//! Images that Nix builds: a derivation of `nix/lib.nix` runs igloo, which takes the manifest, the closure and the place of
//! the archive from what Nix writes for a build with `__structuredAttrs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use igloo_base::At;
use serde::Deserialize;

use super::build;
use super::transfer::{self, Form};
use crate::context::Context;
use crate::error::OpsError;
use crate::project;

/// What the derivation says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attributes {
    /// Path of the manifest; it has one image.
    pub manifest: PathBuf,
    /// The image's tag.
    pub tag: String,
    /// Where the archive goes.
    outputs: BTreeMap<String, PathBuf>,
}

impl Attributes {
    /// Reads them from the file that Nix wrote.
    pub fn read(path: &Path) -> Result<Self, OpsError> {
        let bytes = std::fs::read(path).at("read", path)?;
        serde_json::from_slice(&bytes).map_err(|source| OpsError::BadClosure { path: path.to_owned(), source })
    }
}

/// Builds the image, and writes what `docker load` takes.
pub fn build(ctx: &Context<'_>, attributes: &Attributes, directory: &Path) -> Result<(), OpsError> {
    let mut project = project::open(ctx, directory)?;
    let made = build::build(ctx, &mut project, &build::Options::default())?;
    match attributes.outputs.get("out") {
        Some(out) => transfer::write(ctx, &made, std::slice::from_ref(&attributes.tag), Form::DockerArchive, out),
        None => Ok(()),
    }
}
