//! The reading end: from anywhere, any time, of several services at once.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use igloo_base::{At, PathError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{MAX_TEXT, Record, log_path, old_path};

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Whose logs; all that there are, and will be, if empty.
    pub services: Vec<String>,
    /// Only the last lines of each service.
    pub tail: Option<usize>,
    /// Only what was written at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<u64>,
}

/// Reads logs of several services, merged by time. As an iterator it ends with what is there now;
/// [`Reader::follow`] waits for more.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    query: Query,
    sources: BTreeMap<String, Source>,
    /// Made before the files are looked at, so that nothing written in between goes unnoticed.
    watch: OwnedFd,
}

impl Reader {
    /// Opens the logs. A service that wrote nothing yet is no error.
    pub fn open(log_dir: &Path, query: &Query) -> Result<Reader, PathError> {
        igloo_base::file::create_dirs(log_dir)?;
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).at("watch", log_dir)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, log_dir, what).at("watch", log_dir)?;
        let mut reader = Reader { dir: log_dir.to_owned(), query: query.clone(), sources: BTreeMap::new(), watch };
        for service in reader.services()? {
            let source = Source::open(&reader.dir, &service, query.tail)?;
            reader.sources.insert(service, source);
        }
        Ok(reader)
    }

    fn services(&self) -> Result<Vec<String>, PathError> {
        if !self.query.services.is_empty() {
            return Ok(self.query.services.clone());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).at("list", &self.dir)? {
            let name = entry.at("list", &self.dir)?.file_name();
            let name: Option<&OsStr> =
                Path::new(&name).extension().filter(|e| *e == "log").and(Path::new(&name).file_stem());
            found.extend(name.and_then(OsStr::to_str).map(str::to_owned));
        }
        Ok(found)
    }

    /// The next record, waiting `timeout` for it at most.
    pub fn follow(&mut self, timeout: Duration) -> Result<Option<Record>, PathError> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(record) = self.step()? {
                return Ok(Some(record));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.await_change(left)? {
                return Ok(None);
            }
            for service in self.services()? {
                if !self.sources.contains_key(&service) {
                    let source = Source::open(&self.dir, &service, None)?;
                    self.sources.insert(service, source);
                }
            }
        }
    }

    fn await_change(&self, left: Duration) -> Result<bool, PathError> {
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.watch, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("watch", &self.dir),
        }
        // What changed does not matter, every file is looked at anyway.
        let mut events = [0u8; 16 << 10];
        while rustix::io::read(&self.watch, &mut events).is_ok_and(|n| n > 0) {}
        Ok(true)
    }

    fn step(&mut self) -> Result<Option<Record>, PathError> {
        let mut first: Option<(&String, u64)> = None;
        for (name, source) in &mut self.sources {
            while source.head.is_none() {
                match source.read(&self.dir, name)? {
                    Some(record) if self.query.since_ns.is_some_and(|since| record.time_ns < since) => {}
                    record => {
                        source.head = record;
                        break;
                    }
                }
            }
            if let Some(head) = &source.head
                && first.is_none_or(|(_, time)| head.time_ns < time)
            {
                first = Some((name, head.time_ns));
            }
        }
        let Some((name, _)) = first else { return Ok(None) };
        let name = name.clone();
        Ok(self.sources.get_mut(&name).and_then(|s| s.head.take()))
    }
}

impl Iterator for Reader {
    type Item = Result<Record, PathError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// One service's files, oldest first; the last is the current one, unless it was put aside meanwhile.
#[derive(Debug, Default)]
struct Source {
    files: VecDeque<File>,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    at: usize,
    head: Option<Record>,
}

impl Source {
    fn open(dir: &Path, service: &str, tail: Option<usize>) -> Result<Source, PathError> {
        let files = open_after(dir, service, None)?;
        let mut source = Source { files, ..Source::default() };
        if let Some(lines) = tail {
            source.skip_to_tail(lines).at("read", log_path(dir, service))?;
        }
        Ok(source)
    }

    /// Leaves just the last `lines` lines to be read, looking at the files from their ends.
    fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut missing = lines;
        for i in (0..self.files.len()).rev() {
            let (start, found) = nth_line_from_end(&self.files[i], missing)?;
            missing -= found;
            self.files[i].seek(SeekFrom::Start(start))?;
            if missing == 0 {
                self.files.drain(..i);
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, dir: &Path, service: &str) -> Result<Option<Record>, PathError> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.at..]) {
                let record = Record::parse(service, &self.buffer[self.at..self.at + end]);
                self.at += end + 1;
                // A line that is no record was not written by us; skip it.
                if record.is_some() {
                    return Ok(record);
                }
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if !self.fill(dir, service)? {
                return Ok(None);
            }
        }
    }

    /// Reads more, from the next file if need be. False at the present end.
    fn fill(&mut self, dir: &Path, service: &str) -> Result<bool, PathError> {
        loop {
            let Some(file) = self.files.front() else {
                self.files = open_after(dir, service, None)?;
                if self.files.is_empty() {
                    return Ok(false);
                }
                continue;
            };
            // Asked before reading: nothing is written to a file after it was put aside.
            let aside = self.files.len() > 1 || is_aside(file, dir, service);
            let Some(file) = self.files.front_mut() else { continue };
            if more(file, &mut self.buffer).at("read", log_path(dir, service))? {
                return Ok(true);
            }
            if !aside {
                return Ok(false);
            }
            self.buffer.clear();
            if self.files.len() == 1 {
                let newer = open_after(dir, service, self.files.front())?;
                if newer.is_empty() {
                    return Ok(false);
                }
                self.files.extend(newer);
            }
            self.files.pop_front();
        }
    }
}

/// Appends the next piece of `file` to `buffer`.
fn more(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let at = file.stream_position()?;
    let length = file.metadata()?.len();
    if length < at {
        // The end was cut off: a record that could not be written whole.
        file.seek(SeekFrom::Start(length))?;
        buffer.clear();
    }
    // Records are not much longer than MAX_TEXT; a file that is one endless line is not ours.
    if buffer.len() > 4 * MAX_TEXT {
        buffer.clear();
    }
    let before = buffer.len();
    file.by_ref().take(MAX_TEXT as u64).read_to_end(buffer)?;
    Ok(buffer.len() > before)
}

fn is_aside(file: &File, dir: &Path, service: &str) -> bool {
    match (file.metadata(), std::fs::metadata(log_path(dir, service))) {
        (Ok(ours), Ok(current)) => (ours.dev(), ours.ino()) != (current.dev(), current.ino()),
        (Ok(_), Err(e)) => e.kind() == io::ErrorKind::NotFound,
        (Err(_), _) => false,
    }
}

/// The files that are younger than `last` (all if it is none or gone), oldest first. Opened from the youngest on, so
/// that one that is put aside meanwhile is met twice instead of missed.
fn open_after(dir: &Path, service: &str, last: Option<&File>) -> Result<VecDeque<File>, PathError> {
    let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    let last = last.map(identity).transpose().at("read", log_path(dir, service))?;
    let mut files = VecDeque::new();
    let mut seen = Vec::new();
    for age in 0.. {
        let path = if age == 0 { log_path(dir, service) } else { old_path(dir, service, age) };
        let file = match File::open(&path) {
            Ok(file) => file,
            // Between two renames there is no current file.
            Err(e) if e.kind() == io::ErrorKind::NotFound && age == 0 => continue,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e).at("open", path),
        };
        let id = identity(&file).at("read", &path)?;
        if Some(id) == last {
            break;
        }
        if !seen.contains(&id) {
            seen.push(id);
            files.push_front(file);
        }
    }
    Ok(files)
}

/// Where the last `lines` lines of a file begin, and how many there are, if fewer.
fn nth_line_from_end(file: &File, lines: usize) -> io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok((length, 0));
    }
    let mut block = vec![0u8; 64 << 10];
    let mut end = length;
    let mut newlines = 0;
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - from).unwrap_or(0)];
        file.read_exact_at(part, from)?;
        for at in memchr::memrchr_iter(b'\n', part) {
            newlines += 1;
            // The first newline from the end closes the last line.
            if newlines > lines {
                return Ok((from + at as u64 + 1, lines));
            }
        }
        end = from;
    }
    Ok((0, newlines))
}
