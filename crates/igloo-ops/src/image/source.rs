//! Images wherever they are: of this project, in a file or directory, in a registry.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use igloo_base::digest::HashWriter;
use igloo_formats::oci::{Descriptor, Platform, Reference, media};
use igloo_image::blobs::PartialBlob;
use igloo_image::content::{Content, Packed};
use igloo_image::tree::ImageTree;
use igloo_image::{Blobs, ImageError};
pub use igloo_remote::registry::Choice;
use igloo_remote::registry::{BlobSink, BlobWriter, Credentials, PlainHttp, Registry, RegistryConfig, pull};

use super::build::{self, Options};
use crate::context::{Context, ManifestPlace};
use crate::error::OpsError;
use crate::{lock, project};

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `[images.NAME]` of the project.
    Project(String),
    /// An OCI layout, or an archive of OCI's or docker's form.
    Path(PathBuf),
    /// In a registry.
    Registry(Reference),
}

/// An image that can be read.
pub struct Opened {
    /// What it was called by.
    pub name: String,
    /// Its documents.
    pub tree: ImageTree,
    /// Where its layers are read from.
    pub content: Box<dyn Content>,
}

/// Where `text` says an image is: a path that exists or is marked as one (`oci:`, `oci-archive:`, `docker-archive:`, a
/// leading `/` or `.`), an image of the project, or else a name in a registry.
pub fn place(ctx: &Context<'_>, start: &Path, text: &str) -> Result<Place, OpsError> {
    for prefix in ["oci:", "oci-archive:", "docker-archive:"] {
        if let Some(path) = text.strip_prefix(prefix) {
            return Ok(Place::Path(start.join(path)));
        }
    }
    if text.starts_with(['/', '.']) {
        return Ok(Place::Path(start.join(text)));
    }
    if ctx.manifest != ManifestPlace::Found || project::find(start).is_ok() {
        let project = project::open(ctx, start)?;
        if project.manifest.images.contains_key(text) {
            return Ok(Place::Project(text.to_owned()));
        }
    }
    if start.join(text).exists() {
        return Ok(Place::Path(start.join(text)));
    }
    let reference: Reference = text.parse().map_err(OpsError::Reference)?;
    match reference.host {
        Some(_) => Ok(Place::Registry(reference)),
        None => Err(OpsError::NoImage { name: text.to_owned() }),
    }
}

/// Opens an image. Of one in a registry, layers are brought here only if they are `wanted`.
pub fn open(ctx: &Context<'_>, start: &Path, text: &str, wanted: bool, choice: &Choice) -> Result<Opened, OpsError> {
    let _hold = super::hold(ctx)?;
    let blobs = super::blobs(ctx);
    match place(ctx, start, text)? {
        Place::Project(name) => {
            let mut project = project::open(ctx, start)?;
            // What only one system is wanted of is built for it alone.
            let systems = match choice {
                Choice::Platform(wanted) => {
                    let all = project.manifest.project.systems.iter().copied();
                    all.filter(|system| Platform::from(*system).architecture == wanted.architecture).collect()
                }
                Choice::All => Vec::new(),
            };
            let options = Options { names: vec![name], systems, ..Options::default() };
            let made = build::build(ctx, &mut project, &options)?;
            let top = made.first().map(|m| m.top.clone()).ok_or(OpsError::NoImages)?;
            let tree = ImageTree::read(text, &blobs, &top)?;
            Ok(Opened { name: text.to_owned(), tree, content: Box::new(blobs) })
        }
        Place::Path(path) => {
            let packed = Packed::open(&path)?;
            let tops = packed.tops()?;
            let [(top, _)] = tops.as_slice() else {
                let names = tops.iter().map(|(d, n)| n.clone().unwrap_or_else(|| d.digest.to_string())).collect();
                return Err(OpsError::SeveralImages { path, names });
            };
            let tree = ImageTree::read(text, &packed, top)?;
            Ok(Opened { name: text.to_owned(), tree, content: Box::new(packed) })
        }
        Place::Registry(reference) => {
            let top = fetch(ctx, &blobs, &reference, wanted, choice)?;
            let tree = ImageTree::read(text, &blobs, &top)?;
            Ok(Opened { name: text.to_owned(), tree, content: Box::new(blobs) })
        }
    }
}

/// Brings an image from a registry among this machine's blobs; what names it.
pub(super) fn fetch(
    ctx: &Context<'_>,
    blobs: &Blobs,
    reference: &Reference,
    layers: bool,
    choice: &Choice,
) -> Result<Descriptor, OpsError> {
    let registry = registry(ctx, reference)?;
    let sink = Sink { blobs, layers };
    let pulled = pull(&registry, reference, choice, &sink, ctx.reporter)?;
    Ok(match (choice, pulled.images.as_slice()) {
        (Choice::Platform(_), [image]) => image.clone(),
        _ => pulled.top,
    })
}

/// The registry that a reference names.
pub(super) fn registry(ctx: &Context<'_>, reference: &Reference) -> Result<Registry, OpsError> {
    let host = reference.host.as_deref().ok_or_else(|| OpsError::NoRegistry { name: reference.to_string() })?;
    if ctx.offline {
        return Err(OpsError::OfflineRegistry { host: host.to_owned() });
    }
    let settings = &ctx.registries;
    let config = RegistryConfig {
        client: lock::config(ctx),
        credentials: Credentials::from_files(&settings.auth_files)?,
        plain_http: match settings.plain_http.as_slice() {
            [] => PlainHttp::Loopback,
            hosts => PlainHttp::Hosts(hosts.to_vec()),
        },
        certs: settings.certs.clone(),
        ..RegistryConfig::default()
    };
    Ok(Registry::new(config, host)?)
}

/// This machine's platform.
pub fn here() -> Platform {
    Platform::from(igloo_base::System::current())
}

/// Takes what is pulled into this machine's blobs.
struct Sink<'b> {
    blobs: &'b Blobs,
    /// Layers as well, and not just documents.
    layers: bool,
}

struct Writer<'b> {
    blobs: &'b Blobs,
    digest: igloo_formats::oci::Digest,
    out: HashWriter<PartialFile>,
}

struct PartialFile(PartialBlob);

impl Write for PartialFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.file().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file().flush()
    }
}

fn lost(error: ImageError) -> io::Error {
    io::Error::other(error)
}

impl BlobSink for Sink<'_> {
    fn has(&self, descriptor: &Descriptor) -> io::Result<bool> {
        let document = matches!(descriptor.media_type.as_str(), media::CONFIG | media::DOCKER_CONFIG);
        Ok((!self.layers && !document) || self.blobs.has(&descriptor.digest, descriptor.size))
    }

    fn writer<'a>(&'a self, descriptor: &Descriptor) -> io::Result<Box<dyn BlobWriter + 'a>> {
        let mut partial = self.blobs.begin().map_err(lost)?;
        // A size is the registry's word. One that can't fit isn't fetched until the disk is full.
        let room = rustix::fs::fstatvfs(partial.file())?;
        if descriptor.size > room.f_bavail.saturating_mul(room.f_frsize) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let out = HashWriter::new(PartialFile(partial));
        Ok(Box::new(Writer { blobs: self.blobs, digest: descriptor.digest, out }))
    }

    fn manifest(&self, descriptor: &Descriptor, bytes: &[u8]) -> io::Result<()> {
        self.blobs.put(&descriptor.media_type, bytes).map(drop).map_err(lost)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl BlobWriter for Writer<'_> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let (file, digest, _) = self.out.finish();
        if digest != self.digest.0 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        self.blobs.keep(file.0, &self.digest).map_err(lost)
    }
}
