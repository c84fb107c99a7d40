//! The fast way to read a lock: exactly the subset of TOML that `render` writes.
//!
//! A shell enters in milliseconds and reads the lock each time, so general TOML is too slow here. Whatever is not in
//! the subset (a merge conflict, a hand-written date) is left to the general parser, which also says where it is wrong.

use std::borrow::Cow;
use std::ops::Range;

use crate::node::{Entry, Node, Value};

/// The document, or `None` when it is not in the subset.
pub(super) fn scan(text: &str) -> Option<Node<'_>> {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0 };
    let mut root = Node { span: 0..text.len(), value: Value::Table(Vec::new()) };
    let mut path: Vec<(&str, Range<usize>)> = Vec::new();
    let mut current = &mut root;
    loop {
        scanner.blanks_and_comments();
        match scanner.bytes.get(scanner.at)? {
            0 => return None,
            b'[' => {
                let in_list = scanner.header(&mut path)?;
                current = descend(&mut root, &path, in_list)?;
            }
            _ => {
                let entry = scanner.entry()?;
                let Value::Table(entries) = &mut current.value else { return None };
                if entries.iter().any(|e| e.key == entry.key) {
                    return None;
                }
                entries.push(entry);
            }
        }
        scanner.end_of_line()?;
        if scanner.finished() {
            return Some(root);
        }
    }
}

/// The table of a header, made new: a second `[a]` is no TOML, a second `[[a]]` is one more element.
fn descend<'n, 'a>(
    root: &'n mut Node<'a>,
    path: &[(&'a str, Range<usize>)],
    in_list: bool,
) -> Option<&'n mut Node<'a>> {
    let mut node = root;
    for (i, (name, span)) in path.iter().enumerate() {
        let last = i + 1 == path.len();
        let Value::Table(entries) = &mut node.value else { return None };
        let table = || Node { span: span.clone(), value: Value::Table(Vec::new()) };
        let at = match entries.iter().position(|e| e.key == *name) {
            Some(_) if last && !in_list => return None,
            Some(at) => at,
            None => {
                let value = if last && in_list { Value::List(Vec::new()) } else { Value::Table(Vec::new()) };
                let node = Node { span: span.clone(), value };
                entries.push(Entry { key: Cow::Borrowed(name), key_span: span.clone(), node });
                entries.len() - 1
            }
        };
        let next = &mut entries.get_mut(at)?.node;
        if last && in_list {
            let Value::List(list) = &mut next.value else { return None };
            // An array of values is also a list; its elements are no tables.
            if list.first().is_some_and(|n| !matches!(n.value, Value::Table(_))) {
                return None;
            }
            list.push(table());
            return list.last_mut();
        }
        node = next;
    }
    Some(node)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn finished(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte() == byte).then(|| self.at += 1)
    }

    fn spaces(&mut self) {
        while matches!(self.byte(), b' ' | b'\t') {
            self.at += 1;
        }
    }

    fn blanks_and_comments(&mut self) {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\n' => self.at += 1,
                b'#' => {
                    let end = self.text[self.at..].find('\n').map_or(self.bytes.len(), |n| self.at + n);
                    if self.bytes[self.at..end].iter().any(|c| matches!(c, 0..=8 | 10..=31 | 127)) {
                        return;
                    }
                    self.at = end;
                }
                _ => return,
            }
        }
    }

    /// Nothing more on this line, nor on the empty ones after it.
    fn end_of_line(&mut self) -> Option<()> {
        self.spaces();
        if !self.finished() {
            self.take(b'\n')?;
        }
        self.blanks_and_comments();
        Some(())
    }

    fn key(&mut self) -> Option<(&'a str, Range<usize>)> {
        let start = self.at;
        while self.byte().is_ascii_alphanumeric() || matches!(self.byte(), b'-' | b'_') {
            self.at += 1;
        }
        (self.at > start).then(|| (&self.text[start..self.at], start..self.at))
    }

    /// Reads a header into `path`; true if it is one of a list.
    fn header(&mut self, path: &mut Vec<(&'a str, Range<usize>)>) -> Option<bool> {
        path.clear();
        self.take(b'[')?;
        let in_list = self.take(b'[').is_some();
        loop {
            path.push(self.key()?);
            if self.take(b'.').is_none() {
                break;
            }
        }
        self.take(b']')?;
        if in_list {
            self.take(b']')?;
        }
        Some(in_list)
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let (key, key_span) = match self.byte() {
            b'"' => {
                let start = self.at;
                let text = self.string()?;
                (text, start..self.at)
            }
            _ => self.key().map(|(key, span)| (Cow::Borrowed(key), span))?,
        };
        self.spaces();
        self.take(b'=')?;
        self.spaces();
        Some(Entry { key, key_span, node: self.value()? })
    }

    fn value(&mut self) -> Option<Node<'a>> {
        let start = self.at;
        let value = match self.byte() {
            b'"' => Value::Text(self.string()?),
            b'[' => Value::List(self.list()?),
            b'0'..=b'9' => Value::Integer(self.integer()?),
            _ if self.text[start..].starts_with("true") => self.flag("true")?,
            _ if self.text[start..].starts_with("false") => self.flag("false")?,
            _ => return None,
        };
        Some(Node { span: start..self.at, value })
    }

    fn flag(&mut self, word: &str) -> Option<Value<'a>> {
        self.at += word.len();
        matches!(self.byte(), b'\n' | b' ' | b',' | b']' | 0).then(|| Value::Flag(word == "true"))
    }

    fn integer(&mut self) -> Option<i64> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let follows = matches!(self.byte(), b'\n' | b' ' | b',' | b']' | 0);
        (follows && (digits.len() == 1 || !digits.starts_with('0'))).then(|| digits.parse().ok()).flatten()
    }

    /// Texts only, on one line or on several.
    fn list(&mut self) -> Option<Vec<Node<'a>>> {
        self.take(b'[')?;
        let mut list = Vec::new();
        loop {
            while matches!(self.byte(), b' ' | b'\t' | b'\n') {
                self.at += 1;
            }
            if self.take(b']').is_some() {
                return Some(list);
            }
            let start = self.at;
            let text = self.string()?;
            list.push(Node { span: start..self.at, value: Value::Text(text) });
            self.spaces();
            if self.take(b',').is_none() {
                while matches!(self.byte(), b' ' | b'\t' | b'\n') {
                    self.at += 1;
                }
                self.take(b']')?;
                return Some(list);
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut from = start;
        loop {
            match *self.bytes.get(self.at)? {
                b'"' => {
                    let rest = &self.text[from..self.at];
                    // Three quotes begin a text of several lines.
                    if rest.is_empty() && owned.is_none() && self.bytes.get(self.at + 1) == Some(&b'"') {
                        return None;
                    }
                    self.at += 1;
                    return Some(match owned {
                        None => Cow::Borrowed(rest),
                        Some(mut owned) => {
                            owned.push_str(rest);
                            Cow::Owned(owned)
                        }
                    });
                }
                b'\\' => {
                    let owned = owned.get_or_insert_default();
                    owned.push_str(&self.text[from..self.at]);
                    let (c, length) = match self.bytes.get(self.at + 1)? {
                        b'"' => ('"', 2),
                        b'\\' => ('\\', 2),
                        b'n' => ('\n', 2),
                        b't' => ('\t', 2),
                        b'u' => {
                            let digits = self.text.get(self.at + 2..self.at + 6)?;
                            if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
                                return None;
                            }
                            (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 6)
                        }
                        _ => return None,
                    };
                    owned.push(c);
                    self.at += length;
                    from = self.at;
                }
                0..=31 | 127 => return None,
                _ => self.at += 1,
            }
        }
    }
}
