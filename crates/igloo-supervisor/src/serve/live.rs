//! What really runs for one service: handle, log, ports, probe.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::{Message, Sender};
use crate::logs::Sink;
use crate::machine::Run;
use crate::ports::Published;
use crate::unit::Running;

/// Something a unit is told as soon as it can be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Signal(i32),
    Kill,
    Pause(bool),
}

pub(super) struct Live {
    pub(super) run: Run,
    pub(super) running: Option<Arc<dyn Running>>,
    /// For a unit that is still being started.
    orders: Vec<Order>,
    pub(super) probe: Option<AbortHandle>,
    /// What published ports lead to.
    pub(super) upstream: watch::Sender<Option<Arc<dyn Running>>>,
    pub(super) ports: Vec<Published>,
    pub(super) sink: Arc<Sink>,
    /// Resolves when everything the present run wrote is in the log.
    pub(super) logged: Option<oneshot::Receiver<()>>,
}

impl Live {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            run: 0,
            running: None,
            orders: Vec::new(),
            probe: None,
            upstream: watch::channel(None).0,
            ports: Vec::new(),
            sink: Arc::new(sink),
            logged: None,
        }
    }

    /// Makes ready for a new run.
    pub(super) fn begin(&mut self, run: Run) {
        self.end();
        self.run = run;
        self.orders.clear();
        self.sink.fresh();
    }

    /// Lets go of what ran.
    pub(super) fn end(&mut self) {
        self.stop_probe();
        self.running = None;
        self.upstream.send_replace(None);
    }

    pub(super) fn stop_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    /// Takes the handle of a unit that was started, and gives it the orders that came before it.
    pub(super) fn take(&mut self, running: Arc<dyn Running>, service: &str, sender: &Sender) {
        for order in std::mem::take(&mut self.orders) {
            give(order, &running, service, sender);
        }
        self.running = Some(running);
    }

    pub(super) fn order(&mut self, order: Order, service: &str, sender: &Sender) {
        match &self.running {
            Some(running) => give(order, running, service, sender),
            None => self.orders.push(order),
        }
    }
}

fn give(order: Order, running: &Arc<dyn Running>, service: &str, sender: &Sender) {
    let (running, service, sender) = (Arc::clone(running), service.to_owned(), sender.clone());
    tokio::task::spawn_blocking(move || {
        let (result, act) = match order {
            Order::Signal(signal) => (running.signal(signal), format!("send signal {signal} to")),
            Order::Kill => (running.kill(), "kill".to_owned()),
            Order::Pause(on) => (running.pause(on), if on { "freeze" } else { "let go on" }.to_owned()),
        };
        // Who has just ended can't be told anything and needn't.
        const ESRCH: i32 = 3;
        if let Err(error) = result.or_else(|e| if e.raw_os_error() == Some(ESRCH) { Ok(()) } else { Err(e) }) {
            let _ = sender.send(Message::Note(service.clone(), format!("cannot {act} `{service}`: {error}")));
        }
    });
}
