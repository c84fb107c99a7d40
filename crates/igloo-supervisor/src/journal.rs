//! `events.jsonl` in the state directory: what happened, one [`ServiceEvent`] per line, for questions that come later.
//! At [`LIMIT`] it becomes `events.jsonl.1`, so at most twice that much is kept. It outlives its supervisors: what the
//! last one did not live to tell, the next one does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_base::{At, PathError};

use crate::wire::{ServiceEvent, State};

const LIMIT: u64 = 1 << 20;

/// No line of ours is longer: a tail is ten lines of 400 bytes, reasons are a line.
const MAX_LINE: u64 = 64 << 10;

fn current(state_dir: &Path) -> PathBuf {
    state_dir.join("events.jsonl")
}

fn older(state_dir: &Path) -> PathBuf {
    state_dir.join("events.jsonl.1")
}

/// The writing end.
pub(crate) struct Journal {
    dir: PathBuf,
    file: Option<File>,
    seq: u64,
}

impl Journal {
    /// Opens the journal, and tells the end of what ran when its supervisor was killed.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let mut last: BTreeMap<String, ServiceEvent> = BTreeMap::new();
        let mut seq = 0;
        for event in read(state_dir).unwrap_or_default() {
            seq = seq.max(event.seq);
            last.insert(event.service.clone(), event);
        }
        let mut journal = Self { dir: state_dir.to_owned(), file: None, seq };
        for (_, event) in last {
            let over = matches!(event.state, State::Stopped | State::Exited(_) | State::Failed { .. });
            if !over {
                journal.append(&ended_unseen(event, journal.seq + 1));
            }
        }
        journal
    }

    /// The number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.seq + 1
    }

    /// Appends an event. History is worth nothing to a service, so a full disk is no reason to stop.
    pub(crate) fn append(&mut self, event: &ServiceEvent) {
        self.seq = self.seq.max(event.seq);
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let path = current(&self.dir);
        // One that was deleted or put aside by hand is begun anew.
        let gone = |file: &File| match (file.metadata(), fs::metadata(&path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) != (named.dev(), named.ino()),
            (_, Err(_)) => true,
            (Err(_), _) => false,
        };
        if self.file.as_ref().is_some_and(gone) {
            self.file = None;
        }
        if self.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|m| m.len() >= LIMIT)) {
            self.file = None;
            let _ = fs::rename(&path, older(&self.dir));
        }
        if self.file.is_none() {
            self.file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path).ok();
            if let Some(file) = &mut self.file {
                end_line(file);
            }
        }
        if let Some(file) = &mut self.file {
            let before = file.metadata().map(|m| m.len());
            if file.write_all(&line).is_err()
                && let Ok(before) = before
            {
                // Half a line would spoil the next one.
                let _ = file.set_len(before);
            }
        }
    }
}

/// A supervisor that was killed in the middle of a line left half of it.
fn end_line(file: &mut File) {
    let length = file.metadata().map_or(0, |m| m.len());
    let mut last = [b'\n'];
    if length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != *b"\n" {
        let _ = file.write_all(b"\n");
    }
}

fn ended_unseen(event: ServiceEvent, seq: u64) -> ServiceEvent {
    let what = match event.time_ms / 1000 < booted() {
        true => "the machine was restarted, and nothing of it runs any more",
        false => "its supervisor was killed, and the kernel ended it with its supervisor",
    };
    ServiceEvent {
        seq,
        time_ms: crate::time::now_ms(),
        state: State::Stopped,
        note: false,
        message: Some(what.to_owned()),
        pid: None,
        exit: None,
        tail: Vec::new(),
        ..event
    }
}

/// When the machine was started, in seconds since 1970; 0 if that can't be known.
fn booted() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// All that is known, oldest first. Lines that make no sense are left out.
pub fn read(state_dir: &Path) -> Result<Vec<ServiceEvent>, PathError> {
    let mut events = Vec::new();
    for path in [older(state_dir), current(state_dir)] {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).at("open", path),
        };
        // More than twice the limit was not written by us.
        let mut reader = BufReader::new(file.take(2 * LIMIT + MAX_LINE));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).at("read", &path)? > 0 {
            events.extend(serde_json::from_slice::<ServiceEvent>(&line).ok());
            line.clear();
        }
    }
    Ok(events)
}

/// Reads what comes.
pub struct Follower {
    dir: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Follower {
    /// Begins at the present end.
    pub fn new(state_dir: &Path) -> Self {
        let mut file = File::open(current(state_dir)).ok();
        if let Some(file) = &mut file {
            let _ = file.seek(SeekFrom::End(0));
        }
        Self { dir: state_dir.to_owned(), file, rest: Vec::new() }
    }

    /// What came since; empty if nothing did.
    pub fn more(&mut self) -> Result<Vec<ServiceEvent>, PathError> {
        let mut events = Vec::new();
        let path = current(&self.dir);
        loop {
            let named = File::open(&path).ok();
            let id = |file: &File| file.metadata().ok().map(|m| (m.dev(), m.ino()));
            let same = self.file.as_ref().and_then(id) == named.as_ref().and_then(id);
            if let Some(file) = &mut self.file {
                file.take(4 * LIMIT).read_to_end(&mut self.rest).at("read", &path)?;
            }
            while let Some(end) = memchr::memchr(b'\n', &self.rest) {
                events.extend(serde_json::from_slice::<ServiceEvent>(&self.rest[..end]).ok());
                self.rest.drain(..=end);
            }
            if same || named.is_none() {
                return Ok(events);
            }
            self.file = named;
            self.rest.clear();
        }
    }

    /// Waits for the next events, looking ever again after a short pause.
    pub fn wait(&mut self) -> Result<Vec<ServiceEvent>, PathError> {
        loop {
            let events = self.more()?;
            if !events.is_empty() {
                return Ok(events);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, state: State) -> ServiceEvent {
        ServiceEvent {
            seq,
            time_ms: crate::time::now_ms(),
            service: "s".to_owned(),
            state,
            note: false,
            message: None,
            pid: None,
            exit: None,
            tail: Vec::new(),
        }
    }

    #[test]
    fn history_is_bounded_and_readable() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = Journal::open(dir.path());
        for seq in 0..3000 {
            let state = State::Failed { reason: "why".to_owned() };
            journal.append(&ServiceEvent { tail: vec!["x".repeat(1000)], ..event(seq, state) });
        }
        assert_eq!(read(dir.path()).expect("read").last().expect("an event").seq, 2999);
        let names: Vec<_> = fs::read_dir(dir.path()).expect("list").collect();
        assert_eq!(names.len(), 2);
        for name in names {
            assert!(name.expect("entry").metadata().expect("stat").len() < LIMIT + 2000);
        }
    }

    #[test]
    fn what_a_killed_supervisor_could_not_tell_the_next_one_does() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut journal = Journal::open(dir.path());
        journal.append(&event(1, State::Ready));
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(current(dir.path())).expect("open");
        file.write_all(b"{\"seq\":2,\"ti").expect("half a line");
        let mut follower = Follower::new(dir.path());
        let mut journal = Journal::open(dir.path());
        assert_eq!(journal.next(), 3);
        journal.append(&event(3, State::Ready));
        let all = read(dir.path()).expect("read");
        let states: Vec<_> = all.iter().map(|e| e.state.word()).collect();
        assert_eq!(states, ["ready", "stopped", "ready"]);
        assert!(all[1].message.as_ref().is_some_and(|m| m.contains("supervisor was killed")), "{all:?}");
        assert_eq!(follower.more().expect("follow").len(), 2);
        // Ended well, nothing is added.
        journal.append(&event(4, State::Stopped));
        Journal::open(dir.path());
        assert_eq!(read(dir.path()).expect("read").len(), 4);
        // Deleted under its feet.
        fs::remove_file(current(dir.path())).expect("remove");
        journal.append(&event(5, State::Ready));
        assert_eq!(read(dir.path()).expect("read").len(), 1);
    }
}
