//! The documents of an image as one value, each checked against the digest that names it.

use std::collections::BTreeSet;

use igloo_formats::oci::{Descriptor, Document, ImageConfig, Index, MAX_CONFIG, MAX_MANIFEST, Manifest, media};

use crate::ImageError;
use crate::content::Content;

/// Most images of one index; the largest known has 20.
const MAX_IMAGES: usize = 256;
/// Most layers of one image; no runtime mounts more.
const MAX_LAYERS: usize = 1024;

/// One image of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What names it.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// What a name stands for: one image, or several for different systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTree {
    /// What names it.
    pub top: Descriptor,
    /// The index, if there is one.
    pub index: Option<Index>,
    /// In the index's order; what an index has beside images (attestations) is left out.
    pub images: Vec<Image>,
}

impl ImageTree {
    /// Reads the documents below `top`.
    pub fn read(name: &str, content: &dyn Content, top: &Descriptor) -> Result<ImageTree, ImageError> {
        let bytes = small(name, content, top, MAX_MANIFEST)?;
        let bad = |source| ImageError::Document { what: "the index", image: name.to_owned(), source };
        match Document::parse(&top.media_type, &bytes).map_err(bad)? {
            Document::Image(manifest) => {
                let image = image(name, content, top, *manifest)?;
                Ok(ImageTree { top: top.clone(), index: None, images: vec![image] })
            }
            Document::Index(index) => {
                if index.manifests.len() > MAX_IMAGES {
                    let what = format!("an index of {} images is too large", index.manifests.len());
                    return Err(ImageError::Unsupported { image: name.to_owned(), what });
                }
                let mut images = Vec::new();
                for descriptor in &index.manifests {
                    let of_image = descriptor.media_type.is_empty() || media::is_manifest(&descriptor.media_type);
                    let unknown = descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown");
                    if !of_image || unknown {
                        continue;
                    }
                    let bytes = small(name, content, descriptor, MAX_MANIFEST)?;
                    let bad = |source| ImageError::Document { what: "the manifest", image: name.to_owned(), source };
                    match Document::parse(&descriptor.media_type, &bytes).map_err(bad)? {
                        Document::Image(manifest) if manifest.artifact_type.is_none() => {
                            images.push(image(name, content, descriptor, *manifest)?);
                        }
                        _ => {}
                    }
                }
                Ok(ImageTree { top: top.clone(), index: Some(*index), images })
            }
        }
    }

    /// The image for a system, by Go's names.
    pub fn for_platform(&self, name: &str, architecture: &str) -> Result<&Image, ImageError> {
        let fits = |i: &&Image| i.config.os == "linux" && i.config.architecture == architecture;
        self.images.iter().find(fits).ok_or_else(|| ImageError::NoPlatform {
            image: name.to_owned(),
            wanted: format!("linux/{architecture}"),
            found: self.images.iter().map(|i| format!("{}/{}", i.config.os, i.config.architecture)).collect(),
        })
    }

    /// Everything it consists of, each once: layers and configurations, then manifests, the index last.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = BTreeSet::new();
        let layers = self.images.iter().flat_map(|i| i.manifest.layers.iter().chain([&i.manifest.config]));
        let manifests = self.images.iter().map(|i| &i.descriptor);
        let all = layers.chain(manifests).chain(self.index.is_some().then_some(&self.top));
        all.filter(|d| seen.insert(d.digest)).cloned().collect()
    }
}

fn image(name: &str, content: &dyn Content, descriptor: &Descriptor, manifest: Manifest) -> Result<Image, ImageError> {
    let unsupported = |what: String| Err(ImageError::Unsupported { image: name.to_owned(), what });
    if manifest.layers.len() > MAX_LAYERS {
        return unsupported(format!("an image of {} layers is too large", manifest.layers.len()));
    }
    if !matches!(manifest.config.media_type.as_str(), media::CONFIG | media::DOCKER_CONFIG) {
        return unsupported(format!("it is no image but `{}`", manifest.config.media_type));
    }
    let bytes = small(name, content, &manifest.config, MAX_CONFIG)?;
    let bad = |source| ImageError::Document { what: "the configuration", image: name.to_owned(), source };
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(bad)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return unsupported(format!(
            "its manifest has {} layers and its configuration {}",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        ));
    }
    Ok(Image { descriptor: descriptor.clone(), manifest, config })
}

/// A document, with the length and digest that were promised.
fn small(name: &str, content: &dyn Content, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>, ImageError> {
    let Descriptor { digest, size, .. } = descriptor;
    if *size > most {
        let what = format!("{digest} is too large for a document, {size} bytes");
        return Err(ImageError::Unsupported { image: name.to_owned(), what });
    }
    let bytes = content.small(digest, most)?;
    let bytes = bytes.ok_or(ImageError::MissingBlob { image: name.to_owned(), digest: *digest })?;
    if igloo_formats::oci::Digest::of(&bytes) != *digest {
        return Err(ImageError::WrongDigest { image: name.to_owned(), digest: *digest });
    }
    Ok(bytes)
}
