//! Whether a set of packages holds together, clause by clause; the walk that chose them is not trusted, nor is a lock
//! that somebody may have edited.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use igloo_base::System;
use igloo_formats::deb::{Alternative, Clause, MultiArch, Op, Record, Relations, Version};

use crate::lock::LockedPackage;

/// What the relations between packages are about, of one package.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a Version,
    /// Debian's word, or `all`.
    pub architecture: &'a str,
    /// Its `Multi-Arch`.
    pub multi_arch: MultiArch,
    /// `Pre-Depends`, `Depends`.
    pub depends: [&'a Relations; 2],
    /// `Conflicts`, `Breaks`.
    pub conflicts: [&'a Relations; 2],
    /// `Provides`
    pub provides: &'a Relations,
}

static NONE: Relations = Relations(Vec::new());

impl<'a> From<&'a Record> for Member<'a> {
    fn from(record: &'a Record) -> Self {
        Member {
            name: &record.name,
            version: &record.version,
            architecture: &record.architecture,
            multi_arch: record.multi_arch,
            depends: [&record.pre_depends, &record.depends],
            conflicts: [&record.conflicts, &record.breaks],
            provides: &record.provides,
        }
    }
}

impl<'a> From<&'a LockedPackage> for Member<'a> {
    fn from(package: &'a LockedPackage) -> Self {
        Member {
            name: &package.name,
            version: &package.version,
            architecture: &package.architecture,
            multi_arch: package.multi_arch,
            depends: [&package.depends, &NONE],
            conflicts: [&package.conflicts, &NONE],
            provides: &package.provides,
        }
    }
}

impl<'a> Member<'a> {
    /// Whether it is, or provides, what an alternative asks for. A provided name has a version only if `Provides`
    /// says one with `=`; `:any` is satisfied by what says `Multi-Arch: allowed`.
    pub fn satisfies(&self, wanted: &Alternative, system: System) -> bool {
        let qualified = match wanted.qualifier.as_deref() {
            None => true,
            Some("any") => self.multi_arch == MultiArch::Allowed,
            // There is only one architecture in an environment, and `all` counts as that.
            Some("native") => true,
            Some(architecture) => architecture == system.deb_arch(),
        };
        let itself = || self.name == wanted.name && wanted.accepts(self.version);
        let provided = |p: &Alternative| {
            p.name == wanted.name
                && match (&p.constraint, &wanted.constraint) {
                    (None, None) => true,
                    (Some((Op::Equal, version)), _) => wanted.accepts(version),
                    _ => false,
                }
        };
        qualified && (itself() || self.provides.iter().flat_map(|clause| &clause.0).any(provided))
    }

    /// Whether it can be installed on this system at all.
    pub fn runs_on(&self, system: System) -> bool {
        self.architecture == "all" || self.architecture == system.deb_arch()
    }

    /// What it conflicts with or breaks.
    pub(super) fn enemies(self) -> impl Iterator<Item = &'a Alternative> {
        self.conflicts.into_iter().flat_map(|r| &r.0).flat_map(|clause| &clause.0)
    }

    /// Names that others can mean it by; its own may come twice.
    pub(super) fn names(self) -> impl Iterator<Item = &'a str> {
        let provided = self.provides.iter().flat_map(|clause| &clause.0).map(|p| p.name.as_str());
        std::iter::once(self.name).chain(provided)
    }
}

/// Why a set of packages does not hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Nothing satisfies a clause.
    Unmet {
        /// The package, with its version.
        package: String,
        /// What it depends on.
        clause: Clause,
    },
    /// Two packages cannot be there together.
    Conflict {
        /// The package that says so, with its version.
        package: String,
        /// What it conflicts with or breaks.
        relation: Alternative,
        /// The other package, with its version.
        with: String,
    },
    /// A package is there twice.
    Twice {
        /// The package, with one of its versions.
        package: String,
    },
    /// A package is for another architecture.
    Foreign {
        /// The package, with its version.
        package: String,
        /// Its architecture.
        architecture: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Unmet { package, clause } => {
                write!(f, "`{package}` depends on `{clause}`, which no package satisfies")
            }
            Violation::Conflict { package, relation, with } => {
                write!(f, "`{package}` cannot be together with `{with}`: it conflicts with or breaks `{relation}`")
            }
            Violation::Twice { package } => write!(f, "`{package}` is there in another version, too"),
            Violation::Foreign { package, architecture } => write!(f, "`{package}` is for {architecture}"),
        }
    }
}

/// Checks every `Pre-Depends`, `Depends`, `Conflicts` and `Breaks` of some packages against the others.
pub fn verify(members: &[Member<'_>], system: System) -> Vec<Violation> {
    let label = |m: &Member<'_>| format!("{} {}", m.name, m.version);
    let mut by_name: HashMap<&str, Vec<&Member<'_>>> = HashMap::new();
    let mut own_names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut violations = Vec::new();
    for member in members {
        for name in member.names() {
            by_name.entry(name).or_default().push(member);
        }
        let count = own_names.entry(member.name).or_default();
        *count += 1;
        if *count == 2 {
            violations.push(Violation::Twice { package: label(member) });
        }
        if !member.runs_on(system) {
            let architecture = member.architecture.to_owned();
            violations.push(Violation::Foreign { package: label(member), architecture });
        }
    }
    let named = |name: &str| by_name.get(name).into_iter().flatten().copied();
    for member in members {
        for clause in member.depends.into_iter().flat_map(|r| &r.0) {
            if !clause.0.iter().any(|wanted| named(&wanted.name).any(|m| m.satisfies(wanted, system))) {
                violations.push(Violation::Unmet { package: label(member), clause: clause.clone() });
            }
        }
        for enemy in member.enemies() {
            // A package may conflict with what it provides: with every other provider, that is.
            if let Some(with) = named(&enemy.name).find(|m| m.name != member.name && m.satisfies(enemy, system)) {
                let (package, with) = (label(member), label(with));
                violations.push(Violation::Conflict { package, relation: enemy.clone(), with });
            }
        }
    }
    violations
}
