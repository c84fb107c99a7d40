//! The sandbox of a project: its handle, and the process that is its PID 1.

mod archive;
mod handle;
mod init;
mod sources;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use igloo_base::At;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode};
use rustix::net::Shutdown;
use rustix::process::{Pid, WaitOptions};

pub use handle::{Container, ExecHandle};
pub use init::sandbox_main;

use crate::cgroup::{Cgroup, Hierarchy};
use crate::error::{Act, ContainerError};
use crate::protocol::{self, SandboxReply, SandboxRequest, Serve, Setup, ShimRequest, Start};
use crate::spec::{ContainerEvent, ContainerSpec, Identity, Limits, SandboxConfig};
use crate::userns::{self, Mapping};
use sources::Sources;

const PEER: &str = "sandbox";
/// Processes and threads of a container that says nothing.
const PIDS: u64 = 4096;
/// Where pipes without a name are; the kernel's `PIPEFS_MAGIC`.
const PIPEFS: i64 = 0x5049_5045;

/// A running sandbox; the kernel ends everything in it when this is dropped or its process dies.
#[derive(Debug)]
pub struct Sandbox {
    config: SandboxConfig,
    mapping: Mapping,
    sources: Option<Sources>,
    socket: OwnedFd,
    keeper: Option<Keeper>,
}

/// The thread that the sandbox hangs on, and a way to tell it whom to wait for.
#[derive(Debug)]
struct Keeper {
    pid: mpsc::Sender<Pid>,
    thread: JoinHandle<()>,
}

impl Sandbox {
    /// Starts the sandbox of a project.
    pub fn start(config: &SandboxConfig) -> Result<Self, ContainerError> {
        igloo_base::file::create_private_dir(&config.run_dir)?;
        igloo_base::file::create_dirs(shim_base(config))?;
        let mapping = userns::choose(config.identity, &config.project)?;
        match Self::start_with(config, mapping) {
            Err(ContainerError::IdMap { source }) => {
                let (uids, gids) = userns::own_maps()?;
                let why = format!("the file system of the store does not take id maps ({source})");
                Self::start_with(config, userns::identity_map(&uids, &gids, &why))
            }
            other => other,
        }
    }

    fn start_with(config: &SandboxConfig, mapping: Mapping) -> Result<Self, ContainerError> {
        let (socket, theirs) = protocol::pair()?;
        let keeper = keep(&config.exe, theirs)?;
        let mut this = Self { config: config.clone(), mapping, sources: None, socket, keeper: Some(keeper) };
        let launch = Setup::Launch { mapping: this.mapping.clone(), exe: config.exe.clone() };
        protocol::send(&this.socket, &launch, &[])?;
        let pid = match this.reply()? {
            SandboxReply::Mapped { pid } => Pid::from_raw(pid),
            _ => None,
        };
        let pid = pid.ok_or(ContainerError::Gone { peer: PEER })?;
        if let Some(keeper) = &this.keeper {
            let _ = keeper.pid.send(pid);
        }
        if this.mapping.identity == Identity::Root {
            this.sources = Some(Sources::new(&this.mapping, pid, &config.store_root)?);
        }
        let store = this.sources.as_ref().map(Sources::store).transpose()?;
        let fds: Vec<BorrowedFd<'_>> = store.iter().map(AsFd::as_fd).collect();
        let serve = Serve { identity: this.mapping.identity, subnet: config.subnet };
        protocol::send(&this.socket, &Setup::Serve(serve), &fds)?;
        match this.reply()? {
            SandboxReply::Ready => Ok(this),
            _ => Err(ContainerError::Gone { peer: PEER }),
        }
    }

    fn reply(&self) -> Result<SandboxReply, ContainerError> {
        match protocol::expect(&self.socket, PEER)?.0 {
            SandboxReply::Failed { message } => Err(ContainerError::Remote { peer: PEER, message }),
            reply => Ok(reply),
        }
    }

    /// The identity mode in force.
    pub fn mode(&self) -> Identity {
        self.mapping.identity
    }

    /// What a person should know about the identity mode; empty if nothing.
    pub fn mode_detail(&self) -> &str {
        &self.mapping.detail
    }

    /// True if its first process has ended, and with it everything in it.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Starts a container without input; what becomes of it is told to `on_event`, from a thread of its own.
    pub fn spawn(
        &self,
        spec: &ContainerSpec,
        stdout: OwnedFd,
        stderr: OwnedFd,
        on_event: Box<dyn Fn(ContainerEvent) + Send>,
    ) -> Result<Container, ContainerError> {
        let null = std::fs::File::open("/dev/null").at("open", "/dev/null")?;
        self.spawn_with(spec, [null.into(), stdout, stderr], on_event)
    }

    /// [`Self::spawn`] with standard input, output and error; with [`ContainerSpec::terminal`] they are not used.
    pub fn spawn_with(
        &self,
        spec: &ContainerSpec,
        stdio: [OwnedFd; 3],
        on_event: Box<dyn Fn(ContainerEvent) + Send>,
    ) -> Result<Container, ContainerError> {
        check(spec)?;
        for stream in &stdio[1..] {
            // A service that isn't root opens `/dev/stdout` anew; nobody else can see these pipes. Files stay as they
            // are, and so do pipes that have a name.
            let is_pipe = rustix::fs::fstat(stream).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
            if is_pipe && rustix::fs::fstatfs(stream).is_ok_and(|s| s.f_type == PIPEFS) {
                let _ = rustix::fs::fchmod(stream, Mode::from_raw_mode(0o622));
            }
        }
        let mut cgroup = self.limit(spec)?;
        let cgroup_failed = |source| ContainerError::Cgroup { id: spec.id.clone(), source };
        if spec.init {
            let given = self.delegate(spec, cgroup.take().unwrap_or_default());
            cgroup = Some(given?);
        }
        let mut joins = cgroup.as_ref().map_or(Ok(Vec::new()), Cgroup::procs_fds).map_err(cgroup_failed)?;
        joins.extend(cgroup.as_ref().map_or(Ok(None), Cgroup::delegated_fd).map_err(cgroup_failed)?);
        let mut spec = spec.clone();
        let mut mounts = Vec::new();
        let mut base = shim_base(&self.config);
        if let Some(sources) = &self.sources {
            mounts = sources.translate(&mut spec)?;
            base = PathBuf::from(init::SHIM);
        } else {
            // Somebody may have deleted it since.
            igloo_base::file::create_private_dir(&self.config.run_dir)?;
            igloo_base::file::create_dirs(&base)?;
        }
        let delegated = spec.init;
        let start = Start { spec, identity: self.mapping.identity, base, delegated, sources: mounts.len() };
        let memory = protocol::to_memory(&start)?;
        let (control, theirs) = protocol::pair()?;
        let fds: Vec<BorrowedFd<'_>> = [&memory].into_iter().chain(&mounts).chain(&joins).map(AsFd::as_fd).collect();
        protocol::send(&control, &ShimRequest::Start, &fds)?;
        let [stdin, stdout, stderr] = &stdio;
        let fds = [theirs.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        protocol::send(&self.socket, &SandboxRequest::Spawn, &fds)?;
        Container::attend(control, cgroup, on_event)
    }

    fn limit(&self, spec: &ContainerSpec) -> Result<Option<Cgroup>, ContainerError> {
        let failed = |source| ContainerError::Cgroup { id: spec.id.clone(), source };
        let hierarchy = Hierarchy::detect().map_err(failed)?;
        let create = |limits: &Limits| hierarchy.create(&self.config.project, &spec.id, limits);
        // Against fork bombs, where that can be had; elsewhere there is a limit for each user.
        let pids = spec.limits.pids.unwrap_or(PIDS);
        let cgroup = match create(&Limits { pids: Some(pids), ..spec.limits }) {
            Err(_) if spec.limits == Limits::default() => return Ok(None),
            Err(_) if spec.limits.pids.is_none() => create(&spec.limits).map_err(failed)?,
            other => other.map_err(failed)?,
        };
        Ok((!cgroup.is_empty()).then_some(cgroup))
    }

    /// Gives a container that is a whole system control groups of its own, and tells what it lacks otherwise.
    fn delegate(&self, spec: &ContainerSpec, mut cgroup: Cgroup) -> Result<Cgroup, ContainerError> {
        let failed = |source| ContainerError::Cgroup { id: spec.id.clone(), source };
        if self.mapping.identity == Identity::SingleUid {
            let why = "a whole system has several users, and only one user id is to be had here; install `newuidmap` \
                       (package uidmap) and give yourself a range in /etc/subuid and /etc/subgid: \
                       `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`";
            return Err(ContainerError::Spec { id: spec.id.clone(), why: why.to_owned() });
        }
        let outside = |map: &[userns::IdMap]| map.iter().find(|m| m.inside == 0).map_or(0, |m| m.outside);
        let owner = (outside(&self.mapping.uids), outside(&self.mapping.gids));
        let hierarchy = Hierarchy::detect().map_err(failed)?;
        match cgroup.delegate(&hierarchy, &self.config.project, &spec.id, owner) {
            Ok(()) => Ok(cgroup),
            Err(e) => {
                drop(cgroup.remove());
                Err(failed(e))
            }
        }
    }

    /// Removes a tree that may hold files of the containers' users.
    pub fn remove_tree(&self, path: &Path) -> Result<(), ContainerError> {
        remove_with(&self.config.exe, &self.mapping, path)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // PID 1 ends at the end of its socket.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        if let Some(Keeper { pid, thread }) = self.keeper.take() {
            drop(pid);
            drop(thread.join());
        }
    }
}

/// Starts the launcher from a thread that lives as long as the sandbox: the kernel ties the life of a process to the
/// *thread* that started it. The thread collects the launcher and then PID 1, of which it is told the id.
fn keep(exe: &Path, socket: OwnedFd) -> Result<Keeper, ContainerError> {
    let (tell_pid, pid) = mpsc::channel();
    let mut command = Command::new(exe);
    command.arg(init::WORD).env_clear().current_dir("/");
    command.stdin(socket).stdout(Stdio::null()).stderr(Stdio::null());
    // What a terminal sends to our process group is for us: it would end shims.
    command.process_group(0);
    let (started, when_started) = mpsc::channel();
    let thread = std::thread::Builder::new().name("igloo-sandbox".to_owned()).spawn(move || {
        let child = command.spawn();
        // It holds our copy of the launcher's end of the socket.
        drop(command);
        let (told, mut child) = match child {
            Ok(child) => (Ok(()), Some(child)),
            Err(e) => (Err(e), None),
        };
        drop(started.send(told));
        // The launcher ends by itself once it has launched, or has failed to.
        drop(child.as_mut().map(std::process::Child::wait));
        if let Ok(pid) = pid.recv() {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    });
    let keeper = Keeper { pid: tell_pid, thread: thread.act("start a thread")? };
    when_started.recv().map_err(|_| ContainerError::Gone { peer: PEER })?.at("run", exe)?;
    Ok(keeper)
}

/// Removes a tree that may hold files of a project's containers' users, by way of a process of `exe` in a user
/// namespace if need be.
pub(crate) fn remove_with(exe: &Path, mapping: &Mapping, path: &Path) -> Result<(), ContainerError> {
    match igloo_base::file::remove_tree(path) {
        Err(e) if mapping.identity == Identity::Subuid => {
            let remove = Setup::Remove { mapping: mapping.clone(), path: path.to_owned() };
            match helped(exe, &remove, &[]) {
                Err(ContainerError::Gone { .. }) => Err(e.into()),
                other => other,
            }
        }
        other => Ok(other?),
    }
}

/// Lets a process of `exe` do something.
fn helped(exe: &Path, what: &Setup, fds: &[BorrowedFd<'_>]) -> Result<(), ContainerError> {
    let (socket, theirs) = protocol::pair()?;
    let Keeper { pid: no_pid, thread } = keep(exe, theirs)?;
    drop(no_pid);
    protocol::send(&socket, what, fds)?;
    let reply = protocol::receive::<SandboxReply>(&socket, PEER)?;
    drop(thread.join());
    match reply {
        Some((SandboxReply::Ready, _)) => Ok(()),
        Some((SandboxReply::Failed { message }, _)) => Err(ContainerError::Remote { peer: PEER, message }),
        _ => Err(ContainerError::Gone { peer: PEER }),
    }
}

/// Writes a tar archive of a volume, with the owners that its files have inside.
pub fn pack_volume(exe: &Path, project: &str, path: &Path, to: impl AsFd) -> Result<(), ContainerError> {
    let pack = Setup::Pack { mapping: userns::choose(None, project)?, path: path.to_owned() };
    helped(exe, &pack, &[to.as_fd()])
}

/// Fills an empty directory, which becomes a volume, from a tar archive.
pub fn unpack_volume(exe: &Path, project: &str, path: &Path, from: impl AsFd) -> Result<(), ContainerError> {
    let unpack = Setup::Unpack { mapping: userns::choose(None, project)?, path: path.to_owned() };
    helped(exe, &unpack, &[from.as_fd()])
}

/// Where shims work unless the sandbox has a tree of its own.
fn shim_base(config: &SandboxConfig) -> PathBuf {
    config.run_dir.join("shim")
}

fn check(spec: &ContainerSpec) -> Result<(), ContainerError> {
    let bad = |why: String| Err(ContainerError::Spec { id: spec.id.clone(), why });
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    if spec.id.is_empty() || spec.id.starts_with('.') || !spec.id.chars().all(letter) {
        return bad("its id is no name".to_owned());
    }
    if spec.lowers.is_empty() {
        return bad("it has no layers".to_owned());
    }
    if spec.args.is_empty() {
        return bad("it has no command".to_owned());
    }
    for mount in &spec.mounts {
        let inside = mount.target.starts_with('/') && !mount.target.split('/').any(|part| part == "..");
        let names_something = mount.target.split('/').any(|part| !matches!(part, "" | "."));
        if !inside || !names_something {
            return bad(format!("`{}` is no place to mount on", mount.target));
        }
        // These are mounted anew after everything else.
        let first = mount.target.split('/').find(|part| !matches!(*part, "" | "."));
        if matches!(first, Some("proc" | "sys" | "dev")) {
            return bad(format!("nothing can be mounted on `{}`", mount.target));
        }
    }
    for (name, _) in &spec.hosts {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
            return bad(format!("`{name}` is no host name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Mount, MountKind};

    fn sound() -> ContainerSpec {
        ContainerSpec {
            id: "db".into(),
            lowers: vec!["/l".into()],
            args: vec!["true".into()],
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn senseless_specs_are_refused() {
        assert!(check(&sound()).is_ok());
        assert!(check(&ContainerSpec { id: "../x".into(), ..sound() }).is_err());
        assert!(check(&ContainerSpec { lowers: vec![], ..sound() }).is_err());
        assert!(check(&ContainerSpec { args: vec![], ..sound() }).is_err());
        for target in ["", "/", "/.", "relative", "/a/../b", "/proc/x", "//dev", "/./sys"] {
            let mount = Mount { kind: MountKind::Tmpfs { size: None }, target: target.into(), read_only: false };
            assert!(check(&ContainerSpec { mounts: vec![mount], ..sound() }).is_err(), "{target}");
        }
        let hosts = vec![("a\n1.2.3.4 b".to_owned(), std::net::Ipv4Addr::LOCALHOST)];
        assert!(check(&ContainerSpec { hosts, ..sound() }).is_err());
    }
}
