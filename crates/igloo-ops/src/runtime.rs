//! The two helper lives of the binary, which must start before any thread exists.

pub use igloo_container::{sandbox_main, shim_main};
