//! Objects in the making, and the step that makes them part of the store.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use igloo_base::file::remove_tree;
use igloo_base::{At, Sha256};
use igloo_formats::nix::StorePath;
use igloo_formats::nix::store_path::check_name;

use crate::Store;
use crate::db::PathInfo;
use crate::error::StoreError;
use crate::locks::PathLock;
use crate::staging::StagedTree;
use crate::tree;
use crate::unpack::{DebSource, content_path, unpack};

/// So often the disk is told to write early.
const PERIOD: Duration = Duration::from_millis(200);

/// An object that is complete but not yet in the store. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    info: PathInfo,
    /// The archive it was made of.
    deb: Option<Sha256>,
    tree: StagedTree,
    /// The object's name in `tree`; nothing if it is the tree itself.
    below: &'static str,
}

impl Staged {
    /// An object that lies in a directory of its own, since it may be no directory.
    pub(crate) fn inside(info: PathInfo, tree: StagedTree, below: &'static str) -> Self {
        Self { info, deb: None, tree, below }
    }

    /// Where it will be.
    pub fn path(&self) -> &StorePath {
        &self.info.path
    }

    /// What will be registered of it.
    pub fn info(&self) -> &PathInfo {
        &self.info
    }

    /// Where it is now.
    pub fn physical(&self) -> PathBuf {
        if self.below.is_empty() { self.tree.path().to_owned() } else { self.tree.path().join(self.below) }
    }
}

impl Store {
    /// Makes an object from what `fill` writes into the empty directory that it is given.
    pub fn stage<E: From<StoreError>>(
        &self,
        name: &str,
        references: &[StorePath],
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Staged, E> {
        check_name(name).map_err(StoreError::BadName)?;
        let tree = self.writer()?.make().map_err(StoreError::from)?;
        fill(tree.path())?;
        let (nar_hash, nar_size) = tree::hash_and_seal(tree.path()).map_err(StoreError::from)?;
        let mut references = references.to_vec();
        references.sort();
        references.dedup();
        Ok(staged(name, nar_hash, nar_size, references, None, tree)?)
    }

    /// Unpacks a .deb in one pass, and checks that it is what `deb` says.
    pub fn stage_deb(&self, deb: &DebSource) -> Result<Staged, StoreError> {
        let tree = self.writer()?.make()?;
        let unpacked = unpack(deb, tree.path())?;
        staged(&unpacked.name, unpacked.nar_hash, unpacked.nar_size, Vec::new(), Some(deb.sha256), tree)
    }

    /// Puts objects into the store and registers them together, each after those it refers to. One that is already
    /// valid is reused. All of it is on disk when it is registered, and protected while this process lives.
    pub fn commit(&self, staged: Vec<Staged>) -> Result<Vec<PathInfo>, StoreError> {
        if staged.is_empty() {
            return Ok(Vec::new());
        }
        let layout = self.layout();
        let _no_collection = self.gc_shared()?;
        self.temp_roots().add(staged.iter().map(Staged::path))?;

        // Two archives may be one and the same object.
        let mut by_path: BTreeMap<StorePath, &Staged> = BTreeMap::new();
        for one in &staged {
            by_path.entry(one.info.path.clone()).or_insert(one);
        }
        let paths: Vec<StorePath> = by_path.keys().cloned().collect();
        let valid = self.valid_subset(&paths)?;
        let mut locks = Vec::new();
        for path in paths.iter().filter(|p| !valid.contains(*p)) {
            locks.push(PathLock::take(&layout.object(path))?);
        }
        // Whoever had a lock before us may have been adding the same.
        let valid = self.valid_subset(&paths)?;
        let new: Vec<&Staged> = by_path.values().filter(|s| !valid.contains(&s.info.path)).copied().collect();
        for one in &new {
            self.put(one)?;
        }
        if !new.is_empty() {
            self.sync()?;
            let infos: Vec<&PathInfo> = new.iter().map(|s| &s.info).collect();
            self.db()?.register(&infos)?;
        }
        drop(locks);
        for one in &staged {
            if let Some(deb) = &one.deb {
                self.remember_deb(deb, &one.info.path)?;
            }
        }
        Ok(staged.iter().map(|s| s.info.clone()).collect())
    }

    /// Has the disk write while others stage, until all senders of `ended` are gone: so that little is left to wait for when
    /// it all is registered.
    pub fn write_out(&self, ended: &Receiver<()>) {
        while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
            // What fails here fails again when it matters.
            let _ = self.sync();
        }
    }

    /// Waits until the disk has everything that was written.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let staging = self.writer()?;
        Ok(rustix::fs::syncfs(staging.file().as_fd()).at("write to the disk", &self.layout().store)?)
    }

    /// Moves an object to its place. Until it is registered, it is garbage there.
    fn put(&self, staged: &Staged) -> Result<(), StoreError> {
        let to = self.layout().object(&staged.info.path);
        let from = staged.physical();
        match fs::rename(&from, &to) {
            Err(_) if to.symlink_metadata().is_ok() => {
                // Somebody died between this step and the next.
                remove_tree(&to)?;
                fs::rename(&from, &to).at("move an object to", &to)?;
            }
            other => other.at("move an object to", &to)?,
        }
        // Only now, since a directory has to be writable to get another parent.
        if !to.symlink_metadata().at("inspect", &to)?.is_dir() {
            return Ok(());
        }
        let dir = fs::File::open(&to).at("open", &to)?;
        Ok(tree::seal_dir(dir.as_fd()).at("seal the directory", &to)?)
    }
}

fn staged(
    name: &str,
    nar_hash: Sha256,
    nar_size: u64,
    references: Vec<StorePath>,
    deb: Option<Sha256>,
    tree: StagedTree,
) -> Result<Staged, StoreError> {
    let (path, content_address) = content_path(name, nar_hash, &references)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_secs() as i64);
    let info = PathInfo {
        path,
        nar_hash,
        nar_size,
        references,
        registered: now,
        deriver: None,
        ultimate: false,
        signatures: Vec::new(),
        content_address: Some(content_address),
    };
    Ok(Staged { info, deb, tree, below: "" })
}
