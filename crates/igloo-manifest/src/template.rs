//! Values of a service's `env` that ask the machine they run on: `${NAME}`, with the usual ways to do without.
//!
//! | | |
//! |---|---|
//! | `${NAME}` | the variable, of who brings it up or of the project's `.env`; without one, `up` fails |
//! | `${NAME:-text}` | `text` if there is none or an empty one |
//! | `${NAME-text}` | `text` if there is none |
//! | `${NAME:+text}`, `${NAME+text}` | `text` if there is one (that isn't empty), else nothing |
//! | `${NAME:?why}`, `${NAME?why}` | fails with `why` |
//! | `$$` | a dollar sign |
//!
//! `text` may hold the same again. A dollar sign before anything else is one.

use crate::words::{self, BadText};

/// A variable that is needed and not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// Its name.
    pub name: String,
    /// Why it is needed, if the value says.
    pub why: String,
}

/// Deeper than anybody nests.
const DEEPEST: usize = 16;

/// Whether the value can be understood.
pub(crate) fn check(text: &str) -> Result<(), BadText> {
    // Every way through it, of which there are as many as there are parts.
    parse(text, 0).map(drop)
}

/// Whether the value depends on the machine.
pub fn asks(text: &str) -> bool {
    parse(text, 0).is_ok_and(|parts| parts.iter().any(|p| matches!(p, Part::Variable { .. })))
}

/// The value with variables as `lookup` knows them. One that makes no sense stays as it is.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Unset> {
    let Ok(parts) = parse(text, 0) else { return Ok(text.to_owned()) };
    let mut value = String::new();
    for part in parts {
        match part {
            Part::Text(text) => value.push_str(&text),
            Part::Variable { name, empty_counts, or } => {
                let found = lookup(&name).filter(|v| empty_counts || !v.is_empty());
                match (found, or) {
                    (Some(_), Or::Instead(text)) => value.push_str(&expand(&text, lookup)?),
                    (None, Or::Instead(_)) => {}
                    (Some(found), _) => value.push_str(&found),
                    (None, Or::Text(text)) => value.push_str(&expand(&text, lookup)?),
                    (None, Or::Fail(why)) => return Err(Unset { name, why }),
                }
            }
        }
    }
    Ok(value)
}

enum Part {
    Text(String),
    Variable { name: String, empty_counts: bool, or: Or },
}

/// What if there is no such variable; `Instead`: what if there is.
enum Or {
    Fail(String),
    Text(String),
    Instead(String),
}

fn parse(text: &str, depth: usize) -> Result<Vec<Part>, BadText> {
    let help = "`${NAME}`, `${NAME:-default}`, `${NAME:?why}`, `${NAME:+text}`; `$$` is a dollar sign";
    let bad = |message: String| BadText::new(message, help);
    if depth > DEEPEST {
        return Err(bad("too many `${` in each other".to_owned()));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(rest[..at].to_owned()));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            parts.push(Part::Text("$".to_owned()));
            rest = after;
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            parts.push(Part::Text("$".to_owned()));
            continue;
        };
        let end = closing(inner).ok_or_else(|| bad(format!("`${{` in `{text}` is never closed")))?;
        rest = &inner[end + 1..];
        let inner = &inner[..end];
        let name_end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, operator) = inner.split_at(name_end);
        words::variable(name).map_err(|e| bad(e.message))?;
        let (empty_counts, operator) = match operator.strip_prefix(':') {
            Some(operator) => (false, operator),
            None => (true, operator),
        };
        let mut letters = operator.chars();
        let or = match (letters.next(), letters.as_str()) {
            (None, _) if empty_counts => Or::Fail(String::new()),
            (Some('?'), why) => Or::Fail(why.to_owned()),
            (Some('-'), text) => Or::Text(text.to_owned()),
            (Some('+'), text) => Or::Instead(text.to_owned()),
            _ => return Err(bad(format!("`${{{inner}}}` makes no sense"))),
        };
        if let Or::Text(text) | Or::Instead(text) = &or {
            parse(text, depth + 1)?;
        }
        parts.push(Part::Variable { name: name.to_owned(), empty_counts, or });
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// Where the brace ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn values_ask_the_machine() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("${HOST}", "db.example"),
            ("pg://${HOST}:${PORT:-5432}/x", "pg://db.example:5432/x"),
            ("${EMPTY:-full}${EMPTY-not}", "full"),
            ("${NONE-}", ""),
            ("${NONE:-${HOST:-x}}!", "db.example!"),
            ("${HOST:+yes}${NONE:+no}${EMPTY+there}${EMPTY:+not}", "yesthere"),
            ("$$HOST costs $5, $${HOST}", "$HOST costs $5, ${HOST}"),
            ("${NONE:-a}b}", "ab}"),
            ("$", "$"),
        ] {
            assert_eq!(expand(text, &machine).as_deref(), Ok(wanted), "{text}");
            assert!(check(text).is_ok(), "{text}");
        }
        assert_eq!(expand("${NONE}", &machine), Err(Unset { name: "NONE".into(), why: String::new() }));
        assert_eq!(expand("${EMPTY:?say it}", &machine), Err(Unset { name: "EMPTY".into(), why: "say it".into() }));
        assert!(asks("a${HOST}") && !asks("$${HOST} $HOST"));
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["${HOST", "${}", "${1A}", "${A B}", "${A:}", "${A:=x}", "${A:-${B}", "${A:-${}}"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check(&"${A:-".repeat(40)).is_err());
    }
}
