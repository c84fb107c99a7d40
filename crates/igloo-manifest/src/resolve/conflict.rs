//! Why there is no answer, told so that a person can change the request.

use std::collections::HashMap;
use std::fmt;

use igloo_base::System;
use igloo_formats::deb::{Alternative, Clause};

use super::universe::{Candidate, Universe};
use super::verify::{Member, Violation};
use super::{WHY_BASE, WHY_ROOT};
use crate::request::EnvironmentRequest;

/// A chain of more links is cut.
const MAX_CHAIN: usize = 50;

/// Why an environment cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot choose the packages of `{key}`: {reason}")]
pub struct Conflict {
    /// The environment, `shells.default`.
    pub key: String,
    /// Which of the request's roots it is about, if one of them.
    pub root: Option<usize>,
    /// What is wrong, in a line.
    pub reason: String,
    /// The way from the root to the clause that cannot hold.
    pub chain: Vec<Link>,
    /// What was looked at for that clause, and why each will not do.
    pub candidates: Vec<Unfit>,
    /// The next step.
    pub help: Option<String>,
}

/// A package on the way, and the clause of it that leads on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The package, with its version.
    pub package: String,
    /// What it depends on.
    pub clause: String,
}

/// A candidate that will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The package, with its version and suite as far as there are any.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl Conflict {
    /// Chain and candidates as indented lines, without headline and help.
    pub fn details(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for (depth, link) in self.chain.iter().enumerate() {
            let indent = "  ".repeat(depth);
            let _ = writeln!(text, "{indent}{} depends on {}", link.package, link.clause);
        }
        let indent = "  ".repeat(self.chain.len());
        for unfit in &self.candidates {
            let _ = writeln!(text, "{indent}{}: {}", unfit.what, unfit.why);
        }
        text
    }
}

/// A walk that did not arrive.
pub(super) struct Dead {
    /// Which root it was about.
    pub(super) root: Option<usize>,
    /// Its name.
    pub(super) name: String,
    /// Why it cannot be had.
    pub(super) refusal: Refusal,
    /// The packages, with version, that the walk found it cannot have.
    pub(super) others: HashMap<String, Refusal>,
}

impl Dead {
    /// What a refusal of a package, with version, goes back to.
    fn cause<'a>(&'a self, package: &str, refusal: &'a Refusal) -> &'a Refusal {
        match refusal {
            Refusal::Dead => self.others.get(package).unwrap_or(refusal),
            refusal => refusal,
        }
    }
}

/// Why a package cannot be had.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// The request excludes it.
    Excluded,
    /// Nothing has that name.
    Unknown,
    /// A name that several packages provide.
    Virtual(Vec<String>),
    /// Not in the version, or not from the suite, that was asked for.
    NoSuchVersion,
    /// It is chosen already, in another version.
    OtherVersion { chosen: String, by: String },
    /// It cannot be together with what is chosen already.
    Enemy(Box<Enemy>),
    /// A clause of it cannot hold.
    Unmet { package: String, clause: Clause, tried: Vec<(String, Refusal)> },
    /// It was tried: see [`Dead::others`]. Not nested, as an archive could nest it deeper than any stack.
    Dead,
}

/// Two packages that cannot be together.
#[derive(Debug, Clone)]
pub(super) struct Enemy {
    /// The package that conflicts with, or breaks, `relation`.
    pub(super) who: String,
    pub(super) relation: Alternative,
    /// The package that is meant by it.
    pub(super) with: String,
    /// One of both, already chosen.
    pub(super) chosen: String,
    /// Who pulled that in.
    pub(super) by: String,
}

impl Refusal {
    /// In a few words, after the name of the package.
    fn why(&self) -> String {
        match self {
            Refusal::Excluded => "excluded".to_owned(),
            Refusal::Unknown => "there is no such package".to_owned(),
            Refusal::Virtual(_) => "not a package but a name that several packages provide".to_owned(),
            Refusal::NoSuchVersion => "not the version that was asked for".to_owned(),
            Refusal::OtherVersion { chosen, by } => format!("{chosen} is already needed{}", wanted_by(by)),
            Refusal::Enemy(enemy) => {
                let Enemy { who, relation, with, chosen, by } = &**enemy;
                let by = wanted_by(by);
                match chosen == with {
                    true => format!("{who} cannot be together with {relation}, but {chosen} is already needed{by}"),
                    false => format!("{chosen}, which is already needed{by}, cannot be together with {relation}"),
                }
            }
            Refusal::Unmet { clause, .. } => format!("depends on {clause}, which cannot be had either"),
            Refusal::Dead => "cannot be had".to_owned(),
        }
    }
}

fn wanted_by(by: &str) -> String {
    match by {
        WHY_ROOT => " (asked for)".to_owned(),
        WHY_BASE => " (part of the base)".to_owned(),
        "" => String::new(),
        by => format!(" by {by}"),
    }
}

/// Turns the dead end of a walk into words.
pub(super) fn explain(universe: &dyn Universe, request: &EnvironmentRequest, system: System, dead: &Dead) -> Conflict {
    let mut conflict = Conflict {
        key: request.key.clone(),
        root: dead.root,
        reason: String::new(),
        chain: Vec::new(),
        candidates: Vec::new(),
        help: None,
    };
    let name = &dead.name;
    match &dead.refusal {
        Refusal::Excluded => {
            conflict.reason = format!("`{name}` is asked for and excluded");
            conflict.help = Some(format!("remove `{name}` or `!{name}`"));
        }
        Refusal::Unknown => {
            if let Some(why) = universe.unreadable(name) {
                conflict.reason = format!("the package `{name}` cannot be used: {why}");
            } else {
                conflict.reason = format!("there is no package `{name}`");
                conflict.help = did_you_mean(universe, name);
            }
        }
        Refusal::Virtual(names) => {
            conflict.reason = format!("`{name}` is not a package but a name that several packages provide");
            conflict.help = Some(format!("ask for one of {}", list(names)));
        }
        Refusal::NoSuchVersion => no_such_version(universe, request, system, dead, &mut conflict),
        Refusal::Unmet { .. } => unmet(universe, request, system, dead, &mut conflict),
        refusal => {
            conflict.reason = format!("`{name}` cannot be had");
            let what = name.clone();
            conflict.candidates.push(Unfit { what, why: refusal.why() });
            conflict.help = help_for(refusal);
        }
    }
    conflict
}

fn no_such_version(
    universe: &dyn Universe,
    request: &EnvironmentRequest,
    system: System,
    dead: &Dead,
    conflict: &mut Conflict,
) {
    let root = dead.root.and_then(|i| request.roots.get(i));
    let version = root.and_then(|r| r.version.as_ref()).map_or_else(String::new, |v| format!(" in version {v}"));
    let suite = root.and_then(|r| r.suite.as_ref()).map_or_else(String::new, |s| format!(" from suite {s}"));
    conflict.reason = format!("there is no `{}`{version}{suite}", dead.name);
    for candidate in universe.candidates(&dead.name) {
        let why = if Member::from(&candidate.record).runs_on(system) {
            "not what was asked for"
        } else {
            "another architecture"
        };
        conflict.candidates.push(Unfit { what: describe(&candidate), why: why.to_owned() });
    }
    let best = universe.candidates(&dead.name).into_iter().next();
    conflict.help = best.map(|c| format!("ask for `{}`, or for one of the versions above", c.record.name));
}

/// Follows the first attempt of every clause down to the one that fails by itself.
fn unmet(universe: &dyn Universe, request: &EnvironmentRequest, system: System, dead: &Dead, conflict: &mut Conflict) {
    let mut at = &dead.refusal;
    while let Refusal::Unmet { package, clause, tried } = at {
        conflict.chain.push(Link { package: package.clone(), clause: clause.to_string() });
        let causes = tried.iter().map(|(package, refusal)| dead.cause(package, refusal));
        match causes.into_iter().find(|cause| matches!(cause, Refusal::Unmet { .. })) {
            // Nothing dead can lead back to itself, but what is drawn from a hostile archive need not be long.
            Some(deeper) if conflict.chain.len() < MAX_CHAIN => at = deeper,
            _ => {
                conflict.reason = format!("`{package}` depends on `{clause}`, which cannot be had");
                for wanted in &clause.0 {
                    unfit(universe, request, system, wanted, tried, conflict);
                }
                break;
            }
        }
    }
}

/// Why nothing that an alternative could mean will do.
fn unfit(
    universe: &dyn Universe,
    request: &EnvironmentRequest,
    system: System,
    wanted: &Alternative,
    tried: &[(String, Refusal)],
    conflict: &mut Conflict,
) {
    let own = universe.candidates(&wanted.name);
    let others = universe.providers(&wanted.name);
    if own.is_empty() && others.is_empty() {
        let why = universe.unreadable(&wanted.name).unwrap_or_else(|| "there is no such package".to_owned());
        conflict.candidates.push(Unfit { what: wanted.name.clone(), why });
        return;
    }
    for candidate in own.iter().chain(&others) {
        let member = Member::from(&candidate.record);
        let label = super::walk::label(candidate);
        let attempt = tried.iter().find(|(what, _)| *what == label).map(|(_, refusal)| refusal);
        let why = if request.excludes.contains(&candidate.record.name) {
            conflict.help.get_or_insert_with(|| format!("remove `!{}`, or what needs it", candidate.record.name));
            "excluded".to_owned()
        } else if !member.runs_on(system) {
            format!("it is for {}", candidate.record.architecture)
        } else if !member.satisfies(wanted, system) {
            match candidate.record.name == wanted.name {
                true => format!("not {wanted}"),
                false => format!("does not provide {wanted}"),
            }
        } else if let Some(refusal) = attempt {
            if conflict.help.is_none() {
                conflict.help = help_for(refusal);
            }
            refusal.why()
        } else {
            "a version that was asked for stands against it".to_owned()
        };
        let unfit = Unfit { what: describe(candidate), why };
        if !conflict.candidates.contains(&unfit) {
            conflict.candidates.push(unfit);
        }
    }
}

fn help_for(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Enemy(enemy) => Some(format!(
            "do without {} or without {}: ask for another alternative, or exclude one with `!name`",
            enemy.who, enemy.with
        )),
        Refusal::OtherVersion { chosen, .. } => Some(format!("ask for another version than {chosen}")),
        _ => None,
    }
}

fn did_you_mean(universe: &dyn Universe, name: &str) -> Option<String> {
    let names = universe.names_like(name);
    (!names.is_empty()).then(|| format!("did you mean {}?", list(&names)))
}

/// `a`, `b` or `c`
fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn describe(candidate: &Candidate) -> String {
    format!("{} {} ({})", candidate.record.name, candidate.record.version, candidate.suite)
}

/// An answer that does not hold together: a fault of the walk, told instead of a bad lock.
pub(super) fn unsound(request: &EnvironmentRequest, violations: &[Violation]) -> Conflict {
    let what = "the answer".to_owned();
    Conflict {
        key: request.key.clone(),
        root: None,
        reason: "the answer of the resolver does not hold together; this is a fault of igloo".to_owned(),
        chain: Vec::new(),
        candidates: violations.iter().map(|v| Unfit { what: what.clone(), why: v.to_string() }).collect(),
        help: None,
    }
}
