//! The last steps before a payload runs: identity, capabilities, no_new_privs, seccomp.
//!
//! Everything here changes the calling thread, which must be the only one of its process.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Act, ContainerError};
use crate::spec::User;
use crate::{seccomp, sys};

/// Capabilities of a process: bits as in `CapEff` of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// The eleven that podman gives to root in a container: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID
    /// SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP.
    pub const CONTAINER: Self =
        Self(1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31);

    /// These, and SYS_ADMIN: what mounts and namespaces take.
    pub const SANDBOXES: Self = Self(Self::CONTAINER.0 | 1 << 21);

    /// What the init of a whole system needs in its own user, process and network namespace: SANDBOXES and IPC_OWNER
    /// SYS_PTRACE SYS_BOOT SYS_NICE LEASE AUDIT_WRITE DAC_READ_SEARCH.
    pub const INIT: Self = Self(Self::SANDBOXES.0 | 1 << 2 | 1 << 15 | 1 << 19 | 1 << 22 | 1 << 23 | 1 << 28 | 1 << 29);

    /// What a payload run by this user has in effect: all of [`Self::CONTAINER`] for root, none for others.
    pub fn of(user: &User) -> Self {
        Self::CONTAINER.if_root(user)
    }

    /// All of these for root, none for others.
    pub fn if_root(self, user: &User) -> Self {
        if user.uid == 0 { self } else { Self::NONE }
    }
}

/// How tightly a container is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locks {
    /// As services are.
    #[default]
    Service,
    /// With namespaces and mounts of its own.
    Sandboxes,
    /// As the init of a whole system.
    Init,
}

impl Locks {
    /// The bounding set.
    pub fn capabilities(self) -> Capabilities {
        match self {
            Locks::Service => Capabilities::CONTAINER,
            Locks::Sandboxes => Capabilities::SANDBOXES,
            Locks::Init => Capabilities::INIT,
        }
    }

    /// The filter of system calls.
    pub fn filter(self) -> Result<seccomp::Filter, ContainerError> {
        match self {
            Locks::Service => seccomp::Filter::build(),
            Locks::Sandboxes => seccomp::Filter::with_sandboxes(),
            Locks::Init => seccomp::Filter::for_init(),
        }
    }
}

/// Drops to exactly `effective` (permitted and effective; inheritable and ambient become empty) with `bounding` as
/// the bounding set. What the caller never had is not gained. Needs CAP_SETPCAP if the bounding set shrinks.
pub fn set_capabilities(bounding: Capabilities, effective: Capabilities) -> Result<(), ContainerError> {
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) if bounding.0 & 1 << bit == 0 => {
                rustix::thread::remove_capability_from_bounding_set(one).act("shrink the capability bounding set")?;
            }
            Ok(_) => {}
            // Beyond the last one that this kernel knows.
            Err(_) => break,
        }
    }
    rustix::thread::clear_ambient_capability_set().act("clear the ambient capabilities")?;
    let have = rustix::thread::capabilities(None).act("read the own capabilities")?;
    let keep = have.permitted.intersection(CapabilitySet::from_bits_retain(effective.0));
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).act("drop capabilities")
}

/// Sets no_new_privs for this process and all that come from it.
pub fn no_new_privs() -> Result<(), ContainerError> {
    rustix::thread::set_no_new_privs(true).act("set no_new_privs")
}

/// Sets groups, gid and uid, in this order. `set_groups` false leaves the groups (where the kernel denies it).
/// Keeps permitted capabilities through the change; [`set_capabilities`] drops them.
pub fn become_user(user: &User, set_groups: bool) -> Result<(), ContainerError> {
    // All ones means "leave it" to the kernel.
    if user.uid == u32::MAX || user.gid == u32::MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).act("become that user");
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_keep_capabilities(true).act("keep capabilities")?;
    if set_groups {
        let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        rustix::thread::set_thread_groups(&groups).act("set the supplementary groups")?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).act("set the group id")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).act("set the user id")?;
    rustix::thread::set_keep_capabilities(false).act("keep no capabilities")
}

/// All at once, as services get it: user, the eleven capabilities (none effective unless uid 0), no_new_privs,
/// seccomp. Call right before exec.
pub fn harden(user: &User, set_groups: bool) -> Result<(), ContainerError> {
    harden_with(user, set_groups, Capabilities::CONTAINER, &seccomp::Filter::build()?)
}

/// [`harden`] with other capabilities, and a filter that is built already.
pub fn harden_with(
    user: &User,
    set_groups: bool,
    capabilities: Capabilities,
    filter: &seccomp::Filter,
) -> Result<(), ContainerError> {
    become_user(user, set_groups)?;
    // Changing ids cleared the effective set; bounding needs CAP_SETPCAP there.
    let have = rustix::thread::capabilities(None).act("read the own capabilities")?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: have.permitted, ..have })
        .act("raise the permitted capabilities")?;
    set_capabilities(capabilities, capabilities.if_root(user))?;
    no_new_privs()?;
    filter.install()
}

/// A second lock on what the filter of system calls and the lack of capabilities keep shut already: no devices are made,
/// and no file system is mounted, moved or unmounted, whatever else is let through one day. Where the kernel has no
/// Landlock, or a first one that would forbid to move files between directories, nothing is done.
pub fn landlock() -> Result<(), ContainerError> {
    const MAKE_CHAR: u64 = 1 << 6;
    const MAKE_BLOCK: u64 = 1 << 11;
    /// Denied to everybody who is restricted at all, unless it is allowed.
    const REFER: u64 = 1 << 13;
    if sys::landlock_version() < 2 {
        return Ok(());
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).act("open the root")?;
    sys::landlock(MAKE_CHAR | MAKE_BLOCK | REFER, REFER, root).act("restrict files")
}

/// Marks every descriptor above stderr close-on-exec.
pub fn close_on_exec() -> Result<(), ContainerError> {
    sys::close_on_exec().act("mark descriptors close-on-exec")
}

/// What was tried, in the error of [`exec`] about the program itself.
pub(crate) const RUN: &str = "run";

/// Replaces this process by a program looked up in `PATH` of `env`; returns only the failure.
/// Signals get their default actions.
pub fn exec(args: &[String], env: &[(String, String)]) -> ContainerError {
    match prepare(args, env) {
        Ok(prepared) => prepared.run(),
        Err(error) => error,
    }
}

struct Prepared {
    programs: Vec<PathBuf>,
    args: Vec<CString>,
    env: Vec<CString>,
}

fn prepare(args: &[String], env: &[(String, String)]) -> Result<Prepared, ContainerError> {
    let text = |text: String| CString::new(text).map_err(io::Error::other).act("pass a NUL byte to a program");
    let name = args.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).act("run a command without words")?;
    let path = env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str());
    let programs = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name)).collect()
    };
    Ok(Prepared {
        programs,
        args: args.iter().cloned().map(text).collect::<Result<_, _>>()?,
        env: env.iter().map(|(key, value)| text(format!("{key}={value}"))).collect::<Result<_, _>>()?,
    })
}

impl Prepared {
    fn run(self) -> ContainerError {
        sys::reset_signals();
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        let mut program = PathBuf::from(self.args[0].to_string_lossy().into_owned());
        for candidate in &self.programs {
            let Ok(path) = CString::new(candidate.as_os_str().as_bytes()) else { continue };
            let error = sys::execve(&path, &self.args, &self.env);
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || candidate.exists() {
                // Found but not to be run; another directory may still hold one that is.
                (failure, program) = (error, candidate.clone());
            }
        }
        ContainerError::Path(igloo_base::PathError { act: RUN, path: program, source: failure })
    }
}
