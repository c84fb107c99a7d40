//! What an environment of these packages needs that only scripts say.

use std::collections::{BTreeMap, BTreeSet};

use igloo_manifest::ScriptDecision;

use crate::analysis::{Walked, analyse};
use crate::union::Union;
use crate::{EnvError, Identities, Member, recipes};

/// What stands in for a package's maintainer scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cover {
    /// They do nothing that matters on a fresh root.
    Harmless,
    /// Everything they do is done by these triggers.
    Triggers(Vec<&'static str>),
    /// Igloo's own recipe for the package does what triggers cannot.
    Recipe,
    /// The user said so in the manifest.
    Ignored,
}

impl std::fmt::Display for Cover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cover::Harmless => f.write_str("nothing to do"),
            Cover::Triggers(names) => f.write_str(&names.join(", ")),
            Cover::Recipe => f.write_str("recipe"),
            Cover::Ignored => f.write_str("ignored"),
        }
    }
}

/// A package's scripts and what covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptReport {
    /// The package.
    pub package: String,
    /// What covers them.
    pub cover: Cover,
}

/// A script that nothing covers: the user has to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhandled {
    /// The package.
    pub package: String,
    /// `preinst` or `postinst`.
    pub script: &'static str,
    /// The commands that are not understood: line number and text.
    pub lines: Vec<(u32, String)>,
}

/// The answer of [`plan`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The known identities and those that the members add.
    pub identities: Identities,
    /// Packages with scripts that are covered, by name.
    pub scripts: Vec<ScriptReport>,
    /// Scripts that are not, by name of the package.
    pub unhandled: Vec<Unhandled>,
}

/// Reads the members' control data: who needs which identities, whose scripts are covered by what.
pub fn plan(
    members: &[Member],
    known: &Identities,
    decisions: &BTreeMap<String, ScriptDecision>,
) -> Result<Plan, EnvError> {
    for member in members {
        match decisions.get(&member.name) {
            Some(ScriptDecision::Sandbox) => return Err(EnvError::Sandbox(member.name.clone())),
            Some(ScriptDecision::Recipe) if !recipes::exists(&member.name) => {
                return Err(EnvError::NoRecipe(member.name.clone()));
            }
            _ => {}
        }
    }
    let union = Union::new(members)?;
    let analysis = analyse(&union, known, true)?;
    let mut packages: BTreeMap<&str, Vec<Walked>> = BTreeMap::new();
    for walked in analysis.walked {
        packages.entry(&members[walked.member].name).or_default().push(walked);
    }
    let mut plan = Plan { identities: analysis.registry.into_identities(), ..Plan::default() };
    for (package, scripts) in packages {
        let decided = decisions.get(package);
        if decided.is_none() && scripts.iter().any(|s| !s.unknown.is_empty()) {
            plan.unhandled.extend(scripts.into_iter().filter(|s| !s.unknown.is_empty()).map(|s| Unhandled {
                package: package.to_owned(),
                script: s.script,
                lines: s.unknown,
            }));
            continue;
        }
        let triggers: BTreeSet<&str> = scripts.iter().flat_map(|s| s.covers.iter().copied()).collect();
        let cover = match decided {
            Some(ScriptDecision::Ignore) => Cover::Ignored,
            Some(_) => Cover::Recipe,
            None if scripts.iter().any(|s| s.recipe) => Cover::Recipe,
            None if triggers.is_empty() => Cover::Harmless,
            None => Cover::Triggers(triggers.into_iter().collect()),
        };
        plan.scripts.push(ScriptReport { package: package.to_owned(), cover });
    }
    Ok(plan)
}
