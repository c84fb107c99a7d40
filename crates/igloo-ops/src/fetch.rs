//! `igloo fetch`: from locked packages to objects in the store. Unpacking overlaps downloading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use igloo_base::file::{FileLock, create_dirs, remove_tree};
use igloo_base::{Event, Sha256, System};
use igloo_formats::nix::StorePath;
use igloo_manifest::Lock;
use igloo_manifest::lock::LockedPackage;
use igloo_remote::apt::machine::Machine;
use igloo_remote::{Download, Freshness, file_url};
use igloo_store::{DebId, DebSource, Store, StoreError};
use serde::Serialize;

use crate::context::Context;
use crate::environment;
use crate::error::OpsError;
use crate::image::service;
use crate::lock;
use crate::project::Project;

/// What `fetch` found and did.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Packages of this machine's system.
    pub packages: usize,
    /// Those that were not in the store before.
    pub fetched: usize,
    /// Environments assembled or found.
    pub environments: usize,
}

/// Brings every environment of the project into the store.
pub fn fetch_project(ctx: &Context<'_>, project: &mut Project, locked: bool) -> Result<Summary, OpsError> {
    lock::ensure(ctx, project, locked)?;
    let store = Store::open(ctx.dirs.store_root())?;
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let system = System::current();
    let digests: BTreeSet<Sha256> = lock.packages.iter().filter(|p| p.system == system).map(|p| p.sha256).collect();
    let digests: Vec<Sha256> = digests.into_iter().collect();
    let there = store.deb_paths(&digests)?.into_iter().flatten().count();
    let mut keys: Vec<String> =
        lock.environments.iter().filter(|e| e.system == system).map(|e| e.key.clone()).collect();
    // One of two sources is listed twice.
    keys.dedup();
    let realised = environment::realise(ctx, project, &keys, locked)?;
    for image in project.manifest.foreign_images() {
        service::realise(ctx, project, image)?;
    }
    Ok(Summary { packages: digests.len(), fetched: digests.len() - there, environments: realised.len() })
}

/// The objects of the packages of some environments, by digest of the archive file; what is missing is fetched.
pub(crate) fn objects(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    lock: &Lock,
    system: System,
    keys: &[String],
) -> Result<BTreeMap<Sha256, StorePath>, OpsError> {
    let mut wanted: BTreeMap<Sha256, &LockedPackage> = BTreeMap::new();
    for key in keys {
        let environment = environment::environment_on(lock, system, key)?;
        wanted.extend(environment::packages_of(lock, environment).into_iter().map(|p| (p.sha256, p)));
    }
    let packages: Vec<&LockedPackage> = wanted.into_values().collect();
    let digests: Vec<Sha256> = packages.iter().map(|p| p.sha256).collect();
    let mut objects = BTreeMap::new();
    let mut missing = Vec::new();
    for (package, found) in packages.into_iter().zip(store.deb_paths(&digests)?) {
        match found {
            Some(path) => {
                objects.insert(package.sha256, path);
            }
            None => missing.push(package),
        }
    }
    let all: Vec<StorePath> = objects.values().cloned().collect();
    store.protect(&all)?;
    if !missing.is_empty() {
        objects.extend(bring(ctx, project, store, &missing)?);
    }
    for package in &lock.packages {
        if let (Some(expected), Some(found)) = (&package.store, objects.get(&package.sha256))
            && expected != found
        {
            return Err(OpsError::OtherObject {
                package: package.name.clone(),
                expected: expected.full(),
                found: found.full(),
            });
        }
    }
    Ok(objects)
}

/// Fetches and unpacks. A file of the cache that turns out to be damaged is fetched again, once.
fn bring(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    missing: &[&LockedPackage],
) -> Result<BTreeMap<Sha256, StorePath>, OpsError> {
    let mut mended = BTreeSet::new();
    loop {
        let error = match bring_once(ctx, project, store, missing) {
            Err(OpsError::Store(error)) => error,
            other => return other,
        };
        let (StoreError::DebSize { path, .. } | StoreError::DebDigest { path, .. } | StoreError::Deb { path, .. }) =
            &error
        else {
            return Err(error.into());
        };
        if ctx.offline || !path.starts_with(ctx.dirs.debs()) || !mended.insert(path.clone()) {
            return Err(error.into());
        }
        ctx.reporter
            .event(Event::Warning { text: crate::error::chain(&error), hint: Some("it is fetched again".to_owned()) });
        remove_tree(path)?;
    }
}

fn bring_once(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    missing: &[&LockedPackage],
) -> Result<BTreeMap<Sha256, StorePath>, OpsError> {
    let cache = ctx.dirs.debs();
    create_dirs(&cache)?;
    let _in_use = FileLock::shared(cache.join(LOCK))?;
    // Largest first: they take longest to unpack.
    let mut missing = missing.to_vec();
    missing.sort_by_key(|p| std::cmp::Reverse(p.size));
    let (here, absent): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|p| file_size(&cached(&cache, p)) == Some(p.size));
    if ctx.offline && !absent.is_empty() {
        return Err(OpsError::Offline { missing: absent.len() });
    }
    let importer = store.importer(0);
    for package in here {
        importer.submit(source(package, &cached(&cache, package)));
    }
    if !absent.is_empty() {
        let addresses = addresses(ctx, project, &absent)?;
        let downloads: Vec<Download> = absent
            .iter()
            .map(|p| Download {
                urls: addresses
                    .get(&(p.source.clone(), p.suite.clone()))
                    .into_iter()
                    .flatten()
                    .map(|base| file_url(base, &p.file))
                    .collect(),
                size: p.size,
                sha256: p.sha256,
                label: format!("{} {}", p.name, p.version),
            })
            .collect();
        lock::client(ctx)?.fetch(&downloads, &cache, ctx.reporter, &|i, path| {
            importer.submit(source(absent[i], path));
        })?;
    }
    Ok(importer.finish(ctx.reporter)?)
}

fn cached(cache: &Path, package: &LockedPackage) -> std::path::PathBuf {
    cache.join(format!("{}.deb", package.sha256))
}

fn file_size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len())
}

fn source(package: &LockedPackage, path: &Path) -> DebSource {
    DebSource {
        path: path.to_owned(),
        sha256: package.sha256,
        size: package.size,
        id: DebId {
            name: package.name.clone(),
            version: package.version.to_string(),
            architecture: package.architecture.clone(),
        },
    }
}

/// Base addresses by source and suite: the one of its archive, then the one of its snapshot.
fn addresses(
    ctx: &Context<'_>,
    project: &Project,
    packages: &[&LockedPackage],
) -> Result<BTreeMap<(String, String), Vec<String>>, OpsError> {
    let config = lock::config(ctx);
    let machine = Machine::read(&config.etc_apt, &config.keyrings)?;
    let mut addresses = BTreeMap::new();
    let names: BTreeSet<&str> = packages.iter().map(|p| p.source.as_str()).collect();
    for name in names {
        let architectures: BTreeSet<&str> = packages.iter().map(|p| p.system.deb_arch()).collect();
        let architectures: Vec<&str> = architectures.into_iter().collect();
        for request in lock::suite_requests(project, lock::debian(project, name, name)?) {
            if packages.iter().any(|p| p.source == name && p.suite == request.suite) {
                let location = machine.locate(&request, &architectures)?;
                addresses.insert((name.to_owned(), request.suite), location.urls);
            }
        }
    }
    Ok(addresses)
}

/// Held by those who use downloads, so that `gc` doesn't take them away.
pub(crate) const LOCK: &str = ".lock";

/// How new an index must be for a lock to be made from it without asking again.
pub(crate) const FRESH: Freshness = Freshness::MaxAge(Duration::from_secs(3600));
