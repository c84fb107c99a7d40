//! `igloo image run`: one container in a sandbox of its own, as if its program were this process's.
//!
//! At a terminal the program gets a terminal of its own, and what is typed and printed is passed on: it never holds the
//! caller's, and job control works inside. Elsewhere it gets this process's standard input and output themselves.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios};

use crate::ContainerError;
use crate::enter::signals::{Blocked, is_ignored};
use crate::enter::{Act, Ended, EnterError};
use crate::sandbox::Sandbox;
use crate::spec::{ContainerEvent, ContainerSpec, SandboxConfig};

/// What is passed on to the program, unless it is ignored here.
const FORWARDED: &[i32] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Rows and columns of the terminal that this process's input and output are, so that a program may get one.
pub fn terminal_size() -> Option<(u16, u16)> {
    let is_terminal = rustix::termios::isatty(io::stdin()) && rustix::termios::isatty(io::stdout());
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok().filter(|_| is_terminal)?;
    Some((size.ws_row, size.ws_col))
}

/// Runs a container and waits for its end. Signals to this process go to its program; SIGTERM as `stop_signal`, if there
/// is one. Only for processes with a single thread.
pub fn run(config: &SandboxConfig, spec: &ContainerSpec, stop_signal: Option<i32>) -> Result<Ended, EnterError> {
    // Before there are threads, which inherit what is blocked.
    let wanted: Vec<i32> = FORWARDED.iter().copied().filter(|signal| !is_ignored(*signal)).collect();
    let signals = Blocked::new(&wanted).act("block signals")?;
    let sandbox = Sandbox::start(config)?;
    let stdio = [
        rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3),
        rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3),
        rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3),
    ];
    let [stdin, stdout, stderr] = stdio.map(|fd| fd.act("pass on standard input and output"));
    let (told, tell) = io::pipe().act("make a pipe")?;
    let (sender, events) = mpsc::channel();
    let on_event = move |event| {
        drop(sender.send(event));
        drop((&tell).write_all(b"e"));
    };
    let container = sandbox.spawn_with(spec, [stdin?, stdout?, stderr?], Box::new(on_event))?;
    let mut terminal: Option<Terminal> = None;
    let ended = loop {
        let mut fds = [PollFd::new(signals.fd(), PollFlags::IN), PollFd::new(&told, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None::<&Timespec>) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).act("wait for the container"),
        }
        let (signalled, happened) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if signalled {
            match (signals.wait().act("wait for signals")?.signal, &terminal) {
                (libc::SIGWINCH, Some(terminal)) => terminal.resize(),
                (libc::SIGWINCH, None) => {}
                (libc::SIGTERM, _) => drop(container.signal(stop_signal.unwrap_or(libc::SIGTERM))),
                // A program that has just ended needs none.
                (signal, _) => drop(container.signal(signal)),
            }
        }
        if !happened {
            continue;
        }
        (&told).read_exact(&mut [0]).act("wait for the container")?;
        match events.try_recv() {
            Ok(ContainerEvent::Started { .. }) => terminal = container.terminal().map(Terminal::attach).transpose()?,
            Ok(ContainerEvent::Notified(_)) => {}
            Ok(ContainerEvent::Exited { code: Some(code), .. }) => {
                break Ended::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(ContainerEvent::Exited { signal, .. }) => break Ended::Signal(signal.unwrap_or(libc::SIGKILL)),
            Ok(ContainerEvent::Failed { message, errno }) => return Err(failed(spec, message, errno)),
            Err(_) => return Err(ContainerError::Gone { peer: "shim" }.into()),
        }
    };
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    Ok(ended)
}

fn failed(spec: &ContainerSpec, message: String, errno: Option<i32>) -> EnterError {
    let command = spec.args.first().cloned().unwrap_or_default();
    match errno {
        Some(libc::ENOENT | libc::ENOTDIR) => EnterError::NotFound { command },
        Some(errno) => EnterError::NotExecutable { path: command.into(), source: io::Error::from_raw_os_error(errno) },
        None => ContainerError::NotStarted { message }.into(),
    }
}

/// The caller's terminal, joined with the program's.
struct Terminal {
    program: OwnedFd,
    before: Termios,
    output: Option<JoinHandle<()>>,
}

impl Terminal {
    fn attach(program: OwnedFd) -> Result<Self, EnterError> {
        let before = rustix::termios::tcgetattr(io::stdin()).act("ask for the terminal's mode")?;
        let copy = || program.try_clone().act("pass on the terminal");
        let (from, to) = (copy()?, copy()?);
        let mut terminal = Self { program, before, output: None };
        terminal.resize();
        let mut raw = terminal.before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw).act("set the terminal's mode")?;
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body).act("start a thread")
        };
        // What is typed after the program's end is still in its read when this process ends.
        spawn("igloo-input", Box::new(move || pass(io::stdin(), to)))?;
        terminal.output = Some(spawn("igloo-output", Box::new(move || pass(from, io::stdout())))?);
        Ok(terminal)
    }

    /// Gives the program's terminal the size of the caller's.
    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stdin()) {
            // A wrong size is an ugly screen and no more.
            let _ = rustix::termios::tcsetwinsize(&self.program, size);
        }
    }

    /// Waits for the last of the output, which ends when nobody holds the program's side any more.
    fn finish(mut self) {
        if let Some(output) = self.output.take() {
            drop(output.join());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Copies until either end is gone.
fn pass(from: impl AsFd, to: impl AsFd) {
    let mut buffer = [0; 16 << 10];
    loop {
        let mut rest = match rustix::io::read(&from, &mut buffer) {
            Ok(0) => return,
            Ok(n) => &buffer[..n],
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        while !rest.is_empty() {
            match rustix::io::write(&to, rest) {
                Ok(n) => rest = &rest[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}
