//! Packages from nixpkgs and other flakes: what they come to is evaluated once, into the lock; everything after that
//! goes by store paths.

mod closure;
mod lock;
mod profile;

use igloo_manifest::Source;
use igloo_manifest::request::FLAKES;

use crate::project::Project;

/// Whether Nix knows what is in a source.
pub(crate) fn is_of_nix(project: &Project, source: &str) -> bool {
    source == FLAKES || matches!(project.manifest.sources.get(source), Some(Source::Nixpkgs(_)))
}

pub(crate) use closure::{complete, forget, learn};
pub(crate) use lock::{files_digest, resolve};
pub(crate) use profile::{Profile, find as find_profile, profile};
