//! `igloo gc`: deletes what no known project needs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use igloo_base::Event;
use igloo_base::dirs::ProjectId;
use igloo_base::file::{FileLock, read_optional, remove_tree};
use igloo_formats::nix::StorePath;
use igloo_image::collect::Needed;
use igloo_store::Store;
use igloo_supervisor::daemon;
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::MANIFEST;
use crate::unit::Payload;
use crate::{fetch, image};

/// Environments of `igloo run` stay this long after their last use.
const AD_HOC: Duration = Duration::from_secs(30 * 24 * 3600);

/// Content of images that no project needs stays this long after its last use.
const UNUSED_IMAGES: Duration = Duration::from_secs(14 * 24 * 3600);

/// What was, or would be, deleted.
#[derive(Debug, Serialize)]
pub struct Collected {
    /// Objects and their bytes on disk.
    pub deleted: Vec<(String, u64)>,
    /// Objects that stay, and why.
    pub kept: Vec<(String, String)>,
    /// Bytes.
    pub freed: u64,
}

/// Collects garbage.
pub fn collect(ctx: &Context<'_>, dry_run: bool) -> Result<Collected, OpsError> {
    let store = Store::open(ctx.dirs.store_root())?;
    let mut in_use = BTreeSet::new();
    let mut forgotten = BTreeSet::new();
    let mut needed = Needed::default();
    for id in known(ctx)? {
        let running = daemon::is_running(&ctx.dirs.project_runtime(&id), &ctx.dirs.volumes(&id))?;
        if running || is_there(ctx, &id)? {
            image::kept::needed(ctx, &id, &mut needed)?;
        }
        if running {
            in_use.extend(used_by(ctx, &store, &id)?);
        }
        if !running && !is_there(ctx, &id)? {
            forgotten.insert(id);
        }
    }
    for id in &forgotten {
        if !dry_run {
            store.remove_roots(&id.0)?;
            // Containers that were killed left files of their users.
            igloo_container::userns::remove_tree(&ctx.exe, &id.0, &ctx.dirs.project_state(id))?;
        }
    }
    let report = store.collect(dry_run, &|path| in_use.contains(path), ctx.reporter)?;
    let mut deleted: Vec<(String, u64)> = report.dead.iter().map(|(p, size)| (p.full(), *size)).collect();
    deleted.extend(report.orphans.iter().cloned());
    let mut freed = report.freed;
    // Whoever fetches right now needs the downloads for a moment longer.
    let idle = match ctx.dirs.debs().is_dir() {
        true => FileLock::try_exclusive(ctx.dirs.debs().join(fetch::LOCK))?,
        false => None,
    };
    let downloads = if idle.is_some() { unused_debs(ctx)? } else { Vec::new() };
    for (path, size) in downloads {
        freed += size;
        if !dry_run {
            remove_tree(&path)?;
        }
        deleted.push((path.display().to_string(), size));
    }
    if !dry_run {
        image::run::sweep_all(ctx)?;
        crate::shell::sweep_nix(ctx)?;
    }
    // Whoever builds, fetches or runs an image right now has the lock.
    let images = ctx.dirs.oci();
    let idle = match images.is_dir() {
        true => FileLock::try_exclusive(images.join(image::LOCK))?,
        false => None,
    };
    if idle.is_some() {
        let since = SystemTime::now() - UNUSED_IMAGES;
        for (path, size) in igloo_image::collect::unused(&image::blobs(ctx), &image::trees(ctx), &needed, since)? {
            freed += size;
            if !dry_run {
                remove_tree(&path)?;
            }
            deleted.push((path.display().to_string(), size));
        }
    } else if images.is_dir() {
        let text = "images are in use right now, and none was deleted".to_owned();
        ctx.reporter.event(Event::Note { text });
    }
    Ok(Collected {
        deleted,
        kept: report.kept.iter().map(|(p, root)| (p.full(), crate::store::holder(&root.holder))).collect(),
        freed,
    })
}

fn known(ctx: &Context<'_>) -> Result<Vec<ProjectId>, OpsError> {
    let Ok(entries) = fs::read_dir(ctx.dirs.projects()) else { return Ok(Vec::new()) };
    Ok(entries.filter_map(|e| Some(ProjectId(e.ok()?.file_name().into_string().ok()?))).collect())
}

/// A project is there while its manifest is; an ad hoc one while it was used lately.
fn is_there(ctx: &Context<'_>, id: &ProjectId) -> Result<bool, OpsError> {
    let state = ctx.dirs.project_state(id);
    let Some(directory) = read_optional(state.join("directory"))? else { return Ok(false) };
    let directory = Path::new(OsStr::from_bytes(&directory));
    if !directory.join(MANIFEST).exists() {
        return Ok(false);
    }
    if directory.starts_with(&ctx.dirs.state) {
        let used = fs::metadata(directory.join("used")).and_then(|m| m.modified());
        let age = used.ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        return Ok(age.is_none_or(|age| age < AD_HOC));
    }
    Ok(true)
}

/// Objects that a running project's containers are made of.
fn used_by(ctx: &Context<'_>, store: &Store, id: &ProjectId) -> Result<Vec<StorePath>, OpsError> {
    let specs = ctx.dirs.project_state(id).join("specs");
    let Ok(entries) = fs::read_dir(&specs) else { return Ok(Vec::new()) };
    let mut used = Vec::new();
    for entry in entries.flatten() {
        let Some(bytes) = read_optional(entry.path())? else { continue };
        let Ok(payload) = serde_json::from_slice::<Payload>(&bytes) else { continue };
        used.extend(payload.container.lowers.iter().filter_map(|lower| object_of(store, lower)));
    }
    Ok(store.closure(&used)?.into_iter().map(|info| info.path).collect())
}

fn object_of(store: &Store, lower: &Path) -> Option<StorePath> {
    let below = lower.strip_prefix(store.root().join("nix/store")).ok()?;
    StorePath::parse(below.components().next()?.as_os_str().to_str()?).ok()
}

/// Downloaded archives: all of them are in the store by now, or can be had again.
fn unused_debs(ctx: &Context<'_>) -> Result<Vec<(PathBuf, u64)>, OpsError> {
    let Ok(entries) = fs::read_dir(ctx.dirs.debs()) else { return Ok(Vec::new()) };
    Ok(entries
        .flatten()
        .filter(|e| e.path().extension() == Some(OsStr::new("deb")))
        .filter_map(|e| Some((e.path(), e.metadata().ok()?.len())))
        .collect())
}
