//! What is wrong with a manifest: every finding at once, each with the bytes it is about.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One thing wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// The bytes of the text it is about.
    pub span: Range<usize>,
    /// What to write under those bytes; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A manifest that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file the text came from.
    pub path: PathBuf,
    /// The text, for the excerpts of a message.
    pub text: String,
    /// The findings in the order of the text; never empty.
    pub diagnostics: Vec<Diagnostic>,
}

/// A place in a text as editors count it: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl Position {
    /// The place of a byte offset; one past the end is the end, one inside a character is that character.
    pub fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl ManifestError {
    /// Line and column of a finding's first byte.
    pub fn position(&self, diagnostic: &Diagnostic) -> Position {
        Position::of(&self.text, diagnostic.span.start)
    }
}

impl fmt::Display for ManifestError {
    /// The first finding as `path:line:column: message`, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.diagnostics.first() else {
            return write!(f, "{}: not a usable manifest", self.path.display());
        };
        write!(f, "{}:{}: {}", self.path.display(), self.position(first), first.message)?;
        match self.diagnostics.len() - 1 {
            0 => Ok(()),
            1 => f.write_str(" (and one more error)"),
            more => write!(f, " (and {more} more errors)"),
        }
    }
}
