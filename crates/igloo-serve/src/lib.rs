//! HTTP servers: an image registry.
//!
//! Takes directories, addresses, tokens and somebody who builds images; serves the OCI distribution specification 1.1,
//! for images that are pushed here and for images that are built when they are pulled. A client is never trusted:
//! every length has a cap, every digest is computed, nothing is waited for without limit. Never prints, never keeps
//! anything in memory that a restart would miss.

pub mod error;
mod http;
pub mod registry;

pub use error::ServeError;
