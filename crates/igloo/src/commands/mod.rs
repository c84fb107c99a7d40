//! One file a verb: the arguments with their manual, one call into ops, one print.

mod add;
mod allow;
mod audit;
mod builder;
mod config;
mod cp;
mod doctor;
mod down;
mod env;
mod events;
mod exec;
mod fetch;
mod gc;
mod hook;
mod image;
mod init;
mod internal;
mod lock;
mod logs;
mod order;
mod port;
mod ps;
mod registry;
mod restart;
mod run;
mod schema;
mod shell;
mod store;
mod task;
mod top;
mod up;
mod update;
mod volume;
mod wait;
mod why;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CommandError;
use crate::settings::Settings;
use crate::ui::Ui;

/// Every verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Add(add::AddArgs),
    Remove(add::RemoveArgs),
    Lock(lock::Args),
    Update(update::Args),
    Fetch(fetch::Args),
    Config(config::Args),
    Schema(schema::Args),
    #[command(subcommand)]
    Env(env::Command),
    Shell(shell::Args),
    Run(run::Args),
    Hook(hook::Args),
    Allow(allow::Args),
    Up(up::Args),
    Down(down::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    #[command(subcommand)]
    Volume(volume::Command),
    Audit(audit::Args),
    Restart(restart::RestartArgs),
    Start(restart::StartArgs),
    Stop(restart::StopArgs),
    Wait(wait::Args),
    Kill(order::KillArgs),
    Pause(order::PauseArgs),
    Unpause(order::UnpauseArgs),
    Reload(order::ReloadArgs),
    Port(port::Args),
    Events(events::Args),
    Why(why::Args),
    Top(top::Args),
    Task(task::Args),
    Cp(cp::Args),
    #[command(subcommand)]
    Image(image::Command),
    #[command(subcommand)]
    Builder(builder::Command),
    #[command(subcommand)]
    Store(store::Command),
    #[command(subcommand)]
    Registry(registry::Command),
    Gc(gc::Args),
    Doctor(doctor::Args),
    #[command(name = "__supervise", hide = true)]
    Supervise(internal::SuperviseArgs),
    #[command(name = "__copy", hide = true)]
    CopyInside(cp::InsideArgs),
    #[command(name = "__exec", hide = true)]
    ExecIn(internal::ExecArgs),
    #[command(name = "__enter", hide = true)]
    Enter(internal::EnterArgs),
    #[command(name = "__activate", hide = true)]
    Activate(internal::ActivateArgs),
    #[command(name = "__nix-env", hide = true)]
    NixEnv(internal::NixEnvArgs),
    #[command(name = "__nix-image", hide = true)]
    NixImage,
}

/// Runs a verb.
pub fn run(command: Command, settings: &Settings, ui: &Ui) -> Result<ExitCode, CommandError> {
    match command {
        Command::Init(args) => init::run(&args, settings, ui)?,
        Command::Add(args) => add::add(&args, settings, ui)?,
        Command::Remove(args) => add::remove(&args, settings, ui)?,
        Command::Lock(args) => lock::run(&args, settings, ui)?,
        Command::Update(args) => update::run(&args, settings, ui)?,
        Command::Fetch(args) => fetch::run(&args, settings, ui)?,
        Command::Config(args) => config::run(&args, settings, ui)?,
        Command::Schema(args) => schema::run(&args, ui)?,
        Command::Env(command) => env::run(&command, settings, ui)?,
        Command::Shell(args) => return shell::run(&args, settings, ui),
        Command::Run(args) => return run::run(&args, settings, ui),
        Command::Hook(args) => hook::run(&args, ui)?,
        Command::Allow(args) => allow::run(&args, settings, ui)?,
        Command::Up(args) => up::run(&args, settings, ui)?,
        Command::Down(args) => down::run(&args, settings, ui)?,
        Command::Ps(args) => ps::run(&args, settings, ui)?,
        Command::Logs(args) => logs::run(&args, settings, ui)?,
        Command::Exec(args) => return exec::run(&args, settings, ui),
        Command::Volume(command) => volume::run(&command, settings, ui)?,
        Command::Audit(args) => return audit::run(&args, settings, ui),
        Command::ExecIn(args) => return internal::exec(&args),
        Command::Restart(args) => restart::restart(&args, settings, ui)?,
        Command::Start(args) => restart::start(&args, settings, ui)?,
        Command::Stop(args) => restart::stop(&args, settings, ui)?,
        Command::Wait(args) => wait::run(&args, settings, ui)?,
        Command::Kill(args) => order::kill(&args, settings, ui)?,
        Command::Pause(args) => order::pause(&args, settings, ui)?,
        Command::Unpause(args) => order::unpause(&args, settings, ui)?,
        Command::Reload(args) => order::reload(&args, settings, ui)?,
        Command::Port(args) => port::run(&args, settings, ui)?,
        Command::Events(args) => events::run(&args, settings, ui)?,
        Command::Why(args) => why::run(&args, settings, ui)?,
        Command::Top(args) => top::run(&args, settings, ui)?,
        Command::Cp(args) => cp::run(&args, settings, ui)?,
        Command::CopyInside(args) => cp::inside(&args, settings, ui)?,
        Command::Task(args) => return task::run(&args, settings, ui),
        Command::Image(command) => return image::run(&command, settings, ui),
        Command::Builder(command) => return builder::run(&command, settings, ui),
        Command::Store(command) => store::run(&command, settings, ui)?,
        Command::Registry(command) => registry::run(&command, settings, ui)?,
        Command::Gc(args) => gc::run(&args, settings, ui)?,
        Command::Doctor(args) => return doctor::run(&args, settings, ui),
        Command::Supervise(args) => internal::supervise(&args, settings, ui)?,
        Command::Enter(args) => return internal::enter(&args, settings, ui),
        Command::Activate(args) => internal::activate(&args, settings, ui)?,
        Command::NixEnv(args) => internal::nix_env(&args, settings, ui)?,
        Command::NixImage => internal::nix_image(settings, ui)?,
    }
    Ok(ExitCode::SUCCESS)
}
