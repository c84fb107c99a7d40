//! Nix's locks, as Nix takes them: `flock(2)` on files that both sides agree on.
//!
//! Order, so that nobody waits for himself: own staging, `gc.lock`, `temproots/<pid>`, `<path>.lock` by path, database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use igloo_base::{At, PathError};
use igloo_formats::nix::StorePath;
use rustix::fs::FlockOperation;

/// Opens a lock file as Nix does.
fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Locks an open file or directory; false if that is not possible at once.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn wait_lock(file: &File) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// The lock of one store path, `<path>.lock`: who holds it may write the path. Its file vanishes with it.
pub(crate) struct PathLock {
    file: File,
    path: PathBuf,
}

impl PathLock {
    /// Waits for the lock of `object` (a path on disk).
    pub(crate) fn take(object: &Path) -> Result<Self, PathError> {
        let mut path = object.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = open_lock_file(&path).at("open the lock", &path)?;
            wait_lock(&file).at("lock", &path)?;
            // Whoever held it before us marks the file as he unlinks it, since we may have opened it before that.
            if file.metadata().at("inspect the lock", &path)?.len() == 0 {
                return Ok(Self { file, path });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // A lock file that stays is harmless: it is taken again, or collected.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.write_all(b"d");
    }
}

/// Our file in `temproots`: what it lists is not collected while we hold it, which is until we die.
#[derive(Debug)]
pub(crate) struct TempRoots {
    dir: PathBuf,
    file: Mutex<Option<File>>,
}

impl TempRoots {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, file: Mutex::new(None) }
    }

    /// Adds objects. The caller holds `gc.lock` shared, so that no collection is between its look at us and its deed.
    pub(crate) fn add<'a>(&self, paths: impl Iterator<Item = &'a StorePath>) -> Result<(), PathError> {
        let mut text = Vec::new();
        for path in paths {
            text.extend_from_slice(path.full().as_bytes());
            text.push(0);
        }
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        if file.is_none() {
            *file = Some(Self::create(&self.dir)?);
        }
        match file.as_mut() {
            Some(file) => file.write_all(&text).at("write", &self.dir),
            None => Ok(()),
        }
    }

    fn create(dir: &Path) -> Result<File, PathError> {
        // Nix names the file by the process. Another store of ours in this process, or a process of the same number
        // in another namespace, may have it already; numbers no process has (above `pid_max`'s largest) serve as well.
        let pid = u64::from(std::process::id());
        let mut number = pid;
        loop {
            let path = dir.join(number.to_string());
            let file = open_lock_file(&path).at("open", &path)?;
            if !try_lock(&file).at("lock", &path)? {
                number += 1 << 22;
                if number > i32::MAX as u64 {
                    number = pid;
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                continue;
            }
            let meta = file.metadata().at("inspect", &path)?;
            if meta.nlink() == 0 || (meta.len() == 1 && path_is_gone(&path, &meta)) {
                continue;
            }
            // What a dead process of our number left is ours now.
            file.set_len(0).at("empty", &path)?;
            return Ok(file);
        }
    }
}

fn path_is_gone(path: &Path, meta: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).map_or(true, |m| m.ino() != meta.ino())
}

impl Drop for TempRoots {
    fn drop(&mut self) {
        // Left behind it would do no harm either: nobody holds its lock.
        if let Ok(Some(file)) = self.file.get_mut().map(Option::take) {
            let unlink = |path: PathBuf| fs::remove_file(path);
            if let Ok(target) = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))) {
                let _ = unlink(target);
            }
        }
    }
}

/// Objects that living processes hold in `temproots`, and their numbers. Files of the dead are removed, as Nix does.
pub(crate) fn read_temp_roots(dir: &Path) -> Result<Vec<(u32, StorePath)>, PathError> {
    let mut out = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
        other => other.at("list", dir)?,
    };
    for entry in entries {
        let entry = entry.at("list", dir)?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let path = entry.path();
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            // Somebody else's store, which we only read: his roots count, whether he lives or not.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => match File::open(&path) {
                Ok(file) => file,
                Err(_) => continue,
            },
            Err(e) => return Err(e).at("open", &path),
        };
        if try_lock(&file).at("lock", &path)? {
            let _ = fs::remove_file(&path);
            let _ = file.write_all(b"d");
            continue;
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).at("read", &path)?;
        out.extend(text.split('\0').filter_map(|p| StorePath::parse(p).ok()).map(|p| (pid, p)));
    }
    Ok(out)
}
