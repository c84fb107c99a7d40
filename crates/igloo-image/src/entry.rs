//! What a layer holds, before it is a tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use igloo_base::At as _;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::ImageError;

/// One path of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the root, without leading or trailing slash, never climbing.
    pub path: String,
    /// What is there.
    pub kind: EntryKind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Source),
    /// A symlink to this text.
    Link(String),
    /// A second name of a file of the same layer.
    Hard {
        /// The file's first name.
        target: String,
        /// Its content, for when the first name becomes something else.
        source: Source,
    },
}

/// Where a file's content is.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a tree on disk.
    Tree {
        /// The tree.
        tree: Arc<Tree>,
        /// Path below it.
        path: String,
        /// Bytes; other content than that is damage.
        size: u64,
    },
}

impl Source {
    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Tree { size, .. } => *size,
        }
    }

    fn same_tree(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Tree { tree: a, .. }, Source::Tree { tree: b, .. }) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// A directory of which files are read without following any symlink.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    dir: OwnedFd,
}

impl Tree {
    /// Opens the directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Tree>, ImageError> {
        let path = path.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).at("open", &path)?;
        Ok(Arc::new(Tree { path, dir }))
    }

    /// Opens a file below it.
    pub(crate) fn file(&self, path: &str) -> Result<File, ImageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve);
        Ok(File::from(fd.at("read", self.path.join(path))?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Entry {
    /// A directory of root's with mode 0755.
    pub fn dir(path: impl Into<String>) -> Entry {
        Entry { path: path.into(), kind: EntryKind::Dir, mode: 0o755, uid: 0, gid: 0, xattrs: Vec::new() }
    }

    /// A file of root's with mode 0644.
    pub fn bytes(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Entry {
        let kind = EntryKind::File(Source::Bytes(content.into().into()));
        Entry { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, xattrs: Vec::new() }
    }

    /// A symlink.
    pub fn link(path: impl Into<String>, target: impl Into<String>) -> Entry {
        let kind = EntryKind::Link(target.into());
        Entry { path: path.into(), kind, mode: 0o777, uid: 0, gid: 0, xattrs: Vec::new() }
    }

    /// The same with another mode and owner.
    pub fn with(self, mode: u32, uid: u32, gid: u32) -> Entry {
        Entry { mode, uid, gid, ..self }
    }

    fn is_dir(&self) -> bool {
        matches!(self.kind, EntryKind::Dir)
    }

    fn is_plain_dir(&self) -> bool {
        self.is_dir() && self.mode == 0o755 && self.uid == 0 && self.gid == 0
    }
}

/// Everything below a directory of the store, directories before what is in them, all of it root's: 0755, files that
/// nobody may execute 0644.
pub(crate) fn below(root: &Path) -> Result<Vec<Entry>, ImageError> {
    let tree = Tree::open(root)?;
    let (mut entries, mut todo) = (Vec::new(), vec![String::new()]);
    while let Some(dir) = todo.pop() {
        let at = root.join(&dir);
        for child in std::fs::read_dir(&at).at("list", &at)? {
            let child = child.at("list", &at)?;
            // The store takes names that are no text; tar would, too, but readers of layers don't agree on them.
            let not_text = || ImageError::NotText { path: child.path() };
            let name = child.file_name().into_string().map_err(|_| not_text())?;
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let meta = child.metadata().at("read", child.path())?;
            entries.push(if meta.is_dir() {
                todo.push(path.clone());
                Entry::dir(path)
            } else if meta.is_symlink() {
                let target = std::fs::read_link(child.path()).at("read", child.path())?;
                Entry::link(path, target.to_str().ok_or_else(not_text)?)
            } else {
                let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                let source = Source::Tree { tree: Arc::clone(&tree), path: path.clone(), size: meta.len() };
                Entry { path, kind: EntryKind::File(source), mode, uid: 0, gid: 0, xattrs: Vec::new() }
            });
        }
    }
    Ok(entries)
}

/// The entries of a layer by path, each once, with every directory above it.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<String, Entry>);

impl Entries {
    /// Puts an entry in. Of two directories the one with special attributes stays, or else the first; of anything
    /// else the last.
    pub fn put(&mut self, entry: Entry) {
        match self.0.get_mut(&entry.path) {
            Some(old) if old.is_dir() && entry.is_dir() => {
                if old.is_plain_dir() {
                    *old = entry;
                }
            }
            Some(old) => *old = entry,
            None => {
                self.parents(&entry.path);
                self.0.insert(entry.path.clone(), entry);
            }
        }
    }

    /// Puts an entry in, in place of whatever is there.
    pub fn replace(&mut self, entry: Entry) {
        self.parents(&entry.path);
        self.0.insert(entry.path.clone(), entry);
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            if !self.0.contains_key(&path[..at]) {
                self.0.insert(path[..at].to_owned(), Entry::dir(&path[..at]));
            }
        }
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Takes an entry out; directories above it stay.
    pub fn remove(&mut self, path: &str) -> Option<Entry> {
        self.0.remove(path)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of their bytes, so that a directory comes before what is in it. A second name whose first name
    /// went to another package becomes a file of its own.
    pub fn into_sorted(mut self) -> Vec<Entry> {
        let of_another = |entry: &Entry| match &entry.kind {
            EntryKind::Hard { target, source } => match self.0.get(target).map(|e| &e.kind) {
                Some(EntryKind::File(first)) if first.same_tree(source) => None,
                _ => Some((entry.path.clone(), source.clone())),
            },
            _ => None,
        };
        let lone: Vec<(String, Source)> = self.0.values().filter_map(of_another).collect();
        for (path, source) in lone {
            if let Some(entry) = self.0.get_mut(&path) {
                entry.kind = EntryKind::File(source);
            }
        }
        self.0.into_values().collect()
    }
}
