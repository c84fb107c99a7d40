use igloo_ops::{init, project};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// Write an igloo.toml to start from
///
/// The file is never overwritten. `--template list` tells what there is to start from. With --devcontainer it also writes
/// .devcontainer/devcontainer.json, for editors that work in containers: it uses an image of igloo.toml, made beforehand, so
/// that nothing is installed when the container starts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to start from: minimal, python, node, go, rust, web
    #[arg(long, value_name = "NAME", default_value = "minimal")]
    template: String,
    /// Also write .devcontainer/devcontainer.json; an igloo.toml that is there gets an image for it, if it has none
    #[arg(long)]
    devcontainer: bool,
    /// Replace a devcontainer.json that is there
    #[arg(long, requires = "devcontainer")]
    force: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    if args.template == "list" {
        let mut table = Table::new(&["TEMPLATE", "WHAT IT IS"]);
        for (name, about) in init::templates() {
            table.row([name, about]);
        }
        return Ok(ui.print(table.render())?);
    }
    if args.devcontainer {
        return devcontainer(args, settings, ui);
    }
    let path = init::init(&settings.directory, &args.template)?;
    ui.say(format!("wrote `{}`; next: `igloo shell`", path.display()));
    Ok(())
}

fn devcontainer(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    if project::find(&settings.directory).is_err() {
        let path = init::init(&settings.directory, &args.template)?;
        ui.say(format!("wrote `{}`", path.display()));
    }
    let made = init::devcontainer(&ctx, &settings.directory, args.force)?;
    if made.added {
        ui.say(format!("added `[images.{}]` to igloo.toml", made.image));
    }
    ui.say(format!("wrote `{}`; next: `igloo image build {}`", made.path.display(), made.image));
    Ok(())
}
