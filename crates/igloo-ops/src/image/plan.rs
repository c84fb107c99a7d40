//! The plan of layers: a project's own `igloo.plan`, else what igloo ships; `igloo image plan`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use igloo_base::System;
use igloo_base::file::{read_optional, write_atomic};
use igloo_image::plan::{FleetImage, Plan, PlannedLayer, Prior};
use igloo_manifest::Lock;
use igloo_store::Store;
use serde::Serialize;

use super::build::fleet_image;
use super::source_package;
use crate::context::Context;
use crate::error::OpsError;
use crate::project::{self, LOCK, Project};
use crate::{environment, lock, nix};

/// Name of the plan's file, beside the manifest.
pub const PLAN: &str = "igloo.plan";

/// The plan that a project's images follow.
pub(crate) fn of(project: &Project) -> Result<Plan, OpsError> {
    let path = project.directory.join(PLAN);
    match read_optional(&path)? {
        None => Ok(Plan::builtin()),
        Some(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| OpsError::LockNotText { path: path.clone() })?;
            Ok(Plan::parse(&text, &path)?)
        }
    }
}

/// An image with its layers, for people and scripts.
#[derive(Debug, Serialize)]
pub struct ShownPlan {
    /// `project/image`.
    pub image: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Lowest first. The generated files and the project's own code come on top of these.
    pub layers: Vec<ShownLayer>,
}

/// A layer of packages.
#[derive(Debug, Serialize)]
pub struct ShownLayer {
    /// Its name in the plan.
    pub name: String,
    /// Compressed bytes, about: those of the packages' archives.
    pub bytes: u64,
    /// Bytes when unpacked, about.
    pub unpacked: u64,
    /// Its packages.
    pub packages: Vec<ShownPackage>,
}

/// A package of a layer.
#[derive(Debug, Serialize)]
pub struct ShownPackage {
    /// `package=version`.
    pub package: String,
    /// Compressed bytes, about.
    pub bytes: u64,
    /// Bytes when unpacked, about.
    pub unpacked: u64,
    /// Why it lies here, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a plan was made of and where it went.
#[derive(Debug)]
pub struct Written {
    /// The files, each with whether it changed.
    pub files: Vec<(PathBuf, bool)>,
    /// How many images were planned together.
    pub images: usize,
}

/// Plans the layers of several projects together and writes the plan beside each manifest. What the plan there says
/// stays unless moving it pays.
pub fn write(ctx: &Context<'_>, directories: &[PathBuf], check: bool) -> Result<Written, OpsError> {
    let mut projects = Vec::new();
    for directory in directories {
        let mut one = project::open(ctx, directory)?;
        lock::ensure(ctx, &mut one, check)?;
        complete(ctx, &mut one, None, check)?;
        projects.push(one);
    }
    let mut images = Vec::new();
    let mut prior = Prior::shipped();
    for one in &projects {
        let several = one.manifest.project.systems.len() > 1;
        images.extend(fleet(one, None)?.into_iter().map(|(system, mut image)| {
            if several {
                image.name = format!("{} ({})", image.name, system.deb_arch());
            }
            image
        }));
        prior.learn(&history(ctx, one)?);
    }
    let mut previous = None;
    for one in &projects {
        if previous.is_none() && one.directory.join(PLAN).exists() {
            previous = Some(of(one)?);
        }
    }
    let text = Plan::fleet(&images, &prior, previous.as_ref()).render();
    let mut files = Vec::new();
    for one in &projects {
        let path = one.directory.join(PLAN);
        let changed = read_optional(&path)?.as_deref() != Some(text.as_bytes());
        if changed && check {
            return Err(OpsError::PlanStale { path });
        }
        if changed {
            write_atomic(&path, text.as_bytes())?;
        }
        files.push((path, changed));
    }
    Ok(Written { files, images: images.len() })
}

/// The most earlier locks that are looked at: some years of weekly updates.
const HISTORY: usize = 100;

/// What versions a project's locks had over time, oldest first, the present one last. Earlier ones are those that git
/// has; without git, or outside of a repository, there is only the present one.
fn history(ctx: &Context<'_>, project: &Project) -> Result<Vec<Vec<(String, String)>>, OpsError> {
    let Some(lock) = project.lock()? else { return Ok(Vec::new()) };
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&project.directory).args(words).stdin(Stdio::null()).stderr(Stdio::null());
        command.env_clear().envs(ctx.caller.environment.iter().cloned());
        command.output().ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok())
    };
    let most = HISTORY.to_string();
    let commits = git(&["log", "--format=%H", "--max-count", &most, "--", LOCK]).unwrap_or_default();
    let mut locks = Vec::new();
    for commit in commits.lines().rev() {
        let text = git(&["show", &format!("{commit}:./{LOCK}")]).unwrap_or_default();
        // One of an older format, or with a conflict in it, tells nothing.
        if let Ok(old) = Lock::parse(&text, &project.lock_path()) {
            locks.push(sources(&old));
        }
    }
    locks.push(sources(lock));
    locks.dedup();
    Ok(locks)
}

fn sources(lock: &Lock) -> Vec<(String, String)> {
    let of_debian = lock.packages.iter().map(|p| (source_package(p), p.version.to_string()));
    let of_nix = lock.paths.iter().map(|p| super::nix::label(&p.path));
    let of_nix = of_nix.map(|(name, version)| (super::nix::source(&name), version));
    let mut sources: Vec<(String, String)> = of_debian.chain(of_nix).collect();
    sources.sort();
    sources.dedup_by(|a, b| a.0 == b.0);
    sources
}

/// Makes the lock know what images have of Nix's: what no cache tells is built.
fn complete(ctx: &Context<'_>, project: &mut Project, only: Option<&[String]>, locked: bool) -> Result<(), OpsError> {
    let names = project.manifest.images.keys().filter(|name| only.is_none_or(|only| only.contains(name)));
    let keys: Vec<String> = names.filter_map(|name| project.manifest.image_environment(name)).collect();
    for system in project.manifest.project.systems.clone() {
        let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
        let unknown: Vec<String> = keys.iter().filter(|key| !nix::is_known(lock, system, key)).cloned().collect();
        if !unknown.is_empty() {
            let store = Store::open(ctx.dirs.store_root())?;
            environment::profiles(ctx, project, &store, system, &unknown, locked)?;
        }
    }
    Ok(())
}

/// The images of a project as the plan sees them, each with its system.
fn fleet(project: &Project, only: Option<&[String]>) -> Result<Vec<(System, FleetImage)>, OpsError> {
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let mut images = Vec::new();
    for name in project.manifest.images.keys().filter(|name| only.is_none_or(|only| only.contains(name))) {
        let Some(key) = project.manifest.image_environment(name) else { continue };
        for system in &project.manifest.project.systems {
            images.push((*system, fleet_image(project, lock, *system, name, &key)?));
        }
    }
    Ok(images)
}

/// The layers of a project's images as they are planned now.
pub fn show(ctx: &Context<'_>, start: &Path, names: &[String], explain: bool) -> Result<Vec<ShownPlan>, OpsError> {
    let mut project = project::open(ctx, start)?;
    lock::ensure(ctx, &mut project, false)?;
    let names = super::chosen(&project, names)?;
    complete(ctx, &mut project, Some(&names), false)?;
    let plan = of(&project)?;
    let fleet = fleet(&project, Some(&names))?;
    Ok(fleet.iter().map(|(system, image)| shown(&plan, *system, image, explain)).collect())
}

fn shown(plan: &Plan, system: System, image: &FleetImage, explain: bool) -> ShownPlan {
    let layer = |planned: PlannedLayer| {
        let packages: Vec<ShownPackage> = planned
            .packages
            .iter()
            .map(|index| {
                let package = &image.packages[*index];
                ShownPackage {
                    package: format!("{}={}", package.name, package.version),
                    bytes: package.size,
                    unpacked: package.installed,
                    why: explain.then(|| plan.explain(image, &package.name).map(|e| e.to_string())).flatten(),
                }
            })
            .collect();
        ShownLayer {
            name: planned.name,
            bytes: packages.iter().map(|p| p.bytes).sum(),
            unpacked: packages.iter().map(|p| p.unpacked).sum(),
            packages,
        }
    };
    let layers = plan.layers(image).into_iter().map(layer).collect();
    ShownPlan { image: image.name.clone(), architecture: system.deb_arch().to_owned(), layers }
}
