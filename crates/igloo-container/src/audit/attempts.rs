//! What is tried: raw system calls, each of which would do no harm if it were let through.
//!
//! Unsafe because most of these have no wrapper anywhere, and must be seen with the kernel's very own answer.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::sys;

/// `PTRACE_ATTACH` of the kernel.
const PTRACE_ATTACH: u64 = 16;
/// Of calls on x86 that were made with 32-bit pointers.
const X32: i64 = 0x4000_0000;

/// A call with up to five numbers or null pointers: the error's number, or what it gave.
pub(super) fn call(number: i64, args: [u64; 5]) -> Result<i64, i32> {
    // SAFETY: pointers are null or zero, which the kernel refuses with an error at most; callers give numbers of calls
    // that change nothing in this process when made so.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], 0u64) };
    if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

/// The same with a text as one of the arguments.
pub(super) fn call_with(number: i64, mut args: [u64; 5], at: usize, text: &str) -> Result<i64, i32> {
    let text = CString::new(text).unwrap_or_default();
    args[at] = text.as_ptr() as u64;
    call(number, args)
}

/// In a process of its own, for what would change the one that tries.
pub(super) fn apart(attempt: impl FnOnce() -> Result<i64, i32>) -> Result<i64, i32> {
    match sys::fork(UnshareFlags::empty(), false) {
        Ok(sys::Fork::Child) => sys::exit_now(match attempt() {
            Ok(_) => 0,
            Err(e) => e.clamp(1, 255),
        }),
        Ok(sys::Fork::Parent(pid)) => ended(pid),
        Err(_) => Err(libc::EAGAIN),
    }
}

fn ended(pid: Pid) -> Result<i64, i32> {
    match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
        Ok(Some((_, status))) => match status.exit_status() {
            Some(0) => Ok(0),
            Some(errno) => Err(errno),
            // Killed by the filter: refused as well.
            None => Err(libc::EPERM),
        },
        _ => Err(libc::EAGAIN),
    }
}

pub(super) fn mount(kind: &str, target: &str, flags: u64) -> Result<i64, i32> {
    let [kind, place] = [kind, target].map(|text| CString::new(text).unwrap_or_default());
    // SAFETY: three strings that end with NUL and outlive the call; no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    if result == 0 {
        // Let through: undone at once, if it was new.
        if flags & libc::MS_REMOUNT == 0 {
            // SAFETY: a string that ends with NUL.
            unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        }
        return Ok(0);
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// A socket; closed again at once if there is one.
pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> Result<i64, i32> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, kind, protocol) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    // SAFETY: ours, and used by nobody.
    unsafe { libc::close(fd) };
    Ok(0)
}

/// Makes a device and looks whether it can be opened.
pub(super) fn device(path: &Path, kind: u32, major: u32, minor: u32) -> Result<i64, i32> {
    let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else { return Err(libc::EINVAL) };
    // SAFETY: strings that end with NUL; what is made here is removed here.
    unsafe {
        if libc::mknod(name.as_ptr(), kind | 0o600, libc::makedev(major, minor)) != 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        let fd = libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        libc::unlink(name.as_ptr());
        if fd < 0 {
            return Err(errno);
        }
        libc::close(fd);
        Ok(0)
    }
}

/// The calls that belong to a check, by name.
pub(super) type Attempts = Vec<(&'static str, Result<i64, i32>)>;

pub(super) fn modules() -> Attempts {
    vec![
        ("init_module", call(libc::SYS_init_module, [0; 5])),
        ("finit_module", call(libc::SYS_finit_module, [u64::MAX, 0, 0, 0, 0])),
        ("delete_module", call_with(libc::SYS_delete_module, [0; 5], 0, "igloo-audit-no-such-module")),
    ]
}

pub(super) fn machine() -> Attempts {
    vec![
        ("kexec_load", call(libc::SYS_kexec_load, [0; 5])),
        ("kexec_file_load", call(libc::SYS_kexec_file_load, [u64::MAX, u64::MAX, 0, 0, 0])),
        // With magic numbers that the kernel would refuse.
        ("reboot", call(libc::SYS_reboot, [0; 5])),
        ("swapon", call_with(libc::SYS_swapon, [0; 5], 0, "/dev/null")),
        ("swapoff", call_with(libc::SYS_swapoff, [0; 5], 0, "/dev/null")),
        ("settimeofday", call(libc::SYS_settimeofday, [1; 5])),
        ("clock_settime", call(libc::SYS_clock_settime, [0; 5])),
        // Of a length that the kernel would refuse.
        ("sethostname", call(libc::SYS_sethostname, [0, u64::MAX, 0, 0, 0])),
        ("setdomainname", call(libc::SYS_setdomainname, [0, u64::MAX, 0, 0, 0])),
        ("acct", call_with(libc::SYS_acct, [0; 5], 0, "/igloo-audit-no-such-file")),
        ("quotactl", call(libc::SYS_quotactl, [0; 5])),
        ("syslog", call(libc::SYS_syslog, [3, 0, 0, 0, 0])),
    ]
}

pub(super) fn surface() -> Attempts {
    vec![
        ("bpf", call(libc::SYS_bpf, [0; 5])),
        ("perf_event_open", call(libc::SYS_perf_event_open, [0; 5])),
        ("userfaultfd", call(libc::SYS_userfaultfd, [0; 5])),
        // O_CLOEXEC and UFFD_USER_MODE_ONLY: what the kernel gives to everybody.
        ("userfaultfd for users", call(libc::SYS_userfaultfd, [0x8_0001, 0, 0, 0, 0])),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0])),
        ("io_uring_enter", call(libc::SYS_io_uring_enter, [u64::MAX, 0, 0, 0, 0])),
        ("io_uring_register", call(libc::SYS_io_uring_register, [u64::MAX, 0, 0, 0, 0])),
        ("keyctl", call(libc::SYS_keyctl, [0, 0, 0, 0, 0])),
        ("add_key", call(libc::SYS_add_key, [0; 5])),
        ("request_key", call(libc::SYS_request_key, [0; 5])),
        ("kcmp", call(libc::SYS_kcmp, [0; 5])),
        ("fanotify_init", call(libc::SYS_fanotify_init, [0; 5])),
        ("lookup_dcookie", call(libc::SYS_lookup_dcookie, [0; 5])),
        ("move_pages", call(libc::SYS_move_pages, [0; 5])),
        ("fsopen", call_with(libc::SYS_fsopen, [0; 5], 0, "tmpfs")),
        ("open_tree", call_with(libc::SYS_open_tree, [libc::AT_FDCWD as u64, 0, 1, 0, 0], 1, "/")),
    ]
}

pub(super) fn families() -> Attempts {
    vec![
        ("AF_ALG", socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
        ("AF_VSOCK", socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        ("AF_PACKET", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("AF_PACKET dgram", socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
        ("AF_KEY", socket(libc::AF_KEY, libc::SOCK_RAW, 2)),
        ("AF_BLUETOOTH", socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 0)),
        ("AF_CAN", socket(libc::AF_CAN, libc::SOCK_RAW, 1)),
        ("AF_XDP", socket(libc::AF_XDP, libc::SOCK_RAW, 0)),
        ("AF_TIPC", socket(libc::AF_TIPC, libc::SOCK_STREAM, 0)),
        ("AF_RDS", socket(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    ]
}

pub(super) fn raw_sockets() -> Attempts {
    vec![
        ("raw IPv4", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
        ("raw IPv6", socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)),
        ("SOCK_PACKET", socket(libc::AF_INET, 10, 0)),
        ("packet", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ]
}

pub(super) fn namespaces() -> Attempts {
    let flags = [
        ("unshare(NEWUSER)", libc::CLONE_NEWUSER),
        ("unshare(NEWNS)", libc::CLONE_NEWNS),
        ("unshare(NEWNET)", libc::CLONE_NEWNET),
        ("unshare(NEWPID)", libc::CLONE_NEWPID),
        ("unshare(NEWIPC)", libc::CLONE_NEWIPC),
        ("unshare(NEWUTS)", libc::CLONE_NEWUTS),
        ("unshare(NEWCGROUP)", libc::CLONE_NEWCGROUP),
    ];
    let bits = |flag: i32| u64::from(flag.unsigned_abs());
    let mut all: Attempts = flags
        .into_iter()
        .map(|(name, flag)| (name, apart(|| call(libc::SYS_unshare, [bits(flag), 0, 0, 0, 0]))))
        .collect();
    all.push(("setns", call(libc::SYS_setns, [u64::MAX, 0, 0, 0, 0])));
    // Its arguments can't be filtered, so that it must not be there at all.
    all.push(("clone3", call(libc::SYS_clone3, [0; 5])));
    all.push((
        "clone(NEWUSER)",
        apart(|| match call(libc::SYS_clone, [bits(libc::CLONE_NEWUSER | libc::SIGCHLD), 0, 0, 0, 0]) {
            // The child of a clone that was let through.
            Ok(0) => sys::exit_now(0),
            other => other,
        }),
    ));
    all
}

pub(super) fn terminals() -> Attempts {
    vec![
        ("TIOCSTI", call_with(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0], 2, "x")),
        ("TIOCSTI with a high half", call_with(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0], 2, "x")),
        ("TIOCLINUX", call_with(libc::SYS_ioctl, [0, 0x541c, 0, 0, 0], 2, "\u{6}")),
    ]
}

pub(super) fn handles() -> Attempts {
    vec![("open_by_handle_at", call(libc::SYS_open_by_handle_at, [libc::AT_FDCWD as u64, 0, 0, 0, 0]))]
}

/// Against a process of the host.
pub(super) fn on_process(pid: u32) -> Attempts {
    let pid = u64::from(pid);
    vec![
        ("kill", call(libc::SYS_kill, [pid, 0, 0, 0, 0])),
        ("ptrace", call(libc::SYS_ptrace, [PTRACE_ATTACH, pid, 0, 0, 0])),
        ("process_vm_readv", read_memory(pid)),
        ("pidfd_open", call(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0])),
    ]
}

/// A few bytes from another process's memory. Without a place to put them the kernel looks at nobody.
fn read_memory(pid: u64) -> Result<i64, i32> {
    let mut bytes = [0u8; 8];
    let mine = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(0x1000), iov_len: bytes.len() };
    let [mine, theirs] = [&raw const mine, &raw const theirs].map(|p| p as u64);
    call(libc::SYS_process_vm_readv, [pid, mine, 1, theirs, 1])
}

/// What the machine's other conventions for calls let through.
pub(super) fn other_abis() -> Attempts {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    // Not there, or killed for it.
    vec![("getpid as x32", apart(|| call(X32 | libc::SYS_getpid, [0; 5])))]
}

pub(super) fn personality() -> Attempts {
    // ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
    vec![
        ("no address randomisation", apart(|| call(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]))),
        ("readable is executable", apart(|| call(libc::SYS_personality, [0x040_0000, 0, 0, 0, 0]))),
    ]
}
