use std::process::ExitCode;

use igloo_ops::shell;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run a command with packages that no manifest names
///
/// `igloo run -p jq -- jq .` resolves, fetches and runs; the second time it starts at once. Packages come
/// from the project's source if there is a project, else from the machine's own Debian suite.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package, as in igloo.toml; may be repeated
    #[arg(short, long = "package", required = true, value_name = "PACKAGE", num_args = 1)]
    packages: Vec<String>,
    /// host, pure or container
    #[arg(long, value_name = "LEVEL", default_value = "host")]
    isolation: String,
    /// Debian suite to take the packages from
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// The command and its arguments, as words
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let request = shell::AdHoc {
        packages: &args.packages,
        suite: args.suite.as_deref(),
        isolation: &args.isolation,
        command: &args.command,
        directory: &settings.directory,
    };
    let prepared = shell::prepare_ad_hoc(&ctx, &request)?;
    ui.finish();
    Ok(prepared.enter()?)
}
