use std::process::ExitCode;

use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// Prove what services can't do, on this machine
///
/// Enters the containers of running services under their own locks and tries what must not work there: mounts, devices,
/// dangerous system calls, files and sockets of the host. Ends with 1 if anything does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these services; all that run if none is named
    service: Vec<String>,
    /// Show only what fails or was given up
    #[arg(short, long)]
    brief: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let audited = services::audit(&ctx, &project, &args.service)?;
    let code = if audited.iter().any(services::Audited::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if ui.json() {
        ui.print_json(&audited)?;
        return Ok(code);
    }
    let mut table = Table::new(&["SERVICE", "CHECK", "RESULT", "AREA", "WHAT", "DETAIL"]);
    for (service, check) in audited.iter().flat_map(|a| a.checks.iter().map(|c| (&a.service, c))) {
        if args.brief && check.result == services::Verdict::Pass {
            continue;
        }
        table.row([
            service.clone(),
            check.check.to_string(),
            check.result.word().to_owned(),
            check.area.clone(),
            check.name.clone(),
            check.detail.clone(),
        ]);
    }
    ui.print(table.render())?;
    Ok(code)
}
