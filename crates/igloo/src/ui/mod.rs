//! The one place that talks to a person: standard output is data, standard error is talk.

mod error;
mod forward;
mod progress;
mod table;

pub use forward::Forward;
pub use table::{Table, bytes};

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use igloo_base::{Event, Reporter};

use crate::args::Global;
use progress::Progress;

/// A text that others wrote, as images have it: what would steer a terminal is shown as `\u{1b}`.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// The same of several lines.
fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// How much to say, and how.
pub struct Ui {
    json: bool,
    quiet: bool,
    verbose: bool,
    colour: bool,
    progress: Mutex<Progress>,
}

impl Ui {
    /// From the global options and what standard error is.
    pub fn new(global: &Global) -> Self {
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some() || std::env::var("TERM").is_ok_and(|t| t == "dumb");
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            colour: terminal && !plain,
            progress: Mutex::new(Progress::new(terminal && !plain, global.quiet)),
        }
    }

    /// True if data is to be JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// True if a person wants more.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Data: one piece of text to standard output.
    pub fn print(&self, text: impl AsRef<str>) -> io::Result<()> {
        self.clear();
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.flush()
    }

    /// Data as one JSON document.
    pub fn print_json(&self, value: &(impl serde::Serialize + ?Sized)) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.print(text + "\n")
    }

    /// Raw bytes of data.
    pub fn print_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// What a program that runs for us wrote to its standard error.
    pub fn print_error_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.clear();
        io::stderr().lock().write_all(bytes)
    }

    /// Talk: one line on standard error, unless `--quiet`.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.talk(text.as_ref());
        }
    }

    /// A word in bold green, on a terminal.
    pub fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// A word in bold red, on a terminal.
    pub fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// A word in bold yellow, on a terminal.
    pub fn warn(&self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// An error with its causes and hints.
    pub fn error(&self, error: &(dyn Error + Send + Sync + 'static), hints: &[String]) {
        self.talk(&error::render(error, hints, self.colour));
    }

    /// Ends all progress display.
    pub fn finish(&self) {
        self.clear();
    }

    fn clear(&self) {
        if let Ok(mut progress) = self.progress.lock() {
            progress.clear();
        }
    }

    fn talk(&self, text: &str) {
        self.clear();
        // Nobody can be told that talking failed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

impl Reporter for Ui {
    fn event(&self, event: Event) {
        match event {
            Event::Warning { text, hint } => {
                self.talk(&format!("{} {}", self.warn("warning:"), plain_lines(&text)));
                if let Some(hint) = hint {
                    self.talk(&format!("  {hint}"));
                }
            }
            Event::Note { text } => self.say(plain_lines(&text)),
            event => {
                if let Ok(mut progress) = self.progress.lock() {
                    progress.event(event);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{plain, plain_lines};

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(plain("usr/bin/\x1b[2Jä\n\u{9b}x"), "usr/bin/\\u{1b}[2Jä\\u{a}\\u{9b}x");
        assert_eq!(plain_lines("two\nlines\r"), "two\nlines\\u{d}");
    }
}
