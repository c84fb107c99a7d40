use std::time::Duration;

use igloo_ops::services::Condition;
use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Wait until services are ready, or have reached something else
///
/// Fails when one fails, or when the time is over; says which, and what it waited for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Longest time to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// What to wait for: started, ready, completed (ended with code 0) or stopped
    #[arg(long = "for", value_name = "CONDITION", default_value = "ready",
          value_parser = ["started", "ready", "completed", "stopped"])]
    condition: String,
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let condition = match args.condition.as_str() {
        "started" => Condition::Started,
        "completed" => Condition::Completed,
        "stopped" => Condition::Stopped,
        _ => Condition::Ready,
    };
    Ok(services::wait(&ctx, &project, &args.services, condition, Duration::from_secs(args.timeout))?)
}
