use std::time::Duration;

use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Stop the project's services and remove what they ran in
///
/// No process, mount or network interface stays. Volumes stay unless --volumes is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also delete the project's named volumes
    #[arg(long)]
    volumes: bool,
    /// Longest time to wait for services to end by themselves, in seconds; each service's own stop-grace if not given
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let done = services::down(&ctx, &project, args.volumes, args.timeout.map(Duration::from_secs))?;
    if ui.json() {
        return Ok(ui.print_json(&done)?);
    }
    match (done.was_running, done.volumes.len()) {
        (true, _) => ui.say(format!("stopped {}", project.manifest.project.name)),
        (false, 0) => ui.say(format!("{} was not running", project.manifest.project.name)),
        (false, _) => {}
    }
    for volume in &done.volumes {
        ui.say(format!("deleted the volume {volume}"));
    }
    Ok(())
}
