//! Verbs that igloo calls itself with.

use std::path::PathBuf;
use std::process::ExitCode;

use igloo_ops::image::in_nix::{self, Attributes};
use igloo_ops::{hook, services, shell, supervise};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// The supervisor of one project
#[derive(Debug, clap::Args)]
pub struct SuperviseArgs {
    /// The project's id
    project: String,
}

/// The second half of `exec`
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// The descriptor of what to run
    descriptor: i32,
}

/// A shim: run PROGRAM of an environment
#[derive(Debug, clap::Args)]
pub struct EnterArgs {
    /// The prepared shell, a JSON file
    prepared: PathBuf,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// What a hook evaluates
#[derive(Debug, clap::Args)]
pub struct ActivateArgs {
    /// bash, zsh, fish or direnv
    shell: hook::Shell,
}

/// What direnv evaluates for `use flake` and `use nix`
#[derive(Debug, clap::Args)]
pub struct NixEnvArgs {
    /// A flake reference or a file
    reference: String,
    /// Words for nix
    #[arg(last = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn nix_env(args: &NixEnvArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let shell = shell::NixShell {
        reference: Some(&args.reference),
        arguments: &args.arguments,
        refresh: false,
        pure: false,
        command: &[],
        directory: &settings.directory,
    };
    Ok(ui.print(shell::direnv_code(&settings.context(ui), &shell)?)?)
}

/// The builder of a derivation of nix/images.nix.
pub fn nix_image(settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let top = &settings.directory;
    let file = top.join(".attrs.json");
    let attributes = Attributes::read(&file)?;
    let ctx = settings.context_in_build(top, &file, attributes.manifest.clone(), ui);
    Ok(in_nix::build(&ctx, &attributes, top)?)
}

pub fn supervise(args: &SuperviseArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    Ok(supervise::supervise(&settings.context(ui), &args.project)?)
}

pub fn exec(args: &ExecArgs) -> Result<ExitCode, CommandError> {
    Ok(services::exec_passed_on(args.descriptor)?)
}

pub fn enter(args: &EnterArgs, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    Ok(shell::enter_prepared(&settings.context(ui), &args.prepared, &args.command)?)
}

pub fn activate(args: &ActivateArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let activated = hook::activate(&settings.context(ui), &settings.directory, args.shell);
    ui.print(activated.code)?;
    activated.failure.map_or(Ok(()), |e| Err(e.into()))
}
