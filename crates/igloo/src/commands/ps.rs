use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// List the project's services and their true state
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show how each is kept from the machine, and what of that igloo.toml gives up
    #[arg(long)]
    security: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    if args.security {
        return security(&services::security(&ctx, &project)?, ui);
    }
    let services = services::ps(&ctx, &project)?;
    if ui.json() {
        return Ok(ui.print_json(&services)?);
    }
    let mut table = Table::new(&["SERVICE", "STATE", "SINCE", "PID", "RESTARTS", "ADDRESS", "PORTS"]);
    for s in &services {
        let state = if s.detail.is_empty() { s.state.clone() } else { format!("{} ({})", s.state, s.detail) };
        table.row([
            s.name.clone(),
            state,
            s.since.clone().unwrap_or_default(),
            s.pid.map(|p| p.to_string()).unwrap_or_default(),
            s.restarts.to_string(),
            s.address.clone().unwrap_or_default(),
            s.ports.join(", "),
        ]);
    }
    Ok(ui.print(table.render())?)
}

fn security(services: &[services::Security], ui: &Ui) -> Result<(), CommandError> {
    if ui.json() {
        return Ok(ui.print_json(services)?);
    }
    let mut table = Table::new(&["SERVICE", "STATE", "USER", "CAPABILITIES", "NETWORK", "LOOSENED"]);
    for s in services {
        let loosened = if s.loosened.is_empty() { "nothing".to_owned() } else { s.loosened.join("; ") };
        table.row([
            s.name.clone(),
            s.state.clone(),
            s.user.clone(),
            s.capabilities.to_string(),
            s.network.clone(),
            loosened,
        ]);
    }
    Ok(ui.print(table.render())?)
}
