//! The first three triggers and the walk through all scripts: what [`crate::plan`] and [`crate::assemble`] share, so
//! that what is planned is what is done.

use std::collections::{BTreeMap, BTreeSet};

use igloo_formats::deb::Relations;
use igloo_formats::deb::meta::control_field;

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

/// The order in which scripts are walked, and ids given: what a package depends on first, else by name.
fn in_order(union: &Union<'_>) -> Result<Vec<usize>, EnvError> {
    let members = union.members;
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (m, member) in members.iter().enumerate() {
        by_name.entry(&member.name).or_default().push(m);
    }
    let mut needs = Vec::with_capacity(members.len());
    for m in 0..members.len() {
        let control = union.control(m, "control")?.unwrap_or_default();
        let control = String::from_utf8_lossy(&control);
        let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|f| control_field(&control, f));
        let clauses = fields.filter_map(|f| Relations::parse(f).ok()).flat_map(|r| r.0);
        let names: Vec<usize> = clauses
            .flat_map(|clause| clause.0)
            .filter_map(|alternative| by_name.get(alternative.name.as_str()))
            .flatten()
            .copied()
            .collect();
        needs.push(names);
    }
    let mut start: Vec<usize> = (0..members.len()).collect();
    // What every script may rely on comes first, as in a real installation.
    let rank = |name: &str| match name {
        "base-passwd" => 0,
        "base-files" => 1,
        _ => 2,
    };
    start.sort_by_key(|&m| (rank(&members[m].name), &members[m].name, &members[m].architecture));
    for list in &mut needs {
        list.sort_by_key(|&m| (&members[m].name, &members[m].architecture));
    }
    // Depth first without recursion; a circle is cut where it closes.
    let (mut order, mut seen) = (Vec::with_capacity(members.len()), vec![false; members.len()]);
    for first in start {
        let mut stack = if seen[first] { Vec::new() } else { vec![(first, 0)] };
        seen[first] = true;
        while let Some((m, next)) = stack.last_mut() {
            match needs[*m].get(*next) {
                Some(&need) => {
                    *next += 1;
                    if !seen[need] {
                        seen[need] = true;
                        stack.push((need, 0));
                    }
                }
                None => {
                    order.push(*m);
                    stack.pop();
                }
            }
        }
    }
    Ok(order)
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
    for member in in_order(union)? {
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
