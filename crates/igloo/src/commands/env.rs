use igloo_ops::{environment, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, bytes};

/// Look into environments
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Show(ShowArgs),
    List(ListArgs),
}

/// List an environment's packages: version, size, why each is in
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// shells.NAME, services.NAME or images.NAME; a bare NAME is a shell or else a service
    #[arg(default_value = "shells.default")]
    name: String,
}

/// List the project's environments
#[derive(Debug, clap::Args)]
pub struct ListArgs {}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    match command {
        Command::Show(args) => {
            let shown = environment::show(&ctx, &mut project, &args.name)?;
            if ui.json() {
                return Ok(ui.print_json(&shown)?);
            }
            let mut table = Table::new(&["PACKAGE", "VERSION", "ARCH", "INSTALLED", "DOWNLOAD", "WHY"]);
            for package in &shown.packages {
                table.row([
                    package.name.clone(),
                    package.version.clone(),
                    package.architecture.clone(),
                    bytes(package.installed_size),
                    bytes(package.size),
                    package.why.clone(),
                ]);
            }
            ui.print(table.render())?;
            ui.say(format!(
                "{}: {} packages, {} installed, {} to download",
                shown.name,
                shown.packages.len(),
                bytes(shown.packages.iter().map(|p| p.installed_size).sum()),
                bytes(shown.packages.iter().map(|p| p.size).sum()),
            ));
        }
        Command::List(_) => {
            let listed = environment::list(&ctx, &mut project)?;
            if ui.json() {
                return Ok(ui.print_json(&listed)?);
            }
            let mut table = Table::new(&["ENVIRONMENT", "SYSTEM", "PACKAGES"]);
            for environment in &listed {
                table.row([environment.name.clone(), environment.system.clone(), environment.packages.to_string()]);
            }
            ui.print(table.render())?;
        }
    }
    Ok(())
}
