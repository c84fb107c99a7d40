use igloo_ops::init;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// Write an igloo.toml to start from
///
/// The file is never overwritten. `--template list` tells what there is to start from.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to start from: minimal, python, node, go, rust, web
    #[arg(long, value_name = "NAME", default_value = "minimal")]
    template: String,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    if args.template == "list" {
        let mut table = Table::new(&["TEMPLATE", "WHAT IT IS"]);
        for (name, about) in init::templates() {
            table.row([name, about]);
        }
        return Ok(ui.print(table.render())?);
    }
    let path = init::init(&settings.directory, &args.template)?;
    ui.say(format!("wrote `{}`; next: `igloo shell`", path.display()));
    Ok(())
}
