//! Why a package lies where it lies.

use std::fmt;

use super::prior::{Prior, Volatility};
use super::{FleetImage, Plan};

/// Where a package lies in an image, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The package.
    pub package: String,
    /// Its source.
    pub source: String,
    /// The layer's name.
    pub layer: String,
    /// The layer's place in the image, from 1 at the bottom, and how many there are.
    pub place: (usize, usize),
    /// How many packages the layer has.
    pub packages: usize,
    /// Compressed bytes of the layer.
    pub bytes: u64,
    /// Images of the plan that have the same layer, sorted.
    pub shared: Vec<String>,
    /// Whether the plan knows the layer; otherwise its packages are cut by size and volatility.
    pub planned: bool,
    /// How often the source changes, and how that is known.
    pub volatility: Volatility,
    /// The sources of the layer that change most often, with bursts of updates a year; at most three.
    pub most_volatile: Vec<(String, f64)>,
}

impl Plan {
    /// Why `package` lies where it lies in `image`; none if the image doesn't have it.
    pub fn explain(&self, image: &FleetImage, package: &str) -> Option<Explanation> {
        let at = image.packages.iter().position(|other| other.name == package)?;
        let layers = self.layers(image);
        let place = layers.iter().position(|layer| layer.packages.contains(&at))?;
        let layer = &layers[place];
        let held = || layer.packages.iter().map(|at| &image.packages[*at]);
        let mut names: Vec<&str> = held().map(|package| &*package.name).collect();
        names.sort_unstable();
        let planned = self.groups.iter().flat_map(|group| &group.layers).find(|other| other.packages == names);
        let prior = Prior::shipped_ref();
        let volatility = |source: &str| self.sources.get(source).cloned().unwrap_or_else(|| prior.volatility(source));
        let mut sources: Vec<(String, f64)> =
            held().map(|package| (package.source.clone(), volatility(&package.source).per_year)).collect();
        sources.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sources.dedup();
        sources.truncate(3);
        let source = image.packages[at].source.clone();
        Some(Explanation {
            package: package.to_owned(),
            layer: layer.name.clone(),
            place: (place + 1, layers.len()),
            packages: layer.packages.len(),
            bytes: held().map(|package| package.size).sum(),
            shared: planned.map(|layer| layer.images.clone()).unwrap_or_default(),
            planned: planned.is_some(),
            volatility: volatility(&source),
            most_volatile: sources,
            source,
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { package, source, layer, place: (place, of), packages, bytes, .. } = self;
        let size = *bytes as f64 / 1e6;
        writeln!(
            f,
            "{package} lies in layer `{layer}`, {place} of {of} from below, with {packages} packages ({size:.1} MB)"
        )?;
        match (self.planned, &self.shared[..]) {
            (false, _) => writeln!(f, "the plan has no layer that fits it: cut by size and by how often it changes")?,
            (true, []) => writeln!(f, "the plan puts these together")?,
            (true, images) => {
                writeln!(f, "{} images of the plan have the same layer: {}", images.len(), images.join(", "))?
            }
        }
        let rate = self.volatility.per_year;
        match &self.volatility.evidence[..] {
            [] => writeln!(f, "its source `{source}` was never seen updated; {rate:.2} a year are assumed")?,
            evidence => writeln!(f, "its source `{source}` changes {rate:.2} times a year: {}", evidence.join(", "))?,
        }
        let others: Vec<String> = self.most_volatile.iter().map(|(name, rate)| format!("{name} {rate:.2}")).collect();
        write!(f, "what changes most often in the layer: {}", others.join(", "))
    }
}
