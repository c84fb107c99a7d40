//! Which paths a command looks at: every open, stat and readlink is told to us by the kernel (seccomp_unotify(2)), noted,
//! and goes on. It sees what no log of an evaluator's tells: files read by `readFile`, names that were looked for and
//! are not there, listings. What other processes look at that it starts, as builders, is not noted.
//!
//! Unsafe because the filter is installed between fork and exec, and the kernel fills structures of its own.
#![allow(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};

/// Most paths that are noted; the largest evaluations look at some ten thousand.
const MAX_PATHS: usize = 500_000;
/// The kernel's longest path.
const MAX_PATH: usize = 4096;
const PAGE: u64 = 4096;

/// Paths, absolute and without `.` or `..`; symlinks in them are as they were named.
#[derive(Debug, Default)]
pub struct Reads {
    /// Opened: files to be read, directories to be listed.
    pub opened: BTreeSet<PathBuf>,
    /// Asked for their state or their target, or whether they are there.
    pub asked: BTreeSet<PathBuf>,
    /// The kernel did not let us watch, or there was more than is noted: something may be missing.
    pub incomplete: bool,
}

/// [`Command::output`] with standard output and error piped, noting what is looked at.
pub(super) fn output(
    command: &mut Command,
    wanted: impl Fn(&Path) -> bool + Send,
    reads: &mut Reads,
) -> io::Result<Output> {
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let filter = filter();
    let told = theirs.as_raw_fd();
    // SAFETY: between fork and exec only system calls are made, on memory that was prepared before.
    unsafe {
        command.pre_exec(move || {
            // Without a listener the command runs unwatched, which the parent notices.
            if let Ok(listener) = install(&filter) {
                tell(told, &listener)?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop(theirs);
    let listener = receive(&ours);
    let threads = PathBuf::from(format!("/proc/{}/task", child.id()));
    std::thread::scope(|scope| {
        let watcher = listener.map(|listener| {
            let (stopped, stop) = io::pipe()?;
            let thread = scope.spawn(move || {
                let mut watch = Watch { threads, known: HashMap::new(), wanted: &wanted, reads: Reads::default() };
                watch.listen(&listener, stopped.as_fd());
                watch.reads
            });
            io::Result::Ok((thread, stop))
        });
        let output = child.wait_with_output();
        match watcher.transpose()? {
            Some((thread, stop)) => {
                drop(stop);
                *reads = thread.join().unwrap_or(Reads { incomplete: true, ..Reads::default() });
            }
            None => reads.incomplete = true,
        }
        output
    })
}

/// System calls that name a path: number, place of the path among the arguments, whether it opens, place of its flags.
const CALLS: &[(libc::c_long, usize, Option<usize>)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 0, Some(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, 0, None),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, 0, None),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, 0, None),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, 0, None),
    (libc::SYS_openat, 1, Some(2)),
    (libc::SYS_openat2, 1, Some(usize::MAX)),
    (libc::SYS_newfstatat, 1, None),
    (libc::SYS_statx, 1, None),
    (libc::SYS_readlinkat, 1, None),
    (libc::SYS_faccessat, 1, None),
    (libc::SYS_faccessat2, 1, None),
];

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Tells us of [`CALLS`] and allows everything.
fn filter() -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let equal = |k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let end = |action: u32| statement(libc::BPF_RET | libc::BPF_K, action);
    // `struct seccomp_data`: the number at 0, the architecture at 4.
    let mut program = vec![load(4), equal(ARCH, 1, 0), end(libc::SECCOMP_RET_ALLOW), load(0)];
    for (at, (number, ..)) in CALLS.iter().enumerate() {
        let rest = (CALLS.len() - at) as u8;
        program.push(equal(*number as u32, rest, 0));
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    program.push(end(libc::SECCOMP_RET_USER_NOTIF));
    program
}

/// Puts this process and its children under the filter; gives where the kernel tells.
fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: plain numbers; then a live program of the length that is given, which the kernel copies.
    let fd = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            std::ptr::from_ref(&program),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends the listener to the parent; between fork and exec.
fn tell(socket: i32, listener: &OwnedFd) -> io::Result<()> {
    // SAFETY: open until exec.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [listener.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let data = [io::IoSlice::new(b"l")];
    rustix::net::sendmsg(socket, &data, &mut control, rustix::net::SendFlags::empty())?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// `_IOWR('!', 0, struct seccomp_notif)` and `_IOWR('!', 1, struct seccomp_notif_resp)`.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const RESPOND: libc::c_ulong = 0xc018_2101;
const _: () = assert!(size_of::<libc::seccomp_notif>() == 0x50 && size_of::<libc::seccomp_notif_resp>() == 0x18);

/// One command that is watched.
struct Watch<'w> {
    /// Lists its threads.
    threads: PathBuf,
    /// Threads seen so far, and whether they are its own.
    known: HashMap<u32, bool>,
    wanted: &'w dyn Fn(&Path) -> bool,
    reads: Reads,
}

impl Watch<'_> {
    /// Notes and lets go on, until all who are watched have ended or `stop` has.
    fn listen(&mut self, listener: &OwnedFd, stop: BorrowedFd<'_>) {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None::<&Timespec>) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            let (told, over) = (fds[0].revents(), fds[1].revents());
            if told.contains(PollFlags::IN) {
                // SAFETY: structures of plain numbers, of the sizes that the requests name; the kernel wants zeroes.
                unsafe {
                    let mut notice: libc::seccomp_notif = std::mem::zeroed();
                    if libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut notice) < 0 {
                        continue;
                    }
                    self.note(&notice);
                    let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
                    answer.id = notice.id;
                    answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
                    // One that was killed meanwhile needs none.
                    libc::ioctl(listener.as_raw_fd(), RESPOND as _, &raw mut answer);
                }
            } else if !told.is_empty() || !over.is_empty() {
                return;
            }
        }
    }

    fn note(&mut self, notice: &libc::seccomp_notif) {
        let threads = &self.threads;
        let is_own = || threads.join(notice.pid.to_string()).exists();
        if !*self.known.entry(notice.pid).or_insert_with(is_own) {
            return;
        }
        let number = libc::c_long::from(notice.data.nr);
        let Some((_, place, flags)) = CALLS.iter().find(|(call, ..)| *call == number) else { return };
        let Some(name) = text_at(notice.pid, notice.data.args[*place]).filter(|name| !name.is_empty()) else { return };
        let name = Path::new(OsStr::from_bytes(&name));
        let process = PathBuf::from(format!("/proc/{}", notice.pid));
        let path = if name.is_absolute() {
            name.to_owned()
        } else {
            let directory = notice.data.args[0] as i32;
            let at = match place {
                1 if directory != libc::AT_FDCWD => process.join(format!("fd/{directory}")),
                _ => process.join("cwd"),
            };
            let Ok(base) = std::fs::read_link(at) else { return };
            base.join(name)
        };
        let path = normal(&path);
        if !(self.wanted)(&path) {
            return;
        }
        if self.reads.opened.len() + self.reads.asked.len() >= MAX_PATHS {
            self.reads.incomplete = true;
            return;
        }
        match flags.map(|at| notice.data.args.get(at).map_or(0, |flags| *flags as i32)) {
            // What is written is no source of anything.
            Some(flags) if flags & libc::O_ACCMODE != libc::O_RDONLY => false,
            Some(flags) if flags & libc::O_PATH == 0 => self.reads.opened.insert(path),
            _ => self.reads.asked.insert(path),
        };
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The text that ends in a zero at an address of another process.
fn text_at(pid: u32, address: u64) -> Option<Vec<u8>> {
    let mut buffer = vec![0_u8; MAX_PATH];
    // In two pieces, since what lies behind the end of a page may not be there.
    let first = (PAGE - address % PAGE).min(MAX_PATH as u64) as usize;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let piece = |base: u64, len: usize| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: len };
    let remote = [piece(address, first), piece(address.wrapping_add(first as u64), MAX_PATH - first)];
    // SAFETY: writes into `buffer` alone, at most its length; a bad address elsewhere is an error.
    let read = unsafe { libc::process_vm_readv(pid as i32, &raw const local, 1, remote.as_ptr(), 2, 0) };
    let read = usize::try_from(read).ok()?;
    let end = buffer[..read].iter().position(|b| *b == 0)?;
    buffer.truncate(end);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Stdio;

    #[test]
    fn what_a_command_looks_at_is_noted() {
        let here = tempfile::tempdir().expect("tempdir");
        let base = here.path().canonicalize().expect("path");
        fs::create_dir(base.join("sub")).expect("mkdir");
        fs::write(base.join("sub/read"), "the text").expect("write");
        let mut command = Command::new("/bin/sh");
        let script = "read text < sub/../sub/read; echo $text; test -e missing; (cd sub && ls other); cd sub; \
                      test -L nothing; for f in ../*; do :; done; echo x > ../written; exit 3";
        command.args(["-c", script]);
        command.current_dir(&base).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut reads = Reads::default();
        let of_here = base.clone();
        let output = output(&mut command, move |p| p.starts_with(&of_here), &mut reads).expect("run");
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.starts_with(b"the text"), "{output:?}");
        assert!(!reads.incomplete);
        assert!(reads.opened.contains(&base.join("sub/read")), "{reads:?}");
        assert!(reads.opened.contains(&base), "listed: {reads:?}");
        assert!(reads.asked.contains(&base.join("missing")), "{reads:?}");
        assert!(reads.asked.contains(&base.join("sub/nothing")), "{reads:?}");
        for not in ["sub/other", "written"] {
            assert!(!reads.asked.contains(&base.join(not)) && !reads.opened.contains(&base.join(not)), "{reads:?}");
        }
    }
}
