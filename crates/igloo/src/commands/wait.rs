use std::time::Duration;

use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Wait until services are ready
///
/// Fails when one fails, or when the time is over; says which, and what it waited for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Longest time to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    Ok(services::wait(&ctx, &project, &args.services, Duration::from_secs(args.timeout))?)
}
