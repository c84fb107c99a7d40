//! Looks for a good partition of a fleet into groups, and a good order of them.
//!
//! Simulated annealing with a fixed seed and a fixed amount of work: the same fleet gives the same plan on every machine.

use std::collections::{BTreeMap, HashSet};

use super::cost::{Group, Meter, Weights};
use super::model::Fleet;

/// How long each search looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Layers of images looked at, all in all. Some 150 million are done in a second.
    pub work: u64,
}

pub(super) const THOROUGH: Effort = Effort { work: 400_000_000 };

/// How many searches there are, each with another seed and on a thread of its own; the best result counts.
const RUNS: u64 = 2;

/// What the parts of a cost weigh. A first pull happens once to each host, updates every few months; bytes that are only
/// unpacked are cheaper than bytes that are pulled, and there are several times as many of them in an update. Tuned on
/// the averages of all fleets of bench/fleets.txt, so that no part is bought too dearly.
pub(super) const WEIGHTS: Weights = Weights {
    first_blob: 1.0,
    first_chain: 0.4,
    update_blob: 3.0,
    update_chain: 0.5,
    dust: 0.04,
    moved: 1.0,
    knee: 4.0,
};

/// An ordered partition of a fleet's atoms, bottom first.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub groups: Vec<Group>,
}

/// Numbers that look random and are always the same (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which isn't 0.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Searches from `start` (groups of atoms, bottom first), or from a simple guess. No image gets more than `limit`
/// layers, if that can be helped.
pub(super) fn search(
    fleet: &Fleet,
    start: Option<Vec<Vec<u32>>>,
    held: Option<&HashSet<u64>>,
    limit: usize,
    effort: Effort,
    weights: &Weights,
) -> Found {
    let run = |seed| search_once(fleet, start.clone(), held, limit, effort, weights, seed);
    let runs = std::thread::scope(|scope| {
        let others: Vec<_> = (1..RUNS).map(|seed| scope.spawn(move || run(seed))).collect();
        let mut runs = vec![run(0)];
        for (seed, other) in (1..).zip(others) {
            // A thread that could not do its work is no reason for another plan.
            runs.push(other.join().unwrap_or_else(|_| run(seed)));
        }
        runs
    });
    let best = runs.into_iter().min_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map_or(Found { groups: Vec::new() }, |(_, found)| found)
}

fn search_once(
    fleet: &Fleet,
    start: Option<Vec<Vec<u32>>>,
    held: Option<&HashSet<u64>>,
    limit: usize,
    effort: Effort,
    weights: &Weights,
    seed: u64,
) -> (f64, Found) {
    let mut meter = Meter::new(fleet, held, limit);
    let warm = start.is_some();
    let start = start.unwrap_or_else(|| guess(fleet));
    let mut now: Vec<Group> = start.into_iter().filter(|atoms| !atoms.is_empty()).map(|a| meter.group(a)).collect();
    let mut score = meter.cost(now.iter()).score(weights);
    let mut best = (score, now.clone());
    if fleet.atoms.len() < 2 {
        return (score, Found { groups: now });
    }
    let mut dice = Dice(0x1910_0000 + seed);
    let hot = if warm { 0.001 } else { 0.012 };
    let cold: f64 = 0.000_05;
    let mut done = 0u64;
    while done < effort.work {
        let left = 1.0 - done as f64 / effort.work as f64;
        let heat = cold + hot * left * left * left;
        let step = propose(fleet, &mut meter, &now, &mut dice);
        let Some(step) = step else {
            done += 8;
            continue;
        };
        done += now.iter().map(|group| group.rows.len() as u64).sum::<u64>() + 16;
        let next = meter.cost(step.view(&now)).score(weights);
        // Worse is taken with a chance that shrinks; exp(-x) by a form that is the same everywhere.
        let worse = (next - score) / heat;
        if worse <= 0.0 || (worse < 12.0 && dice.unit() < 1.0 - super::model::chance(worse)) {
            step.apply(&mut now);
            score = next;
            if score < best.0 - 1e-12 {
                best = (score, now.clone());
            }
        }
    }
    (best.0, Found { groups: best.1 })
}

/// Where to begin: what the same images have, in three tiers of volatility; stable and widely shared lowest.
fn guess(fleet: &Fleet) -> Vec<Vec<u32>> {
    let mut groups: BTreeMap<(u8, std::cmp::Reverse<usize>, Vec<u16>), Vec<u32>> = BTreeMap::new();
    for (at, atom) in fleet.atoms.iter().enumerate() {
        let tier = match atom.hazard {
            hazard if hazard < 0.1 => 0,
            hazard if hazard < 0.4 => 1,
            _ => 2,
        };
        let images: Vec<u16> = atom.parts.iter().map(|part| part.image).collect();
        groups.entry((tier, std::cmp::Reverse(images.len()), images)).or_default().push(at as u32);
    }
    groups.into_values().collect()
}

/// A change of an order of groups.
enum Step {
    /// Replace two groups; an empty one vanishes.
    Two { from: usize, to: usize, less: Group, more: Group },
    /// Take atoms out of a group, into a new one that stands at `at`.
    New { from: usize, at: usize, less: Group, new: Group },
    /// A group goes elsewhere.
    Shift { from: usize, to: usize },
}

fn propose(fleet: &Fleet, meter: &mut Meter, now: &[Group], dice: &mut Dice) -> Option<Step> {
    let count = now.len();
    let from = dice.below(count);
    let group = &now[from];
    match dice.below(100) {
        // An atom goes to another group, mostly one that shares an image with it.
        0..45 => {
            let atom = group.atoms[dice.below(group.atoms.len())];
            let to = dice.below(count);
            let related =
                now[to].rows.iter().any(|row| fleet.atoms[atom as usize].parts.iter().any(|p| p.image == row.image));
            if to == from || !related {
                return None;
            }
            let mut less = group.atoms.clone();
            less.retain(|other| *other != atom);
            let mut more = now[to].atoms.clone();
            more.push(atom);
            Some(Step::Two { from, to, less: meter.group(less), more: meter.group(more) })
        }
        // Some atoms become a group: the more volatile ones, those of the same images as one of them, or one alone.
        45..60 => {
            if group.atoms.len() < 2 {
                return None;
            }
            let chosen = &fleet.atoms[group.atoms[dice.below(group.atoms.len())] as usize];
            let way = dice.below(3);
            let (new, less): (Vec<u32>, Vec<u32>) = group.atoms.iter().partition(|atom| {
                let atom = &fleet.atoms[**atom as usize];
                match way {
                    0 => atom.hazard >= chosen.hazard,
                    1 => {
                        atom.parts.len() == chosen.parts.len()
                            && atom.parts.iter().zip(&chosen.parts).all(|(a, b)| a.image == b.image)
                    }
                    _ => std::ptr::eq(atom, chosen),
                }
            });
            if less.is_empty() {
                return None;
            }
            let at = if dice.below(2) == 0 { from + 1 } else { dice.below(count + 1) };
            Some(Step::New { from, at, less: meter.group(less), new: meter.group(new) })
        }
        // Two groups become one.
        60..72 => {
            let to = dice.below(count);
            let related = now[to].rows.iter().any(|row| group.rows.iter().any(|other| other.image == row.image));
            if to == from || (!related && dice.below(4) != 0) {
                return None;
            }
            let more = group.atoms.iter().chain(&now[to].atoms).copied().collect();
            Some(Step::Two { from, to, less: Group::default(), more: meter.group(more) })
        }
        72..86 => {
            let to = dice.below(count);
            (to != from).then_some(Step::Shift { from, to })
        }
        _ => {
            let to = (from + 1 + dice.below(4)).min(count - 1);
            (to != from).then_some(if dice.below(2) == 0 {
                Step::Shift { from, to }
            } else {
                Step::Shift { from: to, to: from }
            })
        }
    }
}

impl Step {
    /// The groups as they would be.
    fn view<'a>(&'a self, now: &'a [Group]) -> Box<dyn Iterator<Item = &'a Group> + 'a> {
        match self {
            Step::Two { from, to, less, more } => Box::new(now.iter().enumerate().map(move |(at, group)| {
                if at == *from {
                    less
                } else if at == *to {
                    more
                } else {
                    group
                }
            })),
            Step::New { from, at, less, new } => Box::new((0..=now.len()).flat_map(move |index| {
                let inserted = (index == *at).then_some(new);
                let old = now.get(index).map(|group| if index == *from { less } else { group });
                inserted.into_iter().chain(old)
            })),
            Step::Shift { from, to } => Box::new((0..now.len()).map(move |index| {
                // Everything between the two places moves by one.
                let old = if index == *to {
                    *from
                } else if from < to && (*from..*to).contains(&index) {
                    index + 1
                } else if to < from && (*to + 1..=*from).contains(&index) {
                    index - 1
                } else {
                    index
                };
                &now[old]
            })),
        }
    }

    fn apply(self, now: &mut Vec<Group>) {
        match self {
            Step::Two { from, to, less, more } => {
                now[from] = less;
                now[to] = more;
                if now[from].atoms.is_empty() {
                    now.remove(from);
                }
            }
            Step::New { from, at, less, new } => {
                now[from] = less;
                now.insert(at, new);
            }
            Step::Shift { from, to } => {
                let group = now.remove(from);
                now.insert(to, group);
            }
        }
    }
}
