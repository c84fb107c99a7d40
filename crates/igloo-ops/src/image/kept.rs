//! Which content a project's images consist of, so that `gc` keeps it as long as manifest and lock are what it was made
//! from. `images.json` of the project's state; one that is lost or damaged keeps nothing, and everything is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use igloo_base::dirs::ProjectId;
use igloo_base::file::{create_dirs, read_optional};
use igloo_base::{At as _, Sha256};
use igloo_formats::oci::Digest;
use igloo_image::Trees;
use igloo_image::collect::Needed;
use igloo_image::tree::Image;
use serde::{Deserialize, Serialize};

use super::Made;
use crate::context::Context;
use crate::error::OpsError;
use crate::project::{LOCK, MANIFEST, Project};

const FILE: &str = "images.json";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Names manifest and lock.
    key: String,
    /// By the image's name and system: the last build of it.
    images: BTreeMap<String, KeptImage>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptImage {
    blobs: BTreeSet<Digest>,
    tree: String,
}

fn key(manifest: &[u8], lock: &[u8]) -> String {
    let both = format!("{} {}", Sha256::of(manifest), Sha256::of(lock));
    Sha256::of(both.as_bytes()).to_string()
}

fn read(file: &Path) -> Result<Kept, OpsError> {
    Ok(read_optional(file)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

/// Notes what was built.
pub(super) fn remember(ctx: &Context<'_>, project: &Project, made: &[Made]) -> Result<(), OpsError> {
    let mut used = Vec::new();
    for one in made {
        for (system, built) in &one.images {
            let blobs = built.blobs().iter().map(|b| b.digest).chain([one.top.digest]).collect();
            let image = KeptImage { blobs, tree: Trees::name(built.layers.iter().map(|l| &l.layer.diff_id)) };
            used.push((format!("{} {system}", one.image), image));
        }
    }
    note(ctx, project, used)
}

/// Notes which image of others a service is.
pub(super) fn remember_foreign(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    image: &Image,
) -> Result<(), OpsError> {
    let config = image.manifest.config.digest;
    let blobs = image.manifest.layers.iter().map(|l| l.digest).chain([image.descriptor.digest, config]).collect();
    let kept = KeptImage { blobs, tree: Trees::name(&image.config.rootfs.diff_ids) };
    note(ctx, project, vec![(format!("service {name}"), kept)])
}

fn note(ctx: &Context<'_>, project: &Project, used: Vec<(String, KeptImage)>) -> Result<(), OpsError> {
    let state = ctx.dirs.project_state(&project.id);
    let file = state.join(FILE);
    let before = read(&file)?;
    let key = key(project.text.as_bytes(), project.lock_text().unwrap_or_default().as_bytes());
    let mut kept = Kept { images: BTreeMap::new(), key };
    let mut changed = before.key != kept.key;
    if !changed {
        kept.images = before.images;
    }
    for (name, image) in used {
        if kept.images.get(&name) != Some(&image) {
            kept.images.insert(name, image);
            changed = true;
        }
    }
    if changed {
        create_dirs(&state)?;
        let bytes = serde_json::to_vec(&kept).map_err(OpsError::Json)?;
        // Not waited for until it is on disk, since nothing depends on it.
        let mut temporary = tempfile::NamedTempFile::new_in(&state).at("write", &file)?;
        temporary.write_all(&bytes).at("write", &file)?;
        temporary.persist(&file).map_err(|e| e.error).at("create", &file)?;
    }
    Ok(())
}

/// Adds what a project's images need, if they are of its present manifest and lock.
pub(crate) fn needed(ctx: &Context<'_>, id: &ProjectId, needed: &mut Needed) -> Result<(), OpsError> {
    let state = ctx.dirs.project_state(id);
    let kept = read(&state.join(FILE))?;
    let Some(directory) = read_optional(state.join("directory"))? else { return Ok(()) };
    let directory = Path::new(OsStr::from_bytes(&directory));
    let text = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
    if kept.key == key(&text(MANIFEST), &text(LOCK)) {
        for image in kept.images.into_values() {
            needed.blobs.extend(image.blobs);
            needed.trees.insert(image.tree);
        }
    }
    Ok(())
}
