//! What a project declares (`igloo.toml`), what was chosen for it (`igloo.lock`), and the pure way from one to the other.
//!
//! Takes texts, gives values with spans, texts and digests. Never opens a file, never asks the network, never reads
//! the environment: the callers bring the bytes.

pub mod compose;
pub mod edit;
pub mod error;
pub mod glob;
pub mod image;

mod keys;
pub mod lock;
pub mod manifest;
mod node;
mod parse;
pub mod request;
pub mod resolve;
pub mod schema;
pub mod sets;
pub mod template;
pub mod templates;
pub mod words;

pub use error::{Diagnostic, ManifestError, Position};
pub use glob::Glob;
pub use lock::{Lock, LockError};
pub use manifest::*;
pub use parse::parse;
pub use request::{EnvironmentRequest, MissingTool, Root, request_digest};
