//! `igloo init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use igloo_base::file::At;
use igloo_manifest::templates;

use crate::error::OpsError;
use crate::project::MANIFEST;

/// Names of the templates and a line about each.
pub fn templates() -> impl Iterator<Item = (&'static str, &'static str)> {
    templates::all().iter().map(|t| (t.name, t.description))
}

/// Writes a manifest made from a template into a directory that has none.
pub fn init(directory: &Path, template: &str) -> Result<PathBuf, OpsError> {
    let text = templates::template(template).ok_or_else(|| OpsError::NoTemplate { name: template.to_owned() })?;
    let name: String = directory
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    let name = match name.trim_matches('-') {
        "" => "project",
        trimmed => trimmed,
    };
    let path = directory.join(MANIFEST);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(OpsError::ManifestExists { path }),
        other => other.at("create", &path)?,
    };
    file.write_all(text.replace(templates::NAME_PLACEHOLDER, name).as_bytes()).at("write", &path)?;
    file.sync_all().at("write", &path)?;
    Ok(path)
}
