//! From a plan to the layers of one image.
//!
//! An image of the fleet keeps its layers. For any other there are several ways to stack the layers of the plan: those of
//! an image that it is like, with what it has more on top; all in the plan's order; as far as possible like one image, then
//! like another. Of these the one is taken that leaves a host that holds the fleet the least to pull and to unpack. What
//! no layer of the plan covers is cut by [`rest`] and lies on top.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::model::mix;
use super::rest;
use super::{FleetImage, FleetPackage, MOST_LAYERS, Plan, PlannedLayer};

/// Unpacked bytes that are not worth a layer of their own only because another image has them so.
const DUST: u64 = 300_000;
/// Images of a plan that are tried as models, those that the image is most like.
const MODELS: usize = 32;
/// What a pulled byte weighs against an unpacked one.
const PULLED: u64 = 4;

impl Plan {
    /// The layers of an image, bottom first: every package in exactly one, none empty, at most [`MOST_LAYERS`].
    pub fn layers(&self, image: &FleetImage) -> Vec<PlannedLayer> {
        // The first of several packages of one name stands for it; the others are cut like unknown ones.
        let mut at: HashMap<&str, usize> = HashMap::with_capacity(image.packages.len());
        for (index, package) in image.packages.iter().enumerate() {
            at.entry(&package.name).or_insert(index);
        }
        let table = Table::new(self, &at);
        let models = table.nearest(at.len());
        let mut best: Option<(u64, Stack)> = None;
        for way in table.ways(&models) {
            let stack = table.stack(image, &way);
            let cost = table.cost(image, &stack);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, stack));
            }
            // Nothing is cheaper than nothing.
            if cost == 0 {
                break;
            }
        }
        let mut taken = vec![false; image.packages.len()];
        let mut layers = Vec::new();
        for index in best.map(|(_, stack)| stack).unwrap_or_default() {
            let layer = &table.layers[index];
            let Some(packages) = &layer.packages else { continue };
            packages.iter().for_each(|at| taken[*at] = true);
            let group = &self.groups[layer.group];
            layers.push(PlannedLayer { name: layer_name(&group.name, layer.index), packages: packages.clone() });
        }
        let left: Vec<usize> = (0..image.packages.len()).filter(|at| !taken[*at]).collect();
        let room = MOST_LAYERS.saturating_sub(layers.len()).max(1);
        rest::cut(image, left, room, &mut layers);
        layers
    }
}

/// Layers of the table, bottom first.
type Stack = Vec<usize>;

/// Layers to try, in this order, each with whether it stays however small it is.
type Way = Vec<(usize, bool)>;

/// All layers of a plan as one image sees them, in the plan's order.
struct Table<'a> {
    layers: Vec<Seen>,
    /// The images of the plan, by name: what layers they have.
    images: Vec<(&'a str, Stack)>,
    /// Every layer of these with what lies below it.
    chains: HashSet<u64>,
}

struct Seen {
    group: usize,
    /// Its place in the group.
    index: usize,
    /// Where its packages are in the image, if that has all of them.
    packages: Option<Vec<usize>>,
    /// How many packages it has, and how many of them the image has, too.
    counts: (usize, usize),
    /// Whether an image of the plan has it.
    held: bool,
}

impl<'a> Table<'a> {
    fn new(plan: &'a Plan, at: &HashMap<&str, usize>) -> Table<'a> {
        let mut layers = Vec::new();
        let mut images: BTreeMap<&str, Stack> = BTreeMap::new();
        for (group, content) in plan.groups.iter().enumerate() {
            for (index, layer) in content.layers.iter().enumerate() {
                for name in &layer.images {
                    images.entry(name).or_default().push(layers.len());
                }
                let mut found: Vec<usize> = layer.packages.iter().filter_map(|name| at.get(&**name).copied()).collect();
                let counts = (layer.packages.len(), found.len());
                found.sort_unstable();
                found.dedup();
                let whole = !found.is_empty() && found.len() == layer.packages.len();
                let held = !layer.images.is_empty();
                layers.push(Seen { group, index, packages: whole.then_some(found), counts, held });
            }
        }
        let images: Vec<(&str, Stack)> = images.into_iter().collect();
        let mut chains = HashSet::new();
        for (_, stack) in &images {
            let mut below = 0;
            for layer in stack {
                below = mix(below, *layer as u64 + 1);
                chains.insert(below);
            }
        }
        Table { layers, images, chains }
    }

    /// The images of the plan, those that differ by the fewest packages first.
    fn nearest(&self, packages: usize) -> Vec<usize> {
        let differ = |stack: &Stack| {
            let sum = |of: fn(&Seen) -> usize| stack.iter().map(|layer| of(&self.layers[*layer])).sum::<usize>();
            let (all, both) = (sum(|layer| layer.counts.0), sum(|layer| layer.counts.1));
            (all - both) + packages.saturating_sub(both)
        };
        let mut found: Vec<usize> = (0..self.images.len()).collect();
        found.sort_by_cached_key(|image| differ(&self.images[*image].1));
        found.truncate(MODELS);
        found
    }

    /// The ways to stack layers, the one that is best if several cost the same first.
    fn ways(&self, models: &[usize]) -> impl Iterator<Item = Way> {
        let all = || (0..self.layers.len()).map(|layer| (layer, false));
        let of = |model: usize| self.images[model].1.iter().map(|layer| (*layer, true));
        // What the nearest image has, the rest on top.
        let alike = models.first().map(|model| of(*model).chain(all()).collect());
        // All in the plan's order, preferring a model's layers.
        let ordered = models.iter().map(move |model| {
            let mut way: Way = of(*model).chain(all()).collect();
            way.sort_by_key(|(layer, kept)| (self.layers[*layer].group, !kept));
            way
        });
        // Like a model for as long as that goes, then like the nearest image.
        let first = models.first().copied();
        let along = models.iter().skip(1).map(move |model| {
            let fitting = of(*model).take_while(|(layer, _)| self.layers[*layer].packages.is_some());
            fitting.chain(first.into_iter().flat_map(of)).chain(all()).collect()
        });
        let plain = models.is_empty().then(|| all().collect());
        alike.into_iter().chain(ordered).chain(along).chain(plain)
    }

    /// The layers that the image gets on this way: what fits, without those that are too small or too many.
    fn stack(&self, image: &FleetImage, way: &Way) -> Stack {
        let mut taken = vec![false; image.packages.len()];
        let mut found: Vec<(usize, bool)> = Vec::new();
        for (index, kept) in way {
            let Some(packages) = &self.layers[*index].packages else { continue };
            if packages.iter().any(|at| taken[*at]) {
                continue;
            }
            packages.iter().for_each(|at| taken[*at] = true);
            found.push((*index, *kept));
        }
        // One place is kept for what the plan doesn't cover.
        let kept = found.iter().filter(|(_, kept)| *kept).count().min(MOST_LAYERS - 1);
        let mut more: Vec<(u64, usize)> = found
            .iter()
            .filter(|(index, kept)| !kept && self.sum(image, *index, |package| package.installed) >= DUST)
            .map(|(index, _)| (self.sum(image, *index, |package| package.size), *index))
            .collect();
        more.sort_unstable_by_key(|(size, index)| (std::cmp::Reverse(*size), *index));
        more.truncate(MOST_LAYERS - 1 - kept);
        let more: HashSet<usize> = more.into_iter().map(|(_, index)| index).collect();
        let mut room = kept;
        found.retain(|(index, kept)| {
            let stays = if *kept { room > 0 } else { more.contains(index) };
            room -= usize::from(*kept && stays);
            stays
        });
        found.into_iter().map(|(index, _)| index).collect()
    }

    fn sum(&self, image: &FleetImage, layer: usize, of: fn(&FleetPackage) -> u64) -> u64 {
        self.layers[layer].packages.iter().flatten().map(|at| of(&image.packages[*at])).sum()
    }

    /// Bytes that a host pulls and unpacks that holds the images of the plan.
    fn cost(&self, image: &FleetImage, stack: &Stack) -> u64 {
        let mut cost = 0;
        let mut below = 0;
        let mut covered = 0;
        for layer in stack {
            below = mix(below, *layer as u64 + 1);
            let (pulled, unpacked) =
                (self.sum(image, *layer, |package| package.size), self.sum(image, *layer, |package| package.installed));
            covered += pulled + unpacked;
            cost += if self.layers[*layer].held { 0 } else { PULLED * pulled };
            cost += if self.chains.contains(&below) { 0 } else { unpacked };
        }
        let all: u64 = image.packages.iter().map(|package| package.size + package.installed).sum();
        cost + PULLED * (all - covered)
    }
}

/// What a layer is called: its group, with a number if it isn't the group's largest.
pub(super) fn layer_name(group: &str, index: usize) -> String {
    if index == 0 { group.to_owned() } else { format!("{group}/{}", index + 1) }
}

/// Gives every layer a name of its own.
pub(super) fn unique(layers: &mut [PlannedLayer]) {
    let mut names = HashSet::new();
    for layer in layers {
        let stem = layer.name.clone();
        for n in 2.. {
            if names.insert(layer.name.clone()) {
                break;
            }
            layer.name = format!("{stem}+{n}");
        }
    }
}
