//! Fixtures for the tests of every room; a dev-dependency only.
//!
//! [`archive`] is a Debian archive in miniature: packages made from a few words, indexes, a release file signed by a
//! key made on the spot, all served over loopback with faults on demand. Nothing here touches a real network.

// What fails here fails a test, which is where a panic with its reason belongs.
#![allow(clippy::expect_used, clippy::unwrap_used)]
// That a test is skipped is said where the test is run.
#![allow(clippy::print_stdout)]

pub mod archive;
pub mod nix;
