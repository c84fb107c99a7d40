//! OCI images and registries: descriptors, manifests, indexes, configurations, references.
//!
//! Source: the OCI image specification 1.1 and the OCI distribution specification 1.1; docker's schema 2 names of the
//! same shapes are read, never written. Maps are sorted, so that one value has one text and one digest.

mod config;
mod descriptor;
mod manifest;
mod reference;

pub use config::{Config, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{BadDigestText, Descriptor, Digest, Platform};
pub use manifest::{Document, Index, Manifest};
pub use reference::{BadReference, Reference, is_repository, is_tag};

/// Largest manifest or index that is read: registries must take 4 MiB and none is known to take more.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image configuration that is read.
pub const MAX_CONFIG: u64 = 8 << 20;

/// Media types, and what of them igloo reads.
pub mod media {
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer that is a plain tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer that is a tar in gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer that is a tar in zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// docker's layer, a tar in gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// docker's layer, a plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// What a client that reads images asks for, in a registry's `Accept`.
    pub const MANIFESTS: [&str; 4] = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

    /// Whether this names a layer that igloo reads.
    pub fn is_layer(text: &str) -> bool {
        matches!(text, LAYER | LAYER_GZIP | LAYER_ZSTD | DOCKER_LAYER | DOCKER_LAYER_GZIP)
    }

    /// Whether this names an index.
    pub fn is_index(text: &str) -> bool {
        matches!(text, INDEX | DOCKER_INDEX)
    }

    /// Whether this names an image manifest.
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, MANIFEST | DOCKER_MANIFEST)
    }
}
