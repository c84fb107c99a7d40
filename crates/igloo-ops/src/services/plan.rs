//! From a declared service and its environment to what the supervisor runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use igloo_base::Sha256;
use igloo_container::{Attr, AttrKind, ContainerSpec, Egress, Limits, Mount, MountKind, User};
use igloo_env::Environment;
use igloo_manifest::{Isolation, Network, Probe, Service, Volume};
use igloo_supervisor as supervisor;
use igloo_supervisor::{Policy, Protocol, PublishedPort, Readiness, ServiceSpec, Setup};

use super::instances::{Instances, base_name};
use super::{network, secrets, system};
use crate::context::Context;
use crate::environment::Realised;
use crate::error::OpsError;
use crate::image::service::Foreign;
use crate::project::Project;
use crate::unit::host::HostSpec;
use crate::unit::{Payload, SetupVolumes};

/// Longest time a setup step may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(600);

/// What stops a service of which nothing else is said.
const SIGTERM: i32 = 15;

/// Where a named volume lives on this machine.
pub(crate) fn volume_path(ctx: &Context<'_>, project: &Project, name: &str) -> PathBuf {
    ctx.dirs.volumes(&project.id).join(name)
}

/// What the supervisor is told about one service.
pub(crate) fn service(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    base: &Base,
    addresses: &BTreeMap<String, Ipv4Addr>,
    instances: &Instances,
) -> Result<ServiceSpec, OpsError> {
    let declared = &project.manifest.services[base_name(name)];
    let (container, hidden) = container(ctx, project, name, declared, base, addresses)?;
    let alone = declared.isolation == Isolation::Host || declared.network == Network::None;
    let own = addresses.get(name).copied().filter(|_| !alone);
    let ready = match &declared.ready {
        None => None,
        Some(ready) => Some(Readiness {
            probe: probe(name, &ready.probe, own, addresses)?,
            timeout: ready.timeout,
            interval: ready.interval,
        }),
    };
    let health = match &declared.health {
        None => None,
        Some(health) => Some(supervisor::Health {
            probe: probe(name, &health.probe, own, addresses)?,
            interval: health.interval,
            timeout: health.timeout,
            retries: health.retries,
            on_unhealthy: match health.on_unhealthy {
                igloo_manifest::OnUnhealthy::Restart => supervisor::OnUnhealthy::Restart,
                igloo_manifest::OnUnhealthy::Stop => supervisor::OnUnhealthy::Stop,
                igloo_manifest::OnUnhealthy::Ignore => supervisor::OnUnhealthy::Ignore,
            },
        }),
    };
    // On the machine's own network nothing is in between.
    let of_host = declared.isolation == Isolation::Host;
    let ports = declared.ports.iter().filter(|_| !of_host).map(|p| published(p, own)).collect();
    // Neighbours' names may come and go without a restart.
    let mut identity = container.clone();
    identity.hosts.clear();
    let mut identity = serde_json::to_vec(&(&identity, &ports)).map_err(OpsError::Json)?;
    let host = match declared.isolation {
        Isolation::Host => match base {
            Base::Environment(realised) => Some(host(ctx, project, name, declared, realised, &container)?),
            Base::Image(..) => {
                return Err(OpsError::NotYet { service: name.to_owned(), what: "an image at isolation `host`" });
            }
        },
        _ => None,
    };
    if let Some(host) = &host {
        // The container says nothing but its name.
        let said = (&host.args, &host.env, &host.workdir, &host.view);
        identity = serde_json::to_vec(&said).map_err(OpsError::Json)?;
    }
    let setup = declared
        .setup
        .as_ref()
        .map(|args| setup(ctx, project, name, declared, &container, host.as_ref(), args))
        .transpose()?;
    let container = match host {
        Some(_) => ContainerSpec { id: container.id, hostname: container.hostname, ..ContainerSpec::default() },
        None => container,
    };
    let unit = Payload { container, host, setup: None, hidden };
    let unit = serde_json::to_value(unit).map_err(OpsError::Json)?;
    let mut spec = ServiceSpec::new(name, Sha256::of(&identity), unit);
    spec.needs = declared.needs.iter().flat_map(|need| instances.needed(need)).collect();
    spec.ready = ready;
    spec.health = health;
    spec.once = declared.task.is_some() || instances.is_waited_for(name);
    let every = declared.task.as_ref().and_then(|t| t.every);
    spec.every_ms = every.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
    spec.reload = declared.reload.as_ref().map(|reload| match reload {
        igloo_manifest::Reload::Signal(signal) => supervisor::Reload::Signal(*signal),
        igloo_manifest::Reload::Exec(args) => supervisor::Reload::Exec(args.clone()),
    });
    spec.restart = supervisor::Restart {
        policy: match declared.restart {
            igloo_manifest::Restart::No => Policy::No,
            igloo_manifest::Restart::OnFailure => Policy::OnFailure,
            igloo_manifest::Restart::Always => Policy::Always,
            igloo_manifest::Restart::UnlessStopped => Policy::UnlessStopped,
        },
        backoff: supervisor::Backoff {
            initial: declared.backoff.first,
            max: declared.backoff.most,
            healthy: declared.backoff.healthy,
        },
        tries: declared.backoff.tries,
    };
    spec.stop_signal = match base {
        Base::Image(image, _) if declared.stop_signal == SIGTERM => image.stop_signal().unwrap_or(SIGTERM),
        _ => declared.stop_signal,
    };
    spec.stop_grace = declared.stop_grace;
    spec.setup = setup;
    spec.ports = ports;
    Ok(spec)
}

/// What a service is made of.
pub(crate) enum Base {
    /// Packages.
    Environment(Realised),
    /// Somebody else's image, and the project's own files on top.
    Image(Foreign, Vec<PathBuf>),
}

/// What either says of a container.
struct Ground {
    lowers: Vec<PathBuf>,
    attrs: Vec<Attr>,
    env: BTreeMap<String, String>,
    user: User,
    args: Vec<String>,
    workdir: Option<String>,
    store: Option<Mount>,
}

impl Base {
    fn ground(&self, name: &str, declared: &Service) -> Result<Ground, OpsError> {
        let mut env = BTreeMap::new();
        Ok(match self {
            Base::Environment(realised) => {
                let user = user(name, declared, &realised.environment)?;
                env.extend(realised.environment.env.clone());
                env.insert("HOME".into(), user.home.clone());
                env.insert("USER".into(), user.name);
                Ground {
                    lowers: realised.lowers(),
                    attrs: attrs(&realised.environment),
                    env,
                    user: User { uid: user.uid, gid: user.gid, groups: user.groups, home: user.home },
                    args: declared.run.clone(),
                    workdir: None,
                    store: nix_store(realised),
                }
            }
            Base::Image(image, copies) => {
                let called = declared.image.as_deref().unwrap_or_default();
                let user = image.user(called, declared.content.user.as_deref())?;
                env.insert("HOME".into(), user.home.clone());
                env.extend(image.env());
                Ground {
                    lowers: copies.iter().chain([&image.root]).cloned().collect(),
                    attrs: image.attrs.clone(),
                    env,
                    user,
                    args: image.command(called, declared.entrypoint.as_deref(), &declared.run)?,
                    workdir: image.config.working_dir.clone().filter(|w| w.starts_with('/')),
                    store: None,
                }
            }
        })
    }
}

/// The same as a process of this machine, in a view in which `/usr` is the environment's.
fn host(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    declared: &Service,
    realised: &Realised,
    container: &ContainerSpec,
) -> Result<HostSpec, OpsError> {
    let usual = |name: &str| ctx.caller.environment.iter().find(|(n, _)| n == name)?.1.to_str().map(str::to_owned);
    let mut env: BTreeMap<String, String> = ["PATH", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), usual(name)?)))
        .collect();
    env.insert("HOME".to_owned(), ctx.caller.home.display().to_string());
    env.insert("USER".to_owned(), ctx.caller.name.clone());
    // What the service says, and nothing of what a container would have.
    let own = |name: &String| !["HOME", "USER", "HOSTNAME", "PATH"].contains(&name.as_str());
    env.extend(container.env.iter().filter(|(name, _)| own(name) || declared.content.env.contains_key(name)).cloned());
    let notify = container.notify.then(|| ctx.dirs.project_runtime(&project.id).join(format!("notify-{name}")));
    if let Some(path) = &notify {
        env.insert("NOTIFY_SOCKET".to_owned(), path.display().to_string());
    }
    Ok(HostSpec {
        exe: ctx.exe.clone(),
        view: crate::shell::view_of_service(ctx, project, name, realised)?,
        args: declared.run.clone(),
        env: env.into_iter().collect(),
        workdir: declared.content.workdir.as_ref().map_or(project.directory.clone(), PathBuf::from),
        mark: format!("{}/{name}", project.id.0),
        limits: container.limits,
        notify,
    })
}

fn container(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    declared: &Service,
    base: &Base,
    addresses: &BTreeMap<String, Ipv4Addr>,
) -> Result<(ContainerSpec, Vec<String>), OpsError> {
    let subnet = network::subnet(&project.id);
    let ground = base.ground(name, declared)?;
    let mut env = ground.env;
    env.insert("HOSTNAME".into(), declared.hostname.clone().unwrap_or_else(|| name.to_owned()));
    let secrets = secrets::secrets(ctx, project, name, declared)?.map(|files| Mount {
        kind: MountKind::Secrets { files },
        target: secrets::PLACE.to_owned(),
        read_only: true,
    });
    let volumes = declared.volumes.iter().map(|v| mount(ctx, project, v));
    let watchdog = declared.health.as_ref().filter(|h| h.probe == Probe::Notify).map(|h| h.interval);
    let notify =
        declared.init || watchdog.is_some() || declared.ready.as_ref().is_some_and(|r| r.probe == Probe::Notify);
    if notify {
        env.insert("NOTIFY_SOCKET".into(), igloo_container::NOTIFY_SOCKET.into());
    }
    if let Some(watchdog) = watchdog {
        env.insert("WATCHDOG_USEC".into(), watchdog.as_micros().to_string());
    }
    let (variables, hidden) = secrets::variables(ctx, project, name, declared)?;
    env.extend(variables);
    let container = ContainerSpec {
        id: name.to_owned(),
        hostname: declared.hostname.clone().unwrap_or_else(|| name.to_owned()),
        lowers: ground.lowers,
        attrs: ground.attrs,
        state_dir: ctx.dirs.project_state(&project.id).join("containers").join(name),
        args: ground.args,
        env: env.into_iter().collect(),
        workdir: declared.content.workdir.clone().or(ground.workdir).unwrap_or_else(|| "/".into()),
        user: ground.user,
        mounts: ground.store.into_iter().chain(volumes).chain(secrets).collect(),
        address: addresses.get(name).copied().filter(|_| declared.network != Network::None),
        egress: egress(declared),
        prefix: subnet.prefix,
        gateway: Some(subnet.address),
        hosts: hosts(project, declared, addresses, subnet.address),
        nameservers: match declared.network {
            Network::Open => vec![igloo_container::egress::NAMESERVER.to_string()],
            _ => Vec::new(),
        },
        limits: Limits { memory: declared.limits.memory, cpus: declared.limits.cpus, pids: declared.limits.pids },
        sandboxes: declared.sandboxes,
        read_only: declared.read_only,
        shm: declared.limits.shm,
        nofile: declared.limits.nofile.map(|wanted| clamped(ctx, name, wanted)),
        notify,
        ..ContainerSpec::default()
    };
    Ok((if declared.init { system::of(container, &project.id) } else { container }, hidden))
}

/// Open files, no more than the caller may have; that is told, since only root could raise it.
fn clamped(ctx: &Context<'_>, name: &str, wanted: u64) -> u64 {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if wanted > most {
        ctx.reporter.event(igloo_base::Event::Warning {
            text: format!("`{name}` gets {most} open files, not {wanted}: you may have no more yourself"),
            hint: Some("raise your own limit, `ulimit -Hn` shows it; or ask for less in `limits.nofile`".to_owned()),
        });
    }
    wanted.min(most)
}

/// What it may reach beyond the project.
fn egress(declared: &Service) -> Option<Egress> {
    let open = declared.network == Network::Open;
    (open || !declared.host.is_empty()).then(|| Egress { open, host: declared.host.clone() })
}

/// Names and addresses; those of several replicas lead to all of them, too. Who has no network is not told of.
fn hosts(
    project: &Project,
    declared: &Service,
    addresses: &BTreeMap<String, Ipv4Addr>,
    gateway: Ipv4Addr,
) -> Vec<(String, Ipv4Addr)> {
    let alone = |name: &str| project.manifest.services.get(base_name(name)).is_some_and(|s| s.network == Network::None);
    if declared.network == Network::None {
        return Vec::new();
    }
    let host = (!declared.host.is_empty()).then(|| (igloo_container::egress::HOST.to_owned(), gateway));
    let known = || addresses.iter().filter(|(name, _)| !alone(name));
    let own = known().map(|(name, address)| (name.clone(), *address));
    let shared = known().filter(|(name, _)| name.contains('.'));
    own.chain(shared.map(|(name, address)| (base_name(name).to_owned(), *address))).chain(host).collect()
}

/// Where Nix's packages say that they are.
fn nix_store(realised: &Realised) -> Option<Mount> {
    realised.profile.as_ref().map(|profile| Mount {
        kind: MountKind::Bind { source: profile.store.clone() },
        target: "/nix/store".to_owned(),
        read_only: true,
    })
}

fn user(name: &str, declared: &Service, environment: &Environment) -> Result<igloo_env::User, OpsError> {
    let wanted = declared.content.user.as_deref().unwrap_or("root");
    environment
        .lookup_user(wanted)
        .or_else(|| {
            // An environment without base-passwd still has the one user that every kernel knows.
            (wanted == "root").then(|| igloo_env::User {
                name: "root".into(),
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                home: "/root".into(),
                shell: "/bin/sh".into(),
            })
        })
        .ok_or_else(|| OpsError::NoUser {
            service: name.to_owned(),
            user: wanted.to_owned(),
            known: environment.users.iter().map(|u| u.name.clone()).collect(),
        })
}

pub(crate) fn attrs(environment: &Environment) -> Vec<Attr> {
    environment
        .attrs
        .iter()
        .filter(|a| a.kind != igloo_env::AttrKind::Link)
        .map(|a| Attr {
            path: a.path.clone(),
            kind: match a.kind {
                igloo_env::AttrKind::Dir => AttrKind::Dir,
                igloo_env::AttrKind::File | igloo_env::AttrKind::Link => AttrKind::File,
            },
            mode: Some(a.mode),
            uid: a.uid,
            gid: a.gid,
        })
        .collect()
}

fn mount(ctx: &Context<'_>, project: &Project, volume: &Volume) -> Mount {
    match volume {
        Volume::Named { name, target, read_only } => Mount {
            kind: MountKind::Volume { source: volume_path(ctx, project, name) },
            target: target.clone(),
            read_only: *read_only,
        },
        Volume::Bind { source, target, read_only } => Mount {
            kind: MountKind::Bind { source: project.directory.join(source) },
            target: target.clone(),
            read_only: *read_only,
        },
        Volume::Tmpfs { target, size } => {
            Mount { kind: MountKind::Tmpfs { size: *size }, target: target.clone(), read_only: false }
        }
    }
}

/// The one-shot step that fills the service's volumes.
fn setup(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    declared: &Service,
    container: &ContainerSpec,
    host: Option<&HostSpec>,
    args: &[String],
) -> Result<Setup, OpsError> {
    // A volume that another service has, too, may hold that one's data: it is never emptied.
    let shared = |volume: &str| {
        let others = project.manifest.services.iter().filter(|(other, _)| *other != name);
        others.flat_map(|(_, s)| &s.volumes).any(|v| matches!(v, Volume::Named { name, .. } if name == volume))
    };
    let names = || {
        declared.volumes.iter().filter_map(|v| match v {
            Volume::Named { name, read_only: false, .. } => Some(name),
            _ => None,
        })
    };
    let volumes: Vec<PathBuf> = names().map(|v| volume_path(ctx, project, v)).collect();
    let own = names().filter(|v| !shared(v)).map(|v| volume_path(ctx, project, v)).collect();
    let directory = ctx.dirs.volumes(&project.id);
    let payload = Payload {
        host: host.map(|host| HostSpec { args: args.to_vec(), notify: None, ..host.clone() }),
        container: ContainerSpec { args: args.to_vec(), address: None, gateway: None, ..container.clone() },
        setup: Some(SetupVolumes { begun: directory.join(format!(".setup-{name}.begun")), volumes, own }),
        hidden: Vec::new(),
    };
    Ok(Setup {
        unit: serde_json::to_value(payload).map_err(OpsError::Json)?,
        marker: directory.join(format!(".setup-{name}.done")),
        timeout: SETUP_TIMEOUT,
    })
}

fn probe(
    service: &str,
    probe: &Probe,
    own: Option<Ipv4Addr>,
    addresses: &BTreeMap<String, Ipv4Addr>,
) -> Result<supervisor::Probe, OpsError> {
    let resolve = |host: &str| -> Result<IpAddr, OpsError> {
        match host {
            "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
            _ if host == base_name(service) => Ok(own.unwrap_or(Ipv4Addr::LOCALHOST).into()),
            _ => match addresses.get(host) {
                Some(address) => Ok((*address).into()),
                None => host
                    .trim_matches(['[', ']'])
                    .parse()
                    .map_err(|_| OpsError::ProbeHost { service: service.to_owned(), host: host.to_owned() }),
            },
        }
    };
    Ok(match probe {
        Probe::Exec(args) => supervisor::Probe::Exec { args: args.clone() },
        Probe::Notify => supervisor::Probe::Notify,
        Probe::Log(pattern) => supervisor::Probe::Log { pattern: pattern.clone() },
        Probe::Tcp { host, port } => {
            supervisor::Probe::Tcp { address: SocketAddr::new(resolve(host.as_deref().unwrap_or(service))?, *port) }
        }
        Probe::Http { url, headers, status } => {
            let bad = || OpsError::ProbeUrl { service: service.to_owned(), url: url.clone() };
            let rest = url.strip_prefix("http://").ok_or_else(bad)?;
            let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| bad())?),
                _ => (authority, 80),
            };
            supervisor::Probe::Http {
                address: SocketAddr::new(resolve(host)?, port),
                path: path.to_owned(),
                host: authority.to_owned(),
                headers: headers.clone(),
                status: status.clone(),
            }
        }
    })
}

fn published(port: &igloo_manifest::Port, own: Option<Ipv4Addr>) -> PublishedPort {
    PublishedPort {
        address: port.address,
        port: port.host.unwrap_or(0),
        container_port: port.container,
        protocol: if port.udp { Protocol::Udp } else { Protocol::Tcp },
        target: own.unwrap_or(Ipv4Addr::LOCALHOST).into(),
    }
}
