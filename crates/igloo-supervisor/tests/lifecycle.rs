//! Start, stop, restart, change; what runs is always asked of the kernel, not only of the supervisor.

use std::time::Duration;

use igloo_supervisor::{Condition, Need, Policy, Setup, State};

use crate::harness::{Igloo, command, eventually, lives, problems, sh, sleeper, text};

#[test]
fn up_status_down() {
    let mut igloo = Igloo::new();
    let settled = igloo.up(vec![sleeper("a"), sleeper("b")]);
    assert_eq!(problems(&settled), [""; 0]);
    let pids: Vec<u32> = ["a", "b"].iter().map(|n| igloo.status(n).pid.expect("pid")).collect();
    assert!(pids.iter().all(|pid| lives(*pid)));
    let a = igloo.status("a");
    assert_eq!(a.state, State::Ready);
    assert!(a.ready_ms >= a.started_ms && a.started_ms.is_some());
    let down = igloo.down();
    assert_eq!(down.services.len(), 2);
    assert!(down.services.iter().all(|s| s.state == State::Stopped && s.problem.is_none()));
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn order_of_start_and_stop() {
    let mut igloo = Igloo::new();
    let order = igloo.path("order");
    let script = |name: &str| {
        format!(
            "echo +{name} >> {0}; trap 'echo -{name} >> {0}; exit 0' TERM; while :; do sleep 0.02; done",
            order.display()
        )
    };
    let mut db = sh("db", &script("db"));
    let mut api = sh("api", &script("api"));
    let mut web = sh("web", &script("web"));
    // Started only says that there is a process; the log says that the trap is set.
    for service in [&mut db, &mut api, &mut web] {
        let marker = format!("grep -q '+{}' {}", service.name, order.display());
        let args = ["sh", "-c", &marker].map(str::to_owned).to_vec();
        service.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Exec { args }));
    }
    api.needs = vec![Need::ready("db")];
    web.needs = vec![Need::ready("api"), Need::ready("db")];
    assert_eq!(problems(&igloo.up(vec![web, api, db])), [""; 0]);
    // The shell that is in `sleep` runs its trap a moment later.
    igloo.down();
    assert_eq!(text(&order), "+db\n+api\n+web\n-web\n-api\n-db\n");
}

#[test]
fn a_changed_digest_restarts_only_that_service() {
    let igloo = Igloo::new();
    let mut web = sleeper("web");
    web.needs = vec![Need::ready("db")];
    igloo.up(vec![sleeper("db"), web.clone(), sleeper("gone")]);
    let pid = |name| igloo.status(name).pid.expect("pid");
    let (db, old, gone) = (pid("db"), pid("web"), pid("gone"));
    igloo.up(vec![sleeper("db"), web.clone(), sleeper("gone")]);
    assert_eq!((pid("db"), pid("web"), pid("gone")), (db, old, gone), "the same project changes nothing");
    let mut changed = command("web", &["sleep", "2000"]);
    changed.needs = web.needs;
    igloo.up(vec![sleeper("db"), changed]);
    assert_eq!(pid("db"), db);
    assert_ne!(pid("web"), old);
    assert!(!lives(old) && !lives(gone));
    assert_eq!(igloo.client().status().expect("status").services.len(), 2);
    assert_eq!(igloo.status("web").restarts, 0, "a wanted restart is none");
}

#[test]
fn a_crash_loop_backs_off_fails_and_shows_the_last_words() {
    let igloo = Igloo::new();
    let mut crash = sh("crash", "echo trying; echo 'no config' >&2; exit 3");
    crash.restart.backoff.initial = Duration::from_millis(10);
    crash.restart.tries = Some(4);
    let mut web = sleeper("web");
    web.needs = vec![Need { name: "crash".to_owned(), condition: Condition::Completed }];
    igloo.up(vec![crash, web]);
    eventually("given up", || matches!(igloo.status("crash").state, State::Failed { .. }));
    let status = igloo.status("crash");
    assert_eq!(status.problem.as_deref(), Some("exited with code 3, 4 times in a row"));
    assert_eq!(status.restarts, 3);
    let mut tail = status.tail;
    tail.sort();
    assert_eq!(tail, ["no config", "trying"]);
    assert_eq!(igloo.log("crash").len(), 8);
    let blocked = igloo.status("web").problem;
    assert_eq!(blocked.as_deref(), Some("needs `crash`: exited with code 3, 4 times in a row"));
}

#[test]
fn up_tells_of_a_crash_loop_without_waiting_for_its_end() {
    let igloo = Igloo::new();
    let mut crash = sh("crash", "exit 1");
    crash.restart.backoff.initial = Duration::from_millis(20);
    crash.restart.tries = None;
    crash.restart.policy = Policy::Always;
    crash.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Notify));
    let settled = igloo.up(vec![crash]);
    assert!(!settled.timed_out);
    assert_eq!(problems(&settled), ["crash: exited with code 1, 3 times in a row; will be started again"]);
}

#[test]
fn what_cannot_start_says_why_at_once() {
    let igloo = Igloo::new();
    let settled = igloo.up(vec![command("nope", &["/no/such/program"])]);
    let problem = settled.failures().next().expect("a failure");
    let expected = "cannot run `/no/such/program`: No such file or directory (os error 2)";
    assert_eq!(problem.problem.as_deref(), Some(expected));
    let mut bad = sleeper("bad");
    bad.unit = serde_json::json!({"not": "a list"});
    let settled = igloo.up(vec![bad]);
    assert!(problems(&settled)[0].starts_with("bad: a bad payload: invalid type"), "{settled:?}");
}

#[test]
fn stubborn_services_are_killed_after_their_grace() {
    let igloo = Igloo::new();
    let mut stubborn = sh("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    stubborn.stop_grace = Duration::from_millis(200);
    let pattern = "ready".to_owned();
    stubborn.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Log { pattern }));
    igloo.up(vec![stubborn]);
    let pid = igloo.status("stubborn").pid.expect("pid");
    let settled = igloo.client().stop(&[], None, &mut |_| {}).expect("stop");
    assert_eq!(settled.services[0].state, State::Stopped);
    assert_eq!(settled.services[0].last_exit.and_then(|e| e.signal), Some(9));
    assert!(!lives(pid));
}

#[test]
fn stop_start_restart_signal() {
    let igloo = Igloo::new();
    let mut web = sleeper("web");
    web.needs = vec![Need::ready("db")];
    igloo.up(vec![sleeper("db"), web]);
    let mut client = igloo.client();
    let web = ["web".to_owned()];
    client.stop(&[], None, &mut |_| {}).expect("stop");
    assert!(client.status().expect("status").services.iter().all(|s| s.state == State::Stopped));
    // What it needs comes along.
    assert_eq!(problems(&client.start(&web, true, &mut |_| {}).expect("start")), [""; 0]);
    let first = igloo.status("web").pid.expect("pid");
    let db = igloo.status("db").pid;
    client.restart(&web, true, &mut |_| {}).expect("restart");
    assert_ne!(igloo.status("web").pid, Some(first));
    assert_eq!(igloo.status("db").pid, db);
    client.signal(&web, 1).expect("signal");
    eventually("killed from outside, so started again", || igloo.status("web").restarts == 1);
    assert_eq!(igloo.status("web").last_exit.and_then(|e| e.signal), Some(1));
    // What is ended on request is not started again, whatever its policy.
    eventually("it runs", || igloo.status("web").pid.is_some());
    client.signal(&web, 9).expect("kill");
    assert_eq!(igloo.status("web").state, State::Stopped);
    client.start(&web, true, &mut |_| {}).expect("start");
    client.signal(&web, 15).expect("its stop signal");
    eventually("stopped", || igloo.status("web").state == State::Stopped);
    let error = client.signal(&["nobody".to_owned()], 15).expect_err("no such service").to_string();
    assert_eq!(error, "the supervisor refused: there is no service `nobody` here");
}

#[test]
fn setup_runs_once_and_its_marker_is_written_after_success_only() {
    let mut igloo = Igloo::new();
    let (marker, done) = (igloo.path("volume/.done"), igloo.path("done"));
    let with_setup = |script: &str| {
        let mut db = sh("db", &format!("cat {}; exec sleep 1000", done.display()));
        let unit = serde_json::json!(["sh", "-c", script]);
        db.setup = Some(Setup { unit, marker: marker.clone(), timeout: Duration::from_secs(10) });
        db
    };
    let settled = igloo.up(vec![with_setup("echo 'disk too small' >&2; exit 1")]);
    assert_eq!(problems(&settled), ["db: setup exited with code 1"]);
    assert_eq!(settled.services[0].tail, ["disk too small"]);
    assert!(!marker.exists());
    let good = format!("test ! -e {0} && sleep 0.1 && echo made >> {0}", done.display());
    assert_eq!(problems(&igloo.up(vec![with_setup(&good)])), [""; 0]);
    assert!(marker.exists());
    igloo.again();
    assert_eq!(problems(&igloo.up(vec![with_setup(&good)])), [""; 0]);
    assert_eq!(text(&done), "made\n");
}

#[test]
fn services_start_in_parallel() {
    let igloo = Igloo::new();
    // Each waits for all the others: one after the other, they would wait for ever.
    let names = ["a", "b", "c", "d"];
    let services = names
        .iter()
        .map(|name| {
            let all = igloo.path("");
            let wait = names.map(|n| format!("test -e {}/{n}", all.display())).join(" && ");
            let script = format!(
                "touch {}/{name}; until {wait}; do sleep 0.01; done; echo ready; exec sleep 1000",
                all.display()
            );
            let mut service = sh(name, &script);
            let pattern = "^ready$".to_owned();
            service.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Log { pattern }));
            service
        })
        .collect();
    assert_eq!(problems(&igloo.up(services)), [""; 0]);
}
