//! Which services a request is about: profiles, what they need, and how many of each there are.
//!
//! The first replica of `web` is `web`, the others are `web.2`, `web.3` …: no service can be called so, and going from
//! one to several leaves the one alone.

use std::collections::{BTreeMap, BTreeSet};

use igloo_manifest::{Condition, Manifest, Need};
use igloo_supervisor as supervisor;

/// What of a project is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instances {
    /// How many of each wanted service.
    counts: BTreeMap<String, u32>,
    /// Those whose end somebody waits for.
    waited_for: BTreeSet<String>,
}

/// `web` of `web.2`.
pub(crate) fn base_name(instance: &str) -> &str {
    instance.split_once('.').map_or(instance, |(base, _)| base)
}

fn name(base: &str, number: u32) -> String {
    if number == 1 { base.to_owned() } else { format!("{base}.{number}") }
}

impl Instances {
    /// The named services (if none is, all that no profile but the given ones has) and everything that they need.
    pub(crate) fn wanted(
        manifest: &Manifest,
        names: &[String],
        profiles: &[String],
        scale: &BTreeMap<String, u32>,
    ) -> Self {
        let services = &manifest.services;
        let active = |s: &igloo_manifest::Service| {
            s.profiles.is_empty()
                || s.profiles.iter().any(|p| profiles.contains(p) || profiles.iter().any(|p| p == "*"))
        };
        // A task is run when it is named, when something needs its end, or from time to time.
        let usual = |s: &igloo_manifest::Service| s.task.as_ref().is_none_or(|t| t.every.is_some()) && active(s);
        let mut todo: Vec<&str> = match names {
            [] => services.iter().filter(|(_, s)| usual(s)).map(|(name, _)| name.as_str()).collect(),
            names => names.iter().map(|n| base_name(n)).collect(),
        };
        let mut this = Self::default();
        while let Some(name) = todo.pop() {
            let Some(service) = services.get(name) else { continue };
            let count = scale.get(name).copied().unwrap_or(service.replicas);
            if this.counts.insert(name.to_owned(), count).is_none() {
                todo.extend(service.needs.iter().map(|n| n.service.as_str()));
            }
        }
        // Of everybody's needs, wanted or not, so that what a service is does not depend on who is up.
        let completed = services.values().flat_map(|s| &s.needs).filter(|n| n.condition == Condition::Completed);
        this.waited_for = completed.map(|n| n.service.clone()).collect();
        this
    }

    /// The wanted services, sorted.
    pub(crate) fn services(&self) -> impl Iterator<Item = &String> {
        self.counts.keys()
    }

    /// Every replica of every wanted service, with the service's name.
    pub(crate) fn all(&self) -> Vec<(&String, String)> {
        self.counts.iter().flat_map(|(base, count)| (1..=*count).map(move |n| (base, name(base, n)))).collect()
    }

    /// What a need means to the supervisor: every replica.
    pub(crate) fn needed(&self, need: &Need) -> Vec<supervisor::Need> {
        let condition = match need.condition {
            Condition::Started => supervisor::Condition::Started,
            Condition::Ready => supervisor::Condition::Ready,
            Condition::Completed => supervisor::Condition::Completed,
        };
        let count = self.counts.get(&need.service).copied().unwrap_or(1);
        (1..=count).map(|n| supervisor::Need { name: name(&need.service, n), condition }).collect()
    }

    /// True for what does its work and ends, for all that it is declared as a service.
    pub(crate) fn is_waited_for(&self, instance: &str) -> bool {
        self.waited_for.contains(base_name(instance))
    }
}
