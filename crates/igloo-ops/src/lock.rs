//! `igloo lock` and `igloo update`: from a manifest to exact versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use igloo_base::{Event, System};
use igloo_formats::deb::Relations;
use igloo_manifest::lock::{LockedEnvironment, LockedPackage, LockedSource, LockedSuite};
use igloo_manifest::resolve::{self, Candidate, Conflict, Indexes, Resolution};
use igloo_manifest::{Debian, Diagnostic, EnvironmentRequest, Lock, ManifestError, Source, request_digest};
use igloo_remote::{Client, Config, Freshness, Suite, SuiteRequest};
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::fetch::FRESH;
use crate::image::service;
use crate::nix;
use crate::project::Project;

/// How to lock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Ask the archive even if the indexes here are fresh.
    pub refresh: bool,
    /// Fail if the lock would change.
    pub check: bool,
}

/// What became of the lock.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Whether the file changed.
    pub written: bool,
    /// What changed in it.
    pub changes: Vec<Change>,
    /// Packages in it.
    pub packages: usize,
    /// Environments in it.
    pub environments: usize,
}

/// A package that moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// The package.
    pub package: String,
    /// Its version before.
    pub old: Option<String>,
    /// Its version now.
    pub new: Option<String>,
    /// Where, `services.db`.
    pub environments: Vec<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.environments.join(", ");
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "+ {} {new} ({places})", self.package),
            (Some(old), None) => write!(f, "- {} {old} ({places})", self.package),
            (Some(old), Some(new)) => write!(f, "~ {} {old} -> {new} ({places})", self.package),
            (None, None) => write!(f, "  {} ({places})", self.package),
        }
    }
}

/// Which locked packages keep their versions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep<'k> {
    /// All that still fit.
    All,
    /// None.
    None,
    /// All but these packages, and but those of these sources.
    Except(&'k [String]),
}

impl Keep<'_> {
    fn keeps_image(self, image: &str) -> bool {
        match self {
            Keep::All => true,
            Keep::None => false,
            Keep::Except(what) => !what.iter().any(|w| w == image),
        }
    }

    fn keeps(self, package: &LockedPackage) -> bool {
        match self {
            Keep::All => true,
            Keep::None => false,
            Keep::Except(what) => !what.iter().any(|w| *w == package.name || *w == package.source),
        }
    }
}

/// Makes the lock answer the manifest.
pub fn lock(ctx: &Context<'_>, project: &mut Project, options: Options) -> Result<Outcome, OpsError> {
    if !options.refresh && is_current(project)? {
        return unchanged(project);
    }
    let new = resolve(ctx, project, Keep::All, options.refresh)?;
    if options.check && project.lock()? != Some(&new) {
        return Err(OpsError::LockStale);
    }
    accept(ctx, project, new)
}

/// Moves what is named (everything if nothing is) to the newest versions.
pub fn update(ctx: &Context<'_>, project: &mut Project, what: &[String]) -> Result<Outcome, OpsError> {
    if let Some(lock) = project.lock()? {
        let known = |w: &String| {
            lock.packages.iter().any(|p| p.name == *w) || lock.sources.contains_key(w) || lock.images.contains_key(w)
        };
        if let Some(one) = what.iter().find(|w| !known(w) && lock.outputs.iter().any(|o| o.name == **w)) {
            return Err(OpsError::MovesWithSource { what: one.clone() });
        }
        if let Some(unknown) = what.iter().find(|w| !known(w)) {
            return Err(OpsError::NothingToUpdate { what: unknown.clone() });
        }
    }
    let keep = if what.is_empty() { Keep::None } else { Keep::Except(what) };
    let new = resolve(ctx, project, keep, true)?;
    accept(ctx, project, new)
}

/// Locks if there is no lock that answers the manifest; with `locked` that is an error.
pub(crate) fn ensure(ctx: &Context<'_>, project: &mut Project, locked: bool) -> Result<(), OpsError> {
    if is_current(project)? {
        return Ok(());
    }
    if locked {
        return Err(OpsError::LockStale);
    }
    lock(ctx, project, Options::default()).map(drop)
}

fn is_current(project: &Project) -> Result<bool, OpsError> {
    let Some(lock) = project.lock()?.filter(|lock| lock.request == request_digest(&project.manifest)) else {
        return Ok(false);
    };
    // Overlays and pins are files of the project, which the manifest only names.
    let evaluated = lock.sources.get("nixpkgs").and_then(|source| source.flakes.first());
    Ok(match evaluated {
        Some(flake) => flake.files == nix::files_digest(project)?,
        None => true,
    })
}

fn unchanged(project: &Project) -> Result<Outcome, OpsError> {
    let lock = project.lock()?;
    Ok(Outcome {
        written: false,
        changes: Vec::new(),
        packages: lock.map_or(0, packages),
        environments: lock.map_or(0, |l| l.environments.len()),
    })
}

fn packages(lock: &Lock) -> usize {
    let of_nix: BTreeSet<_> = lock.outputs.iter().map(|o| (&o.source, &o.name, o.system)).collect();
    lock.packages.len() + of_nix.len()
}

/// Puts a resolved lock in place, if it differs.
pub(crate) fn accept(ctx: &Context<'_>, project: &mut Project, new: Lock) -> Result<Outcome, OpsError> {
    for missing in project.manifest.missing_tools() {
        ctx.reporter.event(Event::Note {
            text: format!("{}: @{} comes without {}: {}", missing.key, missing.set, missing.tool, missing.why),
        });
    }
    let empty = Lock::new(new.request);
    let old = project.lock()?.unwrap_or(&empty);
    let changes = group(Lock::diff(old, &new));
    let (packages, environments) = (packages(&new), new.environments.len());
    let written = project.set_lock(new)?;
    Ok(Outcome { written, changes, packages, environments })
}

/// One change a package, with all the places where it happens.
fn group(changes: Vec<igloo_manifest::lock::Change>) -> Vec<Change> {
    type Versions = (String, Option<String>, Option<String>);
    let mut grouped: BTreeMap<Versions, BTreeSet<String>> = BTreeMap::new();
    for change in changes {
        let key = (change.package, change.old, change.new);
        grouped.entry(key).or_default().insert(change.environment);
    }
    grouped
        .into_iter()
        .map(|((package, old, new), places)| Change { package, old, new, environments: places.into_iter().collect() })
        .collect()
}

/// Resolves every environment for every system; nothing is written.
pub(crate) fn resolve(ctx: &Context<'_>, project: &Project, keep: Keep<'_>, refresh: bool) -> Result<Lock, OpsError> {
    let old = project.lock()?;
    let mut lock = Lock::new(request_digest(&project.manifest));
    lock.triggers = igloo_env::TRIGGERS;
    if let Some(old) = old {
        // Numbers once given stay, since files in volumes carry them.
        lock.users = old.users.clone();
        lock.groups = old.groups.clone();
        lock.scripts = old.scripts.clone();
        lock.unpack = old.unpack;
    }
    let mut by_source: BTreeMap<String, Vec<EnvironmentRequest>> = BTreeMap::new();
    for request in project.manifest.environments() {
        by_source.entry(request.source.clone()).or_default().push(request);
    }
    let of_nix: Vec<&EnvironmentRequest> =
        by_source.values().flatten().filter(|r| nix::is_of_nix(project, &r.source)).collect();
    if !of_nix.is_empty() {
        let moves = |source: &str| match keep {
            Keep::All => false,
            Keep::None => true,
            Keep::Except(what) => what.iter().any(|w| w == source),
        };
        nix::resolve(ctx, project, &of_nix, old, &moves, &mut lock)?;
        if let Some(old) = old {
            // What is known of a path is known for good.
            lock.paths = old.paths.clone();
        }
        nix::learn(ctx, project, &mut lock)?;
        nix::forget(&mut lock);
    }
    for (name, requests) in by_source.iter().filter(|(name, _)| !nix::is_of_nix(project, name)) {
        let debian = debian(project, name, &requests[0].key)?;
        let suites = refresh_suites(ctx, project, debian, refresh)?;
        lock.sources.insert(
            name.clone(),
            LockedSource { suites: suites.iter().map(locked_suite).collect(), flakes: Vec::new() },
        );
        for system in &project.manifest.project.systems {
            let kept: Vec<&LockedPackage> = old
                .iter()
                .flat_map(|l| &l.packages)
                .filter(|p| p.source == *name && p.system == *system && keep.keeps(p))
                .collect();
            let universe = universe(&suites, *system, &kept);
            for request in requests {
                let resolution = resolve::resolve(&universe, request, *system)
                    .map_err(|conflict| explain(project, request, *conflict))?;
                add(&mut lock, old, request, *system, &resolution);
            }
        }
    }
    for image in project.manifest.foreign_images() {
        let known = old.and_then(|old| old.images.get(image)).filter(|_| keep.keeps_image(image));
        let digest = match known {
            Some(digest) => digest.clone(),
            None => service::resolve(ctx, project, image)?,
        };
        lock.images.insert(image.to_owned(), digest);
    }
    // As it will be read back: the environments of one key are found in the order of their sources.
    lock.sort();
    Ok(lock)
}

/// A conflict as a finding in the manifest, at the package that was asked for.
fn explain(project: &Project, request: &EnvironmentRequest, conflict: Conflict) -> OpsError {
    let Some(root) = conflict.root.and_then(|i| request.roots.get(i)) else {
        return OpsError::Conflict(Box::new(conflict));
    };
    let details = conflict.details();
    let help: Vec<&str> = details.lines().chain(conflict.help.as_deref()).collect();
    ManifestError {
        path: project.manifest.path.clone(),
        text: project.text.clone(),
        diagnostics: vec![Diagnostic {
            message: conflict.to_string(),
            span: root.span.clone(),
            label: format!("asked for by `{}`", request.key),
            help: (!help.is_empty()).then(|| help.join("\n")),
        }],
    }
    .into()
}

fn universe<'s>(
    suites: &'s [Suite],
    system: System,
    kept: &[&LockedPackage],
) -> Indexes<'s, igloo_remote::apt::Mapped> {
    let arch = system.deb_arch();
    let mut universe = Indexes::new();
    for suite in suites {
        for index in suite.index(arch) {
            universe.add(&suite.name, suite.not_automatic, index);
        }
    }
    for package in kept {
        universe.lock((*package).into());
    }
    universe
}

fn add(lock: &mut Lock, old: Option<&Lock>, request: &EnvironmentRequest, system: System, resolution: &Resolution) {
    for chosen in &resolution.packages {
        let record = &chosen.record;
        if lock.package(&request.source, system, &record.name, &record.version).is_some() {
            continue;
        }
        let mut package = locked_package(chosen, &request.source, system);
        package.store =
            old.and_then(|o| o.packages.iter().find(|p| p.sha256 == package.sha256)).and_then(|p| p.store.clone());
        lock.packages.push(package);
    }
    lock.environments.push(LockedEnvironment {
        key: request.key.clone(),
        system,
        source: request.source.clone(),
        roots: request.roots.iter().map(|r| r.name.clone()).collect(),
        packages: resolution.packages.iter().map(|c| (c.record.name.clone(), c.record.version.clone())).collect(),
        why: resolution.why.clone(),
    });
}

fn locked_package(chosen: &Candidate, source: &str, system: System) -> LockedPackage {
    let record = &chosen.record;
    let join = |a: &Relations, b: &Relations| Relations(a.0.iter().chain(&b.0).cloned().collect());
    LockedPackage {
        source: source.to_owned(),
        name: record.name.clone(),
        version: record.version.clone(),
        architecture: record.architecture.clone(),
        system,
        suite: chosen.suite.clone(),
        file: record.filename.clone(),
        size: record.size,
        sha256: record.sha256,
        installed_size: record.installed_size,
        essential: record.essential,
        multi_arch: record.multi_arch,
        depends: join(&record.pre_depends, &record.depends),
        recommends: record.recommends.clone(),
        conflicts: join(&record.conflicts, &record.breaks),
        replaces: record.replaces.clone(),
        provides: record.provides.clone(),
        priority: record.priority,
        section: record.section.clone(),
        store: None,
    }
}

fn locked_suite(suite: &Suite) -> LockedSuite {
    let since_1970 = suite.date.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let date = igloo_supervisor::time::format_ns(since_1970.as_secs().saturating_mul(1_000_000_000));
    LockedSuite {
        name: suite.name.clone(),
        codename: suite.codename.clone(),
        date: date.split('.').next().map(|d| format!("{}Z", d.trim_end_matches('Z'))).unwrap_or(date.clone()),
        release: suite.release,
        signers: suite.signers.clone(),
        components: suite.components.clone(),
    }
}

/// The Debian source of this name.
pub(crate) fn debian<'p>(project: &'p Project, name: &str, key: &str) -> Result<&'p Debian, OpsError> {
    match project.manifest.sources.get(name) {
        Some(Source::Debian(debian)) => Ok(debian),
        _ => Err(OpsError::SourceNotSupported { key: key.to_owned(), source_name: name.to_owned() }),
    }
}

/// What the archive client is asked for.
pub(crate) fn suite_requests(project: &Project, debian: &Debian) -> Vec<SuiteRequest> {
    debian
        .suites
        .iter()
        .map(|suite| {
            let url = match suite.ends_with("-security") {
                true => debian.security_url.as_ref(),
                false => debian.url.as_ref(),
            };
            let dated = |url: &String| match &debian.snapshot {
                Some(moment) => format!("{}/{moment}", url.trim_end_matches('/')),
                None => url.trim_end_matches('/').to_owned(),
            };
            SuiteRequest {
                suite: suite.clone(),
                components: debian.components.clone(),
                url: url.map(dated),
                keyring: debian.keyring.as_ref().map(|k| project.directory.join(k)),
                frozen: debian.snapshot.is_some(),
            }
        })
        .collect()
}

pub(crate) fn client(ctx: &Context<'_>) -> Result<Client, OpsError> {
    Ok(Client::new(config(ctx))?)
}

pub(crate) fn config(ctx: &Context<'_>) -> Config {
    let proxies = &ctx.proxies;
    Config {
        etc_apt: ctx.apt_root.clone(),
        http_proxy: proxies.http.clone(),
        https_proxy: proxies.https.clone(),
        no_proxy: proxies.none.clone(),
        ..Config::default()
    }
}

fn refresh_suites(
    ctx: &Context<'_>,
    project: &Project,
    debian: &Debian,
    refresh: bool,
) -> Result<Vec<Suite>, OpsError> {
    let freshness = match (ctx.offline, refresh) {
        (true, _) => Freshness::CacheOnly,
        (false, true) => Freshness::Now,
        (false, false) => FRESH,
    };
    let architectures: Vec<&str> = project.manifest.project.systems.iter().map(|s| s.deb_arch()).collect();
    let requests = suite_requests(project, debian);
    Ok(client(ctx)?.refresh(&requests, &architectures, &ctx.dirs.apt(), freshness, ctx.reporter)?)
}
