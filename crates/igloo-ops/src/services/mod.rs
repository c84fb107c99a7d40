//! `igloo up`, `down`, `ps`, `exec`, `restart`, `start`, `stop`, `wait`.

mod audit;
pub mod copy;
mod instances;
pub(crate) mod network;
mod plan;
pub(crate) mod secrets;
mod system;
pub mod task;
pub mod verbs;
pub mod volume;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use igloo_base::file::{FileLock, create_private_dir, read_optional, remove_tree, write_atomic};
use igloo_base::{Event, Unit};
use igloo_container::exec::{ExecSpec, exec_by};
use igloo_manifest::{Isolation, Network, Port, Probe, Volume};
pub use igloo_supervisor::Condition;
use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::daemon;
use igloo_supervisor::{
    Change, Client, ClientError, PortStatus, Protocol, ServiceEvent, ServiceStatus, Settled, State,
};
use serde::Serialize;

use self::plan::Base;
use crate::context::Context;
use crate::error::{Failure, OpsError};
use crate::logs;
use crate::project::Project;
use crate::unit::{Payload, TRASH, is_filled, put_aside};
use crate::{environment, image};
use instances::{Instances, base_name};

pub use audit::{Audited, Security, audit, security};
pub use igloo_container::audit::{Check, Verdict};

/// How to bring services up.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// Only these and what they need; all if empty.
    pub services: Vec<String>,
    /// Return when they are ready, and fail if one isn't.
    pub wait: bool,
    /// The longest wait.
    pub timeout: Duration,
    /// Fail instead of changing the lock.
    pub locked: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Services of these profiles, too.
    pub profiles: Vec<String>,
    /// How many of each, instead of what the manifest says.
    pub scale: BTreeMap<String, u32>,
}

/// What `up` did or would do.
#[derive(Debug, Serialize)]
pub struct Up {
    /// One step a service.
    pub plan: Vec<Step>,
    /// The services as they are now.
    pub services: Vec<Shown>,
}

/// What becomes of a service.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub service: String,
    /// `start`, `restart`, `keep`, …
    pub action: String,
    /// Why.
    pub reason: String,
}

/// A service for a person.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// One word.
    pub state: String,
    /// `healthy`, `unhealthy` or `paused`, if somebody looks after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<&'static str>,
    /// What else is to be known of the state; empty if nothing.
    pub detail: String,
    /// RFC 3339.
    pub since: Option<String>,
    /// Process id on this machine.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Address in the project's network.
    pub address: Option<String>,
    /// Published ports, `127.0.0.1:8080->5000/tcp`.
    pub ports: Vec<String>,
    /// Where to reach it from this machine.
    pub urls: Vec<String>,
}

/// What `down` did.
#[derive(Debug, Serialize)]
pub struct Down {
    /// Whether there was something to stop.
    pub was_running: bool,
    /// Deleted volumes.
    pub volumes: Vec<String>,
}

/// What to do with running services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop and start.
    Restart,
    /// Start what is stopped.
    Start,
    /// Stop, with so much time to end.
    Stop(Option<Duration>),
}

impl Action {
    /// In the past tense.
    pub fn done(self) -> &'static str {
        match self {
            Action::Restart => "restarted",
            Action::Start => "started",
            Action::Stop(_) => "stopped",
        }
    }
}

/// Refuses a name that no service has.
pub(crate) fn check_name(project: &Project, name: &str) -> Result<(), OpsError> {
    // Also one of several replicas, `web.2`.
    if project.manifest.services.contains_key(base_name(name)) {
        return Ok(());
    }
    Err(OpsError::NoService { name: name.to_owned(), known: project.manifest.services.keys().cloned().collect() })
}

/// Brings services up: environments first, then the supervisor converges.
pub fn up(ctx: &Context<'_>, project: &mut Project, options: &UpOptions) -> Result<Up, OpsError> {
    for name in &options.services {
        check_name(project, name)?;
    }
    for name in options.scale.keys() {
        check_name(project, name)?;
    }
    let desired = desired(ctx, project, options)?;
    let remove_orphans = options.services.is_empty();
    if options.dry_run {
        return dry_run(ctx, project, &desired, remove_orphans);
    }
    for service in &desired.services {
        settle_setup(service)?;
        remember(ctx, project, service)?;
    }
    let task = igloo_base::Task::start(
        ctx.reporter,
        format!("start {}", project.manifest.project.name),
        Some(desired.services.len() as u64),
        Unit::Items,
    );
    let mut ready = BTreeSet::new();
    let mut on_event = |event: &ServiceEvent| {
        if event.state == State::Ready && ready.insert(event.service.clone()) {
            task.advance(1);
        }
        tell(ctx, event);
    };
    let trash_before = trash(ctx, project);
    let apply = ApplyOptions { remove_orphans, wait: options.wait, timeout: Some(options.timeout) };
    let mut tries = 0;
    let (mut client, settled) = loop {
        let mut client = start_supervisor(ctx, project)?;
        match client.apply(&desired, apply, &mut on_event) {
            Ok(settled) => break (client, settled),
            // A supervisor that was just ending: `up` during `down`.
            Err(ClientError::Gone) if tries < 3 => tries += 1,
            Err(e) => return Err(e.into()),
        }
    };
    drop(task);
    for (volume, place) in trash(ctx, project).difference(&trash_before) {
        ctx.reporter.event(Event::Warning {
            text: put_aside(volume, place),
            hint: Some("delete it when you are sure that nobody needs it".to_owned()),
        });
    }
    if options.wait {
        check_settled(&settled)?;
    }
    let status = client.status()?;
    Ok(Up { plan: Vec::new(), services: status.services.iter().map(|s| shown(ctx, project, s)).collect() })
}

/// What shall run, with everything that it needs to be on this machine.
fn desired(
    ctx: &Context<'_>,
    project: &mut Project,
    options: &UpOptions,
) -> Result<igloo_supervisor::Project, OpsError> {
    let wanted = Instances::wanted(&project.manifest, &options.services, &options.profiles, &options.scale);
    let names: Vec<String> = wanted.services().cloned().collect();
    if names.is_empty() {
        return Err(OpsError::NoServices);
    }
    check_kinds(project, &names)?;
    check_binds(project, &names)?;
    let realised = bases(ctx, project, &names, options.locked)?;
    let instances = wanted.all();
    let declared: BTreeSet<&str> = project.manifest.services.keys().map(String::as_str).collect();
    let all = declared.iter().copied().chain(instances.iter().map(|(_, name)| name.as_str()));
    let addresses = network::addresses(ctx, &project.id, all.collect::<BTreeSet<_>>().into_iter())?;
    let mut desired = igloo_supervisor::Project {
        name: project.manifest.project.name.clone(),
        services: Vec::new(),
        known: declared.into_iter().filter(|name| !names.iter().any(|n| n == name)).map(str::to_owned).collect(),
    };
    for (service, instance) in &instances {
        let Some(realised) = realised.get(service.as_str()) else { continue };
        desired.services.push(plan::service(ctx, project, instance, realised, &addresses, &wanted)?);
    }
    Ok(desired)
}

/// What services are made of, all of it on this machine.
fn bases(
    ctx: &Context<'_>,
    project: &mut Project,
    names: &[String],
    locked: bool,
) -> Result<BTreeMap<String, Base>, OpsError> {
    let key_of = |project: &Project, name: &String| project.manifest.environment_key(name);
    let image_of =
        |project: &Project, name: &String| project.manifest.foreign_image(&key_of(project, name)).map(str::to_owned);
    let (images, packages): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| image_of(project, name).is_some());
    let keys: Vec<String> = packages.iter().map(|name| key_of(project, name)).collect();
    let realised = environment::realise(ctx, project, &keys, locked)?;
    let mut bases: BTreeMap<String, Base> =
        packages.into_iter().cloned().zip(realised.into_iter().map(Base::Environment)).collect();
    for name in images {
        let image = image_of(project, name).unwrap_or_default();
        let foreign = image::service::realise(ctx, project, &image)?;
        let copies = environment::copies(ctx, project, &key_of(project, name))?;
        bases.insert(name.clone(), Base::Image(foreign, copies));
    }
    Ok(bases)
}

/// What a manifest can say and this igloo can't do yet is refused, not ignored.
fn check_kinds(project: &Project, wanted: &[String]) -> Result<(), OpsError> {
    for name in wanted {
        let service = &project.manifest.services[name];
        if service.watch.iter().any(|w| w.action == igloo_manifest::WatchAction::Sync) {
            let what = "`watch` with `sync` (take `restart`; files that `copy` puts in are brought up to date by it)";
            return Err(OpsError::NotYet { service: name.clone(), what });
        }
        let what = match service.isolation {
            Isolation::Container => continue,
            Isolation::Host => match () {
                () if service.content.user.is_some() => "another user at isolation `host`, where it runs as you",
                () if !service.volumes.is_empty() => "volumes at isolation `host`, where it sees your own files",
                () if !service.secrets.is_empty() => "secrets at isolation `host`",
                () if service.init => "`init` at isolation `host`",
                () if service.read_only => "`read-only` at isolation `host`",
                () if service.network != Network::Internal || !service.host.is_empty() => {
                    "`network` and `host` at isolation `host`, where it has the machine's own"
                }
                () if service.ports.iter().any(|p| p.host != Some(p.container)) => {
                    "other ports than its own at isolation `host`, where nothing is in between (write `\"5000:5000\"`)"
                }
                () if service.replicas > 1 => "replicas at isolation `host`",
                () => continue,
            },
            Isolation::Pure => "isolation `pure` for services",
            Isolation::Vm => "isolation `vm`",
        };
        return Err(OpsError::NotYet { service: name.clone(), what });
    }
    Ok(())
}

/// A bind of something that isn't there is told before anything is started.
fn check_binds(project: &Project, wanted: &[String]) -> Result<(), OpsError> {
    for name in wanted {
        for volume in &project.manifest.services[name].volumes {
            if let Volume::Bind { source, .. } = volume {
                let path = project.directory.join(source);
                if !path.exists() {
                    return Err(OpsError::NoBindSource { service: name.clone(), path });
                }
            }
        }
    }
    Ok(())
}

/// Volumes whose content was put aside, and where it is.
fn trash(ctx: &Context<'_>, project: &Project) -> BTreeSet<(PathBuf, PathBuf)> {
    let directory = ctx.dirs.volumes(&project.id);
    let Ok(entries) = std::fs::read_dir(&directory) else { return BTreeSet::new() };
    let of = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        // `.trash-<volume>-<date>`, and the date has no `T` before its own.
        let volume = name.strip_prefix(TRASH)?.rsplit_once('T')?.0;
        let volume = volume.get(..volume.len().checked_sub("-2026-11-21".len())?)?;
        Some((directory.join(volume), entry.path()))
    };
    entries.filter_map(|entry| of(entry.ok()?)).collect()
}

/// A volume that somebody filled without our setup step counts as set up.
fn settle_setup(service: &igloo_supervisor::ServiceSpec) -> Result<(), OpsError> {
    let Some(setup) = &service.setup else { return Ok(()) };
    let payload: Payload = serde_json::from_value(setup.unit.clone()).map_err(OpsError::Json)?;
    let Some(volumes) = payload.setup else { return Ok(()) };
    if let Some(parent) = setup.marker.parent() {
        igloo_base::file::create_dirs(parent)?;
    }
    if !setup.marker.exists() && !volumes.begun.exists() && volumes.volumes.iter().any(|v| is_filled(v)) {
        write_atomic(&setup.marker, b"")?;
    }
    if setup.marker.exists() && !volumes.volumes.is_empty() && volumes.volumes.iter().all(|v| !v.exists()) {
        // The volumes were deleted by hand: what was set up is gone.
        for marker in [&setup.marker, &volumes.begun] {
            remove_tree(marker)?;
        }
    }
    Ok(())
}

fn spec_path(ctx: &Context<'_>, project: &Project, service: &str) -> PathBuf {
    ctx.dirs.project_state(&project.id).join("specs").join(format!("{service}.json"))
}

/// Keeps what a service runs as, but for secrets, for who looks at it while the supervisor is gone.
fn remember(ctx: &Context<'_>, project: &Project, service: &igloo_supervisor::ServiceSpec) -> Result<(), OpsError> {
    let path = spec_path(ctx, project, &service.name);
    if let Some(parent) = path.parent() {
        // Environments may hold what isn't everybody's business.
        create_private_dir(parent)?;
    }
    let payload: Payload = serde_json::from_value(service.unit.clone()).map_err(OpsError::Json)?;
    let text = serde_json::to_vec(&payload.for_disk()).map_err(OpsError::Json)?;
    Ok(write_atomic(&path, &text)?)
}

fn connect(ctx: &Context<'_>, project: &Project) -> Result<Option<Client>, OpsError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match Client::connect(&daemon::socket_path(&ctx.dirs.project_runtime(&project.id))) {
            Ok(client) => return Ok(Some(client)),
            // It lives and can't be reached: its socket was deleted, and it makes a new one. Or it is just ending.
            Err(ClientError::NotRunning { .. }) if Instant::now() < deadline && is_alive(ctx, project)? => {
                std::thread::sleep(Duration::from_millis(5));
            }
            // One that ends while it is greeted is as good as gone.
            Err(ClientError::NotRunning { .. } | ClientError::Gone) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// True if the project's supervisor lives, whether it can be reached or not.
fn is_alive(ctx: &Context<'_>, project: &Project) -> Result<bool, OpsError> {
    Ok(daemon::is_running(&ctx.dirs.project_runtime(&project.id), &ctx.dirs.volumes(&project.id))?)
}

fn running(ctx: &Context<'_>, project: &Project) -> Result<Client, OpsError> {
    connect(ctx, project)?.ok_or_else(|| OpsError::NotRunning { project: project.manifest.project.name.clone() })
}

fn start_supervisor(ctx: &Context<'_>, project: &Project) -> Result<Client, OpsError> {
    let runtime = ctx.dirs.project_runtime(&project.id);
    create_private_dir(&runtime)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(client) = connect(ctx, project)? {
            return Ok(client);
        }
        // One that is ending keeps its lock a little longer than its socket; a new one waits its turn.
        let _turn = FileLock::exclusive(runtime.join("start.lock"))?;
        if let Some(client) = connect(ctx, project)? {
            return Ok(client);
        }
        let log = ctx.dirs.project_state(&project.id).join("supervisor.log");
        let args: Vec<OsString> = vec!["__supervise".into(), project.id.0.clone().into()];
        daemon::spawn_detached(&ctx.exe, &args, &log, Duration::from_secs(30))?;
        if Instant::now() > deadline {
            return running(ctx, project);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn dry_run(
    ctx: &Context<'_>,
    project: &Project,
    desired: &igloo_supervisor::Project,
    remove_orphans: bool,
) -> Result<Up, OpsError> {
    let step = |service: &str, action: &str, reason: &str| Step {
        service: service.to_owned(),
        action: action.to_owned(),
        reason: reason.to_owned(),
    };
    let plan = match connect(ctx, project)? {
        None => desired.services.iter().map(|s| step(&s.name, "start", "the project is not running")).collect(),
        Some(mut client) => client
            .plan(desired, remove_orphans)?
            .changes
            .iter()
            .map(|c| match c.change {
                Change::Keep => step(&c.service, "keep", "nothing changed"),
                Change::Start => step(&c.service, "start", "it is not running"),
                Change::Restart => step(&c.service, "restart", "what it runs changed"),
                Change::Update => step(&c.service, "update", "only what needs no restart changed"),
                Change::Remove => step(&c.service, "stop", "it is no longer in igloo.toml"),
                Change::Orphan => step(&c.service, "keep", "it was not asked for"),
            })
            .collect(),
    };
    Ok(Up { plan, services: Vec::new() })
}

fn tell(ctx: &Context<'_>, event: &ServiceEvent) {
    let text = match (&event.state, &event.message) {
        (State::Failed { reason }, _) => format!("{}: failed: {reason}", event.service),
        (State::Backoff { reason, .. }, _) => format!("{}: {reason}; it will be started again", event.service),
        (State::Setup, _) => format!("{}: setup", event.service),
        (State::Ready, _) => format!("{}: ready", event.service),
        (_, Some(message)) if event.note => format!("{}: {message}", event.service),
        _ => return,
    };
    ctx.reporter.event(Event::Note { text });
}

fn check_settled(settled: &Settled) -> Result<(), OpsError> {
    let failures: Vec<Failure> = settled
        .services
        .iter()
        .filter(|s| s.problem.is_some())
        .map(|s| Failure {
            service: s.name.clone(),
            reason: s.problem.clone().unwrap_or_else(|| format!("is still {}", s.state.word())),
            tail: s.tail.clone(),
        })
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(OpsError::Services { failures }) }
}

fn shown(ctx: &Context<'_>, project: &Project, status: &ServiceStatus) -> Shown {
    let detail = match &status.state {
        State::Waiting { on, blocked } => blocked.clone().unwrap_or_else(|| format!("for {}", on.join(", "))),
        State::Exited(exit) => exit.to_string(),
        State::Failed { reason } | State::Backoff { reason, .. } => reason.clone(),
        _ => status.problem.clone().unwrap_or_default(),
    };
    let more = [
        status.paused.then(|| "paused".to_owned()),
        status.unhealthy.as_ref().map(|why| format!("unhealthy: {why}")),
        status.says.clone(),
    ];
    let detail =
        [Some(detail).filter(|d| !d.is_empty())].into_iter().chain(more).flatten().collect::<Vec<_>>().join("; ");
    let address = std::fs::read(spec_path(ctx, project, &status.name))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Payload>(&bytes).ok())
        .and_then(|p| p.container.address);
    Shown {
        name: status.name.clone(),
        state: status.state.word().to_owned(),
        health: health(project, status),
        detail,
        since: Some(to_the_second(status.since_ms)),
        pid: status.pid,
        restarts: status.restarts,
        address: address.map(|a| a.to_string()),
        ports: status.ports.iter().map(port).collect(),
        urls: status.ports.iter().filter(|p| p.bound).map(|p| url(project, p)).collect(),
    }
}

fn health(project: &Project, status: &ServiceStatus) -> Option<&'static str> {
    let looked_after = project.manifest.services.get(base_name(&status.name)).is_some_and(|s| s.health.is_some());
    match (&status.state, &status.unhealthy) {
        _ if status.paused => Some("paused"),
        (_, Some(_)) => Some("unhealthy"),
        (State::Ready, None) if looked_after => Some("healthy"),
        _ => None,
    }
}

/// RFC 3339, UTC, as people read it.
fn to_the_second(ms: u64) -> String {
    let text = igloo_supervisor::time::format_ns(ms.saturating_mul(1_000_000));
    text.split('.').next().map(|seconds| format!("{seconds}Z")).unwrap_or(text.clone())
}

fn port(port: &PortStatus) -> String {
    format!("{}->{}/{}", port.host, port.container.port(), port.protocol)
}

/// A port whose service answers HTTP there is shown as an address for browsers.
fn url(project: &Project, port: &PortStatus) -> String {
    let http = project.manifest.services.get(base_name(&port.service)).and_then(|s| s.ready.as_ref()).is_some_and(|ready| {
        let at = format!(":{}", port.container.port());
        matches!(&ready.probe, Probe::Http { url, .. } if url.split('/').nth(2).is_some_and(|host| host.ends_with(&at)))
    });
    match (http, port.protocol) {
        (true, Protocol::Tcp) => format!("http://{}/", port.host),
        _ => format!("{}/{}", port.host, port.protocol),
    }
}

/// The services as they truly are.
pub fn ps(ctx: &Context<'_>, project: &Project) -> Result<Vec<Shown>, OpsError> {
    let running = match connect(ctx, project)? {
        Some(mut client) => client.status()?.services,
        None => Vec::new(),
    };
    let mut services: Vec<Shown> = running.iter().map(|s| shown(ctx, project, s)).collect();
    for (name, declared) in &project.manifest.services {
        if declared.task.is_none() && !running.iter().any(|s| s.name == *name) {
            services.push(Shown {
                name: name.clone(),
                state: "stopped".into(),
                health: None,
                detail: String::new(),
                since: None,
                pid: None,
                restarts: 0,
                address: None,
                ports: declared.ports.iter().map(declared_port).collect(),
                urls: Vec::new(),
            });
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(services)
}

fn declared_port(port: &Port) -> String {
    crate::config::port(port)
}

/// Stops everything; nothing of the project runs when this returns.
pub fn down(ctx: &Context<'_>, project: &Project, volumes: bool, grace: Option<Duration>) -> Result<Down, OpsError> {
    let mut done = Down { was_running: false, volumes: Vec::new() };
    if let Some(mut client) = connect(ctx, project)? {
        done.was_running = true;
        match client.down(grace, &mut |event| tell(ctx, event)) {
            // Somebody else's `down` was first.
            Ok(_) | Err(ClientError::Gone) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // The lock is free when the supervisor, and with it the kernel's clean-up, is done.
    let runtime = ctx.dirs.project_runtime(&project.id);
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_alive(ctx, project)? {
        if Instant::now() > deadline {
            return Err(OpsError::StillRunning { project: project.manifest.project.name.clone() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    {
        // What a killed supervisor left; not while another one starts.
        create_private_dir(&runtime)?;
        let _turn = FileLock::exclusive(runtime.join("start.lock"))?;
        if !is_alive(ctx, project)? {
            igloo_container::cgroup::sweep(&project.id.0);
            igloo_container::keep::sweep(&format!("{}/", project.id.0));
        }
    }
    remove_owned(ctx, project, &ctx.dirs.project_state(&project.id).join("containers"))?;
    if volumes {
        let directory = ctx.dirs.volumes(&project.id);
        if let Ok(entries) = std::fs::read_dir(&directory) {
            done.volumes = entries
                .filter_map(|e| e.ok()?.file_name().into_string().ok())
                .filter(|name| !name.starts_with('.'))
                .collect();
            done.volumes.sort();
        }
        remove_owned(ctx, project, &directory)?;
    }
    Ok(done)
}

/// Removes a tree that holds files of a container's users.
fn remove_owned(ctx: &Context<'_>, project: &Project, path: &std::path::Path) -> Result<(), OpsError> {
    if remove_tree(path).is_ok() {
        return Ok(());
    }
    Ok(igloo_container::userns::remove_tree(&ctx.exe, &project.id.0, path)?)
}

/// Acts on running services; all if none is named.
pub fn act(ctx: &Context<'_>, project: &Project, action: Action, services: &[String]) -> Result<Vec<String>, OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let mut client = match (connect(ctx, project)?, action) {
        (Some(client), _) => client,
        // What doesn't run is stopped.
        (None, Action::Stop(_)) => return Ok(Vec::new()),
        (None, _) => running(ctx, project)?,
    };
    let services = &verbs::expand(&client.status()?.services, services);
    let mut on_event = |event: &ServiceEvent| tell(ctx, event);
    let settled = match action {
        Action::Restart => client.restart(services, true, &mut on_event)?,
        Action::Start => client.start(services, true, &mut on_event)?,
        Action::Stop(grace) => client.stop(services, grace, &mut on_event)?,
    };
    if !matches!(action, Action::Stop(_)) {
        check_settled(&settled)?;
    }
    Ok(settled.services.into_iter().map(|s| s.name).collect())
}

/// Waits until services are ready, or have reached something else.
pub fn wait(
    ctx: &Context<'_>,
    project: &Project,
    services: &[String],
    condition: Condition,
    timeout: Duration,
) -> Result<(), OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let mut client = running(ctx, project)?;
    let services = verbs::expand(&client.status()?.services, services);
    let settled = client.wait(&services, condition, Some(timeout), &mut |event| tell(ctx, event))?;
    check_settled(&settled)
}

/// Runs a command in a service's container, from the caller's terminal.
pub fn exec(
    ctx: &Context<'_>,
    project: &Project,
    service: &str,
    user: Option<&str>,
    command: &[String],
) -> Result<ExitCode, OpsError> {
    check_name(project, service)?;
    let mut client = running(ctx, project)?;
    let status = client.status()?;
    let pid = status
        .services
        .iter()
        .find(|s| s.name == service)
        .and_then(|s| s.pid)
        .ok_or_else(|| OpsError::ServiceNotRunning { service: service.to_owned() })?;
    // From its memory: what is on disk has no secrets.
    let payload: Payload = serde_json::from_value(client.unit(service)?).map_err(OpsError::Json)?;
    if let Some(host) = payload.host {
        drop(client);
        let source = host.command(command).exec();
        return Err(OpsError::Command { program: command.first().cloned().unwrap_or_default(), source });
    }
    let container = payload.container;
    let locks = container.locks();
    let mut env: Vec<(OsString, OsString)> =
        container.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    env.extend(ctx.caller.term.iter().map(|term| ("TERM".into(), term.into())));
    let spec = ExecSpec {
        pid,
        args: command.iter().map(Into::into).collect(),
        env,
        workdir: container.workdir.into(),
        user: match user {
            Some(user) => exec_user(ctx, project, service, user)?,
            None => container.user,
        },
        locks,
        copy: None,
    };
    drop(client);
    Err(exec_by(&ctx.exe, &ctx.caller.environment, &spec).into())
}

/// What a service runs as.
fn payload(ctx: &Context<'_>, project: &Project, service: &str) -> Result<Payload, OpsError> {
    let bytes = read_optional(spec_path(ctx, project, service))?
        .ok_or_else(|| OpsError::ServiceNotRunning { service: service.to_owned() })?;
    serde_json::from_slice(&bytes).map_err(OpsError::Json)
}

/// The second half of [`exec`], in a process that nothing in the container can write to.
pub fn exec_passed_on(number: i32) -> Result<ExitCode, OpsError> {
    Ok(igloo_container::exec::exec_in(&igloo_container::exec::passed_on(number)?)?.pass_on())
}

fn exec_user(
    ctx: &Context<'_>,
    project: &Project,
    service: &str,
    user: &str,
) -> Result<igloo_container::User, OpsError> {
    let environment = environment::current(ctx, project, &project.manifest.environment_key(base_name(service)))?;
    let found = environment.lookup_user(user).ok_or_else(|| OpsError::NoUser {
        service: service.to_owned(),
        user: user.to_owned(),
        known: environment.users.iter().map(|u| u.name.clone()).collect(),
    })?;
    Ok(igloo_container::User { uid: found.uid, gid: found.gid, groups: found.groups, home: found.home })
}

/// Stays in the foreground: shows the logs, and brings services up to date when files change that `watch` names, until
/// Ctrl-C or the services' end; then stops everything.
pub fn attend(
    ctx: &Context<'_>,
    project: &Project,
    watch: Option<&UpOptions>,
    out: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> Result<(), OpsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpsError::Runtime)?;
    let options = logs::Options { follow: true, tail: Some(20), ..logs::Options::default() };
    let ended = std::thread::scope(|scope| -> Result<bool, OpsError> {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let follower = scope.spawn(move || logs::follow_until(ctx, project, &options, out, &stopped));
        let (stop_watching, no_more) = std::sync::mpsc::channel::<()>();
        let watcher = watch.map(|options| scope.spawn(move || watch::watch(ctx, project, options, &no_more)));
        let ended = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).map_err(OpsError::Runtime)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(OpsError::Runtime)?;
            let mut tick = tokio::time::interval(Duration::from_millis(500));
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return Ok(false),
                    _ = terminate.recv() => return Ok(false),
                    _ = tick.tick() => if !is_alive(ctx, project)? { return Ok(true) },
                }
            }
        });
        drop((stop, stop_watching));
        let watched = watcher.map_or(Ok(()), |watcher| watcher.join().unwrap_or(Ok(())));
        match follower.join() {
            Ok(result) => result.and(watched).and(ended),
            Err(_) => watched.and(ended),
        }
    })?;
    if !ended {
        down(ctx, project, false, None)?;
    }
    Ok(())
}
