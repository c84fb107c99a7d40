//! Words to fields: what a word of a script is known to become.

use super::ast::{Part, Word};
use super::walk::Walker;
use crate::EnvError;

/// A field whose text is known, or is not.
pub(crate) type Field = Option<String>;

/// Most fields of one word; more means that something runs away.
const MAX_FIELDS: usize = 10_000;

impl Walker<'_, '_> {
    /// Expands words with field splitting and file name matching.
    pub(crate) fn fields(&mut self, words: &[Word]) -> Result<Vec<Field>, EnvError> {
        let mut fields = Vec::new();
        for word in words {
            self.split(word, &mut fields)?;
            fields.truncate(MAX_FIELDS);
        }
        Ok(fields)
    }

    fn split(&mut self, word: &Word, out: &mut Vec<Field>) -> Result<(), EnvError> {
        // `None` is a field that has not begun; what is quoted begins one even if empty.
        let mut current: Option<Field> = None;
        let mut pattern = false;
        for part in word {
            let (value, quoted) = match part {
                Part::Parameter { name, op: None, quoted } if name == "@" || (name == "*" && !quoted) => {
                    for (i, value) in self.params.clone().into_iter().enumerate() {
                        if i > 0 {
                            out.extend(current.take());
                        }
                        append(&mut current, value);
                    }
                    continue;
                }
                Part::Literal { text, quoted } => (Some(text.clone()), *quoted),
                Part::Parameter { quoted, .. } | Part::Command { quoted, .. } => (self.part(part)?, *quoted),
                Part::Arithmetic => (None, true),
            };
            let literal = matches!(part, Part::Literal { .. });
            if let (Some(text), false) = (&value, quoted) {
                pattern |= text.contains(['*', '?', '[']);
                if !literal {
                    let mut first = true;
                    if text.starts_with(char::is_whitespace) {
                        out.extend(current.take());
                    }
                    for piece in text.split_whitespace() {
                        if !first {
                            out.extend(current.take());
                        }
                        append(&mut current, Some(piece.to_owned()));
                        first = false;
                    }
                    if text.ends_with(char::is_whitespace) && !first {
                        out.extend(current.take());
                    }
                    continue;
                }
            }
            append(&mut current, value);
        }
        match current {
            Some(Some(text)) if pattern && text.starts_with('/') => {
                let found = self.glob(&text);
                if found.is_empty() {
                    out.push(Some(text));
                }
                out.extend(found.into_iter().map(Some));
            }
            other => out.extend(other),
        }
        Ok(())
    }

    /// Expands a word to one string: for assignments, `case` and redirections.
    pub(crate) fn text(&mut self, word: &Word) -> Result<Field, EnvError> {
        let mut text = Some(String::new());
        for part in word {
            let value = match part {
                Part::Literal { text, .. } => Some(text.clone()),
                Part::Parameter { name, op: None, .. } if name == "@" || name == "*" => {
                    self.params.iter().cloned().collect::<Option<Vec<_>>>().map(|p| p.join(" "))
                }
                part => self.part(part)?,
            };
            match (&mut text, value) {
                (Some(text), Some(value)) if text.len() + value.len() < 1 << 16 => text.push_str(&value),
                _ => text = None,
            }
        }
        Ok(text)
    }

    fn part(&mut self, part: &Part) -> Result<Field, EnvError> {
        Ok(match part {
            Part::Literal { text, .. } => Some(text.clone()),
            Part::Arithmetic => None,
            Part::Command { body, .. } => self.substitute(body)?,
            Part::Parameter { name, op, .. } => {
                let value = self.variable(name);
                let Some((op, word)) = op else { return Ok(value) };
                let set = match name.parse::<usize>() {
                    Ok(n) => n <= self.params.len(),
                    Err(_) => self.vars.contains_key(name),
                };
                match (*op, value) {
                    ("len", value) => value.map(|v| v.chars().count().to_string()),
                    (":-" | ":=", Some(v)) if v.is_empty() => {
                        let word = self.text(word)?;
                        if *op == ":=" {
                            self.vars.insert(name.clone(), word.clone());
                        }
                        word
                    }
                    ("-" | "=", Some(_)) if !set => self.text(word)?,
                    (":+", Some(v)) => {
                        if v.is_empty() {
                            Some(v)
                        } else {
                            self.text(word)?
                        }
                    }
                    ("+", Some(v)) => {
                        if set {
                            self.text(word)?
                        } else {
                            Some(v)
                        }
                    }
                    (":+" | "+", None) => None,
                    ("%" | "%%" | "#" | "##", Some(v)) => {
                        let pattern = self.text(word)?;
                        pattern.map(|p| strip(&v, &p, op))
                    }
                    (_, value) => value,
                }
            }
        })
    }

    /// Existing paths that match an absolute pattern.
    fn glob(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for component in pattern.split('/').filter(|c| !c.is_empty()) {
            let mut next = Vec::new();
            for dir in found {
                if component.contains(['*', '?', '[']) {
                    let names = self.layer.list(dir.trim_start_matches('/'));
                    let fits =
                        |n: &String| (!n.starts_with('.') || component.starts_with('.')) && matches(component, n);
                    next.extend(names.into_iter().filter(fits).map(|n| format!("{dir}/{n}")));
                } else if self.layer.lstat(&format!("{dir}/{component}")).is_some() {
                    next.push(format!("{dir}/{component}"));
                }
                if next.len() > MAX_FIELDS {
                    return Vec::new();
                }
            }
            found = next;
        }
        found
    }
}

fn append(current: &mut Option<Field>, value: Field) {
    *current = Some(match (current.take(), value) {
        (None, value) => value,
        (Some(Some(mut text)), Some(value)) => {
            text.push_str(&value);
            Some(text)
        }
        _ => None,
    });
}

/// `${v#pattern}` and its kin.
fn strip(value: &str, pattern: &str, op: &str) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(i, _)| i).chain([value.len()]).collect();
    if op == "##" || op == "%" {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        if op.starts_with('#') && matches(pattern, head) {
            return tail.to_owned();
        }
        if op.starts_with('%') && matches(pattern, tail) {
            return head.to_owned();
        }
    }
    value.to_owned()
}

/// Shell patterns: `*`, `?`, `[a-z]`, `[!x]`. Backtracks at stars only, so time is at most the product of the lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        let step = match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
                continue;
            }
            Some('?') => Some(i + 1),
            Some('[') => class(&p, i, t[j]),
            Some('\\') if i + 1 < p.len() => (p[i + 1] == t[j]).then_some(i + 2),
            Some(c) => (*c == t[j]).then_some(i + 1),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => {
                i = next;
                j += 1;
            }
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                i = at + 1;
                j = from + 1;
            }
            (None, None) => return false,
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

/// Matches one sign against a bracket at `p[i]`; the place behind it.
fn class(p: &[char], i: usize, c: char) -> Option<usize> {
    let mut at = i + 1;
    let not = matches!(p.get(at), Some('!' | '^'));
    at += usize::from(not);
    let (mut hit, start) = (false, at);
    loop {
        match p.get(at) {
            None => return (c == '[').then_some(i + 1),
            Some(']') if at > start => break,
            Some(low) => {
                if p.get(at + 1) == Some(&'-') && p.get(at + 2).is_some_and(|h| *h != ']') {
                    hit |= *low <= c && c <= p[at + 2];
                    at += 3;
                } else {
                    hit |= *low == c;
                    at += 1;
                }
            }
        }
    }
    (hit != not).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("?b", "ab"), ("[a-c]x", "bx"), ("[!a]x", "bx"), ("*.so.*", "l.so.1")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("?", ""), ("[a-c]x", "dx"), ("a*c", "abd"), ("[!a]x", "ax")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn stripping() {
        assert_eq!(strip("a/b/c", "*/", "##"), "c");
        assert_eq!(strip("a/b/c", "*/", "#"), "b/c");
        assert_eq!(strip("a.b.c", ".*", "%"), "a.b");
        assert_eq!(strip("a.b.c", ".*", "%%"), "a");
        assert_eq!(strip("abc", "x", "%"), "abc");
    }
}
