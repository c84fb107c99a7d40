//! `igloo exec` into containers of a real sandbox, in each identity mode.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use igloo_container::{ContainerEvent, ContainerSpec, Identity, Sandbox, SandboxConfig, User};

use crate::fixture::{Fixture, Skip, show};

pub(crate) const CASES: &[crate::Case] = &[("a command in a service's container", exec)];

fn exec(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let modes: &[&str] = if user.uid == 0 { &["root"] } else { &["subuid", "single"] };
        for mode in modes {
            let lowers = fixture.lowers(0);
            let output =
                fixture.command(user, &["service", mode, &lowers, user.state.to_str().unwrap()]).output().unwrap();
            assert!(output.status.success(), "{} {mode}: {}", user.name, show(&output));
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(())
}

/// `service MODE LOWERS STATE`: starts containers of several users, and this program again for each command.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let identity = match args[0].as_str() {
        "root" => Identity::Root,
        "subuid" => Identity::Subuid,
        _ => Identity::SingleUid,
    };
    let state = PathBuf::from(&args[2]).join(&args[0]);
    // As in a store: the layers belong to whoever runs the services.
    let store = state.join("store");
    fs::create_dir_all(&store).unwrap();
    assert!(Command::new("cp").arg("-a").args(args[1].split(':')).arg(&store).status().unwrap().success());
    let lowers: Vec<PathBuf> =
        args[1].split(':').map(|lower| store.join(std::path::Path::new(lower).file_name().unwrap())).collect();
    let exe = std::env::current_exe().unwrap();
    let config = SandboxConfig {
        exe: exe.clone(),
        store_root: store,
        run_dir: state.join("run"),
        project: format!("exec-test-{}", std::process::id()),
        subnet: None,
        identity: Some(identity),
    };
    let sandbox = match Sandbox::start(&config) {
        Ok(sandbox) => sandbox,
        Err(e) => {
            println!("  {identity:?}: skipped, {e}");
            return ExitCode::SUCCESS;
        }
    };
    for uid in [0, 33] {
        let spec = ContainerSpec {
            id: format!("service-{uid}"),
            hostname: "service".into(),
            lowers: lowers.clone(),
            state_dir: state.join(format!("container-{uid}")),
            args: ["sh", "-c", "while :; do sleep 0.1; done"].map(String::from).into(),
            env: vec![("PATH".into(), "/usr/bin".into())],
            workdir: "/srv/app".into(),
            user: User { uid, gid: uid, ..User::default() },
            ..ContainerSpec::default()
        };
        let (sender, events) = mpsc::channel();
        let null = || fs::File::options().write(true).open("/dev/null").unwrap().into();
        let container = sandbox.spawn(&spec, null(), null(), Box::new(move |event| drop(sender.send(event)))).unwrap();
        let pid = match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            ContainerEvent::Started { pid } => pid.to_string(),
            other => panic!("{other:?}"),
        };
        let (id, run) = (uid.to_string(), |words: &[&str]| {
            Command::new(&exe)
                .args(["--act", "exec", &pid, &uid.to_string(), "/srv/app", "--"])
                .args(words)
                .output()
                .unwrap()
        });
        let script = "id -u; id -g; hostname; pwd; grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status; \
                      ls /proc/self/fd | wc -l; ps | grep -c igloo; kill -0 1 && echo service is there; \
                      cat /proc/self/cgroup /proc/1/cgroup | busybox sort | busybox uniq -u";
        let output = run(&["sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() >= 11, "{identity:?} {uid}: {}", show(&output));
        assert_eq!(lines[..4], [id.as_str(), &id, "service", "/srv/app"], "{identity:?}: {}", show(&output));
        let effective = if uid == 0 { "CapEff:\t00000000800405fb" } else { "CapEff:\t0000000000000000" };
        let status = [effective, "CapBnd:\t00000000800405fb", "NoNewPrivs:\t1", "Seccomp:\t2"];
        assert_eq!(lines[4..8], status, "{identity:?} {uid}: {}", show(&output));
        assert_eq!(lines[8], "4", "no other descriptors");
        assert_eq!(lines[10], "service is there");
        assert_eq!(lines.len(), 11, "the same control groups: {}", show(&output));
        assert_eq!(run(&["sh", "-c", "exit 3"]).status.code(), Some(3));
        assert_eq!(run(&["no-such"]).status.code(), Some(127));
        // It goes when the container goes.
        let mut child =
            Command::new(&exe).args(["--act", "exec", &pid, &id, "/", "--", "sleep", "1000"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        container.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{identity:?} {uid}");
    }
    println!("  {identity:?}: ok");
    ExitCode::SUCCESS
}
