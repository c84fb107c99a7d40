//! `igloo exec`: a command in a running container, at the caller's own terminal.
//!
//! The command gets what the container's program has: all its namespaces, its control groups, and the same locks.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use igloo_base::At;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};
use rustix::thread::ThreadNameSpaceType as Namespace;

use crate::cgroup::Hierarchy;
use crate::enter::{Ended, EnterError, command, job};
use crate::error::Act;
use crate::spec::User;
use crate::{ContainerError, harden, userns};

/// A command for a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Runs a command in a container and waits for its end, with job control as for a child of the caller's shell.
///
/// Afterwards this process is still in the container's namespaces: it is of no more use but to end. Only for
/// processes with a single thread.
pub fn exec_in(spec: &ExecSpec) -> Result<Ended, EnterError> {
    let container = Container::open(spec.pid)?;
    // Until the command is another program, nobody inside may look at this one.
    let not_dumpable = || rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    not_dumpable().act("hide this process")?;
    container.join_groups(spec.pid)?;
    rustix::thread::move_into_thread_name_spaces(container.pidfd.as_fd(), container.namespaces)
        .act("enter the container")?;
    not_dumpable().act("hide this process")?;
    let ended = job::run(|| {
        let workdir = if spec.workdir.as_os_str().is_empty() { "/".as_ref() } else { spec.workdir.as_path() };
        rustix::process::chdir(workdir).at("change to the directory", workdir)?;
        harden::close_on_exec()?;
        harden::harden(&spec.user, userns::may_set_groups()?)?;
        // Changing ids makes a process dumpable, and independent of its parent's life.
        not_dumpable().act("hide this process")?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind its life to igloo's")?;
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

/// How long a container takes at most from its last breath to its end.
const ENDING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

struct Container {
    pidfd: OwnedFd,
    /// Those which are not ours already: entering one's own user namespace is an error.
    namespaces: Namespace,
}

impl Container {
    fn open(pid: u32) -> Result<Self, EnterError> {
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
