//! A compose file as an igloo.toml: `igloo init --from`.
//!
//! Everything that has a counterpart is carried over; what has none is told, with its line, and left out. An image that
//! igloo knows packages for becomes packages, if that is wanted; the others stay images.

mod known;
mod service;
mod text;
mod yaml;

use std::collections::BTreeMap;
use std::fmt::Write;

use yaml::Node;

/// What may be decided about an import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The project's name, unless the file says one.
    pub name: String,
    /// Debian suite that packages are taken from; without one, all services stay images.
    pub suite: Option<String>,
    /// The registry of images that name none.
    pub registry: Option<String>,
    /// Variables of the file's `.env`.
    pub variables: BTreeMap<String, String>,
}

/// An imported project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The text of igloo.toml.
    pub text: String,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Line in the compose file.
    pub line: usize,
    /// What.
    pub text: String,
}

/// A file that is no compose file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct BadCompose {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub text: String,
}

/// What an import has come to so far.
struct Import<'o> {
    options: &'o Options,
    notes: Vec<Note>,
    /// Whether packages are taken.
    packages: bool,
}

impl Import<'_> {
    fn note(&mut self, node: &Node, text: impl Into<String>) {
        self.notes.push(Note { line: node.line, text: text.into() });
    }
}

/// Converts a compose file.
pub fn import(text: &str, options: &Options) -> Result<Imported, BadCompose> {
    let file = yaml::parse(text).map_err(|e| BadCompose { line: e.line, text: e.text })?;
    let services = file.get("services").filter(|s| !s.entries().is_empty());
    let services = services.ok_or_else(|| BadCompose { line: 1, text: "there are no `services`".to_owned() })?;
    let mut import = Import { options, notes: Vec::new(), packages: false };
    let mut body = String::new();
    for (name, node) in services.entries() {
        body.push('\n');
        body.push_str(&service::service(&mut import, name, node, &file)?);
    }
    for (key, node) in file.entries() {
        match key.as_str() {
            "services" | "name" | "version" | "volumes" | "secrets" => {}
            key if key.starts_with("x-") => {}
            "networks" => import.note(node, "networks: all services of a project are in one network of its own"),
            _ => import.note(node, format!("`{key}` is left out")),
        }
    }
    let name = file.get("name").and_then(Node::text).unwrap_or(&options.name);
    let mut out = format!("[project]\nname = {}\n", quoted(&slug(name)));
    if let (true, Some(suite)) = (import.packages, &options.suite) {
        let _ = write!(out, "\n[sources.debian]\nsuite = {}\n", quoted(suite));
    }
    out.push_str(&body);
    import.notes.sort_by_key(|note| note.line);
    Ok(Imported { text: out, notes: import.notes })
}

/// A name that igloo takes.
fn slug(text: &str) -> String {
    let slug: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    match slug.trim_matches(['-', '_']) {
        "" => "project".to_owned(),
        good => good.chars().take(64).collect(),
    }
}

/// A string of TOML's.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    format!("[{}]", items.into_iter().map(|i| quoted(i.as_ref())).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
