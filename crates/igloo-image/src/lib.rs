//! Environments as OCI images, byte for byte reproducible.
//!
//! Takes an environment, the project's own files and a plan of layers; gives layers, manifests and images in OCI's and
//! docker's forms. Never opens a connection, never reads a manifest or a lock, never runs anything of an image.

pub mod plan;
