//! Real containers, in each identity mode that this machine allows. Needs `busybox` linked statically (package
//! busybox-static); run by root, the modes of ordinary users are tested as the user `igloo-test` if there is one.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::exit, missing_docs, unreachable_pub)]

#[path = "containers/cases.rs"]
mod cases;
#[path = "containers/lab.rs"]
mod lab;
#[path = "containers/probe.rs"]
mod probe;
#[path = "containers/speed.rs"]
mod speed;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use igloo_container::Identity;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("__sandbox") => return igloo_container::sandbox_main(),
        Some(igloo_container::audit::WORD) => return igloo_container::audit::audit_main(),
        Some("supervise-until-killed") => lab::supervise_until_killed(&args[1..]),
        Some("probe") => return probe::inside(&args[1..]),
        Some("speed") => return speed::measure(&args[1..]),
        _ => {}
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned().unwrap_or_default();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if lab::busybox().is_none() {
        println!("Skipped: no statically linked busybox (package busybox-static)");
        return ExitCode::SUCCESS;
    }
    let root = rustix::process::geteuid().is_root();
    let modes: &[Identity] = if root { &[Identity::Root] } else { &[Identity::Subuid, Identity::SingleUid] };
    let mut ok = true;
    for mode in modes {
        ok &= run(*mode, &filter);
    }
    if root {
        match lab::ordinary_user() {
            Some((uid, gid)) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg(&filter).uid(uid).gid(gid).env_clear().current_dir("/");
                ok &= command.status().unwrap().success();
            }
            None => println!("Skipped: modes of ordinary users, there is no user `igloo-test`"),
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(mode: Identity, filter: &str) -> bool {
    let lab = match lab::Lab::new(mode) {
        Ok(lab) => lab,
        Err(why) => {
            println!("Skipped: {mode:?}: {why}");
            return true;
        }
    };
    let mut failed = Vec::new();
    for (name, case) in cases::ALL {
        if !name.contains(filter) {
            continue;
        }
        let begun = std::time::Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&lab)));
        println!("{mode:?}::{name} ... {} ({:.0?})", if result.is_ok() { "ok" } else { "FAILED" }, begun.elapsed());
        if result.is_err() {
            failed.push(name);
        }
    }
    failed.is_empty()
}
