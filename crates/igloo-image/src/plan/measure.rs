//! What a host pulls and unpacks: the figures that plans are compared by.

use std::collections::HashSet;

use super::model::{identity, mix};
use super::{FleetImage, PlannedLayer};

/// Bytes that a pull takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Compressed bytes of layers that the host does not hold. A package costs the size of its archive.
    pub blob: u64,
    /// Unpacked bytes of layers that the host does not hold above the same layers. A package costs its installed size.
    pub chain: u64,
}

/// A host that pulls images and forgets nothing.
#[derive(Debug, Clone, Default)]
pub struct Host {
    layers: HashSet<u64>,
    chains: HashSet<u64>,
    packages: HashSet<u64>,
}

impl Host {
    /// Pulls an image whose layers are these, bottom first, and a top layer with `own` bytes of the project's code;
    /// `revision` stands for its content.
    pub fn pull(&mut self, image: &FleetImage, layers: &[PlannedLayer], own: u64, revision: u64) -> Bytes {
        let mut bytes = Bytes::default();
        let mut below = 0;
        let packages = layers.iter().map(|layer| {
            layer.packages.iter().map(|at| &image.packages[*at]).fold((0u64, 0, 0), |(id, blob, disk), package| {
                (id.wrapping_add(identity(package)), blob + package.size, disk + package.installed)
            })
        });
        let own = (own > 0).then(|| (own_code(image, revision), own, own));
        for (id, blob, disk) in packages.chain(own) {
            below = mix(below, id);
            if self.layers.insert(id) {
                bytes.blob += blob;
            }
            if self.chains.insert(below) {
                bytes.chain += disk;
            }
        }
        bytes
    }

    /// The least that the same pull can take: every package and every revision of own code once.
    pub fn limit(&mut self, image: &FleetImage, own: u64, revision: u64) -> Bytes {
        let mut bytes = Bytes::default();
        for package in &image.packages {
            if self.packages.insert(identity(package)) {
                bytes.blob += package.size;
                bytes.chain += package.installed;
            }
        }
        if own > 0 && self.packages.insert(own_code(image, revision)) {
            bytes.blob += own;
            bytes.chain += own;
        }
        bytes
    }
}

fn own_code(image: &FleetImage, revision: u64) -> u64 {
    image.name.bytes().fold(mix(0x6f77_6e00, revision), |id, byte| mix(id, u64::from(byte)))
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        self.blob += other.blob;
        self.chain += other.chain;
    }
}
