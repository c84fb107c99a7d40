//! Trigger 5: `/etc/alternatives`, from what scripts install.

use std::collections::BTreeMap;

use crate::layer::Layer;
use crate::script::{Alternative, Findings};

pub(crate) fn run(layer: &mut Layer<'_>, findings: &Findings) {
    let mut groups: BTreeMap<&str, BTreeMap<&str, &Alternative>> = BTreeMap::new();
    for alternative in &findings.alternatives {
        let good = |text: &str| !text.is_empty() && !text.contains('/') && !text.contains('\n');
        let absolute = |path: &str| path.starts_with('/') && !path.contains('\n');
        let whole = good(&alternative.name) && absolute(&alternative.link) && absolute(&alternative.path);
        if whole && layer.exists(&alternative.path) {
            groups.entry(&alternative.name).or_default().insert(&alternative.path, alternative);
        }
    }
    for (name, choices) in groups {
        let chosen = findings.chosen.get(name).and_then(|path| choices.get(path.as_str()).copied());
        // The highest priority; of equal ones the first by path.
        let best = choices.values().copied().rev().max_by_key(|a| a.priority);
        let Some(best) = chosen.or(best) else { continue };
        put(layer, name, &best.link, &best.path);
        for (link, name, path) in &best.slaves {
            if link.starts_with('/') && !name.contains('/') && layer.exists(path) {
                put(layer, name, link, path);
            }
        }
        let record = record(chosen.is_some(), best, &choices);
        layer.put(&format!("var/lib/dpkg/alternatives/{name}"), record);
    }
}

/// `link` → `/etc/alternatives/name` → `path`. A real file in the place of the link stays, as with update-alternatives.
fn put(layer: &mut Layer<'_>, name: &str, link: &str, path: &str) {
    let middle = format!("/etc/alternatives/{name}");
    layer.link(path, &middle);
    layer.link(&middle, link);
}

/// The file that `update-alternatives --display` reads.
fn record(manual: bool, best: &Alternative, choices: &BTreeMap<&str, &Alternative>) -> String {
    let mut slaves: BTreeMap<&str, &str> = BTreeMap::new();
    for choice in choices.values() {
        slaves.extend(choice.slaves.iter().map(|(link, name, _)| (name.as_str(), link.as_str())));
    }
    let mut text = format!("{}\n{}\n", if manual { "manual" } else { "auto" }, best.link);
    for (name, link) in &slaves {
        text += &format!("{name}\n{link}\n");
    }
    text.push('\n');
    for choice in choices.values() {
        text += &format!("{}\n{}\n", choice.path, choice.priority);
        for name in slaves.keys() {
            let path = choice.slaves.iter().find(|(_, n, _)| n == name).map_or("", |(_, _, path)| path);
            text += &format!("{path}\n");
        }
    }
    text.push('\n');
    text
}
