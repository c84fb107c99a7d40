//! The fleet as the search sees it: atoms, which are never divided, and the images that have them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{FleetImage, FleetPackage, Prior};

/// Packages that always go together: of one source and in the same images, or never updated and in the same images.
#[derive(Debug, Clone)]
pub(super) struct Atom {
    /// Names of its packages, sorted.
    pub packages: Vec<String>,
    /// Expected updates within [`HORIZON`], summed over its sources.
    pub hazard: f64,
    /// What each image has of it, by image.
    pub parts: Vec<Part>,
}

/// What one image has of an atom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub image: u16,
    /// Stands for the exact versions; two images with the same id have the same bytes.
    pub id: u64,
    /// Bytes when compressed.
    pub blob: f64,
    /// Bytes when unpacked.
    pub disk: f64,
}

/// A fleet, in an order that doesn't depend on the caller's.
#[derive(Debug)]
pub(super) struct Fleet {
    pub atoms: Vec<Atom>,
    /// How many different images there are.
    pub images: usize,
    /// Names of the images, by image; more than one if several have the same packages.
    pub names: Vec<Vec<String>>,
    /// What every package costs once: the least that a first pull can take.
    pub blob: f64,
    pub disk: f64,
    /// What an update is expected to cost at least: every package once, times its chance to change.
    pub update_blob: f64,
    pub update_disk: f64,
}

/// The time between two revisions of a fleet that plans are made for, in years: months of updates.
pub(super) const HORIZON: f64 = 1.0 / 3.0;

/// Stable packages of the same images are put together up to this many compressed bytes, to leave less to search.
const STABLE_ATOM: u64 = 3 << 20;
/// Updates a year below which a package counts as stable here: it was never seen updated.
const STABLE: f64 = 0.05;

/// Names, versions and architectures of an image's packages, sorted.
type Content<'a> = Vec<(&'a str, &'a str, &'a str)>;

impl Fleet {
    pub fn new(images: &[FleetImage], prior: &Prior) -> Fleet {
        let mut distinct: BTreeMap<Content, (&FleetImage, BTreeSet<&str>)> = BTreeMap::new();
        for image in images {
            let mut key: Vec<_> = image.packages.iter().map(|p| (&*p.name, &*p.version, &*p.architecture)).collect();
            key.sort_unstable();
            distinct.entry(key).or_insert_with(|| (image, BTreeSet::new())).1.insert(&image.name);
        }
        distinct.remove(&Vec::new());
        let mut found: BTreeMap<&str, Vec<(u16, &FleetPackage)>> = BTreeMap::new();
        for (at, (image, _)) in distinct.values().enumerate().take(usize::from(u16::MAX)) {
            for package in &image.packages {
                found.entry(&package.name).or_default().push((at as u16, package));
            }
        }
        let rates: HashMap<&str, f64> = found
            .values()
            .flatten()
            .map(|(_, package)| &*package.source)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|source| (source, prior.volatility(source).per_year))
            .collect();

        let mut bundles: BTreeMap<(Vec<u16>, &str), Vec<&str>> = BTreeMap::new();
        for (name, held) in &found {
            let mut set: Vec<u16> = held.iter().map(|(image, _)| *image).collect();
            set.dedup();
            let source = &*held[0].1.source;
            let source = if rates[source] < STABLE { "" } else { source };
            bundles.entry((set, source)).or_default().push(name);
        }
        let mut fleet = Fleet {
            atoms: Vec::new(),
            images: distinct.len(),
            names: Vec::new(),
            blob: 0.0,
            disk: 0.0,
            update_blob: 0.0,
            update_disk: 0.0,
        };
        // One name may stand for several contents, of other systems perhaps; the plan tells them apart.
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, names) in distinct.values() {
            let mut told = Vec::new();
            for name in names {
                let times = used.entry(name).or_default();
                *times += 1;
                told.push(if *times == 1 { (*name).to_owned() } else { format!("{name} ({times})") });
            }
            fleet.names.push(told);
        }
        for ((_, source), mut names) in bundles {
            // Packages of one source stay neighbours.
            names.sort_unstable_by_key(|name| (&*found[name][0].1.source, *name));
            let mut rest = &names[..];
            while !rest.is_empty() {
                let mut size = 0;
                let taken = rest.iter().take_while(|name| {
                    let fits = size == 0 || size + found[**name][0].1.size <= STABLE_ATOM || !source.is_empty();
                    size += found[**name][0].1.size;
                    fits
                });
                let (now, later) = rest.split_at(taken.count());
                fleet.atoms.push(atom(now, &found, &rates));
                rest = later;
            }
        }
        fleet.limits(&found, &rates);
        fleet
    }

    fn limits(&mut self, found: &BTreeMap<&str, Vec<(u16, &FleetPackage)>>, rates: &HashMap<&str, f64>) {
        for held in found.values() {
            let mut seen = BTreeSet::new();
            for (_, package) in held {
                if seen.insert((&*package.version, &*package.architecture)) {
                    let chance = chance(rates[&*package.source] * HORIZON);
                    self.blob += package.size as f64;
                    self.disk += package.installed as f64;
                    self.update_blob += package.size as f64 * chance;
                    self.update_disk += package.installed as f64 * chance;
                }
            }
        }
    }
}

fn atom(names: &[&str], found: &BTreeMap<&str, Vec<(u16, &FleetPackage)>>, rates: &HashMap<&str, f64>) -> Atom {
    let mut parts: BTreeMap<u16, Part> = BTreeMap::new();
    let mut sources = BTreeSet::new();
    for name in names {
        for (image, package) in &found[name] {
            sources.insert(&*package.source);
            let part = parts.entry(*image).or_insert(Part { image: *image, id: 0, blob: 0.0, disk: 0.0 });
            part.id = part.id.wrapping_add(identity(package));
            part.blob += package.size as f64;
            part.disk += package.installed as f64;
        }
    }
    let mut packages: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    packages.sort_unstable();
    Atom {
        packages,
        hazard: sources.iter().map(|source| rates[source]).sum::<f64>() * HORIZON,
        parts: parts.into_values().collect(),
    }
}

/// A number for a package's exact version (FNV-1a, then mixed). Adding them up gives a number for a set.
pub(super) fn identity(package: &FleetPackage) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in [&package.name, &package.version, &package.architecture] {
        for byte in word.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(hash, 0)
}

/// One number from two, well spread (the finaliser of splitmix64).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(23) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The chance that something with this hazard happens at least once, 1 - exp(-hazard). Only of operations that give
/// the same bits everywhere; good to one in ten thousand.
pub(super) fn chance(hazard: f64) -> f64 {
    if hazard > 12.0 {
        return 1.0;
    }
    let y = hazard / 256.0;
    let mut e = 1.0 / (1.0 + y * (1.0 + y * (0.5 + y / 6.0)));
    for _ in 0..8 {
        e *= e;
    }
    1.0 - e
}
