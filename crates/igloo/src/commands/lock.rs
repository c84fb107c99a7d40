use igloo_ops::lock::{self, Outcome};
use igloo_ops::project;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Decide on versions and write igloo.lock
///
/// Packages that are locked already keep their versions; `igloo update` moves them. The lock is left
/// untouched when nothing changed. No package is downloaded.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail if the lock would change
    #[arg(long)]
    check: bool,
    /// Ask the archive for new indexes even if the ones here are fresh
    #[arg(long)]
    refresh: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    let outcome = lock::lock(&ctx, &mut project, lock::Options { refresh: args.refresh, check: args.check })?;
    tell(&outcome, ui)
}

/// Says what became of the lock; the list of changes is data.
pub fn tell(outcome: &Outcome, ui: &Ui) -> Result<(), CommandError> {
    if ui.json() {
        return Ok(ui.print_json(outcome)?);
    }
    if !outcome.written {
        ui.say("igloo.lock is up to date");
        return Ok(());
    }
    let mut text = String::new();
    for change in &outcome.changes {
        text.push_str(&format!("{change}\n"));
    }
    ui.print(text)?;
    ui.say(format!("locked {} packages for {} environments", outcome.packages, outcome.environments));
    Ok(())
}
