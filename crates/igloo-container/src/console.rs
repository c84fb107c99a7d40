//! The console of a container that is a whole system: what is printed there goes on to a log.
//!
//! An init opens its console when it has something to say, and hangs up on everybody else first. The other end must not
//! see that as the end, so this side holds the console open as well, and opens it anew after each hang-up.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::sys;

/// Between two attempts on a console that was just hung up.
const PAUSE: Duration = Duration::from_millis(20);

/// Passes on what is printed until `ended` is readable or closed and nothing more is to be read. Carriage returns, which
/// only terminals need, are left out.
pub fn pass_on(terminal: impl AsFd, ended: impl AsFd, to: impl AsFd) {
    let mut held = sys::terminal_peer(&terminal).ok();
    let mut buffer = [0; 8192];
    loop {
        let mut fds = [PollFd::new(&terminal, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None::<&Timespec>) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let (said, over) = (fds[0].revents(), !fds[1].revents().is_empty());
        if said.contains(PollFlags::IN) {
            match rustix::io::read(&terminal, &mut buffer) {
                Ok(n) if n > 0 => {
                    write_all(&to, buffer[..n].iter().copied().filter(|byte| *byte != b'\r').collect());
                    continue;
                }
                Err(Errno::INTR) => continue,
                // So the kernel says that nobody holds the other end.
                Ok(_) | Err(_) => {}
            }
        } else if !over && said.is_empty() {
            continue;
        }
        if over {
            return;
        }
        held = reopen(&terminal, held);
        std::thread::sleep(PAUSE);
    }
}

fn reopen(terminal: impl AsFd, held: Option<OwnedFd>) -> Option<OwnedFd> {
    let fresh = sys::terminal_peer(terminal).ok();
    drop(held);
    fresh
}

fn write_all(to: impl AsFd, text: Vec<u8>) {
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
