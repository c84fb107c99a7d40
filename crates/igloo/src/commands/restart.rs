use std::time::Duration;

use igloo_ops::project;
use igloo_ops::services::{self, Action};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Restart services
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Start stopped services of a running project
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Stop services, the others go on
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Longest time to wait for services to end by themselves, in seconds; each service's own stop-grace if not given
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn restart(args: &RestartArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    act(Action::Restart, &args.services, settings, ui)
}

pub fn start(args: &StartArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    act(Action::Start, &args.services, settings, ui)
}

pub fn stop(args: &StopArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    act(Action::Stop(args.timeout.map(Duration::from_secs)), &args.services, settings, ui)
}

fn act(action: Action, services: &[String], settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let touched = services::act(&ctx, &project, action, services)?;
    ui.say(format!("{}: {}", action.done(), touched.join(", ")));
    Ok(())
}
