//! The one error of this room.

use std::io;
use std::path::PathBuf;

use igloo_base::PathError;

/// What can go wrong between a spec and a running container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// An act on a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A system call that is not about a path.
    #[error("cannot {act}")]
    System {
        /// What was tried, as a verb.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A mount.
    #[error("cannot mount {what} on `{}`", target.display())]
    Mount {
        /// What was mounted: `proc`, `overlay`, a source path.
        what: String,
        /// Where.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A user namespace is not to be had.
    #[error("cannot make a user namespace ({mode})")]
    UserNamespace {
        /// Which ids were to be mapped.
        mode: &'static str,
        /// What the kernel or `newuidmap` said.
        #[source]
        source: io::Error,
    },
    /// The wanted identity mode is not possible here.
    #[error("identity mode `{mode}` is not possible here: {why}")]
    Identity {
        /// Name of the mode.
        mode: &'static str,
        /// What is missing.
        why: String,
    },
    /// The project's network.
    #[error("cannot set up the network")]
    Network {
        /// What the kernel said.
        #[source]
        source: crate::network::NetworkError,
    },
    /// Files can't be shown with other owners here.
    #[error("cannot show files through an id map")]
    IdMap {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Limits.
    #[error("cannot set the limits of `{id}`")]
    Cgroup {
        /// Id of the container.
        id: String,
        /// What is wrong.
        #[source]
        source: crate::cgroup::CgroupError,
    },
    /// A message between supervisor, sandbox and shim that could not be read.
    #[error("unreadable message from {peer}")]
    Message {
        /// Who sent it.
        peer: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The other side is gone.
    #[error("the {peer} is gone")]
    Gone {
        /// Who.
        peer: &'static str,
    },
    /// The sandbox or shim told us that it failed.
    #[error("{peer}: {message}")]
    Remote {
        /// Who.
        peer: &'static str,
        /// What it said, causes included.
        message: String,
    },
    /// It could not be made.
    #[error("cannot start the container: {message}")]
    NotStarted {
        /// Why, with all causes.
        message: String,
    },
    /// The container is there, but its program can't be run.
    #[error("container: {message}")]
    NotRun {
        /// What the kernel said.
        errno: i32,
        /// The same with the program's path.
        message: String,
    },
    /// A spec that makes no sense.
    #[error("container `{id}`: {why}")]
    Spec {
        /// Id of the container.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// libcontainer failed.
    #[error("cannot create the container `{id}`")]
    Libcontainer {
        /// Id of the container.
        id: String,
        /// Its error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The seccomp filter could not be built.
    #[error("cannot build the seccomp filter")]
    Seccomp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Adds the act to the result of a system call.
pub(crate) trait Act<T> {
    fn act(self, act: &'static str) -> Result<T, ContainerError>;
}

impl<T, E: Into<io::Error>> Act<T> for Result<T, E> {
    fn act(self, act: &'static str) -> Result<T, ContainerError> {
        self.map_err(|e| ContainerError::System { act, source: e.into() })
    }
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
