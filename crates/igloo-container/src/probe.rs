//! What this machine allows, and why not: the findings of `igloo doctor`.
//!
//! What can be tried is tried, in a child process and with nothing left behind; settings are read to explain a
//! failure, not to predict one. Only for processes with a single thread.

mod machine;
mod namespaces;

use std::path::Path;

use serde::Serialize;

pub(crate) use namespaces::user_namespace_obstacle;

use crate::cgroup::{CgroupError, Hierarchy};

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All that igloo can do with this works.
    Ok,
    /// It works, with less.
    Degraded,
    /// What needs this does not work here.
    Missing,
}

/// One thing that igloo depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, in a word or two: stable, for scripts.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found, one line.
    pub detail: String,
    /// Why it is not better, one line; none if it is well.
    pub cause: Option<String>,
    /// What a person can do, one line; none if it is well.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), cause: None, remedy: None }
    }

    fn bad(
        name: &'static str,
        status: Status,
        detail: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (cause, remedy) = (Some(cause.into()), Some(remedy.into()));
        Self { name, status, detail: detail.into(), cause, remedy }
    }
}

/// Where igloo keeps things, as far as findings are about it.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The data directory, which holds store and volumes; it need not exist yet.
    pub data: &'a Path,
}

/// Examines the machine; takes some tens of milliseconds.
pub fn findings(places: &Places<'_>) -> Vec<Finding> {
    let mut findings = vec![
        machine::kernel(),
        namespaces::user_namespaces(),
        namespaces::overlay(),
        namespaces::network(),
        namespaces::subordinate_ids(),
        namespaces::idmapped_mounts(),
    ];
    findings.extend(limits());
    findings.extend([
        machine::seccomp(),
        machine::landlock(),
        machine::tun(),
        machine::kvm(),
        machine::store(places.data),
        machine::space(places.data),
        machine::inotify(),
        machine::clock(),
    ]);
    findings
}

/// One finding for each limit that a service can have.
fn limits() -> Vec<Finding> {
    let hierarchy = match Hierarchy::detect() {
        Ok(hierarchy) => hierarchy,
        Err(e) => {
            let remedy = "mount `/proc`, and the cgroup2 file system on `/sys/fs/cgroup`";
            let cause = crate::error::chain(&e);
            return vec![Finding::bad("limits", Status::Missing, "no control groups", cause, remedy)];
        }
    };
    let version = match (hierarchy.v1.is_empty(), &hierarchy.v2) {
        (true, Some(_)) => "version 2",
        (true, None) => "none mounted",
        (false, _) => "version 1",
    };
    let usable = hierarchy.usable().into_iter();
    let finding = |(controller, result): (crate::cgroup::Controller, Result<(), CgroupError>)| {
        let name = match controller {
            crate::cgroup::Controller::Memory => "memory limits",
            crate::cgroup::Controller::Cpu => "cpu limits",
            crate::cgroup::Controller::Pids => "pids limits",
        };
        let detail = format!("control groups: {version}");
        match result {
            Ok(()) => Finding::ok(name, detail),
            Err(CgroupError::Unenforceable { cause, remedy, .. }) => {
                Finding::bad(name, Status::Degraded, detail, cause, remedy)
            }
            Err(e) => Finding::bad(
                name,
                Status::Degraded,
                detail,
                crate::error::chain(&e),
                "services with such a limit can't run; drop it from `limits`",
            ),
        }
    };
    usable.map(finding).collect()
}
