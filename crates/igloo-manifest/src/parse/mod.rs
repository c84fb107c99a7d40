//! From the text of `igloo.toml` to a [`Manifest`], with every error at once.
//!
//! Three steps: TOML to nodes with spans, nodes to values (`fields`, `content`, `service`), and what holds between
//! values (`check`). A step goes on after an error, so that one run shows all there is to repair.

mod check;
mod content;
mod fields;
mod image;
mod lifecycle;
mod service;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use igloo_base::System;

use fields::{Context, Fields};

use crate::error::{Diagnostic, ManifestError};
use crate::keys;
use crate::manifest::{Base, Debian, Manifest, Nixpkgs, Port, Project, ScriptDecision, Set, Shell, Source, Vm};
use crate::node::{Entry, Node, Value};
use crate::words;

/// Reads a manifest.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn parse(text: &str, path: &Path) -> Result<Manifest, ManifestError> {
    let mut cx = Context { text, diagnostics: Vec::new() };
    let manifest = match Node::parse(text) {
        Ok(root) => document(&mut cx, &root, path),
        Err(e) => {
            cx.error(e.span, e.message, "not TOML", None);
            None
        }
    };
    let mut diagnostics = cx.diagnostics;
    match manifest {
        Some(manifest) if diagnostics.is_empty() => Ok(manifest),
        _ => {
            if diagnostics.is_empty() {
                let message = "the manifest is empty".to_owned();
                diagnostics.push(Diagnostic { message, span: 0..0, label: String::new(), help: None });
            }
            diagnostics.sort_by_key(|d| (d.span.start, d.span.end));
            diagnostics.dedup();
            Err(ManifestError { path: path.to_owned(), text: text.to_owned(), diagnostics })
        }
    }
}

/// Where things are written that later checks may point at; the domain types do not carry it.
#[derive(Default)]
pub(crate) struct Places {
    /// `[project]`.
    project: Range<usize>,
    /// `project.source`.
    source: Option<Range<usize>>,
    /// The keys of sets.
    sets: BTreeMap<String, Range<usize>>,
    /// The keys of services.
    services: BTreeMap<String, Range<usize>>,
    /// Service, what it needs, where it says so.
    needs: Vec<(String, String, Range<usize>)>,
    /// Service, port, where it says so.
    ports: Vec<(String, Port, Range<usize>)>,
    /// The keys of tasks, and where they say what they are of.
    tasks: BTreeMap<String, (Range<usize>, Range<usize>)>,
    /// Image, what it is of, where it says so.
    of: Vec<(String, String, Range<usize>)>,
    /// The keys of images.
    images: BTreeMap<String, Range<usize>>,
}

fn document(cx: &mut Context, root: &Node, path: &Path) -> Option<Manifest> {
    let mut fields = Fields::open(cx, &keys::ROOT, "igloo.toml", root, 0..0)?;
    let mut places = Places::default();
    let project = project(cx, fields.entry("project"), &mut places);
    let sources = fields.entry("sources").map(|e| sources(cx, e)).unwrap_or_default();
    let sets = each(cx, fields.get("sets"), "sets", |cx, entry| {
        cx.good_key(entry, words::set_name(&entry.key))?;
        places.sets.insert(entry.key.to_string(), entry.key_span.clone());
        Some(Set { packages: content::packages(cx, &format!("sets.{}", entry.key), &entry.node) })
    });
    let shells = each(cx, fields.get("shells"), "shells", shell);
    let mut services =
        each(cx, fields.get("services"), "services", |cx, entry| service::service(cx, entry, &mut places));
    let tasks = each(cx, fields.get("tasks"), "tasks", |cx, entry| service::task(cx, entry, &mut places));
    lifecycle::join(cx, &mut services, tasks, &places);
    let images = each(cx, fields.get("images"), "images", |cx, entry| image::image(cx, entry, &mut places));
    let vm = fields.entry("vm").and_then(|e| vm(cx, e));
    let scripts = each(cx, fields.get("scripts"), "scripts", |cx, entry| {
        fields::choice(cx, &format!("scripts.{}", entry.key), &entry.node, &ScriptDecision::NAMES)
    });
    let project = project?;
    let manifest = Manifest { path: path.to_owned(), project, sources, sets, shells, services, images, vm, scripts };
    check::check(cx, &manifest, &places);
    Some(manifest)
}

/// The entries of a table with free keys; the bad ones are left out.
fn each<T>(
    cx: &mut Context,
    node: Option<&Node>,
    what: &str,
    mut read: impl FnMut(&mut Context, &Entry) -> Option<T>,
) -> BTreeMap<String, T> {
    let Some(node) = node else { return BTreeMap::new() };
    let entries = cx.entries(what, node).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.to_string(), read(cx, entry)?))).collect()
}

/// What to point at when a table lacks something: its header.
fn header(entry: &Entry) -> Range<usize> {
    entry.key_span.clone()
}

fn project(cx: &mut Context, entry: Option<&Entry>, places: &mut Places) -> Option<Project> {
    let entry = entry?;
    places.project = header(entry);
    let mut fields = Fields::open(cx, &keys::PROJECT, "project", &entry.node, header(entry))?;
    let name = fields.checked(cx, "name", |name| words::name(name, "a project"));
    places.source = fields.get("source").map(|node| node.inner_span(cx.text));
    let source = fields.choice(cx, "source", &[("debian", "debian"), ("nixpkgs", "nixpkgs")]);
    let mut systems = Vec::new();
    match fields.get("systems") {
        None => systems.push(System::current()),
        Some(node) => {
            for (text, node) in cx.texts("systems", node) {
                match text.parse::<System>() {
                    Ok(system) => systems.push(system),
                    Err(e) => cx.error(node.inner_span(cx.text), e.to_string(), "unknown system", None),
                }
            }
            if matches!(&node.value, Value::List(list) if list.is_empty()) {
                cx.error(node.span.clone(), "`systems` is empty", "name at least one system", None);
            }
            systems.sort_unstable();
            systems.dedup();
        }
    }
    Some(Project { name: name?, source: source.map(str::to_owned), systems })
}

fn sources(cx: &mut Context, entry: &Entry) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::new();
    let Some(mut fields) = Fields::open(cx, &keys::SOURCES, "sources", &entry.node, header(entry)) else {
        return sources;
    };
    if let Some(debian) = fields.entry("debian").and_then(|e| debian(cx, e)) {
        sources.insert("debian".to_owned(), Source::Debian(debian));
    }
    if let Some(nixpkgs) = fields.entry("nixpkgs").and_then(|e| nixpkgs(cx, e)) {
        sources.insert("nixpkgs".to_owned(), Source::Nixpkgs(nixpkgs));
    }
    sources
}

/// The releases that have a `-updates` and a `-security` suite beside them.
const RELEASES: [&str; 10] =
    ["buster", "bullseye", "bookworm", "trixie", "forky", "duke", "oldoldstable", "oldstable", "stable", "testing"];

/// The suites that belong to a main one.
pub(crate) fn default_suites(suite: &str) -> Vec<String> {
    let mut suites = vec![suite.to_owned()];
    if RELEASES.contains(&suite) {
        suites.extend([format!("{suite}-updates"), format!("{suite}-security")]);
    }
    suites
}

fn debian(cx: &mut Context, entry: &Entry) -> Option<Debian> {
    let mut fields = Fields::open(cx, &keys::DEBIAN, "sources.debian", &entry.node, header(entry))?;
    let is_suite = |text: &str| match words::is_suite(text) {
        true => Ok(text.to_owned()),
        false => Err(words::BadText::new(format!("`{text}` is no suite"), "its name, `bookworm`")),
    };
    let suite = fields.parsed(cx, "suite", is_suite);
    let suites = fields.get("suites").map(|node| {
        let texts = cx.texts("suites", node);
        let mut suites: Vec<String> = Vec::new();
        for (text, node) in texts {
            if let Some(one) = cx.good(node, is_suite(text)).filter(|s| !suites.contains(s)) {
                suites.push(one);
            }
        }
        if let Some(suite) = suite.as_ref().filter(|s| !suites.contains(s)) {
            let mut whole = default_suites(suite);
            whole.extend(suites.iter().filter(|s| !default_suites(suite).contains(s)).cloned());
            let help = format!("the list is complete, nothing is added to it: `suites = {whole:?}`");
            cx.error(node.span.clone(), format!("`suites` does not have `{suite}`"), "", Some(help));
        }
        suites
    });
    let components = match fields.get("components") {
        None => vec!["main".to_owned()],
        Some(node) => {
            let texts = cx.texts("components", node);
            for (text, node) in &texts {
                if !words::is_suite(text) {
                    let message = format!("`{text}` is no component");
                    cx.error(node.inner_span(cx.text), message, "", Some("`main`, `contrib` ...".to_owned()));
                }
            }
            if matches!(&node.value, Value::List(list) if list.is_empty()) {
                cx.error(node.span.clone(), "`components` is empty", "", Some("write `[\"main\"]`".to_owned()));
            }
            texts.into_iter().map(|(text, _)| text.to_owned()).collect()
        }
    };
    let url = fields.parsed(cx, "url", address);
    let security_url = fields.parsed(cx, "security-url", address);
    let keyring = fields.parsed(cx, "keyring", words::path);
    let snapshot = fields.parsed(cx, "snapshot", words::snapshot);
    let base = fields.choice(cx, "base", &Base::NAMES).unwrap_or_default();
    let recommends = fields.flag(cx, "recommends").unwrap_or(false);
    let suite = suite?;
    let suites = suites.unwrap_or_else(|| default_suites(&suite));
    Some(Debian { suite, suites, components, url, security_url, keyring, snapshot, base, recommends })
}

/// The address of an archive, without a slash at the end.
fn address(text: &str) -> Result<String, words::BadText> {
    let rest = ["http://", "https://", "file://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !text.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(words::BadText::new(
            format!("`{text}` is no address of an archive"),
            "it begins with `http://`, `https://` or `file://`",
        )),
    }
}

fn nixpkgs(cx: &mut Context, entry: &Entry) -> Option<Nixpkgs> {
    let mut fields = Fields::open(cx, &keys::NIXPKGS, "sources.nixpkgs", &entry.node, header(entry))?;
    let flake = fields.parsed(cx, "flake", |text| match text.is_empty() || text.contains(char::is_whitespace) {
        false => Ok(text.to_owned()),
        true => Err(words::BadText::new(
            format!("`{text}` is no flake reference"),
            "as `nix` takes it: `github:NixOS/nixpkgs/nixos-25.11`",
        )),
    });
    let overlays = fields.get("overlays").map(|node| cx.texts("overlays", node)).unwrap_or_default();
    let overlays = overlays.into_iter().filter_map(|(text, node)| cx.good(node, words::inner_path(text))).collect();
    let allow_unfree = fields.flag(cx, "allow-unfree").unwrap_or(false);
    let mut words = |name, check: fn(&str) -> Result<(), words::BadText>| -> Vec<String> {
        let all = fields.get(name).map(|node| cx.texts(name, node)).unwrap_or_default();
        all.into_iter().filter_map(|(text, node)| cx.good(node, check(text).map(|()| text.to_owned()))).collect()
    };
    let permitted_insecure = words("permitted-insecure", |text| {
        plain(text, "the name of a package with its version", "as Nix says it: `openssl-1.1.1w`")
    });
    let caches = words("caches", |text| match text.contains("://") {
        true => plain(text, "the address of a cache", "it has no spaces"),
        false => Err(words::BadText::new(
            format!("`{text}` is no address of a cache"),
            "it begins with `https://`, `http://`, `file://` or `s3://`",
        )),
    });
    let trusted_keys = words("trusted-keys", |text| match text.split_once(':') {
        Some((name, key)) if !name.is_empty() && key.len() == 44 => plain(text, "a key", "`name:base64`"),
        _ => Err(words::BadText::new(format!("`{text}` is no public key"), "it is `name:` and 44 letters of base64")),
    });
    Some(Nixpkgs { flake: flake?, overlays, allow_unfree, permitted_insecure, caches, trusted_keys })
}

/// A word without spaces, as a line of a digest and a text of Nix's may hold.
fn plain(text: &str, what: &str, help: &str) -> Result<(), words::BadText> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        false => Ok(()),
        true => Err(words::BadText::new(format!("`{text}` is not {what}"), help)),
    }
}

fn shell(cx: &mut Context, entry: &Entry) -> Option<Shell> {
    cx.good_key(entry, words::name(&entry.key, "a shell"))?;
    let what = format!("shells.{}", entry.key);
    let mut fields = Fields::open(cx, &keys::SHELL, &what, &entry.node, header(entry))?;
    let content = content::content(cx, &mut fields);
    let isolation = fields.choice(cx, "isolation", &crate::manifest::Isolation::NAMES).unwrap_or_default();
    let hook = fields.text(cx, "hook").map(|(text, _)| text.to_owned());
    Some(Shell { content, isolation, hook })
}

fn vm(cx: &mut Context, entry: &Entry) -> Option<Vm> {
    let mut fields = Fields::open(cx, &keys::VM, "vm", &entry.node, header(entry))?;
    let cpus = fields.integer(cx, "cpus").and_then(|n| u32::try_from(n).ok());
    let memory = fields.parsed(cx, "memory", words::size);
    let disk = fields.parsed(cx, "disk", words::size);
    Some(Vm { cpus, memory, disk })
}
