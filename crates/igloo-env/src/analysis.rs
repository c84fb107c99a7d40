//! The first three triggers and the walk through all scripts: what [`crate::plan`] and [`crate::assemble`] share, so
//! that what is planned is what is done.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{Identities, Registry};
use crate::layer::Layer;
use crate::script::{Findings, Walker};
use crate::triggers::{accounts, links};
use crate::union::Union;
use crate::{EnvError, recipes};

/// What became of one script.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) member: usize,
    pub(crate) script: &'static str,
    pub(crate) covers: BTreeSet<&'static str>,
    /// Lines that neither the walk nor a recipe understands.
    pub(crate) unknown: Vec<(u32, String)>,
    pub(crate) recipe: bool,
}

pub(crate) struct Analysis<'u> {
    pub(crate) layer: Layer<'u>,
    pub(crate) registry: Registry,
    pub(crate) findings: Findings,
    pub(crate) walked: Vec<Walked>,
}

/// Architecture that the environment is for: the first member's that has one.
pub(crate) fn architecture<'a>(union: &'a Union<'_>) -> &'a str {
    let real = union.members.iter().map(|m| m.architecture.as_str()).find(|a| *a != "all");
    real.unwrap_or(igloo_base::System::current().deb_arch())
}

/// Members by name: the order in which scripts are walked, and ids given.
fn in_order(union: &Union<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..union.members.len()).collect();
    // What every script may rely on comes first, as in a real installation.
    let rank = |name: &str| match name {
        "base-passwd" => 0,
        "base-files" => 1,
        _ => 2,
    };
    order.sort_by_key(|&m| {
        let member = &union.members[m];
        (rank(&member.name), member.name.as_str(), member.architecture.as_str())
    });
    order
}

pub(crate) fn analyse<'u>(union: &'u Union<'u>, known: &Identities, allocate: bool) -> Result<Analysis<'u>, EnvError> {
    let mut layer = Layer::new(union);
    let mut registry = Registry::new(known, allocate);
    let mut findings = Findings::default();
    links::run(&mut layer);
    accounts::masters(&mut layer, &mut registry)?;
    accounts::sysusers(&layer, &mut registry)?;
    let architecture = architecture(union).to_owned();
    let mut walked = Vec::new();
    for member in in_order(union) {
        let package = &union.members[member].name;
        let questions = match union.control(member, "templates")? {
            Some(text) => questions(&String::from_utf8_lossy(&text)),
            None => BTreeMap::new(),
        };
        for (script, args) in [("preinst", &["install"][..]), ("postinst", &["configure", ""][..])] {
            let Some(text) = union.control(member, script)? else { continue };
            let mut walker = Walker::new(&mut layer, &mut registry, &mut findings, package, &architecture);
            walker.questions.clone_from(&questions);
            walker.script(script, &text, args)?;
            let (mut unknown, covers) = (walker.unknown, walker.covers);
            let before = unknown.len();
            unknown.retain(|(_, line)| !recipes::covers(package, line));
            walked.push(Walked { member, script, covers, recipe: unknown.len() < before, unknown });
        }
    }
    Ok(Analysis { layer, registry, findings, walked })
}

/// Defaults of the questions in debconf's `templates`.
fn questions(text: &str) -> BTreeMap<String, String> {
    let mut questions = BTreeMap::new();
    let mut name = None;
    for line in text.lines() {
        if line.trim().is_empty() {
            name = None;
        } else if let Some(value) = line.strip_prefix("Template:") {
            name = Some(value.trim().to_owned());
        } else if let (Some(value), Some(name)) = (line.strip_prefix("Default:"), &name) {
            questions.insert(name.clone(), value.trim().to_owned());
        }
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::questions;

    #[test]
    fn defaults_of_questions() {
        let text = "Template: a/b\nType: boolean\nDefault: true\nDescription: x\n\nTemplate: a/c\nType: string\n";
        let found = questions(text);
        assert_eq!(found.get("a/b").map(String::as_str), Some("true"));
        assert_eq!(found.get("a/c"), None);
    }
}
