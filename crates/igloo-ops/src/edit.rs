//! `igloo add` and `igloo remove`: edit the manifest, lock, and write both or neither.

use igloo_base::file::write_atomic;
use igloo_manifest::edit::{self, Edit, EditError};

use crate::context::Context;
use crate::error::OpsError;
use crate::lock::{self, Outcome};
use crate::project::{self, MANIFEST, Project};

/// Adds packages to a table.
pub fn add(ctx: &Context<'_>, project: Project, table: &str, packages: &[String]) -> Result<Outcome, OpsError> {
    apply(ctx, project, table, packages, edit::add)
}

/// Removes packages from a table.
pub fn remove(ctx: &Context<'_>, project: Project, table: &str, packages: &[String]) -> Result<Outcome, OpsError> {
    apply(ctx, project, table, packages, edit::remove)
}

fn apply(
    ctx: &Context<'_>,
    project: Project,
    table: &str,
    packages: &[String],
    edit: fn(&str, &str, &str) -> Result<Edit, EditError>,
) -> Result<Outcome, OpsError> {
    let mut text = project.text.clone();
    for package in packages {
        if let Edit::Changed(changed) = edit(&text, table, package)? {
            text = changed;
        }
    }
    if project.files != project.directory {
        return Err(OpsError::GeneratedManifest);
    }
    let path = project.directory.join(MANIFEST);
    let changed = text != project.text;
    let mut edited = project::from_text(&project.directory, text)?;
    // Resolved before anything is written; the lock is written after the manifest, so that a kill in between
    // leaves a stale lock, which every verb notices.
    let new = lock::resolve(ctx, &edited, lock::Keep::All, false)?;
    if changed {
        write_atomic(&path, edited.text.as_bytes())?;
    }
    lock::accept(ctx, &mut edited, new)
}
