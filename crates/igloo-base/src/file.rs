//! Files: errors that name the path, writes that survive a kill, locks that die with their holder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};

/// An act on a path that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} `{}`", path.display())]
pub struct PathError {
    /// What was tried, as a verb: `open`, `create the directory`.
    pub act: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl PathError {
    /// True if the path was not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Adds act and path to an I/O result.
pub trait At<T> {
    /// `File::open(p).at("open", p)?`
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|e| PathError { act, path: path.as_ref().to_owned(), source: e.into() })
    }
}

/// Whole content of a file, or `None` if it is not there.
pub fn read_optional(path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, PathError> {
    match fs::read(path.as_ref()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Creates a directory and its parents; an existing one is fine.
pub fn create_dirs(path: impl AsRef<Path>) -> Result<(), PathError> {
    fs::create_dir_all(path.as_ref()).at("create the directory", path)
}

/// Creates a directory that only its owner can enter (0700); parents as they come.
pub fn create_private_dir(path: impl AsRef<Path>) -> Result<(), PathError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.at("create the directory", path),
    }
}

/// Replaces `path` by a file with this content and mode 0644, so that a reader and a crash see either
/// the old or the new one, whole: temporary file in the same directory, fsync, rename, fsync of the directory.
pub fn write_atomic(path: impl AsRef<Path>, content: &[u8]) -> Result<(), PathError> {
    use std::os::unix::fs::PermissionsExt;
    let path = path.as_ref();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new()
        .prefix(".igloo-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .at("write", path)?;
    temp.write_all(content).at("write", path)?;
    temp.as_file().sync_all().at("write", path)?;
    temp.persist(path).map_err(|e| e.error).at("replace", path)?;
    File::open(parent).and_then(|d| d.sync_all()).at("sync the directory", parent)
}

/// Removes whatever is at `path`, depth first, relative to directory descriptors, following no symlink,
/// and making read-only directories writable on the way. Nothing there is fine.
pub fn remove_tree(path: impl AsRef<Path>) -> Result<(), PathError> {
    let path = path.as_ref();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("remove", path);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(dir) => remove_at(dir, name).at("remove", path),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e).at("remove", path),
    }
}

fn remove_at(parent: OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    use std::os::unix::ffi::OsStrExt;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(e) => return Err(e),
    }
    // An explicit stack, since a hostile tree may be deeper than ours; one descriptor a level, and what lies
    // below `DEPTH` levels is first moved to the top, since descriptors are scarce.
    const DEPTH: usize = 200;
    let mut stack = vec![(Rc::new(parent), name.as_bytes().to_vec(), 0usize)];
    let mut top: Option<Rc<OwnedFd>> = None;
    let mut moved = 0u32;
    while let Some((at, name, depth)) = stack.last() {
        let (at, depth) = (Rc::clone(at), *depth);
        let name = std::ffi::OsStr::from_bytes(name);
        let mut gone = rustix::fs::unlinkat(&*at, name, AtFlags::REMOVEDIR);
        if gone == Err(Errno::ACCESS) {
            make_writable(&*at)?;
            gone = rustix::fs::unlinkat(&*at, name, AtFlags::REMOVEDIR);
        }
        match gone {
            Ok(()) | Err(Errno::NOENT) => {
                stack.pop();
                continue;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        let dir = Rc::new(open_to_empty(&at, name)?);
        let top = Rc::clone(top.get_or_insert_with(|| Rc::clone(&dir)));
        for entry in rustix::fs::Dir::read_from(&*dir)? {
            let entry = entry?;
            let child = entry.file_name();
            if matches!(child.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut gone = match entry.file_type() {
                FileType::Directory => Err(Errno::ISDIR),
                _ => rustix::fs::unlinkat(&*dir, child, AtFlags::empty()),
            };
            if gone == Err(Errno::ACCESS) {
                make_writable(&*dir)?;
                gone = rustix::fs::unlinkat(&*dir, child, AtFlags::empty());
            }
            match gone {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) if depth >= DEPTH => {
                    moved += 1;
                    make_writable(&*dir)?;
                    rustix::fs::renameat(&*dir, child, &*top, format!(".igloo-removed-{moved}"))?;
                }
                Err(Errno::ISDIR) => stack.push((Rc::clone(&dir), child.to_bytes().to_vec(), depth + 1)),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn open_to_empty(at: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty()).or_else(|e| match e {
        rustix::io::Errno::ACCESS => {
            let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            make_writable(&rustix::fs::openat(at, name, path, Mode::empty())?)?;
            rustix::fs::openat(at, name, flags, Mode::empty())
        }
        e => Err(e),
    })
}

/// `chmod u+rwx` of a directory held by descriptor, `O_PATH` included.
fn make_writable(dir: impl AsFd) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    rustix::fs::chmod(path, Mode::RWXU)
}

/// An advisory lock on a file, `flock(2)`; the kernel releases it when the holder dies.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits until nobody else holds the lock at all.
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self, PathError> {
        Self::take(path.as_ref(), FlockOperation::LockExclusive).at("lock", path)
    }

    /// Waits until nobody else holds the lock exclusively.
    pub fn shared(path: impl AsRef<Path>) -> Result<Self, PathError> {
        Self::take(path.as_ref(), FlockOperation::LockShared).at("lock", path)
    }

    /// Takes the lock if that is possible at once.
    pub fn try_exclusive(path: impl AsRef<Path>) -> Result<Option<Self>, PathError> {
        match Self::take(path.as_ref(), FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e).at("lock", path),
        }
    }

    fn take(path: &Path, how: FlockOperation) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        loop {
            match rustix::fs::flock(&file, how) {
                Ok(()) => return Ok(Self { file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The locked file, for holders that keep data in it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn remove_tree_removes_read_only_trees_and_spares_link_targets() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tree = dir.path().join("tree");
        let outside = dir.path().join("outside");
        fs::create_dir_all(tree.join("a/b/c")).expect("mkdir");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("kept"), b"x").expect("write");
        symlink(&outside, tree.join("a/link")).expect("symlink");
        fs::write(tree.join("a/b/file"), b"x").expect("write");
        for d in ["a/b/c", "a/b", "a", ""] {
            fs::set_permissions(tree.join(d), fs::Permissions::from_mode(0o555)).expect("chmod");
        }
        remove_tree(&tree).expect("remove");
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).expect("a second time");
    }

    #[test]
    fn remove_tree_goes_deeper_than_there_are_descriptors() {
        let dir = tempfile::tempdir().expect("tempdir");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(dir.path(), flags, Mode::empty()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("mkdir");
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).expect("open");
        }
        remove_tree(dir.path().join("d")).expect("remove");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn write_atomic_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        write_atomic(&path, b"one").expect("write");
        write_atomic(&path, b"two").expect("write");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_lock_excludes_and_is_released() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("lock");
        let first = FileLock::exclusive(&path).expect("lock");
        assert!(FileLock::try_exclusive(&path).expect("try").is_none());
        drop(first);
        assert!(FileLock::try_exclusive(&path).expect("try").is_some());
    }
}
