//! Images on their way here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use igloo_base::{Reporter, Task, Unit};
use igloo_formats::oci::{
    Descriptor, Digest, Document, ImageConfig, Index, MAX_CONFIG, Manifest, Platform, Reference, media,
};

use super::Registry;
use super::auth::Scope;
use super::call::is_silence;
use super::error::{RegistryError, clean};
use super::read::{Fetched, named};
use crate::apt::parallel;

/// How many blobs are fetched at a time.
const FETCHES: usize = 4;
/// Indexes within indexes: real ones have one level.
const MAX_DEPTH: usize = 3;
/// Manifests of one image: real ones have some twenty.
const MAX_DOCUMENTS: usize = 256;
/// All of them together, since they are held in memory until the blobs are there.
const MAX_BYTES: u64 = 32 << 20;
/// Layers of one image: engines take 127.
const MAX_LAYERS: usize = 512;
/// Platforms that an error names.
const SHOWN: usize = 12;

/// Takes what is pulled, from several threads. A kill at any time must leave it able to tell what it has.
pub trait BlobSink: Sync {
    /// Whether a blob is there already, whole and verified.
    fn has(&self, descriptor: &Descriptor) -> io::Result<bool>;
    /// Begins to take a blob.
    fn writer<'a>(&'a self, descriptor: &Descriptor) -> io::Result<Box<dyn BlobWriter + 'a>>;
    /// Takes a manifest or index. Called when all that belongs to it is there.
    fn manifest(&self, descriptor: &Descriptor, bytes: &[u8]) -> io::Result<()>;
}

/// Takes one blob. Dropped without [`BlobWriter::finish`] it is to forget what it got.
pub trait BlobWriter: io::Write {
    /// All came and is verified.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Which images of an index are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// All, and the index itself.
    All,
    /// The one for a platform, without the index.
    Platform(Platform),
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the reference names.
    pub top: Descriptor,
    /// The images that were chosen; one for [`Choice::Platform`].
    pub images: Vec<Descriptor>,
    /// Blobs that came.
    pub fetched: usize,
    /// Blobs that were there.
    pub skipped: usize,
    /// Bytes of the blobs that came.
    pub bytes: u64,
}

/// Fetches an image into a sink: blobs first, manifests when all that they name is there, the topmost last. The sink
/// gets nothing that was not verified. What is no image is refused, before anything of it is fetched.
pub fn pull(
    registry: &Registry,
    reference: &Reference,
    choice: &Choice,
    sink: &dyn BlobSink,
    reporter: &dyn Reporter,
) -> Result<Pulled, RegistryError> {
    let name = reference.repository.as_str();
    let scope = Scope::pull(name);
    let what = named(name, &reference.selector());
    let top = await_made(registry, reference, &scope, reporter)?;
    let descriptor = top.descriptor.clone();
    let mut walk = Walk {
        registry,
        name,
        scope,
        what,
        choice,
        documents: Vec::new(),
        seen: BTreeSet::new(),
        blobs: BTreeMap::new(),
        bytes: 0,
    };
    let is_image = matches!(top.document, Document::Image(_));
    walk.take(top, false, 0)?;
    let mut pulled = Pulled { top: descriptor, images: walk.images(), fetched: 0, skipped: 0, bytes: 0 };
    if let (Choice::Platform(wanted), true) = (choice, is_image) {
        walk.check_platform(wanted, sink, &mut pulled)?;
    }
    walk.blobs(sink, reporter, &mut pulled)?;
    for fetched in &walk.documents {
        let stored = sink.manifest(&fetched.descriptor, &fetched.bytes);
        stored.map_err(|source| RegistryError::sink(&fetched.descriptor, source))?;
    }
    Ok(pulled)
}

/// What a reference names. A registry may make images when they are asked for, and be silent meanwhile: it is asked
/// again, on a connection of its own each time, so that one that is gone is found out at once.
fn await_made(
    registry: &Registry,
    reference: &Reference,
    scope: &Scope,
    reporter: &dyn Reporter,
) -> Result<Fetched, RegistryError> {
    let (name, select) = (reference.repository.as_str(), reference.selector());
    let began = Instant::now();
    let mut task = None;
    loop {
        match registry.fetch(name, &select, scope) {
            Err(error) if is_silence(&error) && began.elapsed() < registry.config().making => {
                task.get_or_insert_with(|| {
                    let what = format!("wait for {}, which may be making {}", registry.host(), named(name, &select));
                    Task::start(reporter, what, None, Unit::Items)
                });
            }
            other => return other,
        }
    }
}

/// What is found on the way through indexes.
struct Walk<'a> {
    registry: &'a Registry,
    name: &'a str,
    scope: Scope,
    what: String,
    choice: &'a Choice,
    /// What the sink is to get, children first.
    documents: Vec<Fetched>,
    seen: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Descriptor>,
    bytes: u64,
}

impl Walk<'_> {
    fn protocol(&self, why: &'static str) -> RegistryError {
        self.registry.protocol(&self.what, why)
    }

    fn images(&self) -> Vec<Descriptor> {
        let images = self.documents.iter().filter(|d| matches!(d.document, Document::Image(_)));
        images.map(|d| d.descriptor.clone()).collect()
    }

    /// Takes a document and what it names; `attests` if an index says that it is no image but something about one.
    fn take(&mut self, fetched: Fetched, attests: bool, depth: usize) -> Result<(), RegistryError> {
        self.bytes += fetched.bytes.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(self.protocol("its manifests have more than 32 MiB"));
        }
        match &fetched.document {
            Document::Image(manifest) => self.image(manifest, attests)?,
            Document::Index(_) if depth >= MAX_DEPTH => return Err(self.protocol("its indexes are nested too deeply")),
            Document::Index(index) => {
                for child in self.choose(index)? {
                    self.child(&child, depth)?;
                }
                if matches!(self.choice, Choice::Platform(_)) {
                    return Ok(());
                }
            }
        }
        self.documents.push(fetched);
        Ok(())
    }

    fn child(&mut self, child: &Descriptor, depth: usize) -> Result<(), RegistryError> {
        if !self.seen.insert(child.digest) {
            return Ok(());
        }
        if self.seen.len() > MAX_DOCUMENTS {
            return Err(self.protocol("it has more than 256 manifests"));
        }
        let select = child.digest.to_string();
        let what = named(self.name, &select);
        let host = || self.registry.host().to_owned();
        if !media::MANIFESTS.contains(&child.media_type.as_str()) {
            let (found, wanted) = (clean(&child.media_type, 100), "an image manifest or an index of them");
            return Err(RegistryError::MediaType { host: host(), what, found, wanted });
        }
        let fetched = self.registry.fetch(self.name, &select, &self.scope)?;
        let (expected, found) = (child.size, fetched.descriptor.size);
        if expected != found {
            return Err(RegistryError::Size { host: host(), what, expected, found });
        }
        if fetched.descriptor.media_type != child.media_type {
            let (found, wanted) = (fetched.descriptor.media_type, "what its index says");
            return Err(RegistryError::MediaType { host: host(), what, found, wanted });
        }
        self.take(fetched, attests(child), depth + 1)
    }

    /// The entries of an index that are wanted.
    fn choose(&self, index: &Index) -> Result<Vec<Descriptor>, RegistryError> {
        let Choice::Platform(wanted) = self.choice else { return Ok(index.manifests.clone()) };
        let fits = |found: &Platform| {
            found.os == wanted.os
                && found.architecture == wanted.architecture
                && (usual(found) == usual(wanted) || wanted.variant.is_none())
        };
        let platform = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(fits);
        // The first of those that fit, as engines have it; the very variant before any other.
        let exact = |entry: &&Descriptor| platform(entry) && entry.platform.as_ref().map(usual) == Some(usual(wanted));
        let found = index.manifests.iter().find(exact).or_else(|| index.manifests.iter().find(platform));
        if let Some(entry) = found {
            return Ok(vec![entry.clone()]);
        }
        // An index that does not say which platform its one image is for.
        if let [only] = &index.manifests[..]
            && only.platform.is_none()
        {
            return Ok(vec![only.clone()]);
        }
        let mut available: Vec<String> = index
            .manifests
            .iter()
            .filter(|entry| !attests(entry))
            .filter_map(|e| e.platform.as_ref())
            .map(text)
            .collect();
        available.sort();
        available.dedup();
        available.truncate(SHOWN);
        Err(self.no_platform(wanted, available))
    }

    fn no_platform(&self, wanted: &Platform, available: Vec<String>) -> RegistryError {
        let what = format!("{} of {}", self.what, self.registry.host());
        RegistryError::Platform { what, wanted: text(wanted), available }
    }

    /// Notes what an image consists of, if it is one.
    fn image(&mut self, manifest: &Manifest, attests: bool) -> Result<(), RegistryError> {
        let refuse = |found: &str, wanted| RegistryError::MediaType {
            host: self.registry.host().to_owned(),
            what: self.what.clone(),
            found: clean(found, 100),
            wanted,
        };
        let config = manifest.config.media_type.as_str();
        if !matches!(config, media::CONFIG | media::DOCKER_CONFIG) {
            return Err(refuse(config, "the configuration of an image"));
        }
        if manifest.config.size > MAX_CONFIG {
            let (host, what) = (self.registry.host().to_owned(), self.what.clone());
            return Err(RegistryError::TooLarge { host, what, limit: MAX_CONFIG });
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(self.protocol("it has more than 512 layers"));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type) && !attests) {
            return Err(refuse(&layer.media_type, "a layer that igloo reads"));
        }
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            match self.blobs.get(&blob.digest) {
                Some(other) if other.size != blob.size => {
                    return Err(self.protocol("it gives one blob two sizes"));
                }
                _ => self.blobs.insert(blob.digest, blob.clone()),
            };
        }
        Ok(())
    }

    /// Whether an image that came without index is for a platform, before its layers come.
    fn check_platform(
        &mut self,
        wanted: &Platform,
        sink: &dyn BlobSink,
        pulled: &mut Pulled,
    ) -> Result<(), RegistryError> {
        let Some(Document::Image(manifest)) = self.documents.last().map(|d| &d.document) else { return Ok(()) };
        let config = manifest.config.clone();
        if sink.has(&config).map_err(|source| RegistryError::sink(&config, source))? {
            // Whoever has it can look into it.
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.registry.blob(self.name, &config, &mut bytes)?;
        let what = named(self.name, &config.digest.to_string());
        let found: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Document {
            host: self.registry.host().to_owned(),
            what,
            source,
        })?;
        let found = Platform { architecture: found.architecture, os: found.os, variant: found.variant };
        if (&found.os, &found.architecture) != (&wanted.os, &wanted.architecture) {
            return Err(self.no_platform(wanted, vec![text(&found)]));
        }
        let store = || {
            let mut writer = sink.writer(&config)?;
            writer.write_all(&bytes)?;
            writer.finish()
        };
        store().map_err(|source| RegistryError::sink(&config, source))?;
        self.blobs.remove(&config.digest);
        pulled.fetched += 1;
        pulled.bytes += config.size;
        Ok(())
    }

    /// Fetches the blobs that the sink does not have, large ones first.
    fn blobs(&self, sink: &dyn BlobSink, reporter: &dyn Reporter, pulled: &mut Pulled) -> Result<(), RegistryError> {
        let mut missing = Vec::new();
        for descriptor in self.blobs.values() {
            match sink.has(descriptor).map_err(|source| RegistryError::sink(descriptor, source))? {
                true => pulled.skipped += 1,
                false => missing.push(descriptor),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_by_key(|descriptor| (std::cmp::Reverse(descriptor.size), descriptor.digest));
        // Sizes are the registry's word, so that their sum may be anything.
        let total = missing.iter().fold(0u64, |sum, d| sum.saturating_add(d.size));
        let task = Task::start(reporter, format!("pull {} blobs", missing.len()), Some(total), Unit::Bytes);
        let failed = AtomicBool::new(false);
        let results = parallel(&missing, FETCHES, |descriptor| {
            if failed.load(Ordering::Relaxed) {
                return Ok(0);
            }
            let result = self.blob(descriptor, sink, &task);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            result
        });
        for bytes in results {
            pulled.bytes += bytes?;
            pulled.fetched += 1;
        }
        Ok(())
    }

    fn blob(&self, descriptor: &Descriptor, sink: &dyn BlobSink, task: &Task<'_>) -> Result<u64, RegistryError> {
        let stored = |source| RegistryError::sink(descriptor, source);
        let mut writer = sink.writer(descriptor).map_err(stored)?;
        let mut through: &mut dyn BlobWriter = &mut *writer;
        self.registry.blob_with(self.name, descriptor, &mut through, &|count| task.advance(count))?;
        writer.finish().map_err(stored)?;
        Ok(descriptor.size)
    }
}

/// Whether an entry of an index is something about an image, as builders attach it: for no platform at all.
fn attests(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// The variant, or the one that is meant without.
fn usual(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("arm64", None) => "v8",
        ("arm", None) => "v7",
        ("amd64", None) => "v1",
        (_, variant) => variant.unwrap_or_default(),
    }
}

fn text(platform: &Platform) -> String {
    let variant = platform.variant.as_ref().map(|v| format!("/{v}")).unwrap_or_default();
    clean(&format!("{}/{}{variant}", platform.os, platform.architecture), 60)
}
