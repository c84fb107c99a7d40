use igloo_ops::gc;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes};

/// Delete what no project needs
///
/// Kept are the environments of known projects' locks, and what running containers use. A project is known
/// from its first `lock`, `shell` or `up` until its directory is gone. Images that were built, pulled or run stay for 14
/// days after their last use, and those of a known project's present lock for as long as it is known.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Delete nothing, tell what would be
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let report = gc::collect(&ctx, args.dry_run)?;
    if ui.json() {
        return Ok(ui.print_json(&report)?);
    }
    if ui.verbose() {
        let mut table = Table::new(&["KEPT", "WHY"]);
        for (path, why) in &report.kept {
            table.row([path.clone(), why.clone()]);
        }
        ui.print(table.render())?;
    }
    let mut table = Table::new(&[if args.dry_run { "WOULD DELETE" } else { "DELETED" }, "SIZE"]);
    for (path, size) in &report.deleted {
        table.row([path.clone(), bytes(*size)]);
    }
    ui.print(table.render())?;
    ui.say(format!(
        "{} objects, {} {}; {} objects kept",
        report.deleted.len(),
        bytes(report.freed),
        if args.dry_run { "would be freed" } else { "freed" },
        report.kept.len()
    ));
    Ok(())
}
