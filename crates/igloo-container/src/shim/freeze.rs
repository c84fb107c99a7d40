//! Freezing a container: every process of it is stopped, those that are born meanwhile as well.
//!
//! By signal and not by a control group, since that works for everybody: a stop from outside can't be refused even by
//! the first process of a pid namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags};

use crate::sys;

/// Rounds in which what was born meanwhile is found; a fork bomb may outrun us, and is told.
const ROUNDS: usize = 100;

/// Stops every process of the container whose first one is `init`, or lets all go on. False if some got away.
pub(super) fn freeze(init: Pid, on: bool) -> bool {
    if !on {
        // The first one last: it shall not see the others stopped.
        members(init).into_iter().rev().for_each(|(pid, _)| send(init, pid, libc::SIGCONT));
        return true;
    }
    for _ in 0..ROUNDS {
        let running: Vec<i32> = members(init).into_iter().filter(|(_, stopped)| !stopped).map(|(pid, _)| pid).collect();
        if running.is_empty() {
            return true;
        }
        running.into_iter().for_each(|pid| send(init, pid, libc::SIGSTOP));
    }
    false
}

fn send(init: Pid, pid: i32, signal: i32) {
    let Some(number) = Pid::from_raw(pid) else { return };
    // Held, it can't become another process's number; and only then it is looked at once more.
    let Ok(held) = rustix::process::pidfd_open(number, PidfdFlags::empty()) else { return };
    if belongs(init, pid) {
        sys::pidfd_signal(&held, signal);
    }
}

/// True if a process is in the container's pid namespace, or in one made inside it.
pub(super) fn belongs(init: Pid, pid: i32) -> bool {
    let ours = namespace(init.as_raw_nonzero().get());
    let mut at = pid;
    // Deeper nesting than the kernel allows is a loop of numbers that were given anew.
    for _ in 0..64 {
        if ours.is_some() && namespace(at) == ours {
            return true;
        }
        match stat(at) {
            Some((parent, _)) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

/// All processes of the container, the first one first, and whether each is stopped or gone already.
fn members(init: Pid) -> Vec<(i32, bool)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some((_, state)) = stat(pid).filter(|_| belongs(init, pid)) {
            found.insert(pid, matches!(state, 'T' | 't' | 'Z' | 'X'));
        }
    }
    found.into_iter().collect()
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Parent and state.
fn stat(pid: i32) -> Option<(i32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, but no closing parenthesis comes after its own.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
