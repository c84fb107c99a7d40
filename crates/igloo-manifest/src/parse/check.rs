//! What must hold between the parts of a manifest.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Places;
use super::fields::{Context, similar};
use crate::manifest::{ImageKind, Manifest, PackageSpec, Source, SpecKind};
use crate::sets;

pub(super) fn check(cx: &mut Context, manifest: &Manifest, places: &Places) {
    // Sources that could not be read are missing from the manifest; nothing about them would be true.
    let sources_are_known = cx.diagnostics.is_empty();
    needs(cx, manifest, places);
    ports(cx, places);
    images(cx, manifest, places);
    set_cycles(cx, manifest, places);
    let mut lists: Vec<&[PackageSpec]> = manifest.sets.values().map(|s| s.packages.as_slice()).collect();
    lists.extend(manifest.contents().map(|(_, content)| content.packages.as_slice()));
    for list in &lists {
        set_references(cx, manifest, list);
        contradictions(cx, list);
    }
    if sources_are_known {
        sources(cx, manifest, places, &lists);
    }
}

fn did_you_mean<'w>(text: &str, words: impl Iterator<Item = &'w str> + Clone, prefix: &str) -> Option<String> {
    if let Some(word) = similar(text, words.clone()) {
        return Some(format!("did you mean `{prefix}{word}`?"));
    }
    let all: Vec<_> = words.map(|w| format!("`{prefix}{w}`")).collect();
    (!all.is_empty()).then(|| format!("there are {}", all.join(", ")))
}

fn needs(cx: &mut Context, manifest: &Manifest, places: &Places) {
    for (service, need, span) in &places.needs {
        if need == service {
            let message = format!("`{service}` needs itself");
            cx.error(span.clone(), message, "the service itself", Some("remove it".to_owned()));
        } else if !places.services.contains_key(need) && !places.tasks.contains_key(need) {
            let help = did_you_mean(need, places.services.keys().map(String::as_str).filter(|s| s != service), "");
            cx.error(span.clone(), format!("there is no service `{need}`"), "not a service", help);
        }
    }
    let edges = |name: &str| -> Vec<(String, Range<usize>)> {
        let of_name = places.needs.iter().filter(|(service, need, _)| service == name && need != name);
        of_name.map(|(_, need, span)| (need.clone(), span.clone())).collect()
    };
    for (cycle, span) in cycles(manifest.services.keys(), &edges) {
        let help = "a service starts once all that it needs are ready, so none of these ever would".to_owned();
        cx.error(span, format!("services need each other: {}", cycle.join(" -> ")), "closes the circle", Some(help));
    }
}

/// Where a name leads, each with the place that says so.
type Edges<'e> = &'e dyn Fn(&str) -> Vec<(String, Range<usize>)>;

/// Every circle once, as the names on it with the first one repeated, and where it is closed.
fn cycles<'m>(names: impl Iterator<Item = &'m String>, edges: Edges<'_>) -> Vec<(Vec<String>, Range<usize>)> {
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::new();
    for start in names {
        // Depth first with an explicit stack: node, its edges, the next of them to take.
        let mut path = vec![(start.clone(), edges(start), 0usize)];
        while let Some((name, out, next)) = path.last_mut() {
            if done.contains(name) || *next == out.len() {
                done.insert(name.clone());
                path.pop();
                continue;
            }
            let (to, span) = out[*next].clone();
            *next += 1;
            if let Some(at) = path.iter().position(|(name, ..)| *name == to) {
                let mut cycle: Vec<String> = path[at..].iter().map(|(name, ..)| name.clone()).collect();
                cycle.push(to);
                found.push((cycle, span));
            } else if !done.contains(&to) {
                let out = edges(&to);
                path.push((to, out, 0));
            }
        }
    }
    found
}

fn ports(cx: &mut Context, places: &Places) {
    for (i, (service, port, span)) in places.ports.iter().enumerate() {
        let Some(host) = port.host else { continue };
        let clash = places.ports[..i].iter().find(|(_, other, _)| {
            let everywhere = port.address.is_unspecified() || other.address.is_unspecified();
            other.host == Some(host) && other.udp == port.udp && (everywhere || other.address == port.address)
        });
        if let Some((other, ..)) = clash {
            let message = match other == service {
                true => format!("`{service}` publishes port {host} twice"),
                false => format!("port {host} is published by `{other}` and by `{service}`"),
            };
            let help = format!("take another port, or a free one: `auto:{}`", port.container);
            cx.error(span.clone(), message, "already taken", Some(help));
        }
    }
}

fn images(cx: &mut Context, manifest: &Manifest, places: &Places) {
    for (_, of, span) in &places.of {
        let targets: Vec<String> = (manifest.shells.keys().map(|s| format!("shells.{s}")))
            .chain(places.services.keys().map(|s| format!("services.{s}")))
            .collect();
        if !targets.contains(of) {
            let help = did_you_mean(of, targets.iter().map(String::as_str), "");
            cx.error(span.clone(), format!("there is no `{of}` to make an image of"), "not in this file", help);
        }
    }
    for (name, image) in &manifest.images {
        let span = places.images.get(name).cloned().unwrap_or_default();
        let empty = image.of.is_none() && image.content.packages.is_empty() && image.content.copy.is_empty();
        if empty && image.kind == ImageKind::Runtime {
            let message = format!("image `{name}` has nothing in it");
            cx.error(span, message, "", Some("say `of = \"services.NAME\"`, or list `packages`".to_owned()));
        } else if image.kind == ImageKind::Builder {
            let others = image.of.is_some() || image.run.is_some() || image.entrypoint.is_some();
            if others || image.content.user.is_some() {
                let message = format!("image `{name}` is a builder, which has its own command and user");
                cx.error(span, message, "", Some("leave out `of`, `run`, `entrypoint` and `user`".to_owned()));
            } else if !manifest.sources.values().any(|source| matches!(source, Source::Debian(_))) {
                let message = format!("image `{name}` is a builder, whose Nix and ssh are Debian's");
                cx.error(span, message, "", Some("declare `[sources.debian]` with a `suite`".to_owned()));
            }
        }
    }
}

fn set_cycles(cx: &mut Context, manifest: &Manifest, places: &Places) {
    let edges = |name: &str| -> Vec<(String, Range<usize>)> {
        let Some(set) = manifest.sets.get(name) else { return Vec::new() };
        let others = set.packages.iter().filter_map(|spec| match &spec.kind {
            // Its own name in it means the built-in set.
            SpecKind::Set(other) if other == name && sets::is_built_in(other) => None,
            SpecKind::Set(other) if manifest.sets.contains_key(other) => Some((other.clone(), spec.span.clone())),
            _ => None,
        });
        others.collect()
    };
    for (cycle, span) in cycles(places.sets.keys(), &edges) {
        let names: Vec<_> = cycle.iter().map(|name| format!("@{name}")).collect();
        cx.error(span, format!("sets contain each other: {}", names.join(" -> ")), "closes the circle", None);
    }
}

fn set_references(cx: &mut Context, manifest: &Manifest, list: &[PackageSpec]) {
    for spec in list {
        let SpecKind::Set(name) = &spec.kind else { continue };
        if !manifest.sets.contains_key(name) && !sets::is_built_in(name) {
            let known = manifest.sets.keys().map(String::as_str).chain(sets::names().iter().copied());
            let help = did_you_mean(name, known, "@");
            cx.error(spec.span.clone(), format!("there is no set `@{name}`"), "not a set", help);
        }
    }
}

/// A list that asks for a package and excludes it.
fn contradictions(cx: &mut Context, list: &[PackageSpec]) {
    for spec in list {
        let SpecKind::Exclude(excluded) = &spec.kind else { continue };
        let asked = list.iter().any(|s| matches!(&s.kind, SpecKind::Package { name, .. } if name == excluded));
        if asked {
            let message = format!("`{excluded}` is asked for and left out in the same list");
            cx.error(spec.span.clone(), message, "left out here", Some("remove one of the two".to_owned()));
        }
    }
}

fn sources(cx: &mut Context, manifest: &Manifest, places: &Places, lists: &[&[PackageSpec]]) {
    if let Some(source) = &manifest.project.source
        && !manifest.sources.contains_key(source)
    {
        let span = places.source.clone().unwrap_or_default();
        let help = Some(format!("declare it: `[sources.{source}]`"));
        cx.error(span, format!("`{source}` is not among the sources"), "not declared", help);
        return;
    }
    let in_store = |spec: &PackageSpec| matches!(spec.kind, SpecKind::StorePath(_));
    if manifest.sources.is_empty() {
        let all = || lists.iter().flat_map(|l| l.iter());
        // Who names store paths only needs nothing to take packages from.
        if all().next().is_some() && all().all(in_store) {
            return;
        }
        let first = all().find(|spec| !in_store(spec));
        let span = match first {
            Some(spec) => spec.span.clone(),
            None if manifest.contents().next().is_some() => places.project.clone(),
            None => return,
        };
        let help = "add `[sources.debian]` with `suite = \"bookworm\"`".to_owned();
        cx.error(span, "no source is declared to take packages from", "from where?", Some(help));
        return;
    }
    for spec in lists.iter().flat_map(|l| l.iter()) {
        match &spec.kind {
            SpecKind::Package { source, name, version, suite } => {
                let source = source.as_deref().or_else(|| manifest.default_source()).unwrap_or_default();
                match manifest.sources.get(source) {
                    None => {
                        let help = Some(format!("declare it: `[sources.{source}]`"));
                        let message = format!("`{source}` is not among the sources");
                        cx.error(spec.span.clone(), message, "not declared", help);
                    }
                    Some(Source::Nixpkgs(_)) if version.is_some() || suite.is_some() => {
                        let help = Some("the flake's revision decides about versions".to_owned());
                        let message = format!("`{name}` is from nixpkgs, which has one version of it");
                        cx.error(spec.span.clone(), message, "", help);
                    }
                    Some(Source::Debian(debian)) => {
                        if let Some(suite) = suite.as_ref().filter(|s| !debian.suites.contains(s)) {
                            let mut all = debian.suites.clone();
                            all.push(suite.clone());
                            let help = Some(format!("in `[sources.debian]`: `suites = {all:?}`"));
                            let message = format!("the suite `{suite}` is not read");
                            cx.error(spec.span.clone(), message, "", help);
                        }
                    }
                    Some(Source::Nixpkgs(_)) => {}
                }
            }
            SpecKind::Flake(_) if !manifest.sources.contains_key("nixpkgs") => {
                let help = "declare `[sources.nixpkgs]` with the `flake` of nixpkgs".to_owned();
                let message = format!("`{}` needs the source nixpkgs", spec.text);
                cx.error(spec.span.clone(), message, "not declared", Some(help));
            }
            SpecKind::Flake(_) | SpecKind::StorePath(_) | SpecKind::Set(_) | SpecKind::Exclude(_) => {}
        }
    }
}
