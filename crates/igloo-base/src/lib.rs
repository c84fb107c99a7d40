//! What every room stands on: digests, files, directories, systems, events.
//!
//! Takes paths and bytes, gives typed values and errors that name the path. Never prints, never reads
//! the environment, never knows what a package is.

pub mod digest;
pub mod dirs;
pub mod event;
pub mod file;
pub mod system;

pub use digest::Sha256;
pub use dirs::Dirs;
pub use event::{Event, Reporter, Task, Unit};
pub use file::{At, PathError};
pub use system::System;
