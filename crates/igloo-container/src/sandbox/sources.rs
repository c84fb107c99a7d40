//! What a sandbox of root sees of the host: copies of mounts, made here with root's rights, each shown through the
//! sandbox's id map. Only these reach it; paths of the host mean nothing inside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use igloo_base::{At, PathError};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use rustix::process::Pid;

use super::init::{SHIM, STORE};
use crate::ContainerError;
use crate::spec::{ContainerSpec, MountKind};
use crate::sys;
use crate::userns::Mapping;

#[derive(Debug)]
pub(super) struct Sources {
    /// The sandbox's user namespace, if files are shown through its map.
    userns: Option<File>,
    store_root: PathBuf,
}

impl Sources {
    pub(super) fn new(mapping: &Mapping, pid: Pid, store_root: &Path) -> Result<Self, ContainerError> {
        let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
        let userns = mapping.idmapped.then(|| File::open(&path).at("open", &path)).transpose()?;
        Ok(Self { userns, store_root: store_root.to_owned() })
    }

    /// The store as the sandbox sees it, read-only.
    pub(super) fn store(&self) -> Result<OwnedFd, ContainerError> {
        let tree = self.copy(&self.store_root, true)?;
        sys::restrict_mount(&tree, sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NODEV, false)
            .at("make read-only", &self.store_root)?;
        Ok(tree)
    }

    /// Copies the mount of every path that the spec names, and lets the spec name the copies.
    pub(super) fn translate(&self, spec: &mut ContainerSpec) -> Result<Vec<OwnedFd>, ContainerError> {
        let mut mounts = Vec::new();
        let mut add = |path: &mut PathBuf, must_map: bool| {
            mounts.push(self.copy(path, must_map)?);
            *path = Path::new(SHIM).join("source").join((mounts.len() - 1).to_string());
            Ok::<_, ContainerError>(())
        };
        igloo_base::file::create_private_dir(&spec.state_dir)?;
        add(&mut spec.state_dir, true)?;
        for lower in &mut spec.lowers {
            match lower.strip_prefix(&self.store_root) {
                Ok(inside) => *lower = Path::new(STORE).join(inside),
                Err(_) => add(lower, true)?,
            }
        }
        for mount in &mut spec.mounts {
            match &mut mount.kind {
                // Of what can't be mapped, a person sees files of nobody; better than no container.
                MountKind::Bind { source } => add(source, false)?,
                MountKind::Volume { source } => {
                    igloo_base::file::create_dirs(&*source)?;
                    add(source, true)?;
                }
                MountKind::Tmpfs { .. } | MountKind::Secrets { .. } => {}
            }
        }
        Ok(mounts)
    }

    fn copy(&self, path: &Path, must_map: bool) -> Result<OwnedFd, ContainerError> {
        let copy = |recursive: bool| -> Result<OwnedFd, PathError> {
            let deep = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | deep;
            rustix::mount::open_tree(CWD, path, flags).at("copy the mount of", path)
        };
        let Some(userns) = &self.userns else { return Ok(copy(true)?) };
        // All that is mounted below as well, if all of it takes a map; else what is here alone.
        let mapped = |recursive: bool| -> Result<io::Result<OwnedFd>, PathError> {
            let tree = copy(recursive)?;
            Ok(sys::idmap_mount(&tree, userns.as_fd(), recursive).map(|()| tree))
        };
        if let Ok(tree) = mapped(true)? {
            return Ok(tree);
        }
        match mapped(false)? {
            Ok(tree) => Ok(tree),
            Err(_) if !must_map => Ok(copy(true)?),
            Err(source) => Err(ContainerError::IdMap { source }),
        }
    }
}
