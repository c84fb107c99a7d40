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
use crate::spec::{Policy, Probe, ServiceSpec};
use crate::unit::{Exit, UnitEvent};
use crate::wire::State;

/// How long the kernel may take to end what was killed.
const DEAD: Duration = Duration::from_secs(10);

/// Where [`State::Stopping`] leads.
#[derive(Debug, Clone, PartialEq)]
enum After {
    Stopped,
    Failed(String),
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
    ready_at: Option<Duration>,
    /// Ends in a row without a healthy period.
    failures: u32,
    /// It was killed and did not end: the one failure that asking for a stop does not settle.
    pub(crate) undead: bool,
    /// It told that it is ready before it told that it has started.
    early: bool,
    /// What the probe saw last.
    saw: Option<String>,
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
            Event::Start => match self.state {
                State::Stopped | State::Exited(_) | State::Failed { .. } | State::Backoff { .. } => {
                    self.failures = 0;
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
            Event::Stop { grace } => self.stop(now, grace),
            Event::SetupStarted(run) if run == self.run => self.setup_started(now),
            Event::SetupDone(run, result) if run == self.run => self.setup_done(now, result),
            Event::Unit(run, event) if run == self.run => self.unit(now, event),
            Event::Probed(run) if run == self.run => match self.state {
                State::Starting => {
                    self.early = true;
                    Vec::new()
                }
                State::Running => self.ready(now),
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
        vec![Effect::Changed(self.state.clone())]
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
                }
                match (&self.state, &self.spec.ready) {
                    (State::Starting, Some(readiness)) if !self.early => {
                        let at = now.mono + readiness.timeout;
                        let mut effects = self.enter(now, State::Running);
                        effects.push(Effect::Probe(self.run));
                        effects.push(self.timer(Timer::Ready, at));
                        effects
                    }
                    (State::Starting, _) => self.ready(now),
                    _ => Vec::new(),
                }
            }
            UnitEvent::Ready => match self.spec.ready {
                Some(crate::spec::Readiness { probe: Probe::Notify, .. }) => self.handle(now, Event::Probed(self.run)),
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
                    _ if self.state.is_active() => self.ended(now, exit),
                    _ => Vec::new(),
                }
            }
        }
    }

    fn ready(&mut self, now: Now) -> Vec<Effect> {
        let effects = self.enter(now, State::Ready);
        self.ready_ms = Some(now.wall_ms);
        self.ready_at = Some(now.mono);
        effects
    }

    fn ended(&mut self, now: Now, exit: Exit) -> Vec<Effect> {
        if self.ready_at.is_some_and(|at| now.mono.saturating_sub(at) >= self.spec.restart.backoff.healthy) {
            self.failures = 0;
        }
        let again = match self.spec.restart.policy {
            Policy::No => false,
            Policy::OnFailure => !exit.is_success(),
            Policy::Always | Policy::UnlessStopped => true,
        };
        if again { self.again(now, exit.to_string()) } else { self.enter(now, State::Exited(exit)) }
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
        let pause = self.pause();
        let until_ms = now.wall_ms + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 2);
        let mut effects = self.enter(now, State::Backoff { reason, failures: self.failures, until_ms });
        effects.push(self.timer(Timer::Backoff, now.mono + pause));
        effects
    }

    /// The wait before the next start: doubled with each failure, capped, up to a quarter less at random so that
    /// services that fell together don't get up together.
    fn pause(&mut self) -> Duration {
        let backoff = &self.spec.restart.backoff;
        let factor = 1u32 << self.failures.saturating_sub(1).min(20);
        let full = backoff.initial.saturating_mul(factor).min(backoff.max);
        // xorshift64: it need not be better than this.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(1.0 - (self.random % 1000) as f64 / 4000.0)
    }

    fn stop(&mut self, now: Now, grace: Duration) -> Vec<Effect> {
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
            _ if self.state.is_active() => self.end(now, grace, After::Stopped),
            _ => self.enter(now, State::Stopped),
        }
    }

    fn end(&mut self, now: Now, grace: Duration, after: After) -> Vec<Effect> {
        self.after = after;
        let mut effects = self.enter(now, State::Stopping);
        if !grace.is_zero() {
            effects.push(Effect::Signal(self.run, self.spec.stop_signal));
        }
        effects.push(self.timer(Timer::Kill, now.mono + grace));
        effects
    }

    fn stopped(&mut self, now: Now) -> Vec<Effect> {
        match std::mem::replace(&mut self.after, After::Stopped) {
            After::Stopped => self.enter(now, State::Stopped),
            After::Failed(reason) => self.enter(now, State::Failed { reason }),
        }
    }

    fn due(&mut self, now: Now, timer: Timer) -> Vec<Effect> {
        match (timer, &self.state) {
            (Timer::Setup, State::Setup) => {
                let limit = self.spec.setup.as_ref().map_or(Duration::ZERO, |s| s.timeout);
                self.end(now, self.spec.stop_grace, After::Failed(format!("setup took longer than {}", words(limit))))
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
            (Timer::Backoff, State::Backoff { .. }) => {
                self.restarts = self.restarts.saturating_add(1);
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

/// `10 s`, `250 ms`, `1.5 s`.
fn words(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{:.1} s", ms as f64 / 1000.0),
    }
}
