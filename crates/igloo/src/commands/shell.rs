use std::process::ExitCode;

use igloo_ops::{project, shell};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Start a shell, or one command, in an environment of the project
///
/// The project's directory is at its own path, you keep your user id, terminal and job control, and the
/// exit code is the command's. Isolation: `host` is your own shell and files, with the environment's commands
/// first on PATH; `pure` sees only what is declared, and a home of its own; `container` adds namespaces of
/// its own, no capabilities and a system call filter.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell's name in igloo.toml
    #[arg(default_value = "default")]
    name: String,
    /// host, pure or container; igloo.toml decides if not given
    #[arg(long, value_name = "LEVEL")]
    isolation: Option<String>,
    /// Fail instead of changing the lock
    #[arg(long)]
    locked: bool,
    /// The command and its arguments, as words
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    let options = shell::Options {
        isolation: args.isolation.as_deref(),
        locked: args.locked,
        command: &args.command,
        directory: &settings.directory,
    };
    let prepared = shell::prepare(&ctx, &mut project, &args.name, &options)?;
    ui.finish();
    Ok(prepared.enter()?)
}
