//! What this program does when it is started again by a case.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use igloo_container::enter::{Bind, Caller, Home, Isolation, ShellSpec, enter, environment};

pub(crate) fn act(args: &[String]) -> ExitCode {
    match args[0].as_str() {
        "enter" => do_enter(&args[1..]),
        "exec" => crate::kernel::do_exec(&args[1..]),
        igloo_container::exec::WORD => crate::kernel::do_exec_passed_on(&args[1..]),
        "service" => crate::service::run(&args[1..]),
        "hog" => crate::kernel::hog(&args[1..]),
        "bridge" => crate::kernel::do_bridge(),
        "refused" => crate::kernel::do_refused(),
        "findings" => do_findings(&args[1]),
        other => panic!("no act `{other}`"),
    }
}

fn do_enter(args: &[String]) -> ExitCode {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let name = std::env::var("USER").unwrap_or_else(|_| "root".into());
    let home = PathBuf::from(std::env::var("HOME").unwrap_or_else(|_| "/root".into()));
    let mut spec = ShellSpec {
        lowers: Vec::new(),
        isolation: Isolation::Pure,
        caller: Caller { name, uid, gid, home, shell: "/bin/sh".into() },
        home: Home::Host,
        project_dir: PathBuf::new(),
        workdir: std::env::current_dir().unwrap(),
        args: Vec::new(),
        env: Vec::new(),
        binds: Vec::new(),
        hostname: "inside".into(),
        network: true,
    };
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let mut value = || args.next().unwrap().clone();
        match option.as_str() {
            "--isolation" => {
                spec.isolation = match value().as_str() {
                    "host" => Isolation::Host,
                    "pure" => Isolation::Pure,
                    _ => Isolation::Container,
                }
            }
            "--lowers" => spec.lowers = value().split(':').map(PathBuf::from).collect(),
            "--project" => spec.project_dir = value().into(),
            "--home" => spec.home = Home::Private(value().into()),
            "--keep-home" => spec.home = Home::Host,
            "--workdir" => spec.workdir = value().into(),
            "--no-network" => spec.network = false,
            "--bind" => {
                let value = value();
                let mut parts = value.split('=');
                let (source, target) = (parts.next().unwrap().into(), parts.next().unwrap().into());
                spec.binds.push(Bind { source, target, read_only: parts.next().is_some() });
            }
            "--" => break,
            other => panic!("no option `{other}`"),
        }
    }
    spec.args = args.map(Into::into).collect();
    let declared = BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
    spec.env = environment(spec.isolation, std::env::vars_os(), &declared, &spec.caller);
    finish(enter(&spec))
}

pub(crate) fn finish(result: Result<igloo_container::enter::Ended, igloo_container::enter::EnterError>) -> ExitCode {
    match result {
        Ok(ended) => ended.pass_on(),
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            if let Some(remedy) = error.remedy() {
                eprintln!("hint: {remedy}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn do_findings(state: &str) -> ExitCode {
    let findings = igloo_container::probe::findings(&igloo_container::probe::Places { data: state.as_ref() });
    for finding in &findings {
        println!("    {:?} {}: {}", finding.status, finding.name, finding.detail);
        for text in [&finding.cause, &finding.remedy].into_iter().flatten() {
            println!("      {text}");
        }
        let told = finding.cause.is_some() && finding.remedy.is_some();
        assert_eq!(told, finding.status != igloo_container::probe::Status::Ok, "{}", finding.name);
    }
    ExitCode::SUCCESS
}
