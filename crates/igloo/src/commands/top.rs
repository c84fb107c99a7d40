use igloo_ops::project;
use igloo_ops::services::verbs::{self};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes};

/// Show what running services use: processor, memory, processes
///
/// Measured over a quarter of a second.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; all that run if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let uses = verbs::top(&ctx, &project, &args.services)?;
    if ui.json() {
        return Ok(ui.print_json(&uses)?);
    }
    let mut table =
        Table::new(&["SERVICE", "STATE", "CPU", "TIME", "MEMORY", "OF", "PROCESSES", "THREADS", "RESTARTS"]);
    for u in uses {
        table.row([
            u.service,
            u.state,
            format!("{:.1} %", u.cpu_percent),
            format!("{:.1} s", u.cpu_seconds),
            bytes(u.memory),
            u.memory_limit.map(bytes).unwrap_or_default(),
            u.pids.to_string(),
            u.threads.to_string(),
            u.restarts.to_string(),
        ]);
    }
    Ok(ui.print(table.render())?)
}
