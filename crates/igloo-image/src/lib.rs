//! Environments as OCI images, byte for byte reproducible.
//!
//! Takes an environment, the project's own files and a plan of layers; gives layers, manifests and images in OCI's and
//! docker's forms. Never opens a connection, never reads a manifest or a lock, never runs anything of an image.

pub mod blobs;
pub mod collect;
pub mod content;
pub mod entry;
pub mod error;
pub mod export;
pub mod image;
pub mod layer;
pub mod package;
pub mod plan;
pub mod reader;
pub mod top;
pub mod tree;
pub mod unpack;

mod copies;
mod store_path;
mod tar;

pub use blobs::Blobs;
pub use error::ImageError;
pub use image::{BuiltImage, ImageLayer, ImageSpec, build, join};
pub use layer::{Compression, Layer};
pub use package::{Package, PackageKind};
pub use top::{Account, Additions, Appended};
pub use unpack::{Attribute, Tree, Trees};

/// Version of everything that decides which bytes a layer has. Raised by every change of bytes.
pub const LAYERS: u32 = 1;
