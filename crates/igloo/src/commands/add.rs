use igloo_ops::{edit, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Add packages to a shell or service, and lock
///
/// Comments and formatting of igloo.toml stay. Nothing is written if the packages can't be resolved.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Packages: NAME, NAME=VERSION, NAME/SUITE, SOURCE:NAME, @SET or !NAME to exclude
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Where to: shells.NAME, services.NAME or sets.NAME
    #[arg(long, value_name = "TABLE", default_value = "shells.default")]
    to: String,
}

/// Remove packages from a shell or service, and lock
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Packages, written as in igloo.toml
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Where from: shells.NAME, services.NAME or sets.NAME
    #[arg(long, value_name = "TABLE", default_value = "shells.default")]
    from: String,
}

pub fn add(args: &AddArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let outcome = edit::add(&ctx, project, &args.to, &args.packages)?;
    super::lock::tell(&outcome, ui)
}

pub fn remove(args: &RemoveArgs, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let outcome = edit::remove(&ctx, project, &args.from, &args.packages)?;
    super::lock::tell(&outcome, ui)
}
