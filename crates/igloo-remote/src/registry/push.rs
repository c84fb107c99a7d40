//! Images on their way there: what the registry lacks, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use igloo_base::{Reporter, Task, Unit};
use igloo_formats::oci::{Descriptor, Digest, Document};

use super::Registry;
use super::auth::Scope;
use super::error::RegistryError;
use super::read::{Fetched, repository};
use super::upload::Sent;
use crate::apt::parallel;

/// How many blobs are sent at a time: more do not fill a line better, and registries count.
const UPLOADS: usize = 4;
/// How many images of an index are looked into to see what a repository has.
const MAX_CHILDREN: usize = 8;

/// Gives a blob's bytes from an offset, as often as it is asked.
#[derive(Clone)]
pub struct BlobSource(Arc<dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync>);

impl BlobSource {
    /// Whatever opens the blob at an offset.
    pub fn new(open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// A file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self::new(move |offset| {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file))
        })
    }

    /// Bytes in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self::new(move |offset| {
            let mut cursor = Cursor::new(Arc::clone(&bytes));
            cursor.set_position(offset);
            Ok(Box::new(cursor))
        })
    }

    /// Opens it.
    pub fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        (self.0)(offset)
    }
}

impl std::fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobSource")
    }
}

/// An image to push.
#[derive(Debug, Clone)]
pub struct PushImage {
    /// Configurations and layers of all platforms. One that stands there twice is sent once.
    pub blobs: Vec<(Descriptor, BlobSource)>,
    /// The manifests of an index, children first; none for an image of one platform.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
    /// What the tags name: the index, or the one manifest.
    pub top: (Descriptor, Vec<u8>),
    /// Other repositories of the registry that may have some of the blobs.
    pub mount_from: Vec<String>,
}

/// What a push did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes of blobs and manifests that were sent.
    pub bytes: u64,
    /// Blobs that were sent.
    pub uploaded: usize,
    /// Blobs that the registry had in another repository.
    pub mounted: usize,
    /// Blobs that were there.
    pub skipped: usize,
    /// Manifests that were sent, for each tag once.
    pub manifests: usize,
}

impl Pushed {
    /// Whether all was there, tags included.
    pub fn is_unchanged(&self) -> bool {
        self.uploaded + self.mounted + self.manifests == 0
    }
}

/// Brings an image into a repository below `tags`; below its digest alone if there are none. Tags are moved last, so
/// that whoever pulls meanwhile gets the old image or the new one.
///
/// The registry is asked for what the first tag names now: all that belongs to that is there and not asked for again.
pub fn push(
    registry: &Registry,
    name: &str,
    tags: &[String],
    image: &PushImage,
    reporter: &dyn Reporter,
) -> Result<Pushed, RegistryError> {
    let scope = Scope::push(repository(name)?, &image.mount_from);
    let push = Push { registry, name, image, reporter, scope, bytes: AtomicU64::new(0) };
    push.run(tags)
}

struct Push<'a> {
    registry: &'a Registry,
    name: &'a str,
    image: &'a PushImage,
    reporter: &'a dyn Reporter,
    scope: Scope,
    bytes: AtomicU64,
}

/// What is known to be in the repository.
#[derive(Default)]
struct Known {
    blobs: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
}

impl Known {
    fn add(&mut self, fetched: &Fetched) {
        self.manifests.insert(fetched.descriptor.digest);
        if let Document::Image(manifest) = &fetched.document {
            self.blobs.insert(manifest.config.digest);
            self.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
    }
}

/// What a tag names now.
enum Now {
    /// Our image.
    Ours,
    /// Something else, or nothing; the former if it was fetched and understood.
    Other(Option<Box<Fetched>>),
}

impl Push<'_> {
    fn run(&self, tags: &[String]) -> Result<Pushed, RegistryError> {
        let top = self.image.top.0.digest;
        let mut pushed = Pushed::default();
        let blobs = self.blobs();
        let by_digest = [top.to_string()];
        let selectors = if tags.is_empty() { &by_digest[..] } else { tags };
        let order: Vec<(usize, &String)> = selectors.iter().enumerate().collect();
        // The first one tells what the repository has; of the others only whether they are ours is of interest.
        let now = parallel(&order, UPLOADS, |(at, tag)| self.now(tag, *at == 0 && !tags.is_empty()));
        let now = now.into_iter().collect::<Result<Vec<_>, _>>()?;
        let stale: Vec<&String> =
            selectors.iter().zip(&now).filter(|(_, now)| !matches!(now, Now::Ours)).map(|(tag, _)| tag).collect();
        if stale.is_empty() {
            pushed.skipped = blobs.len();
            return Ok(pushed);
        }
        let is_there = now.iter().any(|now| matches!(now, Now::Ours));
        let mut known = Known::default();
        if let Some(Now::Other(Some(old))) = now.first() {
            known.add(old);
            self.children(old, &mut known)?;
        }
        let complete = is_there || self.send(&blobs, &known, !tags.is_empty(), &mut pushed)?;
        if complete {
            pushed.skipped = blobs.len();
        }
        match self.tag(&stale, &known, complete, &mut pushed) {
            // What belonged to the old image was not there after all: a collector of garbage was faster, say.
            Err(error) if is_lacking(&error) => {
                pushed = Pushed::default();
                self.send(&blobs, &Known::default(), false, &mut pushed)?;
                self.tag(&stale, &Known::default(), false, &mut pushed)?;
            }
            other => other?,
        }
        pushed.bytes = self.bytes.load(Ordering::Relaxed);
        Ok(pushed)
    }

    /// Each blob once.
    fn blobs(&self) -> BTreeMap<Digest, &(Descriptor, BlobSource)> {
        self.image.blobs.iter().map(|blob| (blob.0.digest, blob)).collect()
    }

    fn now(&self, tag: &str, fetch: bool) -> Result<Now, RegistryError> {
        let ours = self.image.top.0.digest;
        if !fetch {
            let found = self.registry.head_manifest_in(self.name, tag, &self.scope)?;
            // A digest that is there is the digest that was asked for.
            let is_ours = found.is_some_and(|f| f.digest == Some(ours) || (f.digest.is_none() && tag.contains(':')));
            return Ok(if is_ours { Now::Ours } else { Now::Other(None) });
        }
        match self.registry.fetch(self.name, tag, &self.scope) {
            Ok(fetched) if fetched.descriptor.digest == ours => Ok(Now::Ours),
            Ok(fetched) => Ok(Now::Other(Some(Box::new(fetched)))),
            // What is there now does not matter if it cannot be understood.
            Err(
                RegistryError::NotFound { .. }
                // Some let people push who may not pull.
                | RegistryError::Forbidden { .. }
                | RegistryError::MediaType { .. }
                | RegistryError::Document { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::Digest { .. },
            ) => Ok(Now::Other(None)),
            Err(error) => Err(error),
        }
    }

    /// What the images of an old index consist of.
    fn children(&self, old: &Fetched, known: &mut Known) -> Result<(), RegistryError> {
        let Document::Index(index) = &old.document else { return Ok(()) };
        let children: Vec<&Descriptor> = index.manifests.iter().take(MAX_CHILDREN).collect();
        let fetched = parallel(&children, UPLOADS, |child| {
            self.registry.fetch(self.name, &child.digest.to_string(), &self.scope)
        });
        // One that cannot be had tells nothing.
        fetched.iter().flatten().for_each(|child| known.add(child));
        Ok(())
    }

    /// Sends the blobs that are not there. True if the whole image turned out to be there already.
    fn send(
        &self,
        blobs: &BTreeMap<Digest, &(Descriptor, BlobSource)>,
        known: &Known,
        ask_top: bool,
        pushed: &mut Pushed,
    ) -> Result<bool, RegistryError> {
        let top = self.image.top.0.digest;
        let unknown: Vec<Digest> = blobs.keys().copied().filter(|digest| !known.blobs.contains(digest)).collect();
        // The image itself may be there below another tag, which is asked in the same round.
        let mut asked: Vec<Option<Digest>> = unknown.iter().copied().map(Some).collect();
        if ask_top {
            asked.insert(0, None);
        }
        let threads = self.registry.config().client.connections.clamp(1, 8);
        let found = parallel(&asked, threads, |asked| match asked {
            Some(digest) => self.registry.head_blob_in(self.name, *digest, &self.scope),
            None => self.registry.head_manifest_in(self.name, &top.to_string(), &self.scope),
        });
        let mut missing = Vec::new();
        for (asked, found) in asked.iter().zip(found) {
            match (asked, found?) {
                (None, Some(_)) => return Ok(true),
                (Some(digest), None) => missing.extend(blobs.get(digest).copied()),
                _ => {}
            }
        }
        pushed.skipped = blobs.len() - missing.len();
        missing.sort_by_key(|(descriptor, _)| (std::cmp::Reverse(descriptor.size), descriptor.digest));
        let total: u64 = missing.iter().map(|(descriptor, _)| descriptor.size).sum();
        if missing.is_empty() {
            return Ok(false);
        }
        let task = Task::start(self.reporter, format!("push {} blobs", missing.len()), Some(total), Unit::Bytes);
        let failed = AtomicBool::new(false);
        let results = parallel(&missing, UPLOADS, |(descriptor, source)| {
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let progress = |count| task.advance(count);
            let open = |offset| source.open(offset);
            let from = &self.image.mount_from;
            let sent = self.registry.upload_in(self.name, descriptor, &open, from, &self.scope, &progress);
            failed.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent.map(|sent| Some((sent, descriptor.size)))
        });
        for sent in results {
            match sent? {
                Some((Sent::Uploaded, size)) => {
                    pushed.uploaded += 1;
                    self.bytes.fetch_add(size, Ordering::Relaxed);
                }
                Some((Sent::Mounted, _)) => pushed.mounted += 1,
                None => {}
            }
        }
        Ok(false)
    }

    /// Sends the manifests, children first, tags last.
    fn tag(
        &self,
        selectors: &[&String],
        known: &Known,
        complete: bool,
        pushed: &mut Pushed,
    ) -> Result<(), RegistryError> {
        let (top, bytes) = &self.image.top;
        let children = self.image.manifests.iter().filter(|(child, _)| child.digest != top.digest && !complete);
        for (child, bytes) in children.filter(|(child, _)| !known.manifests.contains(&child.digest)) {
            self.put(&child.digest.to_string(), child, bytes)?;
            pushed.manifests += 1;
        }
        // The first one alone, since it brings the manifest itself.
        let Some((first, others)) = selectors.split_first() else { return Ok(()) };
        self.put(first, top, bytes)?;
        parallel(others, UPLOADS, |tag| self.put(tag, top, bytes)).into_iter().collect::<Result<(), _>>()?;
        pushed.manifests += selectors.len();
        Ok(())
    }

    fn put(&self, select: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), RegistryError> {
        self.registry.put_manifest_in(self.name, select, &descriptor.media_type, bytes, &self.scope)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a registry refuses a manifest because of what belongs to it.
fn is_lacking(error: &RegistryError) -> bool {
    error
        .codes()
        .iter()
        .any(|code| matches!(code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN"))
}
