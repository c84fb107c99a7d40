//! Images on their way: `push`, `pull`, `copy`, `load`, and files for others.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use igloo_base::At as _;
use igloo_formats::oci::{Descriptor, MAX_MANIFEST, Reference};
use igloo_image::export::{self, Export};
use igloo_image::tree::ImageTree;
use igloo_image::{Blobs, ImageError};
use igloo_remote::registry::{BlobSource, Choice, PushImage, push};
use serde::Serialize;

use super::source::{self, Place};
use super::{Made, blobs};
use crate::context::Context;
use crate::error::OpsError;

/// What a push sent.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// Where it went, with the digest.
    pub reference: String,
    /// The digest of the index or manifest.
    pub digest: String,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Blobs that were sent.
    pub uploaded: usize,
    /// Blobs that the registry took from another repository.
    pub mounted: usize,
    /// Blobs that were there.
    pub skipped: usize,
    /// Whether all was there before.
    pub unchanged: bool,
}

/// Pushes an image that is among this machine's blobs below `tags`.
fn send(
    ctx: &Context<'_>,
    blobs: &Blobs,
    tree: &ImageTree,
    to: &Reference,
    tags: &[String],
    mount_from: &[String],
) -> Result<Sent, OpsError> {
    let name = to.to_string();
    let document = |descriptor: &Descriptor| -> Result<(Descriptor, Vec<u8>), OpsError> {
        let missing = ImageError::MissingBlob { image: name.clone(), digest: descriptor.digest };
        let bytes = blobs.read(&descriptor.digest, MAX_MANIFEST)?.ok_or(missing)?;
        Ok((descriptor.clone(), bytes))
    };
    let manifests: Vec<Descriptor> = match tree.index {
        Some(_) => tree.images.iter().map(|i| i.descriptor.clone()).collect(),
        None => Vec::new(),
    };
    let layers = tree.images.iter().flat_map(|i| i.manifest.layers.iter().chain([&i.manifest.config]));
    let image = PushImage {
        blobs: layers.map(|d| (d.clone(), BlobSource::file(blobs.path(&d.digest)))).collect(),
        manifests: manifests.iter().map(document).collect::<Result<_, _>>()?,
        top: document(&tree.top)?,
        mount_from: mount_from.to_vec(),
    };
    let registry = source::registry(ctx, to)?;
    let pushed = push(&registry, &to.repository, tags, &image, ctx.reporter)?;
    Ok(Sent {
        reference: to.with_digest(tree.top.digest).to_string(),
        digest: tree.top.digest.to_string(),
        bytes: pushed.bytes,
        uploaded: pushed.uploaded,
        mounted: pushed.mounted,
        skipped: pushed.skipped,
        unchanged: pushed.is_unchanged(),
    })
}

/// Pushes images of a project to where the manifest, or `to`, says. Layers that images share are sent once: the others
/// mount them.
pub fn push_made(ctx: &Context<'_>, made: &[Made], to: Option<&str>, tags: &[String]) -> Result<Vec<Sent>, OpsError> {
    if to.is_some() && made.len() > 1 {
        return Err(OpsError::OneTarget);
    }
    let _hold = super::hold(ctx)?;
    let blobs = blobs(ctx);
    let mut sent = Vec::new();
    let mut before: Vec<Reference> = Vec::new();
    for one in made {
        let repository = to.map(str::to_owned).or_else(|| one.repository.clone());
        let repository = repository.ok_or_else(|| OpsError::NoRepository { image: one.image.clone() })?;
        let reference: Reference = repository.parse().map_err(OpsError::Reference)?;
        let tags: Vec<String> = match (tags, &reference.tag) {
            ([], Some(tag)) => vec![tag.clone()],
            ([], None) => vec!["latest".to_owned()],
            (tags, _) => tags.to_vec(),
        };
        for tag in &tags {
            reference.with_tag(tag).map_err(OpsError::Reference)?;
        }
        let tree = ImageTree::read(&one.image, &blobs, &one.top)?;
        let mount: Vec<String> = before
            .iter()
            .filter(|r| r.host == reference.host && r.repository != reference.repository)
            .map(|r| r.repository.clone())
            .collect();
        sent.push(send(ctx, &blobs, &tree, &reference, &tags, &mount)?);
        before.push(reference);
    }
    Ok(sent)
}

/// What was pulled.
#[derive(Debug, Serialize)]
pub struct Brought {
    /// As it was asked for.
    pub reference: String,
    /// Digest of the index or manifest.
    pub digest: String,
    /// How many layers all of its images have.
    pub layers: usize,
    /// Compressed bytes of all that belongs to it.
    pub bytes: u64,
}

/// Brings an image here, whole and verified.
pub fn pull_image(ctx: &Context<'_>, start: &Path, text: &str, choice: &Choice) -> Result<Brought, OpsError> {
    let opened = source::open(ctx, start, text, true, choice)?;
    let blobs = opened.tree.blobs();
    Ok(Brought {
        reference: text.to_owned(),
        digest: opened.tree.top.digest.to_string(),
        layers: opened.tree.images.iter().map(|i| i.manifest.layers.len()).sum(),
        bytes: blobs.iter().map(|b| b.size).sum(),
    })
}

/// Copies an image from anywhere to a registry, an OCI layout (`oci:DIR`) or an archive (`oci-archive:FILE`,
/// `docker-archive:FILE`).
pub fn copy(ctx: &Context<'_>, start: &Path, from: &str, to: &str, choice: &Choice) -> Result<Sent, OpsError> {
    let _hold = super::hold(ctx)?;
    let opened = source::open(ctx, start, from, true, choice)?;
    let blobs = blobs(ctx);
    import(&blobs, &opened)?;
    let name = |text: &str| match text.parse::<Reference>() {
        Ok(reference) if reference.host.is_some() => vec![reference.to_string()],
        _ => Vec::new(),
    };
    let export = Export { tree: &opened.tree, names: name(from) };
    let done = |bytes: u64| Sent {
        reference: to.to_owned(),
        digest: opened.tree.top.digest.to_string(),
        bytes,
        uploaded: opened.tree.blobs().len(),
        mounted: 0,
        skipped: 0,
        unchanged: false,
    };
    let total = opened.tree.blobs().iter().map(|b| b.size).sum();
    if let Some(path) = to.strip_prefix("oci-archive:") {
        export::oci_archive(&blobs, &[export], &start.join(path))?;
        return Ok(done(total));
    }
    if let Some(path) = to.strip_prefix("docker-archive:") {
        export::docker_archive(&blobs, &[export], &source::here().architecture, &start.join(path))?;
        return Ok(done(total));
    }
    if let Some(path) = to.strip_prefix("oci:") {
        export::layout(&blobs, &[export], &start.join(path))?;
        return Ok(done(total));
    }
    let reference: Reference = to.parse().map_err(OpsError::Reference)?;
    let tags: Vec<String> = reference.tag.clone().into_iter().collect();
    let mount: Vec<String> = match source::place(ctx, start, from)? {
        Place::Registry(r) if r.host == reference.host => vec![r.repository],
        _ => Vec::new(),
    };
    send(ctx, &blobs, &opened.tree, &reference, &tags, &mount)
}

/// Brings everything of an opened image among this machine's blobs, each verified by its digest.
pub(super) fn import(blobs: &Blobs, opened: &source::Opened) -> Result<(), OpsError> {
    for blob in opened.tree.blobs().iter().chain([&opened.tree.top]) {
        if blobs.has(&blob.digest, blob.size) {
            continue;
        }
        let image = opened.name.clone();
        let missing = ImageError::MissingBlob { image: image.clone(), digest: blob.digest };
        let reader = opened.content.open(&blob.digest)?.ok_or(missing)?;
        let mut partial = blobs.begin()?;
        let path = partial.path().to_owned();
        let mut out = igloo_base::digest::HashWriter::new(partial.file());
        std::io::copy(&mut std::io::Read::take(reader, blob.size + 1), &mut out).at("write", &path)?;
        let (_, digest, size) = out.finish();
        if digest != blob.digest.0 || size != blob.size {
            return Err(ImageError::WrongDigest { image, digest: blob.digest }.into());
        }
        blobs.keep(partial, &blob.digest)?;
    }
    Ok(())
}

/// A form of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout, a directory.
    Oci,
    /// The same as one tar.
    OciArchive,
    /// What `docker load` takes.
    DockerArchive,
}

/// Writes images of a project to a file or directory. Their names are the manifest's, with `tags`.
pub fn write(ctx: &Context<'_>, made: &[Made], tags: &[String], form: Form, to: &Path) -> Result<(), OpsError> {
    let _hold = super::hold(ctx)?;
    let blobs = blobs(ctx);
    let trees: Vec<ImageTree> =
        made.iter().map(|m| ImageTree::read(&m.image, &blobs, &m.top)).collect::<Result<_, _>>()?;
    let exports: Vec<Export<'_>> =
        made.iter().zip(&trees).map(|(made, tree)| Export { tree, names: names(made, tags) }).collect();
    match form {
        Form::Oci => export::layout(&blobs, &exports, to)?,
        Form::OciArchive => export::oci_archive(&blobs, &exports, to)?,
        Form::DockerArchive => export::docker_archive(&blobs, &exports, &source::here().architecture, to)?,
    }
    Ok(())
}

/// The names of an image for an engine: where it would be pushed to, else its own with `localhost`.
fn names(made: &Made, tags: &[String]) -> Vec<String> {
    let repository = made.repository.clone().unwrap_or_else(|| format!("localhost/{}", made.image));
    match tags {
        [] => vec![format!("{repository}:latest")],
        tags => tags.iter().map(|tag| format!("{repository}:{tag}")).collect(),
    }
}

/// An engine that images are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `docker load`.
    Docker,
    /// `podman load`.
    Podman,
    /// `ctr images import`.
    Containerd,
}

impl Engine {
    fn program(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
            Engine::Containerd => "ctr",
        }
    }
}

/// Gives images of a project to an engine; the names they have there.
pub fn load(
    ctx: &Context<'_>,
    made: &[Made],
    tags: &[String],
    engine: Option<Engine>,
) -> Result<Vec<String>, OpsError> {
    let engine = match engine {
        Some(engine) => engine,
        None => [Engine::Podman, Engine::Docker, Engine::Containerd]
            .into_iter()
            .find(|e| on_path(ctx, e.program()).is_some())
            .ok_or(OpsError::NoEngine)?,
    };
    let program =
        on_path(ctx, engine.program()).ok_or_else(|| OpsError::NoCommand { program: engine.program().to_owned() })?;
    let _hold = super::hold(ctx)?;
    // podman takes one image an archive.
    for one in made {
        give(&blobs(ctx), one, tags, engine, &program)?;
    }
    Ok(made.iter().flat_map(|m| names(m, tags)).collect())
}

/// Gives an image to an engine that reads it from a pipe: no copy lies anywhere, and a kill leaves none.
fn give(blobs: &Blobs, made: &Made, tags: &[String], engine: Engine, program: &Path) -> Result<(), OpsError> {
    let tree = ImageTree::read(&made.image, blobs, &made.top)?;
    let exports = [Export { tree: &tree, names: names(made, tags) }];
    let failed = |source| OpsError::Command { program: engine.program().to_owned(), source };
    let mut command = Command::new(program);
    match engine {
        Engine::Docker | Engine::Podman => command.args(["load", "--quiet"]),
        Engine::Containerd => command.args(["images", "import", "-"]),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let pipe = child.stdin.take();
    let (written, output) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<(), ImageError> {
            let Some(pipe) = pipe else { return Ok(()) };
            match engine {
                Engine::Docker => {
                    export::docker_tar(blobs, &exports, &source::here().architecture, pipe, program).map(drop)
                }
                Engine::Podman | Engine::Containerd => export::oci_tar(blobs, &exports, pipe, program).map(drop),
            }
        });
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let output = output.map_err(failed)?;
    // What it says about why it read no further is worth more than that it did not.
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(2000).collect();
        return Err(OpsError::EngineRefused { engine: engine.program(), said });
    }
    match written {
        Ok(written) => Ok(written?),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn on_path(ctx: &Context<'_>, program: &str) -> Option<PathBuf> {
    let path = ctx.caller.environment.iter().find(|(name, _)| name == "PATH")?.1.clone();
    std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.is_file())
}
