//! The supervisor as a process of its own: start, errors at start, kill -9, signals.
//!
//! The process is this very test binary, told to run [`the_process`]; the environment says where.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::daemon::{Ownership, Startup, is_running, socket_path, spawn_detached};
use igloo_supervisor::{Client, ClientError, SupervisorError};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{eventually, lives, make_unit, problems, project, sleeper};

/// Not a test: what [`start`] starts. Its directory comes as the last argument, which libtest takes for a filter.
#[test]
#[ignore = "the process of other tests"]
fn the_process() {
    let args: Vec<String> = std::env::args().collect();
    let Some(dir) = args.iter().find_map(|a| a.strip_prefix("dir=")).map(PathBuf::from) else { return };
    // libtest talks on standard output, so the pipe was moved out of its way.
    let pipe = std::fs::File::options().write(true).open("/proc/self/fd/9").expect("fd 9");
    rustix::stdio::dup2_stdout(&pipe).expect("dup2");
    drop(pipe);
    let startup = Startup::begin().expect("begin");
    if dir.join("fail").exists() {
        return startup.failed("the disk is on fire");
    }
    if dir.join("die").exists() {
        panic!("a bug");
    }
    if dir.join("hang").exists() {
        std::thread::sleep(Duration::from_secs(100));
    }
    match Ownership::acquire(&dir.join("run"), &dir.join("data")).expect("acquire") {
        Some((ownership, listener)) => {
            startup.ready();
            igloo_supervisor::serve_owned(ownership, listener, make_unit(), &dir.join("logs"), &dir.join("state"))
                .expect("serve");
        }
        None => startup.ready(),
    }
}

fn start(dir: &Path) -> Result<u32, SupervisorError> {
    let exe = std::env::current_exe().expect("exe");
    let script = format!(
        "exec 9>&1 >/dev/null; exec '{}' --ignored --nocapture owner::the_process dir={}",
        exe.display(),
        dir.display()
    );
    let args: Vec<OsString> = ["-c".to_owned(), script].map(OsString::from).to_vec();
    spawn_detached(Path::new("/bin/bash"), &args, &dir.join("log"), Duration::from_secs(3))
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).expect("a pid"), signal).expect("kill");
}

fn up(dir: &Path) -> Vec<u32> {
    let mut client = Client::connect(&socket_path(&dir.join("run"))).expect("connect");
    let options = ApplyOptions { wait: true, ..ApplyOptions::default() };
    let settled = client.apply(&project(vec![sleeper("a"), sleeper("b")]), options, &mut |_| {}).expect("apply");
    assert_eq!(problems(&settled), [""; 0]);
    settled.services.iter().map(|s| s.pid.expect("pid")).collect()
}

#[test]
fn after_kill_9_nothing_is_left_and_up_works() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    assert!(!is_running(&run, &data).expect("look"));
    let pid = start(dir.path()).expect("start");
    assert!(is_running(&run, &data).expect("look"));
    let first = up(dir.path());
    let client = Client::connect(&socket_path(&run)).expect("connect");
    assert_eq!(client.supervisor_pid(), pid);
    // Its own session, so that the terminal's signals don't reach it.
    let pid_of = |pid: u32| Pid::from_raw(pid.cast_signed()).expect("a pid");
    assert_eq!(rustix::process::getsid(Some(pid_of(pid))).expect("sid"), pid_of(pid));

    // Another one starts, finds that it isn't needed, and changes nothing.
    start(dir.path()).expect("start");
    assert_eq!(up(dir.path()), first);

    signal(pid, Signal::KILL);
    eventually("the kernel cleans up", || !first.iter().any(|pid| lives(*pid)));
    eventually("and gives the lock back", || !is_running(&run, &data).expect("look"));
    assert!(matches!(Client::connect(&socket_path(&run)), Err(ClientError::NotRunning { .. })));
    assert!(socket_path(&run).exists(), "the stale socket is still there");

    let pid = start(dir.path()).expect("start again");
    let second = up(dir.path());
    assert!(second.iter().all(|pid| lives(*pid) && !first.contains(pid)));

    // SIGTERM is a `down`.
    signal(pid, Signal::TERM);
    eventually("all gone", || !lives(pid) && !second.iter().any(|pid| lives(*pid)));
    assert!(!socket_path(&run).exists());
}

#[test]
fn errors_at_start_reach_the_starter() {
    let dir = tempfile::tempdir().expect("tempdir");
    let attempt = |how: &str| {
        std::fs::write(dir.path().join(how), "").expect("write");
        let error = start(dir.path()).expect_err("it can't start").to_string();
        std::fs::remove_file(dir.path().join(how)).expect("unlink");
        error
    };
    assert_eq!(attempt("fail"), "the supervisor did not start: the disk is on fire");
    let died = attempt("die");
    assert!(died.starts_with("the supervisor ended (exit status: 101): ") && died.contains("log`"), "{died}");
    assert!(attempt("hang").starts_with("the supervisor was not ready after 3 s"));
    let missing = spawn_detached(Path::new("/no/exe"), &[], &dir.path().join("log"), Duration::from_secs(1));
    assert_eq!(missing.expect_err("no such file").to_string(), "cannot start `/no/exe`");
}

#[test]
fn one_owner_at_a_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    let first = Ownership::acquire(&run, &data).expect("acquire").expect("ours");
    assert!(Ownership::acquire(&run, &data).expect("acquire").is_none());
    assert!(is_running(&run, &data).expect("look"));
    drop(first);
    assert!(!is_running(&run, &data).expect("look"));
    assert!(Ownership::acquire(&run, &data).expect("acquire").is_some());
    use std::os::unix::fs::PermissionsExt;
    let (_owner, _listener) = Ownership::acquire(&run, &data).expect("acquire").expect("ours");
    let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
    assert_eq!((mode(&run), mode(&socket_path(&run))), (0o700, 0o600));
}

#[test]
fn a_deleted_socket_is_made_anew_and_nobody_else_gets_in_meanwhile() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    let pid = start(dir.path()).expect("start");
    let connects = || Client::connect(&socket_path(&run)).is_ok_and(|c| c.supervisor_pid() == pid);
    assert!(connects());
    for round in 0..3 {
        match round {
            0 => std::fs::remove_file(socket_path(&run)).expect("remove"),
            1 => std::fs::remove_file(run.join("lock")).expect("remove"),
            // It may be quick enough to fill the directory while it is emptied.
            _ => drop(std::fs::remove_dir_all(&run)),
        }
        assert!(is_running(&run, &data).expect("look"));
        assert!(Ownership::acquire(&run, &data).expect("acquire").is_none(), "round {round}");
        eventually("it can be reached again", connects);
    }
    // One that was stopped is told to go on.
    let process = Pid::from_raw(pid.cast_signed()).expect("pid");
    kill_process(process, Signal::STOP).expect("stop");
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    eventually("it is stopped", || stat().contains(") T "));
    eventually("it answers", connects);
    kill_process(process, Signal::TERM).expect("terminate");
    eventually("it ends", || !is_running(&run, &data).expect("look"));
}

#[test]
fn deleting_it_piece_by_piece_is_of_no_use_either() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    let pid = start(dir.path()).expect("start");
    for _ in 0..200 {
        // In the order of a directory, while it is made anew.
        for name in ["control.sock", "lock"] {
            let _ = std::fs::remove_file(run.join(name));
        }
        let _ = std::fs::remove_dir(&run);
    }
    eventually("it can be reached again", || {
        Client::connect(&socket_path(&run)).is_ok_and(|c| c.supervisor_pid() == pid)
    });
    signal(pid, Signal::TERM);
    eventually("it ends", || !is_running(&run, &data).expect("look"));
}
