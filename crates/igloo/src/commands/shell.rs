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
///
/// With `--nix`, the shell is what `nix develop` or `nix-shell` would give: of a flake reference, of a file, or of the
/// flake.nix or shell.nix here or above. It needs no igloo.toml. Nix evaluates it once; after that it starts without
/// Nix, in milliseconds, until a file that the evaluation looked at has another content. A profile of Nix's keeps it from
/// being collected. Its `shellHook` is run by its own bash; an interactive shell is your own.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell's name in igloo.toml, `default` if not given; with --nix, a flake reference or a file
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The shell of a flake.nix or shell.nix, as `nix develop` or `nix-shell` would start it
    #[arg(long)]
    nix: bool,
    /// With --nix: ask Nix even if nothing changed here, as for a reference that moves
    #[arg(long, requires = "nix")]
    refresh: bool,
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
    if args.nix {
        let pure = match args.isolation.as_deref() {
            None | Some("host") => false,
            Some("pure") => true,
            Some(level) => {
                return Err(CommandError::user(format!("`--nix` has the isolations host and pure, not `{level}`")));
            }
        };
        let shell = shell::NixShell {
            reference: args.name.as_deref(),
            arguments: &[],
            refresh: args.refresh,
            pure,
            command: &args.command,
            directory: &settings.directory,
        };
        let prepared = shell::prepare_nix(&ctx, &shell)?;
        ui.finish();
        return Ok(prepared.enter()?);
    }
    let mut project = project::open(&ctx, &settings.directory)?;
    let options = shell::Options {
        isolation: args.isolation.as_deref(),
        locked: args.locked,
        command: &args.command,
        directory: &settings.directory,
    };
    let prepared = shell::prepare(&ctx, &mut project, args.name.as_deref().unwrap_or("default"), &options)?;
    ui.finish();
    Ok(prepared.enter()?)
}
