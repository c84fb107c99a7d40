//! The walk: choose, follow the clauses of what was chosen, undo what leads nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use igloo_base::System;
use igloo_formats::deb::{Alternative, Clause, Record};

use super::conflict::{self, Conflict, Dead, Enemy, Refusal};
use super::universe::{Candidate, Universe};
use super::verify::{Member, verify};
use super::{MINIMAL, Resolution, WHY_BASE, WHY_ROOT};
use crate::manifest::Base;
use crate::request::{EnvironmentRequest, Root};

/// How often the walk begins again before giving up. Each is about a millisecond; Debian's packages need none or one.
const MAX_WALKS: usize = 100;

/// Packages in one version, `name version`, that a walk must do without.
type Avoid = BTreeSet<String>;

/// Walks until one arrives, each avoiding what stood in the way of an earlier one, the fewest first.
pub(super) fn search(
    universe: &dyn Universe,
    request: &EnvironmentRequest,
    system: System,
) -> Result<Resolution, Box<Conflict>> {
    let mut queue = VecDeque::from([Avoid::new()]);
    let mut seen: HashSet<Avoid> = HashSet::new();
    let mut first = None;
    for _ in 0..MAX_WALKS {
        let Some(avoid) = queue.pop_front() else { break };
        let mut walk = Walk::new(universe, request, system, &avoid);
        match walk.run() {
            Ok(()) => return walk.finish(),
            Err(dead) => {
                // The latest obstacle is the most likely to matter.
                for obstacle in walk.obstacles.into_iter().rev() {
                    let mut more = avoid.clone();
                    if more.insert(obstacle) && seen.insert(more.clone()) {
                        queue.push_back(more);
                    }
                }
                // What the first walk says is what a person would have tried.
                first.get_or_insert(dead);
            }
        }
    }
    match first {
        Some(dead) => Err(Box::new(conflict::explain(universe, request, system, &dead))),
        None => Ok(Resolution { packages: Vec::new(), why: BTreeMap::new() }),
    }
}

pub(super) fn label(candidate: &Candidate) -> String {
    format!("{} {}", candidate.record.name, candidate.record.version)
}

struct Walk<'a> {
    universe: &'a dyn Universe,
    request: &'a EnvironmentRequest,
    system: System,
    avoid: &'a Avoid,
    /// Roots that were asked for in a version, or from a suite: no other will do.
    pinned: HashMap<String, Arc<Candidate>>,
    /// The candidate that is tried for a name unless a clause needs another.
    preferred: HashMap<String, Option<Arc<Candidate>>>,
    chosen: HashMap<String, Chosen>,
    /// Names in the order they were chosen.
    trail: Vec<String>,
    /// Chosen packages by what they provide.
    provided: HashMap<String, Vec<Arc<Candidate>>>,
    /// Chosen packages by what they conflict with or break.
    enemies: HashMap<String, Vec<Arc<Candidate>>>,
    /// What was tried and cannot be had in this walk.
    dead: HashMap<String, Refusal>,
    /// Chosen packages that stood in the way of others, as they came up.
    obstacles: Vec<String>,
}

struct Chosen {
    candidate: Arc<Candidate>,
    /// Who pulled it in.
    by: String,
}

/// A chosen package whose clauses are being followed.
struct Frame {
    candidate: Arc<Candidate>,
    /// The clause that is looked at, counted through `Pre-Depends`, `Depends` and `Recommends`.
    clause: usize,
    /// What could satisfy it and was not yet tried, the best last.
    options: Vec<Arc<Candidate>>,
    /// Where `options` are from.
    asked: Asked,
    tried: Vec<(String, Refusal)>,
    /// Length of the trail before this package was chosen.
    trail: usize,
}

/// How far a frame went in looking for options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Preferred,
    Everything,
}

impl Frame {
    fn new(candidate: Arc<Candidate>, trail: usize) -> Self {
        Self { candidate, clause: 0, options: Vec::new(), asked: Asked::Nothing, tried: Vec::new(), trail }
    }

    fn next_clause(&mut self) {
        self.clause += 1;
        self.options.clear();
        self.asked = Asked::Nothing;
        self.tried.clear();
    }
}

/// A clause, counted through `Pre-Depends`, `Depends` and, if they are followed, `Recommends`; and whether it must hold.
fn clause_at(record: &Record, at: usize, recommends: bool) -> Option<(&Clause, bool)> {
    let needed = record.pre_depends.iter().chain(&record.depends).map(|clause| (clause, true));
    let wished = record.recommends.iter().filter(|_| recommends).map(|clause| (clause, false));
    needed.chain(wished).nth(at)
}

enum Step {
    /// Follow the clauses of a package just chosen.
    Enter(Frame),
    /// Every clause holds.
    Done,
    /// A clause cannot hold.
    Dead(Refusal),
}

impl<'a> Walk<'a> {
    fn new(universe: &'a dyn Universe, request: &'a EnvironmentRequest, system: System, avoid: &'a Avoid) -> Self {
        Self {
            universe,
            request,
            system,
            avoid,
            pinned: HashMap::new(),
            preferred: HashMap::new(),
            chosen: HashMap::new(),
            trail: Vec::new(),
            provided: HashMap::new(),
            enemies: HashMap::new(),
            dead: HashMap::new(),
            obstacles: Vec::new(),
        }
    }

    /// All roots are chosen before the first clause is followed, so that a clause which a root satisfies adds nothing.
    fn run(&mut self) -> Result<(), Box<Dead>> {
        let mut roots = Vec::new();
        for (i, root) in self.request.roots.iter().enumerate() {
            let candidate = self.root(root).map_err(|refusal| self.give_up(Some(i), &root.name, refusal))?;
            if root.version.is_some() || root.suite.is_some() {
                let before = self.pinned.insert(root.name.clone(), Arc::clone(&candidate));
                if let Some(other) = before.filter(|before| !Arc::ptr_eq(before, &candidate)) {
                    let refusal = Refusal::OtherVersion { chosen: label(&other), by: WHY_ROOT.to_owned() };
                    return Err(self.give_up(Some(i), &root.name, refusal));
                }
            }
            roots.push((Some(i), candidate, WHY_ROOT));
        }
        // So that a name that is asked for twice, once in a version, is the same both times.
        for (_, candidate, _) in &mut roots {
            *candidate = self.pinned.get(&candidate.record.name).unwrap_or(candidate).clone();
        }
        let mut all = Vec::new();
        for name in self.base() {
            // A base is what others take for granted; an archive that lacks a part of it has no use for that.
            if !roots.iter().any(|(_, root, _)| root.record.name == name)
                && let Some(candidate) = self.preferred(&name)
            {
                all.push((None, candidate, WHY_BASE));
            }
        }
        all.append(&mut roots);

        for (root, candidate, by) in &all {
            match self.chosen.get(&candidate.record.name) {
                Some(same) if Arc::ptr_eq(&same.candidate, candidate) => {}
                _ => self.choose(candidate, by).map_err(|refusal| self.lose(*root, candidate, refusal))?,
            }
        }
        for (root, candidate, _) in all {
            self.follow(&candidate).map_err(|refusal| self.lose(root, &candidate, refusal))?;
        }
        Ok(())
    }

    /// A root in a version that cannot be had; another walk may try another version.
    fn lose(&mut self, root: Option<usize>, candidate: &Arc<Candidate>, refusal: Refusal) -> Box<Dead> {
        self.obstruct(candidate);
        let refusal = match refusal {
            Refusal::Dead => self.dead.get(&label(candidate)).cloned().unwrap_or(refusal),
            refusal => refusal,
        };
        self.give_up(root, &candidate.record.name, refusal)
    }

    fn give_up(&mut self, root: Option<usize>, name: &str, refusal: Refusal) -> Box<Dead> {
        Box::new(Dead { root, name: name.to_owned(), refusal, others: std::mem::take(&mut self.dead) })
    }

    fn base(&self) -> Vec<String> {
        let mut names = match self.request.base {
            Base::None => Vec::new(),
            Base::Minimal => MINIMAL.iter().map(|name| (*name).to_owned()).collect(),
            Base::Essential => {
                let mut names = vec![MINIMAL[0].to_owned()];
                names.extend(self.universe.essential());
                names
            }
        };
        names.retain(|name| !self.excluded(name));
        names
    }

    fn excluded(&self, name: &str) -> bool {
        self.request.excludes.iter().any(|excluded| excluded == name)
    }

    /// The candidate that a root means.
    fn root(&mut self, root: &Root) -> Result<Arc<Candidate>, Refusal> {
        if self.excluded(&root.name) {
            return Err(Refusal::Excluded);
        }
        let all = self.usable(&root.name);
        if all.is_empty() {
            // As apt does: a virtual package stands for its provider if there is only one.
            let mut providers: Vec<_> = self.providers(&root.name);
            providers.retain(|p| self.preferred(&p.record.name).is_some_and(|best| Arc::ptr_eq(&best, p)));
            providers.sort_by(|a, b| a.record.name.cmp(&b.record.name));
            return match providers.as_slice() {
                [] => Err(Refusal::Unknown),
                [one] if root.version.is_none() && root.suite.is_none() => Ok(Arc::clone(one)),
                some => Err(Refusal::Virtual(some.iter().map(|p| p.record.name.clone()).collect())),
            };
        }
        let from = |suite: &str| root.suite.as_deref().is_none_or(|s| s == suite);
        let fits = |c: &&Arc<Candidate>| root.version.as_ref().is_none_or(|v| *v == c.record.version) && from(&c.suite);
        all.iter().find(fits).cloned().ok_or(Refusal::NoSuchVersion)
    }

    /// Every candidate of a name that this walk may choose, the best first.
    fn usable(&self, name: &str) -> Vec<Arc<Candidate>> {
        if self.excluded(name) {
            return Vec::new();
        }
        let mut all = self.universe.candidates(name);
        all.retain(|c| self.may_use(c));
        all
    }

    fn providers(&self, name: &str) -> Vec<Arc<Candidate>> {
        let mut all = self.universe.providers(name);
        all.retain(|c| !self.excluded(&c.record.name) && self.may_use(c));
        all
    }

    fn may_use(&self, candidate: &Candidate) -> bool {
        Member::from(&candidate.record).runs_on(self.system)
            && (self.avoid.is_empty() || !self.avoid.contains(&label(candidate)))
    }

    fn preferred(&mut self, name: &str) -> Option<Arc<Candidate>> {
        if let Some(pinned) = self.pinned.get(name) {
            return Some(Arc::clone(pinned));
        }
        if let Some(known) = self.preferred.get(name) {
            return known.clone();
        }
        let best = self.usable(name).into_iter().next();
        self.preferred.insert(name.to_owned(), best.clone());
        best
    }

    fn satisfied(&self, clause: &Clause) -> bool {
        let by = |candidate: &Candidate, wanted| Member::from(&candidate.record).satisfies(wanted, self.system);
        clause.0.iter().any(|wanted| {
            self.chosen.get(&wanted.name).is_some_and(|c| by(&c.candidate, wanted))
                || self.provided.get(&wanted.name).into_iter().flatten().any(|c| by(c, wanted))
        })
    }

    /// What could satisfy a clause, the best first: the alternatives as written, for each the package of that name,
    /// then its providers. Either the preferred candidates, as apt does, or every one there is.
    fn options(&mut self, clause: &Clause, of: &Candidate, asked: Asked) -> Vec<Arc<Candidate>> {
        let mut alternatives: Vec<&Alternative> = clause.0.iter().collect();
        // `usrmerge` turns an old system into a merged one, `usr-is-merged` says that it is: every root of ours is.
        if let Some(at) = alternatives.iter().position(|a| a.name == MINIMAL[0]) {
            alternatives[..=at].rotate_right(1);
        }
        let mut options: Vec<Arc<Candidate>> = Vec::new();
        for wanted in alternatives {
            let mut some = self.usable(&wanted.name);
            some.extend(self.providers(&wanted.name));
            if asked == Asked::Preferred {
                some.retain(|c| self.preferred(&c.record.name).is_some_and(|best| Arc::ptr_eq(&best, c)));
            } else {
                // A package from backports finds what it needs there.
                some.sort_by_key(|c| c.suite != of.suite);
            }
            self.add_options(&mut options, some, wanted);
        }
        options
    }

    fn add_options(&self, options: &mut Vec<Arc<Candidate>>, mut some: Vec<Arc<Candidate>>, wanted: &Alternative) {
        some.retain(|c| Member::from(&c.record).satisfies(wanted, self.system));
        some.sort_by(|a, b| {
            let key = |c: &Candidate| (c.record.name != wanted.name, !c.record.essential, c.record.priority);
            key(a).cmp(&key(b)).then(b.rank.cmp(&a.rank))
        });
        for candidate in some {
            if !options.iter().any(|o| Arc::ptr_eq(o, &candidate)) {
                options.push(candidate);
            }
        }
    }

    /// Chooses a package if nothing that is already chosen speaks against it.
    fn choose(&mut self, candidate: &Arc<Candidate>, by: &str) -> Result<(), Refusal> {
        let name = &candidate.record.name;
        if self.dead.contains_key(&label(candidate)) {
            return Err(Refusal::Dead);
        }
        if let Some(other) = self.chosen.get(name) {
            let refusal = Refusal::OtherVersion { chosen: label(&other.candidate), by: other.by.clone() };
            self.obstruct(&Arc::clone(&other.candidate));
            return Err(refusal);
        }
        if let Some((refusal, obstacle)) = self.enemy(candidate) {
            self.obstruct(&obstacle);
            return Err(refusal);
        }
        let record = &candidate.record;
        for clause in record.pre_depends.iter().chain(&record.depends) {
            // Not worth a try, nor what would be chosen for the clauses before.
            if !self.satisfied(clause) && !self.possible(clause) {
                let refusal = Refusal::Unmet { package: label(candidate), clause: clause.clone(), tried: Vec::new() };
                self.dead.insert(label(candidate), refusal);
                return Err(Refusal::Dead);
            }
        }
        let member = Member::from(record);
        for provided in member.names() {
            self.provided.entry(provided.to_owned()).or_default().push(Arc::clone(candidate));
        }
        for enemy in member.enemies() {
            self.enemies.entry(enemy.name.clone()).or_default().push(Arc::clone(candidate));
        }
        self.trail.push(name.clone());
        self.chosen.insert(name.clone(), Chosen { candidate: Arc::clone(candidate), by: by.to_owned() });
        Ok(())
    }

    /// True if some candidate would satisfy a clause, whatever is chosen.
    fn possible(&self, clause: &Clause) -> bool {
        clause.0.iter().any(|wanted| {
            let fits = |c: &Arc<Candidate>| Member::from(&c.record).satisfies(wanted, self.system);
            self.usable(&wanted.name).iter().any(fits) || self.providers(&wanted.name).iter().any(fits)
        })
    }

    /// A chosen package that cannot be together with this one.
    fn enemy(&self, candidate: &Candidate) -> Option<(Refusal, Arc<Candidate>)> {
        let member = Member::from(&candidate.record);
        let other = |c: &&Arc<Candidate>| c.record.name != candidate.record.name;
        let refusal = |who: &Candidate, relation: &Alternative, with: &Candidate, chosen: &Candidate| {
            let by = self.chosen.get(&chosen.record.name).map_or_else(String::new, |c| c.by.clone());
            let (who, relation, with) = (label(who), relation.clone(), label(with));
            Refusal::Enemy(Box::new(Enemy { who, relation, with, chosen: label(chosen), by }))
        };
        for relation in member.enemies() {
            let named = self.provided.get(&relation.name).into_iter().flatten();
            for with in named.filter(other) {
                if Member::from(&with.record).satisfies(relation, self.system) {
                    return Some((refusal(candidate, relation, with, with), Arc::clone(with)));
                }
            }
        }
        for name in member.names() {
            for who in self.enemies.get(name).into_iter().flatten().filter(other) {
                let mut relations = Member::from(&who.record).enemies().filter(|e| e.name == name);
                if let Some(relation) = relations.find(|e| member.satisfies(e, self.system)) {
                    return Some((refusal(who, relation, candidate, who), Arc::clone(who)));
                }
            }
        }
        None
    }

    /// Remembers that a package stood in the way, if one could do without it.
    fn obstruct(&mut self, candidate: &Arc<Candidate>) {
        if !self.pinned.get(&candidate.record.name).is_some_and(|pinned| Arc::ptr_eq(pinned, candidate)) {
            let obstacle = label(candidate);
            self.obstacles.retain(|o| *o != obstacle);
            self.obstacles.push(obstacle);
        }
    }

    /// Follows the clauses of a chosen package and of everything that is chosen on the way. A stack of our own, as
    /// the depth is in the archive's hands.
    fn follow(&mut self, candidate: &Arc<Candidate>) -> Result<(), Refusal> {
        let mut stack = vec![Frame::new(Arc::clone(candidate), self.trail.len())];
        while let Some(frame) = stack.last_mut() {
            match self.step(frame) {
                Step::Enter(next) => stack.push(next),
                Step::Done => drop(stack.pop()),
                Step::Dead(refusal) => {
                    let (trail, name) = (frame.trail, label(&frame.candidate));
                    self.undo(trail);
                    self.dead.insert(name.clone(), refusal);
                    stack.pop();
                    match stack.last_mut() {
                        Some(parent) => parent.tried.push((name, Refusal::Dead)),
                        None => return Err(Refusal::Dead),
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, frame: &mut Frame) -> Step {
        let of = Arc::clone(&frame.candidate);
        loop {
            let clause = clause_at(&of.record, frame.clause, self.request.recommends);
            let Some((clause, needed)) = clause else { return Step::Done };
            if self.satisfied(clause) {
                frame.next_clause();
                continue;
            }
            if let Some(candidate) = frame.options.pop() {
                let trail = self.trail.len();
                match self.choose(&candidate, &of.record.name) {
                    Ok(()) => return Step::Enter(Frame::new(candidate, trail)),
                    Err(refusal) => frame.tried.push((label(&candidate), refusal)),
                }
                continue;
            }
            let next = match frame.asked {
                Asked::Nothing => Asked::Preferred,
                Asked::Preferred => Asked::Everything,
                Asked::Everything if needed => {
                    let (package, clause) = (label(&of), clause.clone());
                    return Step::Dead(Refusal::Unmet { package, clause, tried: std::mem::take(&mut frame.tried) });
                }
                Asked::Everything => {
                    frame.next_clause();
                    continue;
                }
            };
            let mut options = self.options(clause, &of, next);
            options.retain(|c| !frame.tried.iter().any(|(tried, _)| *tried == label(c)));
            options.reverse();
            frame.options = options;
            frame.asked = next;
        }
    }

    /// Takes back what was chosen since the trail had this length.
    fn undo(&mut self, trail: usize) {
        for name in self.trail.split_off(trail) {
            let Some(chosen) = self.chosen.remove(&name) else { continue };
            let member = Member::from(&chosen.candidate.record);
            for name in member.names() {
                if let Some(all) = self.provided.get_mut(name) {
                    all.retain(|c| !Arc::ptr_eq(c, &chosen.candidate));
                }
            }
            for enemy in member.enemies() {
                if let Some(all) = self.enemies.get_mut(&enemy.name) {
                    all.retain(|c| !Arc::ptr_eq(c, &chosen.candidate));
                }
            }
        }
    }

    /// The answer, once it has been checked.
    fn finish(self) -> Result<Resolution, Box<Conflict>> {
        let why = self.chosen.iter().map(|(name, chosen)| (name.clone(), chosen.by.clone())).collect();
        let mut packages: Vec<_> = self.chosen.into_values().map(|chosen| chosen.candidate).collect();
        packages.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        let members: Vec<_> = packages.iter().map(|c| Member::from(&c.record)).collect();
        match verify(&members, self.system).as_slice() {
            [] => Ok(Resolution { packages, why }),
            violations => Err(Box::new(conflict::unsound(self.request, violations))),
        }
    }
}
