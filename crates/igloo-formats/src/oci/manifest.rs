//! Image manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Descriptor, media};

/// An image manifest: one configuration, ordered layers (lowest first).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What it says something about: a signature, a bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI image manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An index: one image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images, each with its platform.
    pub manifests: Vec<Descriptor>,
    /// What it says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// What a registry answers when it is asked for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Box<Manifest>),
    /// Several.
    Index(Box<Index>),
}

impl Document {
    /// Reads a document of which the media type is known or, where it is empty, said by the document itself.
    /// A media type inside that contradicts the one outside is refused, as the specification wants.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, serde_json::Error> {
        use serde::de::Error as _;

        /// Enough of a document to know what it is.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Peek {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let peek: Peek = serde_json::from_slice(bytes)?;
        if peek.manifests.is_some() && peek.layers.is_some() {
            return Err(serde_json::Error::custom("the document is an index and a manifest at once"));
        }
        let inside = peek.media_type.as_deref().unwrap_or_default();
        if !inside.is_empty() && !media_type.is_empty() && inside != media_type {
            let text = format!("the document calls itself `{inside}` and was served as `{media_type}`");
            return Err(serde_json::Error::custom(text));
        }
        let named = if media_type.is_empty() { inside } else { media_type };
        let index = match named {
            "" => peek.manifests.is_some(),
            name if media::is_index(name) => true,
            name if media::is_manifest(name) => false,
            name => return Err(serde_json::Error::custom(format!("`{name}` is no image manifest"))),
        };
        match index {
            true => serde_json::from_slice(bytes).map(|i| Document::Index(Box::new(i))),
            false => serde_json::from_slice(bytes).map(|m| Document::Image(Box::new(m))),
        }
    }
}
