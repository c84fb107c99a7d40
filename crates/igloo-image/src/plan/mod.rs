//! Which package lies in which layer, planned for the fleet and not for the image.

/// A package as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPackage {
    /// Binary package, `libssl3`.
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
