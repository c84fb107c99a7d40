//! From the lock to environments in the store; `igloo env`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use igloo_base::{Event, Sha256, System};
use igloo_env::{Environment, Identities, Member, Settings};
use igloo_formats::nix::StorePath;
use igloo_manifest::Lock;
use igloo_manifest::lock::{LockedEnvironment, LockedPackage};
use igloo_store::Store;
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use crate::{copy, fetch, lock, nix};

/// An environment that is in the store, with the project's own files on top.
#[derive(Debug, Clone)]
pub struct Realised {
    /// The environment.
    pub environment: Environment,
    /// `data/` of the objects made from `copy`.
    pub copies: Vec<PathBuf>,
    /// Nix's packages in it.
    pub(crate) profile: Option<nix::Profile>,
}

impl Realised {
    /// Lower layers, topmost first.
    pub fn lowers(&self) -> Vec<PathBuf> {
        let profile = self.profile.iter().map(|profile| profile.data.clone());
        self.copies.iter().cloned().chain(profile).chain(self.environment.lowers()).collect()
    }
}

/// Brings environments into the store: locks, fetches and assembles what is missing, completes the lock, and roots
/// the result. In the order of `keys`.
pub fn realise(
    ctx: &Context<'_>,
    project: &mut Project,
    keys: &[String],
    locked: bool,
) -> Result<Vec<Realised>, OpsError> {
    lock::ensure(ctx, project, locked)?;
    let store = Store::open(ctx.dirs.store_root())?;
    let found = realise_on(ctx, project, &store, System::current(), keys, locked)?;
    let profiles = profiles(ctx, project, &store, System::current(), keys, locked)?;
    keys.iter()
        .zip(found)
        .zip(profiles)
        .map(|((key, environment), profile)| {
            Ok(Realised { environment, copies: copies_in(ctx, project, &store, key)?, profile })
        })
        .collect()
}

/// `data/` of the objects made from what an environment's key says to `copy`.
pub(crate) fn copies(ctx: &Context<'_>, project: &Project, key: &str) -> Result<Vec<PathBuf>, OpsError> {
    copies_in(ctx, project, &Store::open(ctx.dirs.store_root())?, key)
}

fn copies_in(ctx: &Context<'_>, project: &Project, store: &Store, key: &str) -> Result<Vec<PathBuf>, OpsError> {
    let content = project.manifest.content_of(key);
    let copied = copy::realise(ctx, project, store, key, content.as_deref())?;
    Ok(copied.into_iter().map(|(_, data)| data).collect())
}

/// Nix's packages of environments whose lock is current; what is missing of their closures is fetched or built.
pub(crate) fn profiles(
    ctx: &Context<'_>,
    project: &mut Project,
    store: &Store,
    system: System,
    keys: &[String],
    locked: bool,
) -> Result<Vec<Option<nix::Profile>>, OpsError> {
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let found = keys.iter().map(|key| nix::find_profile(project, store, lock, system, key));
    if let Some(found) = found.collect::<Result<Option<Vec<_>>, _>>()? {
        return Ok(found);
    }
    let mut lock = lock.clone();
    nix::complete(ctx, project, store, &mut lock, system, keys)?;
    let made = keys.iter().map(|key| nix::profile(ctx, project, store, &lock, system, key)).collect();
    if !locked
        && let Err(e) = project.set_lock(lock)
        && !matches!(&e, OpsError::Path(p) if is_read_only(p))
    {
        return Err(e);
    }
    made
}

/// [`realise`] for any system, without the project's own files: nothing of an environment is run to make it.
pub(crate) fn realise_on(
    ctx: &Context<'_>,
    project: &mut Project,
    store: &Store,
    system: System,
    keys: &[String],
    locked: bool,
) -> Result<Vec<Environment>, OpsError> {
    lock::ensure(ctx, project, locked)?;
    let mut found = Vec::new();
    for key in keys {
        match warm(project, store, system, key)? {
            Some(environment) => found.push(environment),
            None => return assemble_all(ctx, project, store, system, keys, locked),
        }
    }
    Ok(found)
}

/// The environment of `key` as the lock has it, if it is assembled.
pub fn current(ctx: &Context<'_>, project: &Project, key: &str) -> Result<Environment, OpsError> {
    let store = Store::open(ctx.dirs.store_root())?;
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    if nix::find_profile(project, &store, lock, System::current(), key)?.is_none() {
        return Err(OpsError::LockStale);
    }
    warm(project, &store, System::current(), key)?.ok_or(OpsError::LockStale)
}

/// The environment, if the lock is complete for it and it was assembled from just that; no database is opened.
fn warm(project: &Project, store: &Store, system: System, key: &str) -> Result<Option<Environment>, OpsError> {
    let Some(lock) = project.lock()? else { return Ok(None) };
    let locked = environment_on(lock, system, key)?;
    let packages = packages_of(lock, locked);
    if packages.iter().any(|p| p.store.is_none()) {
        return Ok(None);
    }
    match store.root_target(&project.id.0, &root_key(project, lock, locked, &packages))? {
        Some(path) if store.exists(&path) => Ok(Some(load(store, &path)?)),
        _ => Ok(None),
    }
}

fn load(store: &Store, path: &StorePath) -> Result<Environment, OpsError> {
    Ok(Environment::load(&store.physical(path), &|p| store.physical(p))?)
}

/// What the lock says of an environment on this machine's system.
pub(crate) fn locked_environment<'l>(lock: &'l Lock, key: &str) -> Result<&'l LockedEnvironment, OpsError> {
    environment_on(lock, System::current(), key)
}

/// What the lock says of an environment on a system.
pub(crate) fn environment_on<'l>(lock: &'l Lock, system: System, key: &str) -> Result<&'l LockedEnvironment, OpsError> {
    let mut of_system = lock.environments.iter().filter(|e| e.system == system).peekable();
    if of_system.peek().is_none() && !lock.environments.is_empty() {
        return Err(OpsError::SystemNotLocked { system: system.nix() });
    }
    of_system.find(|e| e.key == key).ok_or_else(|| OpsError::NoEnvironment {
        kind: "environment",
        name: key.to_owned(),
        known: lock.environments.iter().filter(|e| e.system == system).map(|e| e.key.clone()).collect(),
    })
}

/// The packages of an environment, in its order; the lock was verified, so each is there.
pub(crate) fn packages_of<'l>(lock: &'l Lock, environment: &LockedEnvironment) -> Vec<&'l LockedPackage> {
    let index: BTreeMap<(&str, &str), &LockedPackage> = lock
        .packages
        .iter()
        .filter(|p| p.system == environment.system && p.source == environment.source)
        .map(|p| ((p.name.as_str(), p.version.as_str()), p))
        .collect();
    environment
        .packages
        .iter()
        .filter_map(|(name, version)| index.get(&(name.as_str(), version.as_str())).copied())
        .collect()
}

/// Names the root of an environment: its key and a digest of everything that its content depends on.
fn root_key(project: &Project, lock: &Lock, environment: &LockedEnvironment, packages: &[&LockedPackage]) -> String {
    let mut text = format!("{} {} {}\n", igloo_env::TRIGGERS, lock.unpack, environment.system);
    for p in packages {
        let store = p.store.as_ref().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("{store} {} {}\n", p.name, p.sha256));
    }
    for u in &lock.users {
        text.push_str(&format!("user {} {} {} {} {}\n", u.name, u.uid, u.gid, u.home, u.shell));
    }
    for g in &lock.groups {
        text.push_str(&format!("group {} {} {}\n", g.name, g.gid, g.members.join(",")));
    }
    for (package, decision) in &project.manifest.scripts {
        text.push_str(&format!("script {package} {}\n", decision.name()));
    }
    format!("{}@{}", root_name(&environment.key, environment.system), &Sha256::of(text.as_bytes()).to_string()[..16])
}

/// The part of a root's name that stays when its environment changes.
fn root_name(key: &str, system: System) -> String {
    if system == System::current() { key.to_owned() } else { format!("{key}+{}", system.deb_arch()) }
}

fn assemble_all(
    ctx: &Context<'_>,
    project: &mut Project,
    store: &Store,
    system: System,
    keys: &[String],
    locked: bool,
) -> Result<Vec<Environment>, OpsError> {
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let mut lock = lock.clone();
    if lock.unpack != igloo_store::UNPACK && lock.packages.iter().any(|p| p.store.is_some()) {
        if locked {
            return Err(OpsError::OtherUnpack { lock: lock.unpack, own: igloo_store::UNPACK });
        }
        // Completed by an igloo that unpacks to other objects: what it found out is found out again.
        lock.packages.iter_mut().for_each(|p| p.store = None);
    }
    let objects = fetch::objects(ctx, project, store, &lock, system, keys)?;
    for package in &mut lock.packages {
        if let Some(path) = objects.get(&package.sha256) {
            package.store = Some(path.clone());
        }
    }
    // In the order of the names, whatever was asked for first: numbers must not depend on that.
    let mut sorted: Vec<&String> = keys.iter().collect();
    sorted.sort();
    let mut identities = Identities { users: lock.users.clone(), groups: lock.groups.clone() };
    let mut unhandled = BTreeMap::new();
    for key in sorted {
        let members = members(&lock, store, system, key)?;
        let plan = igloo_env::plan(&members, &identities, &project.manifest.scripts)?;
        identities = plan.identities;
        unhandled.extend(plan.unhandled.into_iter().map(|s| ((s.package.clone(), s.script), s)));
    }
    for script in unhandled.into_values() {
        let line = script.lines.first().map(|(n, text)| format!(" (line {n}: `{text}`)")).unwrap_or_default();
        ctx.reporter.event(Event::Warning {
            text: format!("the {} of `{}` does more than igloo knows{line}", script.script, script.package),
            hint: Some(format!("if all works, say so in igloo.toml: [scripts] {} = \"ignore\"", script.package)),
        });
    }
    lock.users = identities.users.clone();
    lock.groups = identities.groups.clone();
    lock.scripts = project.manifest.scripts.iter().map(|(p, d)| (p.clone(), d.name().to_owned())).collect();
    lock.triggers = igloo_env::TRIGGERS;
    lock.unpack = igloo_store::UNPACK;
    // As it will be read back: the names of roots depend on it.
    lock.sort();
    let mut environments = Vec::new();
    for key in keys {
        environments.push(assemble(project, store, &lock, &identities, system, key)?);
    }
    // Completed last: a lock that names store paths was realised from end to end.
    if !locked
        && let Err(e) = project.set_lock(lock.clone())
        && !matches!(&e, OpsError::Path(p) if is_read_only(p))
    {
        return Err(e);
    }
    Ok(environments)
}

/// Somebody else's checkout: everything works, only nothing is remembered.
fn is_read_only(error: &igloo_base::PathError) -> bool {
    matches!(error.source.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

fn members(lock: &Lock, store: &Store, system: System, key: &str) -> Result<Vec<Member>, OpsError> {
    let environment = environment_on(lock, system, key)?;
    packages_of(lock, environment)
        .into_iter()
        .map(|p| {
            let path = p.store.clone().ok_or(OpsError::LockStale)?;
            Ok(Member {
                physical: store.physical(&path),
                path,
                name: p.name.clone(),
                version: p.version.clone(),
                architecture: p.architecture.clone(),
            })
        })
        .collect()
}

fn assemble(
    project: &Project,
    store: &Store,
    lock: &Lock,
    identities: &Identities,
    system: System,
    key: &str,
) -> Result<Environment, OpsError> {
    let locked = environment_on(lock, system, key)?;
    let packages = packages_of(lock, locked);
    let root = root_key(project, lock, locked, &packages);
    if let Some(path) = store.root_target(&project.id.0, &root)?
        && store.exists(&path)
    {
        return load(store, &path);
    }
    let members = members(lock, store, system, key)?;
    let mut settings = Settings::default();
    let groups = igloo_env::bundles(&members)?;
    let mut references: Vec<StorePath> = members.iter().map(|m| m.path.clone()).collect();
    if !groups.is_empty() {
        settings.layers = layers(store, &members, &groups)?;
        references.extend(settings.layers.iter().cloned());
    }
    references.sort();
    references.dedup();
    let name = format!("env-{key}");
    let staged = store.stage::<OpsError>(&name, &references, |out| {
        Ok(igloo_env::assemble(key, &members, identities, &settings, out)?)
    })?;
    let path = staged.path().clone();
    store.protect(std::slice::from_ref(&path))?;
    store.commit(vec![staged])?;
    store.add_root(&project.id.0, &root, &path)?;
    let name = root_name(key, system);
    for old in store.project_roots(&project.id.0)?.keys() {
        if *old != root && old.split('@').next() == Some(name.as_str()) {
            store.remove_root(&project.id.0, old)?;
        }
    }
    load(store, &path)
}

/// More packages than an overlay takes layers: some become one object together.
fn layers(store: &Store, members: &[Member], groups: &[Vec<usize>]) -> Result<Vec<StorePath>, OpsError> {
    let mut layers = Vec::new();
    let mut staged = Vec::new();
    for group in groups.iter().filter(|g| g.len() > 1) {
        let merged: Vec<Member> = group.iter().map(|i| members[*i].clone()).collect();
        let bundle = store.stage::<OpsError>("env-bundle", &[], |out| Ok(igloo_env::merge(&merged, out)?))?;
        layers.push(bundle.path().clone());
        staged.push(bundle);
    }
    store.protect(&layers)?;
    store.commit(staged)?;
    let bundled: std::collections::BTreeSet<usize> = groups.iter().filter(|g| g.len() > 1).flatten().copied().collect();
    layers.extend(members.iter().enumerate().filter(|(i, _)| !bundled.contains(i)).map(|(_, m)| m.path.clone()));
    Ok(layers)
}

/// An environment for a person.
#[derive(Debug, Serialize)]
pub struct ShownEnvironment {
    /// Its key, `services.db`.
    pub name: String,
    /// Its packages, by name.
    pub packages: Vec<ShownPackage>,
}

/// A package for a person.
#[derive(Debug, Serialize)]
pub struct ShownPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Bytes when unpacked.
    pub installed_size: u64,
    /// Bytes to download.
    pub size: u64,
    /// Who asked for it: `asked for`, `base`, or `needed by NAME`.
    pub why: String,
    /// Its store path, once it was fetched.
    pub store: Option<String>,
}

/// What is in an environment, and why.
pub fn show(ctx: &Context<'_>, project: &mut Project, name: &str) -> Result<ShownEnvironment, OpsError> {
    lock::ensure(ctx, project, false)?;
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let key = match name.contains('.') {
        true => name.to_owned(),
        false => ["shells", "services", "tasks", "images"]
            .iter()
            .map(|table| format!("{table}.{name}"))
            .find(|key| lock.environments.iter().any(|e| e.key == *key))
            .unwrap_or_else(|| name.to_owned()),
    };
    let environment = locked_environment(lock, &key)?;
    let why: BTreeMap<&str, &str> = environment.why.iter().map(|(p, w)| (p.as_str(), w.as_str())).collect();
    let packages = packages_of(lock, environment)
        .into_iter()
        .map(|p| ShownPackage {
            name: p.name.clone(),
            version: p.version.to_string(),
            architecture: p.architecture.clone(),
            installed_size: p.installed_size * 1024,
            size: p.size,
            why: match why.get(p.name.as_str()).copied() {
                Some(igloo_manifest::resolve::WHY_ROOT) => "asked for".into(),
                Some(igloo_manifest::resolve::WHY_BASE) => "base".into(),
                Some(parent) => format!("needed by {parent}"),
                None => String::new(),
            },
            store: p.store.as_ref().map(StorePath::full),
        })
        .collect();
    Ok(ShownEnvironment { name: key, packages })
}

/// A line of `igloo env list`.
#[derive(Debug, Serialize)]
pub struct ListedEnvironment {
    /// Its key.
    pub name: String,
    /// Its system.
    pub system: String,
    /// How many packages it has.
    pub packages: usize,
}

/// The project's environments.
pub fn list(ctx: &Context<'_>, project: &mut Project) -> Result<Vec<ListedEnvironment>, OpsError> {
    lock::ensure(ctx, project, false)?;
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    Ok(lock
        .environments
        .iter()
        .map(|e| ListedEnvironment { name: e.key.clone(), system: e.system.to_string(), packages: e.packages.len() })
        .collect())
}
