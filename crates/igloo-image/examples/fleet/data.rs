//! Reads the fleets of bench/fleets.txt.

use std::collections::BTreeMap;
use std::error::Error;

use igloo_image::plan::{FleetImage, FleetPackage};

/// Which revision of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// As it was planned.
    First,
    /// After months of updates.
    Updated,
    /// With a package added here and there.
    Added,
}

/// What each package depends on, by name.
pub type Depends = BTreeMap<String, Vec<String>>;

/// A fleet in all its revisions.
pub struct Fleet {
    pub name: String,
    images: Vec<Image>,
}

struct Image {
    name: String,
    first: Vec<FleetPackage>,
    updated: Vec<FleetPackage>,
    added: Vec<FleetPackage>,
}

impl Fleet {
    pub fn images(&self, revision: Revision) -> Vec<FleetImage> {
        let of = |image: &Image| match revision {
            Revision::First => image.first.clone(),
            Revision::Updated => image.updated.clone(),
            Revision::Added => image.added.clone(),
        };
        self.images.iter().map(|image| FleetImage { name: image.name.clone(), packages: of(image) }).collect()
    }

    /// How many packages there are, and how many an update changes.
    pub fn count(&self) -> (usize, usize) {
        let names = |revision| {
            let images = self.images(revision);
            let all = images.into_iter().flat_map(|image| image.packages).map(|p| (p.name, p.version));
            all.collect::<std::collections::BTreeSet<_>>()
        };
        let (first, updated) = (names(Revision::First), names(Revision::Updated));
        (first.len(), updated.difference(&first).count())
    }
}

/// The fleets of a file's text.
pub fn read(text: &str) -> Result<(Vec<Fleet>, Depends), Box<dyn Error>> {
    let mut depends = Depends::new();
    let mut packages: Vec<(FleetPackage, FleetPackage)> = Vec::new();
    let mut fleets: Vec<Fleet> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["p", name, source, architecture, version, size, installed, ref updated @ ..] => {
                let package = |version: &str, size: &str, installed: &str| -> Result<_, Box<dyn Error>> {
                    Ok(FleetPackage {
                        name: name.to_owned(),
                        version: version.to_owned(),
                        architecture: architecture.to_owned(),
                        source: if source == "=" { name } else { source }.to_owned(),
                        size: size.parse()?,
                        installed: installed.parse::<u64>()? * 1024,
                    })
                };
                let first = package(version, size, installed)?;
                let updated = match updated {
                    [version, size, installed] => package(version, size, installed)?,
                    _ => first.clone(),
                };
                packages.push((first, updated));
            }
            ["d", at, needed] => {
                let name = |at: usize| packages[at].0.name.clone();
                depends.insert(name(at.parse()?), ranges(needed)?.into_iter().map(name).collect());
            }
            ["i", fleet, name, has, later, adds] => {
                if fleets.last().is_none_or(|last| last.name != fleet) {
                    fleets.push(Fleet { name: fleet.to_owned(), images: Vec::new() });
                }
                let has = ranges(has)?;
                let later = if later == "=" { has.clone() } else { ranges(later)? };
                let mut added: Vec<usize> = has.iter().copied().chain(ranges(adds)?).collect();
                added.sort_unstable();
                let image = Image {
                    name: format!("{fleet}/{name}"),
                    first: has.iter().map(|at| packages[*at].0.clone()).collect(),
                    updated: later.iter().map(|at| packages[*at].1.clone()).collect(),
                    added: added.iter().map(|at| packages[*at].0.clone()).collect(),
                };
                fleets.last_mut().ok_or("no fleet")?.images.push(image);
            }
            _ => {}
        }
    }
    Ok((fleets, depends))
}

fn ranges(text: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    let mut found = Vec::new();
    for range in text.split(',').filter(|range| *range != "-") {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        found.extend(from.parse::<usize>()?..=to.parse()?);
    }
    Ok(found)
}
