//! YAML as compose files have it: mappings, lists, scalars, anchors and `<<`, each with its place.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deeper than any compose file; every level of a list or mapping takes some of our stack.
const DEEPEST: usize = 64;
/// More nodes than any compose file has.
const MOST: usize = 100_000;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Rc<Value>,
    /// From 1.
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A scalar, as it is written; nothing for `null`.
    Text(Option<String>),
    List(Vec<Node>),
    /// In the order of the file; of a key that comes twice, the first.
    Map(Vec<(String, Node)>),
}

/// What a file can't be read for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &*self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[(String, Node)] {
        if let Value::Map(entries) = &*self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Value::List(items) = &*self.value { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &*self.value { text.as_deref() } else { None }
    }

    /// A list, or the one thing that is no list.
    pub(super) fn one_or_more(&self) -> Vec<&Node> {
        match &*self.value {
            Value::List(items) => items.iter().collect(),
            Value::Text(None) => Vec::new(),
            _ => vec![self],
        }
    }
}

/// Reads the first document.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { value: Rc::new(Value::Map(Vec::new())), line: 1 }),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => return reader.node(event, span, 0),
        }
    }
}

struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(Fault { line: e.marker().line(), text: e.info().to_owned() }),
            None => Err(Fault { line: 1, text: "it ends too early".to_owned() }),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let line = span.start.line();
        let fault = |text: &str| Fault { line, text: text.to_owned() };
        self.nodes += 1;
        if self.nodes > MOST || depth > DEEPEST {
            return Err(fault("it is larger or deeper than any compose file"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (Value::Text((!null).then(|| text.into_owned())), anchor)
            }
            Event::Alias(anchor) => {
                return self.anchors.get(&anchor).cloned().ok_or_else(|| fault("an alias of nothing"));
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Value::Map(self.entries(depth)?), anchor),
            _ => return Err(fault("something else was expected here")),
        };
        let node = Node { value: Rc::new(value), line };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, Node)>, Fault> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Fault { line, text: "a key must be a word".to_owned() }),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match key.as_str() {
                "<<" => merged.extend(value.one_or_more().into_iter().cloned()),
                _ if entries.iter().any(|(name, _)| *name == key) => {}
                _ => entries.push((key, value)),
            }
        }
        for (key, value) in merged.iter().flat_map(Node::entries) {
            if !entries.iter().any(|(name, _)| name == key) {
                entries.push((key.clone(), value.clone()));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn anchors_merge_and_nulls() {
        let node = parse("a: &x { k: 1, l: [p, \"q\"] }\nb:\n  <<: *x\n  k: two\n  n: ~\n").unwrap();
        let b = node.get("b").unwrap();
        assert_eq!(b.get("k").unwrap().text(), Some("two"));
        assert_eq!(b.get("l").unwrap().items()[1].text(), Some("q"));
        assert_eq!(b.get("n").unwrap().text(), None);
        assert_eq!(b.get("k").unwrap().line, 4);
    }

    #[test]
    fn what_is_hostile_is_refused_or_small() {
        // A billion laughs: nobody walks them.
        let mut text = String::from("a0: &a0 [x]\n");
        for i in 1..40 {
            text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")));
        }
        assert_eq!(parse(&text).unwrap().entries().len(), 40);
        assert!(parse(&"[".repeat(100_000)).is_err());
        for bad in ["a: [", "a: *b", "? [x]\n: y", "a: b: c", "%"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
