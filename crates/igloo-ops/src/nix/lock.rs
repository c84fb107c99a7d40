//! From names to store paths: one evaluation for all environments and systems.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use igloo_base::{At, Sha256, System, Task, Unit};
use igloo_formats::nix::StorePath;
use igloo_manifest::lock::{LockedEnvironment, LockedFlake, LockedOutput, LockedSource};
use igloo_manifest::request::{FLAKES, STORE};
use igloo_manifest::{Diagnostic, EnvironmentRequest, Lock, ManifestError, Nixpkgs, Source};
use igloo_remote::Nix;
use igloo_remote::evaluate::packages::{Answer, FlakeOutput, Name, Question};

use super::program;
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// Most names that a missing package is compared with and told.
const SUGGESTIONS: usize = 3;
/// Most lines of Nix's explanation.
const EXPLAINED: usize = 12;
/// Where two have the same file, as Nix has it for packages that say nothing.
const PRIORITY: i64 = 5;

/// Which pins are to be moved to what their references lead to now.
pub(crate) type Moves<'m> = &'m dyn Fn(&str) -> bool;

/// Evaluates what these requests ask for, and adds it to the lock.
pub(crate) fn resolve(
    ctx: &Context<'_>,
    project: &Project,
    requests: &[&EnvironmentRequest],
    old: Option<&Lock>,
    moves: Moves<'_>,
    lock: &mut Lock,
) -> Result<(), OpsError> {
    store_paths(project, requests, lock)?;
    for system in &project.manifest.project.systems {
        lock.environments.extend(requests.iter().map(|request| LockedEnvironment {
            key: request.key.clone(),
            system: *system,
            source: request.source.clone(),
            roots: request.roots.iter().map(|r| r.name.clone()).collect(),
            packages: Vec::new(),
            why: BTreeMap::new(),
        }));
    }
    match requests.iter().any(|r| r.source != STORE) {
        true => evaluate(ctx, project, requests, old, moves, lock),
        false => Ok(()),
    }
}

/// Store paths are what they are: nothing is asked, and they are the same for every system.
fn store_paths(project: &Project, requests: &[&EnvironmentRequest], lock: &mut Lock) -> Result<(), OpsError> {
    for full in names_of(requests, STORE) {
        let path = store_path(&full)?;
        for system in &project.manifest.project.systems {
            lock.outputs.push(LockedOutput {
                source: STORE.to_owned(),
                name: full.clone(),
                system: *system,
                version: version(path.name()).to_owned(),
                output: "out".to_owned(),
                priority: PRIORITY,
                path: path.clone(),
                deriver: path.clone(),
            });
        }
    }
    Ok(())
}

/// `2.12` of `hello-2.12`: what follows the first dash without a letter after it, as Nix splits names.
fn version(name: &str) -> &str {
    let dash = name.match_indices('-').find(|(at, _)| !name[at + 1..].starts_with(|c: char| c.is_alphabetic()));
    dash.map_or("", |(at, _)| &name[at + 1..])
}

fn evaluate(
    ctx: &Context<'_>,
    project: &Project,
    requests: &[&EnvironmentRequest],
    old: Option<&Lock>,
    moves: Moves<'_>,
    lock: &mut Lock,
) -> Result<(), OpsError> {
    let Some(Source::Nixpkgs(nixpkgs)) = project.manifest.sources.get("nixpkgs") else {
        return Err(OpsError::SourceNotSupported { key: requests[0].key.clone(), source_name: "nixpkgs".to_owned() });
    };
    let nix = program::find(ctx, &project.directory)?;
    let task = Task::start(ctx.reporter, "nix evaluates the packages", None, Unit::Items);
    let configured = nix.configured(&project.directory)?;
    let mut pins = Pins { nix: &nix, project, old, moves, pinned: BTreeMap::new() };
    let names = names(requests, "nixpkgs");
    let source = match names.is_empty() {
        true => None,
        false => Some(pins.source(nixpkgs)?),
    };
    let mut outputs = Vec::new();
    for asked in names_of(requests, FLAKES) {
        let (flake, path) = asked.split_once('#').unwrap_or((&asked, ""));
        let reference = pins.flake(FLAKES, flake)?.0;
        outputs.push(FlakeOutput { path: attributes(path), reference, asked: asked.clone() });
    }
    let systems = &project.manifest.project.systems;
    let question = Question {
        source,
        systems: systems.iter().map(|s| s.nix().to_owned()).collect(),
        names,
        outputs,
        overlays: overlays(project, nixpkgs)?,
        allow_unfree: nixpkgs.allow_unfree,
        permitted_insecure: nixpkgs.permitted_insecure.clone(),
        strict: false,
    };
    let answers = nix.packages(&project.directory, &question)?;
    drop(task);
    let files = files_digest(project)?;
    for (name, mut flakes) in pins.pinned {
        for flake in &mut flakes {
            flake.files = if name == "nixpkgs" { files } else { None };
            flake.caches = configured.caches.clone();
            flake.keys = configured.keys.clone();
        }
        lock.sources.insert(name, LockedSource { suites: Vec::new(), flakes });
    }
    for system in systems {
        let of_system = answers.get(system.nix()).map(Vec::as_slice).unwrap_or_default();
        for (index, answer) in of_system.iter().enumerate() {
            let source = if index < question.names.len() { "nixpkgs" } else { FLAKES };
            match answer {
                Answer::Package(package) => {
                    for output in &package.outputs {
                        lock.outputs.push(LockedOutput {
                            source: source.to_owned(),
                            name: package.asked.clone(),
                            system: *system,
                            version: package.version.clone(),
                            output: output.name.clone(),
                            priority: package.priority,
                            path: store_path(&output.path)?,
                            deriver: store_path(&package.drv)?,
                        });
                    }
                }
                Answer::Missing { asked, missing, kind } => {
                    return Err(absent(project, requests, asked, missing, kind.is_some(), *system));
                }
                Answer::Failed { asked, .. } => {
                    let one = Question { systems: vec![system.nix().to_owned()], ..question.clone() };
                    let why = nix.why_not(&project.directory, &one, index);
                    return Err(refused(project, requests, asked, &why, *system));
                }
            }
        }
    }
    Ok(())
}

fn store_path(full: &str) -> Result<StorePath, OpsError> {
    let base = full.rsplit('/').next().unwrap_or_default();
    StorePath::parse(base).map_err(|_| OpsError::NotAStorePath { text: full.chars().take(300).collect() })
}

/// Names asked for in a source, each once.
fn names_of(requests: &[&EnvironmentRequest], source: &str) -> Vec<String> {
    let of_source = requests.iter().filter(|r| r.source == source);
    let mut all: Vec<String> = of_source.flat_map(|r| r.roots.iter().map(|root| root.name.clone())).collect();
    all.sort();
    all.dedup();
    all
}

fn names(requests: &[&EnvironmentRequest], source: &str) -> Vec<Name> {
    names_of(requests, source).into_iter().map(|asked| Name { path: attributes(&asked), asked }).collect()
}

fn attributes(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(|part| part.trim_matches('"').to_owned()).collect()
}

/// What references lead to; those of the old lock stay unless they are to move.
struct Pins<'p> {
    nix: &'p Nix,
    project: &'p Project,
    old: Option<&'p Lock>,
    moves: Moves<'p>,
    /// By source.
    pinned: BTreeMap<String, Vec<LockedFlake>>,
}

impl Pins<'_> {
    /// The package set's files.
    fn source(&mut self, nixpkgs: &Nixpkgs) -> Result<PathBuf, OpsError> {
        let asked = &nixpkgs.flake;
        let pin = |tool: &str| asked.strip_prefix(tool).map(str::to_owned);
        let directory = &self.project.directory;
        let (file, name) = match (pin("npins:"), pin("niv:")) {
            (Some(name), _) => (directory.join("npins"), name),
            (_, Some(name)) => (directory.join("nix/sources.nix"), name),
            _ => return Ok(self.flake("nixpkgs", asked)?.1),
        };
        if !file.exists() {
            return Err(OpsError::NoPins { asked: asked.clone(), path: file });
        }
        let expression = format!("toString (import {}).{}.outPath", quoted(&file.to_string_lossy()), quoted(&name));
        let path: PathBuf = self.nix.json(directory, &["eval", "--impure", "--json", "--expr", &expression])?;
        let locked = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let flake = LockedFlake { asked: asked.clone(), locked, ..LockedFlake::default() };
        self.pinned.entry("nixpkgs".to_owned()).or_default().push(flake);
        Ok(path)
    }

    /// A flake's locked reference, and its files.
    fn flake(&mut self, source: &str, asked: &str) -> Result<(String, PathBuf), OpsError> {
        let old = self.old.and_then(|lock| lock.sources.get(source)?.flakes.iter().find(|f| f.asked == asked));
        let kept = old.filter(|_| !(self.moves)(source)).map(|f| f.locked.clone());
        let metadata = self.nix.flake(&self.project.directory, kept.as_deref().unwrap_or(asked))?;
        let text = |name: &str| metadata.locked.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let locked = if metadata.url.is_empty() { asked.to_owned() } else { metadata.url.clone() };
        let flake = LockedFlake {
            asked: asked.to_owned(),
            locked: locked.clone(),
            revision: if metadata.revision.is_empty() { text("rev") } else { metadata.revision.clone() },
            nar_hash: text("narHash"),
            ..LockedFlake::default()
        };
        let known = self.pinned.entry(source.to_owned()).or_default();
        if !known.contains(&flake) {
            known.push(flake);
        }
        Ok((locked, metadata.path))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

/// Files of overlays: those that are named, and of a directory its `default.nix` or all that end in `.nix`, by name.
fn overlays(project: &Project, nixpkgs: &Nixpkgs) -> Result<Vec<PathBuf>, OpsError> {
    let mut files = Vec::new();
    for overlay in &nixpkgs.overlays {
        let path = project.directory.join(overlay);
        let meta = fs::metadata(&path).at("read the overlay", &path)?;
        if !meta.is_dir() || path.join("default.nix").is_file() {
            files.push(path);
            continue;
        }
        let entries = fs::read_dir(&path).at("list the overlays in", &path)?;
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|p| p.extension() == Some(OsStr::new("nix")) || p.join("default.nix").is_file())
            .collect();
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Digest of the project's files that an evaluation of nixpkgs depends on beside its pin: overlays, pins of npins or niv.
/// None if there are no such files.
pub(crate) fn files_digest(project: &Project) -> Result<Option<Sha256>, OpsError> {
    let Some(Source::Nixpkgs(nixpkgs)) = project.manifest.sources.get("nixpkgs") else { return Ok(None) };
    let mut roots: Vec<PathBuf> = nixpkgs.overlays.iter().map(|o| project.directory.join(o)).collect();
    if nixpkgs.flake.starts_with("npins:") {
        roots.push(project.directory.join("npins"));
    }
    if nixpkgs.flake.starts_with("niv:") {
        roots.push(project.directory.join("nix"));
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let mut text = Vec::new();
    for root in &roots {
        digest_into(&project.directory, root, &mut text)?;
    }
    Ok(Some(Sha256::of(&text)))
}

fn digest_into(base: &Path, path: &Path, text: &mut Vec<u8>) -> Result<(), OpsError> {
    let name = path.strip_prefix(base).unwrap_or(path).as_os_str().as_bytes();
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    if meta.is_dir()
        && path.parent() != Some(base)
        && let Ok(target) = fs::read_link(path)
    {
        // Not followed, since it may lead back here.
        text.extend_from_slice(name);
        text.extend_from_slice(target.as_os_str().as_bytes());
        return Ok(());
    }
    if !meta.is_dir() && !meta.is_file() {
        return Ok(());
    }
    if meta.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path).at("list", path)?.flatten().map(|e| e.path()).collect();
        entries.sort();
        return entries.iter().try_for_each(|entry| digest_into(base, entry, text));
    }
    text.extend_from_slice(name);
    text.push(0);
    text.extend_from_slice(&Sha256::of(&fs::read(path).at("read", path)?).0);
    Ok(())
}

/// Nothing of that name, as a finding in the manifest.
fn absent(
    project: &Project,
    requests: &[&EnvironmentRequest],
    asked: &str,
    near: &[String],
    is_set: bool,
    system: System,
) -> OpsError {
    let (parent, last) = asked.rsplit_once('.').map_or((None, asked), |(parent, last)| (Some(parent), last));
    let distance = |name: &String| {
        let shared = name.chars().zip(last.chars()).take_while(|(a, b)| a == b).count();
        (std::cmp::Reverse(shared), name.len().abs_diff(last.len()))
    };
    let mut near: Vec<&String> = near.iter().collect();
    near.sort_by_key(|name| distance(name));
    let full = |name: &&String| parent.map_or(format!("`{name}`"), |parent| format!("`{parent}.{name}`"));
    let names: Vec<String> = near.iter().take(SUGGESTIONS).map(full).collect();
    let (message, help) = match (is_set, names.is_empty()) {
        (true, _) => {
            (format!("`{asked}` is no package but a set of packages"), Some(format!("name one of it: `{asked}.NAME`")))
        }
        (false, true) => (format!("there is no `{asked}` for {}", system.nix()), None),
        (false, false) => {
            (format!("there is no `{asked}` for {}", system.nix()), Some(format!("there is {}", names.join(", "))))
        }
    };
    finding(project, requests, asked, message, help)
}

fn refused(project: &Project, requests: &[&EnvironmentRequest], asked: &str, why: &str, system: System) -> OpsError {
    let lines: Vec<&str> = why.lines().filter(|line| !line.trim().is_empty()).collect();
    let message = format!("Nix can't give `{asked}` for {}", system.nix());
    let hint = match why {
        _ if why.contains("unfree") => Some("[sources.nixpkgs] allow-unfree = true"),
        _ if why.contains("insecure") => Some("[sources.nixpkgs] permitted-insecure = [\"NAME-VERSION\"]"),
        _ => None,
    };
    let from = lines.iter().rposition(|line| line.trim_start().starts_with("error:")).unwrap_or(0);
    let said = lines[from..].iter().take(EXPLAINED).copied();
    let help: Vec<&str> = said.chain(hint).collect();
    finding(project, requests, asked, message, Some(help.join("\n")))
}

fn finding(
    project: &Project,
    requests: &[&EnvironmentRequest],
    asked: &str,
    message: String,
    help: Option<String>,
) -> OpsError {
    let root = requests.iter().find_map(|r| Some((r, r.roots.iter().find(|root| root.name == asked)?)));
    let (label, span) = root.map_or_else(Default::default, |(request, root)| {
        (format!("asked for by `{}`", request.key), root.span.clone())
    });
    ManifestError {
        path: project.manifest.path.clone(),
        text: project.text.clone(),
        diagnostics: vec![Diagnostic { message, span, label, help }],
    }
    .into()
}
