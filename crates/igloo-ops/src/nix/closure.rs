//! The closures of locked outputs: what binary caches say of them, and what Nix builds here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use igloo_base::{Event, Sha256, System, Task, Unit};
use igloo_formats::nix::{NarInfo, PublicKey, Signature, StorePath, parse_hash};
use igloo_manifest::lock::{LockedOutput, LockedPath};
use igloo_manifest::{Lock, Source};
use igloo_remote::evaluate::packages::PathInfo;
use igloo_remote::nix::BinaryCache;
use igloo_store::Store;

use super::program;
use crate::context::Context;
use crate::error::{OpsError, chain};
use crate::nix::HostStore;
use crate::project::Project;
use crate::realise;

/// Most paths of one closure; the largest systems have some ten thousand.
const MAX_PATHS: usize = 200_000;

/// Caches and keys of a project: its own first, then those that Nix had when it was locked.
fn trusted(ctx: &Context<'_>, project: &Project, lock: &Lock) -> Result<(Vec<BinaryCache>, Vec<PublicKey>), OpsError> {
    let mut urls: Vec<String> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    if let Some(Source::Nixpkgs(nixpkgs)) = project.manifest.sources.get("nixpkgs") {
        urls.extend(nixpkgs.caches.clone());
        keys.extend(nixpkgs.trusted_keys.clone());
    }
    for flake in lock.sources.values().flat_map(|s| &s.flakes) {
        urls.extend(flake.caches.clone());
        keys.extend(flake.keys.clone());
    }
    let mut seen = BTreeSet::new();
    // `file:` and friends; what else Nix takes for a store (`daemon`, `ssh://`) is no cache.
    urls.retain(|url| {
        url.contains("://") && !url.starts_with("ssh") && seen.insert(url.trim_end_matches('/').to_owned())
    });
    let keys = keys.iter().filter_map(|key| key.parse().ok()).collect();
    Ok((realise::caches(ctx, &urls)?, keys))
}

/// Adds to the lock what caches say of the closures that it does not know yet. What no cache has stays unknown: it will
/// be built. Without network only caches of this machine are asked.
pub(crate) fn learn(ctx: &Context<'_>, project: &Project, lock: &mut Lock) -> Result<(), OpsError> {
    if unknown(lock, None).is_empty() {
        return Ok(());
    }
    let (caches, keys) = trusted(ctx, project, lock)?;
    ask(ctx, lock, &caches, &keys);
    Ok(())
}

fn ask(ctx: &Context<'_>, lock: &mut Lock, caches: &[BinaryCache], keys: &[PublicKey]) {
    let unknown = unknown(lock, None);
    if caches.is_empty() || unknown.is_empty() {
        return;
    }
    let task = Task::start(ctx.reporter, "ask the binary caches", None, Unit::Items);
    let mut known: BTreeMap<StorePath, NarInfo> = BTreeMap::new();
    let mut said = BTreeSet::new();
    for root in unknown {
        // All of a closure or nothing: half of one can't be run.
        let mut closure: BTreeMap<StorePath, NarInfo> = BTreeMap::new();
        let mut waiting = VecDeque::from([root]);
        let mut whole = true;
        while let Some(path) = waiting.pop_front() {
            if closure.contains_key(&path) || known.contains_key(&path) || lock.paths.iter().any(|p| p.path == path) {
                continue;
            }
            let found = caches.iter().find_map(|cache| match cache.vouched(&path, keys, &[]) {
                Ok(info) => info,
                Err(error) => {
                    said.insert(chain(&error));
                    None
                }
            });
            let Some(info) = found.filter(|_| closure.len() < MAX_PATHS) else {
                whole = false;
                break;
            };
            waiting.extend(info.references.iter().cloned());
            closure.insert(path, info);
        }
        if whole {
            known.append(&mut closure);
        }
    }
    drop(task);
    for text in said {
        ctx.reporter.event(Event::Warning { text, hint: Some("it is not taken from there".to_owned()) });
    }
    lock.paths.extend(known.into_values().map(|info| LockedPath {
        path: info.path,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        content_address: info.content_address,
        signatures: info.signatures.iter().map(ToString::to_string).collect(),
    }));
    lock.sort();
}

/// Outputs whose closure the lock does not know.
fn unknown(lock: &Lock, of: Option<(System, &BTreeSet<&str>)>) -> Vec<StorePath> {
    let known: BTreeSet<&StorePath> = lock.paths.iter().map(|p| &p.path).collect();
    outputs(lock, of).filter(|o| !known.contains(&o.path)).map(|o| o.path.clone()).collect()
}

fn outputs<'l>(lock: &'l Lock, of: Option<(System, &BTreeSet<&str>)>) -> impl Iterator<Item = &'l LockedOutput> {
    let wanted: Option<BTreeSet<(&str, &str)>> = of.map(|(system, keys)| {
        let environments = lock.environments.iter().filter(|e| e.system == system && keys.contains(e.key.as_str()));
        environments.flat_map(|e| e.roots.iter().map(|root| (e.source.as_str(), root.as_str()))).collect()
    });
    let system = of.map(|(system, _)| system);
    lock.outputs.iter().filter(move |o| {
        system.is_none_or(|system| o.system == system)
            && wanted.as_ref().is_none_or(|wanted| wanted.contains(&(o.source.as_str(), o.name.as_str())))
    })
}

/// Makes everything of these environments valid in our store; what no cache has is built by Nix, if there is one, and
/// the lock learns of it.
pub(crate) fn complete(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    lock: &mut Lock,
    system: System,
    keys: &[String],
) -> Result<(), OpsError> {
    let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    if outputs(lock, Some((system, &keys))).next().is_none() {
        return Ok(());
    }
    let (caches, trusted) = trusted(ctx, project, lock)?;
    ask(ctx, lock, &caches, &trusted);
    if let Some(host) = HostStore::open(&ctx.nix, store.root())? {
        for path in unknown(lock, Some((system, &keys))) {
            host.closure(&path).into_iter().flatten().for_each(|info| note(lock, of_host(info)));
        }
        lock.sort();
    }
    let to_build = unknown(lock, Some((system, &keys)));
    if !to_build.is_empty() {
        build(ctx, project, lock, &to_build)?;
    }
    let wanted = closure(lock, outputs(lock, Some((system, &keys))).map(|o| o.path.clone()).collect());
    match realise::realise(ctx, store, &wanted, &caches, &trusted) {
        // They were in a cache, or built here, and are gone from both.
        Err(OpsError::NotInCaches { .. }) if program::is_on_path(ctx) => {
            let all: Vec<StorePath> = outputs(lock, Some((system, &keys))).map(|o| o.path.clone()).collect();
            build(ctx, project, lock, &all)?;
            realise::realise(ctx, store, &wanted, &caches, &trusted).map(drop)
        }
        other => other.map(drop),
    }
}

/// Has Nix build or fetch outputs, and notes what their closures are.
fn build(ctx: &Context<'_>, project: &Project, lock: &mut Lock, paths: &[StorePath]) -> Result<(), OpsError> {
    let nix = program::find(ctx, &project.directory)?;
    let wanted: BTreeSet<&StorePath> = paths.iter().collect();
    let outputs: Vec<&LockedOutput> = lock.outputs.iter().filter(|o| wanted.contains(&o.path)).collect();
    let of: BTreeSet<String> = outputs.iter().map(|o| o.deriver.full()).collect();
    let installables: Vec<String> = of.into_iter().collect();
    let task = Task::start(ctx.reporter, format!("nix builds {} packages", installables.len()), None, Unit::Items);
    if nix.realise(&project.directory, &installables).is_err() {
        // Derivations are made by evaluating, and may have been collected since.
        let environments = project.manifest.environments();
        let of_nix: Vec<_> = environments.iter().filter(|r| super::is_of_nix(project, &r.source)).collect();
        super::resolve(ctx, project, &of_nix, Some(lock), &|_| false, &mut lock.clone())?;
        nix.realise(&project.directory, &installables)?;
    }
    drop(task);
    let full: Vec<String> = paths.iter().map(StorePath::full).collect();
    let infos = nix.closure(&project.directory, &full)?;
    for info in infos {
        note(lock, locked_path(&info)?);
    }
    lock.sort();
    Ok(())
}

/// Writes down what is known of a path. If the lock says something else, a build was not reproducible: what is here counts.
fn note(lock: &mut Lock, path: LockedPath) {
    match lock.paths.iter_mut().find(|p| p.path == path.path) {
        Some(known) => *known = path,
        None => lock.paths.push(path),
    }
}

fn of_host(info: igloo_store::PathInfo) -> LockedPath {
    LockedPath {
        path: info.path,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        content_address: info.content_address,
        signatures: info.signatures,
    }
}

fn locked_path(info: &PathInfo) -> Result<LockedPath, OpsError> {
    let bad = |text: &str| OpsError::NotAStorePath { text: text.chars().take(300).collect() };
    let path = |full: &String| StorePath::parse(full.rsplit('/').next().unwrap_or_default()).map_err(|_| bad(full));
    Ok(LockedPath {
        path: path(&info.path)?,
        nar_hash: parse_hash(&info.nar_hash).ok_or_else(|| bad(&info.nar_hash))?,
        nar_size: info.nar_size,
        references: info.references.iter().map(path).collect::<Result<_, _>>()?,
        content_address: info.ca.clone(),
        signatures: info.signatures.clone(),
    })
}

/// Whether the lock knows the closures of an environment's outputs.
pub(crate) fn is_known(lock: &Lock, system: System, key: &str) -> bool {
    unknown(lock, Some((system, &BTreeSet::from([key])))).is_empty()
}

/// What an environment needs of Nix's, sorted by path; none if the lock doesn't know.
pub(crate) fn of_environment<'l>(lock: &'l Lock, system: System, key: &str) -> Option<Vec<&'l LockedPath>> {
    let keys = BTreeSet::from([key]);
    if !unknown(lock, Some((system, &keys))).is_empty() {
        return None;
    }
    let mut waiting: Vec<&StorePath> = outputs(lock, Some((system, &keys))).map(|o| &o.path).collect();
    if waiting.is_empty() {
        return Some(Vec::new());
    }
    let known: BTreeMap<&StorePath, &LockedPath> = lock.paths.iter().map(|p| (&p.path, p)).collect();
    let mut needed = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let locked = *known.get(path)?;
        if needed.insert(path, locked).is_none() {
            waiting.extend(&locked.references);
        }
    }
    Some(needed.into_values().collect())
}

/// Everything that these paths need, as the store wants to hear it.
fn closure(lock: &Lock, roots: Vec<StorePath>) -> Vec<realise::LockedPath> {
    let known: BTreeMap<&StorePath, &LockedPath> = lock.paths.iter().map(|p| (&p.path, p)).collect();
    let mut seen: BTreeSet<StorePath> = BTreeSet::new();
    let mut waiting = roots;
    let mut wanted = Vec::new();
    while let Some(path) = waiting.pop() {
        let Some(locked) = known.get(&path).filter(|_| seen.insert(path.clone())) else { continue };
        waiting.extend(locked.references.iter().cloned());
        wanted.push(realise::LockedPath {
            path: path.clone(),
            nar_hash: locked.nar_hash,
            nar_size: locked.nar_size,
            references: locked.references.clone(),
            content_address: locked.content_address.clone(),
            deriver: lock.outputs.iter().find(|o| o.path == path).map(|o| o.deriver.clone()),
            signatures: locked.signatures.iter().filter_map(|s| s.parse::<Signature>().ok()).collect(),
        });
    }
    wanted
}

/// Takes paths out of a lock that no output needs any more.
pub(crate) fn forget(lock: &mut Lock) {
    let roots = lock.outputs.iter().map(|o| o.path.clone()).collect();
    let needed: BTreeSet<StorePath> = closure(lock, roots).into_iter().map(|p| p.path).collect();
    lock.paths.retain(|p| needed.contains(&p.path));
}

/// Digest of what an environment's profile depends on.
pub(super) fn digest(outputs: &[&LockedOutput], beside_debian: bool) -> Sha256 {
    let mut text = format!("profile 2 {beside_debian}\n");
    for output in outputs {
        text.push_str(&format!("{} {} {}\n", output.path, output.priority, output.name));
    }
    Sha256::of(text.as_bytes())
}
