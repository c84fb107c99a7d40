//! What is to be copied, file by file, as the kernel describes it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use igloo_base::file::At;
use igloo_manifest::{Content, Copy};
use serde::{Deserialize, Serialize};

use crate::error::OpsError;

/// Directories that are history, never part of a program.
const LEFT_OUT: [&str; 1] = [".git"];
/// The kernel's clock for files is coarser than its clock for people: by a tick, up to 10 ms.
const TICK: i64 = 20_000_000;
/// File systems without parts of a second: whole seconds, or even ones.
const COARSE: i64 = 2_000_000_000;

/// A file, directory or symlink to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it goes, below `data/`.
    pub(super) to: PathBuf,
    pub(super) kind: Kind,
    /// Of files and symlinks: device, inode, size, mtime and ctime in ns. Of directories nothing: their content is
    /// among the entries.
    stat: [i64; 5],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Directory,
    Symlink,
    /// With this mode.
    File {
        mode: u32,
    },
}

impl Entry {
    fn new(from: PathBuf, to: PathBuf, kind: Kind, meta: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        let stat = match kind {
            Kind::Directory => [0; 5],
            _ => [
                meta.dev().cast_signed(),
                meta.ino().cast_signed(),
                meta.size().cast_signed(),
                ns(meta.mtime(), meta.mtime_nsec()),
                ns(meta.ctime(), meta.ctime_nsec()),
            ],
        };
        Self { from, to, kind, stat }
    }

    /// False if it changed so shortly before the walk that began at `at`, or after it, that a later change might look
    /// the same.
    pub(super) fn is_settled(&self, at: i64) -> bool {
        let [.., mtime, ctime] = self.stat;
        let changed = mtime.max(ctime);
        let coarse = changed % 1_000_000_000 == 0;
        changed < at.saturating_sub(if coarse { COARSE } else { TICK })
    }

    /// Adds what tells it from others.
    pub(super) fn write_to(&self, text: &mut String) {
        // Debug, since that escapes; writing to a String can't fail.
        let _ = writeln!(text, "{:?} {:?} {:?} {:?}", self.from, self.to, self.kind, self.stat);
    }
}

/// Everything that `content` copies, parents before what is in them, by name.
pub(super) fn walk(project: &Path, key: &str, content: &Content) -> Result<Vec<Entry>, OpsError> {
    let mut entries = Vec::new();
    for copy in &content.copy {
        let from = project.join(&copy.from);
        let to = PathBuf::from(copy.to.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&from).at("read", &from)?;
        if let Some(parent) = to.parent().filter(|p| !p.as_os_str().is_empty()) {
            entries.push(Entry::new(from.clone(), parent.to_owned(), Kind::Directory, &meta));
        }
        node(key, copy, from, to, &meta, &mut Vec::new(), &mut entries)?;
    }
    Ok(entries)
}

fn node(
    key: &str,
    copy: &Copy,
    from: PathBuf,
    to: PathBuf,
    meta: &Metadata,
    below: &mut Vec<OsString>,
    entries: &mut Vec<Entry>,
) -> Result<(), OpsError> {
    if meta.is_symlink() {
        entries.push(Entry::new(from, to, Kind::Symlink, meta));
    } else if meta.is_file() {
        let mode = copy.mode.unwrap_or(meta.mode()) & 0o777;
        entries.push(Entry::new(from, to, Kind::File { mode }, meta));
    } else if meta.is_dir() {
        entries.push(Entry::new(from.clone(), to.clone(), Kind::Directory, meta));
        let mut children = Vec::new();
        for child in fs::read_dir(&from).at("list", &from)? {
            let child = child.at("list", &from)?;
            children.push((child.file_name(), child));
        }
        children.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, child) in children {
            below.push(name.clone());
            if !is_left_out(copy, &name, below) {
                let path = from.join(&name);
                let meta = child.metadata().at("read", &path)?;
                node(key, copy, path, to.join(&name), &meta, below, entries)?;
            }
            below.pop();
        }
    } else {
        return Err(OpsError::BadCopy { key: key.to_owned(), path: from });
    }
    Ok(())
}

fn is_left_out(copy: &Copy, name: &OsStr, below: &[OsString]) -> bool {
    if LEFT_OUT.iter().any(|left_out| name == OsStr::new(left_out)) {
        return true;
    }
    if copy.exclude.is_empty() {
        return false;
    }
    let path: Vec<&[u8]> = below.iter().map(|name| name.as_bytes()).collect();
    copy.exclude.iter().any(|glob| glob.matches(&path))
}
