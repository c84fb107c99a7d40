use std::process::ExitCode;

use igloo_base::System;
use igloo_ops::image::run;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Run an image here, in igloo's own runtime
///
/// It runs in the foreground, with a file system of its own that is gone afterwards, and sees nothing of this machine but
/// what is mounted. Input, output, signals and exit code are the command's; at a terminal it gets a terminal. It has no
/// network but loopback, so that no ports can be published: services of igloo.toml have networks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image anywhere
    image: String,
    /// Of this system in an index
    #[arg(long, value_name = "SYSTEM", default_value_t = System::current())]
    system: System,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Show a file or directory of this machine at a path of the image
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    volumes: Vec<String>,
    /// Say more
    // The global option without its `-v`, which everybody's fingers take for a volume here.
    #[arg(id = "verbose", long, help_heading = "Global options")]
    _verbose: bool,
    /// Run as this user of the image, or a number; `USER:GROUP` sets the group
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Start in this directory of the image
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run this instead of the image's entry point and command; may be repeated for its words
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// What the command is given, or the command itself if the image has no entry point
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Accepted since fingers type it: input is always passed on, a terminal is used where there is one, and nothing is kept
    #[arg(short = 'i', long = "interactive", hide = true)]
    _interactive: bool,
    /// See `-i`
    #[arg(short = 't', long = "tty", hide = true)]
    _tty: bool,
    /// See `-i`
    #[arg(long = "rm", hide = true)]
    _rm: bool,
}

pub fn run(args: &Args, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    let ctx = settings.context(ui);
    let options = run::Options {
        image: &args.image,
        directory: &settings.directory,
        system: args.system,
        env: &args.env,
        volumes: &args.volumes,
        user: args.user.as_deref(),
        workdir: args.workdir.as_deref(),
        entrypoint: &args.entrypoint,
        command: &args.command,
    };
    let prepared = run::prepare(&ctx, &options)?;
    ui.finish();
    Ok(prepared.run()?)
}
