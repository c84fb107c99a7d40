//! From a service's pipes to its log. One thread per run: it does nothing but wait for the pipes, and a slow disk
//! slows down one service instead of the supervisor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;

use super::{MAX_TEXT, Sink, Stream, append_record};
use crate::unit::UnitIo;

/// A service that pauses this long in the middle of a line gets it logged as it is.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// The reading side of a run's output.
pub(crate) struct Pump {
    /// What the unit writes to.
    pub(crate) io: UnitIo,
    /// Resolves (with an error, as it is never sent to) when everything was read and logged.
    pub(crate) done: tokio::sync::oneshot::Receiver<()>,
}

/// Makes the pipes and starts the thread.
pub(crate) fn pump(sink: Arc<Sink>) -> io::Result<Pump> {
    let (out, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (err, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (alive, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("log".to_owned()).stack_size(128 << 10).spawn(move || {
        run(&sink, [(out, Stream::Out), (err, Stream::Err)]);
        drop(alive);
    })?;
    Ok(Pump { io: UnitIo { stdout, stderr }, done })
}

struct Source {
    fd: Option<OwnedFd>,
    stream: Stream,
    /// The beginning of a line whose end was not read yet.
    partial: Vec<u8>,
}

fn run(sink: &Sink, fds: [(OwnedFd, Stream); 2]) {
    let mut sources = fds.map(|(fd, stream)| Source { fd: Some(fd), stream, partial: Vec::new() });
    let mut chunk = vec![0u8; 64 << 10];
    let mut out = Vec::new();
    while sources.iter().any(|s| s.fd.is_some()) {
        let pending = sources.iter().any(|s| !s.partial.is_empty());
        let ready = wait(&sources, pending.then_some(&PAUSE));
        if !ready.contains(&true) {
            for source in sources.iter_mut().filter(|s| !s.partial.is_empty()) {
                source.flush(sink, &mut out, true);
            }
            continue;
        }
        for (source, _) in sources.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let Some(fd) = &source.fd else { continue };
            match rustix::io::read(fd, &mut chunk) {
                Ok(0) => {
                    source.flush(sink, &mut out, false);
                    source.fd = None;
                }
                Ok(n) => source.take(sink, &chunk[..n], &mut out),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => source.fd = None,
            }
        }
    }
}

fn wait(sources: &[Source; 2], pause: Option<&Timespec>) -> [bool; 2] {
    let mut polled = [None; 2];
    let mut fds = Vec::with_capacity(2);
    for (i, source) in sources.iter().enumerate() {
        if let Some(fd) = &source.fd {
            polled[i] = Some(fds.len());
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
    }
    // An error (a signal) looks like a pause; at worst a line is cut there.
    let _ = poll(&mut fds, pause);
    polled.map(|at| at.is_some_and(|at| !fds[at].revents().is_empty()))
}

impl Source {
    fn take(&mut self, sink: &Sink, mut chunk: &[u8], out: &mut Vec<u8>) {
        let stamp = crate::time::format_ns(crate::time::now_ns());
        out.clear();
        let mut records = 0;
        let mut seen: Vec<&[u8]> = Vec::new();
        let first;
        if !self.partial.is_empty() {
            // The end of the line that was begun.
            let Some(end) = memchr::memchr(b'\n', chunk) else {
                self.keep(chunk, &stamp, out, &mut records);
                if records > 0 {
                    sink.append(out, records);
                }
                return;
            };
            let (head, rest) = chunk.split_at(end);
            self.keep(head, &stamp, out, &mut records);
            first = std::mem::take(&mut self.partial);
            let line = trim(&first);
            append_record(out, &stamp, self.stream, false, line);
            records += 1;
            seen.push(line);
            chunk = &rest[1..];
        }
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            // A chunk is no longer than MAX_TEXT, so neither is a line in it.
            let line = trim(&chunk[..end]);
            append_record(out, &stamp, self.stream, false, line);
            records += 1;
            seen.push(line);
            chunk = &chunk[end + 1..];
        }
        self.partial.extend_from_slice(chunk);
        if records > 0 {
            sink.append(out, records);
            sink.see(&mut seen.into_iter());
        }
    }

    /// Adds to the begun line, cutting it where it gets too long.
    fn keep(&mut self, text: &[u8], stamp: &str, out: &mut Vec<u8>, records: &mut u64) {
        self.partial.extend_from_slice(text);
        while self.partial.len() > MAX_TEXT {
            let rest = self.partial.split_off(MAX_TEXT);
            append_record(out, stamp, self.stream, true, &self.partial);
            *records += 1;
            self.partial = rest;
        }
    }

    fn flush(&mut self, sink: &Sink, out: &mut Vec<u8>, continues: bool) {
        if self.partial.is_empty() {
            return;
        }
        out.clear();
        let stamp = crate::time::format_ns(crate::time::now_ns());
        append_record(out, &stamp, self.stream, continues, &self.partial);
        sink.append(out, 1);
        sink.see(&mut std::iter::once(self.partial.as_slice()));
        self.partial.clear();
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
