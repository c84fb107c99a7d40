//! `igloo task`, `igloo run SERVICE`: something that runs to its end in the project's network, beside its services.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use igloo_base::Sha256;
use igloo_base::file::{FileLock, create_dirs};
use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::logs::{Query, Reader, Record, Stream};
use igloo_supervisor::{Client, Exit, ServiceEvent, ServiceSpec, State};

use super::{
    UpOptions, check_name, check_settled, connect, desired, down, network, remember, settle_setup, start_supervisor,
    tell,
};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use crate::unit::Payload;

/// What a run may write to: standard output, or standard error.
pub type Output<'o> = &'o mut dyn FnMut(bool, &[u8]) -> io::Result<()>;

/// What to run once.
#[derive(Debug, Clone)]
pub struct Once {
    /// A task, or a service.
    pub name: String,
    /// Instead of its own command.
    pub command: Option<Vec<String>>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// Not even start what it needs.
    pub no_needs: bool,
    /// Fail instead of changing the lock.
    pub locked: bool,
}

/// Runs a task or a service's command and passes on what it writes and its exit code. What it needs is started and
/// stays; if nothing else of the project runs, nothing does afterwards.
pub fn once(ctx: &Context<'_>, project: &mut Project, what: &Once, out: Output<'_>) -> Result<ExitCode, OpsError> {
    check_name(project, &what.name)?;
    let options = UpOptions {
        services: vec![what.name.clone()],
        wait: true,
        timeout: Duration::from_secs(300),
        locked: what.locked,
        dry_run: false,
        profiles: Vec::new(),
        scale: BTreeMap::from([(what.name.clone(), 1)]),
    };
    let mut all = desired(ctx, project, &options)?;
    let at = all.services.iter().position(|s| s.name == what.name);
    let Some(mut spec) = at.map(|at| all.services.remove(at)) else { return Err(OpsError::NoServices) };
    let was_running = connect(ctx, project)?.is_some();
    let is_task = project.manifest.services.get(&what.name).is_some_and(|s| s.task.is_some());
    let mut _slot = None;
    if !is_task || what.command.is_some() || !what.env.is_empty() {
        let slot;
        (spec, slot) = one_off(ctx, project, spec, what)?;
        _slot = Some(slot);
    }
    if what.no_needs {
        all.services.clear();
        spec.needs.clear();
    }
    let name = spec.name.clone();
    for service in all.services.iter().chain([&spec]) {
        settle_setup(service)?;
        remember(ctx, project, service)?;
    }
    let mut client = start_supervisor(ctx, project)?;
    let mut on_event = |event: &ServiceEvent| {
        if event.service != name {
            tell(ctx, event);
        }
    };
    let apply = ApplyOptions { remove_orphans: false, wait: true, timeout: Some(options.timeout) };
    if !all.services.is_empty() {
        let settled = client.apply(&all, apply, &mut on_event)?;
        check_settled(&settled)?;
    }
    let log = ctx.dirs.project_state(&project.id).join("logs");
    let query = Query { services: vec![name.clone()], tail: Some(0), since_ns: None };
    create_dirs(&log)?;
    let mut reader = Reader::open(&log, &query)?;
    all.services.push(spec);
    let before = client.status()?.services.into_iter().find(|s| s.name == name).and_then(|s| s.last_exit_ms);
    let apply = ApplyOptions { wait: false, ..apply };
    client.apply(&all, apply, &mut |_| {})?;
    client.start(std::slice::from_ref(&name), false, &mut |_| {})?;
    let ended = follow(&mut client, &name, before, &mut reader, out);
    if !is_task || name != what.name {
        // Its container and its history end with it.
        forget(&mut client, &mut all)?;
    }
    if !was_running {
        let idle = client.status()?.services.iter().all(|s| !s.state.is_active());
        drop(client);
        if idle {
            down(ctx, project, false, None)?;
        }
    }
    Ok(ExitCode::from(code(&ended?)))
}

/// A service's container with another command, under a name of its own.
fn one_off(
    ctx: &Context<'_>,
    project: &Project,
    mut spec: ServiceSpec,
    what: &Once,
) -> Result<(ServiceSpec, FileLock), OpsError> {
    let mut payload: Payload = serde_json::from_value(spec.unit.clone()).map_err(OpsError::Json)?;
    if let Some(host) = &mut payload.host {
        if let Some(command) = &what.command {
            host.args.clone_from(command);
        }
        host.env.extend(what.env.iter().cloned());
        host.notify = None;
        host.mark.push_str(".run");
    }
    let container = &mut payload.container;
    let (name, slot) = free_name(ctx, project, &spec.name)?;
    spec.name = name;
    container.id = spec.name.clone();
    container.state_dir.set_file_name(&spec.name);
    // The service itself may have its own.
    let addresses = network::addresses(ctx, &project.id, [spec.name.as_str()].into_iter())?;
    container.address = addresses.get(&spec.name).copied();
    if let Some(command) = &what.command {
        container.args.clone_from(command);
    }
    for (name, value) in &what.env {
        container.env.retain(|(n, _)| n != name);
        container.env.push((name.clone(), value.clone()));
    }
    spec.unit = serde_json::to_value(&payload).map_err(OpsError::Json)?;
    spec.digest = Sha256::of(spec.unit.to_string().as_bytes());
    (spec.ready, spec.health, spec.setup, spec.every_ms) = (None, None, None, None);
    spec.ports.clear();
    spec.once = true;
    spec.restart.policy = igloo_supervisor::Policy::No;
    Ok((spec, slot))
}

/// `web.run-1`, or the first other that nobody runs now: few, since each keeps an address.
fn free_name(ctx: &Context<'_>, project: &Project, service: &str) -> Result<(String, FileLock), OpsError> {
    let directory = ctx.dirs.project_state(&project.id).join("runs");
    create_dirs(&directory)?;
    for number in 1..=100 {
        let name = format!("{service}.run-{number}");
        if let Some(lock) = FileLock::try_exclusive(directory.join(format!("{name}.lock")))? {
            return Ok((name, lock));
        }
    }
    Err(OpsError::TooManyServices { service: service.to_owned() })
}

/// Passes on what it writes until it has ended.
fn follow(
    client: &mut Client,
    name: &str,
    before: Option<u64>,
    reader: &mut Reader,
    out: Output<'_>,
) -> Result<State, OpsError> {
    let mut print = |record: &Record| {
        let mut line = record.text.clone();
        if !record.continues {
            line.push('\n');
        }
        match record.stream {
            Stream::Supervisor => Ok(()),
            stream => out(stream == Stream::Err, line.as_bytes()).map_err(OpsError::Output),
        }
    };
    loop {
        while let Some(record) = reader.follow(Duration::from_millis(20))? {
            print(&record)?;
        }
        let status = client.status()?.services.into_iter().find(|s| s.name == name);
        let Some(status) = status else { return Ok(State::Stopped) };
        let ended = match &status.state {
            State::Exited(_) => status.last_exit_ms != before || before.is_none(),
            State::Failed { .. } | State::Stopped => true,
            State::Waiting { blocked: Some(blocked), .. } => {
                return Ok(State::Failed { reason: blocked.clone() });
            }
            _ => false,
        };
        if ended {
            while let Some(record) = reader.follow(Duration::ZERO)? {
                print(&record)?;
            }
            return match (status.state, status.last_exit) {
                // Killed on request: by which signal is more than that it stopped.
                (State::Stopped, Some(exit)) => Ok(State::Exited(exit)),
                (State::Failed { reason }, _) => Err(OpsError::Services {
                    failures: vec![crate::error::Failure { service: name.to_owned(), reason, tail: Vec::new() }],
                }),
                (state, _) => Ok(state),
            };
        }
    }
}

fn forget(client: &mut Client, all: &mut igloo_supervisor::Project) -> Result<(), OpsError> {
    // Everything else is declared, whatever it is: just the one that was applied last goes.
    let gone: Vec<String> = all.services.pop().map(|s| s.name).into_iter().collect();
    all.services.clear();
    let status = client.status()?;
    all.known.extend(status.services.into_iter().map(|s| s.name).filter(|n| !gone.contains(n)));
    let apply = ApplyOptions { remove_orphans: true, wait: true, timeout: Some(Duration::from_secs(30)) };
    client.apply(all, apply, &mut |_| {})?;
    Ok(())
}

fn code(state: &State) -> u8 {
    match state {
        State::Exited(Exit { code: Some(code), .. }) => u8::try_from(code & 0xff).unwrap_or(1),
        State::Exited(Exit { signal: Some(signal), .. }) => u8::try_from(128 + signal).unwrap_or(1),
        _ => 1,
    }
}
