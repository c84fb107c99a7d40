//! `sd_notify`: a program tells about itself on a datagram socket.
//!
//! The socket has an abstract name in the container's own network namespace, where nobody but the container's processes
//! (and this one) can reach it, so nothing has to be put into its file system. Who floods it waits: only so many
//! messages a second are taken, and the kernel keeps the sender in the meantime.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::Pid;

use crate::spec::Notified;

/// Without the `@` that `NOTIFY_SOCKET` has.
const NAME: &[u8] = b"igloo/notify";
/// What `NOTIFY_SOCKET` is in a container.
pub const NOTIFY_SOCKET: &str = "@igloo/notify";
/// Longer messages are cut; systemd's own limit is of this order.
const MAX_MESSAGE: usize = 4096;
/// Longest status that is shown, in characters.
const MAX_STATUS: usize = 200;
/// Messages that are taken in one [`SECOND`].
const RATE: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// The receiving end.
pub(super) struct Notify {
    socket: OwnedFd,
    since: Instant,
    taken: u32,
}

impl Notify {
    /// In this process's network namespace.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(NAME)?)?;
        Ok(Self { socket, since: Instant::now(), taken: 0 })
    }

    /// What to wait for, and, if enough was taken for now, how long not to look at it.
    pub(super) fn wait(&mut self) -> Result<BorrowedFd<'_>, Duration> {
        let passed = self.since.elapsed();
        if passed >= SECOND {
            (self.since, self.taken) = (Instant::now(), 0);
        } else if self.taken >= RATE {
            return Err(SECOND - passed);
        }
        Ok(self.socket.as_fd())
    }

    /// One message of a process that `is_ours`, if there is one.
    pub(super) fn take(&mut self, is_ours: impl Fn(Pid) -> bool) -> Option<Notified> {
        self.taken += 1;
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [IoSliceMut::new(&mut bytes)];
        // Descriptors that come along (a barrier, a store) find no space and are closed, which is the right answer.
        let got = rustix::net::recvmsg(&self.socket, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
        let sender = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid),
            _ => None,
        })?;
        is_ours(sender).then(|| Notified::parse(&bytes[..got.bytes]))
    }
}

impl Notified {
    /// What a message says, as far as it is known here.
    pub fn parse(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message);
        let mut said = Notified::default();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => said.ready = true,
                Some(("RELOADING", "1")) => said.reloading = true,
                Some(("STOPPING", "1")) => said.stopping = true,
                Some(("WATCHDOG", "1")) => said.watchdog = true,
                Some(("STATUS", text)) => {
                    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
                    said.status = Some(plain.take(MAX_STATUS).collect());
                }
                _ => {}
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_understood_and_the_rest_is_not() {
        let said = Notified::parse(
            b"READY=1\nSTATUS=up \x1b[2Jand\trunning\nMAINPID=1\nWATCHDOG=trigger\nREADY\n=\n\xff=1\nRELOADING=0",
        );
        assert_eq!(said, Notified { ready: true, status: Some("up  [2Jand running".into()), ..Notified::default() });
        assert_eq!(Notified::parse(b""), Notified::default());
        assert_eq!(
            Notified::parse(&[b"STATUS=".to_vec(), vec![b'x'; 9000]].concat()).status.map(|s| s.len()),
            Some(MAX_STATUS)
        );
    }
}
