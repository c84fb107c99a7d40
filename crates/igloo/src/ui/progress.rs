//! Progress of tasks: nothing for the first 250 ms, then at most 20 lines a second on a terminal, and one
//! line per long task when it ends elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use igloo_base::{Event, Unit};

const PATIENCE: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_millis(50);

struct Running {
    what: String,
    total: Option<u64>,
    unit: Unit,
    done: u64,
    since: Instant,
}

/// The tasks under way and what is drawn of them.
pub(super) struct Progress {
    terminal: bool,
    quiet: bool,
    tasks: BTreeMap<u64, Running>,
    drawn: bool,
    last: Instant,
}

impl Progress {
    pub(super) fn new(terminal: bool, quiet: bool) -> Self {
        Self { terminal, quiet, tasks: BTreeMap::new(), drawn: false, last: Instant::now() }
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Started { task, what, total, unit } => {
                self.tasks.insert(task, Running { what, total, unit, done: 0, since: Instant::now() });
            }
            Event::Advanced { task, by } => {
                if let Some(running) = self.tasks.get_mut(&task) {
                    running.done += by;
                }
                self.draw();
            }
            Event::Finished { task } => {
                if let Some(running) = self.tasks.remove(&task) {
                    self.end(&running);
                }
            }
            Event::Warning { .. } | Event::Note { .. } => {}
        }
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }

    fn draw(&mut self) {
        if !self.terminal || self.quiet || self.last.elapsed() < INTERVAL {
            return;
        }
        let shown: Vec<String> =
            self.tasks.values().filter(|t| t.since.elapsed() >= PATIENCE).map(Running::render).collect();
        if shown.is_empty() {
            return;
        }
        self.last = Instant::now();
        self.drawn = true;
        let width = rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |w| usize::from(w.ws_col)).max(20);
        let line: String = shown.join("  ").chars().take(width - 1).collect();
        let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
    }

    fn end(&mut self, running: &Running) {
        let time = running.since.elapsed();
        if self.quiet || time < PATIENCE {
            return;
        }
        self.clear();
        let amount = match running.unit {
            Unit::Bytes if running.done > 0 => format!(", {}", super::table::bytes(running.done)),
            _ => String::new(),
        };
        let _ = writeln!(io::stderr().lock(), "{} ({:.1} s{amount})", running.what, time.as_secs_f64());
    }
}

impl Running {
    fn render(&self) -> String {
        let amount = |n: u64| match self.unit {
            Unit::Bytes => super::table::bytes(n),
            Unit::Items => n.to_string(),
        };
        match self.total {
            Some(total) if total > 0 => {
                format!("{} {}/{} {:>3}%", self.what, amount(self.done), amount(total), self.done * 100 / total)
            }
            _ if self.done > 0 => format!("{} {}", self.what, amount(self.done)),
            _ => self.what.clone(),
        }
    }
}
