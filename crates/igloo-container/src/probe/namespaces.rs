//! Namespaces and what is built from them, tried for real.

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::thread::UnshareFlags;

use super::{Finding, Status};
use crate::error::chain;
use crate::network::{self, Attachment, Link};
use crate::{rootfs, sys, userns};

/// Runs something in a child process and gives what it says, or why it failed.
fn in_child(act: impl FnOnce() -> Result<String, Box<dyn std::error::Error>>) -> Result<String, String> {
    let (mut said, mut say) = std::io::pipe().map_err(|e| format!("cannot make a pipe: {e}"))?;
    match sys::fork(UnshareFlags::empty(), false).map_err(|e| format!("cannot start a process: {e}"))? {
        sys::Fork::Child => {
            drop(said);
            let (kind, text) = match act() {
                Ok(text) => (b'+', text),
                Err(e) => (b'-', chain(e.as_ref())),
            };
            drop(say.write_all(&[&[kind], text.as_bytes()].concat()));
            sys::exit_now(0)
        }
        sys::Fork::Parent(pid) => {
            drop(say);
            let mut text = String::new();
            let read = said.read_to_string(&mut text);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            read.map_err(|e| format!("cannot read from a process: {e}"))?;
            match text.strip_prefix('+') {
                Some(text) => Ok(text.to_owned()),
                None => Err(text.get(1..).filter(|t| !t.is_empty()).unwrap_or("the process died").to_owned()),
            }
        }
    }
}

/// New namespaces, with a user namespace of one user for those who need one. As [`crate::enter`] does it.
fn separate(more: UnshareFlags) -> Result<(), Box<dyn std::error::Error>> {
    if rustix::process::geteuid().is_root() && sys::unshare(UnshareFlags::NEWNS | more).is_ok() {
        return private();
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    userns::enter_as(uid, gid)?;
    sys::unshare(UnshareFlags::NEWNS | more)?;
    private()
}

fn private() -> Result<(), Box<dyn std::error::Error>> {
    use rustix::mount::MountPropagationFlags as Flags;
    Ok(rustix::mount::mount_change("/", Flags::PRIVATE | Flags::REC)?)
}

fn setting(path: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

/// Cause and remedy for a user namespace that could not be made or is of no use.
pub(crate) fn user_namespace_obstacle() -> (String, String) {
    let (cause, remedy) = if setting("kernel/unprivileged_userns_clone") == Some(0) {
        (
            "the setting `kernel.unprivileged_userns_clone` is 0",
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`, and the same line in /etc/sysctl.d",
        )
    } else if setting("user/max_user_namespaces") == Some(0) {
        (
            "the setting `user.max_user_namespaces` is 0",
            "as root: `sysctl -w user.max_user_namespaces=15000`, and the same line in /etc/sysctl.d",
        )
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        (
            "AppArmor lets only programs with a profile have them \
             (`kernel.apparmor_restrict_unprivileged_userns` is 1)",
            "as root, give igloo a profile with `userns,` in /etc/apparmor.d, or \
             `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
        )
    } else if status("Seccomp").is_some_and(|mode| mode == "2") {
        (
            "a seccomp filter forbids it, as inside a container",
            "leave the container (or the shell with isolation `container`), or start it without that filter",
        )
    } else if !has_root_mount() {
        (
            "this process is in a chroot, where the kernel allows no user namespaces",
            "enter the directory with pivot_root (as containers do) and not with chroot",
        )
    } else {
        ("the kernel refuses it for a reason that no setting shows", "look at `dmesg`, and at what confines this login")
    };
    (cause.to_owned(), remedy.to_owned())
}

fn status(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':').map(|v| v.trim().to_owned()))
}

/// False in a chroot: the root directory is no mount point.
fn has_root_mount() -> bool {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return true };
    text.lines().any(|l| l.split(' ').nth(4) == Some("/"))
}

pub(super) fn user_namespaces() -> Finding {
    const NAME: &str = "user namespaces";
    let tried = in_child(|| {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        userns::enter_as(uid, gid)?;
        // Where AppArmor restricts them they can be made, but give no rights.
        sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET)?;
        private()?;
        Ok(String::new())
    });
    match tried {
        Ok(_) => {
            let most = setting("user/max_user_namespaces").map_or_else(String::new, |n| format!(", at most {n}"));
            Finding::ok(NAME, format!("can be made by this user{most}"))
        }
        Err(_) if rustix::process::geteuid().is_root() => {
            let (cause, remedy) = user_namespace_obstacle();
            Finding::bad(
                NAME,
                Status::Degraded,
                "root can't make them; services run with root's own ids",
                cause,
                remedy,
            )
        }
        Err(failure) => {
            let (cause, remedy) = user_namespace_obstacle();
            Finding::bad(NAME, Status::Missing, failure, cause, remedy)
        }
    }
}

pub(super) fn overlay() -> Finding {
    const NAME: &str = "overlay";
    let tried = in_child(|| {
        separate(UnshareFlags::empty())?;
        let at = Path::new("/tmp");
        rootfs::mount_fresh("tmpfs", at, &[("mode", "0755")])?;
        let dirs = ["a", "b", "upper", "work", "target", "groups"].map(|name| at.join(name));
        for dir in &dirs {
            fs::create_dir(dir)?;
        }
        let [a, b, upper, work, target, groups] = dirs;
        rootfs::overlay(&[a.clone(), b.clone()], None, &groups, &target)?;
        rootfs::overlay(&[a, b], Some(rootfs::Writable { upper: &upper, work: &work }), &groups, &target)?;
        fs::write(target.join("file"), "x")?;
        Ok(if appends_layers() { "with 500 layers" } else { "with 190 layers, in groups beyond" }.to_owned())
    });
    let root = rustix::process::geteuid().is_root();
    match tried {
        Ok(layers) => Finding::ok(NAME, format!("{layers}{}", if root { "" } else { ", in a user namespace" })),
        Err(failure) => Finding::bad(
            NAME,
            Status::Missing,
            failure,
            if root {
                "the kernel has no overlay file system"
            } else {
                "user namespaces or overlay in them don't work"
            },
            "use a kernel of 5.11 or later with `CONFIG_OVERLAY_FS`; see `user namespaces` as well",
        ),
    }
}

/// True if layers can be given one by one (Linux 6.8).
fn appends_layers() -> bool {
    let flags = rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC;
    let Ok(context) = rustix::mount::fsopen("overlay", flags) else { return false };
    rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", "/").is_ok()
}

pub(super) fn network() -> Finding {
    const NAME: &str = "container network";
    let tried = in_child(|| {
        separate(UnshareFlags::NEWNET)?;
        let net = network::subnet_for("probe");
        let (Some(gateway), Some(address)) = (net.gateway(), net.service(0)) else { return Err("no address".into()) };
        network::create_bridge("igloo0", gateway)?;
        let mut bridge = Link::open()?;
        sys::unshare(UnshareFlags::NEWNET)?;
        let netns = File::open("/proc/self/ns/net")?;
        let to = Attachment { name: network::veth_name(0), address, gateway: Some(gateway.address) };
        network::attach(&mut bridge, &mut Link::open()?, netns.as_fd(), &to)?;
        Ok("bridge and veth pairs work".to_owned())
    });
    match tried {
        Ok(detail) => Finding::ok(NAME, detail),
        Err(failure) => Finding::bad(
            NAME,
            Status::Missing,
            failure,
            "no network namespaces, or a kernel without bridge or veth",
            "as root: `modprobe bridge veth`; see `user namespaces` as well",
        ),
    }
}

pub(super) fn subordinate_ids() -> Finding {
    const NAME: &str = "subordinate ids";
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Finding::ok(NAME, "not needed by root");
    }
    match userns::choose(Some(crate::spec::Identity::Subuid), "probe") {
        Ok(mapping) => {
            let count: u64 = mapping.uids.iter().map(|m| u64::from(m.count)).sum();
            let tried = in_child(|| try_map(&mapping));
            match tried {
                Ok(_) => Finding::ok(NAME, format!("{count} user ids")),
                Err(failure) => Finding::bad(
                    NAME,
                    Status::Degraded,
                    failure,
                    "`newuidmap` is there, but does not work (is it setuid root?)",
                    "as root: `chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap`, or install the package uidmap again",
                ),
            }
        }
        Err(e) => Finding::bad(
            NAME,
            Status::Degraded,
            "all users of a service are the same one to the host",
            chain(&e),
            format!(
                "as root: install the package uidmap, then `usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535` for user {}",
                uid.as_raw()
            ),
        ),
    }
}

/// A process in a new user namespace, mapped by its parent as sandboxes are.
fn try_map(mapping: &userns::Mapping) -> Result<String, Box<dyn std::error::Error>> {
    let (mut go, said) = std::io::pipe()?;
    match sys::fork(UnshareFlags::NEWUSER, false)? {
        sys::Fork::Child => {
            drop(said);
            // Ends when the parent has done, whatever came of it.
            drop(go.read(&mut [0]));
            sys::exit_now(0)
        }
        sys::Fork::Parent(pid) => {
            let result = userns::write(mapping, pid);
            drop(said);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            result?;
            Ok(String::new())
        }
    }
}

pub(super) fn idmapped_mounts() -> Finding {
    const NAME: &str = "idmapped mounts";
    if !rustix::process::geteuid().is_root() {
        return Finding::ok(NAME, "not needed without root");
    }
    let tried = in_child(|| {
        separate(UnshareFlags::empty())?;
        let (mut go, said) = std::io::pipe()?;
        match sys::fork(UnshareFlags::NEWUSER, false)? {
            sys::Fork::Child => {
                drop(said);
                drop(go.read(&mut [0]));
                sys::exit_now(0)
            }
            sys::Fork::Parent(pid) => {
                let own = userns::choose(Some(crate::spec::Identity::Root), "probe")?;
                userns::write(&own, pid)?;
                let namespace = File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))?;
                let tree = rootfs::clone_tree(Path::new("/tmp"))?;
                sys::idmap_mount(&tree, &namespace, false)?;
                Ok(String::new())
            }
        }
    });
    match tried {
        Ok(_) => Finding::ok(NAME, "work on the file system of `/tmp`"),
        Err(failure) => Finding::bad(
            NAME,
            Status::Degraded,
            "services run with root's own ids",
            failure,
            "use a kernel of 5.19 or later and a file system that supports them (ext4, xfs, btrfs, tmpfs from 6.3)",
        ),
    }
}

/// True if a device can be used.
pub(super) fn usable(path: &str) -> bool {
    access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}
