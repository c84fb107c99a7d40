//! `igloo __supervise`: the process that keeps one project's services.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use igloo_base::dirs::ProjectId;
use igloo_base::file::create_dirs;
use igloo_container::SandboxConfig;
use igloo_supervisor::daemon::{Ownership, Startup};
use igloo_supervisor::{Unit, UnitError};

use crate::context::Context;
use crate::error::OpsError;
use crate::services::network;
use crate::unit::host::HostUnit;
use crate::unit::{ContainerUnit, Payload, Sandboxes};

/// Supervises until asked to stop. Returns at once if another supervisor has the project.
pub fn supervise(ctx: &Context<'_>, project: &str) -> Result<(), OpsError> {
    let id = ProjectId(project.to_owned());
    let startup = Startup::begin()?;
    let (ownership, listener, sandbox) = match prepare(ctx, &id) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => {
            startup.ready();
            return Ok(());
        }
        Err(e) => {
            startup.failed(&crate::error::chain(&e));
            return Err(e);
        }
    };
    startup.ready();
    let make_unit = move |payload: &serde_json::Value| -> Result<Box<dyn Unit>, UnitError> {
        let payload: Payload = serde_json::from_value(payload.clone())
            .map_err(|e| UnitError::because("the container's description makes no sense", e))?;
        if let Some(spec) = payload.host {
            return Ok(Box::new(HostUnit { spec }));
        }
        Ok(Box::new(ContainerUnit { sandbox: Arc::clone(&sandbox), payload }))
    };
    let state = ctx.dirs.project_state(&id);
    Ok(igloo_supervisor::serve_owned(ownership, listener, Box::new(make_unit), &state.join("logs"), &state)?)
}

/// Everything that can fail: the project's lock, its directories, its sandbox.
fn prepare(ctx: &Context<'_>, id: &ProjectId) -> Result<Option<(Ownership, UnixListener, Arc<Sandboxes>)>, OpsError> {
    let runtime = ctx.dirs.project_runtime(id);
    let Some((ownership, listener)) = Ownership::acquire(&runtime, &ctx.dirs.volumes(id))? else { return Ok(None) };
    create_dirs(ctx.dirs.project_state(id).join("logs"))?;
    let sandbox = Sandboxes::start(SandboxConfig {
        exe: ctx.exe.clone(),
        store_root: ctx.dirs.store_root().to_owned(),
        run_dir: runtime.join("sandbox"),
        project: id.0.clone(),
        subnet: Some(network::subnet(id)),
        identity: None,
    });
    Ok(Some((ownership, listener, Arc::new(sandbox))))
}
