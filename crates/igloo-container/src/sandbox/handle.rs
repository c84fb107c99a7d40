//! The supervisor's side of one container.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::net::Shutdown;

use crate::cgroup::Cgroup;
use crate::error::{Act, ContainerError, chain};
use crate::protocol::{self, ShimReply, ShimRequest};
use crate::spec::{ContainerEvent, SocketKind};

const PEER: &str = "shim";
/// A shim answers within microseconds; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Handle of a container; it is killed when the handle is dropped.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    /// Host pid of the program; 0 while there is none.
    pid: AtomicU32,
    /// The other end of the program's terminal, until somebody takes it.
    terminal: Mutex<Option<OwnedFd>>,
    /// The sockets of its way out, until somebody takes them.
    egress: Mutex<Vec<OwnedFd>>,
    waiting: Mutex<Waiting>,
    next_exec: AtomicU64,
    /// Held by whoever waits for a socket, so that answers find their question.
    asking: Mutex<()>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    socket: Option<mpsc::Sender<io::Result<OwnedFd>>>,
    execs: HashMap<u64, mpsc::Sender<io::Result<i32>>>,
    pause: Option<mpsc::Sender<bool>>,
    ended: bool,
}

/// Nothing here can be left half done, so that a panic of another thread does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_io(error: ContainerError) -> io::Error {
    match error {
        ContainerError::System { source, .. } => source,
        other => io::Error::other(chain(&other)),
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the container has ended")
}

impl Container {
    pub(super) fn attend(
        socket: OwnedFd,
        cgroup: Option<Cgroup>,
        on_event: Box<dyn Fn(ContainerEvent) + Send>,
    ) -> Result<Self, ContainerError> {
        let shared = Arc::new(Shared {
            socket,
            pid: AtomicU32::new(0),
            terminal: Mutex::default(),
            egress: Mutex::default(),
            waiting: Mutex::default(),
            next_exec: AtomicU64::new(0),
            asking: Mutex::default(),
        });
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("igloo-container".to_owned());
        thread.spawn(move || reader.read(cgroup.as_ref(), &*on_event)).act("start a thread")?;
        Ok(Self { shared })
    }

    /// Sends a signal to the program. The kernel keeps from a PID 1 what it doesn't handle; one that would have ended
    /// any other process ends this one, too, so that a program needs no handler to be stopped.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.shared.ask(&ShimRequest::Signal { signal })
    }

    /// Kills everything in the container.
    pub fn kill(&self) -> io::Result<()> {
        self.shared.ask(&ShimRequest::Kill)
    }

    /// Freezes everything in the container, or lets it go on.
    pub fn pause(&self, on: bool) -> io::Result<()> {
        let _asking = lock(&self.shared.asking);
        let (sender, answer) = mpsc::channel();
        {
            let mut waiting = lock(&self.shared.waiting);
            if waiting.ended {
                return Err(gone());
            }
            waiting.pause = Some(sender);
        }
        self.shared.ask(&ShimRequest::Pause { on })?;
        match answer.recv_timeout(PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("it makes processes faster than they can be stopped")),
            Err(_) => Err(gone()),
        }
    }

    /// Host pid of the program while it runs.
    pub fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// The other end of the program's terminal, once, from its start on.
    pub fn terminal(&self) -> Option<OwnedFd> {
        lock(&self.shared.terminal).take()
    }

    /// The sockets of its way out, once, from its start on; for who connects on its behalf.
    pub fn egress(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *lock(&self.shared.egress))
    }

    /// A fresh socket in the container's network.
    pub fn socket(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let _asking = lock(&self.shared.asking);
        let (sender, answer) = mpsc::channel();
        {
            let mut waiting = lock(&self.shared.waiting);
            if waiting.ended {
                return Err(gone());
            }
            waiting.socket = Some(sender);
        }
        self.shared.ask(&ShimRequest::Socket { kind })?;
        answer.recv_timeout(PATIENCE).map_err(|_| gone())?
    }

    /// Runs a command in the container, hardened as the service is.
    pub fn exec(&self, args: &[String], stdout: OwnedFd, stderr: OwnedFd) -> io::Result<ExecHandle> {
        let id = self.shared.next_exec.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        {
            let mut waiting = lock(&self.shared.waiting);
            if waiting.ended {
                return Err(gone());
            }
            waiting.execs.insert(id, sender);
        }
        let request = ShimRequest::Exec { id, args: args.to_vec() };
        protocol::send(&self.shared.socket, &request, &[stdout.as_fd(), stderr.as_fd()]).map_err(to_io)?;
        Ok(ExecHandle { shared: Arc::clone(&self.shared), id, answer })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The shim sees the end of its requests and kills; what it still has to tell is read.
        let _ = rustix::net::shutdown(&self.shared.socket, Shutdown::Write);
    }
}

impl Shared {
    fn ask(&self, request: &ShimRequest) -> io::Result<()> {
        protocol::send(&self.socket, request, &[]).map_err(to_io)
    }

    /// Takes what the shim tells, until it is gone.
    fn read(&self, cgroup: Option<&Cgroup>, on_event: &dyn Fn(ContainerEvent)) {
        // A shim that dies before it has told anything was killed: that says nothing about the container.
        let mut last = ContainerEvent::Exited { code: None, signal: Some(libc::SIGKILL), oom: false };
        while let Ok(Some((reply, fds))) = protocol::receive::<ShimReply>(&self.socket, PEER) {
            match reply {
                ShimReply::Started { terminal } => {
                    let pid = fds.first().and_then(pid_of).unwrap_or(0);
                    self.pid.store(pid, Ordering::Release);
                    let mut rest = fds.into_iter().skip(1);
                    *lock(&self.terminal) = if terminal { rest.next() } else { None };
                    *lock(&self.egress) = rest.collect();
                    last = ContainerEvent::Exited { code: None, signal: None, oom: false };
                    on_event(ContainerEvent::Started { pid });
                }
                ShimReply::Failed { message, errno } => last = ContainerEvent::Failed { message, errno },
                ShimReply::Exited { code, signal } => last = ContainerEvent::Exited { code, signal, oom: false },
                ShimReply::Notified(said) => on_event(ContainerEvent::Notified(said)),
                ShimReply::Paused { done } => {
                    if let Some(sender) = lock(&self.waiting).pause.take() {
                        let _ = sender.send(done);
                    }
                }
                ShimReply::Socket => self.answer_socket(fds.into_iter().next().ok_or_else(gone)),
                ShimReply::SocketFailed { errno } => self.answer_socket(Err(io::Error::from_raw_os_error(errno))),
                ShimReply::ExecFailed { id, message } => self.answer_exec(id, Err(io::Error::other(message))),
                ShimReply::ExecExited { id, code } => self.answer_exec(id, Ok(code)),
            }
        }
        self.pid.store(0, Ordering::Release);
        {
            // Whoever waits sees the end of its channel.
            let mut waiting = lock(&self.waiting);
            *waiting = Waiting { ended: true, ..Waiting::default() };
        }
        // Only now nothing of the container is left in its control group.
        if let Some(cgroup) = cgroup {
            if let ContainerEvent::Exited { oom, .. } = &mut last {
                *oom = cgroup.oom_killed();
            }
            // What can't be removed now is by the next start, or is empty and does no harm.
            drop(cgroup.remove());
        }
        on_event(last);
    }

    fn answer_socket(&self, answer: io::Result<OwnedFd>) {
        if let Some(sender) = lock(&self.waiting).socket.take() {
            drop(sender.send(answer));
        }
    }

    fn answer_exec(&self, id: u64, answer: io::Result<i32>) {
        if let Some(sender) = lock(&self.waiting).execs.remove(&id) {
            drop(sender.send(answer));
        }
    }
}

/// What a pidfd refers to, in the numbers of this process's pid namespace.
fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// A command running in a container; it is killed when the handle is dropped.
#[derive(Debug)]
pub struct ExecHandle {
    shared: Arc<Shared>,
    id: u64,
    answer: mpsc::Receiver<io::Result<i32>>,
}

impl ExecHandle {
    /// Waits for its end: exit code, or 128 + signal. `None` if `timeout` passed; it is then killed.
    pub fn wait(self, timeout: Duration) -> io::Result<Option<i32>> {
        match self.answer.recv_timeout(timeout) {
            Ok(answer) => answer.map(Some),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        if lock(&self.shared.waiting).execs.remove(&self.id).is_some() {
            drop(self.shared.ask(&ShimRequest::ExecKill { id: self.id }));
        }
    }
}
