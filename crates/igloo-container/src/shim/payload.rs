//! What becomes of libcontainer's init process: the last locks fall shut, then the program runs.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::process::{DumpableBehavior, Signal};
use rustix::termios::Winsize;
use rustix::thread::UnshareFlags;

use super::Init;
use crate::error::{Act, ContainerError, chain};
use crate::harden::{self, Capabilities, Locks};
use crate::seccomp::Filter;
use crate::spec::ContainerSpec;
use crate::{rootfs, sys};

/// Exit code of a program that could not be run.
const NOT_RUN: i32 = 127;

/// libcontainer's seam for what runs inside.
#[derive(Clone)]
pub(super) struct Payload {
    args: Vec<String>,
    env: Vec<(String, String)>,
    bounding: Capabilities,
    effective: Capabilities,
    filter: Filter,
    landlock: bool,
    /// The `cgroup.procs` of a group that becomes the root of all groups that it sees; a number, too.
    group: Option<RawFd>,
    terminal: Option<(u16, u16)>,
    /// A pipe that closes when the program runs; if it can't be run, the reason goes there. A number, since
    /// libcontainer clones this value across processes.
    report: RawFd,
}

impl Payload {
    pub(super) fn new(
        spec: &ContainerSpec,
        filter: Filter,
        report: BorrowedFd<'_>,
        group: Option<BorrowedFd<'_>>,
    ) -> Self {
        Self {
            args: spec.args.clone(),
            env: spec.env.clone(),
            bounding: spec.locks().capabilities(),
            effective: spec.locks().capabilities().if_root(&spec.user),
            filter,
            // Who makes sandboxes mounts things.
            landlock: spec.locks() == Locks::Service,
            group: group.map(|fd| fd.as_raw_fd()),
            terminal: spec.terminal,
            report: report.as_raw_fd(),
        }
    }

    fn run(&self) -> ContainerError {
        if let Some((rows, columns)) = self.terminal {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // Before the program asks. A wrong size is an ugly screen and no more.
            let _ = rustix::termios::tcsetwinsize(std::io::stdin(), size);
        }
        let close_the_locks = || {
            // libcontainer has done most of this; what it has not done is fatal here, not a warning.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind its life to the shim's")?;
            // Until it is another program, nobody inside may look at this process.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).act("hide this process")?;
            if let Some(group) = self.group {
                own_groups(group)?;
            }
            harden::set_capabilities(self.bounding, self.effective)?;
            harden::no_new_privs()?;
            if self.landlock {
                harden::landlock()?;
            }
            sys::close_on_exec().act("mark descriptors close-on-exec")?;
            self.filter.install()
        };
        match close_the_locks() {
            Ok(()) => harden::exec(&self.args, &self.env),
            Err(error) => error,
        }
    }
}

/// Joins a group and shows it as the root of a hierarchy that belongs to this container. Alone in it, since an init makes
/// groups below it and leaves the root to nobody.
fn own_groups(group: RawFd) -> Result<(), ContainerError> {
    sys::write_raw(group, b"0");
    sys::unshare(UnshareFlags::NEWCGROUP).act("make a control group namespace")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").act("look at the own control group")?;
    if !own.lines().any(|line| line == "0::/") {
        let source = std::io::Error::other("the kernel did not let it join");
        return Err(source).act("enter the control group of the container");
    }
    rootfs::mount_fresh("cgroup2", std::path::Path::new("/sys/fs/cgroup"), &[])
}

impl Executor for Payload {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let error = self.run();
        // First the number that the kernel gave for the program, or zero.
        let errno = match &error {
            ContainerError::Path(e) if e.act == harden::RUN => e.source.raw_os_error().unwrap_or(libc::ENOENT),
            _ => 0,
        };
        sys::write_raw(self.report, &[&errno.to_ne_bytes(), chain(&error).as_bytes()].concat());
        sys::exit_now(NOT_RUN)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is given to exec; this process's own one is empty.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// In the shim: what the payload has reported.
pub(super) fn heard(said: &[u8]) -> ContainerError {
    let (errno, text) = said.split_first_chunk().map_or((0, said), |(n, text)| (i32::from_ne_bytes(*n), text));
    let message = String::from_utf8_lossy(text).into_owned();
    match errno {
        0 => ContainerError::Remote { peer: "container", message },
        errno => ContainerError::NotRun { errno, message },
    }
}

/// Enters the namespaces of a running container and runs a command there as its program runs. For the child of a
/// fork; never returns.
pub(super) fn join(init: &Init, args: &[String], stdio: [BorrowedFd<'_>; 2]) -> ! {
    let run = || -> Result<ContainerError, ContainerError> {
        use rustix::thread::ThreadNameSpaceType as Type;
        let Init { pidfd, spec, filter, .. } = init;
        let [stdout, stderr] = stdio;
        sys::install_fd(stdout, 1).act("pass on stdout")?;
        sys::install_fd(stderr, 2).act("pass on stderr")?;
        let all = Type::MOUNT
            | Type::PROCESS_ID
            | Type::INTER_PROCESS_COMMUNICATION
            | Type::HOST_NAME_AND_NIS_DOMAIN_NAME
            | Type::CONTROL_GROUP;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).act("hide this process")?;
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), all).act("enter the container")?;
        match sys::fork(UnshareFlags::empty(), false).act("start a process")? {
            sys::Fork::Parent(pid) => sys::exit_now(wait_for(pid)),
            sys::Fork::Child => {}
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind its life to the shim's")?;
        rustix::process::setsid().act("start a session")?;
        let workdir = if spec.workdir.is_empty() { "/" } else { &spec.workdir };
        rustix::process::chdir(workdir).act("enter the working directory")?;
        let capabilities = spec.locks().capabilities();
        harden::harden_with(&spec.user, crate::userns::may_set_groups()?, capabilities, filter)?;
        // Changing ids has cleared it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).act("bind its life to the shim's")?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).act("hide this process")?;
        sys::close_on_exec().act("mark descriptors close-on-exec")?;
        Ok(harden::exec(args, &spec.env))
    };
    let error = run().unwrap_or_else(|error| error);
    sys::write_raw(2, format!("igloo: {}\n", chain(&error)).as_bytes());
    sys::exit_now(NOT_RUN)
}

/// Exit code of a child, 128 + n if a signal killed it.
fn wait_for(pid: rustix::process::Pid) -> i32 {
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return code;
                }
                if let Some(signal) = status.terminating_signal() {
                    return 128 + signal;
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return NOT_RUN,
        }
    }
}
