use std::process::ExitCode;

use igloo_ops::project;
use igloo_ops::services::task::{self, Once};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run one of the project's tasks
///
/// In the project's network, after what it needs is up; that stays up if something of the project ran before. Ends with
/// the task's own code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail instead of changing the lock
    #[arg(long)]
    locked: bool,
    /// The task, `[tasks.NAME]`
    #[arg(value_name = "TASK")]
    name: String,
    /// Another command for it, as words
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let once = Once {
        name: args.name.clone(),
        command: (!args.command.is_empty()).then(|| args.command.clone()),
        env: Vec::new(),
        no_needs: false,
        locked: args.locked,
    };
    start(&once, settings, ui)
}

/// Runs it, with its output as ours.
pub fn start(once: &Once, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    Ok(task::once(&ctx, &mut project, once, &mut |is_error, bytes| match is_error {
        true => ui.print_error_bytes(bytes),
        false => ui.print_bytes(bytes),
    })?)
}
