use igloo_ops::{config, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Print the project as igloo understands it: sets expanded, defaults filled in
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    if ui.json() {
        return Ok(ui.print_json(&config::json(&project))?);
    }
    Ok(ui.print(config::text(&project))?)
}
