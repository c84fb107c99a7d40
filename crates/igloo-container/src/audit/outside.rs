//! The running service as the machine sees it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use igloo_base::At;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use super::{AuditSpec, Check, Found};
use crate::enter::EnterError;
use crate::harden::Locks;
use crate::spec::MountKind;

/// A field of `/proc/PID/status`; empty if it is not there.
pub(super) fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// One line of `/proc/PID/mountinfo`.
struct Mounted<'t> {
    id: &'t str,
    point: &'t str,
    options: Vec<&'t str>,
    kind: &'t str,
}

fn parse(mountinfo: &str) -> Vec<Mounted<'_>> {
    let one = |line| -> Option<Mounted<'_>> {
        let (left, right) = str::split_once(line, " - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        Some(Mounted {
            id: left.first()?,
            point: left.get(4)?,
            options: left.get(5)?.split(',').collect(),
            kind: right.split(' ').next()?,
        })
    };
    mountinfo.lines().filter_map(one).collect()
}

/// Every check that is made from outside.
pub(super) fn look(spec: &AuditSpec) -> Result<Vec<Check>, EnterError> {
    let of = |name: &str| {
        let path = format!("/proc/{}/{name}", spec.pid);
        fs::read_to_string(&path).at("read", path)
    };
    let (status, mountinfo, uids) = (of("status")?, of("mountinfo")?, of("uid_map")?);
    let mounts = parse(&mountinfo);
    let not_ours = |what: &str| Found::Skip(what.to_owned());
    Ok(vec![
        volumes(spec, &mounts).called(6, "volumes are where they were declared, inside the root"),
        places(spec, &mounts, &["cwd", "root"]).called(7, "the working directory is inside"),
        descriptors(spec, &mounts).called(8, "no file of the host was inherited"),
        read_only(spec, &mounts).called(11, "read-only mounts are, nested ones included"),
        flags(&mounts).called(12, "no setuid programs and devices on any mount"),
        namespaces(spec).called(16, "processes, mounts, network, names and users are its own"),
        no_new_privs(&status).called(45, "the service can't gain privileges"),
        capabilities(&status, spec.container.locks()).called(20, "no more than eleven capabilities, none inherited"),
        filter(&status).called(21, "system calls are filtered"),
        limits(spec).called(22, "there is a limit to processes, memory and processors"),
        lifetime(&status).called(23, "it ends with its supervisor"),
        published(spec).called(36, "ports are published for this machine only"),
        users(&uids).called(38, "root inside is nobody outside"),
        ranges(&uids).called(39, "the ids are the project's own"),
        secrets(spec, &mounts, &of("environ").unwrap_or_default())
            .called(40, "secrets are in memory, for the service alone"),
        not_ours("it is in no virtual machine").called(42, "a virtual machine sees declared directories only"),
        not_ours("it is in no virtual machine").called(43, "a virtual machine's agent needs a token"),
        exec(spec).called(44, "`exec` trusts nothing that the container could have written"),
    ])
}

fn volumes(spec: &AuditSpec, mounts: &[Mounted<'_>]) -> Found {
    if spec.container.mounts.is_empty() {
        return Found::Pass("there are none".to_owned());
    }
    let root = format!("/proc/{}/root", spec.pid);
    let Ok(root) = crate::rootfs::Root::open(Path::new(&root)) else {
        return Found::Skip("the root can't be opened from here".to_owned());
    };
    let wrong = spec.container.mounts.iter().filter_map(|mount| {
        // With the container's root as `/`, whatever links there are.
        let found = root.find(&mount.target).ok().flatten();
        let at = found.and_then(|fd| mount_of(&fd));
        let there = at.is_some_and(|id| mounts.iter().any(|m| m.id == id.to_string() && m.point != "/"));
        (!there).then(|| format!("{} is not mounted", mount.target))
    });
    Found::unless(wrong.collect())
}

/// The number of the mount that a file is on.
fn mount_of(fd: impl AsFd) -> Option<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

fn inside(path: &str, mounts: &[Mounted<'_>]) -> Option<bool> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let id = mount_of(fd)?.to_string();
    Some(mounts.iter().any(|m| m.id == id))
}

fn places(spec: &AuditSpec, mounts: &[Mounted<'_>], names: &[&str]) -> Found {
    let outside = names.iter().filter(|name| inside(&format!("/proc/{}/{name}", spec.pid), mounts) == Some(false));
    Found::unless(outside.map(|name| format!("its {name} is outside")).collect())
}

fn descriptors(spec: &AuditSpec, mounts: &[Mounted<'_>]) -> Found {
    let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", spec.pid)) else {
        return Found::Skip("its descriptors can't be seen from here".to_owned());
    };
    let mut wrong = Vec::new();
    for entry in entries.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        // Pipes, sockets and the like have no path; standard output is the supervisor's pipe.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.starts_with("/")
            && !target.starts_with("/memfd:")
            && inside(&entry.path().to_string_lossy(), mounts) == Some(false)
        {
            wrong.push(format!("{number} is {}", target.display()));
        }
    }
    Found::unless(wrong)
}

fn read_only(spec: &AuditSpec, mounts: &[Mounted<'_>]) -> Found {
    let declared: Vec<&str> =
        spec.container.mounts.iter().filter(|m| m.read_only).map(|m| m.target.trim_end_matches('/')).collect();
    let below = |point: &str| declared.iter().any(|t| point == *t || point.starts_with(&format!("{t}/")));
    let always = |point: &str| matches!(point, "/sys" | "/proc/sys") && !spec.container.sandboxes;
    let writable = mounts.iter().filter(|m| (below(m.point) || always(m.point)) && !m.options.contains(&"ro"));
    // A writable volume declared on a place below a read-only one is meant so.
    let meant = |point: &str| spec.container.mounts.iter().any(|m| !m.read_only && m.target == point);
    Found::unless(writable.filter(|m| !meant(m.point)).map(|m| format!("{} is writable", m.point)).collect())
}

fn flags(mounts: &[Mounted<'_>]) -> Found {
    let wrong = mounts.iter().filter_map(|m| {
        // Each device is a mount of its own.
        let device = m.point.starts_with("/dev/") && matches!(m.kind, "devtmpfs" | "tmpfs" | "ext4" | "xfs" | "btrfs");
        let in_dev = m.point == "/dev"
            || m.point.starts_with("/dev/")
            || m.point.starts_with("/proc/")
            || m.point.starts_with("/sys/");
        let nosuid = m.options.contains(&"nosuid") || device || m.kind == "devpts" || in_dev;
        let nodev = m.options.contains(&"nodev") || in_dev;
        (!(nosuid && nodev)).then(|| format!("{} ({})", m.point, m.options.join(",")))
    });
    Found::unless(wrong.collect())
}

fn namespaces(spec: &AuditSpec) -> Found {
    let of = |who: &str, name: &str| fs::metadata(format!("/proc/{who}/ns/{name}")).ok().map(|m| (m.dev(), m.ino()));
    let pid = spec.pid.to_string();
    let shared = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].into_iter().filter(|name| {
        let theirs = of(&pid, name);
        theirs.is_none() || theirs == of("self", name)
    });
    Found::unless(shared.map(|name| format!("`{name}` is the host's")).collect())
}

fn no_new_privs(status: &str) -> Found {
    match field(status, "NoNewPrivs") {
        "1" => Found::Pass(String::new()),
        other => Found::Fail(format!("no_new_privs is {other}")),
    }
}

pub(super) fn capabilities(status: &str, locks: Locks) -> Found {
    let set = |name: &str| u64::from_str_radix(field(status, name), 16).unwrap_or(u64::MAX);
    let most = locks.capabilities();
    let mut wrong = Vec::new();
    for name in ["CapEff", "CapPrm", "CapBnd"] {
        let more = set(name) & !most.0;
        if more != 0 {
            wrong.push(format!("{name} has {} too many ({more:x})", more.count_ones()));
        }
    }
    for name in ["CapInh", "CapAmb"] {
        if set(name) != 0 {
            wrong.push(format!("{name} is not empty"));
        }
    }
    match wrong.is_empty() {
        true if locks != Locks::Service => {
            Found::Skip(format!("given up: {} in effect, in its own user namespace", set("CapEff").count_ones()))
        }
        true => Found::Pass(format!("{} in effect", set("CapEff").count_ones())),
        false => Found::Fail(wrong.join(", ")),
    }
}

fn filter(status: &str) -> Found {
    match field(status, "Seccomp") {
        "2" => Found::Pass(format!("{} filters", field(status, "Seccomp_filters"))),
        other => Found::Fail(format!("seccomp mode {other}")),
    }
}

fn limits(spec: &AuditSpec) -> Found {
    let declared = &spec.container.limits;
    let hierarchy = crate::cgroup::Hierarchy::of(spec.pid).unwrap_or_default();
    let read = crate::cgroup::limits_of(&hierarchy);
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    let mut compare = |name: &str, declared: Option<u64>, read: Option<u64>| match (declared, read) {
        (Some(declared), Some(read)) if read <= declared => seen.push(format!("{name} {read}")),
        (Some(declared), read) => wrong.push(format!("{name} should be {declared}, is {read:?}")),
        (None, Some(read)) => seen.push(format!("{name} {read}")),
        (None, None) => {}
    };
    compare("memory", declared.memory, read.memory);
    compare("pids", declared.pids, read.pids);
    // In thousandths.
    let thousandths = |cpus: Option<f64>| cpus.map(|c| (c * 1000.0).round() as u64);
    compare("cpus/1000", thousandths(declared.cpus), thousandths(read.cpus));
    let processes = fs::read_to_string(format!("/proc/{}/limits", spec.pid)).unwrap_or_default();
    let processes = processes.lines().find(|l| l.starts_with("Max processes")).unwrap_or_default();
    let processes: Option<u64> = processes.split_whitespace().nth(2).and_then(|n| n.parse().ok());
    match (wrong.is_empty(), read.pids.or(processes)) {
        (true, Some(n)) => {
            if read.pids.is_none() {
                seen.push(format!("processes of its user {n}"));
            }
            Found::Pass(seen.join(", "))
        }
        (true, None) => Found::Fail("nothing limits the number of processes".to_owned()),
        (false, _) => Found::Fail(wrong.join(", ")),
    }
}

fn lifetime(status: &str) -> Found {
    // Of this machine, of the sandbox, of the container.
    match field(status, "NSpid").split_whitespace().count() {
        0..=2 => Found::Fail("it is not in the sandbox's process namespace".to_owned()),
        _ => Found::Pass(String::new()),
    }
}

fn published(spec: &AuditSpec) -> Found {
    let wide: Vec<String> =
        spec.published.iter().filter(|a| !a.ip().is_loopback()).map(std::string::ToString::to_string).collect();
    match wide.is_empty() {
        true => Found::Pass(String::new()),
        false => Found::Skip(format!("given up: `ports` names {}", wide.join(", "))),
    }
}

/// First id outside, and how many, of each line of a map.
fn map(text: &str) -> Vec<(u64, u64, u64)> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn users(uids: &str) -> Found {
    let own = u64::from(rustix::process::geteuid().as_raw());
    let zero = map(uids).into_iter().find(|(inside, ..)| *inside == 0).map(|(_, outside, _)| outside);
    match zero {
        Some(0) => Found::Fail("root inside is root outside".to_owned()),
        Some(outside) if outside == own => Found::Pass("it is you".to_owned()),
        Some(outside) => Found::Pass(format!("it is {outside}")),
        None => Found::Pass("there is no root inside".to_owned()),
    }
}

fn ranges(uids: &str) -> Found {
    let map = map(uids);
    let own = u64::from(rustix::process::geteuid().as_raw());
    match map.as_slice() {
        [(_, _, 1)] => Found::Skip("there is one id only, which is yours".to_owned()),
        [(0, outside, _)] if own == 0 && *outside >= 524_288 => Found::Pass(format!("from {outside}")),
        _ if own == 0 => Found::Fail(format!("ids of the machine's own: {map:?}")),
        _ => Found::Skip("your projects share your one range of subordinate ids".to_owned()),
    }
}

fn secrets(spec: &AuditSpec, mounts: &[Mounted<'_>], environ: &str) -> Found {
    let _ = environ;
    let given = spec.container.mounts.iter().any(|m| matches!(m.kind, MountKind::Secrets { .. }));
    if !given {
        return Found::Skip("it has none".to_owned());
    }
    let mut wrong = Vec::new();
    match mounts.iter().find(|m| m.point == "/run/secrets") {
        Some(m) if m.kind == "tmpfs" && m.options.contains(&"ro") => {}
        Some(m) => wrong.push(format!("/run/secrets is {} ({})", m.kind, m.options.join(","))),
        None => wrong.push("/run/secrets is not mounted".to_owned()),
    }
    for entry in fs::read_dir(format!("/proc/{}/root/run/secrets", spec.pid)).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(m) if m.mode() & 0o377 == 0 => {}
            Ok(m) => wrong.push(format!("{} has mode {:o}", entry.file_name().display(), m.mode() & 0o7777)),
            Err(_) => {}
        }
    }
    Found::unless(wrong)
}

/// Users come from the environment's own list, programs from the container, in the container.
fn exec(spec: &AuditSpec) -> Found {
    let own = |name: &str| fs::metadata(format!("/proc/self/{name}")).ok().map(|m| (m.dev(), m.ino()));
    let theirs = |name: &str| fs::metadata(format!("/proc/{}/{name}", spec.pid)).ok().map(|m| (m.dev(), m.ino()));
    match theirs("root") {
        Some(root) if Some(root) == own("root") => Found::Fail("it has the host's root".to_owned()),
        Some(_) => Found::Pass(String::new()),
        None => Found::Skip("its root can't be seen from here".to_owned()),
    }
}
