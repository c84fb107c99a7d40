//! What services wrote: bounded files, one record per line, `<rfc3339 nanoseconds UTC> <stream> <text>`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_base::PathError;

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

/// One line, or a piece of a very long one.
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

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Whose logs; all that there are if empty.
    pub services: Vec<String>,
    /// Only the last lines of each service.
    pub tail: Option<usize>,
    /// Only what was written at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<u64>,
}

/// The log file of a service.
pub fn log_path(log_dir: &Path, service: &str) -> PathBuf {
    log_dir.join(format!("{service}.log"))
}

/// Reads logs of several services, merged by time. As an iterator it ends with what is there now;
/// [`Reader::follow`] waits for more.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens the logs.
    pub fn open(log_dir: &Path, query: &Query) -> Result<Reader, PathError> {
        let _ = (log_dir, query);
        todo!()
    }

    /// The next record, waiting `timeout` for it at most.
    pub fn follow(&mut self, timeout: Duration) -> Result<Option<Record>, PathError> {
        let _ = timeout;
        todo!()
    }
}

impl Iterator for Reader {
    type Item = Result<Record, PathError>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
