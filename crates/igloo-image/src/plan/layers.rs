//! From a plan to the layers of one image.
//!
//! An image of the fleet, or one that differs from it by little, keeps that image's layers in their order; what it has
//! more goes on top, so that everything below stays as hosts hold it. An image that the plan doesn't know takes the
//! largest layer of each group that fits. What no layer of the plan covers is cut by [`rest`].

use std::collections::{BTreeMap, HashMap, HashSet};

use super::rest;
use super::{FleetImage, FleetPackage, MOST_LAYERS, Plan, PlannedLayer};

/// An image counts as known if it and an image of the plan have all but one in so many packages in common.
const ALIKE: usize = 4;

impl Plan {
    /// The layers of an image, bottom first: every package in exactly one, none empty, at most [`MOST_LAYERS`].
    pub fn layers(&self, image: &FleetImage) -> Vec<PlannedLayer> {
        // The first of several packages of one name stands for it; the others are cut like unknown ones.
        let mut at: HashMap<&str, usize> = HashMap::with_capacity(image.packages.len());
        for (index, package) in image.packages.iter().enumerate() {
            at.entry(&package.name).or_insert(index);
        }
        let mut cut = Cut { at, taken: vec![false; image.packages.len()], layers: Vec::new() };
        if let Some(known) = self.nearest(&cut.at) {
            for group in &self.groups {
                for (index, layer) in group.layers.iter().enumerate() {
                    // One place is kept for what the plan doesn't cover.
                    if cut.layers.len() < MOST_LAYERS - 1 && layer.images.iter().any(|name| name == known) {
                        cut.take(&group.name, index, &layer.packages);
                    }
                }
            }
        }
        self.more(&mut cut, image);
        let Cut { taken, mut layers, .. } = cut;
        let left: Vec<usize> = (0..image.packages.len()).filter(|at| !taken[*at]).collect();
        let room = MOST_LAYERS.saturating_sub(layers.len()).max(1);
        rest::cut(image, left, room, &mut layers);
        layers
    }

    /// Takes further layers of the plan that fit, in the plan's order; the largest ones if there isn't room for all.
    fn more(&self, cut: &mut Cut, image: &FleetImage) {
        let start = cut.layers.len();
        for group in &self.groups {
            for (index, layer) in group.layers.iter().enumerate() {
                cut.take(&group.name, index, &layer.packages);
            }
        }
        let sum = |layer: &PlannedLayer, of: fn(&FleetPackage) -> u64| -> u64 {
            layer.packages.iter().map(|at| of(&image.packages[*at])).sum()
        };
        let mut found: Vec<(u64, usize)> = (start..cut.layers.len())
            .filter(|at| sum(&cut.layers[*at], |package| package.installed) >= DUST)
            .map(|at| (sum(&cut.layers[at], |package| package.size), at))
            .collect();
        found.sort_unstable_by_key(|(size, at)| (std::cmp::Reverse(*size), *at));
        found.truncate((MOST_LAYERS - 1).saturating_sub(start));
        let kept: HashSet<usize> = found.into_iter().map(|(_, at)| at).collect();
        for (at, layer) in std::mem::take(&mut cut.layers).into_iter().enumerate() {
            if at < start || kept.contains(&at) {
                cut.layers.push(layer);
            } else {
                layer.packages.iter().for_each(|at| cut.taken[*at] = false);
            }
        }
    }

    /// The image of the plan that differs by the fewest packages, if that is few.
    pub(super) fn nearest(&self, at: &HashMap<&str, usize>) -> Option<&str> {
        // How many packages each image of the plan has, and how many of them this one has.
        let mut images: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for layer in self.groups.iter().flat_map(|group| &group.layers) {
            let common = layer.packages.iter().filter(|name| at.contains_key(&***name)).count();
            for name in &layer.images {
                let (all, both) = images.entry(name).or_default();
                *all += layer.packages.len();
                *both += common;
            }
        }
        let differ = |(all, both): (usize, usize)| (all - both) + (at.len() - both.min(at.len()));
        let (name, counts) = images.into_iter().min_by_key(|(_, counts)| differ(*counts))?;
        (differ(counts) * ALIKE <= counts.0 + at.len()).then_some(name)
    }
}

/// Unpacked bytes that are not worth a layer of their own only because another image has them so.
const DUST: u64 = 300_000;

struct Cut<'a> {
    at: HashMap<&'a str, usize>,
    taken: Vec<bool>,
    layers: Vec<PlannedLayer>,
}

impl Cut<'_> {
    /// Takes a layer if the image has all of it.
    fn take(&mut self, group: &str, index: usize, names: &[String]) {
        let mut packages = Vec::with_capacity(names.len());
        for name in names {
            match self.at.get(&**name) {
                Some(at) if !self.taken[*at] => packages.push(*at),
                _ => return,
            }
        }
        packages.sort_unstable();
        packages.dedup();
        if packages.is_empty() {
            return;
        }
        for at in &packages {
            self.taken[*at] = true;
        }
        let name = layer_name(group, index);
        self.layers.push(PlannedLayer { name, packages });
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
