//! Whether a lock holds together: what a hand or a merge may have broken.

use std::collections::{HashMap, HashSet};

use crate::request::STORE;

use super::{Lock, LockedEnvironment, LockedPackage, Problem};
use crate::resolve::{self, Member};

pub(super) fn verify(lock: &Lock) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    packages(lock, &mut problems);
    identities(lock, &mut problems);
    closures(lock, &mut problems);
    let mut seen = HashSet::new();
    for environment in &lock.environments {
        let label = format!("{} on {}", environment.key, environment.system);
        if !seen.insert((&environment.key, environment.system, &environment.source)) {
            problems.push(Problem { environment: Some(label.clone()), message: "it is listed twice".to_owned() });
        }
        let mut messages = Vec::new();
        members(lock, environment, &mut messages);
        problems.extend(messages.into_iter().map(|message| Problem { environment: Some(label.clone()), message }));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn packages(lock: &Lock, problems: &mut Vec<Problem>) {
    let mut report = |message| problems.push(Problem { environment: None, message });
    let mut seen: HashMap<_, &LockedPackage> = HashMap::new();
    // The same file must be the same everywhere; a package for all architectures is listed once for each system.
    let mut files: HashMap<(&str, &str), &LockedPackage> = HashMap::new();
    for package in &lock.packages {
        let label = format!("{} {} for {}", package.name, package.version, package.system);
        if package.size == 0 {
            report(format!("`{label}` has the size 0"));
        }
        if !lock.sources.contains_key(&package.source) {
            report(format!("`{label}` is from `{}`, which is not among the sources", package.source));
        }
        if seen.insert((&package.source, &package.name, package.system, package.version.as_str()), package).is_some() {
            report(format!("`{label}` is listed twice"));
        }
        if let Some(other) = files.insert((&package.source, &package.file), package)
            && (other.sha256, other.size) != (package.sha256, package.size)
        {
            report(format!("`{}` is listed with two digests or sizes", package.file));
        }
    }
}

fn identities(lock: &Lock, problems: &mut Vec<Problem>) {
    let mut report = |message| problems.push(Problem { environment: None, message });
    let (mut uids, mut users) = (HashMap::new(), HashSet::new());
    for user in &lock.users {
        if let Some(other) = uids.insert(user.uid, &user.name) {
            report(format!("the users `{other}` and `{}` have the number {}", user.name, user.uid));
        }
        if !users.insert(&user.name) {
            report(format!("the user `{}` is listed twice", user.name));
        }
    }
    let (mut gids, mut groups) = (HashMap::new(), HashSet::new());
    for group in &lock.groups {
        if let Some(other) = gids.insert(group.gid, &group.name) {
            report(format!("the groups `{other}` and `{}` have the number {}", group.name, group.gid));
        }
        if !groups.insert(&group.name) {
            report(format!("the group `{}` is listed twice", group.name));
        }
    }
}

/// What is known of closures is whole: a path that is listed has all its references listed.
fn closures(lock: &Lock, problems: &mut Vec<Problem>) {
    let mut report = |message| problems.push(Problem { environment: None, message });
    let known: HashSet<_> = lock.paths.iter().map(|p| &p.path).collect();
    for path in &lock.paths {
        for missing in path.references.iter().filter(|r| !known.contains(r)) {
            report(format!("`{}` refers to `{missing}`, which is not among the paths", path.path));
        }
    }
    for output in lock.outputs.iter().filter(|o| o.source != STORE && !lock.sources.contains_key(&o.source)) {
        report(format!("`{}` is from `{}`, which is not among the sources", output.name, output.source));
    }
}

fn members(lock: &Lock, environment: &LockedEnvironment, messages: &mut Vec<String>) {
    let is_of_nix = || lock.sources.get(&environment.source).is_some_and(|s| !s.flakes.is_empty());
    if environment.packages.is_empty() && (environment.source == STORE || is_of_nix()) {
        let has = |root: &String| lock.outputs_of(environment).any(|o| o.name == *root);
        let absent = environment.roots.iter().filter(|root| !has(root));
        messages.extend(absent.map(|root| format!("`{root}` was asked for and is not there")));
        return;
    }
    let packages = lock.members(environment);
    if packages.len() != environment.packages.len() {
        for (name, version) in &environment.packages {
            if !packages.iter().any(|p| p.name == *name && p.version.as_str() == version.as_str()) {
                messages.push(format!("`{name} {version}` is not among the packages of the lock"));
            }
        }
    }
    for root in &environment.roots {
        let is_there = packages.iter().any(|p| p.name == *root || provides(p, root));
        if !is_there && !environment.packages.iter().any(|(name, _)| name == root) {
            messages.push(format!("`{root}` was asked for and is not there"));
        }
    }
    let members: Vec<Member<'_>> = packages.into_iter().map(Member::from).collect();
    messages.extend(resolve::verify(&members, environment.system).iter().map(ToString::to_string));
}

fn provides(package: &LockedPackage, name: &str) -> bool {
    package.provides.iter().flat_map(|clause| &clause.0).any(|p| p.name == name)
}
