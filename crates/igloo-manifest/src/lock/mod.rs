//! `igloo.lock`: what was chosen, exactly.
//!
//! Sorted, versioned TOML; the same lock always renders to the same bytes, so that an unchanged lock is an untouched
//! file. It holds no addresses: where an archive is, is the manifest's or the machine's business.
//!
//! Rules for change: a new key that an older igloo may not ignore needs a new [`VERSION`], and every version that was
//! ever released is read, with a test. Keys are refused when unknown, since a lock that is only half understood does not
//! say what will be there.

mod decode;
mod diff;
mod render;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use igloo_base::{Sha256, System};
use igloo_formats::deb::{MultiArch, Priority, Relations, Version};
use igloo_formats::nix::StorePath;

/// The format that this igloo writes.
pub const VERSION: u32 = 1;

/// Everything that was chosen for a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The format, [`VERSION`].
    pub version: u32,
    /// [`crate::request_digest`] of the manifest it answers.
    pub request: Sha256,
    /// What was read, by source.
    pub sources: BTreeMap<String, LockedSource>,
    /// The packages of all environments.
    pub packages: Vec<LockedPackage>,
    /// What Nix's packages of all environments came to.
    pub outputs: Vec<LockedOutput>,
    /// Digests of the images of others, by how they are asked for.
    pub images: BTreeMap<String, String>,
    /// The closure of these, as far as it is known.
    pub paths: Vec<LockedPath>,
    /// Which packages each environment has.
    pub environments: Vec<LockedEnvironment>,
    /// Users, with numbers that never change.
    pub users: Vec<LockedUser>,
    /// Groups, with numbers that never change.
    pub groups: Vec<LockedGroup>,
    /// What is done about maintainer scripts, by package.
    pub scripts: BTreeMap<String, String>,
    /// The version of igloo's triggers.
    pub triggers: u32,
    /// The version of igloo's way to unpack.
    pub unpack: u32,
}

/// What was read of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedSource {
    /// Its suites.
    pub suites: Vec<LockedSuite>,
    /// Its flakes, by how they are asked for.
    pub flakes: Vec<LockedFlake>,
}

/// A flake, or another pin of Nix expressions, as it was when it was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedFlake {
    /// As asked for, `github:NixOS/nixpkgs/nixos-25.11`.
    pub asked: String,
    /// Where exactly that led, a reference with revision or hash.
    pub locked: String,
    /// Revision, if it has one.
    pub revision: String,
    /// Hash of its files, `sha256-…`, if that is known.
    pub nar_hash: String,
    /// Digest of the project's own files that the evaluation depends on: overlays, pins.
    pub files: Option<Sha256>,
    /// Binary caches that Nix was configured with.
    pub caches: Vec<String>,
    /// Public keys that Nix trusted.
    pub keys: Vec<String>,
}

/// An output of one of Nix's packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedOutput {
    /// The source it is from.
    pub source: String,
    /// The attribute path or flake output asked for, `python312Packages.pip`.
    pub name: String,
    /// The system.
    pub system: System,
    /// The package's version, empty if it has none.
    pub version: String,
    /// Which output, `bin`.
    pub output: String,
    /// Lower wins where two have the same file.
    pub priority: i64,
    /// Its store path.
    pub path: StorePath,
    /// What builds it.
    pub deriver: StorePath,
}

/// A path of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPath {
    /// The path.
    pub path: StorePath,
    /// Digest of its archive.
    pub nar_hash: Sha256,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Paths that it names, itself included if it does.
    pub references: Vec<StorePath>,
    /// How it follows from its content, if it does.
    pub content_address: Option<String>,
    /// Signatures, `name:base64`.
    pub signatures: Vec<String>,
}

/// A suite as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedSuite {
    /// As asked for, `bookworm-security`.
    pub name: String,
    /// The codename its release file says.
    pub codename: String,
    /// The date its release file says, RFC 3339.
    pub date: String,
    /// Digest of the release file.
    pub release: Sha256,
    /// Fingerprints of the keys that signed it, hexadecimal.
    pub signers: Vec<String>,
    /// The components read.
    pub components: Vec<String>,
}

/// A package, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// The source it is from.
    pub source: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// The system it was chosen for; a package for all architectures is listed once for each system.
    pub system: System,
    /// The suite it was found in.
    pub suite: String,
    /// Its path in the archive.
    pub file: String,
    /// Size of the file.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Sha256,
    /// Size when unpacked, in KiB.
    pub installed_size: u64,
    /// Whether the archive calls it essential.
    pub essential: bool,
    /// Its `Multi-Arch`.
    pub multi_arch: MultiArch,
    /// `Pre-Depends` and `Depends`.
    pub depends: Relations,
    /// `Recommends`.
    pub recommends: Relations,
    /// `Conflicts` and `Breaks`.
    pub conflicts: Relations,
    /// `Replaces`.
    pub replaces: Relations,
    /// `Provides`.
    pub provides: Relations,
    /// Its `Priority`.
    pub priority: Priority,
    /// Its `Section`.
    pub section: String,
    /// The store object made of it, once there is one.
    pub store: Option<StorePath>,
}

/// The packages of one environment on one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedEnvironment {
    /// The environment, `shells.default`.
    pub key: String,
    /// The system.
    pub system: System,
    /// The source.
    pub source: String,
    /// The packages asked for.
    pub roots: Vec<String>,
    /// The packages it has.
    pub packages: Vec<(String, Version)>,
    /// Why each is there: the package that pulled it in, `root` or `base`.
    pub why: BTreeMap<String, String>,
}

/// A user of the environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedUser {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// Comment.
    pub gecos: String,
    /// The package that wants the user.
    pub package: String,
}

/// A group of the environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedGroup {
    /// Name.
    pub name: String,
    /// Number.
    pub gid: u32,
    /// The package that wants the group.
    pub package: String,
    /// Users that are in it beside those whose primary group it is.
    pub members: Vec<String>,
}

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The text is not what igloo writes.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Character, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A newer igloo wrote it.
    #[error("`{}` has format {found}, this igloo knows up to {VERSION}: update igloo, or remove the file and run `igloo lock`", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Something that a lock cannot mean: it was edited by hand, or merged badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The environment and system, `shells.default on x86_64-linux`; `None` when it is about the whole lock.
    pub environment: Option<String>,
    /// What is wrong, lower case, no full stop.
    pub message: String,
}

/// What became of a package of an environment between two locks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The environment, `shells.default`.
    pub environment: String,
    /// The system.
    pub system: System,
    /// The package.
    pub package: String,
    /// Its version before; `None` when it was added.
    pub old: Option<String>,
    /// Its version now; `None` when it was removed.
    pub new: Option<String>,
}

impl Lock {
    /// An empty lock that answers `request`.
    pub fn new(request: Sha256) -> Self {
        Self {
            version: VERSION,
            request,
            sources: BTreeMap::new(),
            packages: Vec::new(),
            outputs: Vec::new(),
            images: BTreeMap::new(),
            paths: Vec::new(),
            environments: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            scripts: BTreeMap::new(),
            triggers: 0,
            unpack: 0,
        }
    }

    /// Reads a lock, strictly; the result is sorted.
    ///
    /// # Errors
    /// When the text is not what igloo writes, or a newer igloo wrote it.
    pub fn parse(text: &str, path: &Path) -> Result<Lock, LockError> {
        decode::parse(text, path)
    }

    /// The text of the file: sorted, the same bytes for the same content.
    pub fn render(&self) -> String {
        render::render(self)
    }

    /// Puts everything in the order in which it is written.
    pub fn sort(&mut self) {
        for source in self.sources.values_mut() {
            source.suites.sort_by(|a, b| a.name.cmp(&b.name));
            source.flakes.sort_by(|a, b| a.asked.cmp(&b.asked));
        }
        self.packages.sort_by(|a, b| package_order(a).cmp(&package_order(b)));
        self.outputs.sort_by(|a, b| output_order(a).cmp(&output_order(b)));
        self.outputs.dedup();
        self.paths.sort_by(|a, b| a.path.cmp(&b.path));
        self.paths.dedup_by(|a, b| a.path == b.path);
        for path in &mut self.paths {
            path.references.sort();
            path.signatures.sort();
        }
        self.environments.sort_by(|a, b| environment_order(a).cmp(&environment_order(b)));
        for environment in &mut self.environments {
            environment.roots.sort();
            environment.packages.sort_by(|a, b| member_order(a).cmp(&member_order(b)));
        }
        self.users.sort_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
        self.groups.sort_by(|a, b| (a.gid, &a.name).cmp(&(b.gid, &b.name)));
    }

    fn is_sorted(&self) -> bool {
        self.sources.values().all(|s| s.suites.is_sorted_by_key(|s| &s.name))
            && self.sources.values().all(|s| s.flakes.is_sorted_by_key(|f| &f.asked))
            && self.packages.is_sorted_by_key(package_order)
            && self.outputs.is_sorted_by_key(output_order)
            && self.paths.is_sorted_by_key(|p| &p.path)
            && self.paths.iter().all(|p| p.references.is_sorted() && p.signatures.is_sorted())
            && self.environments.is_sorted_by_key(environment_order)
            && self.environments.iter().all(|e| e.roots.is_sorted() && e.packages.is_sorted_by_key(member_order))
            && self.users.is_sorted_by_key(|u| (u.uid, &u.name))
            && self.groups.is_sorted_by_key(|g| (g.gid, &g.name))
    }

    /// Checks that the lock holds together: every clause of every environment.
    ///
    /// # Errors
    /// Everything that cannot be; igloo itself writes no such lock.
    pub fn verify(&self) -> Result<(), Vec<Problem>> {
        verify::verify(self)
    }

    /// What changed from `old` to `new`, by environment, system and package.
    pub fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
        diff::diff(old, new)
    }

    /// The package of a source that was chosen for a system, if it is in the lock.
    pub fn package(&self, source: &str, system: System, name: &str, version: &Version) -> Option<&LockedPackage> {
        self.packages
            .iter()
            .find(|p| p.name == name && p.system == system && p.source == source && p.version == *version)
    }

    /// An environment as it was chosen for a system, one for each source.
    pub fn environment(&self, key: &str, system: System) -> impl Iterator<Item = &LockedEnvironment> {
        self.environments.iter().filter(move |e| e.key == key && e.system == system)
    }

    /// What Nix's packages of an environment came to.
    pub fn outputs_of(&self, environment: &LockedEnvironment) -> impl Iterator<Item = &LockedOutput> {
        let (source, system, roots) = (&environment.source, environment.system, &environment.roots);
        self.outputs.iter().filter(move |o| o.source == *source && o.system == system && roots.contains(&o.name))
    }

    /// The packages of an environment, in its order; those that the lock lacks are left out, [`Lock::verify`] tells.
    pub fn members(&self, environment: &LockedEnvironment) -> Vec<&LockedPackage> {
        let of_source =
            self.packages.iter().filter(|p| p.source == environment.source && p.system == environment.system);
        let by_name: HashMap<(&str, &str), &LockedPackage> =
            of_source.map(|p| ((p.name.as_str(), p.version.as_str()), p)).collect();
        let member = |(name, version): &(String, Version)| by_name.get(&(name.as_str(), version.as_str())).copied();
        environment.packages.iter().filter_map(member).collect()
    }
}

/// The order of packages in the file. Versions by their text: it decides only about order, and is never equal.
fn package_order(package: &LockedPackage) -> (&str, &str, System, &str) {
    (&package.source, &package.name, package.system, package.version.as_str())
}

fn output_order(output: &LockedOutput) -> (&str, &str, System, &str) {
    (&output.source, &output.name, output.system, &output.output)
}

fn environment_order(environment: &LockedEnvironment) -> (&str, System, &str) {
    (&environment.key, environment.system, &environment.source)
}

fn member_order(member: &(String, Version)) -> (&str, &str) {
    (&member.0, member.1.as_str())
}
