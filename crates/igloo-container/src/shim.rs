//! One process per container, forked from PID 1 of the sandbox: makes the container, then stays to serve its handle.
//!
//! It has a single thread, as libcontainer needs, and a mount and network namespace of its own. When the socket that
//! it is asked through ends, it kills the container; when it dies, the kernel does.

mod attend;
mod freeze;
mod notify;
mod oci;
mod payload;

pub use notify::NOTIFY_SOCKET;

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use igloo_base::At;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::mount::MountPropagationFlags;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::UnshareFlags;

use crate::error::{Act, ContainerError, chain};
use crate::harden::Locks;
use crate::network::{self, Attachment, Link};
use crate::protocol::{self, ShimReply, ShimRequest, Start};
use crate::seccomp::Filter;
use crate::spec::{ContainerSpec, Identity, Ipv4Net};
use crate::{egress, rootfs, sys, userns};

const PEER: &str = "supervisor";

/// Body of a shim; gives its exit code.
pub(crate) fn run(control: OwnedFd, stdio: [OwnedFd; 3], filter: &Filter) -> i32 {
    let result = start(&control, stdio, filter).and_then(|mut init| {
        let notify = init.notify.take();
        attend::attend(&control, &init, notify)
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            // Without a supervisor there is nobody to tell.
            let errno = match &error {
                ContainerError::NotRun { errno, .. } => Some(*errno),
                _ => None,
            };
            drop(protocol::send(&control, &ShimReply::Failed { message: chain(&error), errno }, &[]));
            1
        }
    }
}

/// The program of a container, running.
struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    spec: ContainerSpec,
    /// Readable when a child has ended.
    signals: OwnedFd,
    filter: Filter,
    notify: Option<notify::Notify>,
}

fn start(control: &OwnedFd, stdio: [OwnedFd; 3], filter: &Filter) -> Result<Init, ContainerError> {
    // Blocked until the program runs; it gets an empty mask of its own.
    let signals = sys::signal_fd(&[libc::SIGCHLD]).act("wait for children")?;
    let (Start { spec, identity, base, delegated, sources }, mut fds) = receive_start(control)?;
    let group = if delegated { fds.pop() } else { None };
    for group in fds.split_off(sources.min(fds.len())) {
        rustix::io::write(&group, b"0").act("join the control group")?;
    }
    let egress = connect(&spec)?;
    let notify = spec.notify.then(notify::Notify::listen).transpose().act("listen to the program")?;
    separate(&spec, identity, &base)?;
    for (index, source) in fds.into_iter().enumerate() {
        rootfs::attach_at(source, &base.join("source").join(index.to_string()))?;
    }
    let root = base.join("root");
    let layers = base.join("layers");
    igloo_base::file::create_dirs(&root)?;
    rootfs::assemble(&spec, identity, &layers, &root)?;
    let filter = if spec.locks() == Locks::Service { filter.clone() } else { spec.locks().filter()? };
    let (pid, pidfd, terminal) = create(&spec, &base, &root, stdio, &filter, group.as_ref())?;
    let fds = [Some(&pidfd), terminal.as_ref()].into_iter().flatten().chain(&egress);
    let fds: Vec<_> = fds.map(AsFd::as_fd).collect();
    // A supervisor that is gone is noticed later, as the end of its requests.
    drop(protocol::send(control, &ShimReply::Started { terminal: terminal.is_some() }, &fds));
    Ok(Init { pid, pidfd, spec, signals, filter, notify })
}

fn receive_start(control: &OwnedFd) -> Result<(Start, Vec<OwnedFd>), ContainerError> {
    let (request, mut fds) = protocol::expect::<ShimRequest>(control, PEER)?;
    if !matches!(request, ShimRequest::Start) || fds.is_empty() {
        return Err(ContainerError::Gone { peer: PEER });
    }
    let start = protocol::from_memory(fds.remove(0), PEER)?;
    Ok((start, fds))
}

/// A network namespace of the container's own, on the bridge if it has an address.
fn connect(spec: &ContainerSpec) -> Result<Vec<OwnedFd>, ContainerError> {
    let failed = |source| ContainerError::Network { source };
    let mut bridge = spec.address.map(|_| Link::open()).transpose().map_err(failed)?;
    sys::unshare(UnshareFlags::NEWNET).act("make a network namespace")?;
    match (spec.address, &mut bridge) {
        (Some(address), Some(bridge)) => {
            let to = Attachment {
                // Unlike the address, this is never one that a container just ended still has.
                name: format!("igloo{}", rustix::process::getpid().as_raw_nonzero()),
                address: Ipv4Net { address, prefix: spec.prefix },
                gateway: spec.gateway,
            };
            let mut own = Link::open().map_err(failed)?;
            let netns = fs::File::open("/proc/self/ns/net").at("open", "/proc/self/ns/net")?;
            network::attach(bridge, &mut own, netns.as_fd(), &to).map_err(failed)?;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .act("make a socket")?;
            sys::set_ethernet_address(socket, "eth0", ethernet_address(address)).act("set the ethernet address")?;
        }
        _ => network::loopback_up().map_err(failed)?,
    }
    // No port is privileged and everybody may ping, as far as the user namespace allows.
    for (name, values) in [("ip_unprivileged_port_start", &["0"][..]), ("ping_group_range", &["0 65535", "0 0"])] {
        let path = Path::new("/proc/sys/net/ipv4").join(name);
        let _ = values.iter().any(|value| fs::write(&path, value).is_ok());
    }
    match (&spec.egress, spec.address) {
        (Some(wanted), Some(address)) => {
            egress::prepare(wanted, Ipv4Net { address, prefix: spec.prefix }, spec.gateway)
                .act("make a way out of the network (is nf_tables with NAT in the kernel, or loaded?)")
        }
        _ => Ok(Vec::new()),
    }
}

/// From the address, so that neighbours which remember it are right after a restart as well.
fn ethernet_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // Locally administered, for one receiver.
    [0x02, 0x69, a, b, c, d]
}

/// Private mounts, and in single-uid mode a user namespace in which the container's user exists.
fn separate(spec: &ContainerSpec, identity: Identity, base: &Path) -> Result<(), ContainerError> {
    let nested = identity == Identity::SingleUid && (spec.user.uid, spec.user.gid) != (0, 0);
    let mut sysfs = None;
    if nested {
        // Shows the network namespace, so only its owner can mount it.
        sysfs = rootfs::fresh("sysfs", &[]).ok();
        userns::enter_as(spec.user.uid, spec.user.gid)?;
    }
    sys::unshare(UnshareFlags::NEWNS).act("make a mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .at("make mounts private below", "/")?;
    rootfs::mount_fresh("tmpfs", base, &[("mode", "0755")])?;
    if nested {
        let sysfs = sysfs.map_or_else(|| rootfs::clone_tree(Path::new("/sys")), Ok)?;
        rootfs::attach_at(sysfs, &base.join(oci::SYSFS))?;
    }
    Ok(())
}

/// Lets libcontainer make the container and waits until its program runs.
fn create(
    spec: &ContainerSpec,
    base: &Path,
    root: &Path,
    stdio: [OwnedFd; 3],
    filter: &Filter,
    group: Option<&OwnedFd>,
) -> Result<(Pid, OwnedFd, Option<OwnedFd>), ContainerError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ContainerError::Libcontainer {
        id: spec.id.clone(),
        source: error,
    };
    let (bundle, state) = (base.join("bundle"), base.join("state"));
    igloo_base::file::create_dirs(&bundle)?;
    igloo_base::file::create_dirs(&state)?;
    oci::write(spec, base, root, &bundle).map_err(|e| failed(e.into()))?;
    for (number, stream) in (0..).zip(stdio) {
        sys::install_fd(stream, number).act("pass on standard input and output")?;
    }
    let console = base.join("console");
    let terminal = spec.terminal.map(|_| listen(base)).transpose().at("listen on", &console)?;
    let (report, told) = io::pipe().act("make a pipe")?;
    let payload = payload::Payload::new(spec, filter.clone(), told.as_fd(), group.map(AsFd::as_fd));
    let mut container = ContainerBuilder::new(spec.id.clone(), SyscallType::default())
        .with_root_path(&state)
        .map_err(|e| failed(e.into()))?
        .with_console_socket(spec.terminal.map(|_| console))
        .with_executor(payload)
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| failed(e.into()))?;
    container.start().map_err(|e| failed(e.into()))?;
    drop(told);
    // The end of this pipe is the program's exec.
    let mut said = Vec::new();
    io::Read::read_to_end(&mut io::BufReader::new(report), &mut said).act("wait for the program")?;
    if !said.is_empty() {
        return Err(payload::heard(&said));
    }
    let terminal = terminal.map(receive_terminal).transpose()?;
    // The program alone holds its output from here on.
    let null = fs::File::open("/dev/null").at("open", "/dev/null")?;
    for number in 0..=2 {
        sys::install_fd(&null, number).act("let go of standard input and output")?;
    }
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
    let pid = pid.ok_or(ContainerError::Gone { peer: "container" })?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).act("refer to the program")?;
    Ok((pid, pidfd, terminal))
}

/// A socket that is called `console` in a directory; by descriptor, since the names of sockets have to be short.
fn listen(base: &Path) -> io::Result<UnixListener> {
    let directory = fs::File::open(base)?;
    UnixListener::bind(format!("/proc/self/fd/{}/console", directory.as_raw_fd()))
}

/// What libcontainer has sent to its console socket by the time the program runs.
fn receive_terminal(listener: UnixListener) -> Result<OwnedFd, ContainerError> {
    // Never to wait for somebody who will not come.
    listener.set_nonblocking(true).act("take the terminal")?;
    let (stream, _) = listener.accept().act("take the terminal")?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 64];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(&stream, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, flags)
        .act("take the terminal")?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().and_then(|mut fds| fds.next()).ok_or(ContainerError::Gone { peer: "container" })
}
