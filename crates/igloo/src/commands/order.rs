use igloo_ops::project;
use igloo_ops::services::verbs::{self, Order};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Send a signal to services
///
/// What is killed, or gets the signal that it is stopped with, is not started again by itself; any other signal changes
/// nothing but what the program makes of it.
#[derive(Debug, clap::Args)]
pub struct KillArgs {
    /// Name or number of the signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Services; all that run if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Freeze services
///
/// Every process is stopped where it is, and keeps its memory, files and connections, until `igloo unpause`.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Services; all that run if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Let frozen services go on
#[derive(Debug, clap::Args)]
pub struct UnpauseArgs {
    /// Services; all that run if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Have services read their configuration anew, without a restart
///
/// By the signal or the command that the service's `reload` says.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// Services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

pub fn kill(args: &KillArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    give(Order::Signal(&args.signal), &args.services, settings, ui)
}

pub fn pause(args: &PauseArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    give(Order::Pause, &args.services, settings, ui)
}

pub fn unpause(args: &UnpauseArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    give(Order::Unpause, &args.services, settings, ui)
}

pub fn reload(args: &ReloadArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    give(Order::Reload, &args.services, settings, ui)
}

fn give(order: Order<'_>, services: &[String], settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    Ok(verbs::order(&ctx, &project, order, services)?)
}
