//! What a storage holds; `igloo registry ls`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::Stored;
use super::storage::Storage;
use crate::error::ServeError;

/// A repository.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Tags and the digests that they name.
    pub tags: BTreeMap<String, String>,
    /// How many manifests it has, indexes included.
    pub manifests: usize,
    /// Bytes of the blobs that they need, each once.
    pub bytes: u64,
}

/// All repositories.
pub fn list(storage: &Storage) -> Result<Vec<Listed>, ServeError> {
    let mut listed = Vec::new();
    for name in storage.all()? {
        let mut tags = BTreeMap::new();
        for tag in storage.tags(&name)? {
            if let Some(digest) = storage.tag(&name, &tag)? {
                tags.insert(tag, digest.to_string());
            }
        }
        let mut blobs = BTreeMap::new();
        let mut manifests = 0;
        for digest in storage.manifests(&name)? {
            let Some(file) = storage.manifest(&name, &digest)? else { continue };
            manifests += 1;
            let stored = Stored::parse(&file.media_type, &file.bytes).map_err(|source| ServeError::BadManifest {
                repository: name.to_string(),
                digest: digest.to_string(),
                source,
            })?;
            blobs.extend(stored.blobs.into_iter().map(|b| (b.digest, b.size)));
        }
        listed.push(Listed { name: name.to_string(), tags, manifests, bytes: blobs.values().sum() });
    }
    Ok(listed)
}
