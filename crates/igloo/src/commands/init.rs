use std::path::{Path, PathBuf};

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
    /// Carry over this compose file: services of images, with Debian's packages in the place of images that igloo knows
    /// some for
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "devcontainer"])]
    from: Option<PathBuf>,
    /// With --from: the registry of images that name none
    #[arg(long, value_name = "HOST", requires = "from")]
    registry: Option<String>,
    /// With --from: all services stay images
    #[arg(long, requires = "from")]
    no_packages: bool,
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
    if let Some(from) = &args.from {
        return import(args, from, settings, ui);
    }
    if args.devcontainer {
        return devcontainer(args, settings, ui);
    }
    let path = init::init(&settings.directory, &args.template)?;
    ui.say(format!("wrote `{}`; next: `igloo shell`", path.display()));
    Ok(())
}

fn import(args: &Args, from: &Path, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let import = init::Import { from, registry: args.registry.as_deref(), packages: !args.no_packages };
    let (path, notes) = init::import(&settings.context(ui), &settings.directory, &import)?;
    for note in &notes {
        ui.say(format!("{}:{}: {}", from.display(), note.line, note.text));
    }
    ui.say(format!("wrote `{}`; next: read it, then `igloo up`", path.display()));
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
