//! What changed between two locks.

use std::collections::BTreeMap;

use igloo_base::System;
use igloo_formats::deb::Version;

use super::{Change, Lock};

/// Environment, system, source, package.
type Key<'a> = (&'a str, System, &'a str, &'a str);

fn versions(lock: &Lock) -> BTreeMap<Key<'_>, &Version> {
    let members = lock.environments.iter().flat_map(|e| {
        let key = |name| (e.key.as_str(), e.system, e.source.as_str(), name);
        e.packages.iter().map(move |(name, version)| (key(name.as_str()), version))
    });
    members.collect()
}

pub(super) fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
    let (before, after) = (versions(old), versions(new));
    let change = |key: &Key, old: Option<&Version>, new: Option<&Version>| Change {
        environment: key.0.to_owned(),
        system: key.1,
        package: key.3.to_owned(),
        old: old.cloned(),
        new: new.cloned(),
    };
    let mut changes = Vec::new();
    for (key, old) in &before {
        match after.get(key) {
            // Versions may be equal to dpkg and still be different packages.
            Some(new) if new.as_str() == old.as_str() => {}
            new => changes.push(change(key, Some(old), new.copied())),
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        changes.push(change(key, None, Some(new)));
    }
    changes.sort();
    changes
}
