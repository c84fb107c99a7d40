use igloo_ops::project;
use igloo_ops::services::verbs::{self};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui, plain};

/// Tell why a service is as it is: when and why it started, failed, was restarted or killed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the last N things that happened
    #[arg(short = 'n', long, value_name = "N", default_value_t = 30)]
    last: usize,
    /// The service
    service: String,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let project = project::open(&ctx, &settings.directory)?;
    let found = verbs::why(&ctx, &project, &args.service, args.last)?;
    if ui.json() {
        return Ok(ui.print_json(&found)?);
    }
    for why in found {
        ui.print(format!("{}\n", plain(&why.now)))?;
        let mut table = Table::bare();
        for told in why.history {
            table.row([told.time, plain(&told.what)]);
            for line in told.tail {
                table.row([String::new(), format!("| {}", plain(&line))]);
            }
        }
        ui.print(table.render())?;
    }
    Ok(())
}
