//! `igloo shell` and `igloo run`: the process moves itself into an environment and becomes the command.
//!
//! Up to [`Isolation::Pure`] there is no process between the caller's terminal and the command: it keeps the process
//! id, process group and terminal, so that job control, signals and the exit code are what they would be without
//! igloo. [`Isolation::Container`] has process ids of its own, which takes a fork; see [`job`].
//!
//! The root is a read-only overlay of the environment's layers. Its topmost layer is a small memory file system,
//! the skeleton, which holds the mount points and the generated files of `/etc`. Nothing is walked and nothing is
//! looked up per layer, so that the cost hardly depends on the size of the environment.

mod accounts;
pub(crate) mod command;
mod environment;
pub(crate) mod job;
mod namespaces;
mod plan;
mod root;
pub(crate) mod signals;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use igloo_base::PathError;

pub use environment::environment;
pub use job::Ended;

use crate::ContainerError;
use crate::network::NetworkError;

/// How far the command is kept from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The environment's `/usr`, `/etc` and `/var`; all else is the host's: home, `/tmp`, `/run`, devices, network,
    /// processes.
    Host,
    /// Only what is declared: private home, `/tmp` and `/run`, few devices; processes and network are the host's.
    Pure,
    /// As `Pure`, and processes, IPC and host name of its own; no capabilities, no_new_privs, seccomp.
    Container,
}

/// What is seen at the caller's home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// The caller's own one. [`Isolation::Host`] always shows it.
    Host,
    /// This directory of the host in its place. It must exist.
    Private(PathBuf),
}

/// Who calls. The command runs as the same user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory, absolute.
    pub home: PathBuf,
    /// Login shell as the environment has it, for `/etc/passwd`.
    pub shell: String,
}

/// A directory or file of the host that is seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside; a missing mount point is created.
    pub target: PathBuf,
    /// Nothing below it can be written, nested mounts included.
    pub read_only: bool,
}

/// What to enter, and what to run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellSpec {
    /// Layers of the root, topmost first; at least one.
    pub lowers: Vec<PathBuf>,
    /// How far from the machine.
    pub isolation: Isolation,
    /// Who calls.
    pub caller: Caller,
    /// What is at the home directory.
    pub home: Home,
    /// The project, absolute and with symlinks resolved; seen at the same path, writable.
    pub project_dir: PathBuf,
    /// Where the command starts; the project if it does not exist inside.
    pub workdir: PathBuf,
    /// Program and arguments; the program is looked up in `PATH` of `env`, inside.
    pub args: Vec<OsString>,
    /// The whole environment of the command; see [`environment`].
    pub env: Vec<(OsString, OsString)>,
    /// More that is seen inside, mounted in this order, last of all.
    pub binds: Vec<Bind>,
    /// Host name inside; [`Isolation::Container`] only.
    pub hostname: String,
    /// False: no network but loopback; [`Isolation::Container`] only.
    pub network: bool,
}

/// Why a command could not be run in an environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnterError {
    /// An act on a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A mount or a system call.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The network of a container.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The kernel does not let us have namespaces.
    #[error("cannot make namespaces: {cause}")]
    Namespaces {
        /// What stands in the way, as far as can be found out.
        cause: String,
        /// What a person can do about it.
        remedy: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A description that makes no sense.
    #[error("cannot enter the environment: {0}")]
    Spec(&'static str),
    /// A system call about processes, signals or the terminal.
    #[error("cannot {act}")]
    System {
        /// What was tried, as a verb.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The command is nowhere in `PATH`.
    #[error("`{command}` is not in this environment")]
    NotFound {
        /// As the caller named it.
        command: String,
    },
    /// The command is there, but can't be run.
    #[error("cannot run `{}`", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl EnterError {
    /// The exit code that a shell would give: 127 for a command that is not found, 126 for one that can't be run, and
    /// 125 for whatever went wrong before.
    pub fn exit_code(&self) -> u8 {
        match self {
            EnterError::NotFound { .. } => 127,
            EnterError::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    /// The next step for a person, if we know one.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            EnterError::Namespaces { remedy, .. } => Some(remedy),
            _ => None,
        }
    }
}

/// Adds the act to the result of a system call.
pub(crate) trait Act<T> {
    fn act(self, act: &'static str) -> Result<T, EnterError>;
}

impl<T, E: Into<io::Error>> Act<T> for Result<T, E> {
    fn act(self, act: &'static str) -> Result<T, EnterError> {
        self.map_err(|e| EnterError::System { act, source: e.into() })
    }
}

/// Enters an environment and runs the command there. Below [`Isolation::Container`] it only returns on failure, since
/// this process becomes the command; after a failure the process is of no more use but to say so.
///
/// Only for processes with a single thread.
pub fn enter(spec: &ShellSpec) -> Result<Ended, EnterError> {
    check(spec)?;
    let files = accounts::generate(spec)?;
    namespaces::enter(spec.isolation, spec.network, &spec.caller)?;
    let container = spec.isolation == Isolation::Container;
    let old = root::build(spec, files)?;
    if !container {
        root::detach(&old)?;
        change_dir(spec)?;
        let program = command::find(&spec.args, &spec.env)?;
        return Err(command::exec(&program, &spec.args, &spec.env));
    }
    let filter = crate::seccomp::Filter::build()?;
    let first = job::start_init(|| root::finish_container(&old, &spec.hostname))?;
    drop(old);
    change_dir(spec)?;
    let program = command::find(&spec.args, &spec.env)?;
    let ended = job::run(|| {
        crate::harden::close_on_exec()?;
        crate::harden::set_capabilities(crate::harden::Capabilities::NONE, crate::harden::Capabilities::NONE)?;
        crate::harden::no_new_privs()?;
        filter.install()?;
        Err(command::exec(&program, &spec.args, &spec.env))
    })?;
    drop(first);
    Ok(ended)
}

fn check(spec: &ShellSpec) -> Result<(), EnterError> {
    let absolute = |path: &Path| path.is_absolute() && !path.components().any(|c| c.as_os_str() == "..");
    let paths = spec.binds.iter().flat_map(|b| [&b.source, &b.target]);
    match spec {
        ShellSpec { lowers, .. } if lowers.is_empty() => Err(EnterError::Spec("it has no layers")),
        ShellSpec { args, .. } if args.is_empty() => Err(EnterError::Spec("there is no command to run")),
        ShellSpec { project_dir, .. } if project_dir.parent().is_none() => {
            Err(EnterError::Spec("the project's directory is the root directory, which would hide the environment"))
        }
        _ if !paths.chain([&spec.project_dir, &spec.caller.home]).all(|p| absolute(p)) => {
            Err(EnterError::Spec("project, home and all that is bound must be absolute paths without `..`"))
        }
        _ => Ok(()),
    }
}

fn change_dir(spec: &ShellSpec) -> Result<(), EnterError> {
    use igloo_base::At;
    if rustix::process::chdir(&spec.workdir).is_ok() {
        return Ok(());
    }
    Ok(rustix::process::chdir(&spec.project_dir).at("change to the directory", &spec.project_dir)?)
}
