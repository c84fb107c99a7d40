//! Several clients, plans, events.

use std::time::Duration;

use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::{Change, ClientError, Reply, Request, State};

use crate::harness::{Igloo, command, eventually, problems, project, sh, sleeper};

#[test]
fn two_applies_at_once_leave_one_of_the_two_projects() {
    let igloo = Igloo::new();
    let variants = ["1001", "1002"];
    std::thread::scope(|scope| {
        for seconds in variants {
            let igloo = &igloo;
            scope.spawn(move || {
                for _ in 0..5 {
                    let services = ["a", "b"].map(|n| command(n, &["sleep", seconds])).to_vec();
                    let options =
                        ApplyOptions { remove_orphans: true, wait: true, timeout: Some(Duration::from_secs(20)) };
                    let settled = igloo.client().apply(&project(services), options, &mut |_| {}).expect("apply");
                    assert!(!settled.timed_out);
                }
            });
        }
    });
    let args = |name| {
        let pid = igloo.status(name).pid.expect("pid");
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("cmdline")
    };
    eventually("both are what they shall be", || ["a", "b"].iter().all(|n| !args(n).contains("setpriv")));
    assert_eq!(args("a"), args("b"), "never half of one and half of the other");
}

#[test]
fn a_plan_changes_nothing() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a"), sleeper("old")]);
    let pid = igloo.status("a").pid;
    let wanted = project(vec![command("a", &["sleep", "5"]), sleeper("new")]);
    let plan = igloo.client().plan(&wanted, true).expect("plan");
    let changes: Vec<_> = plan.changes.iter().map(|c| (c.service.as_str(), c.change)).collect();
    assert_eq!(changes, [("a", Change::Restart), ("new", Change::Start), ("old", Change::Remove)]);
    assert_eq!(igloo.status("a").pid, pid);
}

#[test]
fn a_bad_project_is_refused_and_nothing_happens() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    let mut b = sleeper("b");
    b.needs = vec![igloo_supervisor::Need::ready("c")];
    let mut c = sleeper("c");
    c.needs = vec![igloo_supervisor::Need::ready("b")];
    let error = igloo.client().apply(&project(vec![b, c]), ApplyOptions::default(), &mut |_| {}).expect_err("a circle");
    assert_eq!(error.to_string(), "the supervisor refused: services need each other in a circle: b -> c -> b");
    let error = igloo.client().apply(&project(vec![sleeper("../x")]), ApplyOptions::default(), &mut |_| {});
    assert!(matches!(error, Err(ClientError::Refused { .. })));
    assert_eq!(igloo.status("a").state, State::Ready);
}

#[test]
fn subscribers_see_everything_and_are_let_go() {
    let mut igloo = Igloo::new();
    let mut client = igloo.client();
    let (ready, begun) = std::sync::mpsc::channel();
    let events = std::thread::spawn(move || {
        let replies = client.request(&Request::Subscribe).expect("subscribe");
        ready.send(()).expect("send");
        let events = replies.map_while(Result::ok).filter_map(|reply| match reply {
            Reply::Event(event) => Some(event),
            _ => None,
        });
        events.collect::<Vec<_>>()
    });
    begun.recv().expect("begun");
    eventually("events arrive", || {
        igloo.up(vec![sleeper("a")]);
        true
    });
    igloo.down();
    let events = events.join().expect("events");
    // The subscription may be some microseconds younger than the first event.
    let words: Vec<_> = events.iter().map(|e| e.state.word()).collect();
    assert!(words.ends_with(&["starting", "ready", "stopping", "stopped"]), "{words:?}");
    assert!(events.windows(2).all(|w| w[1].seq == w[0].seq + 1));
    let journal = std::fs::read_to_string(igloo.path("state/events.jsonl")).expect("journal");
    assert_eq!(journal.lines().count(), 5);
}

#[test]
fn nothing_starts_while_everything_stops() {
    let mut igloo = Igloo::new();
    let mut slow = sh("slow", "trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    let pattern = "up".to_owned();
    slow.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Log { pattern }));
    assert_eq!(problems(&igloo.up(vec![slow])), [""; 0]);
    let mut second = igloo.client();
    let mut first = igloo.client();
    let down = std::thread::spawn(move || first.down(None, &mut |_| {}).expect("down"));
    eventually("stopping", || igloo.status("slow").state == State::Stopping);
    let error = second.apply(&project(vec![sleeper("x")]), ApplyOptions::default(), &mut |_| {}).expect_err("too late");
    assert_eq!(error.to_string(), "the supervisor refused: the project is being stopped");
    assert_eq!(down.join().expect("down").services[0].state, State::Stopped);
    igloo.join();
    assert!(matches!(igloo_supervisor::Client::connect(&igloo.socket()), Err(ClientError::NotRunning { .. })));
}

#[test]
fn a_removed_service_is_gone_when_up_returns() {
    let igloo = Igloo::new();
    let mut slow = sh("slow", "trap 'sleep 0.3; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    let pattern = "up".to_owned();
    slow.ready = Some(igloo_supervisor::Readiness::new(igloo_supervisor::Probe::Log { pattern }));
    igloo.up(vec![slow, sleeper("a")]);
    igloo.up(vec![sleeper("a")]);
    let names: Vec<_> = igloo.client().status().expect("status").services.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a"]);
}
