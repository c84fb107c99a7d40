//! `igloo init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use igloo_base::file::{At, create_dirs, write_atomic};
use igloo_manifest::edit::{self, Edit};
use igloo_manifest::{ImageKind, templates};
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::{self, MANIFEST};

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
