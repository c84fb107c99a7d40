//! The helper life of the binary, which must start before any thread exists.

pub use igloo_container::sandbox_main;
