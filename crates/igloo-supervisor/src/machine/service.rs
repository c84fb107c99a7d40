//! The life of one service.
//!
//! ```text
//! Stopped -> Waiting -> Starting (-> Setup -> Starting) -> Running -> Ready
//!               ^                                             |         |
//!               +----------------- Backoff <------------------+---------+--> Exited | Failed
//! any of them but the ends -> Stopping -> Stopped (asked to) | Failed (not ready in time)
//! ```

use std::time::Duration;

use super::{Effect, Event, Now, Run, Timer};
use crate::spec::{OnUnhealthy, Policy, Probe, ServiceSpec};
use crate::unit::{Exit, Notice, UnitEvent};
use crate::wire::State;

/// How long the kernel may take to end what was killed.
const DEAD: Duration = Duration::from_secs(10);

/// What a service is said to do between RELOADING=1 and READY=1.
const RELOADING: &str = "reloading";

/// Where [`State::Stopping`] leads.
#[derive(Debug, Clone, PartialEq)]
enum After {
    Stopped,
    Failed(String),
    /// Started again.
    Again(String),
}

/// One service and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) state: State,
    pub(crate) run: Run,
    pub(crate) since_ms: u64,
    pub(crate) pid: Option<u32>,
    pub(crate) started_ms: Option<u64>,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<Exit>,
    pub(crate) last_exit_ms: Option<u64>,
    after: After,
    /// When the present state's timer is due; earlier or older timers are ignored.
    due: Option<Duration>,
    pub(crate) ready_at: Option<Duration>,
    /// Ends in a row without a healthy period.
    failures: u32,
    /// It was killed and did not end: the one failure that asking for a stop does not settle.
    pub(crate) undead: bool,
    /// It told that it is ready before it told that it has started.
    early: bool,
    /// What the probe saw last.
    saw: Option<String>,
    /// Failed looks at its health in a row, and why the last one did once they are too many.
    sick: u32,
    pub(crate) unhealthy: Option<String>,
    /// Frozen on request.
    pub(crate) paused: bool,
    /// What it says of itself.
    pub(crate) says: Option<String>,
    /// When it last said that it is well.
    fed: Duration,
    /// Told with the next change of state.
    why: Option<String>,
    began: Duration,
    random: u64,
}

impl Service {
    pub(crate) fn new(spec: ServiceSpec, now: Now, seed: u64) -> Self {
        Self {
            spec,
            state: State::Stopped,
            run: 0,
            since_ms: now.wall_ms,
            pid: None,
            started_ms: None,
            ready_ms: None,
            restarts: 0,
            last_exit: None,
            last_exit_ms: None,
            after: After::Stopped,
            due: None,
            ready_at: None,
            failures: 0,
            undead: false,
            early: false,
            saw: None,
            sick: 0,
            unhealthy: None,
            paused: false,
            says: None,
            fed: Duration::ZERO,
            why: None,
            began: Duration::ZERO,
            random: seed,
        }
    }

    /// Makes whatever timer there may be due.
    #[cfg(test)]
    pub(crate) fn expire(&mut self) {
        self.due = Some(Duration::ZERO);
    }

    /// Takes one event.
    pub(crate) fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        match event {
            Event::Start(why) => match self.state {
                State::Stopped | State::Exited(_) | State::Failed { .. } | State::Backoff { .. } => {
                    self.failures = 0;
                    self.why = Some(why);
                    self.enter(now, State::Waiting { on: Vec::new(), blocked: None })
                }
                _ => Vec::new(),
            },
            Event::Needs { on, blocked } => match self.state {
                State::Waiting { .. } => self.enter(now, State::Waiting { on, blocked }),
                _ => Vec::new(),
            },
            Event::NeedsMet => match self.state {
                State::Waiting { .. } if self.spec.setup.is_some() => {
                    self.run += 1;
                    let mut effects = self.enter(now, State::Starting);
                    effects.push(Effect::Setup(self.run));
                    effects
                }
                State::Waiting { .. } => self.start(now),
                _ => Vec::new(),
            },
            Event::Stop { grace, why } => self.stop(now, grace, why),
            Event::Pause(on) => self.pause(now, on),
            Event::Told(what) => vec![Effect::Note(what)],
            Event::Health(run, look) if run == self.run => self.health(now, look),
            Event::SetupStarted(run) if run == self.run => self.setup_started(now),
            Event::SetupDone(run, result) if run == self.run => self.setup_done(now, result),
            Event::Unit(run, event) if run == self.run => self.unit(now, event),
            Event::Probed(run) if run == self.run => match self.state {
                State::Starting => {
                    self.early = true;
                    Vec::new()
                }
                State::Running => self.ready(now),
                // Said once more, after it has reloaded.
                State::Ready if self.says.as_deref() == Some(RELOADING) => {
                    self.says = None;
                    vec![Effect::Note("has reloaded".to_owned())]
                }
                _ => Vec::new(),
            },
            Event::ProbeSaw(run, what) if run == self.run => {
                self.saw = Some(what);
                Vec::new()
            }
            Event::Due(run, timer) if run == self.run && self.due.is_some_and(|due| due <= now.mono) => {
                self.due(now, timer)
            }
            // News of an earlier run.
            _ => Vec::new(),
        }
    }

    fn enter(&mut self, now: Now, state: State) -> Vec<Effect> {
        if self.state == state {
            return Vec::new();
        }
        if !matches!((&self.state, &state), (State::Waiting { .. }, State::Waiting { .. })) {
            self.since_ms = now.wall_ms;
        }
        self.due = None;
        self.state = state;
        if !matches!(self.state, State::Ready) {
            self.ready_ms = None;
        }
        if !self.state.is_active() {
            self.pid = None;
            self.started_ms = None;
        }
        if !matches!(self.state, State::Ready) {
            self.unhealthy = None;
            self.sick = 0;
        }
        if !matches!(self.state, State::Running | State::Ready) {
            self.paused = false;
        }
        vec![Effect::Changed(self.state.clone(), self.why.take())]
    }

    fn timer(&mut self, timer: Timer, at: Duration) -> Effect {
        self.due = Some(at);
        Effect::Timer(self.run, timer, at)
    }

    fn start(&mut self, now: Now) -> Vec<Effect> {
        self.run += 1;
        self.early = false;
        self.undead = false;
        self.saw = None;
        self.ready_at = None;
        self.says = None;
        let mut effects = self.enter(now, State::Starting);
        effects.push(Effect::Start(self.run));
        effects
    }

    fn setup_started(&mut self, now: Now) -> Vec<Effect> {
        if self.state != State::Starting {
            return Vec::new();
        }
        let mut effects = self.enter(now, State::Setup);
        if let Some(setup) = &self.spec.setup {
            let at = now.mono + setup.timeout;
            effects.push(self.timer(Timer::Setup, at));
        }
        effects
    }

    fn setup_done(&mut self, now: Now, result: Result<(), String>) -> Vec<Effect> {
        match (&self.state, result) {
            (State::Setup | State::Starting, Ok(())) => self.start(now),
            (State::Setup | State::Starting, Err(reason)) => {
                self.enter(now, State::Failed { reason: format!("setup {reason}") })
            }
            (State::Stopping, _) => self.stopped(now),
            _ => Vec::new(),
        }
    }

    fn unit(&mut self, now: Now, event: UnitEvent) -> Vec<Effect> {
        match event {
            UnitEvent::Started { pid } => {
                if self.state.is_active() {
                    self.pid = Some(pid);
                    self.started_ms = Some(now.wall_ms);
                    self.began = now.mono;
                }
                match (&self.state, &self.spec.ready) {
                    (State::Starting, Some(readiness)) if !self.early => {
                        let at = now.mono + readiness.timeout;
                        let mut effects = self.enter(now, State::Running);
                        effects.push(Effect::Probe(self.run));
                        effects.push(self.timer(Timer::Ready, at));
                        effects
                    }
                    (State::Starting, None) if self.spec.once => self.enter(now, State::Running),
                    (State::Starting, _) => self.ready(now),
                    _ => Vec::new(),
                }
            }
            UnitEvent::Notice(notice) => self.notice(now, notice),
            UnitEvent::Ready => match self.spec.ready {
                Some(crate::spec::Readiness { probe: Probe::Notify, .. }) => self.handle(now, Event::Probed(self.run)),
                // A word that nobody waits for may still say that reloading is over.
                _ if self.says.as_deref() == Some(RELOADING) => self.handle(now, Event::Probed(self.run)),
                _ => Vec::new(),
            },
            UnitEvent::Failed { message } => match self.state {
                State::Stopping => self.stopped(now),
                // What could never be started won't be better for trying again; what ran before may.
                _ if self.state.is_active() && self.failures == 0 => self.enter(now, State::Failed { reason: message }),
                _ if self.state.is_active() => self.again(now, message),
                _ => Vec::new(),
            },
            UnitEvent::Exited { code, signal, oom } => {
                let exit = Exit { code, signal, oom };
                self.last_exit = Some(exit);
                self.undead = false;
                self.last_exit_ms = Some(now.wall_ms);
                match self.state {
                    State::Stopping => self.stopped(now),
                    _ if self.state.is_active() => {
                        self.why = Some(exit.to_string());
                        self.ended(now, exit)
                    }
                    _ => Vec::new(),
                }
            }
        }
    }

    fn ready(&mut self, now: Now) -> Vec<Effect> {
        if let Some(readiness) = &self.spec.ready {
            let took = words(now.mono.saturating_sub(self.began));
            self.why = Some(format!("{} after {took}", came_true(&readiness.probe)));
        }
        let mut effects = self.enter(now, State::Ready);
        self.ready_ms = Some(now.wall_ms);
        self.ready_at = Some(now.mono);
        self.fed = now.mono;
        if let Some(health) = &self.spec.health {
            let (notify, interval) = (health.probe == Probe::Notify, health.interval);
            match notify {
                true => effects.push(self.timer(Timer::Watchdog, now.mono + interval)),
                false => effects.push(Effect::Watch),
            }
        }
        effects
    }

    fn notice(&mut self, now: Now, notice: Notice) -> Vec<Effect> {
        match notice {
            Notice::Status(text) => {
                if self.state == State::Running {
                    self.saw = Some(format!("it says: {text}"));
                }
                self.says = Some(text);
                Vec::new()
            }
            Notice::Watchdog => {
                self.fed = now.mono;
                self.health(now, Ok(()))
            }
            Notice::Reloading => {
                self.says = Some(RELOADING.to_owned());
                vec![Effect::Note("reloads".to_owned())]
            }
            Notice::Stopping => vec![Effect::Note("says that it is about to end".to_owned())],
        }
    }

    fn health(&mut self, now: Now, look: Result<(), String>) -> Vec<Effect> {
        let (State::Ready, false, Some(health)) = (&self.state, self.paused, &self.spec.health) else {
            return Vec::new();
        };
        let Err(why) = look else {
            self.sick = 0;
            return match self.unhealthy.take() {
                Some(_) => vec![Effect::Note("is well again".to_owned())],
                None => Vec::new(),
            };
        };
        self.sick = self.sick.saturating_add(1);
        let told = self.unhealthy.is_some();
        if self.sick < health.retries.max(1) {
            return Vec::new();
        }
        let times = if self.sick > 1 { format!(", {} times in a row", self.sick) } else { String::new() };
        let reason = format!("unhealthy: {why}{times}");
        match health.on_unhealthy {
            OnUnhealthy::Ignore => {
                self.unhealthy = Some(why);
                if told { Vec::new() } else { vec![Effect::Note(reason)] }
            }
            OnUnhealthy::Stop => self.end(now, self.spec.stop_grace, After::Failed(reason)),
            OnUnhealthy::Restart => self.end(now, self.spec.stop_grace, After::Again(reason)),
        }
    }

    fn pause(&mut self, now: Now, on: bool) -> Vec<Effect> {
        if !matches!(self.state, State::Running | State::Ready) || self.paused == on {
            return Vec::new();
        }
        self.paused = on;
        // The time that it was frozen is nobody's fault.
        self.fed = now.mono;
        self.sick = 0;
        let told = if on { "was paused" } else { "goes on" };
        vec![Effect::Note(told.to_owned())]
    }

    fn ended(&mut self, now: Now, exit: Exit) -> Vec<Effect> {
        self.forgive(now);
        let again = match self.spec.restart.policy {
            Policy::No => false,
            Policy::OnFailure => !exit.is_success(),
            Policy::Always | Policy::UnlessStopped => true,
        };
        if again {
            return self.again(now, exit.to_string());
        }
        let mut effects = self.enter(now, State::Exited(exit));
        if let Some(every) = self.spec.every_ms {
            effects.push(self.timer(Timer::Next, now.mono + Duration::from_millis(every)));
        }
        effects
    }

    fn forgive(&mut self, now: Now) {
        if self.ready_at.is_some_and(|at| now.mono.saturating_sub(at) >= self.spec.restart.backoff.healthy) {
            self.failures = 0;
        }
    }

    fn again(&mut self, now: Now, reason: String) -> Vec<Effect> {
        self.failures = self.failures.saturating_add(1);
        if self.spec.restart.tries.is_some_and(|tries| self.failures >= tries) {
            let reason = match self.failures {
                1 => reason,
                n => format!("{reason}, {n} times in a row"),
            };
            return self.enter(now, State::Failed { reason });
        }
        let pause = self.backoff();
        let until_ms = now.wall_ms + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 2);
        let mut effects = self.enter(now, State::Backoff { reason, failures: self.failures, until_ms });
        effects.push(self.timer(Timer::Backoff, now.mono + pause));
        effects
    }

    /// The wait before the next start: doubled with each failure, capped, up to a quarter less at random so that
    /// services that fell together don't get up together.
    fn backoff(&mut self) -> Duration {
        let backoff = &self.spec.restart.backoff;
        let factor = 1u32 << self.failures.saturating_sub(1).min(20);
        let full = backoff.initial.saturating_mul(factor).min(backoff.max);
        // xorshift64: it need not be better than this.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(1.0 - (self.random % 1000) as f64 / 4000.0)
    }

    fn stop(&mut self, now: Now, grace: Duration, why: String) -> Vec<Effect> {
        match self.state {
            State::Stopped => Vec::new(),
            _ if self.undead => Vec::new(),
            State::Stopping => {
                self.after = After::Stopped;
                // Only ever sooner: a second request may lose patience, not gain it.
                let at = now.mono + grace;
                match self.due {
                    Some(due) if due <= at => Vec::new(),
                    _ => vec![self.timer(Timer::Kill, at)],
                }
            }
            _ => {
                self.why = Some(why);
                match self.state.is_active() {
                    true => self.end(now, grace, After::Stopped),
                    false => self.enter(now, State::Stopped),
                }
            }
        }
    }

    fn end(&mut self, now: Now, grace: Duration, after: After) -> Vec<Effect> {
        if let After::Failed(why) | After::Again(why) = &after {
            self.why = Some(why.clone());
        }
        self.after = after;
        let paused = self.paused;
        let mut effects = self.enter(now, State::Stopping);
        if !grace.is_zero() {
            effects.push(Effect::Signal(self.run, self.spec.stop_signal));
        }
        if paused {
            // What is frozen can't end when asked to.
            effects.push(Effect::Pause(self.run, false));
        }
        effects.push(self.timer(Timer::Kill, now.mono + grace));
        effects
    }

    fn stopped(&mut self, now: Now) -> Vec<Effect> {
        match std::mem::replace(&mut self.after, After::Stopped) {
            After::Stopped => self.enter(now, State::Stopped),
            After::Failed(reason) => self.enter(now, State::Failed { reason }),
            After::Again(reason) => {
                self.forgive(now);
                self.again(now, reason)
            }
        }
    }

    fn due(&mut self, now: Now, timer: Timer) -> Vec<Effect> {
        match (timer, &self.state) {
            (Timer::Setup, State::Setup) => {
                let limit = self.spec.setup.as_ref().map_or(Duration::ZERO, |s| s.timeout);
                self.end(now, self.spec.stop_grace, After::Failed(format!("setup took longer than {}", words(limit))))
            }
            (Timer::Ready, State::Running) if self.paused => {
                let patience = self.spec.ready.as_ref().map_or(Duration::ZERO, |r| r.timeout);
                vec![self.timer(Timer::Ready, now.mono + patience.max(Duration::from_secs(1)))]
            }
            (Timer::Watchdog, State::Ready) => {
                let Some(interval) = self.spec.health.as_ref().map(|h| h.interval) else { return Vec::new() };
                let due = if self.paused { now.mono + interval } else { self.fed + interval };
                if due > now.mono {
                    return vec![self.timer(Timer::Watchdog, due)];
                }
                let mut effects = self.health(now, Err(format!("no word from it (WATCHDOG=1) in {}", words(interval))));
                if self.state == State::Ready {
                    effects.push(self.timer(Timer::Watchdog, now.mono + interval));
                }
                effects
            }
            (Timer::Ready, State::Running) => {
                let reason = self.not_ready();
                self.end(now, self.spec.stop_grace, After::Failed(reason))
            }
            (Timer::Kill, State::Stopping) => {
                vec![Effect::Kill(self.run), self.timer(Timer::Dead, now.mono + DEAD)]
            }
            (Timer::Dead, State::Stopping) => {
                self.undead = true;
                let reason = format!("still there {} after it was killed", words(DEAD));
                self.enter(now, State::Failed { reason })
            }
            (Timer::Next, State::Exited(_)) => {
                self.why = Some("it is time again".to_owned());
                self.enter(now, State::Waiting { on: Vec::new(), blocked: None })
            }
            (Timer::Backoff, State::Backoff { .. }) => {
                self.restarts = self.restarts.saturating_add(1);
                self.why = Some(format!("started again, the {} time", ordinal(self.restarts)));
                self.enter(now, State::Waiting { on: Vec::new(), blocked: None })
            }
            _ => Vec::new(),
        }
    }

    fn not_ready(&self) -> String {
        let Some(readiness) = &self.spec.ready else { return "not ready".to_owned() };
        let what = match &readiness.probe {
            Probe::Tcp { address } => format!("waited for a connection to {address}"),
            Probe::Http { path, address, .. } => format!("waited for a good answer from http://{address}{path}"),
            Probe::Exec { args } => format!("waited for `{}` to succeed", args.join(" ")),
            Probe::Notify => "waited for its own message (sd_notify)".to_owned(),
            Probe::Log { pattern } => format!("waited for a line that matches `{pattern}`"),
        };
        let saw = self.saw.as_ref().map(|s| format!("; last: {s}")).unwrap_or_default();
        format!("not ready after {}: {what}{saw}", words(readiness.timeout))
    }
}

/// What a probe has seen when it is satisfied.
fn came_true(probe: &Probe) -> String {
    match probe {
        Probe::Tcp { address } => format!("accepts connections on {address}"),
        Probe::Http { path, address, .. } => format!("gives a good answer from http://{address}{path}"),
        Probe::Exec { args } => format!("`{}` succeeds", args.join(" ")),
        Probe::Notify => "says so (sd_notify)".to_owned(),
        Probe::Log { pattern } => format!("wrote a line that matches `{pattern}`"),
    }
}

/// `1st`, `2nd`, `11th`.
fn ordinal(n: u32) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// `10 s`, `250 ms`, `1.5 s`.
fn words(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{:.1} s", ms as f64 / 1000.0),
    }
}
