//! PID 1 of a sandbox, from its birth on.
//!
//! `__sandbox` runs three times in a row, as ever less: the launcher forks into new namespaces, maps their ids and
//! ends; its child takes up the identity of root inside and runs the binary again from a read-only mount, so that
//! nothing inside can ever write to it; that is PID 1, which forks a shim per container and reaps.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use igloo_base::At;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use super::archive;
use crate::error::{Act, ContainerError, chain};
use crate::protocol::{self, SandboxReply, SandboxRequest, Serve, Setup, ShimReply};
use crate::spec::{Identity, User};
use crate::sys::{self, Fork};
use crate::userns::{self, Mapping};
use crate::{harden, network, rootfs, seccomp, shim};

/// Name of the bridge in each sandbox.
pub(crate) const BRIDGE: &str = "igloo0";
/// Where the store is seen in a sandbox of [`Identity::Root`].
pub(crate) const STORE: &str = "/store";
/// Where shims work in a sandbox of [`Identity::Root`].
pub(crate) const SHIM: &str = "/shim";
/// The command word.
pub(super) const WORD: &str = "__sandbox";

/// Body of `igloo __sandbox`: run it before any thread exists.
pub fn sandbox_main() -> ExitCode {
    let Ok(socket) = sys::take_stdin() else { return ExitCode::FAILURE };
    match serve_first_message(&socket) {
        Ok(code) => code,
        Err(error) => {
            // With nobody left to tell, there is nothing else to do.
            drop(protocol::send(&socket, &SandboxReply::Failed { message: chain(&error) }, &[]));
            ExitCode::FAILURE
        }
    }
}

fn serve_first_message(socket: &OwnedFd) -> Result<ExitCode, ContainerError> {
    die_with_parent()?;
    let (setup, mut fds) = protocol::expect::<Setup>(socket, "supervisor")?;
    match setup {
        Setup::Launch { mapping, exe } => {
            let namespaces = UnshareFlags::NEWUSER
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWPID
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWCGROUP;
            match fork_mapped(&mapping, namespaces, true)? {
                Some(pid) => protocol::send(socket, &SandboxReply::Mapped { pid: pid.as_raw_nonzero().get() }, &[])?,
                None => return Err(run_again(socket, &mapping, &exe)),
            }
        }
        Setup::Serve(serve) => {
            settle(&serve, fds.pop())?;
            let signals = sys::signal_fd(&[libc::SIGCHLD]).act("wait for children")?;
            // Once for all containers: shims are forks of this process.
            let filter = seccomp::Filter::build()?;
            protocol::send(socket, &SandboxReply::Ready, &[])?;
            attend(socket, &signals, &filter)?;
        }
        Setup::Pack { mapping, path } => {
            let to = fds.pop().ok_or(ContainerError::Gone { peer: "supervisor" })?;
            with_ids(socket, &mapping, || archive::pack(&path, to))?;
        }
        Setup::Unpack { mapping, path } => {
            let from = fds.pop().ok_or(ContainerError::Gone { peer: "supervisor" })?;
            with_ids(socket, &mapping, || archive::unpack(&path, from, mapping.identity != Identity::SingleUid))?;
        }
        Setup::Remove { mapping, path } => match fork_mapped(&mapping, UnshareFlags::NEWUSER, false)? {
            Some(pid) => {
                rustix::process::waitpid(Some(pid), WaitOptions::empty()).act("wait for a child")?;
            }
            None => {
                become_root(&mapping)?;
                igloo_base::file::remove_tree(&path)?;
                protocol::send(socket, &SandboxReply::Ready, &[])?;
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something as root of the containers, and tells when it is done. Files of root's projects have the ids that they
/// have inside, so that root is root.
fn with_ids(
    socket: &OwnedFd,
    mapping: &Mapping,
    act: impl FnOnce() -> Result<(), ContainerError>,
) -> Result<(), ContainerError> {
    if mapping.identity == Identity::Root {
        act()?;
        return protocol::send(socket, &SandboxReply::Ready, &[]);
    }
    match fork_mapped(mapping, UnshareFlags::NEWUSER, false)? {
        Some(pid) => rustix::process::waitpid(Some(pid), WaitOptions::empty()).act("wait for a child").map(drop),
        None => {
            become_root(mapping)?;
            act()?;
            protocol::send(socket, &SandboxReply::Ready, &[])
        }
    }
}

/// The kernel kills this process when the thread that started it ends.
fn die_with_parent() -> Result<(), ContainerError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind the own life to the supervisor's")
}

/// Forks into new namespaces, the user namespace among them, and maps its ids. `None` in the child.
fn fork_mapped(mapping: &Mapping, namespaces: UnshareFlags, sibling: bool) -> Result<Option<Pid>, ContainerError> {
    let (mut mapped, tell) = io::pipe().act("make a pipe")?;
    let fork = sys::fork(namespaces, sibling);
    match fork.map_err(|source| ContainerError::UserNamespace { mode: "any", source })? {
        Fork::Child => {
            drop(tell);
            die_with_parent()?;
            let mut byte = [0];
            // The end of the pipe without a byte: the parent has failed and told why.
            if mapped.read(&mut byte).act("wait for the id map")? == 0 {
                sys::exit_now(1);
            }
            Ok(None)
        }
        Fork::Parent(pid) => {
            userns::write(mapping, pid)?;
            io::Write::write_all(&mut &tell, b"1").act("tell that ids are mapped")?;
            Ok(Some(pid))
        }
    }
}

fn become_root(mapping: &Mapping) -> Result<(), ContainerError> {
    let groups = mapping.identity != Identity::SingleUid;
    harden::become_user(&User { uid: 0, gid: 0, ..User::default() }, groups)
}

/// Becomes root inside and executes the binary from a read-only mount; returns only the failure.
fn run_again(socket: &OwnedFd, mapping: &Mapping, exe: &Path) -> ContainerError {
    let run = || -> Result<ContainerError, ContainerError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let binary = rustix::mount::open_tree(CWD, exe, flags).at("open", exe)?;
        let attributes = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
        sys::restrict_mount(&binary, attributes, false).at("make a read-only mount of", exe)?;
        become_root(mapping)?;
        sys::install_fd(socket, 0).act("pass on the socket")?;
        let path = format!("/proc/self/fd/{}", binary.as_raw_fd());
        let args = [exe.to_string_lossy().into_owned(), WORD.to_owned()].map(std::ffi::CString::new);
        let [Ok(name), Ok(word)] = args else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("run", exe).map_err(Into::into);
        };
        let path = std::ffi::CString::new(path).map_err(io::Error::other).act("run")?;
        Err(sys::execve(&path, &[name, word], &[])).at("run as the sandbox's root (may everybody execute it?)", exe)?
    };
    run().unwrap_or_else(|error| error)
}

/// Mounts and network of the sandbox.
fn settle(serve: &Serve, store: Option<OwnedFd>) -> Result<(), ContainerError> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at("make mounts private below", "/")?;
    match (serve.identity, store) {
        (Identity::Root, Some(store)) => move_to_own_root(store)?,
        (Identity::Root, None) => {
            return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("show the store at", STORE)?;
        }
        _ => rootfs::mount_fresh("proc", Path::new("/proc"), &[])?,
    }
    hide_cgroups();
    match serve.subnet {
        Some(subnet) => network::create_bridge(BRIDGE, subnet),
        None => network::loopback_up(),
    }
    .map_err(|source| ContainerError::Network { source })
}

/// libcontainer wants to see one control group hierarchy and manage it. It is shown a read-only one, accepts that
/// nothing can be managed, and leaves it to us (see [`crate::cgroup`]). Where there is no such file system it finds
/// no hierarchy at all, which is fine as well.
fn hide_cgroups() {
    let point = Path::new("/sys/fs/cgroup");
    let mounted = rootfs::fresh("cgroup2", &[]).and_then(|tree| {
        sys::restrict_mount(&tree, sys::MOUNT_ATTR_RDONLY, false)?;
        let target = rustix::fs::open(point, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rootfs::move_to(tree, target)?)
    });
    drop(mounted);
}

/// Swaps the host's tree for a small one: nothing of the host is reachable by name from here on.
fn move_to_own_root(store: OwnedFd) -> Result<(), ContainerError> {
    let root = rootfs::fresh("tmpfs", &[("mode", "0755"), ("size", "1m")]).at("make a file system for", "/")?;
    let open = |path: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).at("open", path)
    };
    let old = open("/")?;
    rootfs::move_to(&root, &old).at("mount on", "/")?;
    rustix::process::fchdir(&root).at("enter", "/")?;
    for dir in ["proc", "sys", "dev", "tmp", &STORE[1..], &SHIM[1..]] {
        fs::create_dir(dir).at("create the directory", dir)?;
    }
    rootfs::attach_at(store, Path::new(&STORE[1..]))?;
    // The old proc and sysfs must still be there: the kernel shows new ones only to those who see one in full.
    rootfs::mount_fresh("proc", Path::new("proc"), &[])?;
    if rootfs::mount_fresh("sysfs", Path::new("sys"), &[]).is_err() {
        rootfs::attach_at(rootfs::clone_tree(Path::new("/sys"))?, Path::new("sys"))?;
    }
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let device = Path::new("dev").join(device);
        rootfs::attach_at(rootfs::clone_tree(&Path::new("/").join(&device))?, &device)?;
    }
    rustix::process::pivot_root(".", ".").at("change the root to", "/")?;
    rustix::process::fchdir(&old).at("enter", "the old root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at("unmount", "the old root")?;
    Ok(rustix::process::chdir("/").at("enter", "/")?)
}

/// Starts shims until the supervisor is gone. When this process ends, the kernel ends everything else here.
fn attend(socket: &OwnedFd, signals: &OwnedFd, filter: &seccomp::Filter) -> Result<(), ContainerError> {
    let mut shims = BTreeSet::new();
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None::<&Timespec>) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).act("wait for requests"),
        }
        let asked = !fds[0].revents().is_empty();
        reap(signals, &mut shims);
        if !asked {
            continue;
        }
        let Some((SandboxRequest::Spawn, fds)) = protocol::receive(socket, "supervisor")? else { return Ok(()) };
        let Ok([control, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(fds) else { continue };
        match sys::fork(UnshareFlags::empty(), false) {
            Ok(Fork::Parent(pid)) => drop(shims.insert(pid.as_raw_nonzero().get())),
            Ok(Fork::Child) => sys::exit_now(shim::run(control, [stdin, stdout, stderr], filter)),
            Err(e) => {
                let message = format!("cannot start a shim: {e}");
                drop(protocol::send(&control, &ShimReply::Failed { message, errno: None }, &[]));
            }
        }
    }
}

/// Collects the shims that ended and what containers left behind. A shim that is killed while its container is being made
/// leaves processes that wait for it, and hold its socket, so that nobody would ever learn of its end.
fn reap(signals: &OwnedFd, shims: &mut BTreeSet<i32>) {
    // A few pending signals are one; how many does not matter, since all children are looked at.
    let mut buffer = [0; 1024];
    while rustix::io::read(signals.as_fd(), &mut buffer).is_ok_and(|n| n > 0) {}
    let mut ended = false;
    while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
        ended |= shims.remove(&pid.as_raw_nonzero().get());
    }
    if !ended {
        return;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        if parent == Some(1)
            && !shims.contains(&pid)
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}
