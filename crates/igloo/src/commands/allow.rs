use igloo_ops::{hook, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Let the hooks of `igloo hook` activate this project on `cd`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// No longer
    #[arg(long)]
    revoke: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    hook::allow(&ctx, &project, !args.revoke)?;
    ui.say(format!(
        "{} is {} on `cd`",
        project.directory.display(),
        if args.revoke { "no longer activated" } else { "activated" }
    ));
    Ok(())
}
