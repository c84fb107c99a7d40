//! Many read-only directories seen as one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::ContainerError;

/// The kernel takes 500 layers; one less than a round number leaves room for a nested one.
const MAX_LAYERS: usize = 490;
/// With the option string of older kernels, 4095 bytes in all.
const MAX_LEGACY_LAYERS: usize = 190;
/// Longest string that fsconfig takes.
const MAX_STRING: usize = 255;

/// Where changes go; both directories on one file system.
#[derive(Debug, Clone, Copy)]
pub struct Writable<'a> {
    /// Holds what is changed.
    pub upper: &'a Path,
    /// Empty, for the kernel's use.
    pub work: &'a Path,
}

/// Mounts an overlay of `lowers`, topmost first, at `target`; without `writable` it is read-only.
///
/// More layers than the kernel takes are first mounted in groups below `scratch`, an empty directory that is used
/// only then; those mounts stay, so the mount namespace should be a private one.
pub fn overlay(
    lowers: &[PathBuf],
    writable: Option<Writable<'_>>,
    scratch: &Path,
    target: &Path,
) -> Result<(), ContainerError> {
    // Before 6.8 there is but an option string of 4095 bytes.
    let modern = lowers.first().is_some_and(|first| takes_layers_one_by_one(first));
    let limit = if modern { MAX_LAYERS } else { MAX_LEGACY_LAYERS };
    let mount = |layers: &[PathBuf], writable: Option<Writable<'_>>, at: &Path| {
        let mounted = if modern {
            one_by_one(layers, writable).and_then(|tree| {
                let target = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                Ok(super::move_to(tree, target)?)
            })
        } else {
            in_one_string(layers, writable, at)
        };
        let what = format!("an overlay of {} directories", layers.len());
        mounted.map_err(|source| ContainerError::Mount { what, target: at.to_owned(), source })
    };
    if lowers.len() <= limit {
        return mount(lowers, writable, target);
    }
    let group = |(index, group): (usize, &[PathBuf])| {
        let at = scratch.join(index.to_string());
        igloo_base::file::create_dirs(&at)?;
        mount(group, None, &at)?;
        Ok(at)
    };
    let groups: Result<Vec<_>, ContainerError> = lowers.chunks(limit).enumerate().map(group).collect();
    mount(&groups?, writable, target)
}

fn takes_layers_one_by_one(layer: &Path) -> bool {
    let tried = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|fs| {
        let short = if layer.as_os_str().len() <= MAX_STRING { layer } else { Path::new("/") };
        rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", short)
    });
    // A directory that is missing is told of when it is mounted.
    tried != Err(Errno::INVAL)
}

/// Layers as parameters of their own, each at most 255 bytes: longer paths go by descriptor.
fn one_by_one(lowers: &[PathBuf], writable: Option<Writable<'_>>) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut held = Vec::new();
    let mut add = |key: &str, path: &Path| {
        let set = if path.as_os_str().len() <= MAX_STRING {
            rustix::mount::fsconfig_set_string(fs.as_fd(), key, path)
        } else {
            by_descriptor(path, &mut held).and_then(|name| rustix::mount::fsconfig_set_string(fs.as_fd(), key, name))
        };
        set.map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", path.display())))
    };
    for lower in lowers {
        add("lowerdir+", lower)?;
    }
    if let Some(writable) = writable {
        add("upperdir", writable.upper)?;
        add("workdir", writable.work)?;
    }
    if in_user_namespace() {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), "userxattr")?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The option string of mount(2). Directories are named by descriptor: short, and free of `:` and `,`.
fn in_one_string(lowers: &[PathBuf], writable: Option<Writable<'_>>, target: &Path) -> io::Result<()> {
    use rustix::mount::MountFlags;
    let mut held = Vec::new();
    let mut name = |path: &Path| by_descriptor(path, &mut held);
    let layers = lowers.iter().map(|lower| name(lower)).collect::<Result<Vec<_>, _>>()?;
    let mut text = format!("lowerdir={}", layers.join(":"));
    if let Some(writable) = writable {
        text += &format!(",upperdir={},workdir={}", name(writable.upper)?, name(writable.work)?);
    }
    if in_user_namespace() {
        text += ",userxattr";
    }
    let text = std::ffi::CString::new(text)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount("overlay", target, "overlay", flags, Some(text.as_c_str()))?)
}

/// A short name for a directory, good as long as the descriptor is held.
fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String, Errno> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(name)
}

/// In the first user namespace overlayfs keeps its notes in `trusted.*` attributes, elsewhere it may not.
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}
