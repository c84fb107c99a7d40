//! System calls that rustix does not wrap, behind safe functions.
//!
//! Unsafe because a process is made and namespaces are changed by raw system call; everything that forks here is
//! called only where the process has a single thread.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn mount_setattr(mount: impl AsFd, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated string, `attr` is a live structure of the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(drop)
}

/// Adds `MOUNT_ATTR_*` flags to a mount and, if `recursive`, all below it.
pub(crate) fn restrict_mount(mount: impl AsFd, flags: u64, recursive: bool) -> io::Result<()> {
    mount_setattr(mount, recursive, &MountAttr { set: flags, clear: 0, propagation: 0, userns: 0 })
}

/// Shows a detached mount through the id map of a user namespace.
pub(crate) fn idmap_mount(mount: impl AsFd, userns: impl AsFd, recursive: bool) -> io::Result<()> {
    let userns = userns.as_fd().as_raw_fd();
    let userns = u64::try_from(userns).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    mount_setattr(mount, recursive, &MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns })
}

/// Which side of a fork runs.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the id of the new.
    Parent(Pid),
}

/// Forks into new namespaces; `sibling` makes the child one of our parent. Only for processes with one thread.
pub(crate) fn fork(namespaces: UnshareFlags, sibling: bool) -> io::Result<Fork> {
    let mut flags = i64::from(namespaces.bits());
    flags |= i64::from(if sibling { libc::CLONE_PARENT } else { 0 } | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no new stack this is fork(2): the child goes on with a copy of everything.
    // With one thread there is no lock that could be held by another.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    let pid = i32::try_from(checked(result)?).map_err(io::Error::other)?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// Ends this process at once: no destructors, no exit handlers. For the child of a [`fork`].
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces. Only for processes with one thread.
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: CLONE_FILES, the reason why this is unsafe, is never given: descriptors keep their meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces.difference(UnshareFlags::FILES)) }?)
}

/// Blocks these signals and gives a descriptor that becomes readable when one is pending.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before it is used; the descriptor is fresh and ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Default actions and an empty mask for every signal, as a program expects them at its start. By raw system call,
/// since the C library keeps its hands on two of them, which its own posix_spawn leaves ignored.
pub(crate) fn reset_signals() {
    const SIGNALS: i32 = 64;
    // The kernel's `struct sigaction` and `sigset_t`, all zero: default action, no flags; no signal.
    let zero = [0u64; 8];
    // SAFETY: `zero` is at least as large as either structure on every architecture; setting a default action never
    // runs code of ours.
    unsafe {
        for signal in 1..=SIGNALS {
            libc::syscall(libc::SYS_rt_sigaction, signal, zero.as_ptr(), std::ptr::null::<u8>(), 8);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, zero.as_ptr(), std::ptr::null::<u8>(), 8);
    }
}

/// Replaces this process; returns only the failure.
pub(crate) fn execve(program: &std::ffi::CStr, args: &[std::ffi::CString], env: &[std::ffi::CString]) -> io::Error {
    let pointers = |list: &[std::ffi::CString]| {
        let mut pointers: Vec<*const libc::c_char> = list.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes descriptor `number` a copy of `fd`, whatever it was before; it stays open across exec.
pub(crate) fn install_fd(fd: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: `fd` is open; what `number` named is replaced, and only standard streams are replaced by us.
    checked(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }.into()).map(drop)
}

/// Takes over standard input and leaves nothing at its number.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    install_fd(null, 0)?;
    Ok(taken)
}

/// Marks every descriptor from 3 on close-on-exec.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: only sets flags on descriptors.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Sets the Ethernet address of an interface of the network namespace that `socket` is in.
pub(crate) fn set_ethernet_address(socket: impl AsFd, interface: &str, address: [u8; 6]) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid; the name fits, its terminating NUL included, and the ioctl reads `request`.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in request.ifr_ifru.ifru_hwaddr.sa_data.iter_mut().zip(address) {
            *to = from.cast_signed() as libc::c_char;
        }
        let result = libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFHWADDR, &raw const request);
        checked(result.into()).map(drop)
    }
}

/// Writes to a descriptor known by number; what can't be written is lost.
pub(crate) fn write_raw(fd: std::os::fd::RawFd, bytes: &[u8]) {
    // SAFETY: the buffer is valid for its length; a number that names no descriptor is an error and no harm.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// Sends a signal by number to what a pidfd refers to; failures are lost.
pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: i32) {
    // SAFETY: no pointers but a null one, which means default information.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, std::ptr::null::<u8>(), 0);
    }
}

/// Which version of Landlock the kernel has; 0 is none.
pub(crate) fn landlock_version() -> i64 {
    const VERSION: u64 = 1;
    // SAFETY: no attributes are read for this question.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) }
}

/// Denies this process, and all that come from it, these acts on files but for what is allowed below a directory.
/// Needs no_new_privs.
pub(crate) fn landlock(denied: u64, allowed: u64, directory: impl AsFd) -> io::Result<()> {
    const PATH_BENEATH: u64 = 1;
    // The kernel's `struct landlock_path_beneath_attr`, which is packed: eight bytes and four.
    let mut rule = [0u8; 12];
    rule[..8].copy_from_slice(&allowed.to_ne_bytes());
    rule[8..].copy_from_slice(&directory.as_fd().as_raw_fd().to_ne_bytes());
    // SAFETY: both structures are alive and as long as is said; the descriptor is fresh and ours.
    unsafe {
        let fd = checked(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const denied, 8, 0))?;
        let fd = OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?);
        let number = fd.as_raw_fd();
        checked(libc::syscall(libc::SYS_landlock_add_rule, number, PATH_BENEATH, rule.as_ptr(), 0))?;
        checked(libc::syscall(libc::SYS_landlock_restrict_self, number, 0)).map(drop)
    }
}

/// The program's end of a terminal, by our end of it.
pub(crate) fn terminal_peer(terminal: impl AsFd) -> io::Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number; the descriptor that comes back is fresh and ours.
    unsafe {
        let fd = checked(libc::ioctl(terminal.as_fd().as_raw_fd(), TIOCGPTPEER, flags).into())?;
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Address and port that a connection was made to before the kernel redirected it.
pub(crate) fn original_destination(socket: impl AsFd) -> io::Result<([u8; 4], u16)> {
    const SO_ORIGINAL_DST: libc::c_int = 80;
    // SAFETY: an all-zero sockaddr_in is valid, and the kernel writes no more than the length that is given.
    unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let result = libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            SO_ORIGINAL_DST,
            (&raw mut address).cast(),
            &raw mut length,
        );
        checked(result.into())?;
        Ok((address.sin_addr.s_addr.to_ne_bytes(), u16::from_be(address.sin_port)))
    }
}
