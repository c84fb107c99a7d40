//! The desired state, as the client sends it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use igloo_base::Sha256;
use serde::{Deserialize, Serialize};

/// All services of a project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Project {
    /// The project's name, for people.
    pub name: String,
    /// The services, in any order.
    pub services: Vec<ServiceSpec>,
    /// Names that belong to the project and are not wanted now: if they run, that is left alone.
    #[serde(default)]
    pub known: Vec<String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name, unique in the project: `[A-Za-z0-9_-][A-Za-z0-9_.-]*`, at most 64 bytes; it names the log file.
    pub name: String,
    /// Digest of everything that needs a restart when it changes; the supervisor compares nothing else.
    pub digest: Sha256,
    /// What `make_unit` turns into a [`crate::Unit`]; opaque here.
    pub unit: serde_json::Value,
    /// What must be there before this service starts.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// How to tell that it is ready; without it a service is ready as soon as it is started.
    #[serde(default)]
    pub ready: Option<Readiness>,
    /// How to tell that it is still well.
    #[serde(default)]
    pub health: Option<Health>,
    /// It does its work and ends: it is never ready, and done when it ended with exit code 0.
    #[serde(default)]
    pub once: bool,
    /// It is started anew so many milliseconds after its end.
    #[serde(default)]
    pub every_ms: Option<u64>,
    /// What makes it read its configuration anew.
    #[serde(default)]
    pub reload: Option<Reload>,
    /// What to do when it ends by itself.
    #[serde(default)]
    pub restart: Restart,
    /// The signal that asks it to end; SIGTERM is 15.
    #[serde(default = "default_signal")]
    pub stop_signal: i32,
    /// How long it may take to end before it is killed.
    #[serde(with = "millis", default = "default_grace")]
    pub stop_grace: Duration,
    /// A one-shot step before the first start.
    #[serde(default)]
    pub setup: Option<Setup>,
    /// Ports of the service that are reachable from the host.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// How much log is kept.
    #[serde(default)]
    pub log: LogLimits,
}

impl ServiceSpec {
    /// A service with every default.
    pub fn new(name: impl Into<String>, digest: Sha256, unit: serde_json::Value) -> Self {
        Self {
            name: name.into(),
            digest,
            unit,
            needs: Vec::new(),
            ready: None,
            health: None,
            once: false,
            every_ms: None,
            reload: None,
            restart: Restart::default(),
            stop_signal: default_signal(),
            stop_grace: default_grace(),
            setup: None,
            ports: Vec::new(),
            log: LogLimits::default(),
        }
    }
}

fn default_signal() -> i32 {
    15
}

fn default_grace() -> Duration {
    Duration::from_secs(10)
}

/// A dependency on another service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Name of the other service.
    pub name: String,
    /// What it must have reached.
    pub condition: Condition,
}

impl Need {
    /// `name` must be ready.
    pub fn ready(name: impl Into<String>) -> Self {
        Self { name: name.into(), condition: Condition::Ready }
    }
}

/// Something a service can have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its process runs.
    Started,
    /// It is ready.
    Ready,
    /// It ended with exit code 0.
    Completed,
    /// It does not run, for whatever reason.
    Stopped,
}

/// How to tell that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What is looked at.
    pub probe: Probe,
    /// A service that is not ready this long after its start is stopped and has failed.
    #[serde(with = "millis", default = "default_timeout")]
    pub timeout: Duration,
    /// The longest pause between two looks; pauses grow from 5 ms to this.
    #[serde(with = "millis", default = "default_interval")]
    pub interval: Duration,
}

impl Readiness {
    /// A probe with the default timeout (60 s) and interval (250 ms).
    pub fn new(probe: Probe) -> Self {
        Self { probe, timeout: default_timeout(), interval: default_interval() }
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_interval() -> Duration {
    Duration::from_millis(250)
}

/// What tells that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// It accepts connections; the address is as seen from inside.
    Tcp {
        /// Where to connect.
        address: SocketAddr,
    },
    /// It answers GET with a status from 200 to 399.
    Http {
        /// Where to connect, as seen from inside.
        address: SocketAddr,
        /// Path and query, beginning with `/`.
        path: String,
        /// Value of the `Host` header.
        host: String,
        /// Further headers, as they are sent.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Ranges of good statuses, from and to; 200 to 399 if there is none.
        #[serde(default)]
        status: Vec<(u16, u16)>,
    },
    /// A command run inside ends with code 0.
    Exec {
        /// The command, as words.
        args: Vec<String>,
    },
    /// It says so itself ([`crate::UnitEvent::Ready`]).
    Notify,
    /// It writes a line that this regular expression matches.
    Log {
        /// Regular expression, matched against each line of stdout and stderr.
        pattern: String,
    },
}

/// How to tell that a service which was ready is still well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is looked at; [`Probe::Notify`] waits for `WATCHDOG=1` at least once in `interval`.
    pub probe: Probe,
    /// The pause between two looks.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// A look that takes longer counts as failed.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// So many failed looks in a row are an illness.
    pub retries: u32,
    /// What is done then.
    pub on_unhealthy: OnUnhealthy,
}

/// What is done about a service that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// It is stopped and started again.
    #[default]
    Restart,
    /// It is stopped and has failed.
    Stop,
    /// It is told, and no more.
    Ignore,
}

/// What makes a service read its configuration anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// A signal.
    Signal(i32),
    /// A command that is run inside.
    Exec(Vec<String>),
}

/// What to do with a service that ended by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// When to start it again.
    pub policy: Policy,
    /// How long to wait before.
    #[serde(default)]
    pub backoff: Backoff,
    /// Give up after this many ends in a row, none of them after a healthy period; `None`: never.
    #[serde(default = "default_tries")]
    pub tries: Option<u32>,
}

fn default_tries() -> Option<u32> {
    Some(5)
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: Policy::OnFailure, backoff: Backoff::default(), tries: default_tries() }
    }
}

/// When a service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Never.
    No,
    /// When it ended with anything but exit code 0.
    OnFailure,
    /// Whenever it ended.
    Always,
    /// Whenever it ended, except after `stop`; here the same as [`Policy::Always`], since a stopped service is never
    /// started again without being asked.
    UnlessStopped,
}

/// Waiting times between restarts: `initial`, doubled each time, `max` at most, less up to a quarter of it at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// The first wait.
    #[serde(with = "millis")]
    pub initial: Duration,
    /// The longest wait.
    #[serde(with = "millis")]
    pub max: Duration,
    /// A service that was ready this long is forgiven everything.
    #[serde(with = "millis")]
    pub healthy: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(30), healthy: Duration::from_secs(10) }
    }
}

/// A step that runs to its end before the first start: `initdb` and the like. It is done when `marker` exists, which
/// is written after the step ended with exit code 0, and not otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// What `make_unit` turns into the [`crate::Unit`] to run.
    pub unit: serde_json::Value,
    /// The file whose existence tells that the step is done. It should lie with the data that the step makes.
    pub marker: PathBuf,
    /// How long it may take.
    #[serde(with = "millis", default = "default_setup_timeout")]
    pub timeout: Duration,
}

fn default_setup_timeout() -> Duration {
    Duration::from_secs(600)
}

/// A port of a service that is reachable from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Address on the host.
    pub address: IpAddr,
    /// Port on the host; 0: any free one, and the same again after restarts if possible.
    pub port: u16,
    /// Port inside.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address inside.
    #[serde(default = "localhost")]
    pub target: IpAddr,
}

impl PublishedPort {
    /// TCP on 127.0.0.1, both outside and inside.
    pub fn tcp(port: u16, container_port: u16) -> Self {
        Self { address: localhost(), port, container_port, protocol: Protocol::Tcp, target: localhost() }
    }
}

fn localhost() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// How much log of a service is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file of this size is put aside and a new one begun.
    pub max_bytes: u64,
    /// How many files are kept, the current one among them; at least 1.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 3 }
    }
}

/// A project that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProject {
    /// A name that cannot name a file.
    #[error("`{0}` is no name for a service: use letters, digits, `_`, `-` and `.`, 64 at most")]
    Name(String),
    /// Two services of one name.
    #[error("there are two services `{0}`")]
    Twice(String),
    /// A need of something that is not there.
    #[error("service `{service}` needs `{need}`, which is not in the project")]
    UnknownNeed {
        /// Who needs.
        service: String,
        /// What is needed.
        need: String,
    },
    /// Services that wait for each other.
    #[error("services need each other in a circle: {}", .0.join(" -> "))]
    Circle(Vec<String>),
    /// A pattern that is no regular expression.
    #[error("service `{service}`: the ready pattern `{pattern}` is no regular expression: {why}")]
    Pattern {
        /// Whose pattern.
        service: String,
        /// The pattern.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// A look at its health that can't be taken.
    #[error("service `{service}`: its health is looked at in an interval, and not by a line of its log")]
    Health {
        /// Whose.
        service: String,
    },
    /// Two services that publish one port.
    #[error("services `{first}` and `{second}` both publish {protocol} port {port} on {address}")]
    PortTwice {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// Which protocol.
        protocol: Protocol,
        /// Which port.
        port: u16,
        /// On which address.
        address: IpAddr,
    },
    /// A signal number out of range.
    #[error("service `{service}`: {signal} is no signal")]
    Signal {
        /// Whose.
        service: String,
        /// The number.
        signal: i32,
    },
}

impl Project {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<(), BadProject> {
        let mut by_name = BTreeMap::new();
        let mut ports = BTreeMap::new();
        for service in &self.services {
            check_service(service)?;
            if by_name.insert(service.name.as_str(), service).is_some() {
                return Err(BadProject::Twice(service.name.clone()));
            }
            for port in service.ports.iter().filter(|p| p.port != 0) {
                let key = (port.protocol, port.port, port.address);
                if let Some(first) = ports.insert(key, &service.name) {
                    return Err(BadProject::PortTwice {
                        first: first.clone(),
                        second: service.name.clone(),
                        protocol: port.protocol,
                        port: port.port,
                        address: port.address,
                    });
                }
            }
        }
        for service in &self.services {
            if let Some(need) = service.needs.iter().find(|n| !by_name.contains_key(n.name.as_str())) {
                return Err(BadProject::UnknownNeed { service: service.name.clone(), need: need.name.clone() });
            }
        }
        let mut done = BTreeSet::new();
        for service in &self.services {
            find_circle(service, &by_name, &mut Vec::new(), &mut done)?;
        }
        Ok(())
    }
}

fn check_service(service: &ServiceSpec) -> Result<(), BadProject> {
    let name = service.name.as_str();
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(good) {
        return Err(BadProject::Name(name.chars().take(80).collect()));
    }
    if !(1..=64).contains(&service.stop_signal) {
        return Err(BadProject::Signal { service: name.to_owned(), signal: service.stop_signal });
    }
    if let Some(Reload::Signal(signal)) = &service.reload
        && !(1..=64).contains(signal)
    {
        return Err(BadProject::Signal { service: name.to_owned(), signal: *signal });
    }
    if service.health.as_ref().is_some_and(|h| h.interval.is_zero() || matches!(h.probe, Probe::Log { .. })) {
        return Err(BadProject::Health { service: name.to_owned() });
    }
    if let Some(Readiness { probe: Probe::Log { pattern }, .. }) = &service.ready {
        regex::Regex::new(pattern).map_err(|e| BadProject::Pattern {
            service: name.to_owned(),
            pattern: pattern.clone(),
            why: e.to_string().lines().last().unwrap_or_default().to_owned(),
        })?;
    }
    Ok(())
}

fn find_circle<'a>(
    service: &'a ServiceSpec,
    all: &BTreeMap<&str, &'a ServiceSpec>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Result<(), BadProject> {
    if done.contains(service.name.as_str()) {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|name| *name == service.name) {
        let circle = path[start..].iter().copied().chain([service.name.as_str()]).map(str::to_owned).collect();
        return Err(BadProject::Circle(circle));
    }
    path.push(&service.name);
    for need in service.needs.iter().filter_map(|n| all.get(n.name.as_str())) {
        find_circle(need, all, path, done)?;
    }
    path.pop();
    done.insert(&service.name);
    Ok(())
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        // A year is for ever, and sums of such durations don't overflow.
        const YEAR: u64 = 365 * 24 * 3600 * 1000;
        u64::deserialize(deserializer).map(|ms| Duration::from_millis(ms.min(YEAR)))
    }
}
