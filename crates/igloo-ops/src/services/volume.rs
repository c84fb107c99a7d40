//! `igloo volume`: what services keep.
//!
//! Volumes are directories at `data/volumes/<project>/<name>`. Nothing is deleted here: what goes, goes to the trash
//! beside them, by a rename within one directory, which needs no right to what is inside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use igloo_base::At;
use igloo_base::file::create_dirs;
use igloo_container::{pack_volume, unpack_volume};
use igloo_manifest::{Volume, words};
use serde::Serialize;

use super::connect;
use super::plan::volume_path;
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use crate::unit::{TRASH, free_name};

/// A volume.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Where it is on this machine; its files may belong to ids that are nobody's here.
    pub path: PathBuf,
    /// Whether it is there yet.
    pub made: bool,
    /// Services that declare it.
    pub services: Vec<String>,
    /// Those of them that run.
    pub running: Vec<String>,
    /// What was put aside under its name, the oldest first.
    pub trash: Vec<PathBuf>,
}

/// Every volume that is declared or there, or that something of is in the trash.
pub fn list(ctx: &Context<'_>, project: &Project) -> Result<Vec<Kept>, OpsError> {
    let mut names = BTreeSet::new();
    for service in project.manifest.services.values() {
        names.extend(service.volumes.iter().filter_map(|v| match v {
            Volume::Named { name, .. } => Some(name.clone()),
            _ => None,
        }));
    }
    let directory = ctx.dirs.volumes(&project.id);
    let entries = fs::read_dir(&directory).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut trash = Vec::new();
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        match trashed(&name) {
            Some(volume) => {
                names.insert(volume.to_owned());
                trash.push((volume.to_owned(), entry.path()));
            }
            None if !name.starts_with('.') => drop(names.insert(name)),
            None => {}
        }
    }
    trash.sort();
    let running: BTreeSet<String> = match connect(ctx, project)? {
        Some(mut client) => client.status()?.services.into_iter().filter(|s| s.pid.is_some()).map(|s| s.name).collect(),
        None => BTreeSet::new(),
    };
    let kept = |name: String| {
        let has = |v: &Volume| matches!(v, Volume::Named { name: own, .. } if *own == name);
        let services = project.manifest.services.iter().filter(|(_, s)| s.volumes.iter().any(has));
        let services: Vec<String> = services.map(|(service, _)| service.clone()).collect();
        let path = volume_path(ctx, project, &name);
        // Replicas are called `service.2`.
        let of = |service: &&String| services.iter().any(|s| **service == *s || service.starts_with(&format!("{s}.")));
        Kept {
            made: path.is_dir(),
            running: running.iter().filter(of).cloned().collect(),
            trash: trash.iter().filter(|(volume, _)| *volume == name).map(|(_, path)| path.clone()).collect(),
            services,
            path,
            name,
        }
    };
    Ok(names.into_iter().map(kept).collect())
}

/// The volume of `.trash-<volume>-<date>`.
fn trashed(name: &str) -> Option<&str> {
    // The date has no `T` before its own.
    let volume = name.strip_prefix(TRASH)?.rsplit_once('T')?.0;
    volume.get(..volume.len().checked_sub("-2026-11-21".len())?)
}

/// One of them.
pub fn inspect(ctx: &Context<'_>, project: &Project, name: &str) -> Result<Kept, OpsError> {
    let mut all = list(ctx, project)?;
    let known = all.iter().map(|v| v.name.clone()).collect();
    match all.iter().position(|v| v.name == name) {
        Some(at) => Ok(all.swap_remove(at)),
        None => Err(OpsError::NoVolume { name: name.to_owned(), known }),
    }
}

/// One that is there.
fn made(ctx: &Context<'_>, project: &Project, name: &str) -> Result<Kept, OpsError> {
    let volume = inspect(ctx, project, name)?;
    match volume.made {
        true => Ok(volume),
        false => Err(OpsError::NoVolume { name: name.to_owned(), known: made_names(ctx, project)? }),
    }
}

fn made_names(ctx: &Context<'_>, project: &Project) -> Result<Vec<String>, OpsError> {
    Ok(list(ctx, project)?.into_iter().filter(|v| v.made).map(|v| v.name).collect())
}

fn unused(volume: &Kept) -> Result<(), OpsError> {
    match volume.running.first() {
        Some(service) => Err(OpsError::VolumeInUse { name: volume.name.clone(), service: service.clone() }),
        None => Ok(()),
    }
}

/// Writes an archive of a volume. Of one in use it is what was there while it was read: gives the services that may have
/// written meanwhile.
pub fn backup(ctx: &Context<'_>, project: &Project, name: &str, to: &Path) -> Result<Vec<String>, OpsError> {
    let volume = made(ctx, project, name)?;
    let directory = to.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(directory).at("create a file in", directory)?;
    pack_volume(&ctx.exe, &project.id.0, &volume.path, temporary.as_file())?;
    temporary.as_file().sync_all().at("write", to)?;
    temporary.persist(to).map_err(|e| e.error).at("write", to)?;
    Ok(volume.running)
}

/// Makes a volume what an archive says; what it was is in the trash. Gives where.
pub fn restore(ctx: &Context<'_>, project: &Project, name: &str, from: &Path) -> Result<Option<PathBuf>, OpsError> {
    words::check_name(name).map_err(|_| OpsError::VolumeName { name: name.to_owned() })?;
    let archive = fs::OpenOptions::new().read(true).open(from).at("open", from)?;
    if let Ok(volume) = inspect(ctx, project, name) {
        unused(&volume)?;
    }
    let fresh = filled(ctx, project, name, |fresh| Ok(unpack_volume(&ctx.exe, &project.id.0, fresh, &archive)?))?;
    let path = volume_path(ctx, project, name);
    let trash = if path.is_dir() { Some(put_aside(&path)?) } else { None };
    fs::rename(&fresh, &path).at("rename to", &path)?;
    Ok(trash)
}

/// Makes a volume a copy of another one.
pub fn clone(ctx: &Context<'_>, project: &Project, from: &str, to: &str) -> Result<(), OpsError> {
    words::check_name(to).map_err(|_| OpsError::VolumeName { name: to.to_owned() })?;
    let source = made(ctx, project, from)?;
    unused(&source)?;
    let path = volume_path(ctx, project, to);
    if path.symlink_metadata().is_ok() {
        return Err(OpsError::VolumeExists { name: to.to_owned() });
    }
    let fresh = filled(ctx, project, to, |fresh| {
        let (reader, writer) = std::io::pipe().at("make a pipe for", fresh)?;
        std::thread::scope(|scope| {
            let (exe, id) = (&ctx.exe, &project.id.0);
            let pack = scope.spawn(move || pack_volume(exe, id, &source.path, &writer));
            let unpacked = unpack_volume(exe, id, fresh, &reader);
            drop(reader);
            match pack.join() {
                Ok(packed) => Ok(packed.and(unpacked)?),
                Err(_) => Ok(unpacked?),
            }
        })
    })?;
    Ok(fs::rename(&fresh, &path).at("rename to", &path)?)
}

/// A new directory beside the volumes, hidden until it is whole.
fn filled(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), OpsError>,
) -> Result<PathBuf, OpsError> {
    let directory = ctx.dirs.volumes(&project.id);
    create_dirs(&directory)?;
    let fresh = directory.join(format!(".new-{name}-{}", std::process::id()));
    fs::create_dir(&fresh).at("create", &fresh)?;
    match fill(&fresh) {
        Ok(()) => Ok(fresh),
        Err(e) => {
            drop(igloo_container::userns::remove_tree(&ctx.exe, &project.id.0, &fresh));
            Err(e)
        }
    }
}

/// Moves a volume to the trash. Gives where it is now.
pub fn remove(ctx: &Context<'_>, project: &Project, name: &str) -> Result<PathBuf, OpsError> {
    let volume = made(ctx, project, name)?;
    unused(&volume)?;
    put_aside(&volume.path)
}

fn put_aside(path: &Path) -> Result<PathBuf, OpsError> {
    let trash = free_name(path);
    fs::rename(path, &trash).at("rename to", &trash)?;
    Ok(trash)
}

/// Takes what was put aside last back from the trash.
pub fn undo(ctx: &Context<'_>, project: &Project, name: &str) -> Result<(), OpsError> {
    let volume = inspect(ctx, project, name)?;
    if volume.made {
        return Err(OpsError::VolumeExists { name: name.to_owned() });
    }
    let last = volume.trash.last().ok_or_else(|| OpsError::NoVolume { name: name.to_owned(), known: Vec::new() })?;
    Ok(fs::rename(last, &volume.path).at("rename to", &volume.path)?)
}
