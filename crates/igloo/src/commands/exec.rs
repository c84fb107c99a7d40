use std::process::ExitCode;

use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run a command in a running service's container
///
/// With the service's user, environment and isolation; your terminal, signals and exit code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The service
    service: String,
    /// Run as this user instead of the service's: NAME, UID or UID:GID
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The command and its arguments, as words
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    Ok(services::exec(&ctx, &project, &args.service, args.user.as_deref(), &args.command)?)
}
