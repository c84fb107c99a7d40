//! Limits of a container: control groups, version 1 and 2, whichever the machine has for each controller.
//!
//! Groups are made at `<place>/igloo/<project>/<service>`. With version 1 the place is the group that the
//! caller is in, per controller. With version 2 a group that holds processes can't have limited children,
//! so the place is the nearest group above the caller that hands the wanted controllers down. Nothing outside
//! `igloo` is ever written to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_base::{At, PathError};

use crate::spec::Limits;

/// Length in microseconds of the period in which a processor quota is counted.
const PERIOD: u64 = 100_000;

/// A limit that can't be had, or an act on a group that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// An act on a file of the control group file system.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A limit was asked for that this user can't set on this machine.
    #[error("cannot enforce the limit on {limit}: {cause}")]
    Unenforceable {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// What stands in the way.
        cause: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// No group can be given to a container.
    #[error("cannot give the container control groups of its own: {cause}; {remedy}")]
    Undelegated {
        /// What stands in the way.
        cause: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// A limit that makes no sense.
    #[error("{value} is no possible limit on {limit}")]
    Value {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// What was asked for.
        value: String,
    },
    /// A project or service name that is no file name.
    #[error("`{0}` can't name a control group")]
    Name(String),
}

/// The controllers that igloo uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// Number of processes and threads.
    Pids,
}

impl Controller {
    /// Every controller that igloo uses.
    pub const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }

    /// The manifest's name of the limit.
    const fn limit(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpus",
            Controller::Pids => "pids",
        }
    }

    fn asked(self, limits: &Limits) -> bool {
        match self {
            Controller::Memory => limits.memory.is_some(),
            Controller::Cpu => limits.cpus.is_some(),
            Controller::Pids => limits.pids.is_some(),
        }
    }
}

/// Where the caller stands in the control groups of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// Version 1: the caller's group of each controller that has a hierarchy of its own.
    pub v1: Vec<(Controller, PathBuf)>,
    /// Version 2, if mounted.
    pub v2: Option<Unified>,
}

/// The caller's place in the one hierarchy of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The caller's group, at or below `mount`.
    pub current: PathBuf,
}

impl Hierarchy {
    /// Reads the calling process's place.
    pub fn detect() -> Result<Self, CgroupError> {
        Self::at("/proc/self/cgroup")
    }

    /// Reads another process's place, as far as the calling process sees it.
    pub fn of(pid: u32) -> Result<Self, CgroupError> {
        Self::at(&format!("/proc/{pid}/cgroup"))
    }

    fn at(cgroup: &str) -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).at("read", path);
        Ok(Self::from_proc(&read("/proc/self/mountinfo")?, &read(cgroup)?))
    }

    /// `cgroup.procs` of each group that is not the same in `other`.
    pub(crate) fn groups_apart_from(&self, other: &Self) -> Vec<PathBuf> {
        let v1 = self.v1.iter().filter(|place| !other.v1.contains(place)).map(|(_, group)| group);
        let v2 = self.v2.iter().filter(|v2| other.v2.as_ref() != Some(v2)).map(|v2| &v2.current);
        v1.chain(v2).map(|group| group.join("cgroup.procs")).collect()
    }

    /// From the content of `/proc/PID/mountinfo` and `/proc/PID/cgroup`.
    fn from_proc(mountinfo: &str, cgroup: &str) -> Self {
        let own = |wanted: &dyn Fn(&str, &str) -> bool| {
            cgroup.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                wanted(id, controllers).then_some(path)
            })
        };
        let mut this = Self::default();
        for line in mountinfo.lines() {
            // ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [OPTIONAL...] - TYPE SOURCE SUPEROPTIONS
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
            let place = |path: &str| {
                let below = Path::new(path).strip_prefix(root).ok()?;
                let inside = !below.components().any(|c| c == std::path::Component::ParentDir);
                let mount = PathBuf::from(unescape(point));
                inside.then(|| if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) })
            };
            match *kind {
                "cgroup2" if this.v2.is_none() => {
                    if let Some(current) = own(&|id, _| id == "0").and_then(place) {
                        this.v2 = Some(Unified { mount: PathBuf::from(unescape(point)), current });
                    }
                }
                "cgroup" => {
                    let options = right.get(2).copied().unwrap_or("");
                    for controller in Controller::ALL {
                        let known = this.v1.iter().any(|(c, _)| *c == controller);
                        if known || !options.split(',').any(|o| o == controller.name()) {
                            continue;
                        }
                        let listed = |_: &str, list: &str| list.split(',').any(|c| c == controller.name());
                        if let Some(group) = own(&listed).and_then(place) {
                            this.v1.push((controller, group));
                        }
                    }
                }
                _ => {}
            }
        }
        this
    }

    /// Makes the group of a service. A limit that can't be enforced is an error; groups that would only serve
    /// accounting are left out where they can't be had.
    pub fn create(&self, project: &str, service: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        check_name(project)?;
        check_name(service)?;
        check_limits(limits)?;
        let below = Path::new("igloo").join(project).join(service);
        let mut group = Cgroup { groups: Vec::new() };
        let mut unified = Vec::new();
        for controller in Controller::ALL {
            let Some((_, place)) = self.v1.iter().find(|(c, _)| *c == controller) else {
                unified.push(controller);
                continue;
            };
            let dir = place.join(&below);
            let made = make(place, &below).and_then(|()| set_v1(&dir, controller, limits));
            match made {
                Ok(()) => group.groups.push(Group { dir, controllers: vec![controller], version: 1, delegated: false }),
                Err(e) if controller.asked(limits) => {
                    let partial = Cgroup {
                        groups: vec![Group { dir, controllers: vec![controller], version: 1, delegated: false }],
                    };
                    drop(partial.remove());
                    drop(group.remove());
                    return Err(refused(controller, e, 1));
                }
                Err(_) => {}
            }
        }
        match self.create_unified(&below, &unified, limits) {
            Ok(Some(made)) => group.groups.push(made),
            Ok(None) => {}
            Err(e) => {
                drop(group.remove());
                return Err(e);
            }
        }
        Ok(group)
    }

    fn create_unified(
        &self,
        below: &Path,
        controllers: &[Controller],
        limits: &Limits,
    ) -> Result<Option<Group>, CgroupError> {
        let asked: Vec<Controller> = controllers.iter().copied().filter(|c| c.asked(limits)).collect();
        let Some(place) = self.v2.as_ref().and_then(|v2| place_v2(v2, &asked)) else {
            return match (asked.first(), &self.v2) {
                (None, _) => Ok(None),
                (Some(first), Some(_)) => Err(refused_unified(*first)),
                (Some(first), None) => Err(CgroupError::Unenforceable {
                    limit: first.limit(),
                    cause: format!("no control group hierarchy with the controller `{}` is mounted", first.name()),
                    remedy: "mount the cgroup2 file system on /sys/fs/cgroup, or drop the limit".to_owned(),
                }),
            };
        };
        let handed: Vec<Controller> = controllers.iter().copied().filter(|c| hands_down(&place, *c)).collect();
        if handed.is_empty() {
            return Ok(None);
        }
        let dir = place.join(below);
        let made = make(&place, below).and_then(|()| {
            let mut at = place.clone();
            for part in below.parent().into_iter().flat_map(Path::components) {
                at.push(part);
                for controller in &handed {
                    write(&at.join("cgroup.subtree_control"), &format!("+{}", controller.name()))?;
                }
            }
            handed.iter().try_for_each(|c| set_v2(&dir, *c, limits))
        });
        match (made, asked.first()) {
            (Ok(()), _) => Ok(Some(Group { dir, controllers: handed, version: 2, delegated: false })),
            (Err(e), asked) => {
                drop(
                    Cgroup { groups: vec![Group { dir, controllers: handed, version: 2, delegated: false }] }.remove(),
                );
                asked.map_or(Ok(None), |c| Err(refused(*c, e, 2)))
            }
        }
    }

    /// The controllers whose limits the caller can set, found by making a group and removing it again.
    pub fn usable(&self) -> Vec<(Controller, Result<(), CgroupError>)> {
        let name = format!("probe-{}", std::process::id());
        let tried = |controller: Controller| {
            let limits = match controller {
                Controller::Memory => Limits { memory: Some(1 << 30), ..Limits::default() },
                Controller::Cpu => Limits { cpus: Some(1.0), ..Limits::default() },
                Controller::Pids => Limits { pids: Some(1 << 10), ..Limits::default() },
            };
            let alone =
                Self { v1: self.v1.iter().filter(|(c, _)| *c == controller).cloned().collect(), ..self.clone() };
            alone.create(&name, "probe", &limits).and_then(|group| group.remove().map_err(CgroupError::from))
        };
        Controller::ALL.map(|c| (c, tried(c))).into()
    }
}

/// A service's control group: one directory per hierarchy. Removing it is the caller's task; what a killed
/// caller left behind is removed by the next [`Hierarchy::create`] of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    dir: PathBuf,
    controllers: Vec<Controller>,
    version: u8,
    /// A container's init alone is in it.
    delegated: bool,
}

impl Group {
    fn procs(&self) -> Result<OwnedFd, CgroupError> {
        let path = self.dir.join("cgroup.procs");
        Ok(OpenOptions::new().write(true).open(&path).at("open", &path)?.into())
    }
}

/// What a group uses now; none where nothing counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// Processor time used so far.
    pub cpu: Option<Duration>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Cgroup {
    /// True if there is no group at all: nothing was asked for, and nothing could be had.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// `cgroup.procs` of each hierarchy but a delegated one, open for writing: a process that writes `0` to all of them
    /// is in the group, whatever namespaces and rights it has by then.
    pub fn procs_fds(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.groups.iter().filter(|g| !g.delegated).map(Group::procs).collect()
    }

    /// The same of the delegated group, which is for the container's init alone.
    pub fn delegated_fd(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.groups.iter().find(|g| g.delegated).map(Group::procs).transpose()
    }

    /// Adds a group of version 2 that a container's init may divide as it likes, and gives it to the user who is root
    /// there.
    pub fn delegate(
        &mut self,
        hierarchy: &Hierarchy,
        project: &str,
        service: &str,
        owner: (u32, u32),
    ) -> Result<(), CgroupError> {
        check_name(project)?;
        check_name(service)?;
        if !self.groups.iter().any(|g| g.version == 2) {
            let below = Path::new("igloo").join(project).join(service);
            let v2 = hierarchy.v2.as_ref().ok_or_else(|| CgroupError::Undelegated {
                cause: "no control group hierarchy of version 2 is mounted".to_owned(),
                remedy: "mount the cgroup2 file system, `mount -t cgroup2 none /sys/fs/cgroup/unified`".to_owned(),
            })?;
            let places = v2.current.ancestors().take_while(|dir| dir.starts_with(&v2.mount));
            let place = places.into_iter().find(|dir| may_write(dir)).ok_or_else(|| CgroupError::Undelegated {
                cause: format!("you may make no group at or above `{}`", v2.current.display()),
                remedy: undelegated_remedy(&v2.mount),
            })?;
            make(place, &below)?;
            let dir = place.join(&below);
            self.groups.push(Group { dir, controllers: Vec::new(), version: 2, delegated: false });
        }
        for group in self.groups.iter_mut().filter(|g| g.version == 2) {
            group.delegated = true;
            let files = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(|name| group.dir.join(name));
            for path in [&group.dir].into_iter().chain(&files) {
                let own = fs::metadata(path).at("look at", path)?;
                if (std::os::unix::fs::MetadataExt::uid(&own), std::os::unix::fs::MetadataExt::gid(&own)) != owner {
                    std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).at("give away", path)?;
                }
            }
        }
        Ok(())
    }

    /// True if the kernel killed a process of the group because the group's memory was used up.
    pub fn oom_killed(&self) -> bool {
        let Some(group) = self.of(Controller::Memory) else { return false };
        let file = if group.version == 1 { "memory.oom_control" } else { "memory.events" };
        number_after(&group.dir.join(file), "oom_kill").is_some_and(|n| n > 0)
    }

    /// What the group uses now.
    pub fn usage(&self) -> Usage {
        let file = |controller, v1: &str, v2: &str| {
            let group = self.of(controller)?;
            number(&group.dir.join(if group.version == 1 { v1 } else { v2 }))
        };
        let cpu = self.of(Controller::Cpu).and_then(|group| match group.version {
            // Only there where `cpu` and `cpuacct` are mounted together.
            1 => number(&group.dir.join("cpuacct.usage")).map(Duration::from_nanos),
            _ => number_after(&group.dir.join("cpu.stat"), "usage_usec").map(Duration::from_micros),
        });
        Usage {
            memory: file(Controller::Memory, "memory.usage_in_bytes", "memory.current"),
            cpu,
            pids: file(Controller::Pids, "pids.current", "pids.current"),
        }
    }

    /// Removes the group and groups made inside it, and the directories of project and igloo if they are empty then.
    /// On version 2 what still runs in it is killed. Goes on after a failure and tells the first one. A group that
    /// is gone is fine.
    pub fn remove(&self) -> Result<(), PathError> {
        let mut result = Ok(());
        for group in &self.groups {
            if group.version == 2 {
                // Fails on kernels before 5.14, where the processes of a dead sandbox are gone anyway.
                drop(fs::write(group.dir.join("cgroup.kill"), "1"));
            }
            match remove_group(&group.dir, 0) {
                Ok(()) => {
                    for parent in group.dir.ancestors().skip(1).take(2) {
                        drop(fs::remove_dir(parent));
                    }
                }
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }

    fn of(&self, controller: Controller) -> Option<&Group> {
        self.groups.iter().find(|g| g.controllers.contains(&controller))
    }
}

/// The limits that hold in a process's groups, as far as they are told here.
pub(crate) fn limits_of(hierarchy: &Hierarchy) -> Limits {
    let mut limits = Limits::default();
    for (controller, group) in &hierarchy.v1 {
        match controller {
            // "No limit" is a number close to the largest there is.
            Controller::Memory => {
                limits.memory = number(&group.join("memory.limit_in_bytes")).filter(|n| *n < 1 << 62);
            }
            Controller::Cpu => {
                let quota = number(&group.join("cpu.cfs_quota_us"));
                let period = number(&group.join("cpu.cfs_period_us"));
                limits.cpus = quota.zip(period).map(|(quota, period)| quota as f64 / period as f64);
            }
            Controller::Pids => limits.pids = number(&group.join("pids.max")),
        }
    }
    if let Some(Unified { current, .. }) = &hierarchy.v2 {
        limits.memory = limits.memory.or_else(|| number(&current.join("memory.max")));
        limits.pids = limits.pids.or_else(|| number(&current.join("pids.max")));
        let text = fs::read_to_string(current.join("cpu.max")).unwrap_or_default();
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) {
            limits.cpus = limits.cpus.or(Some(quota as f64 / period as f64));
        }
    }
    limits
}

/// Removes what a killed supervisor left of a project's groups. What is in use, or somebody else's, stays.
pub fn sweep(project: &str) {
    let (Ok(()), Ok(hierarchy)) = (check_name(project), Hierarchy::detect()) else { return };
    let unified = hierarchy.v2.iter().flat_map(|v2| {
        v2.current.ancestors().take_while(|dir| dir.starts_with(&v2.mount)).map(Path::to_owned).collect::<Vec<_>>()
    });
    for place in hierarchy.v1.iter().map(|(_, place)| place.clone()).chain(unified) {
        let igloo = place.join("igloo");
        if remove_group(&igloo.join(project), 0).is_ok() {
            drop(fs::remove_dir(igloo));
        }
    }
}

/// Removes a directory of the control group file system, depth first. What a kill has hit stays in its group
/// until it has been reaped, hence the patience: about half a second.
fn remove_group(dir: &Path, depth: usize) -> Result<(), PathError> {
    // A service may nest groups as it likes; ours are not deep.
    if depth < 64 {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_group(&entry.path(), depth + 1)?;
            }
        }
    }
    let mut pause = Duration::from_micros(500);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && pause < Duration::from_millis(300) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(e) => return Err(e).at("remove the control group", dir),
        }
    }
}

/// Makes `place/below` afresh.
fn make(place: &Path, below: &Path) -> Result<(), PathError> {
    let dir = place.join(below);
    let parent = dir.parent().unwrap_or(place);
    let act = "create the control group";
    for _ in 0..10 {
        // Not create_dir_all: `place` exists, and a missing one must not be made.
        for missing in parent.ancestors().take(2).collect::<Vec<_>>().into_iter().rev() {
            match fs::create_dir(missing) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).at(act, missing),
                _ => {}
            }
        }
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(()),
            // What a killed caller left behind.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => remove_group(&dir, 0)?,
            // Another service's end just removed the empty parents.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).at(act, &dir),
        }
    }
    Err(io::Error::from(io::ErrorKind::ResourceBusy)).at(act, &dir)
}

fn set_v1(dir: &Path, controller: Controller, limits: &Limits) -> Result<(), PathError> {
    match controller {
        Controller::Memory => {
            let Some(bytes) = limits.memory else { return Ok(()) };
            write(&dir.join("memory.limit_in_bytes"), &bytes.to_string())?;
            // Memory and swap together; the file is there if the kernel accounts for swap.
            let swap = dir.join("memory.memsw.limit_in_bytes");
            if swap.exists() { write(&swap, &bytes.to_string()) } else { Ok(()) }
        }
        Controller::Cpu => {
            let Some(cpus) = limits.cpus else { return Ok(()) };
            write(&dir.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
            write(&dir.join("cpu.cfs_quota_us"), &quota(cpus).to_string())
        }
        Controller::Pids => match limits.pids {
            Some(pids) => write(&dir.join("pids.max"), &pids.to_string()),
            None => Ok(()),
        },
    }
}

fn set_v2(dir: &Path, controller: Controller, limits: &Limits) -> Result<(), PathError> {
    match controller {
        Controller::Memory => {
            let Some(bytes) = limits.memory else { return Ok(()) };
            write(&dir.join("memory.max"), &bytes.to_string())?;
            let swap = dir.join("memory.swap.max");
            if swap.exists() { write(&swap, "0") } else { Ok(()) }
        }
        Controller::Cpu => match limits.cpus {
            Some(cpus) => write(&dir.join("cpu.max"), &format!("{} {PERIOD}", quota(cpus))),
            None => Ok(()),
        },
        Controller::Pids => match limits.pids {
            Some(pids) => write(&dir.join("pids.max"), &pids.to_string()),
            None => Ok(()),
        },
    }
}

/// Microseconds of processor time in a period; the kernel takes no less than a millisecond.
fn quota(cpus: f64) -> u64 {
    ((cpus * PERIOD as f64).round() as u64).max(1000)
}

/// The nearest group at or above the caller's in which the caller can make groups with these controllers.
fn place_v2(v2: &Unified, asked: &[Controller]) -> Option<PathBuf> {
    v2.current
        .ancestors()
        .take_while(|dir| dir.starts_with(&v2.mount))
        .filter(|dir| !asked.is_empty() || Controller::ALL.iter().any(|c| hands_down(dir, *c)))
        .find(|dir| asked.iter().all(|c| hands_down(dir, *c)) && may_write(dir))
        .map(Path::to_owned)
}

/// Processes of ours come from the caller's group, so `cgroup.procs` of the place, which is above both, must be
/// writable as well.
fn may_write(dir: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(dir, Access::WRITE_OK).is_ok() && access(dir.join("cgroup.procs"), Access::WRITE_OK).is_ok()
}

fn hands_down(dir: &Path, controller: Controller) -> bool {
    fs::read_to_string(dir.join("cgroup.subtree_control"))
        .is_ok_and(|list| list.split_whitespace().any(|c| c == controller.name()))
}

fn refused(controller: Controller, error: PathError, version: u8) -> CgroupError {
    let denied = matches!(error.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    if !denied {
        return error.into();
    }
    let cause = format!("{error}: {}", error.source);
    let remedy = match version {
        1 => {
            "this machine uses control groups version 1, where only root can set limits: run igloo as root, boot with \
              `systemd.unified_cgroup_hierarchy=1`, or drop the limit"
                .to_owned()
        }
        _ => DELEGATE.to_owned(),
    };
    CgroupError::Unenforceable { limit: controller.limit(), cause, remedy }
}

/// With systemd a person can help themselves; elsewhere root has to.
fn undelegated_remedy(mount: &Path) -> String {
    if Path::new("/run/systemd/system").is_dir() {
        return "start igloo in a delegated scope: `systemd-run --user --scope -p Delegate=yes igloo up`".to_owned();
    }
    let group = mount.join("NAME");
    format!(
        "as root, once: `mkdir {0} && chown -R USER {0} && echo PID > {0}/cgroup.procs`, where PID is your shell's; then \
         `igloo up` from that shell",
        group.display()
    )
}

const DELEGATE: &str =
    "start igloo in a delegated scope, `systemd-run --user --scope -p Delegate=yes igloo up`, or drop the limit";

fn refused_unified(controller: Controller) -> CgroupError {
    let cause =
        format!("no control group above this process that hands down `{}` may be written by you", controller.name());
    CgroupError::Unenforceable { limit: controller.limit(), cause, remedy: DELEGATE.to_owned() }
}

fn check_name(name: &str) -> Result<(), CgroupError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.+@".contains(c);
    // A leading dot would allow `..`; names of controllers' files (`memory.max`) hold a dot and a known prefix.
    let prefix = name.split('.').next().unwrap_or("");
    let file = name.contains('.') && matches!(prefix, "cgroup" | "memory" | "cpu" | "cpuset" | "pids" | "io");
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || file || !name.chars().all(good) {
        return Err(CgroupError::Name(name.to_owned()));
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), CgroupError> {
    let bad = |limit, value: String| Err(CgroupError::Value { limit, value });
    match limits {
        Limits { memory: Some(0), .. } => bad("memory", "0".to_owned()),
        Limits { pids: Some(0), .. } => bad("pids", "0".to_owned()),
        // Written so that what is not a number is refused, too.
        Limits { cpus: Some(cpus), .. } if !(*cpus > 0.0 && *cpus <= 65_536.0) => bad("cpus", cpus.to_string()),
        _ => Ok(()),
    }
}

/// Writes to a file that exists; the control group file system makes its own.
fn write(path: &Path, text: &str) -> Result<(), PathError> {
    use io::Write;
    let mut file: File = OpenOptions::new().write(true).open(path).at("open", path)?;
    file.write_all(text.as_bytes()).at("write", path)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn number_after(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// Undoes the octal escapes of `/proc/PID/mountinfo` that occur in paths.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
