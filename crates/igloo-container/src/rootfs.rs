//! The root file system of a container: layers, owners and modes, generated files, mounts.
//!
//! Everything below the root is named relative to a descriptor of it and resolved by the kernel as if that were `/`
//! ([`Root`]), so that no symlink of an image or a volume leads outside, whatever changes meanwhile.

mod overlay;
mod root;
mod volume;

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use igloo_base::At;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

pub use overlay::{Writable, overlay};
pub use root::Root;

use crate::error::ContainerError;
use crate::spec::{ContainerSpec, Identity, Mount, MountKind, Secret, User};
use crate::sys;

/// Makes the root at the directory `target`, complete but for what libcontainer mounts (proc, dev, sys).
/// `scratch` is a directory in memory, of a private mount namespace.
pub(crate) fn assemble(
    spec: &ContainerSpec,
    identity: Identity,
    scratch: &Path,
    target: &Path,
) -> Result<Root, ContainerError> {
    let state = if takes_changes(&spec.state_dir)? { &spec.state_dir } else { scratch };
    let (upper, work) = (state.join("upper"), state.join("work"));
    for dir in [&upper, &work] {
        igloo_base::file::remove_tree(dir)?;
        igloo_base::file::create_dirs(dir)?;
    }
    overlay(&spec.lowers, Some(Writable { upper: &upper, work: &work }), scratch, target)?;
    let root = Root::open(target)?;
    // In single-uid mode no file can have another owner than the one there is.
    let forgiving = identity == Identity::SingleUid;
    for attr in &spec.attrs {
        root.apply(attr, forgiving)?;
    }
    generate(&root, spec)?;
    if !spec.workdir.is_empty() && root.find(&spec.workdir)?.is_none() {
        let dir = root.make_dirs(&spec.workdir)?;
        root::change_owner(&dir, &spec.workdir, spec.user.uid, spec.user.gid, forgiving)?;
    }
    for mount in &spec.mounts {
        attach(&root, spec, mount, forgiving)?;
    }
    Ok(root)
}

/// False if the directory is itself on an overlay, as in containers of others: changes can't go there, and go to
/// memory instead.
fn takes_changes(dir: &Path) -> Result<bool, ContainerError> {
    const OVERLAYFS: i64 = 0x794c_7630;
    igloo_base::file::create_dirs(dir)?;
    Ok(rustix::fs::statfs(dir).at("look at the file system of", dir)?.f_type != OVERLAYFS)
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`.
fn generate(root: &Root, spec: &ContainerSpec) -> Result<(), ContainerError> {
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    if !spec.hostname.is_empty() && !spec.hosts.iter().any(|(name, _)| *name == spec.hostname) {
        let own = spec.address.unwrap_or(std::net::Ipv4Addr::LOCALHOST);
        let _ = writeln!(hosts, "{own} {}", spec.hostname);
    }
    for (name, address) in &spec.hosts {
        let _ = writeln!(hosts, "{address} {name}");
    }
    let servers: String = spec.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    root.replace_file("/etc/hosts", hosts.as_bytes(), 0o644)?;
    root.replace_file("/etc/hostname", format!("{}\n", spec.hostname).as_bytes(), 0o644)?;
    root.replace_file("/etc/resolv.conf", servers.as_bytes(), 0o644)
}

fn attach(root: &Root, spec: &ContainerSpec, mount: &Mount, forgiving: bool) -> Result<(), ContainerError> {
    let failed = |what: String| {
        move |e: rustix::io::Errno| ContainerError::Mount {
            what,
            target: mount.target.clone().into(),
            source: e.into(),
        }
    };
    let (tree, is_dir) = match &mount.kind {
        MountKind::Bind { source } => {
            let metadata = std::fs::metadata(source).at("find", source)?;
            (clone_tree(source)?, metadata.is_dir())
        }
        MountKind::Volume { source } => {
            volume::prepare(root, source, &mount.target, &spec.user, forgiving)?;
            (clone_tree(source)?, true)
        }
        MountKind::Secrets { files } => (secrets(&spec.user, files, forgiving)?, true),
        MountKind::Tmpfs { size } => {
            let fs = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)
                .map_err(failed("tmpfs".to_owned()))?;
            let existing = root.find(&mount.target)?.map(rustix::fs::fstat).transpose();
            let existing = existing.map_err(failed("tmpfs".to_owned()))?;
            let mode = existing.map_or(0o755, |stat| stat.st_mode & 0o7777);
            let (uid, gid) = existing.map_or((spec.user.uid, spec.user.gid), |stat| (stat.st_uid, stat.st_gid));
            let mut options = vec![("mode", format!("{mode:o}")), ("uid", uid.to_string()), ("gid", gid.to_string())];
            options.extend(size.map(|size| ("size", size.to_string())));
            for (key, value) in options {
                match rustix::mount::fsconfig_set_string(fs.as_fd(), key, value) {
                    // An owner that does not exist in this user namespace.
                    Err(_) if forgiving && matches!(key, "uid" | "gid") => {}
                    other => other.map_err(failed(format!("tmpfs with {key}")))?,
                }
            }
            rustix::mount::fsconfig_create(fs.as_fd()).map_err(failed("tmpfs".to_owned()))?;
            let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
            let tree = rustix::mount::fsmount(fs.as_fd(), flags, MountAttrFlags::empty());
            (tree.map_err(failed("tmpfs".to_owned()))?, true)
        }
    };
    let read_only = if mount.read_only { sys::MOUNT_ATTR_RDONLY } else { 0 };
    let flags = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | read_only;
    sys::restrict_mount(&tree, flags, true).at("restrict the mount on", &mount.target)?;
    let target = if is_dir { root.make_dirs(&mount.target)? } else { root.make_file(&mount.target)? };
    move_to(&tree, &target).map_err(failed("a file system".to_owned()))
}

/// A file system in memory, which only a user may look into and read.
fn secrets(user: &User, files: &[(String, Secret)], forgiving: bool) -> Result<OwnedFd, ContainerError> {
    let bytes: usize = files.iter().map(|(_, content)| content.0.len() + (8 << 10)).sum();
    let size = (bytes + (64 << 10)).to_string();
    // `noswap` where there is such a thing; a secret that was swapped out is on a disk.
    let tree = fresh("tmpfs", &[("mode", "0500"), ("size", &size), ("noswap", "")])
        .or_else(|_| fresh("tmpfs", &[("mode", "0500"), ("size", &size)]))
        .at("make a file system for", "/run/secrets")?;
    for (name, content) in files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&tree, name, flags, Mode::from_raw_mode(0o400)).at("write the secret", name)?;
        root::change_owner(&file, name, user.uid, user.gid, forgiving)?;
        let mut file = std::fs::File::from(file);
        io::Write::write_all(&mut file, &content.0).at("write the secret", name)?;
    }
    root::change_owner(&tree, "/run/secrets", user.uid, user.gid, forgiving)?;
    Ok(tree)
}

/// A detached copy of what is mounted at and below a path.
pub(crate) fn clone_tree(path: &Path) -> Result<OwnedFd, ContainerError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, path, flags).at("copy the mount of", path)?)
}

/// Attaches a detached mount to a place, both known by descriptor.
pub(crate) fn move_to(tree: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    use rustix::mount::MoveMountFlags as Flags;
    let flags = Flags::MOVE_MOUNT_F_EMPTY_PATH | Flags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree.as_fd(), "", target.as_fd(), "", flags)
}

/// Attaches a detached mount to a path, which is made a directory or an empty file, as fits.
pub(crate) fn attach_at(tree: impl AsFd, path: &Path) -> Result<(), ContainerError> {
    let stat = rustix::fs::fstat(&tree).at("look at the mount for", path)?;
    if root::kind(stat.st_mode) == FileType::Directory {
        igloo_base::file::create_dirs(path)?;
    } else {
        std::fs::File::create(path).at("create", path)?;
    }
    let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", path)?;
    move_to(tree, target).at("mount on", path)?;
    Ok(())
}

/// Mounts a fresh file system at a path.
pub(crate) fn mount_fresh(kind: &str, path: &Path, options: &[(&str, &str)]) -> Result<(), ContainerError> {
    let tree = fresh(kind, options).at("make a file system for", path)?;
    let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", path)?;
    move_to(tree, target).map_err(|e| ContainerError::Mount {
        what: kind.to_owned(),
        target: path.into(),
        source: e.into(),
    })
}

/// A detached fresh file system.
pub(crate) fn fresh(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match *value {
            "" => rustix::mount::fsconfig_set_flag(fs.as_fd(), *key)?,
            value => rustix::mount::fsconfig_set_string(fs.as_fd(), *key, value)?,
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(fs.as_fd(), rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
