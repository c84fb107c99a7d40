//! What services wrote: bounded files, one record per line.
//!
//! `<log_dir>/<service>.log` is the current file, `.log.1` the one before it and so on. A record is
//! `<rfc3339 nanoseconds UTC> <tag> <text>\n`; the tag is `out`, `err` or, for the supervisor's own notes, `sup`; a
//! `+` after it says that the line goes on in the next record of that stream (it was longer than 64 KiB, or the
//! service paused in the middle of it: a prompt). Nothing but the supervisor writes here, everybody may read.

mod pump;
mod reader;
mod sink;

use std::path::{Path, PathBuf};

pub use reader::{Query, Reader};

pub(crate) use pump::pump;
pub(crate) use sink::Sink;

/// A line longer than this is cut into several records.
pub(crate) const MAX_TEXT: usize = 64 << 10;

/// Which stream a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The supervisor itself.
    Supervisor,
}

impl Stream {
    /// The tag in the file.
    pub fn tag(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
            Stream::Supervisor => "sup",
        }
    }
}

/// One line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub service: String,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Where from.
    pub stream: Stream,
    /// True if the line goes on in this stream's next record.
    pub continues: bool,
    /// The text, without newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Record {
    /// Reads one line of a log file, without its newline.
    pub fn parse(service: &str, line: &[u8]) -> Option<Record> {
        let (time, rest) = line.split_at_checked(crate::time::TEXT_LEN)?;
        let rest = rest.strip_prefix(b" ")?;
        let (tag, rest) = rest.split_at_checked(3)?;
        let stream = match tag {
            b"out" => Stream::Out,
            b"err" => Stream::Err,
            b"sup" => Stream::Supervisor,
            _ => return None,
        };
        let (continues, rest) = match rest.strip_prefix(b"+") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let text = rest.strip_prefix(b" ")?;
        Some(Record {
            service: service.to_owned(),
            time_ns: crate::time::parse_ns(std::str::from_utf8(time).ok()?)?,
            stream,
            continues,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// Appends one record to `out`.
pub(crate) fn append_record(out: &mut Vec<u8>, stamp: &str, stream: Stream, continues: bool, text: &[u8]) {
    out.extend_from_slice(stamp.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.tag().as_bytes());
    if continues {
        out.push(b'+');
    }
    out.push(b' ');
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The current log file of a service.
pub fn log_path(log_dir: &Path, service: &str) -> PathBuf {
    log_dir.join(format!("{service}.log"))
}

/// An earlier log file of a service; 1 is the youngest.
pub(crate) fn old_path(log_dir: &Path, service: &str, age: u32) -> PathBuf {
    log_dir.join(format!("{service}.log.{age}"))
}

#[cfg(test)]
mod tests;
