//! `igloo exec`: a command in a running container, at the caller's own terminal.
//!
//! The command gets what the container's program has: all its namespaces, its control groups, and the same locks.
//!
//! Whoever enters a container can be looked at by it for a moment: a program of the container that names itself
//! `/proc/self/exe` as its interpreter would run, and later write to, the file that entered. So the entering is done by
//! a process whose own file is seen through a read-only mount ([`exec_by`]), and that nobody inside may trace.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use igloo_base::At;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::CWD;
use rustix::io::{Errno, FdFlags};
use rustix::mount::OpenTreeFlags;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::{ThreadNameSpaceType as Namespace, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchy;
use crate::copy::Copying;
use crate::enter::{Ended, EnterError, command, job};
use crate::error::Act;
use crate::harden::Locks;
use crate::spec::User;
use crate::{ContainerError, harden, protocol, sys, userns};

/// Command word of the process that enters; its argument is the number of a descriptor.
pub const WORD: &str = "__exec";

/// A command for a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's program, as this process sees its id.
    pub pid: u32,
    /// Program and arguments; the program is looked up in `PATH` of `env`, inside.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; empty is `/`.
    pub workdir: PathBuf,
    /// Who runs it.
    pub user: User,
    /// Those of the container's program.
    pub locks: Locks,
    /// Not a command, but one end of a copy.
    #[serde(default)]
    pub copy: Option<Copying>,
}

/// The files below `/proc/PID/ns`, and what each is called in system calls.
const NAMESPACES: &[(&str, Namespace)] = &[
    ("user", Namespace::USER),
    ("mnt", Namespace::MOUNT),
    ("pid", Namespace::PROCESS_ID),
    ("net", Namespace::NETWORK),
    ("ipc", Namespace::INTER_PROCESS_COMMUNICATION),
    ("uts", Namespace::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", Namespace::CONTROL_GROUP),
];

/// Replaces this process by one of `exe` that answers to [`WORD`] and runs the command, with this environment; returns
/// only the failure. Only for processes with a single thread.
pub fn exec_by(exe: &Path, env: &[(OsString, OsString)], spec: &ExecSpec) -> EnterError {
    let run = || -> Result<EnterError, EnterError> {
        let binary = read_only(exe)?;
        let memory = protocol::to_memory(spec)?;
        rustix::io::fcntl_setfd(&memory, FdFlags::empty()).act("pass on what to run")?;
        let text = |bytes: &[u8]| CString::new(bytes).map_err(std::io::Error::other).act("pass on a NUL byte");
        let number = memory.as_raw_fd().to_string();
        let args = [exe.as_os_str().as_bytes(), WORD.as_bytes(), number.as_bytes()];
        let args = args.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let variable = |(name, value): &(OsString, OsString)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        let env = env.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        let path = text(name_of(&binary).as_bytes())?;
        Err(sys::execve(&path, &args, &env)).at("run", exe).map_err(Into::into)
    };
    run().unwrap_or_else(|e| e)
}

/// What [`exec_by`] passes on: to be called with the number that follows [`WORD`].
pub fn passed_on(number: i32) -> Result<ExecSpec, EnterError> {
    let path = format!("/proc/self/fd/{number}");
    let file = fs::File::open(&path).at("open", &path)?;
    Ok(protocol::from_memory(file.into(), "igloo")?)
}

/// The name of a descriptor's file, for this process and those that it starts.
pub(crate) fn name_of(binary: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", binary.as_raw_fd())
}

/// A program's file as it is seen through a read-only mount of our own.
pub(crate) fn read_only(exe: &Path) -> Result<OwnedFd, EnterError> {
    let clone = || -> std::io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let binary = rustix::mount::open_tree(CWD, exe, flags)?;
        sys::restrict_mount(&binary, sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV, false)?;
        Ok(binary)
    };
    match clone() {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        other => return Ok(other.at("make a read-only mount of", exe)?),
    }
    // Only who has a mount namespace may do that; the descriptor is good without it.
    let (ours, theirs) = protocol::pair()?;
    match sys::fork(UnshareFlags::empty(), false).act("start a process")? {
        sys::Fork::Child => {
            let made = sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).and_then(|()| clone());
            let told = match &made {
                Ok(binary) => protocol::send(&theirs, &None::<String>, &[binary.as_fd()]),
                Err(e) => protocol::send(&theirs, &Some(e.to_string()), &[]),
            };
            drop(told);
            sys::exit_now(0)
        }
        sys::Fork::Parent(pid) => {
            drop(theirs);
            let heard = protocol::expect::<Option<String>>(&ours, "child");
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            match heard? {
                (None, mut fds) if fds.len() == 1 => Ok(fds.remove(0)),
                (message, _) => {
                    let source = std::io::Error::other(message.unwrap_or_default());
                    Ok(Err(source).at("make a read-only mount of", exe)?)
                }
            }
        }
    }
}

/// Runs a command in a container and waits for its end, with job control as for a child of the caller's shell.
///
/// Afterwards this process is still in the container's namespaces: it is of no more use but to end. Only for
/// processes with a single thread.
pub fn exec_in(spec: &ExecSpec) -> Result<Ended, EnterError> {
    let container = Container::open(spec.pid)?;
    container.enter(spec.pid)?;
    let ended = job::run(|| {
        let workdir = if spec.workdir.as_os_str().is_empty() { "/".as_ref() } else { spec.workdir.as_path() };
        rustix::process::chdir(workdir).at("change to the directory", workdir)?;
        // Copies are root's, where there is one: they go anywhere.
        let root = User::default();
        let user = if spec.copy.is_some() && crate::copy::has_root() { &root } else { &spec.user };
        lock_up(user, spec.locks)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind its life to igloo's")?;
        if let Some(copy) = &spec.copy {
            crate::copy::inside(copy).act("copy")?;
            sys::exit_now(0);
        }
        let program = command::find(&spec.args, &spec.env)?;
        Err(command::exec(&program, &spec.args, &spec.env))
    });
    match ended {
        // So the kernel says that it starts nothing in a container that is ending.
        Err(EnterError::System { source, .. })
            if source.raw_os_error() == Some(libc::ENOMEM) && container.ends_within(ENDING) =>
        {
            Err(ContainerError::Gone { peer: "container" }.into())
        }
        other => other,
    }
}

/// In a container: this process takes on the locks of a service.
pub(crate) fn lock_up(user: &User, locks: Locks) -> Result<(), EnterError> {
    harden::close_on_exec()?;
    harden::harden_with(user, userns::may_set_groups()?, locks.capabilities(), &locks.filter()?)?;
    // Changing ids makes a process dumpable, and independent of its parent's life.
    Ok(hide()?)
}

/// Until it is another program, nobody inside may look at this process.
fn hide() -> Result<(), ContainerError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).act("hide this process")
}

/// How long a container takes at most from its last breath to its end.
const ENDING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A running container.
pub(crate) struct Container {
    pidfd: OwnedFd,
    /// Those which are not ours already: entering one's own user namespace is an error.
    namespaces: Namespace,
}

impl Container {
    /// Refers to the container that a process is in.
    pub(crate) fn open(pid: u32) -> Result<Self, EnterError> {
        let gone = || EnterError::from(ContainerError::Gone { peer: "container" });
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(gone()),
            other => other.act("refer to the container")?,
        };
        let mut namespaces = Namespace::empty();
        for (name, kind) in NAMESPACES {
            let of = |who: &str| {
                let path = format!("/proc/{who}/ns/{name}");
                match fs::metadata(&path) {
                    // It has ended; what waits for its parent to notice has no namespaces any more.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(gone()),
                    other => Ok(other.map(|m| (m.dev(), m.ino())).at("look at", path)?),
                }
            };
            if of(&pid.as_raw_nonzero().to_string())? != of("self")? {
                namespaces |= *kind;
            }
        }
        if !namespaces.contains(Namespace::MOUNT) {
            return Err(EnterError::Spec("that process is in no container"));
        }
        Ok(Self { pidfd, namespaces })
    }

    /// Moves this process into it; its children are there in full.
    pub(crate) fn enter(&self, pid: u32) -> Result<(), EnterError> {
        hide()?;
        self.join_groups(pid)?;
        rustix::thread::move_into_thread_name_spaces(self.pidfd.as_fd(), self.namespaces).act("enter the container")?;
        Ok(hide()?)
    }

    /// Whether its program has ended, or does within some time.
    fn ends_within(&self, time: Timespec) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    /// Limits hold for the command as well. Where the caller may not move processes (another session's part of the
    /// hierarchy) it stays in the caller's own group, as a command of the caller's would.
    fn join_groups(&self, pid: u32) -> Result<(), EnterError> {
        let (theirs, ours) = (Hierarchy::of(pid), Hierarchy::detect());
        let (Ok(theirs), Ok(ours)) = (theirs, ours) else { return Ok(()) };
        for file in theirs.groups_apart_from(&ours) {
            match fs::write(&file, "0") {
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
                other => other.at("join the control group of", file)?,
            }
        }
        Ok(())
    }
}
