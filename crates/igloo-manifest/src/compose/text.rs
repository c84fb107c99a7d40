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

/// A value of `environment`: asked for when the service starts, with what `.env` has as the default. As compose has it, a
/// variable that isn't set is empty.
pub(super) fn asked(import: &Import<'_>, text: &str) -> String {
    let braced = braced(text);
    let mut out = String::new();
    let mut rest = braced.as_str();
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at + 2]);
        let after = &rest[at + 2..];
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        let name = &after[..end];
        out.push_str(name);
        rest = &after[end..];
        if let Some(known) = import.options.variables.get(name).filter(|_| rest.starts_with(['}', ':', '-'])) {
            let close = rest.find('}').unwrap_or(0);
            let _ = write!(out, ":-{}", known.replace('$', "$$").replace('}', ""));
            rest = &rest[close..];
        } else if rest.starts_with('}') {
            out.push_str(":-");
        }
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
