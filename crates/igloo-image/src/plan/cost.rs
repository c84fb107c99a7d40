//! What a plan costs: bytes pulled and bytes unpacked, at first and by updates that are to be expected.

use std::collections::HashSet;

use super::model::{Fleet, chance, mix};

/// A group of atoms, and what each image has of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// Indexes of atoms, ascending.
    pub atoms: Vec<u32>,
    /// What each image has of it, by image.
    pub rows: Vec<Row>,
    /// Compressed bytes of its different layers.
    pub first: f64,
    /// The same, times each layer's chance to change.
    pub update: f64,
    /// Compressed bytes of its layers that nobody holds from the previous plan.
    pub moved: f64,
    /// How many layers it gives images that are too small for one; by how much, each from 0 to 1.
    pub dust: f64,
}

/// One image's layer of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub image: u16,
    /// Stands for the layer's exact content.
    pub id: u64,
    pub disk: f64,
    /// The chance that nothing in it changes; its expected updates while it is being added up.
    pub calm: f64,
}

/// Sums over a whole plan, as ratios to the least that is possible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    pub first_blob: f64,
    pub first_chain: f64,
    pub update_blob: f64,
    pub update_chain: f64,
    /// Layers above the limit, summed over images.
    pub over: f64,
    pub dust: f64,
    pub moved: f64,
}

/// How much each of a [`Cost`]'s parts counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    pub first_blob: f64,
    pub first_chain: f64,
    pub update_blob: f64,
    pub update_chain: f64,
    pub dust: f64,
    pub moved: f64,
    /// What a first pull costs on top, above [`BLOB_KNEE`] and [`CHAIN_KNEE`].
    pub knee: f64,
}

/// Unpacked bytes below which a layer is dust: a round trip costs as much as the bytes.
const DUST: f64 = 1_000_000.0;

/// Ratios that a first pull should not exceed, whatever it saves later.
const BLOB_KNEE: f64 = 1.08;
const CHAIN_KNEE: f64 = 1.45;

impl Cost {
    pub fn score(&self, weights: &Weights) -> f64 {
        weights.first_blob * (self.first_blob - 1.0)
            + weights.first_chain * (self.first_chain - 1.0)
            + weights.update_blob * (self.update_blob - 1.0)
            + weights.update_chain * (self.update_chain - 1.0)
            + weights.dust * self.dust
            + weights.moved * self.moved
            + weights.knee * 2.0 * (self.first_blob - BLOB_KNEE).max(0.0)
            + weights.knee * (self.first_chain - CHAIN_KNEE).max(0.0)
            + self.over
    }
}

/// Computes costs; keeps its scratch space.
pub(super) struct Meter<'a> {
    fleet: &'a Fleet,
    /// Contents of the previous plan's layers, if there is one.
    held: Option<&'a HashSet<u64>>,
    limit: usize,
    scratch: Vec<Row>,
    blobs: Vec<f64>,
    prefix: Vec<(u64, f64, usize)>,
    seen: Vec<(u64, u64)>,
}

impl<'a> Meter<'a> {
    pub fn new(fleet: &'a Fleet, held: Option<&'a HashSet<u64>>, limit: usize) -> Meter<'a> {
        Meter {
            fleet,
            held,
            limit,
            scratch: vec![Row { image: 0, id: 0, disk: 0.0, calm: 0.0 }; fleet.images],
            blobs: vec![0.0; fleet.images],
            prefix: vec![(0, 1.0, 0); fleet.images],
            seen: Vec::new(),
        }
    }

    /// The group of these atoms.
    pub fn group(&mut self, mut atoms: Vec<u32>) -> Group {
        atoms.sort_unstable();
        let mut images: Vec<u16> = Vec::new();
        for atom in &atoms {
            let atom = &self.fleet.atoms[*atom as usize];
            for part in &atom.parts {
                let at = usize::from(part.image);
                let row = &mut self.scratch[at];
                if row.disk == 0.0 && row.id == 0 && self.blobs[at] == 0.0 {
                    images.push(part.image);
                    row.image = part.image;
                }
                row.id = row.id.wrapping_add(part.id);
                row.disk += part.disk;
                row.calm += atom.hazard;
                self.blobs[at] += part.blob;
            }
        }
        images.sort_unstable();
        let mut group = Group { atoms, ..Group::default() };
        self.seen.clear();
        for image in images {
            let at = usize::from(image);
            let mut row = std::mem::replace(&mut self.scratch[at], Row { image, id: 0, disk: 0.0, calm: 0.0 });
            let blob = std::mem::replace(&mut self.blobs[at], 0.0);
            let changes = chance(row.calm);
            row.calm = 1.0 - changes;
            group.rows.push(row);
            group.dust += (1.0 - row.disk / DUST).max(0.0);
            if self.seen.iter().any(|(id, _)| *id == row.id) {
                continue;
            }
            self.seen.push((row.id, 0));
            group.first += blob;
            group.update += blob * changes;
            if self.held.is_some_and(|held| !held.contains(&row.id)) {
                group.moved += blob;
            }
        }
        group
    }

    /// The cost of groups in this order, bottom first.
    pub fn cost<'g>(&mut self, order: impl Iterator<Item = &'g Group>) -> Cost {
        let (mut first, mut update, mut moved, mut dust) = (0.0, 0.0, 0.0, 0.0);
        let (mut first_chain, mut update_chain) = (0.0, 0.0);
        self.prefix.fill((0, 1.0, 0));
        for group in order {
            first += group.first;
            update += group.update;
            moved += group.moved;
            dust += group.dust;
            self.seen.clear();
            for row in &group.rows {
                let (below, calm, layers) = &mut self.prefix[usize::from(row.image)];
                let node = (*below, row.id);
                *calm *= row.calm;
                *layers += 1;
                *below = mix(*below, row.id);
                if !self.seen.contains(&node) {
                    self.seen.push(node);
                    first_chain += row.disk;
                    update_chain += row.disk * (1.0 - *calm);
                }
            }
        }
        let over: usize = self.prefix.iter().map(|(_, _, layers)| layers.saturating_sub(self.limit)).sum();
        let fleet = self.fleet;
        Cost {
            first_blob: ratio(first, fleet.blob),
            first_chain: ratio(first_chain, fleet.disk),
            update_blob: ratio(update, fleet.update_blob),
            update_chain: ratio(update_chain, fleet.update_disk),
            over: over as f64,
            dust,
            moved: ratio(moved, fleet.blob),
        }
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 1.0 }
}
