//! What changed between two locks.

use std::collections::BTreeMap;

use igloo_base::System;

use super::{Change, Lock};

/// Environment, system, source, package.
type Key<'a> = (&'a str, System, &'a str, &'a str);

fn versions(lock: &Lock) -> BTreeMap<Key<'_>, Vec<&str>> {
    let mut versions = BTreeMap::<_, Vec<&str>>::new();
    for e in &lock.environments {
        let key = |name| (e.key.as_str(), e.system, e.source.as_str(), name);
        for (name, version) in &e.packages {
            versions.insert(key(name.as_str()), vec![version.as_str()]);
        }
        // Another build of the same version is another package.
        for output in lock.outputs_of(e) {
            let version = if output.version.is_empty() { output.path.name() } else { &output.version };
            let known = versions.entry(key(output.name.as_str())).or_insert_with(|| vec![version]);
            known.push(output.path.hash_part());
        }
    }
    versions
}

pub(super) fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
    let (before, after) = (versions(old), versions(new));
    let change = |key: &Key, old: Option<&Vec<&str>>, new: Option<&Vec<&str>>| {
        // Builds are shown where versions don't tell the difference.
        let is_rebuilt = old.zip(new).is_some_and(|(old, new)| old[0] == new[0]);
        let text = |version: &Vec<&str>| match version.get(1) {
            Some(build) if is_rebuilt => format!("{}@{}", version[0], &build[..8]),
            _ => version[0].to_owned(),
        };
        Change {
            environment: key.0.to_owned(),
            system: key.1,
            package: key.3.to_owned(),
            old: old.map(text),
            new: new.map(text),
        }
    };
    let mut changes = Vec::new();
    for (key, old) in &before {
        match after.get(key) {
            // Versions may be equal to dpkg and still be different packages.
            Some(new) if new == old => {}
            new => changes.push(change(key, Some(old), new)),
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        changes.push(change(key, None, Some(new)));
    }
    changes.sort();
    changes
}
