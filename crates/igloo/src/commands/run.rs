use std::process::ExitCode;

use igloo_ops::services::task::Once;
use igloo_ops::shell;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run a command with packages that no manifest names, or in a container like a service's
///
/// `igloo run SERVICE -- CMD` runs it once in the service's environment, with its user, variables, volumes and network,
/// after what the service needs is up; the service itself may run or not, and its ports stay its own.
///
/// `igloo run -p jq -- jq .` resolves, fetches and runs; the second time it starts at once. Packages come
/// from the project's source if there is a project, else from the machine's own Debian suite.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package, as in igloo.toml; may be repeated
    #[arg(short, long = "package", required_unless_present = "service", value_name = "PACKAGE", num_args = 1)]
    packages: Vec<String>,
    /// host, pure or container
    #[arg(long, value_name = "LEVEL", default_value = "host")]
    isolation: String,
    /// Debian suite to take the packages from
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// A variable for the service's command
    #[arg(short, long, value_name = "NAME=VALUE", requires = "service")]
    env: Vec<String>,
    /// Don't start what the service needs
    #[arg(long, requires = "service")]
    no_needs: bool,
    /// A service of the project
    #[arg(value_name = "SERVICE", conflicts_with_all = ["packages", "isolation", "suite"])]
    service: Option<String>,
    /// The command and its arguments, as words; the service's own if there is none
    #[arg(last = true, required_unless_present = "service", value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    if let Some(service) = &args.service {
        let env = args.env.iter().map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(CommandError::user(format!("`{text}` is no `NAME=VALUE`"))),
        });
        let once = Once {
            name: service.clone(),
            command: (!args.command.is_empty()).then(|| args.command.clone()),
            env: env.collect::<Result<_, _>>()?,
            no_needs: args.no_needs,
            locked: false,
        };
        return super::task::start(&once, settings, ui);
    }
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
