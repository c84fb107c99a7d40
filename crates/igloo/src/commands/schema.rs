use crate::error::CommandError;
use crate::ui::Ui;

/// Print the JSON Schema of igloo.toml, for editors
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, ui: &Ui) -> Result<(), CommandError> {
    Ok(ui.print_json(&igloo_manifest::schema::schema())?)
}
