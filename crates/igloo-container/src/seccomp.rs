//! The system calls that a payload may make: an allow list of docker's and podman's kind, somewhat stricter.
//!
//! Three filters are installed; the kernel asks all and the newest one wins between refusals:
//! 1. what is listed is allowed, all else does not exist (`ENOSYS`, so that C libraries fall back);
//! 2. what exists but is not for containers is refused as the kernel would without privileges (`EPERM`);
//! 3. socket families other than unix, internet and netlink do not exist (`EAFNOSUPPORT`).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::ContainerError;

mod calls;

/// All `CLONE_NEW*` flags of clone(2) and unshare(2), time namespaces included.
const NAMESPACES: u64 = 0x7e02_0080;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter {
    programs: Vec<BpfProgram>,
}

/// Builds and installs the container filter in this thread; needs no_new_privs or CAP_SYS_ADMIN.
pub fn install() -> Result<(), ContainerError> {
    Filter::build()?.install()
}

impl Filter {
    /// Builds the container filter.
    pub fn build() -> Result<Self, ContainerError> {
        Self::but_for(&[])
    }

    /// Builds the filter of a container whose programs may make sandboxes of their own.
    pub fn with_sandboxes() -> Result<Self, ContainerError> {
        Self::but_for(SANDBOXES)
    }

    /// Builds the filter of a container whose program is the init of a whole system.
    pub fn for_init() -> Result<Self, ContainerError> {
        Self::but_for(&[SANDBOXES, INIT].concat())
    }

    /// With some calls that are refused to others.
    fn but_for(calls: &[libc::c_long]) -> Result<Self, ContainerError> {
        let programs = [allow(calls)?, refuse(calls)?, families()?];
        Ok(Self { programs: programs.into() })
    }

    /// Installs it in this thread.
    pub fn install(&self) -> Result<(), ContainerError> {
        for program in &self.programs {
            seccompiler::apply_filter(program).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ContainerError {
    ContainerError::Seccomp(Box::new(error))
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, ContainerError> {
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(failed)?;
    BpfProgram::try_from(filter).map_err(failed)
}

fn errno(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

/// Arguments of the kernel's `int` type are compared by their lower half: the upper one is not looked at by the kernel.
fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, ContainerError> {
    let condition = |(arg, op, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*arg, SeccompCmpArgLen::Dword, op.clone(), *value).map_err(failed)
    };
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?).map_err(failed)
}

/// What takes to make a sandbox; everything of it has a meaning in namespaces of one's own only.
const SANDBOXES: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// What systemd uses besides; a reboot is that of its process namespace.
const INIT: &[libc::c_long] = &[
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_reboot,
];

fn allow(more: &[libc::c_long]) -> Result<BpfProgram, ContainerError> {
    let mut rules: Rules = calls::ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // No new namespaces; clone3 hides its flags in memory, so it does not exist and C libraries use clone.
    rules.insert(libc::SYS_clone, vec![when(&[(0, SeccompCmpOp::MaskedEq(NAMESPACES), 0)])?]);
    if !more.is_empty() {
        rules.extend(more.iter().chain(&[libc::SYS_clone]).map(|call| (*call, Vec::new())));
    }
    // PER_LINUX, PER_LINUX32, each with UNAME26, and the query.
    let personalities = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personality = |value| when(&[(0, SeccompCmpOp::Eq, value)]);
    rules.insert(libc::SYS_personality, personalities.map(personality).into_iter().collect::<Result<_, _>>()?);
    compile(rules, errno(libc::ENOSYS), SeccompAction::Allow)
}

fn refuse(more: &[libc::c_long]) -> Result<BpfProgram, ContainerError> {
    let mut rules: Rules = calls::REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let any = (0..32).filter(|bit| NAMESPACES & 1 << bit != 0).map(|bit| 1 << bit);
    let flag = |flag| when(&[(0, SeccompCmpOp::MaskedEq(flag), flag)]);
    rules.insert(libc::SYS_clone, any.map(flag).collect::<Result<_, _>>()?);
    if !more.is_empty() {
        rules.retain(|call, _| *call != libc::SYS_clone && !more.contains(call));
    }
    // Typing into the terminal of whoever started us.
    let terminal = |request| when(&[(1, SeccompCmpOp::Eq, request)]);
    rules.insert(libc::SYS_ioctl, vec![terminal(0x5412)?, terminal(0x541c)?]);
    // Raw sockets; netlink sockets are of this type, too, and no danger.
    let kind = SeccompCmpOp::MaskedEq(0xf);
    let raw = |family: i32| {
        when(&[
            (0, SeccompCmpOp::Eq, family.unsigned_abs().into()),
            (1, kind.clone(), libc::SOCK_RAW.unsigned_abs().into()),
        ])
    };
    const SOCK_PACKET: u64 = 10;
    let sockets = vec![raw(libc::AF_INET)?, raw(libc::AF_INET6)?, when(&[(1, kind.clone(), SOCK_PACKET)])?];
    rules.insert(libc::SYS_socket, sockets);
    compile(rules, SeccompAction::Allow, errno(libc::EPERM))
}

fn families() -> Result<BpfProgram, ContainerError> {
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other = known.map(|family| (0, SeccompCmpOp::Ne, family.unsigned_abs().into()));
    let pairs = vec![when(&[(0, SeccompCmpOp::Ne, libc::AF_UNIX.unsigned_abs().into())])?];
    let rules = BTreeMap::from([(libc::SYS_socket, vec![when(&other)?]), (libc::SYS_socketpair, pairs)]);
    compile(rules, SeccompAction::Allow, errno(libc::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for call in calls::REFUSED {
            assert!(!calls::ALLOWED.contains(call), "{call}");
        }
        assert!(!calls::ALLOWED.contains(&libc::SYS_clone3));
        assert!(!calls::REFUSED.contains(&libc::SYS_clone3), "clone3 must not exist, so that libraries fall back");
    }

    #[test]
    fn the_filter_compiles() {
        let filter = Filter::build().expect("build");
        assert_eq!(filter.programs.len(), 3);
        // The kernel's BPF_MAXINSNS.
        assert!(filter.programs.iter().all(|program| program.len() <= 4096));
        assert_eq!(Filter::with_sandboxes().expect("build").programs.len(), 3);
        // What is allowed for sandboxes is refused to others, and not unknown.
        assert_eq!(Filter::for_init().expect("build").programs.len(), 3);
        assert!(SANDBOXES.iter().chain(INIT).all(|call| calls::REFUSED.contains(call)));
    }
}
