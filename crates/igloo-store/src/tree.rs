//! Trees on disk: their archive, their canonical form, what is in them. Everything goes by directory descriptors and
//! follows no symlink, since the content of a package is somebody else's choice.

use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use igloo_base::digest::HashWriter;
use igloo_base::{At, PathError, Sha256};
use igloo_formats::nix::nar::{MAX_DEPTH, Writer};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

/// Every file of an object has this time, one second after the epoch, as in Nix.
pub(crate) const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// Read at once: large enough that the calls do not matter, small enough for the core's cache.
const BUFFER: usize = 256 << 10;

/// Digest and size of the archive of a tree.
pub(crate) fn hash(path: &Path) -> Result<(Sha256, u64), PathError> {
    let (_, digest, size) = dump(path, HashWriter::new(io::sink()), false)?.finish();
    Ok((digest, size))
}

/// Like [`hash`], and gives everything below `path` the mode, time and owner's rights that objects have. The root
/// itself stays writable, since it has yet to be moved.
pub(crate) fn hash_and_seal(path: &Path) -> Result<(Sha256, u64), PathError> {
    let (_, digest, size) = dump(path, HashWriter::new(io::sink()), true)?.finish();
    Ok((digest, size))
}

/// Writes the archive of a tree.
pub(crate) fn dump<W: Write>(path: &Path, out: W, seal: bool) -> Result<W, PathError> {
    let mut walk = Walk {
        out: Writer::new(out),
        buffer: vec![0; BUFFER].into_boxed_slice(),
        path: path.to_owned(),
        seal,
        depth: 0,
    };
    let result = (|| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(rustix::io::Errno::INVAL)?;
        let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = CString::new(name.as_bytes())?;
        let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        walk.node(parent.as_fd(), &name, FileType::from_raw_mode(stat.st_mode))
    })();
    let at = walk.path;
    match result.and_then(|()| walk.out.finish()) {
        Ok(out) => Ok(out),
        Err(e) => Err(e).at("archive", at),
    }
}

struct Walk<W> {
    out: Writer<W>,
    buffer: Box<[u8]>,
    /// Where we are, for errors: left as it is when one happens.
    path: PathBuf,
    seal: bool,
    depth: usize,
}

impl<W: Write> Walk<W> {
    fn node(&mut self, parent: BorrowedFd<'_>, name: &CString, kind: FileType) -> io::Result<()> {
        match kind {
            FileType::RegularFile => self.file(parent, name),
            FileType::Directory => self.dir(parent, name),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                if self.seal {
                    rustix::fs::utimensat(parent, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                self.out.symlink(target.as_bytes())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file, directory or symlink")),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it changed while it was read"));
        }
        let executable = is_executable(&stat);
        if self.seal {
            seal_file(file.as_fd(), &stat, executable)?;
        }
        self.out.begin_file(executable, stat.st_size as u64);
        loop {
            let n = rustix::io::read(&file, &mut self.buffer[..])?;
            self.out.content(&self.buffer[..n])?;
            // A short read is the end; if it is not, the size that was promised tells.
            if n < self.buffer.len() {
                break;
            }
        }
        self.out.end_file()
    }

    fn dir(&mut self, parent: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is too deep for an archive"));
        }
        let dir = open_dir(parent, name)?;
        self.out.begin_dir();
        self.depth += 1;
        for (name, kind) in sorted_entries(dir.as_fd())? {
            self.path.push(OsStr::from_bytes(name.as_bytes()));
            self.out.begin_entry(name.as_bytes());
            self.node(dir.as_fd(), &name, kind)?;
            self.out.end_entry()?;
            self.path.pop();
        }
        self.depth -= 1;
        self.out.end_dir();
        if self.seal && self.depth > 0 {
            seal_dir(dir.as_fd())?;
        }
        Ok(())
    }
}

/// The executable bit of an archive is that of the owner.
pub(crate) fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o100 != 0
}

fn seal_file(file: BorrowedFd<'_>, stat: &Stat, executable: bool) -> io::Result<()> {
    let mode = if executable { 0o555 } else { 0o444 };
    if stat.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    // A file that comes from another object has it: nothing is to be written of that one.
    if (stat.st_mtime, stat.st_mtime_nsec) != (1, 0) {
        rustix::fs::futimens(file, &TIMES)?;
    }
    Ok(())
}

/// Mode 0555 and time 1: the last thing done to a directory.
pub(crate) fn seal_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::fchmod(dir, Mode::from_raw_mode(0o555))?;
    Ok(rustix::fs::futimens(dir, &TIMES)?)
}

/// Opens a directory, never through a symlink.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Names in a directory with what they are, by bytes.
pub(crate) fn sorted_entries(dir: BorrowedFd<'_>) -> io::Result<Vec<(CString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        entries.push((name.to_owned(), kind));
    }
    entries.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_tree_of_the_prototype_hashes_as_nix_says() {
        let dir = tempfile::tempdir().expect("tempdir");
        let t = dir.path().join("t");
        fs::create_dir_all(t.join("sub")).expect("mkdir");
        fs::write(t.join("a.txt"), "hello\n").expect("write");
        fs::write(t.join("B"), "x").expect("write");
        fs::write(t.join("run"), "#!/bin/sh\n").expect("write");
        fs::set_permissions(t.join("run"), fs::Permissions::from_mode(0o755)).expect("chmod");
        symlink("a.txt", t.join("l")).expect("symlink");
        fs::write(t.join("sub/z"), "").expect("write");
        let (digest, _) = hash(&t).expect("hash");
        assert_eq!(digest.to_string(), "b4c10ef90fc732f3568e43e113a727926f06a422300bb225f5700789abf1582e");
        assert_eq!(hash_and_seal(&t).expect("seal").0, digest);
        assert_eq!(hash(&t).expect("hash").0, digest);
        for (path, mode) in [("a.txt", 0o444), ("run", 0o555), ("sub", 0o555), ("sub/z", 0o444)] {
            let meta = fs::metadata(t.join(path)).expect("stat");
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (mode, 1), "{path}");
        }
        assert_eq!(fs::symlink_metadata(t.join("l")).expect("stat").mtime(), 1);
    }

    #[test]
    fn what_no_archive_can_hold_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let socket = dir.path().join("a/socket");
        fs::create_dir(dir.path().join("a")).expect("mkdir");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        let error = hash(&dir.path().join("a")).expect_err("socket");
        assert_eq!(error.path, socket);
        let mut deep = dir.path().join("deep");
        for _ in 0..70 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("mkdir");
        assert!(hash(&dir.path().join("deep")).is_err());
    }
}
