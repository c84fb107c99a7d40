//! In the container, under the locks of a service: attempts, and a look around.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::attempts::{self, Attempts};
use super::{AuditSpec, Check, Found};
use crate::harden::Locks;

/// What podman masks, and what igloo masks besides.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];
const HIDDEN_OF_SYS: &[&str] = &[
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/devices/virtual/powercap",
    "/sys/dev/block",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];
const SWITCHES: &[&str] = &[
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/panic",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/irq/default_smp_affinity",
    "/proc/fs/nfsd/threads",
    "/proc/bus/pci/devices",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/fs/cgroup/cgroup.subtree_control",
];
/// Name, major and minor number.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const OTHERS_IN_DEV: &[&str] = &["fd", "stdin", "stdout", "stderr", "pts", "ptmx", "shm", "mqueue", "console", "core"];
/// Sockets of daemons that rule a machine.
const DAEMONS: &[&str] = &[
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/nix/var/nix/daemon-socket/socket",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/tmp/.X11-unix/X0",
];
const PATIENCE: Duration = Duration::from_millis(400);

/// Every check that is made from inside.
pub(super) fn look(spec: &AuditSpec) -> Vec<Check> {
    let given_up = match spec.container.locks() {
        Locks::Service => None,
        Locks::Sandboxes => Some("given up: `loosen = [\"sandboxes\"]`"),
        Locks::Init => Some("given up: `init = \"system\"`"),
    };
    // What was given up by name is not even tried: it would work.
    let kept = |look: fn() -> Found| given_up.map_or_else(look, |why| Found::Skip(why.to_owned()));
    let init = |look: fn() -> Found| if spec.container.init { kept(look) } else { look() };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut checks = vec![
        kept(mounting).called(1, "a new /proc can't be mounted"),
        kept(remounting).called(2, "nothing can be made writable by remounting"),
        hidden(HIDDEN, spec.container.sandboxes).called(3, "/proc tells nothing of the machine"),
        switches(spec.container.init).called(4, "no switch of the kernel can be moved"),
        hidden(HIDDEN_OF_SYS, false).called(5, "/sys tells nothing of firmware and power"),
        own_file(spec).called(9, "the file of what enters can't be written"),
        masks().called(10, "devices that masks are made of are real"),
        refused(attempts::handles()).called(13, "no file is opened by its number"),
        bait(spec).called(14, "files of the host can't be found"),
        read_only(spec).called(15, "a read-only root can't be written"),
        refused(attempts::on_process(spec.process)).called(17, "processes of the host can't be reached"),
        dumpable().called(18, "what enters can't be traced"),
        locks(&status).called(19, "what enters has the locks of the service"),
        refused(attempts::modules()).called(24, "no kernel modules"),
        machine(spec.container.locks())
            .called(25, "the machine can't be stopped, swapped, renamed or set to another time"),
        init(|| refused(attempts::surface())).called(26, "no bpf, perf, userfaultfd, io_uring, keys, new mounts"),
        refused(attempts::families()).called(27, "no AF_ALG, AF_VSOCK, packet and other rare sockets"),
        kept(namespaces).called(28, "no namespaces of one's own"),
        refused(attempts::terminals()).called(29, "nothing is typed into a terminal"),
        init(cgroups).called(30, "control groups are out of reach"),
        devices(spec).called(31, "the usual devices and no others"),
        making_devices(spec).called(32, "no devices can be made"),
        abstract_socket(spec).called(33, "abstract sockets of the host are out of reach"),
        loopback(spec).called(34, "services of the host's 127.0.0.1 and metadata services are out of reach"),
        interfaces().called(35, "the network is the project's own"),
        refused(attempts::raw_sockets()).called(37, "no sniffing and no forging"),
        daemons(spec).called(41, "no socket of a daemon, and no writable Nix store"),
        refused(attempts::other_abis()).called(47, "no other calling conventions around the filter"),
        refused(attempts::personality()).called(48, "address randomisation stays on"),
    ];
    if spec.pid == 0 {
        checks.push(privileges(&status).called(20, "no more than eleven capabilities, none inherited"));
    }
    checks
}

/// None of these worked, and each because it is not allowed.
fn refused(attempts: Attempts) -> Found {
    const REFUSALS: [i32; 6] =
        [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EAFNOSUPPORT, libc::ESOCKTNOSUPPORT, libc::EPROTONOSUPPORT];
    let wrong = attempts.iter().filter_map(|(name, result)| match result {
        Ok(_) => Some(format!("{name} works")),
        Err(e) if REFUSALS.contains(e) || *e == libc::ESRCH => None,
        Err(e) => Some(format!("{name} is let through ({})", io::Error::from_raw_os_error(*e))),
    });
    Found::unless(wrong.collect())
}

fn mounting() -> Found {
    refused(vec![
        ("proc on /dev/shm", attempts::mount("proc", "/dev/shm", 0)),
        ("sysfs on /dev/shm", attempts::mount("sysfs", "/dev/shm", 0)),
        ("tmpfs on /dev/shm", attempts::mount("tmpfs", "/dev/shm", 0)),
    ])
}

fn remounting() -> Found {
    let again = |place| attempts::mount("none", place, libc::MS_REMOUNT | libc::MS_BIND);
    refused(vec![
        ("/", again("/")),
        ("/proc", again("/proc")),
        ("/proc/sys", again("/proc/sys")),
        ("/sys", again("/sys")),
    ])
}

fn hidden(paths: &[&str], loose: bool) -> Found {
    if loose {
        return Found::Skip("given up: `loosen = [\"sandboxes\"]` takes the cover off /proc".to_owned());
    }
    let told = paths.iter().filter(|path| {
        if let Ok(mut entries) = fs::read_dir(path) {
            return entries.next().is_some();
        }
        let mut byte = [0];
        // Without waiting: some of these end never.
        let open = OpenOptions::new().read(true).custom_flags_nonblock().open(path);
        open.is_ok_and(|mut file| io::Read::read(&mut file, &mut byte).is_ok_and(|n| n > 0))
    });
    Found::unless(told.map(|path| format!("{path} can be read")).collect())
}

/// `O_NONBLOCK`, by a name.
trait NonBlocking {
    fn custom_flags_nonblock(&mut self) -> &mut Self;
}

impl NonBlocking for OpenOptions {
    fn custom_flags_nonblock(&mut self) -> &mut Self {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, libc::O_NONBLOCK | libc::O_CLOEXEC)
    }
}

fn opens_for_writing(path: &Path) -> bool {
    OpenOptions::new().write(true).custom_flags_nonblock().open(path).is_ok()
}

fn switches(init: bool) -> Found {
    // Control groups of a system are its own.
    let tried = SWITCHES.iter().filter(|path| !init || !path.starts_with("/sys/fs/cgroup"));
    let open = tried.filter(|path| opens_for_writing(Path::new(path)));
    Found::unless(open.map(|path| format!("{path} can be written")).collect())
}

/// A program that writes to `/proc/PID/exe` of what enters would be run by the next one who enters.
fn own_file(spec: &AuditSpec) -> Found {
    if spec.pid == 0 {
        return Found::Skip("nobody has entered".to_owned());
    }
    // By the mount, since a file that is being run refuses writers only as long as it is.
    let read_only = rustix::fs::statvfs("/proc/self/exe");
    match read_only.map(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)) {
        Ok(true) => Found::Pass(String::new()),
        Ok(false) => Found::Fail("it is on a writable mount".to_owned()),
        // Nobody inside sees it, not even by this name.
        Err(_) => Found::Pass(String::new()),
    }
}

fn masks() -> Found {
    let wrong = DEVICES.iter().filter_map(|(name, major, minor)| {
        let path = format!("/dev/{name}");
        let metadata = fs::symlink_metadata(&path).ok()?;
        let real = metadata.file_type().is_char_device()
            && (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())) == (*major, *minor);
        (!real).then(|| format!("{path} is something else"))
    });
    Found::unless(wrong.collect())
}

fn bait(spec: &AuditSpec) -> Found {
    let seen = spec.hidden.iter().filter(|path| path.symlink_metadata().is_ok());
    Found::unless(seen.map(|path| format!("{} is there", path.display())).collect())
}

fn read_only(spec: &AuditSpec) -> Found {
    if !spec.container.read_only {
        return Found::Skip("writable, and thrown away at its end; `read-only = true` forbids it".to_owned());
    }
    let made = ["/igloo-audit", "/etc/igloo-audit", "/usr/igloo-audit"].into_iter().filter(|path| {
        let made = OpenOptions::new().write(true).create_new(true).open(path).is_ok();
        drop(fs::remove_file(path));
        made
    });
    Found::unless(made.map(|path| format!("{path} can be made")).collect())
}

fn dumpable() -> Found {
    match rustix::process::dumpable_behavior() {
        Ok(rustix::process::DumpableBehavior::NotDumpable) => Found::Pass(String::new()),
        other => Found::Skip(format!("not of a process that has entered ({other:?})")),
    }
}

fn locks(status: &str) -> Found {
    let wanted = [("NoNewPrivs", "1"), ("Seccomp", "2")];
    let wrong = wanted.iter().filter(|(name, value)| super::outside::field(status, name) != *value);
    Found::unless(wrong.map(|(name, _)| format!("{name} is {}", super::outside::field(status, name))).collect())
}

fn privileges(status: &str) -> Found {
    super::outside::capabilities(status, Locks::Service)
}

fn machine(locks: Locks) -> Found {
    let mut attempts = attempts::machine();
    if locks == Locks::Init {
        // Of its own process namespace, which ends by it.
        attempts.retain(|(name, _)| *name != "reboot");
    }
    if locks != Locks::Service {
        // Of its own namespace, then.
        attempts.retain(|(name, _)| !matches!(*name, "sethostname" | "setdomainname"));
    }
    refused(attempts)
}

fn namespaces() -> Found {
    refused(attempts::namespaces())
}

fn cgroups() -> Found {
    let mut wrong = Vec::new();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if own.lines().any(|line| line.splitn(3, ':').nth(2) != Some("/")) {
        wrong.push("/proc/self/cgroup names groups of the host".to_owned());
    }
    for name in ["cgroup.procs", "release_agent", "devices.allow", "memory.max", "pids.max"] {
        for group in ["", "memory/", "devices/", "pids/", "unified/"] {
            let path = format!("/sys/fs/cgroup/{group}{name}");
            if opens_for_writing(Path::new(&path)) {
                wrong.push(format!("{path} can be written"));
            }
        }
    }
    Found::unless(wrong)
}

fn devices(spec: &AuditSpec) -> Found {
    let mut wrong = Vec::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = DEVICES.iter().any(|(known, ..)| *known == name) || OTHERS_IN_DEV.contains(&name.as_str());
        let is_device = entry.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device());
        if !known && is_device {
            wrong.push(format!("/dev/{name}"));
        }
    }
    for path in ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/port"] {
        if fs::symlink_metadata(path).is_ok() && !wrong.contains(&path.to_owned()) {
            wrong.push(path.to_owned());
        }
    }
    wrong.retain(|path| !spec.container.devices.iter().any(|d| d.target == *path));
    match (wrong.is_empty(), spec.container.devices.as_slice()) {
        (true, []) => Found::Pass(String::new()),
        (true, given) => {
            let names: Vec<&str> = given.iter().map(|d| d.target.as_str()).collect();
            Found::Skip(format!("given by `devices`: {}", names.join(", ")))
        }
        (false, _) => Found::unless(wrong),
    }
}

fn making_devices(spec: &AuditSpec) -> Found {
    let mut places = vec!["/dev/shm".to_owned(), "/tmp".to_owned(), "/".to_owned()];
    places.extend(spec.container.mounts.iter().map(|m| m.target.clone()));
    let tries = |place: &String| {
        let at = Path::new(place).join(".igloo-audit-device");
        [("zero", attempts::device(&at, libc::S_IFCHR, 1, 5)), ("disk", attempts::device(&at, libc::S_IFBLK, 8, 0))]
            .into_iter()
            .filter(|(_, result)| result.is_ok())
            .map(|(name, _)| format!("{name} in {place}"))
            .collect::<Vec<_>>()
    };
    Found::unless(places.iter().flat_map(tries).collect())
}

fn abstract_socket(spec: &AuditSpec) -> Found {
    if spec.socket.is_empty() {
        return Found::Skip("there is none".to_owned());
    }
    match UnixAddress::from_abstract_name(&spec.socket).and_then(|a| UnixStream::connect_addr(&a)) {
        Ok(_) => Found::Fail("one was connected to".to_owned()),
        Err(_) => Found::Pass(String::new()),
    }
}

fn loopback(spec: &AuditSpec) -> Found {
    let mut wrong = Vec::new();
    let mut places = vec![("a metadata service", SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80)))];
    if spec.port != 0 {
        places.push(("127.0.0.1 of the host", SocketAddr::from((Ipv4Addr::LOCALHOST, spec.port))));
        places.extend(spec.container.gateway.map(|g| ("the gateway", SocketAddr::from((g, spec.port)))));
    }
    for (name, address) in places {
        if TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
            wrong.push(format!("{name} was reached"));
        }
    }
    Found::unless(wrong)
}

fn interfaces() -> Found {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
    let foreign: Vec<String> =
        names.filter(|n| !matches!(n.as_str(), "lo" | "eth0" | "tun0" | "tap0" | "bonding_masters")).collect();
    Found::unless(foreign.into_iter().map(|n| format!("an interface `{n}`")).collect())
}

fn daemons(spec: &AuditSpec) -> Found {
    let init = |path: &str| spec.container.init && (path.starts_with("/run/dbus") || path.starts_with("/run/systemd"));
    // A daemon of the container's own may be called so: only what is mounted from elsewhere counts.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let mut wrong: Vec<String> = DAEMONS
        .iter()
        .filter(|path| !init(path) && Path::new(path).symlink_metadata().is_ok_and(|m| m.file_type().is_socket()))
        .filter(|path| points.contains(path))
        .map(|path| format!("{path} is there"))
        .collect();
    for place in ["/nix/store", "/nix/var/nix/db"] {
        let probe = Path::new(place).join(".igloo-audit");
        if OpenOptions::new().write(true).create_new(true).open(&probe).is_ok() {
            drop(fs::remove_file(&probe));
            if points.contains(&place) {
                wrong.push(format!("{place} can be written"));
            }
        }
    }
    Found::unless(wrong)
}
