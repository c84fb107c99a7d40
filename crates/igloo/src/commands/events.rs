use igloo_ops::project;
use igloo_ops::services::verbs::{self};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Tell what happened to services, and with -f what happens
///
/// From the project's journal, which outlives its supervisor and keeps the last megabyte or two.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as things happen
    #[arg(short, long)]
    follow: bool,
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    verbs::events(&ctx, &project, &args.services, args.follow, &mut |event| match ui.json() {
        true => {
            let line = serde_json::to_string(event).map_err(std::io::Error::other)?;
            ui.print(line + "\n")
        }
        false => ui.print(verbs::line(event) + "\n"),
    })?;
    Ok(())
}
