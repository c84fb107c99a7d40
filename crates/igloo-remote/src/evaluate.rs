//! The `nix` command: evaluates and builds for us, and tells in JSON what came of it.

pub mod packages;
pub mod reads;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::de::DeserializeOwned;

use reads::Reads;

/// Most lines of what `nix` said that an error repeats.
const TAIL: usize = 40;

/// Why `nix` gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NixError {
    /// There is none on PATH.
    #[error("there is no `nix` on PATH")]
    Missing,
    /// It could not be started or watched.
    #[error("cannot run `{}`", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`nix {what}` failed\n{said}")]
    Failed {
        /// Its first words.
        what: String,
        /// The end of what it said.
        said: String,
    },
    /// Its answer has another form than we know.
    #[error("`nix {what}` gave an answer that igloo does not understand")]
    Answer {
        /// Its first words.
        what: String,
        /// Where.
        source: serde_json::Error,
    },
}

/// A `nix` to ask.
#[derive(Debug, Clone)]
pub struct Nix {
    program: PathBuf,
    /// What comes before the name of one of Nix's commands, if `program` isn't Nix itself.
    entering: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Nix {
    /// One that another program runs: `program entering... nix WORDS`.
    pub fn entered(program: &Path, entering: Vec<OsString>, environment: &[(OsString, OsString)]) -> Self {
        Self { program: program.to_owned(), entering, environment: environment.to_vec() }
    }

    /// The one on this PATH, to be run with this environment.
    pub fn find(environment: &[(OsString, OsString)]) -> Result<Self, NixError> {
        let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let program = std::env::split_paths(&path.unwrap_or_default())
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("nix"))
            .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok() && program.is_file());
        let program = program.ok_or(NixError::Missing)?;
        Ok(Self { program, entering: Vec::new(), environment: environment.to_vec() })
    }

    /// Which one it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same with another variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What these words print as JSON.
    pub fn json<T: DeserializeOwned>(&self, directory: &Path, words: &[&str]) -> Result<T, NixError> {
        let output = self.command(directory, words).output();
        self.answer(words, output)
    }

    /// [`Nix::json`], and which paths were looked at meanwhile, of those that `wanted` holds for.
    pub fn json_watched<T: DeserializeOwned>(
        &self,
        directory: &Path,
        words: &[&str],
        wanted: impl Fn(&Path) -> bool + Send,
    ) -> Result<(T, Reads), NixError> {
        let mut seen = Reads::default();
        let output = reads::output(&mut self.command(directory, words), wanted, &mut seen);
        Ok((self.answer(words, output)?, seen))
    }

    fn command(&self, directory: &Path, words: &[&str]) -> Command {
        let mut command = self.tool("nix");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(words);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One of Nix's commands, with nothing but its environment.
    fn tool(&self, name: &str) -> Command {
        let mut command = match self.entering.is_empty() {
            true => Command::new(self.program.with_file_name(name)),
            false => Command::new(&self.program),
        };
        if !self.entering.is_empty() {
            command.args(&self.entering).arg(name);
        }
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn answer<T: DeserializeOwned>(&self, words: &[&str], output: io::Result<Output>) -> Result<T, NixError> {
        let output = output.map_err(|source| NixError::Start { program: self.program.clone(), source })?;
        if let Some(failure) = self.failed(words, &output) {
            return Err(failure);
        }
        let what = words.first().copied().unwrap_or_default().to_owned();
        serde_json::from_slice(&output.stdout).map_err(|source| NixError::Answer { what, source })
    }

    fn failed(&self, words: &[&str], output: &Output) -> Option<NixError> {
        if output.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let said = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        Some(NixError::Failed { what: words.first().copied().unwrap_or_default().to_owned(), said })
    }
}
