//! Reading tables strictly: unknown keys, missing keys and wrong types become diagnostics, and reading goes on.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Diagnostic;
use crate::keys::{Key, Kind, Table};
use crate::node::{Entry, Node, Value};
use crate::words::BadText;

/// The text and what was found wrong with it so far.
pub(crate) struct Context<'t> {
    pub(crate) text: &'t str,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Context<'_> {
    /// Adds a finding.
    pub(crate) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        self.diagnostics.push(Diagnostic { message: message.into(), span, label: label.into(), help });
    }

    /// The value, or a finding about the text it should have come from.
    pub(crate) fn good<T>(&mut self, node: &Node, result: Result<T, BadText>) -> Option<T> {
        result.map_err(|bad| self.error(node.inner_span(self.text), bad.message, "", bad.help)).ok()
    }

    /// The same for a key.
    pub(crate) fn good_key<T>(&mut self, entry: &Entry, result: Result<T, BadText>) -> Option<T> {
        result.map_err(|bad| self.error(entry.key_span.clone(), bad.message, "", bad.help)).ok()
    }

    /// A finding about a value of the wrong type.
    pub(crate) fn wrong(&mut self, what: &str, node: &Node, expected: &str, help: Option<String>) {
        let message = format!("`{what}` must be {expected}, not {}", node.what());
        self.error(node.span.clone(), message, format!("expected {expected}"), help);
    }

    /// A text.
    pub(crate) fn text<'n>(&mut self, what: &str, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Flag(_) | Value::Float(_) => {
                let raw = self.text.get(node.span.clone()).unwrap_or_default();
                self.wrong(what, node, "a text", Some(format!("put it in quotes: `\"{raw}\"`")));
                None
            }
            _ => {
                self.wrong(what, node, "a text", None);
                None
            }
        }
    }

    /// A list.
    pub(crate) fn list<'n, 'a>(&mut self, what: &str, node: &'n Node<'a>) -> Option<&'n [Node<'a>]> {
        match &node.value {
            Value::List(list) => Some(list),
            _ => {
                let raw = self.text.get(node.span.clone()).unwrap_or_default();
                let short = raw.len() <= 60 && !raw.contains('\n') && !matches!(node.value, Value::Table(_));
                self.wrong(what, node, "a list", short.then(|| format!("put it in brackets: `[{raw}]`")));
                None
            }
        }
    }

    /// The entries of a table.
    pub(crate) fn entries<'n, 'a>(&mut self, what: &str, node: &'n Node<'a>) -> Option<&'n [Entry<'a>]> {
        match &node.value {
            Value::Table(entries) => Some(entries),
            _ => {
                self.wrong(what, node, "a table", None);
                None
            }
        }
    }

    /// A list of texts; the ones that are none are left out.
    pub(crate) fn texts<'n, 'a>(&mut self, what: &str, node: &'n Node<'a>) -> Vec<(&'n str, &'n Node<'a>)> {
        let Some(list) = self.list(what, node) else { return Vec::new() };
        list.iter().filter_map(|item| Some((self.text(what, item)?, item))).collect()
    }
}

/// A table with known keys.
pub(crate) struct Fields<'n, 'a> {
    table: &'static Table,
    entries: &'n [Entry<'a>],
    /// The keys that were asked for, to prove that no key is known and then ignored.
    asked: Vec<&'static str>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// Reports unknown and missing keys. `span` is what to point at when a key is missing.
    pub(crate) fn open(
        cx: &mut Context,
        table: &'static Table,
        what: &str,
        node: &'n Node<'a>,
        span: Range<usize>,
    ) -> Option<Self> {
        let entries = cx.entries(what, node)?;
        for entry in entries {
            if !table.keys.iter().any(|k| k.name == entry.key) {
                unknown_key(cx, table, entry);
            }
        }
        for key in table.keys.iter().filter(|k| k.required) {
            // A key that is misspelt was already pointed at.
            let misspelt = |e: &Entry| closest(table, &e.key).is_some_and(|k| k.name == key.name);
            if !entries.iter().any(|e| e.key == key.name || misspelt(e)) {
                let message = format!("{} needs `{}`", table.what, key.name);
                cx.error(span.clone(), message, format!("`{}` is missing", key.name), Some(lower(key.doc)));
            }
        }
        Some(Self { table, entries, asked: Vec::new() })
    }

    /// A key's entry, if it is there.
    pub(crate) fn entry(&mut self, name: &'static str) -> Option<&'n Entry<'a>> {
        debug_assert!(self.table.keys.iter().any(|k| k.name == name), "`{name}` is in no table of keys");
        self.asked.push(name);
        self.entries.iter().find(|e| e.key == name)
    }

    /// A key's value, if it is there.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<&'n Node<'a>> {
        self.entry(name).map(|e| &e.node)
    }

    /// A text.
    pub(crate) fn text(&mut self, cx: &mut Context, name: &'static str) -> Option<(&'n str, &'n Node<'a>)> {
        let node = self.get(name)?;
        Some((cx.text(name, node)?, node))
    }

    /// A text with a meaning.
    pub(crate) fn parsed<T>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, BadText>,
    ) -> Option<T> {
        let node = self.get(name)?;
        if let Value::Integer(number) = node.value {
            // `memory = 8`: what is wrong with the text `8` tells more than that it must be one.
            let raw = number.to_string();
            let help = parse(&raw).map_or_else(|bad| bad.help, |_| Some(format!("put it in quotes: `\"{raw}\"`")));
            cx.wrong(name, node, "a text", help);
            return None;
        }
        let text = cx.text(name, node)?;
        cx.good(node, parse(text))
    }

    /// A text as it is, once `check` likes it.
    pub(crate) fn checked(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        check: impl FnOnce(&str) -> Result<(), BadText>,
    ) -> Option<String> {
        self.parsed(cx, name, |text| check(text).map(|()| text.to_owned()))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, cx: &mut Context, name: &'static str) -> Option<bool> {
        let node = self.get(name)?;
        match node.value {
            Value::Flag(flag) => Some(flag),
            _ => {
                cx.wrong(name, node, "true or false", None);
                None
            }
        }
    }

    /// A whole number within the bounds that the table of keys states.
    pub(crate) fn integer(&mut self, cx: &mut Context, name: &'static str) -> Option<i64> {
        let node = self.get(name)?;
        let Value::Integer(number) = node.value else {
            cx.wrong(name, node, "a whole number", None);
            return None;
        };
        let bounds = self.table.keys.iter().find(|k| k.name == name).map(|k| &k.kind);
        if let Some(Kind::Integer(low, high)) = bounds
            && !(*low..=*high).contains(&number)
        {
            let message = format!("`{name}` must be from {low} to {high}");
            cx.error(node.span.clone(), message, format!("{number} is out of range"), None);
            return None;
        }
        Some(number)
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let node = self.get(name)?;
        choice(cx, name, node, choices)
    }

    /// A command: words, at least one.
    pub(crate) fn command(&mut self, cx: &mut Context, name: &'static str) -> Option<Vec<String>> {
        let node = self.get(name)?;
        if let Value::Text(text) = &node.value {
            let words: Vec<_> = text.split_whitespace().map(|w| format!("{w:?}")).collect();
            let simple = !text.is_empty() && !text.contains(['"', '\'', '\\', '$', '|', '&', ';', '<', '>', '*', '\n']);
            let help = if simple {
                format!("write `{name} = [{}]`", words.join(", "))
            } else {
                format!("commands are lists of words; for a shell: `{name} = [\"sh\", \"-c\", \"...\"]`")
            };
            cx.wrong(name, node, "a list of words", Some(help));
            return None;
        }
        let words: Vec<String> = cx.texts(name, node).into_iter().map(|(text, _)| text.to_owned()).collect();
        match &node.value {
            Value::List(list) if list.is_empty() => {
                cx.error(node.span.clone(), format!("`{name}` has no words"), "a command has at least one word", None);
                None
            }
            Value::List(list) if list.len() == words.len() => {
                if let (Some(word), Some(first)) = (words.first().filter(|w| w.is_empty()), list.first()) {
                    cx.error(first.span.clone(), format!("`{name}` begins with the empty word `{word}`"), "", None);
                    return None;
                }
                Some(words)
            }
            _ => None,
        }
    }

    /// Texts by free keys.
    pub(crate) fn map(&mut self, cx: &mut Context, name: &'static str) -> BTreeMap<String, (String, Range<usize>)> {
        let mut map = BTreeMap::new();
        let Some(node) = self.get(name) else { return map };
        for entry in cx.entries(name, node).unwrap_or_default() {
            if let Some(text) = cx.text(&format!("{name}.{}", entry.key), &entry.node) {
                map.insert(entry.key.clone().into_owned(), (text.to_owned(), entry.key_span.clone()));
            }
        }
        map
    }
}

impl Drop for Fields<'_, '_> {
    fn drop(&mut self) {
        // A panic while panicking would hide the first one.
        if !std::thread::panicking() {
            let forgotten = self.table.keys.iter().find(|k| !self.asked.contains(&k.name));
            debug_assert!(forgotten.is_none(), "`{}` is known and never read", forgotten.map_or("", |k| k.name));
        }
    }
}

/// One of some words.
pub(crate) fn choice<T: Copy>(cx: &mut Context, what: &str, node: &Node, choices: &[(&'static str, T)]) -> Option<T> {
    let text = cx.text(what, node)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words = || choices.iter().map(|(word, _)| *word);
    let all: Vec<_> = words().map(|w| format!("`{w}`")).collect();
    let help = match similar(text, words()) {
        Some(word) => format!("did you mean `{word}`? the values are {}", all.join(", ")),
        None => format!("one of {}", all.join(", ")),
    };
    let message = format!("`{text}` is no value of `{what}`");
    cx.error(node.inner_span(cx.text), message, "unknown value", Some(help));
    None
}

fn unknown_key(cx: &mut Context, table: &Table, entry: &Entry) {
    let help = match closest(table, &entry.key) {
        Some(key) => format!("did you mean `{}`? {}", key.name, lower(key.doc)),
        None => {
            let names: Vec<_> = table.keys.iter().map(|k| format!("`{}`", k.name)).collect();
            format!("its keys are {}", names.join(", "))
        }
    };
    let message = format!("{} has no key `{}`", table.what, entry.key);
    cx.error(entry.key_span.clone(), message, "unknown key", Some(help));
}

/// The key that was meant: by another tool's name, or nearly by its own.
fn closest<'k>(table: &'k Table, name: &str) -> Option<&'k Key> {
    let by_other = table.keys.iter().find(|k| k.also.contains(&name));
    by_other.or_else(|| {
        let name = similar(name, table.keys.iter().map(|k| k.name))?;
        table.keys.iter().find(|k| k.name == name)
    })
}

/// The word that `text` was probably meant to be.
pub(crate) fn similar<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |s: &str| s.to_lowercase().replace('_', "-");
    let text = plain(text);
    words
        .map(|word| (strsim::damerau_levenshtein(&text, &plain(word)), word))
        .filter(|(distance, word)| *distance <= word.len().max(text.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A sentence of the schema as the end of a message, without its examples.
fn lower(doc: &str) -> String {
    let doc = doc.split_once(": ").map_or(doc, |(head, _)| head);
    let doc = doc.strip_suffix('.').unwrap_or(doc);
    let mut chars = doc.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
