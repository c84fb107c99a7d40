//! `igloo __supervise`: the process that keeps one project's services.

use std::sync::Arc;

use igloo_base::dirs::ProjectId;
use igloo_base::file::create_dirs;
use igloo_container::{Sandbox, SandboxConfig};
use igloo_supervisor::daemon::{Ownership, Startup};
use igloo_supervisor::{Unit, UnitError};

use crate::context::Context;
use crate::error::OpsError;
use crate::services::network;
use crate::unit::{ContainerUnit, Payload};

/// Supervises until asked to stop. Returns at once if another supervisor has the project.
pub fn supervise(ctx: &Context<'_>, project: &str) -> Result<(), OpsError> {
    let id = ProjectId(project.to_owned());
    let startup = Startup::begin()?;
    let runtime = ctx.dirs.project_runtime(&id);
    let Some((_ownership, listener)) = Ownership::acquire(&runtime)? else {
        startup.ready();
        return Ok(());
    };
    let state = ctx.dirs.project_state(&id);
    let logs = state.join("logs");
    create_dirs(&logs)?;
    // Before the supervisor has threads: the sandbox dies with the thread that started it.
    let config = SandboxConfig {
        exe: ctx.exe.clone(),
        store_root: ctx.dirs.store_root().to_owned(),
        run_dir: runtime.join("sandbox"),
        project: id.0.clone(),
        subnet: Some(network::subnet(&id)),
        identity: None,
    };
    let sandbox = match Sandbox::start(&config) {
        Ok(sandbox) => Arc::new(sandbox),
        Err(e) => {
            let e = OpsError::from(e);
            startup.failed(&crate::error::chain(&e));
            return Err(e);
        }
    };
    startup.ready();
    let make_unit = move |payload: &serde_json::Value| -> Result<Box<dyn Unit>, UnitError> {
        let payload: Payload = serde_json::from_value(payload.clone())
            .map_err(|e| UnitError::because("the container's description makes no sense", e))?;
        Ok(Box::new(ContainerUnit { sandbox: Arc::clone(&sandbox), payload }))
    };
    Ok(igloo_supervisor::serve(listener, Box::new(make_unit), &logs, &state)?)
}
