//! Manifests as a registry sees them: what they need, what they say something about.

use std::collections::BTreeMap;

use igloo_formats::oci::{Descriptor, Digest, Document, media};
use serde::{Deserialize, Serialize};

/// Most blobs or manifests that one manifest names. No runtime takes more layers, no index has more images.
const MAX_PARTS: usize = 4096;

/// What a manifest needs before it can be stored, and what is answered about it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Configuration and layers.
    pub blobs: Vec<Descriptor>,
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// What it says something about.
    pub subject: Option<Digest>,
    /// What it is, for those who look for what refers to an image.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its media type: what it was pushed as.
    pub media_type: String,
}

/// What both kinds of documents have and [`Document`] does not tell of indexes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    artifact_type: Option<String>,
    media_type: Option<String>,
}

impl Stored {
    /// Reads a manifest that is, or is to be, stored. `media_type` is empty where nobody said it.
    pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Stored, serde_json::Error> {
        use serde::de::Error as _;

        let document = Document::parse(media_type, bytes)?;
        let extra: Extra = serde_json::from_slice(bytes)?;
        let named = if media_type.is_empty() { extra.media_type.unwrap_or_default() } else { media_type.to_owned() };
        let stored = match document {
            Document::Image(manifest) => Stored {
                artifact_type: extra.artifact_type.or_else(|| Some(manifest.config.media_type.clone())),
                // What lies elsewhere by its nature is not pushed.
                blobs: manifest
                    .layers
                    .into_iter()
                    .chain([manifest.config])
                    .filter(|d| !is_foreign(&d.media_type) || d.urls.is_empty())
                    .collect(),
                manifests: Vec::new(),
                subject: manifest.subject.map(|s| s.digest),
                annotations: manifest.annotations,
                media_type: if named.is_empty() { media::MANIFEST.to_owned() } else { named },
            },
            Document::Index(index) => Stored {
                artifact_type: extra.artifact_type,
                blobs: Vec::new(),
                manifests: index.manifests,
                subject: index.subject.map(|s| s.digest),
                annotations: index.annotations,
                media_type: if named.is_empty() { media::INDEX.to_owned() } else { named },
            },
        };
        match stored.blobs.len() + stored.manifests.len() > MAX_PARTS {
            true => Err(serde_json::Error::custom(format!("it names more than {MAX_PARTS} parts"))),
            false => Ok(stored),
        }
    }
}

fn is_foreign(media_type: &str) -> bool {
    media_type.contains("nondistributable") || media_type.contains(".foreign.")
}

/// An entry of the answer to "what refers to this image".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
