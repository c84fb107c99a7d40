//! Packages from nixpkgs and other flakes: what they come to is evaluated once, into the lock; everything after that
//! goes by store paths.

mod closure;
mod host;
mod lock;
mod profile;
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use igloo_base::{Task, Unit};
use igloo_manifest::Source;
use igloo_manifest::request::{FLAKES, STORE};

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// Whether Nix knows what is in a source.
pub(crate) fn is_of_nix(project: &Project, source: &str) -> bool {
    source == FLAKES || source == STORE || matches!(project.manifest.sources.get(source), Some(Source::Nixpkgs(_)))
}

/// The manifest that an output of a flake describes, built: a file in the host's store.
pub(crate) fn manifest(ctx: &Context<'_>, directory: &Path, reference: &str) -> Result<PathBuf, OpsError> {
    #[derive(serde::Deserialize)]
    struct Built {
        outputs: BTreeMap<String, PathBuf>,
    }
    let (flake, output) = reference.split_once('#').unwrap_or((reference, ""));
    let output = if output.is_empty() { "default" } else { output };
    let nix = program::find(ctx, directory)?;
    let _task = Task::start(ctx.reporter, format!("nix evaluates {reference}"), None, Unit::Items);
    let installable = format!("{flake}#{output}.manifest");
    let built: Vec<Built> = nix.json(directory, &["build", "--no-link", "--json", &installable])?;
    let path = built.into_iter().flat_map(|b| b.outputs.into_values()).next();
    path.ok_or_else(|| OpsError::NotAStorePath { text: installable })
}

pub(crate) use closure::{complete, forget, is_known, learn, of_environment as closure_of};
pub(crate) use host::HostStore;
pub(crate) use lock::{files_digest, resolve};
pub(crate) use profile::{Profile, find as find_profile, has_debian, profile};
