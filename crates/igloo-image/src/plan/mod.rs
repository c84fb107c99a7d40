//! Which package lies in which layer, planned for the fleet and not for the image.
//!
//! A [`Plan`] is an ordered list of groups of packages; a group has one or more layers, which are exact sets of packages.
//! All images of a fleet stack their layers in the plan's order, so that not only the layers but also what lies below
//! them is the same ([`layers`]). A plan is made by a search over partitions and orders ([`Plan::fleet`]) for the least
//! bytes that hosts pull and unpack, now and by the updates that are to be expected. An image that the plan doesn't know
//! as it is, since a package came or went, gets those layers that leave such a host the least to do.
//!
//! # How volatility is learnt
//!
//! A [`Prior`] says how often a source package changes. It is learnt from
//! - `data/updates.txt`, which ships with igloo: how many updates each source went through in three releases of Debian,
//!   counted by `bench/fleet-data` in the changelogs of their source packages up to the day that the file names;
//! - a project's locks over time, and those of several projects ([`Prior::learn`]).
//!
//! Counts become a rate a year: recent releases and a project's own locks weigh more, a small guess is added, a source of
//! another version inherits by its stem (`postgresql-17` from `postgresql-15`), one whose changelog tells of security fixes
//! is expected to need more of them even if no release was updated for it, and the rate is damped because updates come
//! in bursts. The constants are in `prior.rs`, each with its reason.

mod builtin;
mod cost;
mod explain;
mod file;
mod fleet;
mod layers;
mod measure;
mod model;
mod prior;
mod rest;
mod search;
#[cfg(test)]
mod tests;

pub use explain::Explanation;
pub use file::{PlanError, VERSION};
pub use measure::{Bytes, Host};
pub use prior::{Prior, Volatility};

/// What names of Nix's packages begin with, and their sources.
pub const NIX: &str = "nix:";

/// A package as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPackage {
    /// Binary package, `libssl3`; `nix:openssl.dev` of a store path.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
    /// Source package, `openssl`; what is built together changes together.
    pub source: String,
    /// Bytes of the archive: a good guess of what its part of a compressed layer costs.
    pub size: u64,
    /// Bytes when unpacked.
    pub installed: u64,
}

/// An image as the plan sees it: what is in it on one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetImage {
    /// `project/image`.
    pub name: String,
    /// Its packages, sorted by name.
    pub packages: Vec<FleetPackage>,
}

/// One layer of an image, as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    /// The layer's name in the plan, the same in every image that has it.
    pub name: String,
    /// Indexes into [`FleetImage::packages`], ascending.
    pub packages: Vec<usize>,
}

/// The layers of a fleet: a plan file's content.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In the one order that all images share, bottom first.
    pub groups: Vec<Group>,
    /// Sources that are known to change, with updates a year and the evidence.
    pub sources: std::collections::BTreeMap<String, Volatility>,
}

/// Packages that lie at one height, in every image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique in the plan.
    pub name: String,
    /// The layers that images have of it, largest first: an image takes the first one that it has all packages of.
    pub layers: Vec<Layer>,
}

/// One exact set of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Names of packages, sorted.
    pub packages: Vec<String>,
    /// The images of the fleet that have it, sorted; for people, nothing depends on it.
    pub images: Vec<String>,
}

/// The most layers that packages of one image get; the rest of the forty is for generated files and own code.
pub const MOST_LAYERS: usize = 36;
