//! All services of a project: what is wanted of each, in which order it comes true, and whether it has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::service::Service;
use super::{Effect, Event, Now};
use crate::spec::{Condition, Project, ServiceSpec};
use crate::wire::{Change, Plan, PlannedChange, State};

/// A crash loop counts as a failure from this many ends in a row on, though it is still tried.
const LOOPING: u32 = 3;

/// A service and what is wanted of it.
#[derive(Debug)]
struct Entry {
    service: Service,
    /// It shall run.
    up: bool,
    /// It must end first, then start anew, as `next` if that is set.
    cycle: bool,
    next: Option<ServiceSpec>,
    /// It shall end and be forgotten.
    remove: bool,
    /// Replaces its own grace.
    grace: Option<Duration>,
    /// Its ports may be bound.
    ports: bool,
    /// Who wants it to end, or to start anew.
    why: String,
}

impl Entry {
    fn goes_down(&self) -> bool {
        !self.up || self.cycle || self.remove
    }
}

/// Whether a service has got somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Reached,
    Pending,
    /// As things are, it won't.
    Lost,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Ready, or ended well.
    Up,
    /// As said.
    Condition(Condition),
}

/// What is to be done, and for whom.
pub(crate) type Effects = Vec<(String, Effect)>;

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    entries: BTreeMap<String, Entry>,
    seed: u64,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        Self { entries: BTreeMap::new(), seed }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Service> {
        self.entries.get(name).map(|e| &e.service)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    /// What [`Fleet::apply`] would do.
    pub(crate) fn plan(&self, project: &Project, remove_orphans: bool) -> Plan {
        let mut changes = Vec::new();
        for spec in &project.services {
            changes.push(PlannedChange { service: spec.name.clone(), change: self.change(spec, project) });
        }
        let wanted: BTreeSet<&String> = project.services.iter().map(|s| &s.name).collect();
        for name in self.entries.keys().filter(|name| !wanted.contains(name)) {
            let gone = remove_orphans && !project.known.contains(name);
            let change = if gone { Change::Remove } else { Change::Orphan };
            changes.push(PlannedChange { service: name.clone(), change });
        }
        changes.sort_by(|a, b| a.service.cmp(&b.service));
        Plan { changes }
    }

    fn change(&self, spec: &ServiceSpec, project: &Project) -> Change {
        let Some(entry) = self.entries.get(&spec.name) else { return Change::Start };
        let service = &entry.service;
        // A need that was met by running to its end is not run again.
        let completed = || {
            let of_it = |n: &crate::spec::Need| n.name == spec.name && n.condition == Condition::Completed;
            project.services.iter().any(|s| s.needs.iter().any(of_it))
        };
        let same = service.spec.digest == spec.digest;
        match &service.state {
            State::Exited(exit) if same && exit.is_success() && (spec.once || completed()) => {}
            State::Stopped | State::Exited(_) | State::Failed { .. } | State::Backoff { .. } => return Change::Start,
            State::Stopping => return Change::Restart,
            State::Waiting { .. } if !same => return Change::Start,
            _ if !same => return Change::Restart,
            _ => {}
        }
        if service.spec == *spec { Change::Keep } else { Change::Update }
    }

    /// Makes `project` what is wanted.
    pub(crate) fn apply(&mut self, now: Now, project: &Project, remove_orphans: bool) -> Effects {
        let plan = self.plan(project, remove_orphans);
        let mut effects = Effects::new();
        for PlannedChange { service, change } in plan.changes {
            match change {
                Change::Remove => {
                    if let Some(entry) = self.entries.get_mut(&service) {
                        entry.why = "it is no longer declared".to_owned();
                        entry.remove = true;
                    }
                    continue;
                }
                Change::Orphan => continue,
                _ => {}
            }
            let Some(spec) = project.services.iter().find(|s| s.name == service) else { continue };
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let seed = self.seed | 1;
            let entry = self.entries.entry(service.clone()).or_insert_with(|| Entry {
                service: Service::new(spec.clone(), now, seed),
                up: true,
                cycle: false,
                next: None,
                remove: false,
                grace: None,
                ports: false,
                why: String::new(),
            });
            (entry.up, entry.remove, entry.grace) = (true, false, None);
            match change {
                Change::Restart => {
                    entry.cycle = true;
                    entry.why = "what it runs changed".to_owned();
                    entry.next = Some(spec.clone());
                }
                // Also calls off a restart that has not begun.
                Change::Keep | Change::Update => {
                    (entry.cycle, entry.next) = (false, None);
                    entry.service.spec = spec.clone();
                }
                _ => {
                    (entry.cycle, entry.next) = (false, None);
                    entry.service.spec = spec.clone();
                    let started = entry.service.handle(now, Event::Start("asked for by `up`".to_owned()));
                    effects.extend(started.into_iter().map(|e| (service.clone(), e)));
                }
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Starts services and what they need.
    pub(crate) fn start(&mut self, now: Now, names: &[String]) -> Effects {
        let mut effects = Effects::new();
        let mut queue: Vec<String> = names.to_vec();
        let mut seen = BTreeSet::new();
        while let Some(name) = queue.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let named = names.contains(&name);
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            queue.extend(entry.service.spec.needs.iter().map(|n| n.name.clone()));
            let ended_well = matches!(entry.service.state, State::Exited(exit) if exit.is_success());
            (entry.up, entry.grace) = (true, None);
            if named || !ended_well {
                let why = if named { "asked for by `start`" } else { "needed by what `start` asked for" };
                let started = entry.service.handle(now, Event::Start(why.to_owned()));
                effects.extend(started.into_iter().map(|e| (name.clone(), e)));
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Stops services.
    pub(crate) fn stop(&mut self, now: Now, names: &[String], grace: Option<Duration>, why: &str) -> Effects {
        let mut effects = Effects::new();
        for name in names {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            (entry.up, entry.cycle, entry.grace) = (false, false, grace);
            entry.why = why.to_owned();
            if let Some(next) = entry.next.take_if(|_| !entry.service.state.is_active()) {
                entry.service.spec = next;
            }
            // Those that end already are told of a shorter grace.
            if let (State::Stopping, Some(grace)) = (&entry.service.state, grace) {
                let told = entry.service.handle(now, Event::Stop { grace, why: why.to_owned() });
                effects.extend(told.into_iter().map(|e| (name.clone(), e)));
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Stops services and starts them anew.
    pub(crate) fn restart(&mut self, now: Now, names: &[String]) -> Effects {
        let mut effects = Effects::new();
        for name in names {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            (entry.up, entry.grace) = (true, None);
            entry.why = "asked for by `restart`".to_owned();
            if entry.service.state.is_active() {
                entry.cycle = true;
            } else {
                let started = entry.service.handle(now, Event::Start(entry.why.clone()));
                effects.extend(started.into_iter().map(|e| (name.clone(), e)));
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Takes one event of one service.
    pub(crate) fn handle(&mut self, now: Now, name: &str, event: Event) -> Effects {
        let Some(entry) = self.entries.get_mut(name) else { return Effects::new() };
        let mut effects: Effects = entry.service.handle(now, event).into_iter().map(|e| (name.to_owned(), e)).collect();
        self.settle(now, &mut effects);
        effects
    }

    /// Takes every step that is possible now.
    fn settle(&mut self, now: Now, effects: &mut Effects) {
        let names: Vec<String> = self.entries.keys().cloned().collect();
        loop {
            let before = effects.len();
            for name in &names {
                self.settle_one(now, name, effects);
            }
            if effects.len() == before {
                return;
            }
        }
    }

    fn settle_one(&mut self, now: Now, name: &str, effects: &mut Effects) {
        let Some(entry) = self.entries.get(name) else { return };
        let event = if entry.goes_down() {
            if entry.service.state.is_active() {
                let stopping = entry.service.state == State::Stopping;
                if stopping || self.is_needed_still(name) {
                    return;
                }
                let grace = entry.grace.unwrap_or(entry.service.spec.stop_grace);
                Event::Stop { grace, why: entry.why.clone() }
            } else {
                return self.landed(now, name, effects);
            }
        } else {
            match &entry.service.state {
                State::Waiting { .. } => self.needs(&entry.service.spec),
                State::Stopped => Event::Start("it shall run".to_owned()),
                _ => return,
            }
        };
        self.tell(now, name, event, effects);
    }

    fn tell(&mut self, now: Now, name: &str, event: Event, effects: &mut Effects) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let told = entry.service.handle(now, event);
        entry.ports |= told.iter().any(|e| matches!(e, Effect::Start(_)));
        effects.extend(told.into_iter().map(|e| (name.to_owned(), e)));
    }

    /// A service that was to end has ended.
    fn landed(&mut self, now: Now, name: &str, effects: &mut Effects) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.remove {
            let why = entry.why.clone();
            let told = entry.service.handle(now, Event::Stop { grace: Duration::ZERO, why });
            effects.extend(told.into_iter().map(|e| (name.to_owned(), e)));
            effects.push((name.to_owned(), Effect::ReleasePorts));
            effects.push((name.to_owned(), Effect::Forget));
            self.entries.remove(name);
        } else if entry.cycle && entry.up && !entry.service.undead {
            entry.cycle = false;
            if let Some(next) = entry.next.take() {
                entry.service.spec = next;
            }
            let why = entry.why.clone();
            self.tell(now, name, Event::Start(why), effects);
        } else {
            entry.cycle = false;
            if let Some(next) = entry.next.take() {
                entry.service.spec = next;
            }
            let release = std::mem::take(&mut entry.ports);
            let why = entry.why.clone();
            self.tell(now, name, Event::Stop { grace: Duration::ZERO, why }, effects);
            if release {
                effects.push((name.to_owned(), Effect::ReleasePorts));
            }
        }
    }

    /// True while something runs that needs `name` and is about to end too.
    fn is_needed_still(&self, name: &str) -> bool {
        self.entries.values().any(|other| {
            other.goes_down()
                && other.service.state.is_active()
                && other.service.spec.needs.iter().any(|n| n.name == name)
        })
    }

    fn needs(&self, spec: &ServiceSpec) -> Event {
        let mut on = Vec::new();
        let mut blocked = None;
        for need in &spec.needs {
            let name = &need.name;
            let Some(entry) = self.entries.get(name) else {
                on.push(name.clone());
                blocked.get_or_insert(format!("needs `{name}`, which is not in the project"));
                continue;
            };
            match self.progress(name, Goal::Condition(need.condition)) {
                Progress::Reached => continue,
                Progress::Pending => {}
                Progress::Lost => {
                    let why = match entry.service.state.problem() {
                        Some(problem) => format!("needs `{name}`: {problem}"),
                        None if !entry.up => format!("needs `{name}`, which is stopped"),
                        None => format!("needs `{name}`, which is {}", entry.service.state.word()),
                    };
                    blocked.get_or_insert(why);
                }
            }
            on.push(name.clone());
        }
        if on.is_empty() { Event::NeedsMet } else { Event::Needs { on, blocked } }
    }

    /// True while something that is to be forgotten is still there.
    pub(crate) fn is_removing(&self) -> bool {
        self.entries.values().any(|e| e.remove)
    }

    /// How far `name` is on the way to `goal`.
    pub(crate) fn progress(&self, name: &str, goal: Goal) -> Progress {
        use Progress::{Lost, Pending, Reached};
        let Some(entry) = self.entries.get(name) else {
            return if goal == Goal::Condition(Condition::Stopped) { Reached } else { Lost };
        };
        let state = &entry.service.state;
        let condition = match goal {
            Goal::Up => Condition::Ready,
            Goal::Condition(condition) => condition,
        };
        if condition == Condition::Stopped {
            return match state {
                _ if entry.cycle => Pending,
                State::Stopped | State::Exited(_) | State::Failed { .. } => Reached,
                _ => Pending,
            };
        }
        if entry.cycle {
            return Pending;
        }
        if entry.goes_down() {
            return Lost;
        }
        match state {
            State::Exited(exit) => {
                if exit.is_success() {
                    Reached
                } else {
                    Lost
                }
            }
            State::Failed { .. } => Lost,
            State::Waiting { blocked: Some(_), .. } => Lost,
            State::Backoff { failures, .. } if *failures >= LOOPING => Lost,
            State::Running if condition == Condition::Started => Reached,
            State::Ready if condition != Condition::Completed => Reached,
            _ => Pending,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
