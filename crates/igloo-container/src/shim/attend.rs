//! The shim's service while its container runs.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;

use super::notify::Notify;
use super::{Init, PEER, freeze, payload};
use crate::error::{Act, ContainerError};
use crate::protocol::{self, ShimReply, ShimRequest};
use crate::spec::SocketKind;
use crate::sys::{self, Fork};

/// Serves requests until the container's program has ended, and tells how it did.
pub(super) fn attend(control: &OwnedFd, init: &Init, mut notify: Option<Notify>) -> Result<(), ContainerError> {
    let mut shim = Shim { control, init, execs: HashMap::new(), ended_by: None };
    let mut listening = true;
    loop {
        let mut fds = vec![PollFd::new(&init.signals, PollFlags::IN)];
        if listening {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        let mut pause = None;
        let mut hears = None;
        match notify.as_mut().map(Notify::wait) {
            Some(Ok(fd)) => {
                hears = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
            Some(Err(rest)) => {
                pause = Some(Timespec { tv_sec: 0, tv_nsec: i64::from(rest.subsec_nanos().max(1)) });
            }
            None => {}
        }
        match rustix::event::poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).act("wait for requests"),
        }
        let asked = listening && fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let told = hears.is_some_and(|at| !fds[at].revents().is_empty());
        if told && let Some(notify) = &mut notify {
            let is_ours = |pid: Pid| freeze::belongs(init.pid, pid.as_raw_nonzero().get());
            if let Some(said) = notify.take(is_ours) {
                shim.reply(&ShimReply::Notified(said), None);
            }
        }
        if let Some(status) = shim.reap() {
            let (code, mut signal) = (status.exit_status(), status.terminating_signal());
            if signal == Some(libc::SIGKILL) {
                signal = shim.ended_by.or(signal);
            }
            return protocol::send(control, &ShimReply::Exited { code, signal }, &[]);
        }
        if asked {
            match protocol::receive(control, PEER) {
                Ok(Some((request, fds))) => shim.serve(request, fds)?,
                // The end, or nonsense: either way there is no more supervisor to serve.
                Ok(None) | Err(_) => {
                    listening = false;
                    shim.signal(Signal::KILL.as_raw());
                }
            }
        }
    }
}

struct Shim<'a> {
    control: &'a OwnedFd,
    init: &'a Init,
    /// Commands that run in the container, by the process that waits for them.
    execs: HashMap<Pid, u64>,
    /// The signal whose default action was carried out for the kernel.
    ended_by: Option<i32>,
}

impl Shim<'_> {
    /// Collects children; gives the status of the container's program if it has ended.
    fn reap(&mut self) -> Option<WaitStatus> {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.init.signals, &mut buffer).is_ok_and(|n| n > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.init.pid && (status.exited() || status.signaled()) {
                return Some(status);
            }
            if let Some(id) = self.execs.remove(&pid) {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n));
                self.reply(&ShimReply::ExecExited { id, code: code.unwrap_or(1) }, None);
            }
        }
        None
    }

    fn serve(&mut self, request: ShimRequest, fds: Vec<OwnedFd>) -> Result<(), ContainerError> {
        match request {
            ShimRequest::Start => {}
            ShimRequest::Signal { signal } => self.signal(signal),
            ShimRequest::Kill => self.signal(Signal::KILL.as_raw()),
            ShimRequest::Pause { on } => {
                let done = freeze::freeze(self.init.pid, on);
                self.reply(&ShimReply::Paused { done }, None);
            }
            ShimRequest::Socket { kind } => match socket(kind) {
                Ok(socket) => self.reply(&ShimReply::Socket, Some(socket)),
                Err(e) => self.reply(&ShimReply::SocketFailed { errno: e.raw_os_error() }, None),
            },
            ShimRequest::Exec { id, args } => self.exec(id, &args, fds),
            ShimRequest::ExecKill { id } => {
                if let Some((pid, _)) = self.execs.iter().find(|(_, running)| **running == id) {
                    // The command dies with the process that waits for it.
                    let _ = rustix::process::kill_process(*pid, Signal::KILL);
                }
            }
        }
        Ok(())
    }

    /// To the program itself; a signal that does not exist is lost.
    ///
    /// The kernel spares PID 1 of a namespace the default actions, so that a program which never thought of SIGTERM
    /// would not end by it. It is no init, and ends here as it would anywhere else.
    fn signal(&mut self, number: i32) {
        if number != libc::SIGKILL && ends_by_default(number) && self.has_no_plan_for(number) {
            self.ended_by = Some(number);
            return sys::pidfd_signal(&self.init.pidfd, libc::SIGKILL);
        }
        sys::pidfd_signal(&self.init.pidfd, number);
    }

    /// True if the program neither handles nor ignores nor blocks a signal.
    fn has_no_plan_for(&self, number: i32) -> bool {
        let path = format!("/proc/{}/status", self.init.pid.as_raw_nonzero());
        let Ok(status) = std::fs::read_to_string(path) else { return false };
        let bit = 1u64 << (number - 1);
        let planned = |line: &str| {
            let set = ["SigBlk:", "SigIgn:", "SigCgt:"].iter().find_map(|name| line.strip_prefix(name))?;
            u64::from_str_radix(set.trim(), 16).ok()
        };
        status.lines().filter_map(planned).all(|set| set & bit == 0)
    }

    fn exec(&mut self, id: u64, args: &[String], fds: Vec<OwnedFd>) {
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(fds) else {
            let message = "no output was passed along".to_owned();
            return self.reply(&ShimReply::ExecFailed { id, message }, None);
        };
        match sys::fork(UnshareFlags::empty(), false) {
            Ok(Fork::Child) => payload::join(self.init, args, [stdout.as_fd(), stderr.as_fd()]),
            Ok(Fork::Parent(pid)) => drop(self.execs.insert(pid, id)),
            Err(e) => self.reply(&ShimReply::ExecFailed { id, message: format!("cannot start a process: {e}") }, None),
        }
    }

    /// An answer that can't be given is to a supervisor that is gone, which is noticed elsewhere.
    fn reply(&self, reply: &ShimReply, fd: Option<OwnedFd>) {
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        drop(protocol::send(self.control, reply, &fds));
    }
}

fn ends_by_default(number: i32) -> bool {
    use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    let spares = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
    (1..=64).contains(&number) && !spares.contains(&number)
}

fn socket(kind: SocketKind) -> Result<OwnedFd, Errno> {
    let (family, kind) = match kind {
        SocketKind::Tcp4 => (AddressFamily::INET, SocketType::STREAM),
        SocketKind::Tcp6 => (AddressFamily::INET6, SocketType::STREAM),
        SocketKind::Udp4 => (AddressFamily::INET, SocketType::DGRAM),
        SocketKind::Udp6 => (AddressFamily::INET6, SocketType::DGRAM),
    };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
}
