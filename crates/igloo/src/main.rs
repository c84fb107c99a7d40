//! `igloo`: one binary from a declared project to everything that a developer runs it in.
//!
//! `main` decides which of three lives this process has: a helper of the container runtime, which must
//! stay single-threaded (`__sandbox`, `__shim`), the supervisor of a project (`__supervise`), or a command
//! that a person typed.

mod args;
mod commands;
mod error;
mod settings;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before any thread, allocation pool or signal handler exists.
    match std::env::args_os().nth(1).as_deref().and_then(|a| a.to_str()) {
        Some("__sandbox") => return igloo_ops::runtime::sandbox_main(),
        Some("__shim") => return igloo_ops::runtime::shim_main(),
        _ => {}
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(e) => return error::usage(&e),
    };
    let ui = ui::Ui::new(&args.global);
    let result = settings::Settings::load(&args.global).and_then(|settings| commands::run(args.command, &settings, &ui));
    ui.finish();
    match result {
        Ok(code) => code,
        Err(e) => e.report(&ui),
    }
}
