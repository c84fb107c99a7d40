//! The store: a real Nix store below a root of our own, and the only writer of it.
//!
//! Takes packages and trees, gives store paths. Layout, archives, database, locks and roots are Nix's, so that
//! `nix --store local?root=ROOT` verifies, copies and collects what is written here. Never resolves, never talks to a
//! network, never knows what an environment is.
//!
//! | path below the root | what |
//! |---|---|
//! | `nix/store/<32>-<name>` | the objects, read-only |
//! | `nix/store/<32>-<name>.lock` | held by who writes the object |
//! | `nix/var/nix/db/db.sqlite` | which of them are valid, and what they refer to (schema 10) |
//! | `nix/var/nix/{gcroots,profiles,temproots}` | what must stay |
//! | `nix/var/nix/gcroots/igloo/<project>/<key>` | our own roots |
//! | `nix/var/nix/gc.lock`, `nix/var/nix/db/big-lock` | locks that Nix and we share |
//! | `nix/var/igloo/staging/<pid>-<n>/` | objects in the making; locked while their maker lives |
//! | `nix/var/igloo/debs/<unpack version>/<sha256>` | a link that names the object of an archive |
//!
//! An object is valid when the database says so, and it says so only when all of the object is on disk. Everything
//! else that a killed process leaves is garbage, which the next process or collection removes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use igloo_base::file::{FileLock, create_dirs};
use igloo_base::{At, PathError};
use igloo_formats::nix::StorePath;

mod db;
mod debs;
mod error;
mod gc;
mod import;
mod inspect;
mod layout;
mod locks;
mod nar;
mod persist;
mod processes;
mod roots;
mod stage;
mod staging;
mod tree;
mod unpack;
mod usage;

pub use db::{PathInfo, SCHEMA, database_of};
pub use error::StoreError;
pub use gc::GcReport;
pub use import::Importer;
pub use inspect::{Listed, ListedKind, VerifyReport};
pub use layout::UNPACK;
pub use roots::{Holder, Root};
pub use stage::Staged;
pub use unpack::{DebId, DebSource};

use db::Db;
use layout::Layout;
use locks::TempRoots;
use staging::Staging;

/// An open store. Clones share everything; all of it may be used from several threads.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    read_only: bool,
    // Both are opened when first needed: a shell that only asks for paths needs neither.
    db: Mutex<Option<Arc<Db>>>,
    staging: Mutex<Option<Arc<Staging>>>,
    temp_roots: TempRoots,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.inner.layout.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store below `root`, and makes it if there is none.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let store = Self::new(root, false)?;
        let layout = store.layout();
        // The last one that is made.
        if !layout.debs().is_dir() {
            for dir in layout.directories() {
                create_dirs(dir)?;
            }
        }
        Ok(store)
    }

    /// Opens a store, perhaps of somebody else, to read only.
    pub fn open_readonly(root: &Path) -> Result<Store, StoreError> {
        let store = Self::new(root, true)?;
        if !store.layout().store.is_dir() {
            return Err(StoreError::NoStore(root.to_owned()));
        }
        Ok(store)
    }

    fn new(root: &Path, read_only: bool) -> Result<Store, StoreError> {
        // Absolute, so that a change of the working directory does no harm.
        let root = std::path::absolute(root).at("find", root)?;
        let layout = Layout::new(&root);
        let temp_roots = TempRoots::new(layout.temp_roots());
        let (db, staging) = (Mutex::new(None), Mutex::new(None));
        Ok(Store { inner: Arc::new(Inner { layout, read_only, db, staging, temp_roots }) })
    }

    /// The directory below which `nix/store` lies.
    pub fn root(&self) -> &Path {
        &self.layout().root
    }

    /// Where an object lies on disk.
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.layout().object(path)
    }

    /// True if something is at the object's place: one system call, no database. Enough for what a root of ours
    /// holds, since only what was registered gets a root.
    pub fn exists(&self, path: &StorePath) -> bool {
        self.physical(path).symlink_metadata().is_ok()
    }

    /// True if the object is valid.
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, StoreError> {
        Ok(!self.valid_subset(std::slice::from_ref(path))?.is_empty())
    }

    /// Those of `paths` that are valid.
    pub fn valid_subset(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, StoreError> {
        self.db()?.valid_subset(paths)
    }

    /// What the database knows of an object; `None` if it is not valid.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        self.db()?.path_info(path)
    }

    /// All valid objects, by path.
    pub fn list(&self) -> Result<Vec<PathInfo>, StoreError> {
        self.db()?.list()
    }

    /// `paths` and all they need, directly or not, by path.
    pub fn closure(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, StoreError> {
        self.db()?.closure(paths)
    }

    /// Objects that name this one.
    pub fn referrers(&self, path: &StorePath) -> Result<Vec<StorePath>, StoreError> {
        self.db()?.referrers(path)
    }

    /// Keeps objects from being collected for as long as this process lives, whether they are there yet or not.
    pub fn protect(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        let _no_collection = self.gc_shared()?;
        Ok(self.temp_roots().add(paths.iter())?)
    }

    fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn temp_roots(&self) -> &TempRoots {
        &self.inner.temp_roots
    }

    fn writable(&self) -> Result<(), StoreError> {
        if self.inner.read_only { Err(StoreError::ReadOnly(self.layout().root.clone())) } else { Ok(()) }
    }

    /// No collection begins while this is held.
    fn gc_shared(&self) -> Result<FileLock, StoreError> {
        self.writable()?;
        Ok(FileLock::shared(self.layout().gc_lock())?)
    }

    fn db(&self) -> Result<Arc<Db>, StoreError> {
        let mut db = self.inner.db.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(db) = &*db {
            return Ok(Arc::clone(db));
        }
        let layout = self.layout();
        let opened = Arc::new(if self.inner.read_only { Db::open_readonly(layout)? } else { Db::open(layout)? });
        *db = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn writer(&self) -> Result<Arc<Staging>, StoreError> {
        self.writable()?;
        let mut staging = self.inner.staging.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(staging) = &*staging {
            return Ok(Arc::clone(staging));
        }
        db::reserve_space(self.layout());
        let made = Arc::new(Staging::create(&self.layout().staging())?);
        *staging = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// What `threads` means: 0 is one a core.
fn threads(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}

/// Paths in a directory; none if it is not there.
fn list_dir(dir: &Path) -> Result<Vec<PathBuf>, PathError> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.at("list", dir)?.map(|entry| Ok(entry.at("list", dir)?.path())).collect(),
    }
}
