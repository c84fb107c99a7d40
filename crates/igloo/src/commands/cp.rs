use igloo_ops::project;
use igloo_ops::services::copy;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Copy files into a running service or out of it
///
/// One side is `SERVICE:PATH`. Into a directory that is there, a source goes under its own name; `SOURCE/.` puts in what is in
/// it; anything else is the new name. What is copied in becomes the service's user's own; no set-user-id bits, no devices.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to copy, `SERVICE:PATH` or a path here
    from: String,
    /// Where to, `SERVICE:PATH` or a path here
    to: String,
}

/// The end of a copy inside
#[derive(Debug, clap::Args)]
pub struct InsideArgs {
    /// The service
    service: String,
    /// What to do, JSON
    what: String,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    Ok(copy::copy(&ctx, &project, &settings.directory, &args.from, &args.to)?)
}

pub fn inside(args: &InsideArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    Ok(copy::inside(&ctx, &project, &args.service, &args.what)?)
}
