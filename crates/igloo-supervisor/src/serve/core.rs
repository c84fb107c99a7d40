//! The one place where things are decided and kept: takes messages, asks the machine, carries out its effects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use igloo_base::file::{create_dirs, write_atomic};
use tokio::sync::{broadcast, mpsc};

use super::live::{Live, Order};
use super::requests::Waiter;
use super::{MakeUnit, Message, Sender, probe};
use crate::journal::Journal;
use crate::logs::{Sink, pump};
use crate::machine::fleet::{Effects, Fleet, Goal, Progress};
use crate::machine::{Effect, Event, Now, Run, Timer};
use crate::ports::{Memory, publish};
use crate::spec::{Condition, Probe};
use crate::unit::{Exit, UnitEvent};
use crate::wire::{PortStatus, ServiceEvent, ServiceStatus, State};

/// Events that a slow client may be behind; what is older it misses.
const BACKLOG: usize = 4096;

/// How long the end of a service waits for the end of its output. What it wrote is read by then, unless something
/// else still holds its pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A service that shows in no way that it is ready must have run so long before anybody is told that it is up: what ends
/// at once was not. What needs it is started without this pause.
const SETTLING: Duration = Duration::from_millis(100);

/// Something that is due at a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Service(String, Run, Timer),
    Waiter(u64),
    /// Something that is waited for may be true by now.
    Look,
}

pub(super) struct Core {
    pub(super) sender: Sender,
    make_unit: Arc<MakeUnit>,
    log_dir: PathBuf,
    pub(super) fleet: Fleet,
    pub(super) live: BTreeMap<String, Live>,
    queue: VecDeque<(String, Event)>,
    pub(super) alarms: BinaryHeap<Reverse<(Duration, Alarm)>>,
    pub(super) waiters: BTreeMap<u64, Waiter>,
    pub(super) next_waiter: u64,
    events: broadcast::Sender<Arc<ServiceEvent>>,
    seq: u64,
    journal: Journal,
    memory: Memory,
    pub(super) name: String,
    began: Instant,
    pub(super) since_ms: u64,
    /// Everything is being stopped, and then it is over.
    pub(super) closing: bool,
}

impl Core {
    pub(super) fn new(sender: Sender, make_unit: MakeUnit, log_dir: &Path, state_dir: &Path) -> Self {
        let since_ms = crate::time::now_ms();
        Self {
            sender,
            make_unit: Arc::new(make_unit),
            log_dir: log_dir.to_owned(),
            fleet: Fleet::new(since_ms ^ u64::from(std::process::id()) << 32),
            live: BTreeMap::new(),
            queue: VecDeque::new(),
            alarms: BinaryHeap::new(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
            events: broadcast::channel(BACKLOG).0,
            seq: 0,
            journal: Journal::open(state_dir),
            memory: Memory::load(state_dir),
            name: String::new(),
            began: Instant::now(),
            since_ms,
            closing: false,
        }
    }

    /// The stream of events, for those who want to follow it.
    pub(super) fn events(&self) -> broadcast::WeakSender<Arc<ServiceEvent>> {
        self.events.downgrade()
    }

    /// Runs until all is stopped.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            while let Some((service, event)) = self.queue.pop_front() {
                let effects = self.fleet.handle(self.now(), &service, event);
                self.carry_out(effects);
            }
            self.settle_waiters();
            if self.closing && self.is_down() {
                return;
            }
            let wake = self.alarms.peek().map(|Reverse((at, _))| self.began + *at);
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = sleep => self.ring(),
            }
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.began.elapsed(), wall_ms: crate::time::now_ms() }
    }

    fn ring(&mut self) {
        let now = self.now().mono;
        while self.alarms.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            match self.alarms.pop() {
                Some(Reverse((_, Alarm::Service(service, run, timer)))) => {
                    self.queue.push_back((service, Event::Due(run, timer)));
                }
                Some(Reverse((_, Alarm::Waiter(id)))) => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        self.answer(waiter, true);
                    }
                }
                Some(Reverse((_, Alarm::Look))) | None => {}
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(service, event) => self.queue.push_back((service, event)),
            Message::Unit { service, run, setup, event } => self.unit(service, run, setup, event),
            Message::Handle(service, run, running) => {
                let Some(live) = self.live.get_mut(&service).filter(|live| live.run == run) else { return };
                live.take(Arc::clone(&running), &service, &self.sender);
                live.upstream.send_replace(Some(running));
                self.start_probe(&service);
                self.start_watch(&service);
            }
            Message::Note(service, text) => {
                if let Some(state) = self.fleet.get(&service).map(|s| s.state.clone()) {
                    self.publish(&service, state, Some(text), true);
                }
            }
            Message::Request(request, reply) => self.request(request, reply),
            Message::Terminate => {
                // Who asks twice is in a hurry.
                let grace = self.closing.then_some(Duration::ZERO);
                self.close(grace, "the supervisor got SIGTERM");
            }
        }
    }

    fn unit(&mut self, service: String, run: Run, setup: bool, event: UnitEvent) {
        let Some(live) = self.live.get_mut(&service).filter(|live| live.run == run) else { return };
        let ended = matches!(event, UnitEvent::Exited { .. } | UnitEvent::Failed { .. });
        if ended {
            live.end();
        }
        let marker = self.fleet.get(&service).and_then(|s| s.spec.setup.as_ref()).map(|s| s.marker.clone());
        let event = match (setup, event) {
            (false, event) => Event::Unit(run, event),
            (true, UnitEvent::Started { .. } | UnitEvent::Ready | UnitEvent::Notice(_)) => return,
            (true, UnitEvent::Failed { message }) => Event::SetupDone(run, Err(format!("could not start: {message}"))),
            (true, UnitEvent::Exited { code: Some(0), signal: None, .. }) => Event::SetupDone(run, Ok(())),
            (true, UnitEvent::Exited { code, signal, oom }) => {
                Event::SetupDone(run, Err(Exit { code, signal, oom }.to_string()))
            }
        };
        if !ended {
            return self.queue.push_back((service, event));
        }
        // What it wrote last belongs to the story of its end.
        let (logged, sender) = (live.logged.take(), self.sender.clone());
        tokio::spawn(async move {
            if let Some(logged) = logged {
                let _ = tokio::time::timeout(LAST_WORDS, logged).await;
            }
            let event = match (event, marker) {
                (Event::SetupDone(run, Ok(())), Some(marker)) => {
                    let written = tokio::task::spawn_blocking(move || mark(&marker)).await;
                    Event::SetupDone(run, written.unwrap_or_else(|_| Err("could not be marked as done".to_owned())))
                }
                (event, _) => event,
            };
            let _ = sender.send(Message::Event(service, event));
        });
    }

    pub(super) fn carry_out(&mut self, effects: Effects) {
        for (service, effect) in effects {
            match effect {
                Effect::Setup(run) => self.setup(&service, run),
                Effect::Start(run) => self.start(&service, run),
                Effect::Probe(_) => self.start_probe(&service),
                Effect::Watch => self.start_watch(&service),
                Effect::Pause(_, on) => self.order(&service, Order::Pause(on)),
                Effect::Note(text) => {
                    if let Some(state) = self.fleet.get(&service).map(|s| s.state.clone()) {
                        self.publish(&service, state, Some(text), true);
                    }
                }
                Effect::Signal(_, signal) => self.order(&service, Order::Signal(signal)),
                Effect::Kill(_) => self.order(&service, Order::Kill),
                Effect::Timer(run, timer, at) => {
                    self.alarms.push(Reverse((at, Alarm::Service(service, run, timer))));
                }
                Effect::Changed(state, why) => {
                    if let Some(live) = self.live.get_mut(&service)
                        && state != State::Running
                    {
                        live.stop_probe();
                    }
                    if state == State::Ready {
                        self.alarms.push(Reverse((self.now().mono + SETTLING, Alarm::Look)));
                    }
                    self.publish(&service, state, why, false);
                }
                Effect::ReleasePorts => {
                    if let Some(live) = self.live.get_mut(&service) {
                        live.ports.clear();
                    }
                }
                Effect::Forget => {
                    self.live.remove(&service);
                }
            }
        }
    }

    fn order(&mut self, service: &str, order: Order) {
        if let Some(live) = self.live.get_mut(service) {
            live.order(order, service, &self.sender);
        }
    }

    fn setup(&mut self, service: &str, run: Run) {
        let Some(setup) = self.fleet.get(service).and_then(|s| s.spec.setup.clone()) else { return };
        if setup.marker.exists() {
            self.queue.push_back((service.to_owned(), Event::SetupDone(run, Ok(()))));
            return;
        }
        self.queue.push_back((service.to_owned(), Event::SetupStarted(run)));
        self.launch(service, run, true, setup.unit);
    }

    fn start(&mut self, service: &str, run: Run) {
        let Some(spec) = self.fleet.get(service).map(|s| s.spec.clone()) else { return };
        let live = self.live.entry(service.to_owned());
        let live = live.or_insert_with(|| Live::new(Sink::new(&self.log_dir, service, spec.log.clone())));
        live.sink.set_limits(spec.log.clone());
        live.ports.retain(|bound| spec.ports.contains(&bound.spec));
        for port in &spec.ports {
            if live.ports.iter().any(|bound| bound.spec == *port) {
                continue;
            }
            match publish(service, port, &mut self.memory, live.upstream.subscribe()) {
                Ok(bound) => live.ports.push(bound),
                Err(message) => {
                    let failed = Event::Unit(run, UnitEvent::Failed { message });
                    return self.queue.push_back((service.to_owned(), failed));
                }
            }
        }
        self.launch(service, run, false, spec.unit);
    }

    /// Starts a unit on a thread of its own.
    fn launch(&mut self, service: &str, run: Run, setup: bool, payload: serde_json::Value) {
        let Some(spec) = self.fleet.get(service).map(|s| &s.spec) else { return };
        let live = self.live.entry(service.to_owned());
        let live = live.or_insert_with(|| Live::new(Sink::new(&self.log_dir, service, spec.log.clone())));
        live.begin(run);
        let (sender, name) = (self.sender.clone(), service.to_owned());
        let tell = move |event| drop(sender.send(Message::Unit { service: name.clone(), run, setup, event }));
        let io = match pump(Arc::clone(&live.sink)) {
            Ok(pump) => {
                live.logged = Some(pump.done);
                pump.io
            }
            Err(e) => return tell(UnitEvent::Failed { message: format!("cannot make the pipes of its log: {e}") }),
        };
        if let Some(Probe::Log { pattern }) = spec.ready.as_ref().map(|r| &r.probe).filter(|_| !setup)
            && let Ok(pattern) = regex::bytes::Regex::new(pattern)
        {
            let (sender, name) = (self.sender.clone(), service.to_owned());
            let matched = move || drop(sender.send(Message::Event(name, Event::Probed(run))));
            live.sink.watch(pattern, Box::new(matched));
        }
        let (make_unit, sender, name) = (Arc::clone(&self.make_unit), self.sender.clone(), service.to_owned());
        tokio::task::spawn_blocking(move || {
            let on_event = Box::new(tell.clone());
            match make_unit(&payload).and_then(|unit| unit.start(io, on_event)) {
                Ok(running) => drop(sender.send(Message::Handle(name, run, running))),
                Err(error) => tell(UnitEvent::Failed { message: error.chain() }),
            }
        });
    }

    /// Begins to look whether a service is ready, once it runs and there is a handle to look through.
    fn start_probe(&mut self, service: &str) {
        let Some(known) = self.fleet.get(service).filter(|s| s.state == State::Running) else { return };
        let Some(readiness) = known.spec.ready.clone() else { return };
        let Some(live) = self.live.get_mut(service) else { return };
        if let (Some(running), None, false) =
            (&live.running, &live.probe, matches!(readiness.probe, Probe::Notify | Probe::Log { .. }))
        {
            let watch =
                probe::watch(service.to_owned(), known.run, readiness, Arc::clone(running), self.sender.clone());
            live.probe = Some(tokio::spawn(watch).abort_handle());
        }
    }

    /// Begins to look after the health of a service that is ready.
    fn start_watch(&mut self, service: &str) {
        let Some(known) = self.fleet.get(service).filter(|s| s.state == State::Ready) else { return };
        let Some(health) = known.spec.health.clone() else { return };
        let Some(live) = self.live.get_mut(service) else { return };
        if let (Some(running), None) = (&live.running, &live.probe) {
            let watch = probe::care(service.to_owned(), known.run, health, Arc::clone(running), self.sender.clone());
            live.probe = Some(tokio::spawn(watch).abort_handle());
        }
    }

    /// Tells an event to everybody; a note is about a state that did not change.
    fn publish(&mut self, service: &str, state: State, message: Option<String>, note: bool) {
        self.seq = self.journal.next();
        let ended = matches!(state, State::Exited(_) | State::Failed { .. } | State::Backoff { .. } | State::Stopped);
        let failed = state.problem().is_some();
        let event = ServiceEvent {
            seq: self.seq,
            time_ms: crate::time::now_ms(),
            service: service.to_owned(),
            state,
            note,
            message,
            pid: self.fleet.get(service).and_then(|s| s.pid),
            exit: self.fleet.get(service).and_then(|s| s.last_exit).filter(|_| ended && !note),
            tail: self.live.get(service).filter(|_| failed).map(|l| l.sink.tail()).unwrap_or_default(),
        };
        self.journal.append(&event);
        // Nobody listening is fine.
        let _ = self.events.send(Arc::new(event));
    }

    pub(super) fn ports(&self, service: &str) -> Vec<PortStatus> {
        let Some(known) = self.fleet.get(service) else { return Vec::new() };
        let bound = self.live.get(service).map(|l| l.ports.as_slice()).unwrap_or_default();
        let status = |port: &crate::spec::PublishedPort| {
            let at = bound.iter().find(|b| b.spec == *port).map(|b| b.host);
            let expected = if port.port == 0 { self.memory.get(service, port).unwrap_or(0) } else { port.port };
            PortStatus {
                service: service.to_owned(),
                protocol: port.protocol,
                host: at.unwrap_or_else(|| (port.address, expected).into()),
                container: (port.target, port.container_port).into(),
                bound: at.is_some(),
            }
        };
        known.spec.ports.iter().map(status).collect()
    }

    pub(super) fn status(&self, service: &str) -> Option<ServiceStatus> {
        let known = self.fleet.get(service)?;
        let problem = known.state.problem();
        let sink = self.live.get(service).map(|l| &l.sink);
        Some(ServiceStatus {
            name: service.to_owned(),
            digest: known.spec.digest,
            state: known.state.clone(),
            since_ms: known.since_ms,
            pid: known.pid,
            started_ms: known.started_ms,
            ready_ms: known.ready_ms,
            restarts: known.restarts,
            last_exit: known.last_exit,
            last_exit_ms: known.last_exit_ms,
            tail: sink.filter(|_| problem.is_some()).map(|s| s.tail()).unwrap_or_default(),
            problem,
            unhealthy: known.unhealthy.clone(),
            paused: known.paused,
            says: known.says.clone(),
            ports: self.ports(service),
            log_dropped: sink.map_or(0, |s| s.dropped()),
        })
    }

    pub(super) fn close(&mut self, grace: Option<Duration>, why: &str) {
        self.closing = true;
        let all: Vec<String> = self.fleet.names().cloned().collect();
        let effects = self.fleet.stop(self.now(), &all, grace, why);
        self.carry_out(effects);
    }

    /// How far a service is on the way to `goal`, for those who wait for it.
    pub(super) fn progress(&self, name: &str, goal: Goal) -> Progress {
        let progress = self.fleet.progress(name, goal);
        let unproved = |s: &crate::machine::service::Service| {
            let young = s.ready_at.is_some_and(|at| at + SETTLING > self.now().mono);
            s.state == State::Ready && s.spec.ready.is_none() && young
        };
        match progress {
            Progress::Reached if goal == Goal::Up && self.fleet.get(name).is_some_and(unproved) => Progress::Pending,
            progress => progress,
        }
    }

    fn is_down(&self) -> bool {
        self.queue.is_empty()
            && self
                .fleet
                .names()
                .all(|n| self.fleet.progress(n, Goal::Condition(Condition::Stopped)) == Progress::Reached)
    }
}

/// Tells the future that a setup step is done.
fn mark(marker: &Path) -> Result<(), String> {
    let written = match marker.parent() {
        Some(parent) => create_dirs(parent).and_then(|()| write_atomic(marker, b"")),
        None => write_atomic(marker, b""),
    };
    written.map_err(|e| format!("is done, but that cannot be remembered: {e}: {}", e.source))
}
