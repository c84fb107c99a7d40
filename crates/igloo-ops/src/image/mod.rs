//! `igloo image`: environments as OCI images.
//!
//! [`spec`] says what a project's image is, [`build`] makes it, the other files are the verbs on images that are made.

pub mod build;
pub mod in_nix;
pub(crate) mod kept;
pub mod look;
mod nix;
pub mod plan;
pub mod run;
pub(crate) mod service;
pub mod source;
mod spec;
pub mod transfer;
mod user;

use std::collections::BTreeMap;

use igloo_base::System;
use igloo_base::file::FileLock;
use igloo_formats::oci::Descriptor;
use igloo_image::{Blobs, BuiltImage, Trees};
use igloo_manifest::lock::LockedPackage;
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// An image of a project, made: everything of it is on this machine.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its name in the manifest.
    pub image: String,
    /// Its name in a registry, without a tag.
    pub repository: Option<String>,
    /// The index or, for one system, the manifest.
    pub top: Descriptor,
    /// One for each system.
    pub images: Vec<(System, BuiltImage)>,
}

/// An image that was made, for scripts.
#[derive(Debug, Serialize)]
pub struct ShownImage {
    /// Its name in the manifest.
    pub image: String,
    /// Its name in a registry.
    pub name: Option<String>,
    /// Digest of the index or, for one system, of the manifest.
    pub digest: String,
    /// One for each system.
    pub systems: Vec<ShownSystem>,
}

/// An image of one system, for scripts.
#[derive(Debug, Serialize)]
pub struct ShownSystem {
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Compressed bytes.
    pub bytes: u64,
    /// Lowest first.
    pub layers: Vec<igloo_image::ImageLayer>,
}

impl Made {
    /// For scripts.
    pub fn shown(&self) -> ShownImage {
        let system = |(system, built): &(System, BuiltImage)| ShownSystem {
            architecture: system.deb_arch().to_owned(),
            digest: built.manifest.digest.to_string(),
            bytes: built.layers.iter().map(|l| l.layer.blob.size).sum(),
            layers: built.layers.clone(),
        };
        ShownImage {
            image: self.image.clone(),
            name: self.repository.clone(),
            digest: self.top.digest.to_string(),
            systems: self.images.iter().map(system).collect(),
        }
    }
}

/// Where content by digest is kept.
pub(crate) fn blobs(ctx: &Context<'_>) -> Blobs {
    Blobs::new(ctx.dirs.oci())
}

/// Where unpacked images are kept.
pub(crate) fn trees(ctx: &Context<'_>) -> Trees {
    Trees::new(ctx.dirs.oci().join("trees"))
}

/// Keeps `gc` from images as long as it is held; as many as want to may hold it.
pub(crate) fn hold(ctx: &Context<'_>) -> Result<FileLock, OpsError> {
    Ok(FileLock::shared(ctx.dirs.oci().join(LOCK))?)
}

/// Whoever holds this exclusively has images for himself.
pub(crate) const LOCK: &str = ".lock";

/// The images that are meant: those named, or all.
fn chosen(project: &Project, names: &[String]) -> Result<Vec<String>, OpsError> {
    let known: Vec<String> = project.manifest.images.keys().cloned().collect();
    if known.is_empty() {
        return Err(OpsError::NoImages);
    }
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => Err(OpsError::NoEnvironment { kind: "image", name: name.clone(), known }),
        None if names.is_empty() => Ok(known),
        None => Ok(names.to_vec()),
    }
}

/// The source package: archives keep a package's file in a directory of its name.
pub(crate) fn source_package(package: &LockedPackage) -> String {
    let mut parts = package.file.rsplit('/');
    let directory = parts.nth(1).filter(|_| package.file.starts_with("pool/"));
    directory.unwrap_or(&package.name).to_owned()
}

/// Annotations that OCI names, with what the manifest says over them.
fn annotations(image: &igloo_manifest::Image, created: Option<&str>) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    if let Some(created) = created {
        annotations.insert("org.opencontainers.image.created".to_owned(), created.to_owned());
    }
    annotations.extend(image.annotations.clone());
    annotations
}
