//! `igloo builder`: a machine for the host's Nix to build on.

use igloo_ops::builder;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run a builder for Nix in a container: nix-daemon, sandboxed builds, ssh with one key
///
/// No root is needed, and nothing of the machine's own Nix is touched: it is told where the builder is. Builds take place
/// in Nix's own sandbox; a machine that can't have one is an error.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Up(UpArgs),
    Down(DownArgs),
    Status(StatusArgs),
    Key(KeyArgs),
    Conf(ConfArgs),
}

/// Start the builder, and build something small through it with the machine's Nix if there is one
///
/// Works from whatever state it finds. Prints what nix.conf and ssh's configuration need.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Debian suite that Nix and ssh are taken from; its own if there is a builder already, else that of
    /// the project here or of this machine
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
}

/// Stop the builder; what it built stays
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// Also delete its store
    #[arg(long)]
    volumes: bool,
}

/// Tell whether the builder runs and answers; exit code 1 if it doesn't
#[derive(Debug, clap::Args)]
pub struct StatusArgs {}

/// Print the public key that may log in, and make it if there is none
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// Print where the private key is
    #[arg(long)]
    path: bool,
}

/// Print how Nix reaches the builder: a line for nix.conf, a stanza for ssh's configuration
///
/// `Include` the printed file in ~/.ssh/config: its port is kept up to date. If builds are done by a daemon, it is root's
/// configuration that counts.
#[derive(Debug, clap::Args)]
pub struct ConfArgs {
    /// Only the value of `builders`, for `nix build --builders "$(igloo builder conf --builders)"`
    #[arg(long, conflicts_with = "ssh")]
    builders: bool,
    /// Only the stanza for ssh
    #[arg(long)]
    ssh: bool,
}

pub fn run(command: &Command, settings: &Settings, ui: &Ui) -> Result<std::process::ExitCode, CommandError> {
    let ctx = settings.context(ui);
    match command {
        Command::Up(args) => {
            let up = builder::up(&ctx, args.suite.as_deref(), &settings.directory)?;
            ui.finish();
            if ui.json() {
                ui.print_json(&up)?;
            } else {
                match (up.proved, up.unproved) {
                    (Some(took), _) => ui.say(format!("built through it in {took} ms")),
                    (None, why) => ui.say(format!("not tried, since {}", why.unwrap_or_default())),
                }
                ui.print(text(&up.conf))?;
            }
        }
        Command::Down(args) => {
            let down = builder::down(&ctx, args.volumes)?;
            if ui.json() {
                ui.print_json(&down)?;
            } else {
                ui.say(if down.was_running { "stopped the builder" } else { "the builder was not running" });
                for volume in &down.volumes {
                    ui.say(format!("deleted the volume {volume}"));
                }
            }
        }
        Command::Status(_) => {
            let status = builder::status(&ctx)?;
            if ui.json() {
                ui.print_json(&status)?;
            } else {
                let mut line = status.state.clone();
                if !status.detail.is_empty() {
                    line += &format!(" ({})", status.detail);
                }
                if let Some(port) = status.port {
                    let how = if status.answers { "answers" } else { "does not answer" };
                    line += &format!(", {how} on 127.0.0.1:{port}");
                }
                ui.print(format!("{line}\n"))?;
            }
            if !status.answers {
                return Ok(std::process::ExitCode::FAILURE);
            }
        }
        Command::Key(args) => {
            let (path, public) = builder::key(&ctx)?;
            match (ui.json(), args.path) {
                (true, _) => ui.print_json(&serde_json::json!({ "public": public, "path": path }))?,
                (_, true) => ui.print(format!("{}\n", path.display()))?,
                (_, false) => ui.print(format!("{public}\n"))?,
            }
        }
        Command::Conf(args) => {
            let conf = builder::conf(&ctx)?;
            match (ui.json(), args.builders, args.ssh) {
                (true, ..) => ui.print_json(&conf)?,
                (_, true, _) => ui.print(format!("{}\n", conf.builders))?,
                (_, _, true) => ui.print(conf.ssh)?,
                _ => ui.print(text(&conf))?,
            }
        }
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn text(conf: &builder::Conf) -> String {
    format!(
        "# nix.conf\nbuilders = {}\n\n# ~/.ssh/config, or: Include {}\n{}",
        conf.builders,
        conf.ssh_config.display(),
        conf.ssh
    )
}
