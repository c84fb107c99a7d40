//! All client network traffic: apt archives and the files in their pools, image registries, Nix's
//! binary caches.
//!
//! Takes what is wanted (suites, digests) and where the machine says it comes from; gives verified indexes and
//! verified files on disk. Nothing that was not signed, or whose digest was not in a signed index, leaves this room.
//! It never resolves, never unpacks, never reads the environment, and names no archive's or registry's host:
//! addresses come from the manifest, from the machine's own apt configuration, or from whoever asks.

pub mod apt;
mod check;
mod client;
mod download;
mod error;
pub mod evaluate;
pub mod nix;
pub mod registry;

pub use apt::{Freshness, PackageIndex, Suite, SuiteRequest, refresh};
pub use client::url::file_url;
pub use client::{Client, Config};
pub use download::{Download, fetch};
pub use error::RemoteError;
pub use evaluate::{Nix, NixError};
