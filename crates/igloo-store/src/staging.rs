//! Where objects are made: a directory of this process, on the store's file system but outside `nix/store`, where
//! Nix's collector would remove what it does not know. The directory is locked while its maker lives; what the dead
//! left is removed by the next process that makes something.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use igloo_base::file::remove_tree;
use igloo_base::{At, PathError};
use rustix::fs::IFlags;

use crate::locks::try_lock;

/// The staging directory of one open store.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    /// Holds the lock.
    file: File,
    next: AtomicU64,
}

impl Staging {
    /// Removes what dead processes left in `parent`, and makes a directory there.
    pub(crate) fn create(parent: &Path) -> Result<Self, PathError> {
        remove_stale(parent)?;
        let pid = std::process::id();
        for n in 0u64.. {
            let dir = parent.join(format!("{pid}-{n}"));
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.at("create the directory", &dir)?,
            }
            // Before it is locked, somebody else may take it for stale: then it is gone, and we try again.
            let file = match File::open(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("open", &dir)?,
            };
            if try_lock(&file).at("lock", &dir)? && file.metadata().at("inspect", &dir)?.nlink() > 0 {
                spread(&file);
                return Ok(Self { dir, file, next: AtomicU64::new(0) });
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create a directory below", parent)
    }

    /// A fresh empty directory, which will become an object or be removed.
    pub(crate) fn make(self: &Arc<Self>) -> Result<StagedTree, PathError> {
        let path = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path).at("create the directory", &path)?;
        Ok(StagedTree { path, _staging: Arc::clone(self) })
    }

    /// The open directory, for calls that concern the whole file system.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // If it fails, the next process that makes something succeeds.
        let _ = remove_tree(&self.dir);
    }
}

/// Tells ext4 that the directories to be made here have nothing to do with each other, so that it places each in a
/// group of inodes of its own choice. Else all objects crowd into one group: threads wait for each other, and after
/// many deletions each new file costs a search among inodes that were freed in the last minutes, which it avoids.
/// Other file systems have no such flag, and nothing depends on it.
fn spread(dir: &File) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(dir) {
        let _ = rustix::fs::ioctl_setflags(dir, flags | IFlags::TOPDIR);
    }
}

/// A tree that is being made. It is removed when dropped, unless it was moved away.
#[derive(Debug)]
pub(crate) struct StagedTree {
    path: PathBuf,
    _staging: Arc<Staging>,
}

impl StagedTree {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StagedTree {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

fn remove_stale(parent: &Path) -> Result<(), PathError> {
    let entries = match fs::read_dir(parent) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.at("list", parent)?,
    };
    for entry in entries {
        let path = entry.at("list", parent)?.path();
        let Ok(file) = File::open(&path) else { continue };
        if try_lock(&file).at("lock", &path)? {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_removed_and_the_living_are_spared() {
        let dir = tempfile::tempdir().expect("tempdir");
        let stale = dir.path().join("1-0");
        fs::create_dir_all(stale.join("0/data")).expect("mkdir");
        let first = Arc::new(Staging::create(dir.path()).expect("create"));
        assert!(!stale.exists());
        let tree = first.make().expect("make");
        let second = Arc::new(Staging::create(dir.path()).expect("create"));
        assert!(tree.path().exists());
        let path = tree.path().to_owned();
        drop(tree);
        assert!(!path.exists());
        drop((first, second));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }
}
