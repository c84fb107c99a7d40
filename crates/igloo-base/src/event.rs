//! What long work tells about itself. Rooms send [`Event`]s to a [`Reporter`]; only the binary draws.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, files, services.
    Items,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Work began; `total` in `unit` when known.
    Started {
        /// Process-wide unique id of the task.
        task: u64,
        /// What is done, as a person would say it: `fetch 91 packages`.
        what: String,
        /// How much there is to do.
        total: Option<u64>,
        /// What `total` and [`Event::Advanced`] count.
        unit: Unit,
    },
    /// A task did `by` more.
    Advanced {
        /// Id from [`Event::Started`].
        task: u64,
        /// How much more.
        by: u64,
    },
    /// A task ended, well or not.
    Finished {
        /// Id from [`Event::Started`].
        task: u64,
    },
    /// Something a person should know and can act on.
    Warning {
        /// One line, lower case, no full stop.
        text: String,
        /// The next step.
        hint: Option<String>,
    },
    /// Something worth saying once: what was decided or done.
    Note {
        /// One line, lower case, no full stop.
        text: String,
    },
}

/// Receives events, from any thread.
pub trait Reporter: Send + Sync {
    /// Takes one event. Must not block for long.
    fn event(&self, event: Event);
}

/// Drops every event.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}

/// A task under way; tells its end when dropped, whichever way that happens.
pub struct Task<'a> {
    reporter: &'a dyn Reporter,
    id: u64,
}

impl<'a> Task<'a> {
    /// Announces a task.
    pub fn start(reporter: &'a dyn Reporter, what: impl Into<String>, total: Option<u64>, unit: Unit) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        reporter.event(Event::Started { task: id, what: what.into(), total, unit });
        Self { reporter, id }
    }

    /// Tells that `by` more is done.
    pub fn advance(&self, by: u64) {
        self.reporter.event(Event::Advanced { task: self.id, by });
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.reporter.event(Event::Finished { task: self.id });
    }
}
