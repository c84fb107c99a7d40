//! Volumes as archives: packed and unpacked by a process that sees nothing but the volume, as its root, and has the ids
//! of the project's containers, so that files keep their owners and no link leads anywhere else.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use igloo_base::At;

use crate::ContainerError;
use crate::error::Act;

/// This process sees only a directory from here on.
fn shut_in(directory: &Path) -> Result<(), ContainerError> {
    rustix::process::chroot(directory).at("enter", directory)?;
    Ok(rustix::process::chdir("/").at("enter", directory)?)
}

/// Writes what is in a directory. Sockets and devices stay out.
pub(super) fn pack(directory: &Path, to: OwnedFd) -> Result<(), ContainerError> {
    shut_in(directory)?;
    let mut builder = tar::Builder::new(BufWriter::new(File::from(to)));
    builder.follow_symlinks(false);
    builder.mode(tar::HeaderMode::Complete);
    builder.append_dir(".", "/").at("pack", directory)?;
    let mut todo = vec![PathBuf::from("/")];
    while let Some(at) = todo.pop() {
        let mut entries: Vec<_> = fs::read_dir(&at).at("list", &at)?.collect::<Result<_, _>>().at("list", &at)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type().at("look at", entry.path())?);
            let name = Path::new(".").join(path.strip_prefix("/").unwrap_or(&path));
            let packed = if kind.is_dir() {
                todo.push(path.clone());
                builder.append_dir(&name, &path)
            } else if kind.is_file() || kind.is_symlink() {
                builder.append_path_with_name(&path, &name)
            } else {
                Ok(())
            };
            match packed {
                // A running service may remove what was just seen.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.at("pack", &path)?,
            }
        }
    }
    let mut file = builder.into_inner().act("write the archive")?;
    file.flush().act("write the archive")
}

/// Fills a directory; `owners` is whether files may belong to others.
pub(super) fn unpack(directory: &Path, from: OwnedFd, owners: bool) -> Result<(), ContainerError> {
    shut_in(directory)?;
    let mut archive = tar::Archive::new(BufReader::new(File::from(from)));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owners);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    for entry in archive.entries().act("read the archive")? {
        let mut entry = entry.act("read the archive")?;
        use tar::EntryType as Kind;
        match entry.header().entry_type() {
            // When all is in them: they may not be writable.
            Kind::Directory => directories.push(entry),
            Kind::Regular | Kind::Continuous | Kind::Symlink | Kind::Link | Kind::GNUSparse => {
                let name = entry.path().map(|p| p.into_owned()).act("read the archive")?;
                if !entry.unpack_in("/").at("unpack", &name)? {
                    let source = io::Error::other("it leads out of the volume");
                    return Ok(Err(source).at("unpack", &name)?);
                }
            }
            // Devices and the like are none of a volume's business.
            _ => {}
        }
    }
    directories.sort_by_key(|d| std::cmp::Reverse(d.path_bytes().len()));
    for directory in directories {
        let name = directory.path().map(|p| p.into_owned()).act("read the archive")?;
        let name = name.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect::<PathBuf>();
        let place = Path::new("/").join(name);
        fs::create_dir_all(&place).at("create", &place)?;
        let header = directory.header();
        if owners {
            let id = |id: io::Result<u64>| u32::try_from(id.unwrap_or(0)).ok();
            std::os::unix::fs::lchown(&place, id(header.uid()), id(header.gid())).at("change the owner of", &place)?;
        }
        let mode = header.mode().unwrap_or(0o755) & 0o7777;
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .at("change the mode of", &place)?;
    }
    rustix::fs::sync();
    Ok(())
}
