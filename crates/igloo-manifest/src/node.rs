//! A TOML document as plain values with spans: what the manifest and an edited lock are read from.

use std::borrow::Cow;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike};

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    pub(crate) span: Range<usize>,
    pub(crate) value: Value<'a>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Date,
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
}

/// A key of a table and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) key_span: Range<usize>,
    pub(crate) node: Node<'a>,
}

/// A text that is no TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotToml {
    pub(crate) message: String,
    pub(crate) span: Range<usize>,
}

impl Node<'_> {
    /// Reads a whole document; its node is a table.
    pub(crate) fn parse(text: &str) -> Result<Node<'static>, NotToml> {
        let document = Document::parse(text).map_err(|e| {
            let message = e.message().trim().replace('\n', ", ");
            NotToml { message, span: e.span().unwrap_or(0..0) }
        })?;
        Ok(Node { span: 0..0, value: Value::Table(entries(document.as_table())) })
    }

    /// What the value is, with an article.
    pub(crate) fn what(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Date => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// Where the words of a text are: without the quotes, if it is written without escapes.
    pub(crate) fn inner_span(&self, text: &str) -> Range<usize> {
        let (start, end) = (self.span.start, self.span.end);
        if let Value::Text(value) = &self.value
            && end - start == value.len() + 2
            && text.get(start + 1..end - 1) == Some(value)
        {
            return start + 1..end - 1;
        }
        self.span.clone()
    }
}

fn entries(table: &dyn TableLike) -> Vec<Entry<'static>> {
    let entry = |(name, item): (&str, &Item)| {
        let key_span = table.key(name).and_then(toml_edit::Key::span).unwrap_or(0..0);
        let span = item.span().unwrap_or_else(|| key_span.clone());
        Some(Entry { key: Cow::Owned(name.to_owned()), node: Node { span, value: value(item)? }, key_span })
    };
    table.iter().filter_map(entry).collect()
}

fn value(item: &Item) -> Option<Value<'static>> {
    Some(match item {
        Item::None => return None,
        Item::Value(value) => plain(value),
        Item::Table(table) => Value::Table(entries(table)),
        Item::ArrayOfTables(tables) => Value::List(
            tables
                .iter()
                .map(|table| Node { span: table.span().unwrap_or(0..0), value: Value::Table(entries(table)) })
                .collect(),
        ),
    })
}

fn plain(value: &toml_edit::Value) -> Value<'static> {
    match value {
        toml_edit::Value::String(text) => Value::Text(Cow::Owned(text.value().clone())),
        toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
        toml_edit::Value::Float(number) => Value::Float(*number.value()),
        toml_edit::Value::Boolean(flag) => Value::Flag(*flag.value()),
        toml_edit::Value::Datetime(_) => Value::Date,
        toml_edit::Value::Array(array) => {
            Value::List(array.iter().map(|v| Node { span: v.span().unwrap_or(0..0), value: plain(v) }).collect())
        }
        toml_edit::Value::InlineTable(table) => Value::Table(entries(table)),
    }
}
