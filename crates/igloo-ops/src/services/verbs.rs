//! `igloo kill`, `pause`, `unpause`, `reload`, `port`, `events`, `why`, `top`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use igloo_supervisor::journal::{self, Follower};
use igloo_supervisor::{PortStatus, ServiceEvent, ServiceStatus, State};
use serde::Serialize;

use super::instances::base_name;
use super::{check_name, connect, running, to_the_second};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// The replicas that names mean, as far as the supervisor knows them.
pub(crate) fn expand(known: &[ServiceStatus], names: &[String]) -> Vec<String> {
    let of = |name: &String| -> Vec<String> {
        let all = known.iter().map(|s| &s.name).filter(|n| *n == name || base_name(n) == name);
        let all: Vec<String> = all.cloned().collect();
        if all.is_empty() { vec![name.clone()] } else { all }
    };
    names.iter().flat_map(of).collect()
}

/// What is done to the processes of services that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'o> {
    /// Sent to each main process: `SIGKILL`, `HUP`, `15`.
    Signal(&'o str),
    /// Frozen.
    Pause,
    /// Let go on.
    Unpause,
    /// They read their configuration anew.
    Reload,
}

/// Does it to services; to all that run if none is named.
pub fn order(ctx: &Context<'_>, project: &Project, order: Order<'_>, services: &[String]) -> Result<(), OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let mut client = running(ctx, project)?;
    let services = expand(&client.status()?.services, services);
    match order {
        Order::Signal(text) => {
            let signal = crate::image::run::signal(text).ok_or_else(|| OpsError::NoSignal { text: text.to_owned() })?;
            client.signal(&services, signal)?;
        }
        Order::Pause => client.pause(&services, true)?,
        Order::Unpause => client.pause(&services, false)?,
        Order::Reload => client.reload(&services)?,
    }
    Ok(())
}

/// Where a port of a service is reachable.
#[derive(Debug, Serialize)]
pub struct Published {
    /// The service.
    pub service: String,
    /// Port inside.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port on this machine.
    pub host: String,
}

/// The published ports of a service, or the one that is asked for: `5432`, `53/udp`.
pub fn port(
    ctx: &Context<'_>,
    project: &Project,
    service: &str,
    port: Option<&str>,
) -> Result<Vec<Published>, OpsError> {
    check_name(project, service)?;
    let mut client = running(ctx, project)?;
    let names = expand(&client.status()?.services, &[service.to_owned()]);
    let wanted = port.map(|text| text.split_once('/').unwrap_or((text, "tcp")));
    let is_wanted = |p: &&PortStatus| {
        let asked = wanted.is_none_or(|(number, protocol)| {
            number == p.container.port().to_string() && protocol == p.protocol.to_string()
        });
        names.contains(&p.service) && p.bound && asked
    };
    let ports = client.ports()?;
    let found: Vec<Published> = ports
        .iter()
        .filter(is_wanted)
        .map(|p| Published {
            service: p.service.clone(),
            port: p.container.port(),
            protocol: p.protocol.to_string(),
            host: p.host.to_string(),
        })
        .collect();
    match port {
        Some(port) if found.is_empty() => {
            Err(OpsError::NotPublished { service: service.to_owned(), port: port.to_owned() })
        }
        _ => Ok(found),
    }
}

/// Gives what happened, oldest first, and with `follow` what happens, until `out` fails.
pub fn events(
    ctx: &Context<'_>,
    project: &Project,
    services: &[String],
    follow: bool,
    out: &mut dyn FnMut(&ServiceEvent) -> io::Result<()>,
) -> Result<(), OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let state = ctx.dirs.project_state(&project.id);
    let is_meant = |event: &ServiceEvent| {
        services.is_empty() || services.iter().any(|s| *s == event.service || s == base_name(&event.service))
    };
    // Opened first: what happens meanwhile is told once by either.
    let mut follower = Follower::new(&state);
    let mut last = 0;
    for event in journal::read(&state)? {
        last = last.max(event.seq);
        if is_meant(&event) {
            out(&event).map_err(OpsError::Output)?;
        }
    }
    if !follow {
        return Ok(());
    }
    loop {
        for event in follower.wait()?.iter().filter(|e| e.seq > last) {
            if is_meant(event) {
                out(event).map_err(OpsError::Output)?;
            }
        }
    }
}

/// A sentence of a service's history.
#[derive(Debug, Serialize)]
pub struct Told {
    /// RFC 3339, with milliseconds.
    pub time: String,
    /// The service's state then, one word.
    pub state: String,
    /// What happened and why.
    pub what: String,
    /// What it wrote last, if it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// Why a service is as it is.
#[derive(Debug, Serialize)]
pub struct Why {
    /// The service.
    pub service: String,
    /// One word.
    pub state: String,
    /// How it is now, a sentence.
    pub now: String,
    /// What led there, oldest first.
    pub history: Vec<Told>,
}

/// The history of a service, and of all its replicas.
pub fn why(ctx: &Context<'_>, project: &Project, service: &str, last: usize) -> Result<Vec<Why>, OpsError> {
    check_name(project, service)?;
    let known = match connect(ctx, project)? {
        Some(mut client) => client.status()?.services,
        None => Vec::new(),
    };
    let mut events: BTreeMap<String, Vec<ServiceEvent>> = BTreeMap::new();
    for event in journal::read(&ctx.dirs.project_state(&project.id))? {
        if event.service == service || base_name(&event.service) == service {
            events.entry(event.service.clone()).or_default().push(event);
        }
    }
    for name in expand(&known, &[service.to_owned()]) {
        events.entry(name).or_default();
    }
    let of = |(name, events): (String, Vec<ServiceEvent>)| {
        let mut history = Vec::new();
        let mut before: Option<&State> = None;
        for event in &events {
            let what = sentence(event, before);
            before = Some(&event.state);
            let time = time(event.time_ms);
            history.push(Told { time, state: event.state.word().to_owned(), what, tail: event.tail.clone() });
        }
        history.drain(..history.len().saturating_sub(last));
        let status = known.iter().find(|s| s.name == name);
        Why {
            state: status.map_or("stopped", |s| s.state.word()).to_owned(),
            now: now(&name, status),
            service: name,
            history,
        }
    };
    Ok(events.into_iter().map(of).collect())
}

fn now(name: &str, status: Option<&ServiceStatus>) -> String {
    let Some(status) = status else { return format!("{name} does not run: the project is not up") };
    let mut text = format!("{name} is {} since {}", status.state.word(), to_the_second(status.since_ms));
    let problem = status.problem.clone().or_else(|| status.unhealthy.as_ref().map(|why| format!("unhealthy: {why}")));
    if let Some(problem) = problem {
        text.push_str(&format!(": {problem}"));
    } else if let State::Waiting { on, .. } = &status.state {
        text.push_str(&format!(", for {}", on.join(", ")));
    }
    match status.restarts {
        0 => {}
        1 => text.push_str("; it was started again once"),
        n => text.push_str(&format!("; it was started again {n} times")),
    }
    if let Some(says) = &status.says {
        text.push_str(&format!("; it says: {says}"));
    }
    text
}

/// With milliseconds.
fn time(ms: u64) -> String {
    let text = igloo_supervisor::time::format_ns(ms.saturating_mul(1_000_000));
    text.get(.."2026-11-21T15:04:05.000".len()).map(|t| format!("{t}Z")).unwrap_or(text.clone())
}

/// What an event says, in words; `before` is the state that it came from.
pub fn sentence(event: &ServiceEvent, before: Option<&State>) -> String {
    let why = event.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
    if event.note {
        return event.message.clone().unwrap_or_else(|| event.state.word().to_owned());
    }
    match &event.state {
        State::Waiting { on, .. } if on.is_empty() => format!("shall run{why}"),
        State::Waiting { on, blocked: None } => format!("waits for {}{why}", on.join(", ")),
        State::Waiting { on, blocked: Some(blocked) } => format!("waits for {}, in vain: {blocked}", on.join(", ")),
        State::Setup => format!("its setup step runs{why}"),
        State::Starting => format!("is started{why}"),
        State::Running => match event.pid {
            Some(pid) => format!("runs as process {pid}{why}"),
            None => format!("runs{why}"),
        },
        State::Ready => format!("is ready{why}"),
        State::Stopping => format!("is asked to end{why}"),
        State::Stopped => match &event.exit {
            Some(exit) if before.is_some_and(State::is_active) => format!("has stopped ({exit}){why}"),
            _ => format!("has stopped{why}"),
        },
        State::Exited(exit) => format!("ended by itself: it {exit}"),
        State::Failed { reason } => format!("has failed: {reason}"),
        State::Backoff { reason, failures, until_ms } => {
            let pause = Duration::from_millis(until_ms.saturating_sub(event.time_ms));
            let times = if *failures > 1 { format!(", {failures} times in a row") } else { String::new() };
            format!("ended: {reason}{times}; is started again in {:.1} s", pause.as_secs_f64())
        }
    }
}

/// An event as a line for people.
pub fn line(event: &ServiceEvent) -> String {
    format!("{} {:<10} {}", time(event.time_ms), event.service, sentence(event, None))
}

/// What a service uses.
#[derive(Debug, Serialize)]
pub struct Use {
    /// The service.
    pub service: String,
    /// One word.
    pub state: String,
    /// Processor time in percent of one processor, over the last moment.
    pub cpu_percent: f64,
    /// Processor time of what runs now, in seconds.
    pub cpu_seconds: f64,
    /// Bytes in memory.
    pub memory: u64,
    /// What it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// Processes.
    pub pids: u64,
    /// Threads.
    pub threads: u64,
    /// How often it was started again.
    pub restarts: u32,
}

/// How long processor time is watched.
const MOMENT: Duration = Duration::from_millis(250);

/// What the services that run use, measured over a moment.
pub fn top(ctx: &Context<'_>, project: &Project, services: &[String]) -> Result<Vec<Use>, OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let mut client = running(ctx, project)?;
    let known = client.status()?.services;
    let names = expand(&known, services);
    let shown: Vec<&ServiceStatus> =
        known.iter().filter(|s| s.pid.is_some() && (services.is_empty() || names.contains(&s.name))).collect();
    let first = Processes::now();
    let began = std::time::Instant::now();
    std::thread::sleep(MOMENT);
    let (second, passed) = (Processes::now(), began.elapsed());
    let of = |status: &&ServiceStatus| {
        let pid = status.pid.unwrap_or(0);
        let (before, after) = (first.below(pid), second.below(pid));
        let limits = project.manifest.services.get(base_name(&status.name)).map(|s| s.limits);
        // A process that ended meanwhile takes its time with it.
        let used = (after.cpu_seconds - before.cpu_seconds).max(0.0);
        Use {
            service: status.name.clone(),
            state: status.state.word().to_owned(),
            cpu_percent: (used / passed.as_secs_f64() * 1000.0).round() / 10.0,
            cpu_seconds: after.cpu_seconds,
            memory: after.memory,
            memory_limit: limits.and_then(|l| l.memory),
            pids: after.pids,
            threads: after.threads,
            restarts: status.restarts,
        }
    };
    Ok(shown.iter().map(of).collect())
}

#[derive(Default)]
struct Sum {
    cpu_seconds: f64,
    memory: u64,
    pids: u64,
    threads: u64,
}

/// All processes of the machine as `/proc` has them.
struct Processes(Vec<Process>);

struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
    threads: u64,
    pages: u64,
}

impl Processes {
    fn now() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()));
        Self(pids.filter_map(Process::read).collect())
    }

    /// A process and all that came of it; what a container's processes leave behind is its first one's.
    fn below(&self, pid: u32) -> Sum {
        let mut sum = Sum::default();
        let mut todo = vec![pid];
        let tick = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        while let Some(at) = todo.pop() {
            for process in self.0.iter().filter(|p| p.pid == at) {
                sum.cpu_seconds += process.ticks as f64 / tick;
                sum.memory += process.pages * page;
                sum.pids += 1;
                sum.threads += process.threads;
            }
            todo.extend(self.0.iter().filter(|p| p.parent == at && p.pid != at).map(|p| p.pid));
        }
        sum
    }
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbered from the state on, which is field 3 of proc(5).
        let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok());
        Some(Self {
            pid,
            parent: u32::try_from(field(4)?).ok()?,
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            pages: field(24)?,
        })
    }
}
