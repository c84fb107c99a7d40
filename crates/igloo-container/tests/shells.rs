//! Environments entered for real, as root and as an ordinary user, with a root made of busybox.
//!
//! A program of its own, since entering needs a process with a single thread: it starts itself again for each case.
//! Cases that this machine can't run are told as skipped. `IGLOO_TEST_USER` names the ordinary user (`igloo-test`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[path = "shells/acts.rs"]
mod acts;
#[path = "shells/enter.rs"]
mod enter;
#[path = "shells/fixture.rs"]
mod fixture;
#[path = "shells/kernel.rs"]
mod kernel;
#[path = "shells/service.rs"]
mod service;
#[path = "shells/terminal.rs"]
mod terminal;

use std::process::ExitCode;

use fixture::{Fixture, Skip};

type Case = (&'static str, fn(&Fixture) -> Result<(), Skip>);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "__sandbox") {
        return igloo_container::sandbox_main();
    }
    if args.first().is_some_and(|a| a == "--act") {
        return acts::act(&args[1..]);
    }
    if args.first().is_some_and(|a| a == igloo_container::exec::WORD) {
        return acts::act(&args);
    }
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let fixture = match Fixture::new() {
        Ok(fixture) => fixture,
        Err(Skip(why)) => {
            println!("all skipped: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let cases: Vec<Case> = [enter::CASES, terminal::CASES, kernel::CASES, service::CASES].concat();
    let mut failed = 0;
    for (name, case) in cases.iter().filter(|(n, _)| filters.is_empty() || filters.iter().any(|f| n.contains(*f))) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&fixture))) {
            Ok(Ok(())) => println!("{name}: ok"),
            Ok(Err(Skip(why))) => println!("{name}: skipped, {why}"),
            Err(_) => {
                failed += 1;
                println!("{name}: FAILED");
            }
        }
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
