//! What clients ask for, and when they are answered.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::core::{Alarm, Core};
use super::{Message, Sender};
use crate::machine::Event;
use crate::machine::fleet::{Goal, Progress};
use crate::spec::{Condition, Reload};
use crate::unit::Running;
use crate::wire::{ProjectStatus, Reply, Request, Settled, State, duration};

/// SIGKILL.
const KILL: i32 = 9;

/// A year.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A command that makes a service reload has this long.
const RELOAD: Duration = Duration::from_secs(60);

/// A service that runs.
type Handle = (String, Arc<dyn Running>);

/// A service, and what is done to it.
type Ordered = (String, Arc<dyn Running>, Act);

/// What may block, and is done elsewhere.
enum Act {
    Pause(bool),
    Reload(Reload),
}

/// A client that waits.
pub(super) struct Waiter {
    services: Vec<String>,
    goal: Goal,
    /// What is being removed must be gone, too.
    gone: bool,
    reply: oneshot::Sender<Reply>,
}

/// How a request is answered.
enum Answer {
    Now(Reply),
    /// When the services are there, or can't get there.
    When(Wait),
}

/// What is waited for; see [`Waiter`].
struct Wait {
    services: Vec<String>,
    goal: Goal,
    gone: bool,
    timeout: Option<Duration>,
}

impl Answer {
    /// When services are up; at once if that isn't asked for.
    fn up(services: Vec<String>, wait: bool) -> Self {
        let timeout = (!wait).then_some(Duration::ZERO);
        Self::When(Wait { services, goal: Goal::Up, gone: false, timeout })
    }

    /// When services are down.
    fn down(services: Vec<String>) -> Self {
        Self::When(Wait { services, goal: Goal::Condition(Condition::Stopped), gone: false, timeout: None })
    }
}

impl Core {
    /// The services that a request means; none named means all.
    fn meant(&self, names: Vec<String>) -> Result<Vec<String>, String> {
        if names.is_empty() {
            return Ok(self.fleet.names().cloned().collect());
        }
        match names.iter().find(|name| self.fleet.get(name).is_none()) {
            Some(unknown) => Err(format!("there is no service `{unknown}` here")),
            None => Ok(names),
        }
    }

    /// The services that a request means and that run; none named means all that do.
    fn running(&self, names: Vec<String>) -> Result<Vec<Handle>, String> {
        let named = !names.is_empty();
        let mut found = Vec::new();
        for name in self.meant(names)? {
            match self.live.get(&name).and_then(|l| l.running.clone()) {
                Some(running) => found.push((name, running)),
                None if named => return Err(format!("service `{name}` does not run")),
                None => {}
            }
        }
        Ok(found)
    }

    /// What a request to pause or reload means for each service.
    fn orders(&self, names: Vec<String>, request: &Request) -> Result<Vec<Ordered>, String> {
        let mut orders = Vec::new();
        for (name, running) in self.running(names)? {
            let Some(known) = self.fleet.get(&name) else { continue };
            let act = match request {
                Request::Pause { on, .. } if !matches!(known.state, State::Running | State::Ready) => {
                    let verb = if *on { "paused" } else { "let go on" };
                    return Err(format!("service `{name}` is {} and can't be {verb}", known.state.word()));
                }
                Request::Pause { on, .. } => Act::Pause(*on),
                _ => match &known.spec.reload {
                    Some(reload) => Act::Reload(reload.clone()),
                    None => {
                        let help = "say how, with `reload = \"SIGHUP\"` or `reload = [\"nginx\", \"-s\", \"reload\"]`";
                        return Err(format!("service `{name}` does not say how it reloads: {help}"));
                    }
                },
            };
            orders.push((name, running, act));
        }
        Ok(orders)
    }

    pub(super) fn request(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        // A client that is gone needs no answer.
        if let Request::Pause { services, .. } | Request::Reload { services } = &request {
            match self.orders(services.clone(), &request) {
                Ok(orders) => give_all(orders, self.sender.clone(), reply),
                Err(message) => drop(reply.send(Reply::Error { message })),
            }
            return;
        }
        match self.serve(request) {
            Ok(Answer::Now(answer)) => drop(reply.send(answer)),
            Ok(Answer::When(wait)) => self.wait(wait, reply),
            Err(message) => drop(reply.send(Reply::Error { message })),
        }
    }

    fn serve(&mut self, request: Request) -> Result<Answer, String> {
        let now = self.now();
        let starts = matches!(request, Request::Apply { .. } | Request::Start { .. } | Request::Restart { .. });
        if self.closing && starts {
            return Err("the project is being stopped".to_owned());
        }
        match request {
            Request::Apply { project, remove_orphans, wait, timeout_ms } => {
                project.check().map_err(|e| e.to_string())?;
                self.name.clone_from(&project.name);
                let effects = self.fleet.apply(now, &project, remove_orphans);
                self.carry_out(effects);
                let services = project.services.into_iter().map(|s| s.name).collect();
                let timeout = if wait { duration(timeout_ms) } else { Some(Duration::ZERO) };
                Ok(Answer::When(Wait { services, goal: Goal::Up, gone: true, timeout }))
            }
            Request::Plan { project, remove_orphans } => {
                project.check().map_err(|e| e.to_string())?;
                Ok(Answer::Now(Reply::Plan(self.fleet.plan(&project, remove_orphans))))
            }
            Request::Down { grace_ms } => {
                self.close(duration(grace_ms), "asked for by `down`");
                let services = self.fleet.names().cloned().collect();
                Ok(Answer::down(services))
            }
            Request::Stop { services, grace_ms } => {
                let services = self.meant(services)?;
                let effects = self.fleet.stop(now, &services, duration(grace_ms), "asked for by `stop`");
                self.carry_out(effects);
                Ok(Answer::down(services))
            }
            Request::Start { services, wait } => {
                let services = self.meant(services)?;
                let effects = self.fleet.start(now, &services);
                self.carry_out(effects);
                Ok(Answer::up(services, wait))
            }
            Request::Restart { services, wait } => {
                let services = self.meant(services)?;
                let effects = self.fleet.restart(now, &services);
                self.carry_out(effects);
                Ok(Answer::up(services, wait))
            }
            Request::Status => {
                let services = self.fleet.names().filter_map(|name| self.status(name)).collect();
                let (name, pid) = (self.name.clone(), std::process::id());
                Ok(Answer::Now(Reply::Status(ProjectStatus { name, pid, since_ms: self.since_ms, services })))
            }
            Request::Wait { services, condition, timeout_ms } => {
                let services = self.meant(services)?;
                let timeout = duration(timeout_ms);
                Ok(Answer::When(Wait { services, goal: Goal::Condition(condition), gone: false, timeout }))
            }
            Request::Signal { services, signal } => {
                let services: Vec<String> = self.running(services)?.into_iter().map(|(name, _)| name).collect();
                let why = format!("asked for by `kill` (signal {signal})");
                let ends =
                    |s: &&String| signal == KILL || self.fleet.get(s).is_some_and(|s| s.spec.stop_signal == signal);
                let (end, rest): (Vec<_>, Vec<_>) = services.into_iter().partition(|s| ends(&s));
                for service in rest {
                    let Some(running) = self.live.get(&service).and_then(|l| l.running.clone()) else { continue };
                    running.signal(signal).map_err(|e| format!("cannot send signal {signal} to `{service}`: {e}"))?;
                    let event = Event::Told(format!("got signal {signal}, {why}"));
                    let effects = self.fleet.handle(now, &service, event);
                    self.carry_out(effects);
                }
                // Nobody asked for more than one signal: it has all the time that it needs.
                let grace = if signal == KILL { Duration::ZERO } else { FOR_EVER };
                let effects = self.fleet.stop(now, &end, Some(grace), &why);
                self.carry_out(effects);
                match signal {
                    KILL => Ok(Answer::down(end)),
                    _ => Ok(Answer::Now(Reply::Done)),
                }
            }
            Request::Unit { service } => match self.fleet.get(&service) {
                Some(known) => Ok(Answer::Now(Reply::Unit(known.spec.unit.clone()))),
                None => Err(format!("there is no service `{service}` here")),
            },
            // Served before.
            Request::Pause { .. } | Request::Reload { .. } => Ok(Answer::Now(Reply::Done)),
            Request::Ports => Ok(Answer::Now(Reply::Ports(self.fleet.names().flat_map(|n| self.ports(n)).collect()))),
            // Served by the connection itself.
            Request::Subscribe => Ok(Answer::Now(Reply::Done)),
        }
    }

    fn wait(&mut self, wait: Wait, reply: oneshot::Sender<Reply>) {
        let id = self.next_waiter;
        self.next_waiter += 1;
        let waiter = Waiter { services: wait.services, goal: wait.goal, gone: wait.gone, reply };
        match wait.timeout {
            // Not waiting at all is no running out of time.
            Some(Duration::ZERO) => return self.answer(waiter, false),
            Some(timeout) => self.alarms.push(Reverse((self.now().mono + timeout, Alarm::Waiter(id)))),
            None => {}
        }
        self.waiters.insert(id, waiter);
    }

    pub(super) fn settle_waiters(&mut self) {
        let settled: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, w)| {
                let there = || w.services.iter().all(|s| self.progress(s, w.goal) != Progress::Pending);
                w.reply.is_closed() || (there() && !(w.gone && self.fleet.is_removing()))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in settled {
            if let Some(waiter) = self.waiters.remove(&id) {
                self.answer(waiter, false);
            }
        }
    }

    pub(super) fn answer(&self, waiter: Waiter, timed_out: bool) {
        let status = |name: &String| {
            let mut status = self.status(name)?;
            match self.progress(name, waiter.goal) {
                // A process that can't be killed is a problem even for who wants it stopped.
                Progress::Reached if self.fleet.get(name).is_some_and(|s| s.undead) => {}
                Progress::Reached => status.problem = None,
                Progress::Lost => {
                    status.problem.get_or_insert_with(|| format!("is {}", status.state.word()));
                }
                Progress::Pending if timed_out => {
                    status.problem.get_or_insert_with(|| format!("is still {}", status.state.word()));
                }
                Progress::Pending => {}
            }
            Some(status)
        };
        let services = waiter.services.iter().filter_map(status).collect();
        let _ = waiter.reply.send(Reply::Settled(Settled { services, timed_out }));
    }
}

/// Carries out what may block, then answers.
fn give_all(orders: Vec<Ordered>, sender: Sender, reply: oneshot::Sender<Reply>) {
    tokio::task::spawn_blocking(move || {
        let mut failed = Vec::new();
        for (service, running, act) in orders {
            let (done, event) = match &act {
                Act::Pause(on) => (running.pause(*on).map_err(|e| e.to_string()), Event::Pause(*on)),
                Act::Reload(Reload::Signal(signal)) => {
                    let told = Event::Told(format!("asked to reload (signal {signal})"));
                    (running.signal(*signal).map_err(|e| e.to_string()), told)
                }
                Act::Reload(Reload::Exec(args)) => {
                    let told = Event::Told(format!("asked to reload (`{}`)", args.join(" ")));
                    let done = match running.exec(args, RELOAD) {
                        Ok(result) if result.code == 0 => Ok(()),
                        Ok(result) => Err(format!("`{}` gave {}: {}", args.join(" "), result.code, result.output)),
                        Err(e) => Err(e.to_string()),
                    };
                    (done, told)
                }
            };
            match done {
                Ok(()) => drop(sender.send(Message::Event(service, event))),
                Err(why) => failed.push(format!("`{service}`: {why}")),
            }
        }
        let answer = match failed.is_empty() {
            true => Reply::Done,
            false => Reply::Error { message: failed.join("; ") },
        };
        let _ = reply.send(answer);
    });
}
