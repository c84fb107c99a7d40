//! Writes a tree from entries in the order of an archive.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use igloo_base::At;
use igloo_formats::deb::archive::ArchiveError;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::Failure;
use crate::tree::TIMES;

/// Everything between a directory and a package's names. All paths are relative, clean, and name their parents
/// before themselves.
pub(crate) struct TreeMaker {
    root: OwnedFd,
    path: PathBuf,
    /// The open directories from the root to where the last entry was, by name.
    open: Vec<(String, OwnedFd)>,
    /// Every directory, to be sealed at the end.
    dirs: Vec<String>,
    /// Modes given at creation do not stick, because of the umask or a default ACL.
    chmod: bool,
}

impl TreeMaker {
    /// Begins a tree in the empty directory `path`.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        let mut maker = Self { root, path: path.to_owned(), open: Vec::new(), dirs: Vec::new(), chmod: false };
        maker.chmod = maker.probe_modes().at("write", path)?;
        Ok(maker)
    }

    /// True if a file does not get the mode that it is created with.
    fn probe_modes(&self) -> rustix::io::Result<bool> {
        let name = ".mode";
        let file = create(self.root.as_fd(), name, true)?;
        let mode = rustix::fs::fstat(&file)?.st_mode & 0o7777;
        rustix::fs::unlinkat(&self.root, name, AtFlags::empty())?;
        Ok(mode != 0o555)
    }

    /// Makes a directory, whose parent exists. A second time is an error of the caller.
    pub(crate) fn dir(&mut self, path: &str) -> Result<(), Failure> {
        let made = self.in_parent(path, |parent, name| rustix::fs::mkdirat(parent, name, Mode::RWXU));
        made.at("create the directory", self.path.join(path))?;
        self.dirs.push(path.to_owned());
        Ok(())
    }

    /// Makes a symlink.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<(), Failure> {
        let made = self.in_parent(path, |parent, name| {
            rustix::fs::symlinkat(target, parent, name)?;
            rustix::fs::utimensat(parent, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)
        });
        Ok(made.at("create the symlink", self.path.join(path))?)
    }

    /// Makes a file from what `next` yields, until that is empty.
    pub(crate) fn file(&mut self, path: &str, executable: bool, source: &mut dyn Source) -> Result<(), Failure> {
        let file = self.in_parent(path, |parent, name| create(parent, name, executable));
        let file = file.at("create", self.path.join(path))?;
        loop {
            let mut chunk = source.next()?;
            if chunk.is_empty() {
                break;
            }
            while !chunk.is_empty() {
                let n = rustix::io::write(&file, chunk).at("write", self.path.join(path))?;
                chunk = &chunk[n..];
            }
        }
        self.seal(&file, executable).at("write", self.path.join(path))?;
        Ok(())
    }

    /// Makes a file from memory.
    pub(crate) fn whole_file(&mut self, path: &str, executable: bool, content: &[u8]) -> Result<(), Failure> {
        self.file(path, executable, &mut Whole(content))
    }

    /// Gives the file `first`, which was made here, a second name.
    pub(crate) fn hard_link(&mut self, path: &str, first: &str) -> Result<(), Failure> {
        // Every component of `first` was made here as a directory, the last as a file.
        let root = self.root.try_clone().at("open", &self.path)?;
        let made =
            self.in_parent(path, |parent, name| rustix::fs::linkat(&root, first, parent, name, AtFlags::empty()));
        Ok(made.at("create the hard link", self.path.join(path))?)
    }

    /// Seals all directories but the root.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.open.clear();
        for dir in &self.dirs {
            // Every component was made here as a directory, so that the path leads nowhere else.
            let sealed = rustix::fs::chmodat(&self.root, dir.as_str(), Mode::from_raw_mode(0o555), AtFlags::empty())
                .and_then(|()| rustix::fs::utimensat(&self.root, dir.as_str(), &TIMES, AtFlags::SYMLINK_NOFOLLOW));
            sealed.at("seal the directory", self.path.join(dir))?;
        }
        Ok(())
    }

    fn seal(&self, file: &OwnedFd, executable: bool) -> rustix::io::Result<()> {
        if self.chmod {
            rustix::fs::fchmod(file, mode(executable))?;
        }
        rustix::fs::futimens(file, &TIMES)
    }

    /// Runs `act` with the directory of `path` and its last component. Directories that stay open between entries
    /// make this one call for most of them.
    fn in_parent<T>(
        &mut self,
        path: &str,
        act: impl FnOnce(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut depth = 0;
        for component in parent.split('/').filter(|c| !c.is_empty()) {
            if self.open.get(depth).is_none_or(|(name, _)| name != component) {
                self.open.truncate(depth);
                let at = self.open.last().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd());
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = rustix::fs::openat(at, component, flags, Mode::empty())?;
                self.open.push((component.to_owned(), dir));
            }
            depth += 1;
        }
        self.open.truncate(depth);
        let at = self.open.last().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd());
        act(at, name)
    }
}

/// Content of a file, piece by piece; empty at the end.
pub(crate) trait Source {
    fn next(&mut self) -> Result<&[u8], ArchiveError>;
}

impl<R: io::Read> Source for igloo_formats::deb::archive::TarReader<R> {
    fn next(&mut self) -> Result<&[u8], ArchiveError> {
        self.chunk()
    }
}

struct Whole<'a>(&'a [u8]);

impl Source for Whole<'_> {
    fn next(&mut self) -> Result<&[u8], ArchiveError> {
        Ok(std::mem::take(&mut self.0))
    }
}

fn mode(executable: bool) -> Mode {
    Mode::from_raw_mode(if executable { 0o555 } else { 0o444 })
}

fn create(parent: BorrowedFd<'_>, name: &str, executable: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, mode(executable))
}
