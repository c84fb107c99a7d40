//! Looking at objects: are they what was registered, and what is in them.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use igloo_base::{At, PathError, Reporter, Sha256, Task, Unit};
use igloo_formats::nix::StorePath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::Store;
use crate::db::PathInfo;
use crate::error::StoreError;
use crate::tree::{self, is_executable, open_dir, sorted_entries};

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

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.modified.is_empty() && self.unreadable.is_empty()
    }
}

/// One thing inside an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path below the object; empty for the object itself.
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

enum Finding {
    Missing,
    Modified(Sha256),
    Unreadable(String),
}

impl Store {
    /// Checks that what is registered is there and, with `contents`, unchanged.
    pub fn verify(&self, contents: bool, reporter: &dyn Reporter) -> Result<VerifyReport, StoreError> {
        let infos = self.list()?;
        let task = Task::start(reporter, "verify objects", Some(infos.len() as u64), Unit::Items);
        let next = AtomicUsize::new(0);
        let findings = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..crate::threads(0) {
                scope.spawn(|| {
                    while let Some(info) = infos.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Some(finding) = self.check(info, contents) {
                            findings.lock().unwrap_or_else(|e| e.into_inner()).push((info, finding));
                        }
                        task.advance(1);
                    }
                });
            }
        });
        let mut findings = findings.into_inner().unwrap_or_else(|e| e.into_inner());
        findings.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        let mut report = VerifyReport { checked: infos.len(), ..VerifyReport::default() };
        for (info, finding) in findings {
            // Somebody may have collected it while we looked.
            if !self.is_valid(&info.path)? {
                continue;
            }
            let path = info.path.clone();
            match finding {
                Finding::Missing => report.missing.push(path),
                Finding::Modified(found) => report.modified.push((path, info.nar_hash, found)),
                Finding::Unreadable(why) => report.unreadable.push((path, why)),
            }
        }
        Ok(report)
    }

    fn check(&self, info: &PathInfo, contents: bool) -> Option<Finding> {
        let path = self.physical(&info.path);
        if path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return Some(Finding::Missing);
        }
        if !contents {
            return None;
        }
        match tree::hash(&path) {
            Ok((found, size)) if found == info.nar_hash && size == info.nar_size => None,
            Ok((found, _)) => Some(Finding::Modified(found)),
            Err(e) => Some(Finding::Unreadable(format!("{e}: {}", e.source))),
        }
    }

    /// What is at `below` (empty: everything) inside an object and below it, depth first, by name.
    pub fn ls(&self, path: &StorePath, below: &Path) -> Result<Vec<Listed>, StoreError> {
        let object = self.physical(path);
        let at = object.join(below);
        let run = || -> io::Result<Vec<Listed>> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut parent = rustix::fs::open(&self.layout().store, flags, Mode::empty())?;
            let mut name = CString::new(path.base_name())?;
            for component in below.components() {
                // Links inside an object lead anywhere; only what is in it is listed.
                let Component::Normal(component) = component else {
                    return Err(io::ErrorKind::InvalidInput.into());
                };
                parent = open_dir(parent.as_fd(), &name)?;
                name = CString::new(component.as_bytes())?;
            }
            let mut out = Vec::new();
            list(parent.as_fd(), &name, below.to_owned(), &mut out)?;
            Ok(out)
        };
        let result: Result<_, PathError> = run().at("list", at);
        Ok(result?)
    }
}

fn list(parent: std::os::fd::BorrowedFd<'_>, name: &CString, path: PathBuf, out: &mut Vec<Listed>) -> io::Result<()> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            out.push(Listed { path: path.clone(), kind: ListedKind::Dir });
            let dir = open_dir(parent, name)?;
            for (name, _) in sorted_entries(dir.as_fd())? {
                let child = path.join(OsStr::from_bytes(name.as_bytes()));
                list(dir.as_fd(), &name, child, out)?;
            }
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            out.push(Listed { path, kind: ListedKind::Link(target) });
        }
        _ => {
            let kind = ListedKind::File { size: stat.st_size as u64, executable: is_executable(&stat) };
            out.push(Listed { path, kind });
        }
    }
    Ok(())
}
