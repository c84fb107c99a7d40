//! Patterns of `exclude`: which names and paths below a copied directory stay out.

use crate::words::BadText;

/// A pattern. Without a slash it speaks of a name, wherever that is; with one, of a path from the copied directory on.
/// `*` is any part of a name, `?` one character, `[a-z]` and `[!a-z]` one of some, `**` any number of directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<String>,
    anywhere: bool,
}

impl Glob {
    /// Reads a pattern; one that could never match, or that people read in two ways, is refused.
    pub fn parse(text: &str) -> Result<Self, BadText> {
        let bad = |why: &str, help: &str| Err(BadText::new(format!("`{text}` {why}"), help));
        if text.is_empty() || text.contains('\0') {
            return bad("is no pattern", "write a name, `target`, or a pattern, `*.pyc`");
        }
        if text.starts_with('/') || text.ends_with('/') {
            let trimmed = text.trim_matches('/');
            return bad("must not begin or end with a slash", &format!("write `{trimmed}`"));
        }
        if text.starts_with('!') {
            return bad("would put something in again, which is not possible", "list only what stays out");
        }
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        for part in &parts {
            if matches!(part.as_str(), "" | "." | "..") {
                return bad("is no path below the copied directory", "leave out `.`, `..` and double slashes");
            }
            if part.contains("**") && part != "**" {
                return bad("has `**` beside something else", "`**` stands alone between slashes");
            }
            if !is_closed(part) {
                return bad("has a `[` that nothing closes", "write `[[]` for the character itself");
            }
        }
        if parts.last().is_some_and(|last| last == "**") {
            return bad("ends in `**`", "a directory that is left out takes everything below it along");
        }
        Ok(Self { text: text.to_owned(), anywhere: parts.len() == 1, parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if a path below the copied directory, given by its components, stays out.
    pub fn matches(&self, path: &[&[u8]]) -> bool {
        match (self.anywhere, path) {
            (true, [.., name]) => matches_name(self.parts[0].as_bytes(), name),
            _ => matches_path(&self.parts, path),
        }
    }
}

/// As [`matches_name`], of components: goes back to the last `**` only.
fn matches_path(parts: &[String], path: &[&[u8]]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut any: Option<(usize, usize)> = None;
    while n < path.len() {
        match parts.get(p) {
            Some(part) if part == "**" => {
                any = Some((p, n));
                p += 1;
            }
            Some(part) if matches_name(part.as_bytes(), path[n]) => (p, n) = (p + 1, n + 1),
            _ => match any {
                Some((at, from)) => {
                    (p, n) = (at + 1, from + 1);
                    any = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| part == "**")
}

/// Goes back to the last `*` only, so that no pattern takes more than the product of both lengths.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(c) => (*c == name[n]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((at, from))) => {
                (p, n) = (at + 1, from + 1);
                star = Some((at, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Length of the class that the pattern begins with, if the character is in it.
fn class(pattern: &[u8], c: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    // One right at the beginning is a member.
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|c| *c == b']')?;
    let members = &pattern[first..end];
    let mut found = false;
    let mut i = 0;
    while i < members.len() {
        let (low, high, length) = match members[i..] {
            [low, b'-', high, ..] => (low, high, 3),
            [one, ..] => (one, one, 1),
            [] => break,
        };
        found |= (low..=high).contains(&c);
        i += length;
    }
    (found != negated).then_some(end + 1)
}

fn is_closed(part: &str) -> bool {
    let bytes = part.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'[' {
            let first = if matches!(bytes.get(i + 1), Some(b'!' | b'^')) { i + 2 } else { i + 1 };
            match bytes.get(first + 1..).and_then(|rest| rest.iter().position(|c| *c == b']')) {
                Some(at) => i = first + 1 + at,
                None => return false,
            }
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str) -> bool {
        let path: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        Glob::parse(pattern).expect(pattern).matches(&path)
    }

    #[test]
    fn names_match_anywhere_and_paths_from_the_top() {
        for (pattern, path) in [
            ("target", "target"),
            ("target", "a/target"),
            ("*.pyc", "a/b/c.pyc"),
            ("*", "x"),
            ("a*b*c", "aXbYbc"),
            ("?.o", "x.o"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[[]", "["),
            ("build/*.o", "build/x.o"),
            ("**/cache", "cache"),
            ("**/cache", "a/b/cache"),
            ("a/**/z", "a/z"),
            ("a/**/z", "a/b/c/z"),
        ] {
            assert!(check(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("target", "targets"),
            ("*.pyc", "c.py"),
            ("build/*.o", "a/build/x.o"),
            ("build/*.o", "build/a/x.o"),
            ("?", "ab"),
            ("[a-c]", "d"),
            ("[!a-c]", "a"),
            ("a/**/z", "b/z"),
            ("ab*", "a"),
        ] {
            assert!(!check(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_could_never_match_are_refused() {
        for bad in ["", "/x", "x/", "a//b", "../x", "./x", "a**", "x/**", "**", "[ab", "!x", "a\0", "[]"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stars_take_no_exponential_time() {
        let pattern = "a*".repeat(30) + "b";
        assert!(!check(&pattern, &"a".repeat(5000)));
        // Found by the fuzz target `glob`.
        let pattern = "**/a/".repeat(30) + "b";
        assert!(!check(&pattern, &("a/".repeat(2000) + "a")));
    }
}
