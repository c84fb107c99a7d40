//! Virtual time, no I/O: [`Sim`] carries out effects by remembering them, and tells what a unit would tell.

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::{Expect, expect};
use igloo_base::Sha256;

use super::*;
use crate::machine::{Run, Timer};
use crate::spec::{Need, Policy, Probe, Readiness, Setup};
use crate::unit::{Exit, UnitEvent};

/// A fleet in a world where nothing happens by itself but time.
struct Sim {
    fleet: Fleet,
    now: Now,
    timers: Vec<(Duration, String, Run, Timer)>,
    log: Vec<String>,
}

impl Sim {
    fn new(services: Vec<ServiceSpec>) -> Self {
        let mut sim = Self {
            fleet: Fleet::new(7),
            now: Now { mono: Duration::ZERO, wall_ms: 1_000_000 },
            timers: Vec::new(),
            log: Vec::new(),
        };
        sim.apply(services);
        sim
    }

    fn apply(&mut self, services: Vec<ServiceSpec>) {
        let project = Project { name: "p".to_owned(), services, known: Vec::new() };
        project.check().expect("a good project");
        let effects = self.fleet.apply(self.now, &project, true);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects) {
        for (name, effect) in effects {
            match effect {
                Effect::Timer(run, timer, at) => self.timers.push((at, name, run, timer)),
                Effect::Changed(..) | Effect::Note(_) => {}
                Effect::Watch => self.log.push(format!("watch {name}")),
                Effect::Pause(_, on) => self.log.push(format!("{} {name}", if on { "pause" } else { "resume" })),
                Effect::Start(_) => self.log.push(format!("start {name}")),
                Effect::Setup(_) => self.log.push(format!("setup {name}")),
                Effect::Probe(_) => self.log.push(format!("probe {name}")),
                Effect::Signal(_, signal) => self.log.push(format!("signal {signal} {name}")),
                Effect::Kill(_) => self.log.push(format!("kill {name}")),
                Effect::ReleasePorts => self.log.push(format!("release {name}")),
                Effect::Forget => self.log.push(format!("forget {name}")),
            }
        }
    }

    fn tell(&mut self, name: &str, event: impl FnOnce(Run) -> Event) {
        let run = self.fleet.get(name).expect("a service").run;
        let effects = self.fleet.handle(self.now, name, event(run));
        self.take(effects);
    }

    fn started(&mut self, name: &str) {
        self.tell(name, |run| Event::Unit(run, UnitEvent::Started { pid: 1 }));
    }

    fn exited(&mut self, name: &str, code: i32) {
        self.tell(name, |run| Event::Unit(run, UnitEvent::Exited { code: Some(code), signal: None, oom: false }));
    }

    /// Lets time pass; what falls due happens on its way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            self.timers.sort_by_key(|t| t.0);
            let at = self.timers.first().map(|t| t.0).filter(|at| *at <= end).unwrap_or(end);
            let wall = u64::try_from((at - self.now.mono).as_millis()).expect("small");
            self.now = Now { mono: at, wall_ms: self.now.wall_ms + wall };
            if self.timers.first().is_none_or(|t| t.0 > end) {
                return;
            }
            let (_, name, run, timer) = self.timers.remove(0);
            let effects = self.fleet.handle(self.now, &name, Event::Due(run, timer));
            self.take(effects);
        }
    }

    fn state(&self, name: &str) -> State {
        self.fleet.get(name).expect("a service").state.clone()
    }

    fn words(&self) -> String {
        self.fleet.names().map(|n| format!("{n}={}", self.state(n).word())).collect::<Vec<_>>().join(" ")
    }

    fn check_log(&mut self, expected: &str) {
        assert_eq!(std::mem::take(&mut self.log).join(", "), expected);
    }
}

fn spec(name: &str, version: &str, needs: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec::new(name, Sha256::of(version.as_bytes()), serde_json::Value::Null);
    spec.needs = needs.iter().map(|n| Need::ready(*n)).collect();
    spec
}

fn probed(mut spec: ServiceSpec) -> ServiceSpec {
    spec.ready = Some(Readiness::new(Probe::Notify));
    spec
}

fn check(actual: &str, expected: Expect) {
    expected.assert_eq(actual);
}

#[test]
fn services_start_in_order_and_stop_in_reverse() {
    let mut sim =
        Sim::new(vec![spec("web", "1", &["api", "db"]), spec("api", "1", &["db"]), probed(spec("db", "1", &[]))]);
    sim.check_log("start db");
    assert!(matches!(sim.state("web"), State::Waiting { on, blocked: None } if on == ["api", "db"]));
    sim.started("db");
    sim.check_log("probe db");
    assert_eq!(sim.words(), "api=waiting db=running web=waiting");
    sim.tell("db", Event::Probed);
    sim.check_log("start api");
    sim.started("api");
    sim.check_log("start web");
    sim.started("web");
    assert_eq!(sim.words(), "api=ready db=ready web=ready");

    let all: Vec<String> = sim.fleet.names().cloned().collect();
    let effects = sim.fleet.stop(sim.now, &all, None, "by `stop`");
    sim.take(effects);
    sim.check_log("signal 15 web");
    sim.exited("web", 0);
    sim.check_log("signal 15 api, release web");
    sim.pass(Duration::from_secs(10));
    sim.check_log("kill api");
    sim.tell("api", |run| Event::Unit(run, UnitEvent::Exited { code: None, signal: Some(9), oom: false }));
    sim.check_log("release api, signal 15 db");
    sim.exited("db", 0);
    sim.check_log("release db");
    assert_eq!(sim.words(), "api=stopped db=stopped web=stopped");
}

#[test]
fn independent_services_start_and_stop_together() {
    let mut sim = Sim::new(vec![spec("a", "1", &[]), spec("b", "1", &[])]);
    sim.check_log("start a, start b");
    sim.started("a");
    sim.started("b");
    sim.apply(vec![]);
    sim.check_log("signal 15 a, signal 15 b");
    sim.exited("b", 0);
    sim.check_log("release b, forget b");
    assert_eq!(sim.words(), "a=stopping");
}

#[test]
fn only_what_changed_is_restarted() {
    let mut sim = Sim::new(vec![spec("db", "1", &[]), spec("web", "1", &["db"])]);
    sim.started("db");
    sim.started("web");
    sim.check_log("start db, start web");
    sim.apply(vec![spec("db", "1", &[]), spec("web", "1", &["db"])]);
    sim.check_log("");
    sim.apply(vec![spec("db", "2", &[]), spec("web", "1", &["db"])]);
    sim.check_log("signal 15 db");
    sim.exited("db", 0);
    sim.check_log("start db");
    sim.started("db");
    assert_eq!(sim.words(), "db=ready web=ready");
    assert_eq!(sim.fleet.get("web").expect("web").run, 1);
    assert_eq!(sim.fleet.get("db").expect("db").spec.digest, Sha256::of(b"2"));
}

#[test]
fn a_change_can_be_taken_back_before_it_happens() {
    // db must wait for web's end before its own restart; meanwhile the change of db is taken back.
    let mut sim = Sim::new(vec![spec("db", "1", &[]), spec("web", "1", &["db"])]);
    sim.started("db");
    sim.started("web");
    sim.check_log("start db, start web");
    sim.apply(vec![spec("db", "2", &[]), spec("web", "2", &["db"])]);
    sim.check_log("signal 15 web");
    sim.apply(vec![spec("db", "1", &[]), spec("web", "2", &["db"])]);
    sim.check_log("");
    sim.exited("web", 0);
    sim.check_log("start web");
    assert_eq!(sim.words(), "db=ready web=starting");
}

#[test]
fn a_crash_loop_backs_off_and_is_given_up() {
    let mut sim = Sim::new(vec![spec("s", "1", &[])]);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        sim.started("s");
        sim.exited("s", 3);
        let before = sim.now.mono;
        if let State::Backoff { until_ms, .. } = sim.state("s") {
            pauses.push(until_ms - sim.now.wall_ms);
            sim.pass(Duration::from_secs(30));
            assert!(sim.now.mono > before);
        }
    }
    // 100, 200, 400, 800 ms, each up to a quarter less.
    for (pause, full) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!((full * 3 / 4..=full).contains(pause), "{pauses:?}");
    }
    assert_eq!(pauses.len(), 4);
    assert_eq!(sim.state("s"), State::Failed { reason: "exited with code 3, 5 times in a row".to_owned() });
    assert_eq!(sim.fleet.get("s").expect("s").restarts, 4);
    // `up` tries again, from the beginning.
    sim.apply(vec![spec("s", "1", &[])]);
    sim.started("s");
    sim.exited("s", 3);
    assert!(matches!(sim.state("s"), State::Backoff { failures: 1, .. }));
}

#[test]
fn a_healthy_period_forgives_and_the_pause_is_capped() {
    let mut always = spec("s", "1", &[]);
    always.restart.policy = Policy::Always;
    always.restart.tries = None;
    let mut sim = Sim::new(vec![always]);
    for _ in 0..40 {
        sim.started("s");
        sim.exited("s", 0);
        assert!(matches!(sim.state("s"), State::Backoff { until_ms, .. } if until_ms - sim.now.wall_ms <= 30_000));
        sim.pass(Duration::from_secs(30));
    }
    sim.started("s");
    sim.pass(Duration::from_secs(10));
    sim.exited("s", 0);
    assert!(matches!(sim.state("s"), State::Backoff { failures: 1, .. }));
}

#[test]
fn policies() {
    let end = |policy, code| {
        let mut s = spec("s", "1", &[]);
        s.restart.policy = policy;
        let mut sim = Sim::new(vec![s]);
        sim.started("s");
        sim.exited("s", code);
        sim.state("s").word()
    };
    assert_eq!([end(Policy::No, 0), end(Policy::No, 1)], ["exited", "exited"]);
    assert_eq!([end(Policy::OnFailure, 0), end(Policy::OnFailure, 1)], ["exited", "backoff"]);
    assert_eq!([end(Policy::Always, 0), end(Policy::Always, 1)], ["backoff", "backoff"]);
    assert_eq!([end(Policy::UnlessStopped, 0), end(Policy::UnlessStopped, 1)], ["backoff", "backoff"]);
}

#[test]
fn not_ready_in_time_is_stopped_and_says_what_it_waited_for() {
    let mut s = spec("s", "1", &[]);
    s.ready = Some(Readiness::new(Probe::Tcp { address: "127.0.0.1:5432".parse().expect("address") }));
    let mut sim = Sim::new(vec![s, spec("web", "1", &["s"])]);
    sim.started("s");
    sim.tell("s", |run| Event::ProbeSaw(run, "connection refused".to_owned()));
    sim.pass(Duration::from_secs(60));
    sim.check_log("start s, probe s, signal 15 s");
    sim.exited("s", 0);
    let reason = "not ready after 60 s: waited for a connection to 127.0.0.1:5432; last: connection refused";
    assert_eq!(sim.state("s"), State::Failed { reason: reason.to_owned() });
    assert!(matches!(sim.state("web"), State::Waiting { blocked: Some(b), .. } if b == format!("needs `s`: {reason}")));
    assert_eq!(sim.fleet.progress("web", Goal::Up), Progress::Lost);
    // It comes to life later, by a start of its own: so does what waited.
    let effects = sim.fleet.start(sim.now, &["s".to_owned()]);
    sim.take(effects);
    sim.started("s");
    sim.tell("s", Event::Probed);
    sim.check_log("start s, probe s, start web");
}

#[test]
fn a_need_that_ran_to_its_end_is_met_and_not_run_again() {
    let mut web = spec("web", "1", &[]);
    web.needs = vec![Need { name: "migrate".to_owned(), condition: Condition::Completed }];
    let services = vec![spec("migrate", "1", &[]), web];
    let mut sim = Sim::new(services.clone());
    sim.started("migrate");
    assert_eq!(sim.words(), "migrate=ready web=waiting");
    sim.exited("migrate", 0);
    sim.check_log("start migrate, start web");
    sim.started("web");
    sim.apply(services);
    sim.check_log("");
    assert_eq!(sim.words(), "migrate=exited web=ready");
    // Restarting what needs it does not run it either.
    let effects = sim.fleet.restart(sim.now, &["web".to_owned()]);
    sim.take(effects);
    sim.exited("web", 0);
    sim.check_log("signal 15 web, start web");
}

#[test]
fn setup_runs_before_the_start_and_its_failure_is_final() {
    let with_setup = || {
        let mut s = spec("s", "1", &[]);
        let unit = serde_json::Value::Null;
        s.setup = Some(Setup { unit, marker: "/x".into(), timeout: Duration::from_secs(5) });
        Sim::new(vec![s])
    };
    let mut sim = with_setup();
    sim.check_log("setup s");
    sim.tell("s", Event::SetupStarted);
    assert_eq!(sim.words(), "s=setup");
    sim.tell("s", |run| Event::SetupDone(run, Ok(())));
    sim.check_log("start s");
    assert_eq!(sim.words(), "s=starting");

    let mut done_before = with_setup();
    done_before.tell("s", |run| Event::SetupDone(run, Ok(())));
    done_before.check_log("setup s, start s");

    let mut bad = with_setup();
    bad.tell("s", Event::SetupStarted);
    bad.tell("s", |run| Event::SetupDone(run, Err("exited with code 1".to_owned())));
    assert_eq!(bad.state("s"), State::Failed { reason: "setup exited with code 1".to_owned() });

    let mut slow = with_setup();
    slow.tell("s", Event::SetupStarted);
    slow.pass(Duration::from_secs(5));
    slow.check_log("setup s, signal 15 s");
    slow.tell("s", |run| Event::SetupDone(run, Err("was killed by signal 15".to_owned())));
    assert_eq!(slow.state("s"), State::Failed { reason: "setup took longer than 5 s".to_owned() });
}

#[test]
fn what_never_started_is_not_tried_again() {
    let mut sim = Sim::new(vec![spec("s", "1", &[])]);
    sim.tell("s", |run| Event::Unit(run, UnitEvent::Failed { message: "no such file".to_owned() }));
    assert_eq!(sim.state("s"), State::Failed { reason: "no such file".to_owned() });
    assert!(sim.timers.is_empty());
}

#[test]
fn a_stop_while_starting_is_kept_in_mind() {
    let mut sim = Sim::new(vec![spec("s", "1", &[])]);
    let effects = sim.fleet.stop(sim.now, &["s".to_owned()], Some(Duration::ZERO), "by `stop`");
    sim.take(effects);
    sim.started("s");
    assert_eq!(sim.words(), "s=stopping");
    sim.pass(Duration::ZERO);
    sim.check_log("start s, kill s");
    sim.pass(Duration::from_secs(10));
    assert_eq!(sim.state("s"), State::Failed { reason: "still there 10 s after it was killed".to_owned() });
}

#[test]
fn patience_can_only_get_shorter() {
    let mut sim = Sim::new(vec![spec("s", "1", &[])]);
    sim.started("s");
    for grace in [5, 60, 1] {
        let effects = sim.fleet.stop(sim.now, &["s".to_owned()], Some(Duration::from_secs(grace)), "by `stop`");
        sim.take(effects);
    }
    sim.check_log("start s, signal 15 s");
    sim.pass(Duration::from_millis(999));
    sim.check_log("");
    sim.pass(Duration::from_millis(1));
    sim.check_log("kill s");
}

#[test]
fn late_news_of_an_earlier_run_are_dropped() {
    let mut sim = Sim::new(vec![spec("s", "1", &[])]);
    let first = sim.fleet.get("s").expect("s").run;
    sim.started("s");
    sim.exited("s", 1);
    sim.pass(Duration::from_secs(1));
    sim.started("s");
    for event in [
        Event::Unit(first, UnitEvent::Exited { code: Some(0), signal: None, oom: false }),
        Event::Unit(first, UnitEvent::Failed { message: String::new() }),
        Event::Probed(first),
        Event::Due(first, Timer::Ready),
    ] {
        assert_eq!(sim.fleet.handle(sim.now, "s", event), []);
    }
    assert_eq!(sim.words(), "s=ready");
}

#[test]
fn the_plan_tells_what_apply_does() {
    let mut sim = Sim::new(vec![
        spec("keep", "1", &[]),
        spec("change", "1", &[]),
        spec("gone", "1", &[]),
        spec("soft", "1", &[]),
    ]);
    for name in ["keep", "change", "gone", "soft"] {
        sim.started(name);
    }
    let mut soft = spec("soft", "1", &[]);
    soft.stop_grace = Duration::from_secs(1);
    let services = vec![spec("keep", "1", &[]), spec("change", "2", &[]), soft, spec("new", "1", &[])];
    let project = Project { name: "p".to_owned(), services, known: Vec::new() };
    let words = |plan: Plan| plan.changes.iter().map(|c| format!("{} {:?}\n", c.service, c.change)).collect::<String>();
    check(
        &words(sim.fleet.plan(&project, true)),
        expect![[r#"
        change Restart
        gone Remove
        keep Keep
        new Start
        soft Update
    "#]],
    );
    assert!(words(sim.fleet.plan(&project, false)).contains("gone Orphan"));
}

/// Every event in every state: which states follow. The table is the specification.
#[test]
fn every_event_in_every_state() {
    let now = Now { mono: Duration::from_secs(1000), wall_ms: 0 };
    let mut s = spec("s", "1", &[]);
    s.ready = Some(Readiness::new(Probe::Notify));
    s.restart.policy = Policy::OnFailure;
    let exit = |code| UnitEvent::Exited { code: Some(code), signal: None, oom: false };
    let states = [
        State::Waiting { on: Vec::new(), blocked: None },
        State::Setup,
        State::Starting,
        State::Running,
        State::Ready,
        State::Stopping,
        State::Stopped,
        State::Exited(Exit { code: Some(0), signal: None, oom: false }),
        State::Failed { reason: String::new() },
        State::Backoff { reason: String::new(), failures: 1, until_ms: 0 },
    ];
    type Made = Box<dyn Fn() -> Event>;
    let events: Vec<(&str, Made)> = vec![
        ("start", Box::new(|| Event::Start(String::new()))),
        ("needs-met", Box::new(|| Event::NeedsMet)),
        ("stop", Box::new(|| Event::Stop { grace: Duration::from_secs(1), why: String::new() })),
        ("setup-started", Box::new(|| Event::SetupStarted(0))),
        ("setup-ok", Box::new(|| Event::SetupDone(0, Ok(())))),
        ("setup-bad", Box::new(|| Event::SetupDone(0, Err(String::new())))),
        ("started", Box::new(|| Event::Unit(0, UnitEvent::Started { pid: 1 }))),
        ("notified", Box::new(|| Event::Unit(0, UnitEvent::Ready))),
        ("unit-failed", Box::new(|| Event::Unit(0, UnitEvent::Failed { message: String::new() }))),
        ("exit-0", Box::new(move || Event::Unit(0, exit(0)))),
        ("exit-1", Box::new(move || Event::Unit(0, exit(1)))),
        ("probed", Box::new(|| Event::Probed(0))),
        ("due-setup", Box::new(|| Event::Due(0, Timer::Setup))),
        ("due-ready", Box::new(|| Event::Due(0, Timer::Ready))),
        ("due-kill", Box::new(|| Event::Due(0, Timer::Kill))),
        ("due-dead", Box::new(|| Event::Due(0, Timer::Dead))),
        ("due-backoff", Box::new(|| Event::Due(0, Timer::Backoff))),
    ];
    let mut table = String::new();
    for state in &states {
        let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, event) in &events {
            let mut service = Service::new(s.clone(), now, 1);
            service.state = state.clone();
            service.expire();
            service.pid = state.is_active().then_some(1);
            let effects = service.handle(now, event());
            let changed = effects.iter().any(|e| matches!(e, Effect::Changed(s, _) if *s == service.state));
            assert_eq!(changed, service.state != *state, "{name} in {state:?} must tell of its change");
            assert!(service.pid.is_none() || service.state.is_active(), "{name} in {state:?} leaves a pid");
            if changed {
                edges.entry(service.state.word()).or_default().push(name);
            }
        }
        for (to, names) in edges {
            table.push_str(&format!("{} -> {to}: {}\n", state.word(), names.join(" ")));
        }
    }
    check(
        &table,
        expect![[r#"
        waiting -> starting: needs-met
        waiting -> stopped: stop
        setup -> backoff: exit-1
        setup -> exited: exit-0
        setup -> failed: setup-bad unit-failed
        setup -> starting: setup-ok
        setup -> stopping: stop due-setup
        starting -> backoff: exit-1
        starting -> exited: exit-0
        starting -> failed: setup-bad unit-failed
        starting -> running: started
        starting -> setup: setup-started
        starting -> stopping: stop
        running -> backoff: exit-1
        running -> exited: exit-0
        running -> failed: unit-failed
        running -> ready: notified probed
        running -> stopping: stop due-ready
        ready -> backoff: exit-1
        ready -> exited: exit-0
        ready -> failed: unit-failed
        ready -> stopping: stop
        stopping -> failed: due-dead
        stopping -> stopped: setup-ok setup-bad unit-failed exit-0 exit-1
        stopped -> waiting: start
        exited -> stopped: stop
        exited -> waiting: start
        failed -> stopped: stop
        failed -> waiting: start
        backoff -> stopped: stop
        backoff -> waiting: start due-backoff
    "#]],
    );
}
