//! `igloo __keep`: a service at isolation `host`, and everything that comes of it.
//!
//! One process per service that starts the program and adopts what its processes leave behind (a child subreaper), so
//! that the whole tree can be signalled, frozen and killed without a pid namespace. Its standard input is the
//! supervisor's control socket: at its end, however that comes, the tree is killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::sys;

/// Commands on the control socket, one byte each but the first.
pub mod orders {
    /// Start; nothing runs before.
    pub const GO: u8 = b'g';
    /// Send the signal in the next byte to the program.
    pub const SIGNAL: u8 = b's';
    /// Kill everything.
    pub const KILL: u8 = b'k';
    /// Stop everything where it is.
    pub const FREEZE: u8 = b'f';
    /// Let everything go on.
    pub const THAW: u8 = b't';
}

/// The name of a variable that marks everything that belongs to a service, `PROJECT/SERVICE`.
pub const MARK: &str = "IGLOO_UNIT";

/// Body of `igloo __keep PROGRAM …`. Tells `pid N`, then `exit N` or `signal N`, or `failed WHY`, on its standard input.
pub fn keep_main(args: &[OsString]) -> ExitCode {
    let Ok(control) = sys::take_stdin() else { return ExitCode::FAILURE };
    match keep(&control, args) {
        Ok(status) => {
            let told = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit {code}\n"),
                (None, Some(signal)) => format!("signal {signal}\n"),
                (None, None) => "exit 255\n".to_owned(),
            };
            tell(&control, &told);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&control, &format!("failed {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A supervisor that is gone has nothing to be told.
fn tell(control: &OwnedFd, text: &str) {
    let mut rest = text.as_bytes();
    while let Ok(n @ 1..) = rustix::io::write(control, rest) {
        rest = &rest[n..];
    }
}

fn keep(control: &OwnedFd, args: &[OsString]) -> io::Result<WaitStatus> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))?;
    // Signals of the terminal that `up` was typed at are for others.
    let _ = rustix::process::setsid();
    let mut byte = [0];
    if rustix::io::read(control, &mut byte)? == 0 || byte[0] != orders::GO {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let signals = sys::signal_fd(&[libc::SIGCHLD])?;
    let [program, arguments @ ..] = args else { return Err(io::ErrorKind::InvalidInput.into()) };
    let child = Command::new(program).args(arguments).process_group(0).spawn()?;
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    tell(control, &format!("pid {}\n", child.id()));
    // Ours to hold: the program alone writes to its log.
    let null = fs::File::options().write(true).open("/dev/null")?;
    for number in [1, 2] {
        sys::install_fd(&null, number)?;
    }
    let mut ended = None;
    let mut listening = true;
    loop {
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        if listening {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None::<&Timespec>) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let asked = listening && fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        reap(&signals, main, &mut ended);
        if let Some(status) = ended {
            // A service is its main process: what else there is ends with it, as in a container.
            kill_all(own, &signals, main, &mut ended);
            return Ok(status);
        }
        if asked {
            let mut order = [0; 2];
            let taken = match rustix::io::read(control, &mut order[..1]) {
                Ok(1) if order[0] == orders::SIGNAL => rustix::io::read(control, &mut order[1..]).map_or(0, |n| n + 1),
                Ok(n) => n,
                Err(_) => 0,
            };
            match (taken, order) {
                (2, [orders::SIGNAL, signal]) => {
                    if let Some(signal) = Signal::from_named_raw(i32::from(signal)) {
                        let _ = rustix::process::kill_process(main, signal);
                    }
                }
                (1, [orders::FREEZE, _]) => freeze(own),
                (1, [orders::THAW, _]) => {
                    below(own).into_iter().rev().for_each(|pid| send(pid, Signal::CONT));
                }
                _ => {
                    listening = taken != 0;
                    kill_all(own, &signals, main, &mut ended);
                }
            }
        }
    }
}

fn send(pid: Pid, signal: Signal) {
    let _ = rustix::process::kill_process(pid, signal);
}

/// Collects what has ended; true if there is no child left.
fn reap(signals: &OwnedFd, main: Pid, ended: &mut Option<WaitStatus>) -> bool {
    let mut buffer = [0; 1024];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|n| n > 0) {}
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main && (status.exited() || status.signaled()) => *ended = Some(status),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Until nothing is left; what is born meanwhile is met in the next round. What counts is that this process has no child
/// any more: it gets those of all that die, and a list of processes is never of one moment.
fn kill_all(own: Pid, signals: &OwnedFd, main: Pid, ended: &mut Option<WaitStatus>) {
    loop {
        if reap(signals, main, ended) {
            return;
        }
        let all = below(own);
        // Stopped first, they make no more.
        all.iter().for_each(|pid| send(*pid, Signal::STOP));
        all.iter().for_each(|pid| send(*pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn freeze(own: Pid) {
    let mut known = 0;
    // What forks faster than it is found goes on being found.
    for _ in 0..100 {
        let all = below(own);
        all.iter().for_each(|pid| send(*pid, Signal::STOP));
        if all.len() == known {
            return;
        }
        known = all.len();
    }
}

/// Everything that came of this process, parents first.
fn below(own: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
        let parent = fields.and_then(|f| f.get(1)?.parse::<i32>().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![own.as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let more = children.remove(pid).unwrap_or_default();
        found.extend(more);
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// Kills what is marked as `PROJECT/` or `PROJECT/SERVICE`, for when supervisor and keeper were killed together.
pub fn sweep(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    for _ in 0..1000 {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_ours = environment.split(|b| *b == 0).any(|variable| {
                variable.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.is_empty() || mark.ends_with('/'))
            });
            if let Some(pid) = Pid::from_raw(pid).filter(|_| is_ours) {
                found = true;
                send(pid, Signal::KILL);
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Gives an order; for the supervisor's side.
pub fn order(mut control: impl Write, order: &[u8]) -> io::Result<()> {
    control.write_all(order)
}
