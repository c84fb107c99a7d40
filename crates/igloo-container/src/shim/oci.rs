//! A container as OCI's runtime specification puts it, for libcontainer.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use rustix::process::Resource;

use crate::harden::Locks;
use crate::spec::ContainerSpec;
use crate::userns;

/// Below the shim's base: a sysfs to bind, where the container could not mount one.
pub(super) const SYSFS: &str = "sys";

/// Not to be read: podman's list and more. What is not there is passed over.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// As others have it.
const SHM: u64 = 64 << 20;

/// Not to be written.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Writes `config.json` into a bundle.
pub(super) fn write(spec: &ContainerSpec, base: &Path, root: &Path, bundle: &Path) -> Result<(), OciSpecError> {
    translate(spec, base, root)?.save(bundle.join("config.json"))
}

fn translate(spec: &ContainerSpec, base: &Path, root: &Path) -> Result<Spec, OciSpecError> {
    use LinuxNamespaceType as Type;
    // Network and user namespace are the shim's.
    // An init's control groups are made when it has joined its own.
    let cgroup = (!spec.init).then_some(Type::Cgroup);
    let namespaces: Vec<_> = [Type::Pid, Type::Mount, Type::Ipc, Type::Uts]
        .into_iter()
        .chain(cgroup)
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect();
    let mut masked: Vec<String> = MASKED.iter().map(|path| (*path).to_owned()).collect();
    masked.extend(thermal_throttles());
    let mut read_only: Vec<String> = READ_ONLY.iter().map(|path| (*path).to_owned()).collect();
    if spec.sandboxes {
        // The kernel lets nobody mount a `/proc` that shows more than the one that is there.
        masked.retain(|path| !path.starts_with("/proc/"));
        read_only.retain(|path| !path.starts_with("/proc/"));
    }
    let linux = LinuxBuilder::default()
        .namespaces(namespaces.into_iter().collect::<Result<Vec<_>, _>>()?)
        .masked_paths(masked)
        .readonly_paths(read_only)
        .cgroups_path(format!("/igloo-{}", spec.id))
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(spec.hostname.clone())
        .root(RootBuilder::default().path(root).readonly(spec.read_only).build()?)
        .process(process(spec)?)
        .mounts(mounts(spec, base)?)
        .linux(linux)
        .build()
}

fn process(spec: &ContainerSpec) -> Result<libcontainer::oci_spec::runtime::Process, OciSpecError> {
    let mut user = UserBuilder::default().uid(spec.user.uid).gid(spec.user.gid).umask(0o022u32);
    if !spec.user.groups.is_empty() && userns::may_set_groups().unwrap_or(false) {
        user = user.additional_gids(spec.user.groups.clone());
    }
    use Capability as Cap;
    let mut bounding = HashSet::from([
        Cap::Chown,
        Cap::DacOverride,
        Cap::Fowner,
        Cap::Fsetid,
        Cap::Kill,
        Cap::Setgid,
        Cap::Setuid,
        Cap::Setpcap,
        Cap::NetBindService,
        Cap::SysChroot,
        Cap::Setfcap,
    ]);
    if spec.locks() != Locks::Service {
        bounding.insert(Cap::SysAdmin);
    }
    if spec.init {
        bounding.extend([Cap::IpcOwner, Cap::SysPtrace, Cap::SysBoot, Cap::SysNice, Cap::Lease, Cap::AuditWrite]);
        bounding.insert(Cap::DacReadSearch);
    }
    let effective = if spec.user.uid == 0 { bounding.clone() } else { HashSet::new() };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(bounding)
        .effective(effective.clone())
        .permitted(effective)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;
    // The environment goes to exec directly; this keeps libcontainer from looking for a home directory.
    let home = if spec.user.home.is_empty() { "/" } else { &spec.user.home };
    ProcessBuilder::default()
        .terminal(spec.terminal.is_some())
        .user(user.build()?)
        .args(spec.args.clone())
        .env(vec![format!("HOME={home}")])
        .cwd(if spec.workdir.is_empty() { "/" } else { spec.workdir.as_str() })
        .capabilities(capabilities)
        .no_new_privileges(true)
        .rlimits(rlimits(spec)?)
        .build()
}

/// Never more than the hard limit of this process: raising that takes a privilege that root may lack.
fn rlimits(spec: &ContainerSpec) -> Result<Vec<PosixRlimit>, OciSpecError> {
    let mut wanted = vec![("nproc", PROCESSES, PROCESSES)];
    wanted.extend(spec.nofile.map(|limit| ("nofile", limit, limit)));
    wanted.extend(spec.ulimits.iter().map(|u| (u.name.as_str(), u.soft, u.hard)));
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for (name, soft, hard) in wanted {
        let Some((kind, resource)) = ulimit(name) else { continue };
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let hard = hard.min(most);
        limits.retain(|l| l.typ() != kind);
        limits.push(PosixRlimitBuilder::default().typ(kind).soft(soft.min(hard)).hard(hard).build()?);
    }
    Ok(limits)
}

/// Of one user of a project, so that there is a limit where control groups can't be had.
const PROCESSES: u64 = 16_384;

/// What a limit of each process is called by others.
fn ulimit(name: &str) -> Option<(PosixRlimitType, Resource)> {
    use PosixRlimitType as Type;
    Some(match name {
        "as" => (Type::RlimitAs, Resource::As),
        "core" => (Type::RlimitCore, Resource::Core),
        "cpu" => (Type::RlimitCpu, Resource::Cpu),
        "data" => (Type::RlimitData, Resource::Data),
        "fsize" => (Type::RlimitFsize, Resource::Fsize),
        "locks" => (Type::RlimitLocks, Resource::Locks),
        "memlock" => (Type::RlimitMemlock, Resource::Memlock),
        "msgqueue" => (Type::RlimitMsgqueue, Resource::Msgqueue),
        "nice" => (Type::RlimitNice, Resource::Nice),
        "nofile" => (Type::RlimitNofile, Resource::Nofile),
        "nproc" => (Type::RlimitNproc, Resource::Nproc),
        "rss" => (Type::RlimitRss, Resource::Rss),
        "rtprio" => (Type::RlimitRtprio, Resource::Rtprio),
        "rttime" => (Type::RlimitRttime, Resource::Rttime),
        "sigpending" => (Type::RlimitSigpending, Resource::Sigpending),
        "stack" => (Type::RlimitStack, Resource::Stack),
        _ => return None,
    })
}

fn mounts(spec: &ContainerSpec, base: &Path) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |kind: &str, target: &str, options: &[&str]| {
        MountBuilder::default()
            .typ(kind)
            .source(kind)
            .destination(target)
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // libcontainer opens the terminal before it becomes the user, whose it is to be.
    let owner = format!("uid={}", spec.user.uid);
    if spec.terminal.is_some() {
        pts.push(&owner);
    }
    // The group of terminals, where it exists.
    if userns::own_maps().is_ok_and(|(_, gids)| userns::is_mapped(&gids, 5)) {
        pts.push("gid=5");
    }
    let shm = format!("size={}", spec.shm.unwrap_or(SHM));
    let mut mounts = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev", &["nosuid", "noexec", "strictatime", "mode=755", "size=1m"])?,
        mount("devpts", "/dev/pts", &pts)?,
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])?,
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
    ];
    let sysfs = base.join(SYSFS);
    let safe = ["nosuid", "noexec", "nodev", "ro"];
    mounts.push(if sysfs.exists() {
        let options = ["rbind", "nosuid", "noexec", "nodev", "rro"].map(str::to_owned);
        MountBuilder::default().typ("bind").source(sysfs).destination("/sys").options(options).build()?
    } else {
        mount("sysfs", "/sys", &safe)?
    });
    if !spec.init && Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        mounts.push(mount("cgroup", "/sys/fs/cgroup", &safe)?);
    }
    Ok(mounts)
}

/// Tell much about what neighbours do; one per processor, on real hardware only.
fn thermal_throttles() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path().join("thermal_throttle")));
    paths.filter(|path| path.exists()).map(|path| path.to_string_lossy().into_owned()).collect()
}
