//! Errors at the edge: a kind that decides the exit code, the chain of causes, hints.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the request can't be met: bad manifest, missing package, failed service |
//! | 2 | the command line is wrong |
//! | 3 | standard output was closed |
//! | 255 | a fault of igloo |
//!
//! `shell`, `run` and `exec` end with the code of the command they ran (127: not found, 126: not executable,
//! 128 + n: killed by signal n).

use std::error::Error;
use std::process::ExitCode;

use igloo_ops::error::OpsError;
use igloo_serve::ServeError;

use crate::ui::Ui;

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user: 1.
    User,
    /// Whoever closed the pipe: 3.
    BrokenPipe,
    /// Us: 255.
    Internal,
    /// A command that could not be run: 126 or 127.
    Code(u8),
    /// All has been said.
    Silent(u8),
}

/// A failed command.
#[derive(Debug)]
pub struct CommandError {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
}

impl CommandError {
    /// A request that can't be met.
    pub fn user(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::User, error: error.into(), hints: Vec::new() }
    }

    /// A fault of igloo's own.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Internal, error: error.into(), hints: Vec::new() }
    }

    /// Ends with a code, all having been said.
    pub fn silent(code: u8) -> Self {
        Self { kind: Kind::Silent(code), error: "".into(), hints: Vec::new() }
    }

    /// Tells the person and gives the exit code.
    pub fn report(self, ui: &Ui) -> ExitCode {
        let code = match self.kind {
            Kind::Silent(code) => return ExitCode::from(code),
            Kind::BrokenPipe => return ExitCode::from(3),
            Kind::User => 1,
            Kind::Code(code) => code,
            Kind::Internal => 255,
        };
        ui.error(&*self.error, &self.hints);
        ExitCode::from(code)
    }
}

impl From<OpsError> for CommandError {
    fn from(error: OpsError) -> Self {
        let hints = error.hints();
        let kind = match error.exit_code() {
            Some(3) => Kind::BrokenPipe,
            Some(code) => Kind::Code(code),
            None => Kind::User,
        };
        Self { kind, error: error.into(), hints }
    }
}

impl From<ServeError> for CommandError {
    fn from(error: ServeError) -> Self {
        Self::user(error)
    }
}

impl From<std::io::Error> for CommandError {
    /// Only writing to standard output gives a bare I/O error in this crate.
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::BrokenPipe => Kind::BrokenPipe,
            _ => Kind::User,
        };
        Self { kind, error: format!("cannot write the output: {error}").into(), hints: Vec::new() }
    }
}

/// Help and version go to standard output and are no error; the rest is code 2.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell anybody if this fails.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
