//! A directory tree as its inhabitants see it: every path is resolved by the kernel with this directory as `/`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use igloo_base::{At, PathError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::ContainerError;
use crate::spec::{Attr, AttrKind};

/// How often a path is resolved again that was moved about meanwhile.
const ATTEMPTS: usize = 32;

/// The root directory of a container, held open.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens a root directory.
    pub fn open(path: &Path) -> Result<Self, ContainerError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The root itself.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => attempts += 1,
                other => return other,
            }
        }
    }

    fn at<T>(&self, act: &'static str, path: &Path, result: Result<T, Errno>) -> Result<T, PathError> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        result.at(act, self.path.join(relative))
    }

    /// A descriptor (`O_PATH`) of what is at a path, symlinks followed within the root; `None` if nothing is there.
    pub fn find(&self, path: &str) -> Result<Option<OwnedFd>, ContainerError> {
        match self.resolve(Path::new(path), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            other => Ok(Some(self.at("find", Path::new(path), other)?)),
        }
    }

    /// A descriptor of the directory at a path, which is created with its parents if missing.
    pub fn make_dirs(&self, path: &str) -> Result<OwnedFd, ContainerError> {
        let path = Path::new(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if let Ok(fd) = self.resolve(path, flags) {
            return Ok(fd);
        }
        let mut prefix = PathBuf::from("/");
        let mut parent = self.at("open", &prefix, self.resolve(&prefix, flags))?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                if matches!(component, Component::RootDir | Component::CurDir) {
                    continue;
                }
                return Ok(self.at("create the directory", path, Err(Errno::INVAL))?);
            };
            prefix.push(name);
            parent = match self.resolve(&prefix, flags) {
                Err(Errno::NOENT) => {
                    let made = rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755));
                    self.at("create the directory", &prefix, made)?;
                    // The mode asked for, whatever the umask.
                    let dir = self.at("open", &prefix, self.resolve(&prefix, flags))?;
                    change_mode(&dir, &prefix, 0o755)?;
                    dir
                }
                other => self.at("open the directory", &prefix, other)?,
            };
        }
        Ok(parent)
    }

    /// A descriptor (`O_PATH`) of the file at a path, which is created empty if missing.
    pub fn make_file(&self, path: &str) -> Result<OwnedFd, ContainerError> {
        let full = Path::new(path);
        if let Some(fd) = self.find(path)? {
            return Ok(fd);
        }
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at("create", full, rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644)))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(self.at("open", full, rustix::fs::openat(&parent, &name, flags, Mode::empty()))?)
    }

    /// Puts a file at a path, in place of what is there (unless that is a directory).
    pub fn replace_file(&self, path: &str, content: &[u8], mode: u32) -> Result<(), ContainerError> {
        let full = Path::new(path);
        let (parent, name) = self.parent_of(path)?;
        match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => self.at("replace", full, Err(e))?,
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.at("create", full, rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(mode)))?;
        self.at("set the mode of", full, rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)))?;
        Ok(File::from(fd).write_all(content).at("write", self.path.join(path.trim_start_matches('/')))?)
    }

    fn parent_of(&self, path: &str) -> Result<(OwnedFd, String), ContainerError> {
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || matches!(name, "." | "..") {
            self.at("create", Path::new(path), Err(Errno::INVAL))?;
        }
        Ok((self.make_dirs(&format!("/{parent}"))?, name.to_owned()))
    }

    /// Gives a path its owner and mode. `forgiving` passes over owners that do not exist in this user namespace.
    pub fn apply(&self, attr: &Attr, forgiving: bool) -> Result<(), ContainerError> {
        let fd = match (self.find(&attr.path)?, attr.kind) {
            (Some(fd), _) => fd,
            (None, AttrKind::Dir) => self.make_dirs(&attr.path)?,
            (None, AttrKind::File) => return Ok(()),
        };
        let stat = self.at("look at", Path::new(&attr.path), rustix::fs::fstat(&fd))?;
        // What is right already is left alone: a change would copy the file up from its layer.
        if (stat.st_uid, stat.st_gid) != (attr.uid, attr.gid) {
            change_owner(&fd, &attr.path, attr.uid, attr.gid, forgiving)?;
        }
        // A change of owner clears setuid and setgid.
        let stat = self.at("look at", Path::new(&attr.path), rustix::fs::fstat(&fd))?;
        match attr.mode {
            Some(mode) if stat.st_mode & 0o7777 != mode & 0o7777 => change_mode(&fd, Path::new(&attr.path), mode),
            _ => Ok(()),
        }
    }
}

/// chown of a descriptor, `O_PATH` included.
pub(super) fn change_owner(
    fd: &OwnedFd,
    path: impl AsRef<Path>,
    uid: u32,
    gid: u32,
    forgiving: bool,
) -> Result<(), ContainerError> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match rustix::fs::chownat(fd, "", Some(user), Some(group), AtFlags::EMPTY_PATH) {
        Err(Errno::INVAL | Errno::PERM) if forgiving => Ok(()),
        other => Ok(other.at("change the owner of", path)?),
    }
}

/// chmod of a descriptor, `O_PATH` included.
pub(super) fn change_mode(fd: &OwnedFd, path: &Path, mode: u32) -> Result<(), ContainerError> {
    let name = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(rustix::fs::chmod(name, Mode::from_raw_mode(mode & 0o7777)).at("change the mode of", path)?)
}

/// The kind of file that a mode tells of.
pub(super) fn kind(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// An error for a path that should not be what it is.
pub(super) fn invalid(act: &'static str, path: &Path) -> ContainerError {
    PathError { act, path: path.to_owned(), source: io::Error::from(io::ErrorKind::InvalidInput) }.into()
}
