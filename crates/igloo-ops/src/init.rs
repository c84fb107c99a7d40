//! `igloo init`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use igloo_base::file::{At, create_dirs, write_atomic};
pub use igloo_manifest::compose::Note;
use igloo_manifest::edit::{self, Edit};
use igloo_manifest::{ImageKind, compose, templates};
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::{self, MANIFEST};
use crate::services::secrets::{DOT_ENV, env_file};
use crate::shell::default_suite;

/// Names of the templates and a line about each.
pub fn templates() -> impl Iterator<Item = (&'static str, &'static str)> {
    templates::all().iter().map(|t| (t.name, t.description))
}

/// Writes a manifest made from a template into a directory that has none.
pub fn init(directory: &Path, template: &str) -> Result<PathBuf, OpsError> {
    let text = templates::template(template).ok_or_else(|| OpsError::NoTemplate { name: template.to_owned() })?;
    write_new(directory, &text.replace(templates::NAME_PLACEHOLDER, &project_name(directory)))
}

/// How to import a compose file.
#[derive(Debug)]
pub struct Import<'o> {
    /// The file.
    pub from: &'o Path,
    /// The registry of images that name none.
    pub registry: Option<&'o str>,
    /// Take packages where igloo knows some for an image.
    pub packages: bool,
}

/// Largest compose file.
const MAX_COMPOSE: u64 = 4 << 20;

/// Writes a manifest made from a compose file into a directory that has none; what a person should look at.
pub fn import(ctx: &Context<'_>, directory: &Path, import: &Import<'_>) -> Result<(PathBuf, Vec<Note>), OpsError> {
    let from = directory.join(import.from);
    let size = std::fs::metadata(&from).at("read", &from)?.len();
    if size > MAX_COMPOSE {
        return Err(OpsError::NoCompose { path: from, why: "it is larger than 4 MiB".to_owned() });
    }
    let text = std::fs::read_to_string(&from).at("read", &from)?;
    let env = from.with_file_name(DOT_ENV);
    let variables = if env.is_file() { env_file(&env)?.into_iter().collect() } else { BTreeMap::new() };
    let options = compose::Options {
        name: project_name(directory),
        suite: import.packages.then(|| default_suite(ctx, directory)).transpose()?,
        registry: import.registry.map(|host| host.trim_end_matches('/').to_owned()),
        variables,
    };
    let bad = |e: compose::BadCompose| OpsError::NoCompose { path: from.clone(), why: e.to_string() };
    let imported = compose::import(&text, &options).map_err(bad)?;
    Ok((write_new(directory, &imported.text)?, imported.notes))
}

fn write_new(directory: &Path, text: &str) -> Result<PathBuf, OpsError> {
    let path = directory.join(MANIFEST);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(OpsError::ManifestExists { path }),
        other => other.at("create", &path)?,
    };
    file.write_all(text.as_bytes()).at("write", &path)?;
    file.sync_all().at("write", &path)?;
    Ok(path)
}

/// A project's name from its directory's.
fn project_name(directory: &Path) -> String {
    let name: String = directory
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    match name.trim_matches('-') {
        "" => "project".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// What an editor is told about a project's container.
#[derive(Debug)]
pub struct Devcontainer {
    /// The file that was written.
    pub path: PathBuf,
    /// The image's name in the manifest.
    pub image: String,
    /// Whether the image was added to the manifest just now.
    pub added: bool,
}

/// `devcontainer.json`, in the order in which a person reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'w> {
    name: &'w str,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    initialize_command: Option<String>,
    remote_user: &'static str,
    #[serde(rename = "updateRemoteUserUID")]
    update_remote_user_uid: bool,
    workspace_folder: &'static str,
    workspace_mount: &'static str,
}

/// Writes `.devcontainer/devcontainer.json` beside the manifest: it uses the first devcontainer of the manifest's images,
/// which is added if there is none. A file that is there is replaced only if `force`.
pub fn devcontainer(ctx: &Context<'_>, start: &Path, force: bool) -> Result<Devcontainer, OpsError> {
    let mut project = project::open(ctx, start)?;
    let path = project.directory.join(".devcontainer/devcontainer.json");
    if !force && path.symlink_metadata().is_ok() {
        return Err(OpsError::DevcontainerExists { path });
    }
    let first = |project: &project::Project| {
        let mut images = project.manifest.images.iter();
        images
            .find(|(_, image)| image.kind == ImageKind::Devcontainer)
            .map(|(name, image)| (name.clone(), image.clone()))
    };
    let added = first(&project).is_none();
    if added && let Edit::Changed(text) = edit::add_devcontainer(&project.text)? {
        project = project::from_text(&project.directory, text)?;
        write_atomic(project.directory.join(MANIFEST), project.text.as_bytes())?;
    }
    let (name, image) = first(&project).ok_or(OpsError::NoImages)?;
    let written = Written {
        name: &project.manifest.project.name,
        image: format!("{}:latest", image.name.clone().unwrap_or_else(|| format!("localhost/{name}"))),
        // One that no registry has is built and loaded here.
        initialize_command: image.name.is_none().then(|| format!("igloo image load {name}")),
        remote_user: "vscode",
        update_remote_user_uid: true,
        workspace_folder: "/workspaces/${localWorkspaceFolderBasename}",
        workspace_mount: "source=${localWorkspaceFolder},target=/workspaces/${localWorkspaceFolderBasename},type=bind",
    };
    let text = serde_json::to_string_pretty(&written).map_err(OpsError::Json)? + "\n";
    create_dirs(project.directory.join(".devcontainer"))?;
    write_atomic(&path, text.as_bytes())?;
    Ok(Devcontainer { path, image: name, added })
}
