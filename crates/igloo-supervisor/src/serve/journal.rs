//! `events.jsonl` in the state directory: what happened, one [`ServiceEvent`] per line, for questions that come later.
//! At [`LIMIT`] it becomes `events.jsonl.1`, so at most twice that much is kept.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::wire::ServiceEvent;

const LIMIT: u64 = 1 << 20;

pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("events.jsonl"), file: None }
    }

    /// Appends an event. History is worth nothing to a service, so a full disk is no reason to stop.
    pub(super) fn append(&mut self, event: &ServiceEvent) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let full = |file: &File| file.metadata().is_ok_and(|m| m.len() >= LIMIT);
        if self.file.as_ref().is_some_and(full) {
            self.file = None;
            let _ = fs::rename(&self.path, self.path.with_extension("jsonl.1"));
        }
        if self.file.is_none() {
            self.file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    #[test]
    fn history_is_bounded_and_readable() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = Journal::new(dir.path());
        let tail = vec!["x".repeat(1000)];
        for seq in 0..3000 {
            let state = State::Failed { reason: "why".to_owned() };
            let event = ServiceEvent {
                seq,
                time_ms: seq,
                service: "s".to_owned(),
                state,
                message: None,
                exit: None,
                tail: tail.clone(),
            };
            journal.append(&event);
        }
        let text = fs::read_to_string(dir.path().join("events.jsonl")).expect("read");
        let last: ServiceEvent = serde_json::from_str(text.lines().last().expect("a line")).expect("parse");
        assert_eq!(last.seq, 2999);
        let names: Vec<_> = fs::read_dir(dir.path()).expect("list").collect();
        assert_eq!(names.len(), 2);
        for name in names {
            assert!(name.expect("entry").metadata().expect("stat").len() < LIMIT + 2000);
        }
    }
}
