use std::path::PathBuf;

use clap::Subcommand;
use igloo_base::Event;
use igloo_base::Reporter as _;
use igloo_ops::project;
use igloo_ops::services::volume;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// List, back up, restore, copy and remove what services keep
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the project's volumes
    Ls,
    /// Show one volume
    Inspect {
        /// Its name
        volume: String,
    },
    /// Write a volume's files, with their owners, to a tar archive
    Backup {
        /// Its name
        volume: String,
        /// The archive, `VOLUME.tar` unless said
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a volume what an archive says; what it was goes to the trash
    Restore {
        /// Its name
        volume: String,
        /// The archive
        file: PathBuf,
    },
    /// Copy a volume
    Clone {
        /// The one to copy
        from: String,
        /// The new one
        to: String,
    },
    /// Move a volume to the trash
    Rm {
        /// Its name
        volume: String,
    },
    /// Take what was moved to the trash last back
    Undo {
        /// Its name
        volume: String,
    },
}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let note = |text: String| ui.event(Event::Note { text });
    match command {
        Command::Ls => {
            let volumes = volume::list(&ctx, &project)?;
            if ui.json() {
                return Ok(ui.print_json(&volumes)?);
            }
            let mut table = Table::new(&["VOLUME", "THERE", "SERVICES", "RUNNING", "TRASH"]);
            for v in &volumes {
                let there = if v.made { "yes" } else { "not yet" };
                let trash = v.trash.len().to_string();
                table.row([v.name.clone(), there.to_owned(), v.services.join(", "), v.running.join(", "), trash]);
            }
            ui.print(table.render())?;
        }
        Command::Inspect { volume } => ui.print_json(&volume::inspect(&ctx, &project, volume)?)?,
        Command::Backup { volume, output } => {
            let to = settings.directory.join(output.clone().unwrap_or_else(|| format!("{volume}.tar").into()));
            let running = volume::backup(&ctx, &project, volume, &to)?;
            if !running.is_empty() {
                ui.event(Event::Warning {
                    text: format!("`{}` ran meanwhile, so the archive may be half of a change", running.join("`, `")),
                    hint: Some(format!("`igloo stop {}` first, or use its own tool for backups", running.join(" "))),
                });
            }
            note(format!("volume `{volume}` is in `{}`", to.display()));
        }
        Command::Restore { volume, file } => {
            let trash = volume::restore(&ctx, &project, volume, &settings.directory.join(file))?;
            let before = trash.map(|t| format!("; what it was is in `{}`", t.display())).unwrap_or_default();
            note(format!("volume `{volume}` is what `{}` says{before}", file.display()));
        }
        Command::Clone { from, to } => {
            volume::clone(&ctx, &project, from, to)?;
            note(format!("volume `{to}` is a copy of `{from}`"));
        }
        Command::Rm { volume } => {
            let trash = volume::remove(&ctx, &project, volume)?;
            note(format!("volume `{volume}` is now `{}`; `igloo volume undo {volume}` takes it back", trash.display()));
        }
        Command::Undo { volume } => {
            volume::undo(&ctx, &project, volume)?;
            note(format!("volume `{volume}` is back"));
        }
    }
    Ok(())
}
