//! What an environment of these packages needs that only scripts say.

use std::collections::BTreeMap;

use igloo_manifest::ScriptDecision;

use crate::{EnvError, Identities, Member};

/// What stands in for a maintainer script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cover {
    /// It does nothing that matters on a fresh root.
    Harmless,
    /// Everything it does is done by these triggers.
    Triggers(Vec<&'static str>),
    /// Igloo's own recipe for the package.
    Recipe,
    /// The user said so in the manifest.
    Ignored,
}

/// A package's scripts and what covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptReport {
    /// The package.
    pub package: String,
    /// What covers them.
    pub cover: Cover,
}

/// Scripts that nothing covers: the user has to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhandled {
    /// The package.
    pub package: String,
    /// `preinst` or `postinst`.
    pub script: &'static str,
    /// The command lines that are not understood: line number and text.
    pub lines: Vec<(u32, String)>,
}

/// The answer of [`plan`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The known identities and those that the members add.
    pub identities: Identities,
    /// Packages with scripts that are covered.
    pub scripts: Vec<ScriptReport>,
    /// Packages with scripts that are not.
    pub unhandled: Vec<Unhandled>,
}

/// Reads the members' control data: who needs which identities, whose scripts are covered by what.
pub fn plan(
    _members: &[Member],
    _known: &Identities,
    _decisions: &BTreeMap<String, ScriptDecision>,
) -> Result<Plan, EnvError> {
    todo!()
}
