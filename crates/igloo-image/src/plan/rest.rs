//! Packages that no layer of a plan covers: cut by what they are, so that projects that never met cut alike.

use std::collections::BTreeMap;

use super::layers::unique;
use super::prior::Prior;
use super::{FleetImage, NIX, PlannedLayer};

/// Compressed bytes from which a source gets a layer of its own.
const OWN_LAYER: u64 = 4 << 20;
/// Compressed bytes that are put together otherwise.
const BUCKET: u64 = 8 << 20;
/// Compressed bytes that are no layer of their own.
const DUST: u64 = 256 << 10;
/// Updates a year from which a source counts as volatile.
const VOLATILE: f64 = 0.25;

/// Appends layers of the packages in `left` (indexes), at most `room` and at least one if there is anything.
///
/// Large sources stand alone, the stable ones below. The others are put together, stable ones and volatile ones apart;
/// a bucket is found by the source's name, so that one more package changes one bucket.
///
/// Debian's packages and Nix's lie apart, so that images of both share layers with images of one.
pub(super) fn cut(image: &FleetImage, left: Vec<usize>, room: usize, layers: &mut Vec<PlannedLayer>) {
    let size = |packages: &[usize]| packages.iter().map(|at| image.packages[*at].size).sum::<u64>();
    let (nix, debian): (Vec<usize>, Vec<usize>) =
        left.iter().partition(|at| image.packages[**at].source.starts_with(NIX));
    if nix.is_empty() || debian.is_empty() || room < 2 {
        cut_alike(image, left, room, layers);
    } else {
        let (of_nix, all) = (size(&nix), size(&left).max(1));
        let most = room as u64 - 1;
        let for_nix = usize::try_from((room as u64 * of_nix / all).clamp(1, most)).unwrap_or(1);
        cut_alike(image, debian, room - for_nix, layers);
        cut_alike(image, nix, for_nix, layers);
    }
    unique(layers);
}

fn cut_alike(image: &FleetImage, left: Vec<usize>, room: usize, layers: &mut Vec<PlannedLayer>) {
    if left.is_empty() {
        return;
    }
    let prior = Prior::shipped_ref();
    let mut sources: BTreeMap<&str, (u64, Vec<usize>)> = BTreeMap::new();
    for at in left {
        let package = &image.packages[at];
        let (size, packages) = sources.entry(&package.source).or_default();
        *size += package.size;
        packages.push(at);
    }
    let mut large: Vec<_> = sources.iter().filter(|(_, (size, _))| *size >= OWN_LAYER).collect();
    large.sort_by_key(|(name, (size, _))| (std::cmp::Reverse(*size), **name));
    // Two places are kept for what is small, if there is any.
    large.truncate(room.saturating_sub(2));
    let large: Vec<&str> = large.into_iter().map(|(name, _)| *name).collect();

    let mut found: BTreeMap<(bool, u8, String), Vec<usize>> = BTreeMap::new();
    let (mut stable, mut volatile) = (0, 0);
    for (source, (size, _)) in sources.iter().filter(|(source, _)| !large.contains(source)) {
        *if is_volatile(prior, source) { &mut volatile } else { &mut stable } += size;
    }
    let free = room.saturating_sub(large.len());
    // Powers of two, so that a little growth mostly leaves the buckets as they are.
    let buckets = |size: u64, most: usize| {
        let wanted = usize::try_from(size / BUCKET).unwrap_or(usize::MAX).clamp(1, most.max(1));
        if wanted.is_power_of_two() { wanted } else { wanted.next_power_of_two() / 2 }
    };
    // What is small altogether stays together.
    let together = free < 2 || stable.min(volatile) < DUST;
    let (stable, volatile) = (buckets(stable, free / 2), buckets(volatile, free / 2));
    for (source, (_, packages)) in sources {
        let changes = is_volatile(prior, source);
        let key = if large.contains(&source) {
            (changes, 0, source.to_owned())
        } else if together {
            (true, 1, "others".to_owned())
        } else {
            let (name, count) = if changes { ("others, often updated", volatile) } else { ("others", stable) };
            (changes, 1, format!("{name} {}", bucket(source, count)))
        };
        found.entry(key).or_default().extend(packages);
    }
    let start = layers.len();
    for ((_, _, name), mut packages) in found {
        packages.sort_unstable();
        layers.push(PlannedLayer { name, packages });
    }
    debug_assert!(layers.len() - start <= room.max(1));
}

fn is_volatile(prior: &Prior, source: &str) -> bool {
    prior.volatility(source).per_year >= VOLATILE
}

/// A number from 1 to `count`, by the name.
fn bucket(source: &str, count: usize) -> u64 {
    let hash = source.bytes().fold(0, |hash, byte| super::model::mix(hash, u64::from(byte)));
    1 + hash % count.max(1) as u64
}
