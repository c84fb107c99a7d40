//! The seam between the supervisor and what it runs.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that can be started any number of times, one after the other: a container, a host process.
pub trait Unit: Send + Sync {
    /// Starts it. May block; is called on a thread of its own. `on_event` is called with [`UnitEvent::Started`] once
    /// and then, exactly once, with [`UnitEvent::Exited`]; or just with [`UnitEvent::Failed`]. Events may come before
    /// this function returns. After an `Err` no event may come.
    fn start(&self, io: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError>;
}

/// A unit that was started. Dropping it must not end it, [`Running::kill`] does.
pub trait Running: Send + Sync {
    /// Sends a signal to the unit's main process.
    fn signal(&self, signal: i32) -> io::Result<()>;

    /// Ends the unit with everything that belongs to it; must not be refusable.
    fn kill(&self) -> io::Result<()>;

    /// Freezes everything in it, or lets it go on.
    fn pause(&self, on: bool) -> io::Result<()> {
        let _ = on;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A connection to `address` as seen from inside the unit. May block; is called on a thread of its own.
    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;

    /// A UDP socket connected to `address` as seen from inside the unit; needed for published UDP ports only.
    fn connect_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let _ = address;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Runs a command inside the unit and waits for it, `timeout` at most. May block.
    fn exec(&self, args: &[String], timeout: Duration) -> io::Result<ExecResult>;

    /// The process id of the unit's main process, as this process sees it.
    fn pid(&self) -> Option<u32>;
}

/// Where a unit writes.
#[derive(Debug)]
pub struct UnitIo {
    /// Its standard output, the write end of a pipe.
    pub stdout: OwnedFd,
    /// Its standard error, the write end of a pipe.
    pub stderr: OwnedFd,
}

/// What a unit tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitEvent {
    /// Its main process runs.
    Started {
        /// Process id as this process sees it.
        pid: u32,
    },
    /// It told that it is ready (`READY=1` of `sd_notify`); counts for [`crate::Probe::Notify`].
    Ready,
    /// It told something else about itself (`sd_notify`).
    Notice(Notice),
    /// It could not be started.
    Failed {
        /// Why, one line for a person.
        message: String,
    },
    /// Its main process ended, and everything else in it with it.
    Exited {
        /// Exit code if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// True if it was killed for want of memory.
        oom: bool,
    },
}

/// What a unit may tell about itself while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// `STATUS=`: one line for a person.
    Status(String),
    /// `WATCHDOG=1`: it is well.
    Watchdog,
    /// `RELOADING=1`: it reads its configuration anew; [`UnitEvent::Ready`] follows.
    Reloading,
    /// `STOPPING=1`: it is about to end.
    Stopping,
}

/// How a command run by [`Running::exec`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// The last of what it wrote.
    pub output: String,
}

/// Why a unit could not be made or started: one line for a person, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UnitError {
    /// What failed.
    pub message: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl UnitError {
    /// An error without a further cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error with its cause.
    pub fn because(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }

    /// The message and all causes in one line, for status and logs.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// How a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// True if it was killed for want of memory.
    #[serde(default)]
    pub oom: bool,
}

impl Exit {
    /// True for exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            _ if self.oom => f.write_str("was killed: out of memory"),
            (_, Some(signal)) => write!(f, "was killed by signal {signal}"),
            (Some(code), None) => write!(f, "exited with code {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}
