//! Named volumes: created on first use, and filled with what the image has at the place where they are mounted.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use igloo_base::At;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::{self, Root};
use crate::ContainerError;
use crate::spec::User;

/// Holds a copy that is under way. Found at a later start, it tells that no service has ever seen this volume.
const FILLING: &str = ".igloo-filling";
/// Deeper trees in an image are not copied; nobody's are.
const MAX_DEPTH: usize = 128;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the directory `source` ready to be mounted at `target`. One that holds anything is left alone.
pub(super) fn prepare(
    root: &Root,
    source: &Path,
    target: &str,
    user: &User,
    forgiving: bool,
) -> Result<(), ContainerError> {
    igloo_base::file::create_dirs(source)?;
    let volume = rustix::fs::open(source, DIR, Mode::empty()).at("open", source)?;
    let names = entries(&volume).at("list", source)?;
    if names.iter().any(|name| name == FILLING) {
        for name in &names {
            igloo_base::file::remove_tree(source.join(name))?;
        }
    } else if !names.is_empty() {
        return Ok(());
    }
    let (mut mode, mut owner) = (0o755, (user.uid, user.gid));
    if let Some(image) = root.find(target)? {
        let stat = rustix::fs::fstat(&image).at("look at", target)?;
        if root::kind(stat.st_mode) != FileType::Directory {
            return Err(root::invalid("mount a volume on", Path::new(target)));
        }
        let image = rustix::fs::openat(&image, ".", DIR, Mode::empty()).at("open", target)?;
        if !entries(&image).at("list", target)?.is_empty() {
            // As docker does: with content come its owner and mode.
            let inside = inside(&stat, user);
            (mode, owner) = (inside.mode, (inside.uid, inside.gid));
            fill(&image, &volume, source, user, forgiving)?;
        }
    }
    root::change_owner(&volume, source, owner.0, owner.1, forgiving)?;
    root::change_mode(&volume, source, mode)
}

/// Copies everything beside the final place first, so that a copy cut short can be told from a volume in use.
fn fill(image: &OwnedFd, volume: &OwnedFd, source: &Path, user: &User, forgiving: bool) -> Result<(), ContainerError> {
    let at = source.join(FILLING);
    rustix::fs::mkdirat(volume, FILLING, Mode::RWXU).at("create the directory", &at)?;
    let filling = rustix::fs::openat(volume, FILLING, DIR, Mode::empty()).at("open", &at)?;
    copy_tree(image, &filling, &at, user, forgiving, 0)?;
    for name in entries(&filling).at("list", &at)? {
        rustix::fs::renameat(&filling, &name, volume, &name).at("move out of", &at)?;
    }
    Ok(rustix::fs::unlinkat(volume, FILLING, AtFlags::REMOVEDIR).at("remove", &at)?)
}

/// Owner and mode of an image's file in a volume.
struct Inside {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What a package ships is read-only in the store, and root's; in a volume it is its service's, to write.
fn inside(stat: &rustix::fs::Stat, user: &User) -> Inside {
    let (uid, gid) = if stat.st_uid == 0 { (user.uid, user.gid) } else { (stat.st_uid, stat.st_gid) };
    Inside { mode: stat.st_mode & 0o7777 | 0o200, uid, gid }
}

fn entries(dir: &OwnedFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        // What mkfs leaves in a fresh file system is no content.
        if !matches!(name, b"." | b".." | b"lost+found") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

fn copy_tree(
    from: &OwnedFd,
    to: &OwnedFd,
    path: &Path,
    user: &User,
    forgiving: bool,
    depth: usize,
) -> Result<(), ContainerError> {
    if depth > MAX_DEPTH {
        return Err(root::invalid("copy so deep a tree to", path));
    }
    for name in entries(from).at("list the image's content for", path)? {
        let path = path.join(&name);
        copy_entry(from, to, &name, &path, user, forgiving, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &OsStr,
    path: &Path,
    user: &User,
    forgiving: bool,
    depth: usize,
) -> Result<(), ContainerError> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).at("copy to", path)?;
    let Inside { mode, uid, gid } = inside(&stat, user);
    let made = match root::kind(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU).at("create the directory", path)?;
            let inner = rustix::fs::openat(from, name, DIR, Mode::empty()).at("copy to", path)?;
            let made = rustix::fs::openat(to, name, DIR, Mode::empty()).at("open", path)?;
            copy_tree(&inner, &made, path, user, forgiving, depth + 1)?;
            made
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut reader = File::from(rustix::fs::openat(from, name, read, Mode::empty()).at("copy to", path)?);
            let mut writer = File::from(rustix::fs::openat(to, name, write, Mode::RUSR).at("create", path)?);
            io::copy(&mut reader, &mut writer).at("write", path)?;
            writer.into()
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).at("copy to", path)?;
            rustix::fs::symlinkat(target.as_c_str(), to, name).at("create the link", path)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = rustix::fs::openat(to, name, flags, Mode::empty()).at("open", path)?;
            return root::change_owner(&link, path, uid, gid, forgiving);
        }
        FileType::Fifo => {
            let fifo = rustix::fs::mknodat(to, name, FileType::Fifo, Mode::RWXU, 0);
            fifo.at("create", path)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(to, name, flags, Mode::empty()).at("open", path)?
        }
        // Sockets mean nothing without their process, devices are not for volumes.
        _ => return Ok(()),
    };
    root::change_owner(&made, path, uid, gid, forgiving)?;
    root::change_mode(&made, path, mode)
}
