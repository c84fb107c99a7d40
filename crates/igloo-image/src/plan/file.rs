//! The plan as a file: TOML, sorted and versioned, made to be read in diffs.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use super::prior::Volatility;
use super::{Group, Layer, Plan};

/// Plans are written in this version of the format, and older ones are read.
pub const VERSION: i64 = 1;

/// Bytes of a plan file that are read at most: a plan of a thousand images stays below a tenth of that.
const MOST_BYTES: usize = 64 << 20;

const HEAD: &str = "\
# Written by `igloo image plan`; keep it under version control. Images have these layers in this order, bottom first;
# an image takes the layers whose packages it has. `igloo image plan --explain` says why a package lies where it lies.
";

/// A plan file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something in it is not as it must be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Character in the line, from 1.
        column: usize,
        /// What is wrong, lower case.
        message: String,
    },
    /// It was written by a newer igloo.
    #[error("{} is a plan of version {found}, this igloo reads up to {VERSION}: update igloo", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

struct Bad {
    message: String,
    span: Option<Range<usize>>,
}

type Result<T> = std::result::Result<T, Bad>;

fn bad<T>(span: Option<Range<usize>>, message: impl Into<String>) -> Result<T> {
    Err(Bad { message: message.into(), span })
}

impl Plan {
    /// Reads a plan file's text; `path` is for messages.
    ///
    /// # Errors
    /// If it is no TOML, has keys that are unknown, missing or of the wrong kind, names a group twice, a package twice in a
    /// layer or in two groups, or was written by a newer igloo.
    pub fn parse(text: &str, path: &Path) -> std::result::Result<Plan, PlanError> {
        let place = |bad: Bad| {
            let (line, column) = position(text, bad.span.map_or(0, |span| span.start));
            PlanError::Syntax { path: path.to_owned(), line, column, message: bad.message }
        };
        if text.len() > MOST_BYTES {
            return Err(place(Bad { message: format!("this is larger than {MOST_BYTES} bytes"), span: None }));
        }
        if let Some(at) = if text.starts_with("<<<<<<< ") { Some(0) } else { text.find("\n<<<<<<< ").map(|at| at + 1) }
        {
            let message = "an unresolved merge conflict: take either side, then run `igloo image plan`".to_owned();
            return Err(place(Bad { message, span: Some(at..at) }));
        }
        let document = Document::parse(text)
            .map_err(|e| place(Bad { message: e.message().trim().replace('\n', ", "), span: e.span() }))?;
        let table = document.as_table();
        let found = match table.get("version") {
            None => {
                return Err(place(Bad {
                    message: "there is no `version`: this is no plan of igloo's".into(),
                    span: None,
                }));
            }
            Some(item) => item.as_integer().filter(|version| *version > 0).ok_or_else(|| {
                place(Bad { message: "`version` must be a whole number from 1".into(), span: item.span() })
            })?,
        };
        if found > VERSION {
            return Err(PlanError::Newer { path: path.to_owned(), found });
        }
        plan(table).map_err(place)
    }

    /// The text of the plan's file; what [`Plan::parse`] reads back.
    pub fn render(&self) -> String {
        let mut out = format!("{HEAD}version = {VERSION}\n");
        for group in &self.groups {
            let _ = write!(out, "\n[[group]]\nname = {}\n", text(&group.name));
            for layer in &group.layers {
                out.push_str("[[group.layer]]\n");
                list(&mut out, "images", &layer.images);
                list(&mut out, "packages", &layer.packages);
            }
        }
        if !self.sources.is_empty() {
            out.push_str("\n# How often a source changes, by what is known.\n[sources]\n");
        }
        for (name, source) in &self.sources {
            let evidence: Vec<String> = source.evidence.iter().map(|evidence| text(evidence)).collect();
            let evidence = evidence.join(", ");
            let _ = writeln!(out, "{} = {{ per_year = {:?}, evidence = [{evidence}] }}", text(name), source.per_year);
        }
        out
    }
}

fn list(out: &mut String, key: &str, words: &[String]) {
    let _ = writeln!(out, "{key} = [");
    for word in words {
        let _ = writeln!(out, "  {},", text(word));
    }
    out.push_str("]\n");
}

/// A TOML text with its quotes.
fn text(words: &str) -> String {
    let mut out = String::with_capacity(words.len() + 2);
    out.push('"');
    for c in words.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

fn plan(table: &dyn TableLike) -> Result<Plan> {
    known(table, &["version", "group", "sources"], "a plan")?;
    let mut plan = Plan::default();
    let mut names = HashSet::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for (index, found) in tables(table.get("group"), "group")?.into_iter().enumerate() {
        known(found, &["name", "layer"], "a group")?;
        let (name, span) = string(found, "name", "a group")?;
        if !names.insert(name.clone()) {
            return bad(span, format!("there are two groups `{name}`"));
        }
        let mut layers = Vec::new();
        for layer in tables(found.get("layer"), "layer")? {
            known(layer, &["images", "packages"], "a layer")?;
            let mut packages = Vec::new();
            for (package, span) in strings(layer, "packages")? {
                if *at.entry(package.clone()).or_insert(index) != index {
                    return bad(span, format!("`{package}` is in another group, too: a package lies in one"));
                }
                if packages.contains(&package) {
                    return bad(span, format!("`{package}` is in this layer twice"));
                }
                packages.push(package);
            }
            packages.sort_unstable();
            let mut images: Vec<String> = strings(layer, "images")?.into_iter().map(|(name, _)| name).collect();
            images.sort_unstable();
            images.dedup();
            layers.push(Layer { packages, images });
        }
        plan.groups.push(Group { name, layers });
    }
    if let Some(item) = table.get("sources") {
        let Some(sources) = item.as_table_like() else {
            return bad(item.span(), "`sources` must be a table");
        };
        for (name, item) in sources.iter() {
            let Some(source) = item.as_table_like() else {
                return bad(item.span(), format!("`{name}` must be a table with `per_year` and `evidence`"));
            };
            known(source, &["per_year", "evidence"], "a source")?;
            let rate = source.get("per_year");
            let per_year = rate.and_then(|rate| rate.as_float().or_else(|| rate.as_integer().map(|n| n as f64)));
            let Some(per_year) = per_year.filter(|rate| rate.is_finite() && *rate >= 0.0) else {
                let span = rate.map_or_else(|| item.span(), Item::span);
                return bad(span, format!("`{name}` needs `per_year`, a number from 0"));
            };
            let evidence = strings(source, "evidence")?.into_iter().map(|(text, _)| text).collect();
            plan.sources.insert(name.to_owned(), Volatility { per_year, evidence });
        }
    }
    Ok(plan)
}

fn known(table: &dyn TableLike, keys: &[&str], what: &str) -> Result<()> {
    for (key, item) in table.iter() {
        if !keys.contains(&key) {
            let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            return bad(span, format!("{what} has no key `{key}`, it has {}", keys.join(", ")));
        }
    }
    Ok(())
}

fn tables<'a>(item: Option<&'a Item>, key: &str) -> Result<Vec<&'a dyn TableLike>> {
    match item {
        None => Ok(Vec::new()),
        Some(Item::ArrayOfTables(tables)) => Ok(tables.iter().map(|table| table as &dyn TableLike).collect()),
        Some(item) => bad(item.span(), format!("`{key}` must be written as [[{key}]]")),
    }
}

fn string(table: &dyn TableLike, key: &str, what: &str) -> Result<(String, Option<Range<usize>>)> {
    match table.get(key) {
        None => bad(table.iter().next().and_then(|(_, item)| item.span()), format!("{what} needs `{key}`")),
        Some(item) => match item.as_str() {
            Some("") | None => bad(item.span(), format!("`{key}` must be a text that isn't empty")),
            Some(text) => Ok((text.to_owned(), item.span())),
        },
    }
}

fn strings(table: &dyn TableLike, key: &str) -> Result<Vec<(String, Option<Range<usize>>)>> {
    let Some(item) = table.get(key) else {
        return bad(table.iter().next().and_then(|(_, item)| item.span()), format!("`{key}` is missing"));
    };
    let Some(array) = item.as_array() else {
        return bad(item.span(), format!("`{key}` must be a list of texts"));
    };
    let text = |value: &toml_edit::Value| match value.as_str() {
        Some("") | None => bad(value.span(), format!("`{key}` must be a list of texts that aren't empty")),
        Some(text) => Ok((text.to_owned(), value.span())),
    };
    array.iter().map(text).collect()
}
