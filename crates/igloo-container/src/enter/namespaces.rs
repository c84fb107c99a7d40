//! Namespaces of our own, with or without a user namespace.

use std::io;

use igloo_base::At;
use rustix::thread::UnshareFlags;

use super::{Act, Caller, EnterError, Isolation};
use crate::sys;

/// Moves this process (and, for processes ids, its future children) into new namespaces. Root needs no user namespace;
/// whoever has no right to mount gets one in which only the caller exists, under the same ids.
pub(super) fn enter(isolation: Isolation, network: bool, caller: &Caller) -> Result<(), EnterError> {
    let mut wanted = UnshareFlags::NEWNS;
    if isolation == Isolation::Container {
        wanted |= UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
        if !network {
            wanted |= UnshareFlags::NEWNET;
        }
    }
    // What the ids are, not what the caller is said to be.
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if (uid, gid) != (caller.uid, caller.gid) {
        return Err(EnterError::Spec("the caller's user or group id is not that of this process"));
    }
    let alone = match uid {
        0 => sys::unshare(wanted),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    };
    match alone {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            sys::unshare(wanted | UnshareFlags::NEWUSER).map_err(refused)?;
            map("/proc/self/setgroups", "deny")?;
            map("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
            map("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
        }
        Err(e) => return Err(refused(e)),
    }
    if isolation == Isolation::Container && !network {
        crate::network::loopback_up()?;
    }
    // New mounts of the host are wanted in a shell that shows the host, and nowhere else; ours never get out.
    use rustix::mount::MountPropagationFlags as Flags;
    let flow = if isolation == Isolation::Host { Flags::DOWNSTREAM } else { Flags::PRIVATE };
    rustix::mount::mount_change("/", flow | Flags::REC).act("separate the mounts from the host's")
}

fn map(path: &str, text: &str) -> Result<(), EnterError> {
    match std::fs::write(path, text) {
        // A user namespace that gives no rights: AppArmor's way of refusing it.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(refused(e)),
        other => Ok(other.at("write", path)?),
    }
}

fn refused(source: io::Error) -> EnterError {
    let (cause, remedy) = match source.raw_os_error() {
        // unshare(2) of a user namespace is for processes with one thread.
        Some(libc::EINVAL) => {
            ("the process has several threads".to_owned(), "this is a fault of igloo, please report it".to_owned())
        }
        Some(libc::EUSERS | libc::ENOSPC) => (
            "there are too many of them, or they are nested too deeply".to_owned(),
            "raise `user.max_user_namespaces` (and its like) with sysctl, or leave some of the shells you are in"
                .to_owned(),
        ),
        _ => crate::probe::user_namespace_obstacle(),
    };
    EnterError::Namespaces { cause, remedy, source }
}
