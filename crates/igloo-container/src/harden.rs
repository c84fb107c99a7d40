//! The last steps before a payload runs: identity, capabilities, no_new_privs, seccomp.
#![allow(clippy::todo)]

use crate::ContainerError;

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
}

/// Drops to exactly `effective` (permitted and effective; inheritable and ambient become empty) with `bounding` as
/// the bounding set. Needs CAP_SETPCAP if the bounding set shrinks.
pub fn set_capabilities(bounding: Capabilities, effective: Capabilities) -> Result<(), ContainerError> {
    todo!("{bounding:?} {effective:?}")
}

/// Sets no_new_privs for this process and all that come from it.
pub fn no_new_privs() -> Result<(), ContainerError> {
    todo!()
}

/// Sets groups, gid and uid, in this order. `set_groups` false leaves the groups (where the kernel denies it).
/// Keeps capabilities through the change; [`set_capabilities`] drops them.
pub fn become_user(user: &crate::spec::User, set_groups: bool) -> Result<(), ContainerError> {
    todo!("{user:?} {set_groups}")
}

/// All at once, as services get it: user, the eleven capabilities (none effective unless uid 0), no_new_privs,
/// seccomp. Call right before exec.
pub fn harden(user: &crate::spec::User, set_groups: bool) -> Result<(), ContainerError> {
    todo!("{user:?} {set_groups}")
}

/// Marks every descriptor above stderr close-on-exec.
pub fn close_on_exec() -> Result<(), ContainerError> {
    todo!()
}

/// Replaces this process by a program looked up in `PATH` of `env`; returns only the failure.
pub fn exec(args: &[String], env: &[(String, String)]) -> ContainerError {
    todo!("{args:?} {env:?}")
}
