//! From a fleet to its plan.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::model::{Fleet, identity};
use super::search::{Effort, THOROUGH, WEIGHTS, search};
use super::{FleetImage, Group, Layer, MOST_LAYERS, Plan, Prior, Volatility};

/// How many layers an image of the fleet gets at most when it is planned: some are left for what is added later.
const PLANNED_LAYERS: usize = 34;

impl Plan {
    /// Plans the layers of all images of a fleet together.
    ///
    /// With a `previous` plan, what is there stays where it is unless moving it pays for the layers that have to be pulled
    /// anew. The result depends neither on the order of images nor on that of their packages.
    pub fn fleet(images: &[FleetImage], prior: &Prior, previous: Option<&Plan>) -> Plan {
        // Up to four times as long for large fleets; more than some seconds nobody wants to wait.
        let times = (images.len() as u64).clamp(16, 64);
        Plan::with_effort(images, prior, previous, Effort { work: THOROUGH.work / 16 * times })
    }

    pub(super) fn with_effort(images: &[FleetImage], prior: &Prior, previous: Option<&Plan>, effort: Effort) -> Plan {
        let fleet = Fleet::new(images, prior);
        let held = previous.map(|plan| held(plan, images));
        let start = previous.map(|plan| start(plan, &fleet));
        let found = search(&fleet, start, held.as_ref(), PLANNED_LAYERS, effort, &WEIGHTS);
        let sizes: HashMap<&str, (&str, u64)> = images
            .iter()
            .flat_map(|image| &image.packages)
            .map(|package| (&*package.name, (&*package.source, package.size)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect();
        let mut names = BTreeSet::new();
        let groups = found.groups.iter().map(|group| {
            let mut layers: BTreeMap<Vec<&str>, BTreeSet<&str>> = BTreeMap::new();
            for row in &group.rows {
                let mut packages: Vec<&str> = group
                    .atoms
                    .iter()
                    .map(|atom| &fleet.atoms[*atom as usize])
                    .filter(|atom| atom.parts.iter().any(|part| part.image == row.image))
                    .flat_map(|atom| atom.packages.iter().map(|name| &**name))
                    .collect();
                packages.sort_unstable();
                let images = fleet.names[usize::from(row.image)].iter().map(|name| &**name);
                layers.entry(packages).or_default().extend(images);
            }
            let mut layers: Vec<_> = layers.into_iter().collect();
            let bytes = |packages: &[&str]| packages.iter().map(|name| sizes[name].1).sum::<u64>();
            layers.sort_by_key(|(packages, _)| std::cmp::Reverse(bytes(packages)));
            let mut by_source: BTreeMap<&str, u64> = BTreeMap::new();
            for atom in &group.atoms {
                for package in &fleet.atoms[*atom as usize].packages {
                    let (source, size) = sizes[&**package];
                    *by_source.entry(source).or_default() += size;
                }
            }
            let largest = by_source.iter().max_by_key(|(name, size)| (**size, std::cmp::Reverse(**name)));
            let stem = largest.map_or("empty", |(name, _)| *name);
            let name = (1..)
                .map(|n| if n == 1 { stem.to_owned() } else { format!("{stem}-{n}") })
                .find(|name| names.insert(name.clone()));
            Group {
                name: name.unwrap_or_default(),
                layers: layers
                    .into_iter()
                    .map(|(packages, images)| Layer {
                        packages: packages.into_iter().map(str::to_owned).collect(),
                        images: images.into_iter().map(str::to_owned).collect(),
                    })
                    .collect(),
            }
        });
        let groups = groups.collect();
        let sources = images
            .iter()
            .flat_map(|image| &image.packages)
            .map(|package| (&*package.source, prior.volatility(&package.source)))
            .filter(|(_, volatility)| !volatility.evidence.is_empty())
            .map(|(source, volatility)| {
                // Two digits are enough for people, and a file reads back as what it was.
                let per_year = (volatility.per_year * 100.0).round() / 100.0;
                (source.to_owned(), Volatility { per_year, ..volatility })
            })
            .collect();
        Plan { groups, sources }
    }
}

/// Contents of the layers that the images have by the previous plan.
fn held(plan: &Plan, images: &[FleetImage]) -> HashSet<u64> {
    let mut held = HashSet::new();
    for image in images {
        for layer in plan.layers(image) {
            held.insert(layer.packages.iter().fold(0, |id: u64, at| id.wrapping_add(identity(&image.packages[*at]))));
        }
    }
    held
}

/// The fleet's atoms where the previous plan has them; unknown ones on top.
fn start(plan: &Plan, fleet: &Fleet) -> Vec<Vec<u32>> {
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (index, group) in plan.groups.iter().enumerate() {
        for package in group.layers.iter().flat_map(|layer| &layer.packages) {
            at.entry(package).or_insert(index);
        }
    }
    let mut groups = vec![Vec::new(); plan.groups.len() + 1];
    for (index, atom) in fleet.atoms.iter().enumerate() {
        let group = atom.packages.iter().find_map(|package| at.get(&**package)).copied();
        groups[group.unwrap_or(plan.groups.len())].push(index as u32);
    }
    groups
}

const _: () = assert!(PLANNED_LAYERS < MOST_LAYERS);
