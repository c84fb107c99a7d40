//! Starting the supervisor as a process of its own, and owning a project while it lives.

use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::SupervisorError;

/// The control socket in a project's runtime directory.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// Starts `exe args…` detached from the terminal and waits until it calls [`Startup::ready`] or [`Startup::failed`].
/// Its standard error, and after `ready` its standard output too, are appended to `log`. Gives its process id.
pub fn spawn_detached(exe: &Path, args: &[OsString], log: &Path, timeout: Duration) -> Result<u32, SupervisorError> {
    let _ = (exe, args, log, timeout);
    todo!()
}

/// The other side of [`spawn_detached`], in the new process.
#[derive(Debug)]
pub struct Startup {}

impl Startup {
    /// Leaves the terminal and the directory of the caller. Call it first thing in the new process, while it has one
    /// thread.
    pub fn begin() -> Result<Startup, SupervisorError> {
        todo!()
    }

    /// Tells the starter that all is well.
    pub fn ready(self) {}

    /// Tells the starter why it is not.
    pub fn failed(self, message: &str) {
        let _ = message;
    }
}

/// A project that is ours to supervise, as long as this value lives or until the process dies in whatever way.
#[derive(Debug)]
pub struct Ownership {}

impl Ownership {
    /// Takes the project's lock and listens on its socket; `None` if another supervisor lives.
    pub fn acquire(runtime_dir: &Path) -> Result<Option<(Ownership, UnixListener)>, SupervisorError> {
        let _ = runtime_dir;
        todo!()
    }
}

/// True if a supervisor of this project lives; the truth, since it is the kernel that holds the lock.
pub fn is_running(runtime_dir: &Path) -> Result<bool, SupervisorError> {
    let _ = runtime_dir;
    todo!()
}
