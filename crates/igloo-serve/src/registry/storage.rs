//! What was pushed, on disk. The one owner of `data/registry`, version 1:
//!
//! ```text
//! data/registry/blobs/sha256/<hex>                      content, each once; verified before it gets its name
//! data/registry/repositories/<name>/_blobs/<hex>        empty: the repository has this blob
//! data/registry/repositories/<name>/_manifests/<hex>    the media type: the repository has this manifest
//! data/registry/repositories/<name>/_tags/<tag>         the digest that a tag names
//! data/registry/repositories/<name>/_referrers/<hex>/<hex>   empty: the second manifest says something about the first
//! data/registry/uploads/<id>-<repository>               content under way
//! data/registry/gc.lock, serve.lock                     who collects garbage, who serves
//! ```
//!
//! Components of names never begin with `_`, so that a repository `a/tags` does not lie among the tags of `a`. Every
//! file appears whole, content before what names it: a process may be killed between any two system calls.
//! Who makes names for content holds `gc.lock` shared; who deletes content holds it alone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use igloo_base::At as _;
use igloo_base::file::{FileLock, create_dirs, read_optional, write_atomic};
use igloo_formats::oci::{Descriptor, Digest, MAX_MANIFEST};

use super::document::{Referrer, Stored};
use super::name::Repository;
use crate::error::ServeError;

/// Content whose age is above this when it is asked for is made young again, so that it stays until the one who asked
/// has made a name for it.
const YOUNG: Duration = Duration::from_secs(60);

/// The directory of what was pushed.
#[derive(Debug, Clone)]
pub struct Storage {
    root: PathBuf,
}

/// A manifest as it is stored.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// Why a manifest is not taken.
#[derive(Debug)]
pub(crate) enum Lacking {
    /// A blob is not there.
    Blob(Digest),
    /// A manifest of an index is not there.
    Manifest(Digest),
    /// Something is there with another length.
    Size(Digest),
}

impl Storage {
    /// The storage at `root`, whose directories are made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ServeError> {
        let storage = Self { root: root.into() };
        for directory in ["blobs/sha256", "repositories", "uploads"] {
            create_dirs(storage.root.join(directory))?;
        }
        Ok(storage)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.0.to_string())
    }

    pub(crate) fn repository(&self, name: &Repository) -> PathBuf {
        self.repositories().join(name.path())
    }

    pub(crate) fn link(&self, name: &Repository, kind: &str, digest: &Digest) -> PathBuf {
        self.repository(name).join(kind).join(digest.0.to_string())
    }

    /// Held by the one server of this directory.
    pub(crate) fn serving(&self) -> Result<FileLock, ServeError> {
        FileLock::try_exclusive(self.root.join("serve.lock"))?
            .ok_or_else(|| ServeError::InUse { path: self.root.clone() })
    }

    /// Held while names are made for content.
    pub(crate) fn naming(&self) -> Result<FileLock, ServeError> {
        Ok(FileLock::shared(self.root.join("gc.lock"))?)
    }

    /// Held while content is deleted.
    pub(crate) fn deleting(&self) -> Result<FileLock, ServeError> {
        Ok(FileLock::exclusive(self.root.join("gc.lock"))?)
    }

    /// A blob of a repository.
    pub(crate) fn blob(&self, name: &Repository, digest: &Digest) -> Result<Option<(File, u64)>, ServeError> {
        let link = self.link(name, "_blobs", digest);
        let Some(age) = age(&link)? else { return Ok(None) };
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("open", &path)?,
        };
        let meta = file.metadata().at("look at", &path)?;
        if age > YOUNG {
            // Not there any more means collected just now: then it is not there.
            if !(touch(&path)? && touch(&link)?) {
                return Ok(None);
            }
        }
        Ok(Some((file, meta.len())))
    }

    /// How long a blob of a repository is.
    pub(crate) fn blob_size(&self, name: &Repository, digest: &Digest) -> Result<Option<u64>, ServeError> {
        Ok(self.blob(name, digest)?.map(|(_, size)| size))
    }

    /// Gives verified content its name and a place in a repository. `temporary` is in `uploads`, whole and on disk.
    pub(crate) fn keep(&self, name: &Repository, digest: &Digest, temporary: &Path) -> Result<(), ServeError> {
        let _lock = self.naming()?;
        let path = self.blob_path(digest);
        fs::rename(temporary, &path).at("create", &path)?;
        sync(&self.blobs())?;
        self.place(name, "_blobs", digest, b"")
    }

    /// Gives a repository a blob that another one has; false if that hasn't.
    pub(crate) fn mount(&self, from: &Repository, to: &Repository, digest: &Digest) -> Result<bool, ServeError> {
        let _lock = self.naming()?;
        if self.blob(from, digest)?.is_none() {
            return Ok(false);
        }
        self.place(to, "_blobs", digest, b"")?;
        Ok(true)
    }

    /// Makes a link, on disk when this returns.
    fn place(&self, name: &Repository, kind: &str, digest: &Digest, content: &[u8]) -> Result<(), ServeError> {
        let directory = self.repository(name).join(kind);
        self.directory(&directory)?;
        let path = directory.join(digest.0.to_string());
        if !content.is_empty() {
            return Ok(write_atomic(&path, content)?);
        }
        File::create(&path).at("create", &path)?;
        touch(&path)?;
        sync(&directory)
    }

    /// A directory below the repositories, each new one on disk before what is put into it.
    fn directory(&self, path: &Path) -> Result<(), ServeError> {
        if path.is_dir() {
            return Ok(());
        }
        create_dirs(path)?;
        let repositories = self.repositories();
        for above in path.ancestors().skip(1).take_while(|p| p.starts_with(&repositories)) {
            sync(above)?;
        }
        Ok(())
    }

    /// Whether anything was pushed by this name.
    pub(crate) fn exists(&self, name: &Repository) -> Result<bool, ServeError> {
        Ok(!self.names(&self.repository(name).join("_manifests"))?.is_empty())
    }

    /// What a tag names.
    pub(crate) fn tag(&self, name: &Repository, tag: &str) -> Result<Option<Digest>, ServeError> {
        let bytes = read_optional(self.repository(name).join("_tags").join(tag))?;
        Ok(bytes.and_then(|b| String::from_utf8(b).ok()?.trim().parse().ok()))
    }

    /// A manifest of a repository.
    pub(crate) fn manifest(&self, name: &Repository, digest: &Digest) -> Result<Option<ManifestFile>, ServeError> {
        let Some(kind) = read_optional(self.link(name, "_manifests", digest))? else { return Ok(None) };
        let path = self.blob_path(digest);
        let Some(bytes) = read_at_most(&path, MAX_MANIFEST)? else { return Ok(None) };
        Ok(Some(ManifestFile { digest: *digest, media_type: String::from_utf8_lossy(&kind).into_owned(), bytes }))
    }

    /// Stores a manifest, if all that it needs is there, and moves a tag to it.
    pub(crate) fn put_manifest(
        &self,
        name: &Repository,
        tag: Option<&str>,
        stored: &Stored,
        bytes: &[u8],
    ) -> Result<Result<Digest, Lacking>, ServeError> {
        let digest = Digest::of(bytes);
        let _lock = self.naming()?;
        if let Some(lacking) = self.lacking(name, stored)? {
            return Ok(Err(lacking));
        }
        write_atomic(self.blob_path(&digest), bytes)?;
        if let Some(subject) = &stored.subject {
            let kind = format!("_referrers/{}", subject.0);
            self.place(name, &kind, &digest, b"")?;
        }
        self.place(name, "_manifests", &digest, stored.media_type.as_bytes())?;
        if let Some(tag) = tag {
            let directory = self.repository(name).join("_tags");
            self.directory(&directory)?;
            write_atomic(directory.join(tag), digest.to_string().as_bytes())?;
        }
        Ok(Ok(digest))
    }

    fn lacking(&self, name: &Repository, stored: &Stored) -> Result<Option<Lacking>, ServeError> {
        for Descriptor { digest, size, .. } in &stored.blobs {
            match self.blob_size(name, digest)? {
                None => return Ok(Some(Lacking::Blob(*digest))),
                Some(found) if found != *size => return Ok(Some(Lacking::Size(*digest))),
                Some(_) => {}
            }
        }
        for Descriptor { digest, size, .. } in &stored.manifests {
            match self.manifest(name, digest)? {
                None => return Ok(Some(Lacking::Manifest(*digest))),
                Some(found) if found.bytes.len() as u64 != *size => return Ok(Some(Lacking::Size(*digest))),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// Tags, in the specification's order: alphabetical, small and capital letters together.
    pub(crate) fn tags(&self, name: &Repository) -> Result<Vec<String>, ServeError> {
        let mut tags = self.names(&self.repository(name).join("_tags"))?;
        tags.sort_by_cached_key(|tag| order(tag));
        Ok(tags)
    }

    /// Digests of the manifests of a repository.
    pub(crate) fn manifests(&self, name: &Repository) -> Result<Vec<Digest>, ServeError> {
        self.digests(&self.repository(name).join("_manifests"))
    }

    /// Digests that a directory of links names, in their order.
    pub(crate) fn digests(&self, directory: &Path) -> Result<Vec<Digest>, ServeError> {
        let names = self.names(directory)?;
        let mut digests: Vec<Digest> = names.iter().filter_map(|n| n.parse().ok().map(Digest)).collect();
        digests.sort();
        Ok(digests)
    }

    /// Names in a directory, without what is being written; none if it is not there.
    fn names(&self, directory: &Path) -> Result<Vec<String>, ServeError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(e).at("list", directory)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.at("list", directory)?.file_name();
            names.extend(name.into_string().ok().filter(|n| !n.starts_with('.')));
        }
        Ok(names)
    }

    /// Every repository that has a manifest, a blob or a tag, sorted.
    pub fn all(&self) -> Result<Vec<Repository>, ServeError> {
        let mut found = Vec::new();
        self.walk(&self.repositories(), "", &mut found)?;
        found.sort();
        Ok(found)
    }

    fn walk(&self, directory: &Path, name: &str, found: &mut Vec<Repository>) -> Result<(), ServeError> {
        let mut is_one = false;
        for entry in self.names(directory)? {
            if entry.starts_with('_') {
                is_one = true;
                continue;
            }
            let below = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
            self.walk(&directory.join(&entry), &below, found)?;
        }
        if is_one && let Ok(repository) = name.parse() {
            found.push(repository);
        }
        Ok(())
    }

    /// Manifests that say something about another one.
    pub(crate) fn referrers(&self, name: &Repository, subject: &Digest) -> Result<Vec<Referrer>, ServeError> {
        let directory = self.repository(name).join("_referrers").join(subject.0.to_string());
        let mut referrers = Vec::new();
        for digest in self.digests(&directory)? {
            let Some(file) = self.manifest(name, &digest)? else { continue };
            let Ok(stored) = Stored::parse(&file.media_type, &file.bytes) else { continue };
            referrers.push(Referrer {
                media_type: stored.media_type,
                digest,
                size: file.bytes.len() as u64,
                artifact_type: stored.artifact_type,
                annotations: stored.annotations,
            });
        }
        Ok(referrers)
    }

    /// Deletes a tag; false if there is none.
    pub(crate) fn delete_tag(&self, name: &Repository, tag: &str) -> Result<bool, ServeError> {
        remove(&self.repository(name).join("_tags").join(tag))
    }

    /// Deletes a manifest with all tags that name it; false if there is none. Its content goes with the next garbage.
    pub(crate) fn delete_manifest(&self, name: &Repository, digest: &Digest) -> Result<bool, ServeError> {
        let _lock = self.deleting()?;
        self.unlink_manifest(name, digest)
    }

    /// [`Storage::delete_manifest`] for one who holds the lock.
    pub(crate) fn unlink_manifest(&self, name: &Repository, digest: &Digest) -> Result<bool, ServeError> {
        let Some(file) = self.manifest(name, digest)? else {
            return remove(&self.link(name, "_manifests", digest));
        };
        for tag in self.tags(name)? {
            if self.tag(name, &tag)? == Some(*digest) {
                self.delete_tag(name, &tag)?;
            }
        }
        let subject = Stored::parse(&file.media_type, &file.bytes).ok().and_then(|s| s.subject);
        if let Some(subject) = subject {
            remove(&self.link(name, &format!("_referrers/{}", subject.0), digest))?;
        }
        remove(&self.link(name, "_manifests", digest))
    }

    /// Takes a blob out of a repository. `Err` names a manifest that needs it; `Ok(false)`: it is not there.
    pub(crate) fn delete_blob(&self, name: &Repository, digest: &Digest) -> Result<Result<bool, Digest>, ServeError> {
        let _lock = self.deleting()?;
        for manifest in self.manifests(name)? {
            let Some(file) = self.manifest(name, &manifest)? else { continue };
            let Ok(stored) = Stored::parse(&file.media_type, &file.bytes) else { continue };
            if stored.blobs.iter().any(|b| b.digest == *digest) {
                return Ok(Err(manifest));
            }
        }
        Ok(Ok(remove(&self.link(name, "_blobs", digest))?))
    }

    /// Bytes on disk, of content and of uploads under way.
    pub(crate) fn size(&self) -> Result<u64, ServeError> {
        let mut bytes = 0;
        for directory in [self.blobs(), self.uploads()] {
            for entry in fs::read_dir(&directory).at("list", &directory)?.flatten() {
                bytes += entry.metadata().map_or(0, |m| m.blocks() * 512);
            }
        }
        Ok(bytes)
    }
}

/// By what tags and repositories are ordered.
pub(crate) fn order(name: &str) -> (String, String) {
    (name.to_ascii_lowercase(), name.to_owned())
}

/// Whole content of a file, or an error if it is longer than it may be.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Option<Vec<u8>>, ServeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("open", path)?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).at("read", path)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::from(io::ErrorKind::FileTooLarge)).at("read", path)?,
        false => Ok(Some(bytes)),
    }
}

/// How long ago a file was last touched; `None` if it is not there.
pub(crate) fn age(path: &Path) -> Result<Option<Duration>, ServeError> {
    match fs::symlink_metadata(path).and_then(|m| m.modified()) {
        Ok(modified) => Ok(Some(SystemTime::now().duration_since(modified).unwrap_or_default())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("look at", path)?,
    }
}

/// Makes a file young; false if it is not there.
fn touch(path: &Path) -> Result<bool, ServeError> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    match rustix::fs::utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(e).at("touch", path)?,
    }
}

/// Removes a file; false if it is not there.
pub(crate) fn remove(path: &Path) -> Result<bool, ServeError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(e).at("remove", path)?,
    }
}

/// Brings a directory's names on disk.
fn sync(directory: &Path) -> Result<(), ServeError> {
    Ok(File::open(directory).and_then(|d| d.sync_all()).at("sync the directory", directory)?)
}
