//! Content by digest on this machine, and what is remembered of it. The one owner of `cache/oci`:
//!
//! ```text
//! cache/oci/blobs/sha256/<hex>   layers, configurations, manifests; an OCI layout's `blobs`
//! cache/oci/layers/<key>         JSON: the digests of the layer that a key names, so that none is made twice
//! cache/oci/images/<key>         JSON: the image that a key names, so that an unchanged one costs one look
//! cache/oci/trees/               unpacked images, see [`crate::unpack`]
//! cache/oci/.lock                held by whoever uses any of it; `gc` wants it alone
//! ```
//!
//! All of it may be lost: it is made again, with the same digests. A blob appears under its name when it is whole and
//! on disk; a record that can't be read is as good as none.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use igloo_base::file::{create_dirs, read_optional};
use igloo_base::{At as _, Sha256};
use igloo_formats::oci::{Descriptor, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ImageError;

/// The directory of content.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

/// A blob under way; dropped, it is gone.
#[derive(Debug)]
pub struct PartialBlob(tempfile::NamedTempFile);

impl PartialBlob {
    /// Where its bytes go.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Uses are noted once a day: who collects asks for weeks.
const NOTED: Duration = Duration::from_secs(24 * 3600);

/// A use that can't be noted costs making or fetching it once more.
fn note_use(path: &Path, meta: &fs::Metadata) {
    let age = meta.modified().ok().and_then(|used| SystemTime::now().duration_since(used).ok());
    if age.is_some_and(|age| age > NOTED) {
        drop(File::open(path).and_then(|file| file.set_modified(SystemTime::now())));
    }
}

impl Blobs {
    /// Content below `root`, which is made when something is written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that an OCI layout calls `blobs/sha256`.
    pub fn directory(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where the content of a digest is, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory().join(digest.0.to_string())
    }

    /// Whether content is there, as long as it should be. Counts as a use.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        let path = self.path(digest);
        let found = fs::metadata(&path).ok().filter(|m| m.is_file() && m.len() == size);
        if let Some(meta) = &found {
            note_use(&path, meta);
        }
        found.is_some()
    }

    /// Whole content of a small blob.
    pub fn read(&self, digest: &Digest, most: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > most => {
                Err(io::Error::from(io::ErrorKind::FileTooLarge)).at("read", &path).map_err(ImageError::from)
            }
            Ok(_) => Ok(read_optional(&path)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("read", &path).map_err(ImageError::from),
        }
    }

    /// Keeps a document; one that is there stays as it is.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, ImageError> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.has(&descriptor.digest, descriptor.size) {
            let mut partial = self.begin()?;
            let path = partial.path().to_owned();
            partial.file().write_all(bytes).at("write", &path)?;
            self.keep(partial, &descriptor.digest)?;
        }
        Ok(descriptor)
    }

    /// A new blob in the making.
    pub fn begin(&self) -> Result<PartialBlob, ImageError> {
        let directory = self.directory();
        let make = || {
            tempfile::Builder::new()
                .prefix(".igloo-")
                .permissions(fs::Permissions::from_mode(0o644))
                .tempfile_in(&directory)
        };
        let made = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create_dirs(&directory)?;
                make()
            }
            other => other,
        };
        Ok(PartialBlob(made.at("create a file in", &directory)?))
    }

    /// Gives a whole blob its name. The caller has computed the digest of what it wrote.
    pub fn keep(&self, partial: PartialBlob, digest: &Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        partial.0.as_file().sync_data().at("write", &path)?;
        partial.0.persist(&path).map_err(|e| e.error).at("create", &path)?;
        Ok(())
    }

    /// What is remembered of a key; a record that can't be read is none.
    pub(crate) fn recall<T: DeserializeOwned>(&self, kind: &str, key: &Sha256) -> Result<Option<T>, ImageError> {
        let bytes = read_optional(self.root.join(kind).join(key.to_string()))?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    /// Remembers something of a key. Not waited for until it is on disk: a record that a crash damaged is none.
    pub(crate) fn remember<T: Serialize>(&self, kind: &str, key: &Sha256, value: &T) -> Result<(), ImageError> {
        let directory = self.root.join(kind);
        create_dirs(&directory)?;
        let path = directory.join(key.to_string());
        let bytes = serde_json::to_vec(value).map_err(|source| ImageError::Record { path: path.clone(), source })?;
        let mut file = tempfile::NamedTempFile::new_in(&directory).at("write", &path)?;
        file.write_all(&bytes).at("write", &path)?;
        file.persist(&path).map_err(|e| e.error).at("create", &path)?;
        Ok(())
    }
}
