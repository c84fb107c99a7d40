//! What goes wrong here.

use std::io;
use std::path::PathBuf;

use igloo_base::PathError;

/// The supervisor or its start failed.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A file or directory of the supervisor.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The runtime could not be made.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    /// The control socket.
    #[error("cannot listen on the control socket")]
    Listen(#[source] io::Error),
    /// The new process could not be made.
    #[error("cannot start `{}`", exe.display())]
    Spawn {
        /// What was to run.
        exe: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The new process said why it ended.
    #[error("the supervisor did not start: {message}")]
    Start {
        /// What it said.
        message: String,
    },
    /// The new process ended without a word, or is silent.
    #[error("the supervisor {what}; see `{}`", log.display())]
    Silent {
        /// `ended (…)` or `is not ready after 10 s`.
        what: String,
        /// Where it may have written why.
        log: PathBuf,
    },
    /// The process could not leave its terminal or directory.
    #[error("cannot {act}")]
    Detach {
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the project is not running (no supervisor listens on `{}`)", socket.display())]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot {act} the supervisor on `{}`", socket.display())]
    Socket {
        /// `connect to`, `write to`, `read from`.
        act: &'static str,
        /// The control socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The supervisor is gone.
    #[error("the supervisor ended before it answered")]
    Gone,
    /// The supervisor is of another igloo.
    #[error(
        "the project was started by another version of igloo (protocol {theirs}, this one speaks {ours}); \
         stop it with that version, or with `kill {pid}`"
    )]
    Version {
        /// Our version.
        ours: u32,
        /// Its version.
        theirs: u32,
        /// Its process id; it stops everything when it gets SIGTERM.
        pid: u32,
    },
    /// The supervisor won't talk to us.
    #[error("the supervisor refused: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// A line that makes no sense.
    #[error("the supervisor sent something that igloo does not understand")]
    Nonsense(#[source] serde_json::Error),
    /// An answer to another question.
    #[error("the supervisor answered something else than was asked")]
    Unexpected,
}
