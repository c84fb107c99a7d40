//! The writing end of one service's log.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Stream, append_record, log_path, old_path};
use crate::spec::LogLimits;

/// How many lines are remembered to explain a failure.
const TAIL: usize = 10;

/// And how long each may be.
const TAIL_TEXT: usize = 400;

type OnMatch = Box<dyn FnOnce() + Send>;

/// The log of one service over all its runs; a file for its owner only, since services write what they like. Writing never blocks on anything but the disk's cache, and never fails:
/// what can't be written is dropped and counted.
pub(crate) struct Sink {
    inner: Mutex<Inner>,
}

struct Inner {
    dir: PathBuf,
    service: String,
    limits: LogLimits,
    file: Option<File>,
    size: u64,
    tail: VecDeque<String>,
    watch: Option<(regex::bytes::Regex, OnMatch)>,
    dropped: u64,
    /// Lost since the last successful write, and why.
    lost: u64,
    why: String,
}

impl Sink {
    pub(crate) fn new(dir: &Path, service: &str, limits: LogLimits) -> Self {
        Self {
            inner: Mutex::new(Inner {
                dir: dir.to_owned(),
                service: service.to_owned(),
                limits,
                file: None,
                size: 0,
                tail: VecDeque::new(),
                watch: None,
                dropped: 0,
                lost: 0,
                why: String::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in between leaves nothing worse than a line that is missing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limits(&self, limits: LogLimits) {
        self.lock().limits = limits;
    }

    /// Calls `on_match` once, at the first line that matches from now on; replaces an earlier watch.
    pub(crate) fn watch(&self, pattern: regex::bytes::Regex, on_match: OnMatch) {
        self.lock().watch = Some((pattern, on_match));
    }

    /// Forgets the last lines and the watch, for a new run.
    pub(crate) fn fresh(&self) {
        let mut inner = self.lock();
        inner.tail.clear();
        inner.watch = None;
    }

    /// The last lines of this run.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }

    /// How many lines were lost.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    #[cfg(test)]
    pub(crate) fn reopen(&self) {
        self.lock().file = None;
    }

    /// Takes whole lines of the service, to remember and to match.
    pub(crate) fn see(&self, lines: &mut dyn Iterator<Item = &[u8]>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut found = None;
        for line in lines {
            if inner.tail.len() == TAIL {
                inner.tail.pop_front();
            }
            let shown = &line[..line.len().min(TAIL_TEXT)];
            inner.tail.push_back(String::from_utf8_lossy(shown).into_owned());
            if inner.watch.as_ref().is_some_and(|(pattern, _)| pattern.is_match(line)) {
                found = inner.watch.take();
            }
        }
        drop(guard);
        if let Some((_, on_match)) = found {
            on_match();
        }
    }

    /// Appends `count` whole records.
    pub(crate) fn append(&self, records: &[u8], count: u64) {
        let mut inner = self.lock();
        if inner.lost > 0 {
            let mut note = Vec::new();
            let text = format!("{} lines were lost: {}", inner.lost, inner.why);
            append_record(
                &mut note,
                &crate::time::format_ns(crate::time::now_ns()),
                Stream::Supervisor,
                false,
                text.as_bytes(),
            );
            if inner.write(&note).is_ok() {
                inner.lost = 0;
            }
        }
        if let Err(error) = inner.write(records) {
            inner.why = error.to_string();
            inner.lost += count;
            inner.dropped += count;
        }
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size > 0 && self.size + bytes.len() as u64 > self.limits.max_bytes {
            self.rotate();
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let path = log_path(&self.dir, &self.service);
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                self.size = file.metadata()?.len();
                let file = none.insert(file);
                end_torn_line(file, &mut self.size)?;
                file
            }
        };
        match file.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a record would make the next one unreadable.
                let _ = file.set_len(self.size);
                Err(error)
            }
        }
    }

    /// Puts the current file aside. If that fails, it just grows on.
    fn rotate(&mut self) {
        let last = self.limits.max_files.max(1) - 1;
        let current = log_path(&self.dir, &self.service);
        let moved = if last == 0 {
            fs::remove_file(&current)
        } else {
            for age in (1..last).rev() {
                let _ =
                    fs::rename(old_path(&self.dir, &self.service, age), old_path(&self.dir, &self.service, age + 1));
            }
            fs::rename(&current, old_path(&self.dir, &self.service, 1))
        };
        if moved.is_ok() {
            self.file = None;
        }
    }
}

/// A supervisor that was killed in the middle of a write left half a record: cut it off.
fn end_torn_line(file: &File, size: &mut u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut end = *size;
    let mut block = vec![0; 4096];
    // Opened for appending only, so read it through a descriptor of its own.
    let Ok(reader) = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))) else {
        return Ok(());
    };
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - from).unwrap_or(0)];
        reader.read_exact_at(part, from)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            end = from + at as u64 + 1;
            break;
        }
        end = from;
    }
    if end < *size {
        file.set_len(end)?;
        *size = end;
    }
    Ok(())
}
