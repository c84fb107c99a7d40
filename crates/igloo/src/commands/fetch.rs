use igloo_ops::{fetch, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Download and unpack everything that the lock names
///
/// After this, `shell` and `up` work without a network. Locks first if the lock is missing or stale.
/// Writes into the lock what only the packages' content tells: store paths, users, script decisions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail instead of changing the lock
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    let summary = fetch::fetch_project(&ctx, &mut project, args.locked)?;
    if ui.json() {
        return Ok(ui.print_json(&summary)?);
    }
    ui.say(format!(
        "{} packages in the store, {} fetched now, {} environments assembled",
        summary.packages, summary.fetched, summary.environments
    ));
    Ok(())
}
