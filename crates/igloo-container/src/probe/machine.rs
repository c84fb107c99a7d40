//! Kernel, devices, disk and settings.
//!
//! Unsafe for one query that rustix does not wrap.
#![allow(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access, statvfs};

use super::namespaces::usable;
use super::{Finding, Status};

/// The first kernel that has all that cannot be done without: overlay in user namespaces (5.11), mount_setattr (5.12).
const KERNEL: (u32, u32) = (5, 12);
const GIB: u64 = 1 << 30;
/// No machine that runs this program can truthfully have an earlier date: 2026-01-01.
const EARLIEST: u64 = 1_767_225_600;

pub(super) fn kernel() -> Finding {
    const NAME: &str = "kernel";
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version >= KERNEL => Finding::ok(NAME, release),
        version => {
            let cause = format!("igloo needs Linux {}.{} or later", KERNEL.0, KERNEL.1);
            // A vendor's old number may hide new features.
            let status = if version.is_some() { Status::Missing } else { Status::Degraded };
            Finding::bad(NAME, status, release, cause, "boot a newer kernel")
        }
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn seccomp() -> Finding {
    const NAME: &str = "seccomp";
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return Finding::ok(NAME, "filters can be installed");
    }
    let cause = "the kernel has no seccomp filters";
    Finding::bad(
        NAME,
        Status::Missing,
        "services can't be confined",
        cause,
        "use a kernel with `CONFIG_SECCOMP_FILTER`",
    )
}

pub(super) fn landlock() -> Finding {
    const NAME: &str = "landlock";
    const QUERY_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure and changes nothing: it returns a version.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, QUERY_VERSION)
    };
    if version > 0 {
        return Finding::ok(NAME, format!("version {version}"));
    }
    let cause = "the kernel has no Landlock, or it is not among the active security modules";
    Finding::bad(NAME, Status::Degraded, "not available", cause, "add `landlock` to the `lsm=` boot parameter")
}

pub(super) fn tun() -> Finding {
    device(
        "/dev/net/tun",
        "network tunnel",
        "services of an ordinary user can't reach the outside",
        "as root: `modprobe tun` and `chmod 666 /dev/net/tun` (udev does so by itself)",
    )
}

pub(super) fn kvm() -> Finding {
    device(
        "/dev/kvm",
        "kvm",
        "virtual machines are emulated, and slow",
        "as root: `modprobe kvm`, and add this user to the group `kvm`; in a virtual machine, allow nested ones",
    )
}

fn device(path: &str, name: &'static str, without: &str, remedy: &str) -> Finding {
    if usable(path) {
        return Finding::ok(name, format!("`{path}` can be opened"));
    }
    let cause = if Path::new(path).exists() { "this user may not open" } else { "there is no" };
    Finding::bad(name, Status::Degraded, without, format!("{cause} `{path}`"), remedy)
}

/// The nearest directory at or above a path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

pub(super) fn store(data: &Path) -> Finding {
    const NAME: &str = "data directory";
    let dir = existing(data);
    let shown = format!("`{}`", data.display());
    match access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if dir.is_dir() => Finding::ok(NAME, shown),
        Ok(()) => Finding::bad(
            NAME,
            Status::Missing,
            shown,
            format!("`{}` is no directory", dir.display()),
            "move it away, or choose another data directory",
        ),
        Err(e) => Finding::bad(
            NAME,
            Status::Missing,
            shown,
            format!("cannot write to `{}`: {e}", dir.display()),
            format!("make `{}` writable for this user, or choose another data directory", dir.display()),
        ),
    }
}

pub(super) fn space(data: &Path) -> Finding {
    const NAME: &str = "disk space";
    let dir = existing(data);
    let Ok(stat) = statvfs(dir) else {
        let remedy = "check the disk that it is on";
        return Finding::bad(NAME, Status::Degraded, "unknown", format!("cannot examine `{}`", dir.display()), remedy);
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{}.{} GiB free at `{}`", free / GIB, free % GIB * 10 / GIB, dir.display());
    // Some file systems have no fixed number of inodes and say 0.
    let few_files = stat.f_files > 0 && stat.f_favail < 100_000;
    let status = match free {
        ..GIB => Status::Missing,
        _ if free < 5 * GIB || few_files => Status::Degraded,
        _ => return Finding::ok(NAME, detail),
    };
    let cause =
        if few_files { format!("only {} more files fit", stat.f_favail) } else { "little space is left".into() };
    Finding::bad(NAME, status, detail, cause, "`igloo gc` removes what no project uses any more")
}

pub(super) fn inotify() -> Finding {
    const NAME: &str = "file watches";
    let read = |name: &str| {
        let path = Path::new("/proc/sys/fs/inotify").join(name);
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let (Some(watches), Some(instances)) = (read("max_user_watches"), read("max_user_instances")) else {
        let remedy = "use a kernel with `CONFIG_INOTIFY_USER`";
        return Finding::bad(NAME, Status::Missing, "no inotify", "the kernel has no inotify", remedy);
    };
    let detail = format!("{watches} watches, {instances} instances");
    if watches >= 65_536 && instances >= 128 {
        return Finding::ok(NAME, detail);
    }
    let cause = "editors and development servers watch many files";
    let remedy = "as root: `sysctl -w fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512`";
    Finding::bad(NAME, Status::Degraded, detail, cause, remedy)
}

pub(super) fn clock() -> Finding {
    const NAME: &str = "clock";
    let now = SystemTime::now();
    if now >= UNIX_EPOCH + Duration::from_secs(EARLIEST) {
        return Finding::ok(NAME, "plausible");
    }
    let cause = "the time is before this program was made, so signatures and certificates seem not to be valid yet";
    Finding::bad(NAME, Status::Missing, "in the past", cause, "set the clock: `timedatectl set-ntp true`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(version("6.1-rc3+"), Some((6, 1)));
        assert_eq!(version("strange"), None);
        assert!((6, 1) > KERNEL && (5, 10) < KERNEL);
    }

    #[test]
    fn a_data_directory_that_does_not_exist_yet_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(store(&dir.path().join("a/b")).status, Status::Ok);
        fs::write(dir.path().join("file"), "").expect("write");
        let finding = store(&dir.path().join("file"));
        assert!(finding.status == Status::Missing && finding.cause.is_some(), "{finding:?}");
        assert!(space(&dir.path().join("a/b")).detail.contains("GiB free"));
    }
}
