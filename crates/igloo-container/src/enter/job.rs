//! Running a command in a child process as if it were this process: for commands with process ids of their own.
//!
//! The command is a direct child, so its stops and its end are seen exactly. At a terminal it becomes a job of its
//! own in the foreground, as a shell would make it; when it stops, we stop too, so that the shell above sees its own
//! job stop, and when we go on, it goes on.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use super::signals::{Blocked, raise_default, send};
use super::{Act, EnterError};
use crate::error::chain;
use crate::{ContainerError, sys};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited.
    Code(u8),
    /// A signal killed it.
    Signal(i32),
}

impl Ended {
    /// Ends this process in the same way: with the same code, or by the same signal, so that whoever waits for us
    /// learns the truth. Returns 128 + signal if the signal does not kill us.
    pub fn pass_on(self) -> ExitCode {
        match self {
            Ended::Code(code) => ExitCode::from(code),
            Ended::Signal(signal) => {
                // One core file is enough.
                let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
                let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
                raise_default(signal);
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
            }
        }
    }
}

/// What we pass on when somebody sends it to us. What the terminal sends, it sends to the command as well.
const FORWARDED: &[i32] =
    &[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
/// What we have to know of ourselves.
const OWN: &[i32] = &[libc::SIGCHLD, libc::SIGCONT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The first process of a process id namespace; kills everything in it when dropped.
pub(super) struct Init(Pid);

impl Drop for Init {
    fn drop(&mut self) {
        send(self.0.as_raw_nonzero().get(), libc::SIGKILL);
        let _ = rustix::process::waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Forks the first process of the new process id namespace: it does `prepare` and then reaps orphans until it is killed,
/// by us or by our death.
pub(super) fn start_init(prepare: impl FnOnce() -> Result<(), EnterError>) -> Result<Init, EnterError> {
    let (said, say) = pipe()?;
    match sys::fork(UnshareFlags::empty(), false).act("start a process")? {
        sys::Fork::Parent(pid) => {
            drop(say);
            let init = Init(pid);
            hear(said, "the container's first process")?;
            Ok(init)
        }
        sys::Fork::Child => {
            drop(said);
            let prepared = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .act("tie the first process to its parent")
                .and_then(|()| prepare())
                .and_then(|()| Ok(become_nobody()?));
            match prepared {
                Ok(()) => {
                    drop(say);
                    reap();
                }
                Err(error) => tell(say, &error),
            }
            sys::exit_now(1)
        }
    }
}

/// The first process is seen by all others: nothing is to be had from it.
fn become_nobody() -> Result<(), ContainerError> {
    use crate::harden::{Capabilities, no_new_privs, set_capabilities};
    set_capabilities(Capabilities::NONE, Capabilities::NONE)?;
    no_new_privs()?;
    // Not to be traced, and its `/proc/1/exe`, which is igloo itself, not to be opened.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    Ok(())
}

fn reap() {
    let Ok(children) = Blocked::new(&[libc::SIGCHLD]) else { return };
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if children.wait().is_err() {
            return;
        }
    }
}

/// Runs `become_command` in a child, which must end in exec and returns only failures, and waits for the end.
pub(crate) fn run(become_command: impl FnOnce() -> Result<(), EnterError>) -> Result<Ended, EnterError> {
    let terminal = Terminal::of_ours();
    let signals = Blocked::new(&[FORWARDED, OWN].concat()).act("block signals")?;
    let (said, say) = pipe()?;
    let child = match sys::fork(UnshareFlags::empty(), false).act("start a process")? {
        sys::Fork::Parent(pid) => pid,
        sys::Fork::Child => {
            drop(said);
            if let Some(terminal) = &terminal {
                terminal.become_job();
            }
            signals.restore();
            if let Err(error) = become_command() {
                tell(say, &error);
            }
            sys::exit_now(125)
        }
    };
    drop(say);
    if terminal.is_some() {
        // Both do it, since either may be first.
        let _ = rustix::process::setpgid(Some(child), Some(child));
    }
    let started = hear(said, "the command's process");
    let ended = wait_for(child, terminal.as_ref(), &signals);
    if let Some(terminal) = &terminal {
        terminal.take_back();
    }
    started.and(ended)
}

fn wait_for(child: Pid, terminal: Option<&Terminal>, signals: &Blocked) -> Result<Ended, EnterError> {
    let number = child.as_raw_nonzero().get();
    let group = if terminal.is_some() { -number } else { number };
    loop {
        let arrived = signals.wait().act("wait for signals")?;
        match arrived.signal {
            libc::SIGCHLD => loop {
                let waited = rustix::process::waitpid(Some(child), WaitOptions::NOHANG | WaitOptions::UNTRACED);
                let Some((_, status)) = waited.act("wait for the command")? else { break };
                if let Some(code) = status.exit_status() {
                    return Ok(Ended::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Ended::Signal(signal));
                }
                if status.stopped() {
                    if let Some(terminal) = terminal {
                        terminal.take_back();
                    }
                    // In an orphaned process group, where nobody could let us go on, the kernel ignores this.
                    raise_default(libc::SIGTSTP);
                    go_on(child, terminal, group);
                }
            },
            libc::SIGCONT => go_on(child, terminal, group),
            // Our own stop by somebody's kill: the command stops first, then we are told so.
            libc::SIGTSTP if !arrived.from_kernel => send(group, libc::SIGTSTP),
            signal if FORWARDED.contains(&signal) && !arrived.from_kernel => send(number, signal),
            _ => {}
        }
    }
}

fn go_on(child: Pid, terminal: Option<&Terminal>, group: i32) {
    if let Some(terminal) = terminal.filter(|terminal| terminal.is_ours()) {
        terminal.give_to(child);
    }
    send(group, libc::SIGCONT);
}

/// The terminal at which the command is to be a job. There is none if input or output is something else: in a pipeline
/// the command must stay in the process group of its neighbours.
struct Terminal {
    fd: OwnedFd,
    own: Pid,
    /// True while the command has the foreground, from us.
    given: Cell<bool>,
}

impl Terminal {
    fn of_ours() -> Option<Self> {
        let is_terminal = rustix::termios::isatty(io::stdin()) && rustix::termios::isatty(io::stdout());
        let own = rustix::process::getpgrp();
        let controlling = rustix::termios::tcgetpgrp(io::stdin());
        if !is_terminal || controlling.is_err() {
            return None;
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).ok()?;
        Some(Self { fd, own, given: Cell::new(controlling == Ok(own)) })
    }

    /// In the child: a process group of its own, in the foreground if we are. Signals about the terminal are blocked
    /// meanwhile.
    fn become_job(&self) {
        let _ = rustix::process::setpgid(None, None);
        if self.given.get() {
            let _ = rustix::termios::tcsetpgrp(self.fd.as_fd(), rustix::process::getpid());
        }
    }

    fn is_ours(&self) -> bool {
        rustix::termios::tcgetpgrp(self.fd.as_fd()) == Ok(self.own)
    }

    fn give_to(&self, child: Pid) {
        self.given.set(rustix::termios::tcsetpgrp(self.fd.as_fd(), child).is_ok());
    }

    /// Takes the foreground back if the command has it from us, for whoever started us.
    fn take_back(&self) {
        if self.given.replace(false) {
            let _ = rustix::termios::tcsetpgrp(self.fd.as_fd(), self.own);
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), EnterError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).act("make a pipe")
}

/// In the child: says what failed. First a byte that tells the kind, as far as it makes a difference to the parent.
fn tell(say: OwnedFd, error: &EnterError) {
    let (kind, errno, text) = match error {
        EnterError::NotExecutable { path, source } => {
            (b'x', source.raw_os_error().unwrap_or(libc::EACCES), path.to_string_lossy().into_owned())
        }
        EnterError::NotFound { command } => (b'n', 0, command.clone()),
        error => (b'e', 0, chain(error)),
    };
    let mut message = vec![kind];
    message.extend(errno.to_ne_bytes());
    message.extend(text.as_bytes());
    drop(std::fs::File::from(say).write_all(&message));
}

/// In the parent: waits until the child has closed its end, which exec does; anything said is a failure.
fn hear(said: OwnedFd, peer: &'static str) -> Result<(), EnterError> {
    let mut message = Vec::new();
    std::fs::File::from(said).read_to_end(&mut message).act("read from a pipe")?;
    let Some((header, text)) = message.split_first_chunk::<5>() else { return Ok(()) };
    let text = String::from_utf8_lossy(text).into_owned();
    Err(match header[0] {
        b'x' => {
            let errno = i32::from_ne_bytes([header[1], header[2], header[3], header[4]]);
            EnterError::NotExecutable { path: text.into(), source: io::Error::from_raw_os_error(errno) }
        }
        b'n' => EnterError::NotFound { command: text },
        _ => ContainerError::Remote { peer, message: text }.into(),
    })
}
