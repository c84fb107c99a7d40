//! Texts of compose files: variables in them, and commands as a shell splits them.

use std::fmt::Write as _;

use super::yaml::{Node, Value};
use super::{BadCompose, Import};
use crate::template;

/// A value with variables put in: those of `.env`, or their defaults.
pub(super) fn value(import: &Import<'_>, text: &str) -> String {
    let braced = braced(text);
    let lookup = |name: &str| Some(import.options.variables.get(name).cloned().unwrap_or_default());
    template::expand(&braced, &lookup).unwrap_or(braced)
}

/// `$NAME` as `${NAME}`.
fn braced(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name: usize = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        if let Some(more) = after.strip_prefix('$') {
            out.push_str("$$");
            rest = more;
        } else if name > 0 && !after.starts_with(|c: char| c.is_ascii_digit()) {
            let _ = write!(out, "${{{}}}", &after[..name]);
            rest = &after[name..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// A value of `environment`: asked for when the service starts, since what it asks for may be secret. As compose has it, a
/// variable that isn't set is empty.
pub(super) fn asked(text: &str) -> String {
    let braced = braced(text);
    let mut out = String::new();
    let mut rest = braced.as_str();
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        // A dollar sign, a variable, or nothing of either kind.
        let length = match from.strip_prefix("${") {
            Some(name) => 2 + name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len()),
            None if from.starts_with("$$") => 2,
            None => 1,
        };
        let (taken, after) = from.split_at(length);
        out.push_str(taken);
        if taken.len() > 2 && after.starts_with('}') {
            out.push_str(":-");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A command: a list, or a text that is split as a shell would.
pub(super) fn words(import: &Import<'_>, node: &Node) -> Result<Vec<String>, BadCompose> {
    match &*node.value {
        Value::List(items) => Ok(items.iter().filter_map(Node::text).map(|t| value(import, t)).collect()),
        Value::Text(Some(text)) => split(&value(import, text))
            .ok_or_else(|| BadCompose { line: node.line, text: format!("a quote of `{text}` is not closed") }),
        _ => Ok(Vec::new()),
    }
}

fn split(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(chars.next()?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => all.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    Some(all)
}
