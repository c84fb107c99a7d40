//! Nix's formats: base 32, store paths, archives. Facts proved against real Nix by vectors in each module.

pub mod base32;
pub mod nar;
pub mod store_path;

pub use store_path::{STORE_DIR, StorePath};
