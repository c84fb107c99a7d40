//! Messages between supervisor, sandbox and shim: one JSON value per packet of a `SOCK_SEQPACKET` socket, with the
//! descriptors that it speaks of riding along.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Act, ContainerError};
use crate::spec::{ContainerSpec, Identity, Ipv4Net, Notified, SocketKind};
use crate::userns::Mapping;

/// Longest packet; larger values travel in a memory file.
const MAX_PACKET: usize = 64 * 1024;
/// The kernel's own limit on descriptors per packet is 253.
const MAX_FDS: usize = 250;

/// First message to a process started as `__sandbox`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Setup {
    /// Make the namespaces and map the ids; then run the same binary in them once more.
    Launch { mapping: Mapping, exe: PathBuf },
    /// Be PID 1; if files are shown through an id map, the store comes along.
    Serve(Serve),
    /// In a user namespace with these ids, remove a tree.
    Remove { mapping: Mapping, path: PathBuf },
    /// With these ids, write an archive of a directory to the descriptor that comes along.
    Pack { mapping: Mapping, path: PathBuf },
    /// With these ids, fill a directory from an archive: the descriptor that comes along.
    Unpack { mapping: Mapping, path: PathBuf },
}

/// How to be PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Serve {
    pub(crate) identity: Identity,
    pub(crate) subnet: Option<Ipv4Net>,
}

/// What a supervisor asks of PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SandboxRequest {
    /// Start a shim: its control socket, stdin, stdout and stderr come along.
    Spawn,
}

/// What a process started as `__sandbox` tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SandboxReply {
    /// Ids are mapped; this is the pid of PID 1 as its starter sees it.
    Mapped { pid: i32 },
    /// It takes requests, or has done what it was started for.
    Ready,
    /// It gives up.
    Failed { message: String },
}

/// What a shim is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) spec: ContainerSpec,
    pub(crate) identity: Identity,
    /// A directory to work in; a tmpfs is mounted on it, visible to the shim alone.
    pub(crate) base: PathBuf,
    /// Whether the last descriptor is that of a group for the container's program alone.
    #[serde(default)]
    pub(crate) delegated: bool,
    /// Number of detached mounts, to be put at `base/source/0`, `base/source/1`, …
    pub(crate) sources: usize,
}

/// What a supervisor asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShimRequest {
    /// The first: a memory file that holds a [`Start`] comes along, then detached mounts, then `cgroup.procs` files.
    Start,
    Signal {
        signal: i32,
    },
    Kill,
    /// Freeze everything in it, or let it go on.
    Pause {
        on: bool,
    },
    Socket {
        kind: SocketKind,
    },
    /// Stdout and stderr come along.
    Exec {
        id: u64,
        args: Vec<String>,
    },
    ExecKill {
        id: u64,
    },
}

/// What a shim tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShimReply {
    /// The program runs; a pidfd of it comes along, then its terminal if it has one, then the sockets of its way out.
    Started {
        terminal: bool,
    },
    Failed {
        message: String,
        /// Of running the program.
        errno: Option<i32>,
    },
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    Notified(Notified),
    Paused {
        done: bool,
    },
    /// The socket comes along.
    Socket,
    SocketFailed {
        errno: i32,
    },
    ExecFailed {
        id: u64,
        message: String,
    },
    ExecExited {
        id: u64,
        code: i32,
    },
}

/// A pair of connected packet sockets.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), ContainerError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .act("make a socket pair")
}

/// Sends one message with descriptors.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), ContainerError> {
    let bytes = serde_json::to_vec(message).map_err(|source| ContainerError::Message { peer: "ourselves", source })?;
    if fds.len() > MAX_FDS || bytes.len() > MAX_PACKET {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).act("send so large a message");
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).act("send so many descriptors");
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).act("send a message"),
        }
    }
}

/// Receives one message with its descriptors; `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    peer: &'static str,
) -> Result<Option<(T, Vec<OwnedFd>)>, ContainerError> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffer = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(e) => return Err(e).act("receive a message"),
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from(io::ErrorKind::InvalidData)).act("receive a whole message");
    }
    let message =
        serde_json::from_slice(&bytes[..received.bytes]).map_err(|source| ContainerError::Message { peer, source })?;
    Ok(Some((message, fds)))
}

/// Like [`receive`], where the end is an error.
pub(crate) fn expect<T: DeserializeOwned>(
    socket: impl AsFd,
    peer: &'static str,
) -> Result<(T, Vec<OwnedFd>), ContainerError> {
    receive(socket, peer)?.ok_or(ContainerError::Gone { peer })
}

/// A memory file that holds a value.
pub(crate) fn to_memory(value: &impl Serialize) -> Result<OwnedFd, ContainerError> {
    let bytes = serde_json::to_vec(value).map_err(|source| ContainerError::Message { peer: "ourselves", source })?;
    let fd = rustix::fs::memfd_create(c"igloo-spec", rustix::fs::MemfdFlags::CLOEXEC).act("make a memory file")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&bytes).act("write a memory file")?;
    Ok(file.into())
}

/// The value in a memory file.
pub(crate) fn from_memory<T: DeserializeOwned>(fd: OwnedFd, peer: &'static str) -> Result<T, ContainerError> {
    let mut file = std::fs::File::from(fd);
    file.rewind().act("read a memory file")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).act("read a memory file")?;
    serde_json::from_slice(&bytes).map_err(|source| ContainerError::Message { peer, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_message_carries_its_descriptors() {
        let (a, b) = pair().expect("pair");
        let memory = to_memory(&vec![1, 2, 3]).expect("memory");
        send(&a, &ShimRequest::Signal { signal: 15 }, &[memory.as_fd()]).expect("send");
        let (message, mut fds) = expect::<ShimRequest>(&b, "a").expect("receive");
        assert!(matches!(message, ShimRequest::Signal { signal: 15 }));
        assert_eq!(fds.len(), 1);
        assert_ne!(fds[0].as_raw_fd(), memory.as_raw_fd());
        assert_eq!(from_memory::<Vec<i32>>(fds.remove(0), "a").expect("read"), [1, 2, 3]);
    }

    #[test]
    fn the_end_is_told_from_an_error() {
        let (a, b) = pair().expect("pair");
        drop(a);
        assert!(receive::<ShimRequest>(&b, "a").expect("end").is_none());
        assert!(matches!(expect::<ShimRequest>(&b, "a"), Err(ContainerError::Gone { peer: "a" })));
    }
}
