//! `igloo audit` and `igloo ps --security`: what services can't do, and what was given up.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

use igloo_base::At;
use igloo_base::file::{create_private_dir, remove_tree, write_atomic};
use igloo_container::audit::{AuditSpec, Check, Verdict, audit as audit_container};
use igloo_container::harden::Locks;
use igloo_manifest::{Network, Service};
use igloo_supervisor::daemon;
use serde::Serialize;

use super::{Shown, check_name, payload, ps, running};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// What was found in one service.
#[derive(Debug, Serialize)]
pub struct Audited {
    /// Its name.
    pub service: String,
    /// All checks.
    pub checks: Vec<Check>,
}

impl Audited {
    /// Whether something doesn't hold that should.
    pub fn failed(&self) -> bool {
        self.checks.iter().any(|c| c.result == Verdict::Fail)
    }
}

/// Tries in the containers of running services (all if none is named) what must not work there.
pub fn audit(ctx: &Context<'_>, project: &Project, services: &[String]) -> Result<Vec<Audited>, OpsError> {
    for name in services {
        check_name(project, name)?;
    }
    let status = running(ctx, project)?.status()?;
    let runtime = ctx.dirs.project_runtime(&project.id);
    create_private_dir(&runtime)?;
    // What is there to be found by whoever can.
    let bait = runtime.join("audit-bait");
    write_atomic(&bait, b"not for containers")?;
    let listener = TcpListener::bind("127.0.0.1:0").at("listen on", "127.0.0.1")?;
    let port = listener.local_addr().at("listen on", "127.0.0.1")?.port();
    let socket = format!("igloo-audit-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&socket).at("listen on", &socket)?;
    let _socket = UnixListener::bind_addr(&address).at("listen on", &socket)?;
    let mut audited = Vec::new();
    for service in &status.services {
        if !services.is_empty() && !services.contains(&service.name) {
            continue;
        }
        let Some(pid) = service.pid else {
            if services.contains(&service.name) {
                return Err(OpsError::ServiceNotRunning { service: service.name.clone() });
            }
            continue;
        };
        let found = payload(ctx, project, &service.name)?;
        if found.host.is_some() {
            continue;
        }
        let spec = AuditSpec {
            pid,
            container: found.container,
            published: service.ports.iter().map(|p| p.host).collect(),
            hidden: vec![bait.clone(), daemon::socket_path(&runtime)],
            port,
            socket: socket.clone(),
            process: std::process::id(),
        };
        audited.push(Audited { service: service.name.clone(), checks: audit_container(&ctx.exe, &spec)? });
    }
    remove_tree(&bait)?;
    match audited.is_empty() {
        true => Err(OpsError::NotRunning { project: project.manifest.project.name.clone() }),
        false => Ok(audited),
    }
}

/// How a service is kept from the machine.
#[derive(Debug, Serialize)]
pub struct Security {
    /// Its name.
    pub name: String,
    /// One word.
    pub state: String,
    /// Who runs it, inside.
    pub user: String,
    /// How many capabilities it can have.
    pub capabilities: u32,
    /// `none`, `internal` or `open`.
    pub network: String,
    /// What igloo.toml gives up of the isolation, in its own words.
    pub loosened: Vec<String>,
}

/// What of the isolation is given up, by service.
pub fn security(ctx: &Context<'_>, project: &Project) -> Result<Vec<Security>, OpsError> {
    let shown = ps(ctx, project)?;
    let of = |s: &Shown| {
        let declared = project.manifest.services.get(&s.name);
        Security {
            name: s.name.clone(),
            state: s.state.clone(),
            user: declared.and_then(|d| d.content.user.clone()).unwrap_or_else(|| "root".to_owned()),
            capabilities: locks(declared).capabilities().0.count_ones(),
            network: declared.map_or("internal", |d| d.network.name()).to_owned(),
            loosened: declared.map(loosened).unwrap_or_default(),
        }
    };
    Ok(shown.iter().map(of).collect())
}

fn locks(declared: Option<&Service>) -> Locks {
    match declared {
        Some(service) if service.init => Locks::Init,
        Some(service) if service.sandboxes => Locks::Sandboxes,
        _ => Locks::Service,
    }
}

fn loosened(service: &Service) -> Vec<String> {
    let mut loosened = Vec::new();
    if service.sandboxes {
        loosened.push("loosen = [\"sandboxes\"]".to_owned());
    }
    if service.network == Network::Open {
        loosened.push("network = \"open\"".to_owned());
    }
    if !service.host.is_empty() {
        loosened.push(format!("host = {:?}", service.host));
    }
    if service.init {
        loosened.push("init = \"system\"".to_owned());
    }
    for port in service.ports.iter().filter(|p| !p.address.is_loopback()) {
        loosened.push(format!("ports = [\"{}\"]", crate::config::port(port)));
    }
    loosened
}
