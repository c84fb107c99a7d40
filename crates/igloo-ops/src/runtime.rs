//! The helper lives of the binary, which must start before any thread exists.

pub use igloo_container::audit::{WORD as AUDIT, audit_main};
pub use igloo_container::keep::keep_main;
pub use igloo_container::sandbox_main;
