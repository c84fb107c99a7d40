//! What an environment sees of Nix's packages: a tree of links below `/usr/local`, into the store that is shown at
//! `/nix/store`. It is an object that refers to the packages, so that its root keeps all of them.
//!
//! `bin` of a package is linked at `/usr/local/bin`, `share` at `/usr/local/share`, and so on. A directory that one package
//! alone has is one link. Of two packages that have the same file the one with the lower `meta.priority` wins, as in a
//! profile of Nix's; if these are equal, the first by name, and that is told. Where nothing of Debian's is, `/usr/bin/env`,
//! `/bin/sh`, the certificates and the loader of other people's programs are linked, too, if a package has them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use igloo_base::file::create_dirs;
use igloo_base::{At, Event, PathError, System};
use igloo_formats::nix::StorePath;
use igloo_manifest::Lock;
use igloo_manifest::lock::LockedOutput;
use igloo_store::Store;

use super::closure;
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// Directories of a package that are linked, and where.
const LINKED: &[(&str, &str)] = &[
    ("bin", "usr/local/bin"),
    ("sbin", "usr/local/sbin"),
    ("lib", "usr/local/lib"),
    ("libexec", "usr/local/libexec"),
    ("include", "usr/local/include"),
    ("share", "usr/local/share"),
    ("etc", "usr/local/etc"),
];
/// Files that every system has, and where packages have them.
const USUAL: &[(&str, &str)] = &[
    ("usr/bin/sh", "bin/sh"),
    ("usr/bin/bash", "bin/bash"),
    ("usr/bin/env", "bin/env"),
    ("etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-bundle.crt"),
    ("etc/ssl/certs/ca-bundle.crt", "etc/ssl/certs/ca-bundle.crt"),
    // For programs that nobody built for Nix: the first that is there.
    ("usr/lib64/ld-linux-x86-64.so.2", "libexec/nix-ld"),
    ("usr/lib64/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"),
    ("usr/lib/ld-linux-aarch64.so.1", "libexec/nix-ld"),
    ("usr/lib/ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1"),
];

/// The packages of Nix's that an environment has.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Its object.
    pub(crate) path: StorePath,
    /// The tree of links, a layer of a root.
    pub(crate) data: PathBuf,
    /// What is to be seen at `/nix/store`.
    pub(crate) store: PathBuf,
    /// Directories of commands, as they are called where `/nix/store` is.
    pub(crate) bins: Vec<String>,
    /// The packages' paths.
    pub(crate) outputs: Vec<StorePath>,
}

/// The profile of an environment, if it is made already; `Some(None)` if it has none.
pub(crate) fn find(
    project: &Project,
    store: &Store,
    lock: &Lock,
    system: System,
    key: &str,
) -> Result<Option<Option<Profile>>, OpsError> {
    let outputs = outputs(lock, system, key);
    if outputs.is_empty() {
        return Ok(Some(None));
    }
    match store.root_target(&project.id.0, &root(key, system, &outputs, lock))? {
        Some(path) if store.exists(&path) => Ok(Some(Some(load(store, &path, &outputs)))),
        _ => Ok(None),
    }
}

/// Makes the profile of an environment whose closure is in the store.
pub(crate) fn profile(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    lock: &Lock,
    system: System,
    key: &str,
) -> Result<Option<Profile>, OpsError> {
    if let Some(found) = find(project, store, lock, system, key)? {
        return Ok(found);
    }
    let outputs = outputs(lock, system, key);
    let references: Vec<StorePath> = outputs.iter().map(|o| o.path.clone()).collect();
    let mut tree = Tree::default();
    for output in &outputs {
        let physical = store.physical(&output.path);
        for (from, to) in LINKED {
            let directory = physical.join(from);
            if fs::metadata(&directory).is_ok_and(|meta| meta.is_dir()) {
                let logical = PathBuf::from(output.path.full()).join(from);
                tree.add(Path::new(to), Leaf { logical, physical: directory, owner: output })?;
            }
        }
    }
    let mut told: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (first, second, path) in &tree.collisions {
        told.entry((first, second)).or_default().push(path);
    }
    for ((first, second), paths) in told {
        let what = match &paths[..] {
            [path] => format!("`{path}`; that of `{first}` is used"),
            paths => format!("{} files, `{}` among them; those of `{first}` are used", paths.len(), paths[0]),
        };
        ctx.reporter.event(Event::Warning {
            text: format!("`{first}` and `{second}` both have {what}"),
            hint: Some(format!("leave one of them out of {key}")),
        });
    }
    let alone = !has_debian(lock, system, key);
    let staged = store.stage::<OpsError>(&format!("profile-{key}"), &references, |out| {
        let data = out.join("data");
        tree.write(&data)?;
        let loader = if system == System::Aarch64Linux { "aarch64" } else { "x86-64" };
        for (to, from) in USUAL.iter().filter(|(to, _)| alone && (!to.contains("/ld-linux") || to.contains(loader))) {
            let has = |output: &&&LockedOutput| store.physical(&output.path).join(from).symlink_metadata().is_ok();
            let is_there = data.join(to).symlink_metadata().is_ok();
            if let Some(output) = outputs.iter().find(has).filter(|_| !is_there) {
                link(&data.join(to), &PathBuf::from(output.path.full()).join(from))?;
            }
        }
        Ok(())
    })?;
    let path = staged.path().clone();
    store.protect(std::slice::from_ref(&path))?;
    store.commit(vec![staged])?;
    let name = root(key, system, &outputs, lock);
    store.add_root(&project.id.0, &name, &path)?;
    let same = |other: &str| other.split('@').next() == name.split('@').next();
    for old in store.project_roots(&project.id.0)?.keys().filter(|old| **old != name && same(old)) {
        store.remove_root(&project.id.0, old)?;
    }
    Ok(Some(load(store, &path, &outputs)))
}

fn load(store: &Store, path: &StorePath, outputs: &[&LockedOutput]) -> Profile {
    let physical = store.physical(path);
    let bins = outputs.iter().flat_map(|o| {
        let has = |name: &&str| store.physical(&o.path).join(name).is_dir();
        ["bin", "sbin"].into_iter().filter(has).map(|name| format!("{}/{name}", o.path.full())).collect::<Vec<_>>()
    });
    Profile {
        path: path.clone(),
        data: physical.join("data"),
        store: physical.parent().unwrap_or(&physical).to_owned(),
        bins: bins.collect(),
        outputs: outputs.iter().map(|o| o.path.clone()).collect(),
    }
}

/// What an environment has of Nix's packages, those that win first.
fn outputs<'l>(lock: &'l Lock, system: System, key: &str) -> Vec<&'l LockedOutput> {
    let mut all: Vec<&LockedOutput> = lock.environment(key, system).flat_map(|e| lock.outputs_of(e)).collect();
    all.sort_by_key(|o| (o.priority, &o.name, &o.source, &o.output));
    all.dedup_by(|a, b| a.path == b.path);
    all
}

/// Whether an environment has packages of Debian's.
pub(crate) fn has_debian(lock: &Lock, system: System, key: &str) -> bool {
    lock.environment(key, system).any(|e| !e.packages.is_empty())
}

fn root(key: &str, system: System, outputs: &[&LockedOutput], lock: &Lock) -> String {
    let digest = closure::digest(outputs, has_debian(lock, system, key));
    let system = if system == System::current() { String::new() } else { format!("+{}", system.deb_arch()) };
    format!("{key}.nix{system}@{}", &digest.to_string()[..16])
}

/// Something of a package.
#[derive(Debug, Clone)]
struct Leaf<'o> {
    logical: PathBuf,
    physical: PathBuf,
    owner: &'o LockedOutput,
}

#[derive(Debug)]
enum Node<'o> {
    Leaf(Leaf<'o>),
    Directory(BTreeMap<std::ffi::OsString, Node<'o>>),
}

/// Links under way.
#[derive(Debug, Default)]
struct Tree<'o> {
    top: BTreeMap<std::ffi::OsString, Node<'o>>,
    /// Who has a file, who has it too, and which.
    collisions: Vec<(String, String, String)>,
}

impl<'o> Tree<'o> {
    fn add(&mut self, to: &Path, leaf: Leaf<'o>) -> Result<(), PathError> {
        let mut at = &mut self.top;
        let parent = to.parent().unwrap_or(Path::new(""));
        for part in parent.components() {
            let node = at.entry(part.as_os_str().to_owned()).or_insert_with(|| Node::Directory(BTreeMap::new()));
            at = match node {
                Node::Directory(inner) => inner,
                Node::Leaf(_) => return Ok(()),
            };
        }
        insert(at, to, leaf, &mut self.collisions)
    }

    fn write(&self, directory: &Path) -> Result<(), PathError> {
        write(&self.top, directory)
    }
}

fn insert<'o>(
    at: &mut BTreeMap<std::ffi::OsString, Node<'o>>,
    path: &Path,
    leaf: Leaf<'o>,
    collisions: &mut Vec<(String, String, String)>,
) -> Result<(), PathError> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let Some(node) = at.get_mut(&name) else {
        at.insert(name, Node::Leaf(leaf));
        return Ok(());
    };
    let is_dir = |leaf: &Leaf<'_>| leaf.physical.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if let Node::Leaf(first) = node {
        if !(is_dir(first) && is_dir(&leaf)) {
            if first.owner.priority == leaf.owner.priority && first.owner.name != leaf.owner.name {
                let path = format!("/{}", path.display());
                collisions.push((first.owner.name.clone(), leaf.owner.name.clone(), path));
            }
            return Ok(());
        }
        *node = Node::Directory(children(first)?.into_iter().map(|(n, l)| (n, Node::Leaf(l))).collect());
    }
    if let (Node::Directory(inner), true) = (node, is_dir(&leaf)) {
        for (name, child) in children(&leaf)? {
            insert(inner, &path.join(name), child, collisions)?;
        }
    }
    Ok(())
}

fn children<'o>(leaf: &Leaf<'o>) -> Result<Vec<(std::ffi::OsString, Leaf<'o>)>, PathError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(&leaf.physical).at("list", &leaf.physical)? {
        let name = entry.at("list", &leaf.physical)?.file_name();
        let (logical, physical) = (leaf.logical.join(&name), leaf.physical.join(&name));
        all.push((name, Leaf { logical, physical, owner: leaf.owner }));
    }
    Ok(all)
}

fn write(nodes: &BTreeMap<std::ffi::OsString, Node<'_>>, directory: &Path) -> Result<(), PathError> {
    create_dirs(directory)?;
    for (name, node) in nodes {
        let path = directory.join(name);
        match node {
            Node::Leaf(leaf) => link(&path, &leaf.logical)?,
            Node::Directory(inner) => write(inner, &path)?,
        }
    }
    Ok(())
}

fn link(path: &Path, target: &Path) -> Result<(), PathError> {
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    symlink(target, path).at("create the link", path)
}
