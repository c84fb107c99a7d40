use std::time::Duration;

use igloo_ops::{project, services};

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::{Table, Ui};

/// Start the project's services, or make running ones match igloo.toml
///
/// Locks, fetches and assembles what is missing, then starts each service when those it needs are ready.
/// Works from whatever state it finds; only what changed is restarted. Without -d or --wait it stays, shows
/// the logs, and stops the services on Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Start in the background and return at once
    #[arg(short, long, conflicts_with = "wait")]
    detach: bool,
    /// Start in the background, return when everything is ready; fail if something isn't
    #[arg(long)]
    wait: bool,
    /// Stay, and bring services up to date when files change that their `watch` names
    #[arg(short, long, conflicts_with_all = ["detach", "wait"])]
    watch: bool,
    /// Longest time to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Fail instead of changing the lock
    #[arg(long)]
    locked: bool,
    /// Services of this profile, too; may be repeated
    #[arg(long, value_name = "PROFILE")]
    profile: Vec<String>,
    /// How many of a service there are: `web=3`
    #[arg(long, value_name = "SERVICE=N", value_parser = parse_scale)]
    scale: Vec<(String, u32)>,
    /// Only these services and those they need
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let number = |n: &str| n.parse().ok().filter(|n| (1..=100).contains(n));
    match text.split_once('=').map(|(name, n)| (name, number(n))) {
        Some((name, Some(n))) => Ok((name.to_owned(), n)),
        _ => Err("write `SERVICE=N`, from 1 to 100".to_owned()),
    }
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<(), CommandError> {
    let ctx = settings.context(ui);
    let mut project = project::open(&ctx, &settings.directory)?;
    let options = services::UpOptions {
        services: args.services.clone(),
        wait: !args.detach,
        timeout: Duration::from_secs(args.timeout),
        locked: args.locked,
        dry_run: args.dry_run,
        profiles: settings.profiles(&args.profile),
        scale: args.scale.iter().cloned().collect(),
    };
    let foreground = !args.detach && !args.wait && !args.dry_run;
    let result = services::up(&ctx, &mut project, &options)?;
    if args.dry_run {
        if ui.json() {
            return Ok(ui.print_json(&result.plan)?);
        }
        let mut table = Table::new(&["SERVICE", "ACTION", "WHY"]);
        for step in &result.plan {
            table.row([step.service.clone(), step.action.clone(), step.reason.clone()]);
        }
        return Ok(ui.print(table.render())?);
    }
    if ui.json() {
        ui.print_json(&result.services)?;
    } else {
        for service in &result.services {
            for url in &service.urls {
                ui.say(format!("{} {} at {url}", ui.good(&service.state), service.name));
            }
        }
    }
    if foreground {
        ui.say("services run until Ctrl-C; `igloo up -d` leaves them in the background");
        let watch = args.watch.then_some(&options);
        services::attend(&ctx, &project, watch, &mut |bytes| ui.print_bytes(bytes))?;
    }
    Ok(())
}
