//! From what is asked for to what will be there: a pure resolver over package indexes.
//!
//! The answer is the one that `apt-get install` gives on a machine without any package: depth first, clause by clause
//! in the order of the control file, the first alternative that can be had. Where that walk runs into a dead end, the
//! choices that led there are avoided and the walk begins again, a bounded number of times. What comes out is
//! checked clause by clause by [`verify`], which knows nothing of the walk; `igloo.lock` is checked by it too.
//!
//! Takes a [`Universe`] and a request, gives a [`Resolution`] or a [`Conflict`] that explains itself. Never reads a
//! file, never asks what time it is: equal input gives equal output.

mod conflict;
mod universe;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use igloo_base::System;

pub use conflict::{Conflict, Link, Unfit};
pub use universe::{Candidate, Indexes, Universe};
pub use verify::{Member, Violation, verify};

use crate::request::EnvironmentRequest;

/// The packages of one environment.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// What was chosen, sorted by name.
    pub packages: Vec<Arc<Candidate>>,
    /// For each package the name of the one that pulled it in, or [`WHY_ROOT`], or [`WHY_BASE`].
    pub why: BTreeMap<String, String>,
}

/// In [`Resolution::why`]: the request asks for it by name.
pub const WHY_ROOT: &str = "root";

/// In [`Resolution::why`]: the base asks for it.
pub const WHY_BASE: &str = "base";

/// What `base = "minimal"` stands for: what maintainers take for granted, so that no package depends on it.
pub const MINIMAL: [&str; 15] = [
    "usr-is-merged",
    "base-files",
    "base-passwd",
    "bash",
    "dash",
    "coreutils",
    "libc-bin",
    "sed",
    "grep",
    "findutils",
    "debianutils",
    "gzip",
    "tar",
    "diffutils",
    "hostname",
];

/// Chooses the packages of one environment.
pub fn resolve(
    universe: &dyn Universe,
    request: &EnvironmentRequest,
    system: System,
) -> Result<Resolution, Box<Conflict>> {
    walk::search(universe, request, system)
}
