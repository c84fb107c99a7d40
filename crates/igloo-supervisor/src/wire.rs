//! What travels over the control socket: one JSON value per line.
//!
//! The client greets with [`Hello`], the server with [`Welcome`]; then each [`Request`] is answered by any number of
//! [`Reply::Event`]s and one final reply. A version that differs is refused with both numbers named: client and
//! supervisor are one binary, so a difference means that a project was started by another igloo.

use std::net::SocketAddr;
use std::time::Duration;

use igloo_base::Sha256;
use serde::{Deserialize, Serialize};

use crate::spec::{Condition, Project, Protocol};
use crate::unit::Exit;

/// Version of everything in this module and in [`crate::Project`].
pub(crate) const VERSION: u32 = 2;

/// A request but for [`Request::Apply`] and [`Request::Plan`] is shorter than this.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// A project's specs hold lists of store paths, a few hundred bytes each.
pub(crate) const MAX_PROJECT_LINE: usize = 16 << 20;

/// The client's first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) igloo_client: u32,
}

/// The server's first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) igloo_supervisor: u32,
    pub(crate) pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

/// What a client can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Make the project so. Services whose digest is unchanged and that are as they should be are left alone.
    /// Answered by [`Reply::Settled`].
    Apply {
        /// The desired state.
        project: Project,
        /// Stop and forget services that are not in `project`.
        remove_orphans: bool,
        /// Answer when every service is ready (or has ended well, or has failed), not at once.
        wait: bool,
        /// Answer after this long at the latest.
        timeout_ms: Option<u64>,
    },
    /// Tell what [`Request::Apply`] would do. Answered by [`Reply::Plan`].
    Plan {
        /// The desired state.
        project: Project,
        /// As for [`Request::Apply`].
        remove_orphans: bool,
    },
    /// Stop everything in reverse order, then end the supervisor. Answered by [`Reply::Settled`].
    Down {
        /// Replaces each service's own `stop_grace`.
        grace_ms: Option<u64>,
    },
    /// Stop services (all if none is named). Answered by [`Reply::Settled`] when they are.
    Stop {
        /// Names.
        services: Vec<String>,
        /// Replaces each service's own `stop_grace`.
        grace_ms: Option<u64>,
    },
    /// Start services (all if none is named), and what they need. Answered by [`Reply::Settled`].
    Start {
        /// Names.
        services: Vec<String>,
        /// Answer when they are ready, not at once.
        wait: bool,
    },
    /// Stop services (all if none is named) and start them again. Answered by [`Reply::Settled`].
    Restart {
        /// Names.
        services: Vec<String>,
        /// Answer when they are ready, not at once.
        wait: bool,
    },
    /// Tell how things are. Answered by [`Reply::Status`].
    Status,
    /// Wait for services (all if none is named) to reach a condition. Answered by [`Reply::Settled`], at the latest
    /// when one of them cannot reach it any more.
    Wait {
        /// Names.
        services: Vec<String>,
        /// What to wait for.
        condition: Condition,
        /// Answer after this long at the latest.
        timeout_ms: Option<u64>,
    },
    /// Send a signal to the main processes of services (all that run if none is named). What is killed so, or by its
    /// stop signal, is not started again by itself. Answered by [`Reply::Done`], or by [`Reply::Settled`] when what was
    /// killed is gone.
    Signal {
        /// Names.
        services: Vec<String>,
        /// Number.
        signal: i32,
    },
    /// Tell what a service runs as. Answered by [`Reply::Unit`].
    Unit {
        /// Name.
        service: String,
    },
    /// Freeze services (all that run if none is named), or let them go on. Answered by [`Reply::Done`].
    Pause {
        /// Names.
        services: Vec<String>,
        /// Freeze.
        on: bool,
    },
    /// Have services read their configuration anew. Answered by [`Reply::Done`].
    Reload {
        /// Names.
        services: Vec<String>,
    },
    /// Tell the published ports. Answered by [`Reply::Ports`].
    Ports,
    /// Tell every event from now on; never answered finally.
    Subscribe,
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Something happened meanwhile; more replies follow.
    Event(ServiceEvent),
    /// The client was too slow and missed this many events; more replies follow.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// How things are.
    Status(ProjectStatus),
    /// What would be done.
    Plan(Plan),
    /// What a service runs as, as it was applied.
    Unit(serde_json::Value),
    /// The published ports.
    Ports(Vec<PortStatus>),
    /// The wait is over, well or not.
    Settled(Settled),
    /// It is done.
    Done,
    /// It cannot be done.
    Error {
        /// Why, one line for a person.
        message: String,
    },
}

impl Reply {
    /// True if no further reply to the same request follows.
    pub fn is_final(&self) -> bool {
        !matches!(self, Reply::Event(_) | Reply::Lagged { .. })
    }
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// The services that were waited for, as they are now.
    pub services: Vec<ServiceStatus>,
    /// True if time ran out first.
    pub timed_out: bool,
}

impl Settled {
    /// Those that did not get where they should: name and reason.
    pub fn failures(&self) -> impl Iterator<Item = &ServiceStatus> {
        self.services.iter().filter(|s| s.problem.is_some())
    }
}

/// How a project is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectStatus {
    /// Name of the project, empty before the first [`Request::Apply`].
    pub name: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// When the supervisor started, in milliseconds since 1970.
    pub since_ms: u64,
    /// The services, sorted by name.
    pub services: Vec<ServiceStatus>,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its digest, of what runs (not of what is to run after a pending restart).
    pub digest: Sha256,
    /// What it is doing.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Process id of its main process, as the supervisor sees it.
    pub pid: Option<u32>,
    /// When its process started, in milliseconds since 1970; `None` when it doesn't run.
    pub started_ms: Option<u64>,
    /// Since when it is ready, in milliseconds since 1970; `None` when it isn't.
    pub ready_ms: Option<u64>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How it ended last time.
    pub last_exit: Option<Exit>,
    /// When it ended last time, in milliseconds since 1970.
    pub last_exit_ms: Option<u64>,
    /// Why it is not as it should be, one line for a person; `None` when all is well or under way.
    pub problem: Option<String>,
    /// The last lines it wrote, only when there is a problem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
    /// Why it is not well although it runs; `None` if it is, or if nobody looks.
    #[serde(default)]
    pub unhealthy: Option<String>,
    /// Frozen on request.
    #[serde(default)]
    pub paused: bool,
    /// What it says of itself (`STATUS=` of `sd_notify`).
    #[serde(default)]
    pub says: Option<String>,
    /// Its published ports.
    pub ports: Vec<PortStatus>,
    /// How many lines of its log were lost (full disk).
    #[serde(default)]
    pub log_dropped: u64,
}

/// What a service is doing. Serialised with a `state` tag: `{"state":"exited","code":0,…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It is to run and waits for others.
    Waiting {
        /// For whom.
        on: Vec<String>,
        /// Why that can't come true as things are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocked: Option<String>,
    },
    /// Its setup step runs.
    Setup,
    /// It is being started.
    Starting,
    /// Its process runs; it isn't ready yet.
    Running,
    /// It is ready.
    Ready,
    /// It was asked to end.
    Stopping,
    /// It was stopped on request, or never started.
    Stopped,
    /// It ended by itself and stays so.
    Exited(Exit),
    /// It is given up.
    Failed {
        /// Why, one line for a person.
        reason: String,
    },
    /// It ended by itself and will be started again.
    Backoff {
        /// How it ended, or why it could not start.
        reason: String,
        /// How often in a row.
        failures: u32,
        /// When, in milliseconds since 1970.
        until_ms: u64,
    },
}

impl State {
    /// One word for a table.
    pub fn word(&self) -> &'static str {
        match self {
            State::Waiting { .. } => "waiting",
            State::Setup => "setup",
            State::Starting => "starting",
            State::Running => "running",
            State::Ready => "ready",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
            State::Exited(_) => "exited",
            State::Failed { .. } => "failed",
            State::Backoff { .. } => "backoff",
        }
    }

    /// Why this is not as it should be, if so: one line for a person.
    pub fn problem(&self) -> Option<String> {
        match self {
            State::Failed { reason } => Some(reason.clone()),
            State::Exited(exit) if !exit.is_success() => Some(exit.to_string()),
            State::Waiting { blocked, .. } => blocked.clone(),
            State::Backoff { reason, failures: 1, .. } => Some(format!("{reason}, will be started again")),
            State::Backoff { reason, failures, .. } => {
                Some(format!("{reason}, {failures} times in a row; will be started again"))
            }
            _ => None,
        }
    }

    /// True if something of it may run.
    pub fn is_active(&self) -> bool {
        matches!(self, State::Setup | State::Starting | State::Running | State::Ready | State::Stopping)
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Whose.
    pub service: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Address and port on the host; port 0 if none was assigned yet.
    pub host: SocketAddr,
    /// Address and port inside.
    pub container: SocketAddr,
    /// True if connections to `host` are taken now.
    pub bound: bool,
}

/// Something that happened to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// Number, growing by one.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// To which service.
    pub service: String,
    /// The state it has now.
    #[serde(flatten)]
    pub state: State,
    /// Nothing but what `message` says happened, the state is the same as before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// What else is to be said, one line for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its main process, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How it ended, if it just did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The last lines it wrote, if it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// What [`Request::Apply`] would do, or does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// One entry for each service that is known or wanted, sorted by name.
    pub changes: Vec<PlannedChange>,
}

/// What would be done to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// Name.
    pub service: String,
    /// What.
    pub change: Change,
}

/// What is done to a service by [`Request::Apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing.
    Keep,
    /// It is started.
    Start,
    /// Its digest changed: it is stopped and started anew.
    Restart,
    /// Only what needs no restart changed (needs, restart policy, grace).
    Update,
    /// It is stopped and forgotten.
    Remove,
    /// It is not in the project and is left alone.
    Orphan,
}

/// `timeout_ms` of requests as a duration.
pub(crate) fn duration(ms: Option<u64>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.min(1 << 40)))
}
