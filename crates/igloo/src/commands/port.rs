use igloo_ops::project;
use igloo_ops::services::verbs::{self};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Print where a service's published ports are reachable
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The service
    service: String,
    /// The port inside, `5432` or `53/udp`; all that are published if none is given
    port: Option<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let ports = verbs::port(&ctx, &project, &args.service, args.port.as_deref())?;
    if ui.json() {
        return Ok(ui.print_json(&ports)?);
    }
    for port in ports {
        match args.port {
            Some(_) => ui.print(format!("{}\n", port.host))?,
            None => ui.print(format!("{}/{} -> {}\n", port.port, port.protocol, port.host))?,
        }
    }
    Ok(())
}
