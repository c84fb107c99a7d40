//! `igloo cp`: a file or a tree, as a stream, into a container and out of one.
//!
//! One end runs inside, with the locks of a service, so that a path means what it means there; the other is the caller.
//! Neither trusts the other: what is received goes only to where it was asked for, through directories that are
//! opened one by one without following a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType};

/// What the end inside does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copying {
    /// Send what is there to standard output.
    Out {
        /// A path inside.
        path: PathBuf,
    },
    /// Receive from standard input.
    In {
        /// Where it goes.
        to: Place,
        /// Whose it becomes.
        owner: (u32, u32),
    },
}

/// Where something received goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// A path: in it, if it is a directory, else it itself.
    pub path: PathBuf,
    /// The name that it has in a directory.
    pub name: String,
    /// What is sent is a directory, and only what is in it goes into `path` (`SOURCE/.`).
    pub contents: bool,
}

/// The name in the archive; what is below it keeps its own.
const TOP: &str = "top";

/// Sends a file or a tree; links are sent as links, but for the one that `path` itself may be.
pub fn send(path: &Path, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    archive.follow_symlinks(false);
    let real = std::fs::canonicalize(path)?;
    match std::fs::metadata(&real)?.is_dir() {
        true => archive.append_dir_all(TOP, &real)?,
        false => archive.append_file(TOP, &mut File::open(&real)?)?,
    }
    archive.into_inner()?.flush()
}

/// Receives what [`send`] sends; gives how many files that were.
pub fn receive(input: impl Read, place: &Place, owner: Option<(u32, u32)>) -> io::Result<u64> {
    let name = Path::new(&place.name);
    let mut names = name.components();
    let top = match (std::fs::metadata(&place.path).is_ok_and(|m| m.is_dir()), place.contents) {
        (true, false) => match (names.next(), names.next()) {
            (Some(Component::Normal(name)), None) => place.path.join(name),
            _ => return Err(bad("its name is none")),
        },
        _ => place.path.clone(),
    };
    let parent = top.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let last = top.file_name().ok_or_else(|| bad("that is no place for a file"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = match place.contents || top.is_dir() {
        // The caller may well say the name of a link to a directory.
        true if top.is_dir() => rustix::fs::open(&top, flags, Mode::empty())?,
        _ => rustix::fs::open(parent, flags, Mode::empty())?,
    };
    // Names in the archive begin with TOP: either that is `base` itself, or it is called `last` in `base`.
    let is_base = top.is_dir();
    let mut files = 0;
    for entry in Archive::new(input).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => parts.push(part.to_owned()),
                Component::CurDir => {}
                _ => return Err(bad("a path in it leads elsewhere")),
            }
        }
        if parts.first().map(|p| p.as_os_str()) != Some(OsStr::new(TOP)) {
            return Err(bad("it is not what was asked for"));
        }
        let mut below: Vec<&OsStr> = parts.iter().skip(1).map(|p| p.as_os_str()).collect();
        if !is_base {
            below.insert(0, last);
        }
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o777);
        let Some((name, directories)) = below.split_last() else { continue };
        let directory = descend(&base, directories)?;
        let own = |path: &OsStr| -> io::Result<()> {
            match owner {
                Some((uid, gid)) => {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    Ok(rustix::fs::chownat(&directory, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
                }
                None => Ok(()),
            }
        };
        match entry.header().entry_type() {
            EntryType::Directory => match rustix::fs::mkdirat(&directory, *name, mode | Mode::RWXU) {
                Ok(()) => own(name)?,
                // There it must be a directory, which is seen when something is put into it.
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            },
            EntryType::Regular | EntryType::Continuous => {
                remove(&directory, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&directory, *name, flags, mode | Mode::WUSR)?);
                io::copy(&mut entry, &mut file)?;
                own(name)?;
                rustix::fs::fchmod(&file, mode)?;
                files += 1;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| bad("a link in it leads nowhere"))?.into_owned();
                remove(&directory, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &directory, *name)?;
                own(name)?;
                files += 1;
            }
            // Devices, pipes and sockets are not for copying.
            _ => {}
        }
    }
    Ok(files)
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Opens a directory below another, following no link.
fn descend(base: &OwnedFd, directories: &[&OsStr]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::io::fcntl_dupfd_cloexec(base, 3)?;
    for directory in directories {
        at = rustix::fs::openat(at.as_fd(), *directory, flags, Mode::empty())?;
    }
    Ok(at)
}

/// Makes room for a file; a directory stays, and is an error later.
fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// True if there is a user 0 in this process's user namespace.
pub(crate) fn has_root() -> bool {
    let maps = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    maps.lines().any(|line| line.split_whitespace().next() == Some("0"))
}

/// The end inside, after the locks fell shut.
pub(crate) fn inside(what: &Copying) -> io::Result<()> {
    let stdio = |fd: std::os::fd::BorrowedFd<'_>| Ok::<_, io::Error>(File::from(fd.try_clone_to_owned()?));
    match what {
        Copying::Out { path } => send(path, stdio(rustix::stdio::stdout())?),
        Copying::In { to, owner } => {
            let owner = has_root().then_some(*owner);
            let mut input = stdio(rustix::stdio::stdin())?;
            receive(&mut input, to, owner)?;
            // Whoever sends shall not see its pipe break before its last block is out.
            io::copy(&mut input, &mut io::sink()).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &Path, name: &str, contents: bool) -> Place {
        Place { path: path.to_owned(), name: name.to_owned(), contents }
    }

    fn stream(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        send(path, &mut bytes).expect("send");
        bytes
    }

    #[test]
    fn files_and_trees_arrive_where_they_should() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).expect("mkdir");
        std::fs::create_dir(&to).expect("mkdir");
        std::fs::write(from.join("sub/file"), "text").expect("write");
        std::os::unix::fs::symlink("sub/file", from.join("link")).expect("symlink");
        let (tree, file) = (stream(&from), stream(&from.join("sub/file")));
        assert_eq!(receive(tree.as_slice(), &place(&to, "from", false), None).expect("into"), 2);
        assert_eq!(receive(tree.as_slice(), &place(&to.join("new"), "from", false), None).expect("as"), 2);
        assert_eq!(receive(tree.as_slice(), &place(&to, ".", true), None).expect("contents"), 2);
        for top in ["from", "new", "."] {
            assert_eq!(std::fs::read_to_string(to.join(top).join("sub/file")).expect(top), "text");
            assert_eq!(std::fs::read_link(to.join(top).join("link")).expect(top), Path::new("sub/file"));
        }
        receive(file.as_slice(), &place(&to, "f", false), None).expect("into");
        receive(file.as_slice(), &place(&to.join("g"), "f", false), None).expect("as");
        receive(file.as_slice(), &place(&to.join("g"), "f", false), None).expect("over");
        assert_eq!(
            std::fs::read_to_string(to.join("f")).expect("f"),
            std::fs::read_to_string(to.join("g")).expect("g")
        );
        receive(file.as_slice(), &place(&to.join("no/such"), "f", false), None).expect_err("no parent");
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (to, outside) = (dir.path().join("to"), dir.path().join("outside"));
        std::fs::create_dir(&to).expect("mkdir");
        std::fs::create_dir(&outside).expect("mkdir");
        let hostile = |entries: &[(&str, EntryType, &str)]| {
            let mut archive = Builder::new(Vec::new());
            for (name, kind, link) in entries {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(*kind);
                header.set_mode(0o4777);
                header.set_size(if *kind == EntryType::Regular { 1 } else { 0 });
                if *kind == EntryType::Symlink {
                    header.set_link_name(link).expect("link");
                }
                header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                archive
                    .append(&header, if *kind == EntryType::Regular { &b"x"[..] } else { &b""[..] })
                    .expect("append");
            }
            archive.into_inner().expect("archive")
        };
        let target = outside.display().to_string();
        for entries in [
            vec![("top/../../outside/x", EntryType::Regular, "")],
            vec![("/top/x", EntryType::Regular, "")],
            vec![("other", EntryType::Regular, "")],
            vec![
                ("top", EntryType::Directory, ""),
                ("top/l", EntryType::Symlink, target.as_str()),
                ("top/l/x", EntryType::Regular, ""),
            ],
            vec![("top", EntryType::Symlink, target.as_str()), ("top/x", EntryType::Regular, "")],
        ] {
            let bytes = hostile(&entries);
            std::fs::remove_dir_all(to.join("name"))
                .or_else(|_| std::fs::remove_file(to.join("name")))
                .unwrap_or_default();
            receive(bytes.as_slice(), &place(&to, "name", false), None).expect_err(entries[0].0);
            assert_eq!(std::fs::read_dir(&outside).expect("list").count(), 0, "{entries:?}");
        }
        let bytes = hostile(&[("top", EntryType::Regular, "")]);
        receive(bytes.as_slice(), &place(&to, "../outside/x", false), None).expect_err("a name is one");
        receive(bytes.as_slice(), &place(&to.join("set"), "x", false), None).expect("receive");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(to.join("set")).expect("set").permissions().mode() & 0o7777, 0o777);
    }
}
