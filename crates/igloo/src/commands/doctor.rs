use std::process::ExitCode;

use igloo_ops::doctor::{self, Status};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Tell what this machine allows igloo to do: cause and remedy for what it doesn't
///
/// Ends with 1 if something is missing that igloo can't do without.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let findings = doctor::examine(&ctx);
    let fatal = findings.iter().any(|f| f.status == Status::Missing);
    if ui.json() {
        ui.print_json(&findings)?;
    } else {
        let mut text = String::new();
        for f in &findings {
            let mark = match f.status {
                Status::Ok => ui.good("ok      "),
                Status::Degraded => ui.warn("degraded"),
                Status::Missing => ui.bad("missing "),
            };
            text.push_str(&format!("{mark}  {}: {}\n", f.name, f.detail));
            if let Some(cause) = &f.cause {
                text.push_str(&format!("          cause: {cause}\n"));
            }
            if let Some(remedy) = &f.remedy {
                text.push_str(&format!("          remedy: {remedy}\n"));
            }
        }
        ui.print(text)?;
    }
    Ok(if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
