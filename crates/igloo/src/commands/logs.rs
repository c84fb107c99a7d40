use igloo_ops::{logs, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Show what services wrote
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each service
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Services; all if none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let options = logs::Options {
        services: args.services.clone(),
        follow: args.follow,
        tail: args.tail,
        timestamps: args.timestamps,
        json: ui.json(),
    };
    Ok(logs::show(&ctx, &project, &options, &mut |bytes| ui.print_bytes(bytes))?)
}
