//! Signals of the process that waits for a command.
//!
//! Unsafe because signal masks and actions are only to be had through libc.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

/// A signal that arrived.
pub(crate) struct Arrived {
    pub(crate) signal: i32,
    /// True if the kernel sent it (the terminal, to the whole foreground group), not another process to us.
    pub(super) from_kernel: bool,
}

/// These signals are blocked and read from a descriptor until this value is dropped.
pub(crate) struct Blocked {
    fd: OwnedFd,
    before: libc::sigset_t,
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything else uses it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both pointers are to live sets; on success the kernel has written the old one.
    unsafe {
        match libc::pthread_sigmask(how, set, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            e => Err(io::Error::from_raw_os_error(e)),
        }
    }
}

impl Blocked {
    pub(crate) fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        let before = change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: the set is initialised; a descriptor that comes back is fresh and ours.
        let fd = unsafe {
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC) {
                fd if fd < 0 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Self { fd, before })
    }

    /// The mask as it was before, as a program expects it at its start.
    pub(super) fn restore(&self) {
        // Can't fail: the set came from the kernel.
        drop(change_mask(libc::SIG_SETMASK, &self.before));
    }

    /// Readable when one has arrived.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Waits for the next one.
    pub(crate) fn wait(&self) -> io::Result<Arrived> {
        // The kernel's `struct signalfd_siginfo`: u32 signal, i32 errno, i32 code, ...
        let mut info = [0u8; 128];
        loop {
            match rustix::io::read(&self.fd, &mut info[..]) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => break,
            }
        }
        let field = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        Ok(Arrived { signal: field(0), from_kernel: field(8) > 0 })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Whether whoever started us wants a signal to have no effect, as `nohup` does.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this only asks; on success the kernel has written the present one.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Sends a signal to ourselves with its default action, although it may be blocked: to stop or to die of it.
pub(super) fn raise_default(signal: i32) {
    // SAFETY: setting the default action runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let set = set_of(&[signal]);
    // SAFETY: always allowed; stopping or killing this process is the purpose.
    unsafe { libc::raise(signal) };
    if let Ok(before) = change_mask(libc::SIG_UNBLOCK, &set) {
        drop(change_mask(libc::SIG_SETMASK, &before));
    }
}

/// Sends a signal to a process (positive) or a process group (negative).
pub(super) fn send(to: i32, signal: i32) {
    // SAFETY: `to` is a child of ours that has not been waited for, so the number can't be another's.
    unsafe { libc::kill(to, signal) };
}
