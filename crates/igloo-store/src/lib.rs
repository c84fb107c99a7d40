//! The store: a real Nix store below a root of our own, and the only writer of it.
//!
//! Takes packages and trees, gives store paths. Layout, archives, database, locks and roots are Nix's, so that
//! `nix --store local?root=ROOT` verifies, copies and collects what is written here. Never resolves, never talks to a
//! network, never knows what an environment is.
//!
//! | path below the root | what |
//! |---|---|
//! | `nix/store/<32>-<name>` | the objects, read-only |
//! | `nix/var/nix/db/db.sqlite` | which of them are valid, and what they refer to (schema 10) |
//! | `nix/var/nix/{gcroots,profiles,temproots}` | what must stay |
//! | `nix/var/nix/gc.lock`, `nix/var/nix/db/big-lock` | locks that Nix and we share |
//! | `nix/var/igloo/staging/<pid>-<n>/` | objects in the making; locked while their maker lives |
//! | `nix/var/igloo/debs/<sha256>` | a link that names the object of an archive |

#![allow(clippy::todo)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use igloo_base::{PathError, Reporter, Sha256};
use igloo_formats::nix::StorePath;

/// A store that was opened. Clones share everything.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
}

/// What failed in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What the database knows of a valid object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The object.
    pub path: StorePath,
    /// Digest of its archive.
    pub nar_hash: Sha256,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Objects it names, sorted.
    pub references: Vec<StorePath>,
    /// When it was registered, in seconds since 1970.
    pub registered: i64,
    /// The derivation that built it.
    pub deriver: Option<StorePath>,
    /// True if it was built here.
    pub ultimate: bool,
    /// Signatures, `name:base64`.
    pub signatures: Vec<String>,
    /// How its path follows from its content, `fixed:r:sha256:…`.
    pub content_address: Option<String>,
}

/// An object that is complete but not yet in the store. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    path: StorePath,
}

impl Staged {
    /// Where it will be.
    pub fn path(&self) -> &StorePath {
        &self.path
    }
}

/// What a .deb must say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebId {
    /// Name of the package.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
}

/// A .deb on disk and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebSource {
    /// Where it lies.
    pub path: PathBuf,
    /// Its expected digest.
    pub sha256: Sha256,
    /// Its expected size in bytes.
    pub size: u64,
    /// What it must say about itself.
    pub id: DebId,
}

/// Unpacks archives on threads of its own while others are still being downloaded.
#[derive(Debug)]
pub struct Importer {}

impl Importer {
    /// Queues an archive; never blocks, from any thread. What is wrong with it is told by [`Importer::finish`].
    pub fn submit(&self, deb: DebSource) {
        let _ = deb;
        todo!()
    }

    /// Waits for the queue to be empty and registers everything in one step; paths by digest of the archive.
    pub fn finish(self, reporter: &dyn Reporter) -> Result<BTreeMap<Sha256, StorePath>, StoreError> {
        let _ = reporter;
        todo!()
    }
}

/// What keeps an object alive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// The link, or the process, that holds it.
    pub holder: Holder,
    /// The object.
    pub target: StorePath,
}

/// Who holds a [`Root`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// An environment of a project (`gcroots/igloo/<project>/<key>`).
    Project {
        /// The project.
        project: String,
        /// `shells.default`, `services.db`, …
        key: String,
    },
    /// Another link or file below `gcroots` or `profiles`, or what `gcroots/auto` points to.
    Link(PathBuf),
    /// A process that adds objects and has not finished (`temproots/<pid>`).
    Temporary(u32),
    /// A process that runs, or has open, something in the store.
    Process(u32),
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects that were looked at.
    pub checked: usize,
    /// Valid in the database, not on disk.
    pub missing: Vec<StorePath>,
    /// Content differs: path, expected and found digest of the archive.
    pub modified: Vec<(StorePath, Sha256, Sha256)>,
    /// Could not be read: path and why.
    pub unreadable: Vec<(StorePath, String)>,
}

/// What [`Store::collect`] removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Objects nothing reaches, with the bytes each takes on disk.
    pub dead: Vec<(StorePath, u64)>,
    /// Files in the store that were never registered, with their bytes.
    pub orphans: Vec<(String, u64)>,
    /// What stays and one root that reaches it.
    pub kept: Vec<(StorePath, Root)>,
    /// Bytes that were (would be) freed.
    pub freed: u64,
}

/// One thing inside an object, as [`Store::ls`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path below the object.
    pub path: PathBuf,
    /// What it is.
    pub kind: ListedKind,
}

/// What a [`Listed`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// May be run.
        executable: bool,
    },
    /// A directory.
    Dir,
    /// A symlink and its target.
    Link(PathBuf),
}

impl Store {
    /// Opens, and if need be creates, the store below `root`.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Ok(Store { root: root.to_owned() })
    }

    /// Opens a store of somebody else, to read only.
    pub fn open_readonly(root: &Path) -> Result<Store, StoreError> {
        Ok(Store { root: root.to_owned() })
    }

    /// The directory below which `nix/store` lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object lies on disk.
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.root.join("nix/store").join(path.base_name())
    }

    /// True if something is at the object's place: one system call, no database. Enough for what a root of ours holds.
    pub fn exists(&self, path: &StorePath) -> bool {
        self.physical(path).symlink_metadata().is_ok()
    }

    /// True if the object is registered and on disk.
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, StoreError> {
        let _ = path;
        todo!()
    }

    /// Those of `paths` that are registered and on disk.
    pub fn valid_subset(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, StoreError> {
        let _ = paths;
        todo!()
    }

    /// What the database knows of an object.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        let _ = path;
        todo!()
    }

    /// All valid objects, by path.
    pub fn list(&self) -> Result<Vec<PathInfo>, StoreError> {
        todo!()
    }

    /// `paths` and all they need, directly or not, by path.
    pub fn closure(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, StoreError> {
        let _ = paths;
        todo!()
    }

    /// Objects that name this one.
    pub fn referrers(&self, path: &StorePath) -> Result<Vec<StorePath>, StoreError> {
        let _ = path;
        todo!()
    }

    /// What is at `below` (empty: everything) inside an object, depth first.
    pub fn ls(&self, path: &StorePath, below: &Path) -> Result<Vec<Listed>, StoreError> {
        let _ = (path, below);
        todo!()
    }

    /// Makes an object from what `fill` writes into the empty directory it is given.
    pub fn stage<E: From<StoreError>>(
        &self,
        name: &str,
        references: &[StorePath],
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Staged, E> {
        let _ = (name, references, fill);
        todo!()
    }

    /// Unpacks a .deb and checks that it is what `deb` says, in one pass.
    pub fn stage_deb(&self, deb: &DebSource) -> Result<Staged, StoreError> {
        let _ = deb;
        todo!()
    }

    /// Puts objects into the store and registers them together. One that is already valid is reused.
    pub fn commit(&self, staged: Vec<Staged>) -> Result<Vec<PathInfo>, StoreError> {
        let _ = staged;
        todo!()
    }

    /// Adds archives, those not yet known on `threads` threads (0: one a core); paths in the order of `debs`.
    pub fn add_debs(
        &self,
        debs: &[DebSource],
        reporter: &dyn Reporter,
        threads: usize,
    ) -> Result<Vec<StorePath>, StoreError> {
        let _ = (debs, reporter, threads);
        todo!()
    }

    /// Starts threads (0: one a core) that unpack archives as they arrive.
    pub fn importer(&self, threads: usize) -> Importer {
        let _ = threads;
        todo!()
    }

    /// The valid object of an archive with this digest.
    pub fn deb_path(&self, sha256: &Sha256) -> Result<Option<StorePath>, StoreError> {
        let _ = sha256;
        todo!()
    }

    /// [`Store::deb_path`] of many, in one question to the database.
    pub fn deb_paths(&self, digests: &[Sha256]) -> Result<Vec<Option<StorePath>>, StoreError> {
        let _ = digests;
        todo!()
    }

    /// Keeps objects from being collected for as long as this process lives.
    pub fn protect(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        let _ = paths;
        todo!()
    }

    /// Keeps `target` for `key` of `project`, in place of what was kept for it.
    pub fn add_root(&self, project: &str, key: &str, target: &StorePath) -> Result<(), StoreError> {
        let _ = (project, key, target);
        todo!()
    }

    /// What is kept for `key` of `project`; reads one link, no database.
    pub fn root_target(&self, project: &str, key: &str) -> Result<Option<StorePath>, StoreError> {
        let _ = (project, key);
        todo!()
    }

    /// All that is kept for a project, by key.
    pub fn project_roots(&self, project: &str) -> Result<BTreeMap<String, StorePath>, StoreError> {
        let _ = project;
        todo!()
    }

    /// Lets go of what is kept for `key` of `project`.
    pub fn remove_root(&self, project: &str, key: &str) -> Result<(), StoreError> {
        let _ = (project, key);
        todo!()
    }

    /// Lets go of all that is kept for a project.
    pub fn remove_roots(&self, project: &str) -> Result<(), StoreError> {
        let _ = project;
        todo!()
    }

    /// Everything that keeps an object alive, as Nix sees it, and ourselves.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        todo!()
    }

    /// Checks that what is registered is there and, with `contents`, unchanged.
    pub fn verify(&self, contents: bool, reporter: &dyn Reporter) -> Result<VerifyReport, StoreError> {
        let _ = (contents, reporter);
        todo!()
    }

    /// Removes what no root reaches and `keep` does not ask for; with `dry_run`, only tells.
    pub fn collect(
        &self,
        dry_run: bool,
        keep: &dyn Fn(&StorePath) -> bool,
        reporter: &dyn Reporter,
    ) -> Result<GcReport, StoreError> {
        let _ = (dry_run, keep, reporter);
        todo!()
    }
}
