//! The manifest's JSON Schema, for editors; made of the same tables of keys that the parser reads.

use serde_json::{Map, Value, json};

use crate::keys::{self, Kind, Table};

/// JSON Schema (2020-12) of `igloo.toml`.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "igloo.toml",
    });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, table(&keys::ROOT)) {
        schema.extend(root);
    }
    schema
}

fn table(table: &Table) -> Value {
    let mut properties = Map::new();
    for key in table.keys {
        let mut value = kind(&key.kind);
        if let Value::Object(value) = &mut value {
            // What is said about the key is nearer than what is said about its table.
            value.insert("description".to_owned(), key.doc.into());
        }
        properties.insert(key.name.to_owned(), value);
    }
    let required: Vec<&str> = table.keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn kind(kind_is: &Kind) -> Value {
    match kind_is {
        Kind::Text(None) => json!({ "type": "string" }),
        Kind::Text(Some(pattern)) => json!({ "type": "string", "pattern": pattern }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Number => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Kind::List(item) => json!({ "type": "array", "items": kind(item) }),
        Kind::Map(None, value) => json!({ "type": "object", "additionalProperties": kind(value) }),
        Kind::Map(Some(names), value) => json!({
            "type": "object",
            "propertyNames": { "pattern": names },
            "additionalProperties": kind(value),
        }),
        Kind::Table(known) => table(known),
        Kind::Any(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node;

    /// The part of JSON Schema that is in use here.
    fn validate(schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        let mut fail = |what: &str| errors.push(format!("{at}: {what}"));
        let type_is = match schema["type"].as_str() {
            None => true,
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64(),
            Some("number") => value.is_number(),
            Some(other) => panic!("{other}"),
        };
        if !type_is {
            return fail(&format!("not {}", schema["type"]));
        }
        if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
            && !regex::Regex::new(pattern).unwrap().is_match(text)
        {
            fail(&format!("`{text}` does not match `{pattern}`"));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            fail(&format!("{value} is not in {words:?}"));
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            if value.get(required.as_str().unwrap()).is_none() {
                fail(&format!("lacks {required}"));
            }
        }
        if let Some(kinds) = schema["anyOf"].as_array() {
            let good = |kind: &&Value| {
                let mut errors = Vec::new();
                validate(kind, value, at, &mut errors);
                errors.is_empty()
            };
            if !kinds.iter().any(|kind| good(&kind)) {
                fail("none of anyOf");
            }
        }
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            validate(&schema["items"], item, &format!("{at}[{i}]"), errors);
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            if let Some(pattern) = schema["propertyNames"]["pattern"].as_str() {
                assert!(regex::Regex::new(pattern).unwrap().is_match(key), "{at}");
            }
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(property), _) => validate(property, value, &at, errors),
                (None, Value::Bool(false)) => errors.push(format!("{at}: unknown")),
                (None, additional) => validate(additional, value, &at, errors),
            }
        }
    }

    fn json(node: &node::Node) -> Value {
        match &node.value {
            node::Value::Text(text) => json!(text),
            node::Value::Integer(number) => json!(number),
            node::Value::Float(number) => json!(number),
            node::Value::Flag(flag) => json!(flag),
            node::Value::Date => panic!("no dates"),
            node::Value::List(list) => list.iter().map(json).collect(),
            node::Value::Table(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.to_string(), json(&e.node))).collect())
            }
        }
    }

    fn errors(text: &str) -> Vec<String> {
        let mut errors = Vec::new();
        validate(&schema(), &json(&node::Node::parse(text).unwrap()), "", &mut errors);
        errors
    }

    #[test]
    fn what_parses_is_valid() {
        let mut texts =
            vec![include_str!("../tests/data/guestbook.toml"), include_str!("../tests/data/everything.toml")];
        texts.extend(crate::templates::all().iter().map(|t| t.text));
        for text in texts {
            crate::parse(text, "igloo.toml".as_ref()).unwrap();
            assert_eq!(errors(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_by_editors_too() {
        let text = include_str!("../tests/data/guestbook.toml");
        for (from, to, error) in [
            ("suite =", "siute =", ".sources.debian.siute: unknown"),
            ("name = \"guestbook\"", "", ".project: lacks \"name\""),
            ("cpus = 1.5", "cpus = \"1.5\"", ".services.db.limits.cpus: not \"number\""),
            ("\"on-failure\"", "\"on-error\"", ".services.db.restart: none of anyOf"),
        ] {
            assert!(text.contains(from), "{from}");
            let errors = errors(&text.replacen(from, to, 1));
            assert!(errors.iter().any(|e| e.starts_with(error)), "{errors:?}");
        }
    }

    /// Each table's keys are read by the parser (or it panics, see `Fields`), and all of them are in one example, so
    /// that no key is in the schema and nowhere else.
    #[test]
    fn every_key_is_in_the_example() {
        fn visit(schema: &Value, value: &Value, at: &str, missing: &mut Vec<String>) {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                match value.get(key) {
                    Some(value) => visit(property, value, &format!("{at}.{key}"), missing),
                    None => missing.push(format!("{at}.{key}")),
                }
            }
            let additional = &schema["additionalProperties"];
            if let (true, Some(Value::Object(values))) = (additional.is_object(), Some(value)) {
                // The first one of a kind has every key.
                if let Some((name, value)) = values.iter().next() {
                    visit(additional, value, &format!("{at}.{name}"), missing);
                }
            }
            if let Some(first) = value.as_array().and_then(|a| a.first()) {
                visit(&schema["items"], first, &format!("{at}[0]"), missing);
            }
        }
        let example = node::Node::parse(include_str!("../tests/data/everything.toml")).unwrap();
        let mut missing = Vec::new();
        visit(&schema(), &json(&example), "", &mut missing);
        // Only one probe and one kind of file at a time; the other probes are in `[services.b]` to `[services.e]`.
        missing.retain(|m| {
            let alone = [
                ".services.a.ready.",
                ".services.a.health.",
                ".services.a.secrets.",
                ".images.a.files[0].",
                // A service has packages or an image.
                ".services.a.image",
                ".services.a.entrypoint",
            ];
            alone.iter().all(|p| !m.starts_with(p)) && m != ".tasks.task.of" && m != ".images.a.packages"
        });
        assert_eq!(missing, [""; 0]);
    }
}
