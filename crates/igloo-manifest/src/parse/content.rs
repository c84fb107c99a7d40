//! What shells, services and images share.

use std::collections::BTreeMap;

use super::fields::{Context, Fields};
use crate::glob::Glob;
use crate::keys;
use crate::manifest::{Base, Content, Copy, PackageSpec};
use crate::node::Node;
use crate::words;

pub(super) fn content(cx: &mut Context, fields: &mut Fields) -> Content {
    Content {
        packages: fields.get("packages").map(|node| packages(cx, "packages", node)).unwrap_or_default(),
        env: env(cx, fields),
        user: fields.checked(cx, "user", words::user),
        workdir: fields.parsed(cx, "workdir", words::absolute),
        copy: copies(cx, fields),
        recommends: fields.flag(cx, "recommends"),
        base: fields.choice(cx, "base", &Base::NAMES),
    }
}

pub(super) fn packages(cx: &mut Context, what: &str, node: &Node) -> Vec<PackageSpec> {
    let mut specs: Vec<PackageSpec> = Vec::new();
    for (text, node) in cx.texts(what, node) {
        let span = node.inner_span(cx.text);
        let Some(kind) = cx.good(node, words::spec(text)) else { continue };
        if specs.iter().any(|s| s.text == text) {
            cx.error(span, format!("`{text}` is listed twice"), "the second time", Some("remove one".to_owned()));
            continue;
        }
        specs.push(PackageSpec { text: text.to_owned(), span, kind });
    }
    specs
}

fn env(cx: &mut Context, fields: &mut Fields) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, (value, span)) in fields.map(cx, "env") {
        match words::variable(&name) {
            Ok(()) if value.contains('\0') => cx.error(span, format!("`{name}` has a zero byte in it"), "", None),
            Ok(()) => drop(env.insert(name, value)),
            Err(bad) => cx.error(span, bad.message, "", bad.help),
        }
    }
    env
}

fn copies(cx: &mut Context, fields: &mut Fields) -> Vec<Copy> {
    let Some(node) = fields.get("copy") else { return Vec::new() };
    let list = cx.list("copy", node).unwrap_or_default();
    list.iter().filter_map(|node| copy(cx, node)).collect()
}

fn copy(cx: &mut Context, node: &Node) -> Option<Copy> {
    let mut fields = Fields::open(cx, &keys::COPY, "copy", node, node.span.clone())?;
    let from = fields.parsed(cx, "from", words::inner_path);
    let to = fields.parsed(cx, "to", words::absolute);
    let mode = fields.parsed(cx, "mode", words::mode);
    let exclude = fields.get("exclude").map(|node| cx.texts("exclude", node)).unwrap_or_default();
    let exclude = exclude.into_iter().filter_map(|(text, node)| cx.good(node, Glob::parse(text))).collect();
    Some(Copy { from: from?, to: to?, mode, exclude })
}
