use igloo_ops::{lock, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Move locked packages to the newest versions
///
/// Moves only what is named, and what that needs; everything else keeps its version. Prints what changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages or sources to move; everything if none is given
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    let outcome = lock::update(&ctx, &mut project, &args.what)?;
    super::lock::tell(&outcome, ui)
}
