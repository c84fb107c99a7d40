//! `igloo`: one binary from a declared project to everything that a developer runs it in.
//!
//! `main` decides which life this process has: a project's sandbox (`__sandbox`) or what looks around in
//! a container (`__audit`), which must stay single-threaded, or a command that a person typed; the supervisor (`__supervise`) and shims (`__enter`) are
//! commands that igloo types.

mod args;
mod commands;
mod error;
mod settings;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before any thread, allocation pool or signal handler exists.
    if std::env::args_os().nth(1).is_some_and(|word| word == "__sandbox") {
        return igloo_ops::runtime::sandbox_main();
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == igloo_ops::runtime::AUDIT) {
        return igloo_ops::runtime::audit_main();
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == "__keep") {
        return igloo_ops::runtime::keep_main(&std::env::args_os().skip(2).collect::<Vec<_>>());
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(e) => return error::usage(&e),
    };
    let ui = ui::Ui::new(&args.global);
    let result =
        settings::Settings::load(&args.global).and_then(|settings| commands::run(args.command, &settings, &ui));
    ui.finish();
    match result {
        Ok(code) => code,
        Err(e) => e.report(&ui),
    }
}
