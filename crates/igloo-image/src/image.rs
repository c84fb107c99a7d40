//! Images: their layers put together, configured and named by digest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use igloo_base::{Reporter, Sha256, System};
use igloo_env::Environment;
use igloo_formats::nix::StorePath;
use igloo_formats::oci::{Config, Descriptor, History, ImageConfig, Index, Manifest, Platform, RootFs, media};
use serde::{Deserialize, Serialize};

use crate::blobs::Blobs;
use crate::layer::{self, Compression, Layer, LayerSpec};
use crate::package::Package;
use crate::plan::PlannedLayer;
use crate::top::Additions;
use crate::{ImageError, LAYERS, copies, package, top};

/// Annotation of a layer: its name in the plan.
pub const LAYER_NAME: &str = "igloo.layer";
/// Annotation of a layer: its packages, `name=version`, in one line.
pub const LAYER_PACKAGES: &str = "igloo.packages";

/// An image of one system, before it is made.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// For messages: `web (amd64)`.
    pub name: String,
    /// What it runs on.
    pub system: System,
    /// What is in it.
    pub environment: Environment,
    /// The environment's packages, sorted by name.
    pub packages: Vec<Package>,
    /// Bytes of each package when unpacked, about.
    pub weights: Vec<u64>,
    /// Which package lies in which layer, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// The links to Nix's packages, an object with `data/`.
    pub profile: Option<(StorePath, PathBuf)>,
    /// The project's own code: store objects and their `data/`.
    pub copies: Vec<(StorePath, PathBuf)>,
    /// What is added to the environment.
    pub additions: Additions,
    /// How it is run.
    pub config: Config,
    /// When what is in it was published, RFC 3339: of the lock, never of the clock.
    pub created: Option<String>,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// Its name in the plan; `igloo` for the generated one, `code` for the project's own.
    pub name: String,
    /// Its packages, `name=version`.
    pub packages: Vec<String>,
    /// Its digests.
    #[serde(flatten)]
    pub layer: Layer,
}

/// An image of one system that is made: everything of it is among the [`Blobs`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// The manifest, with its platform.
    pub manifest: Descriptor,
    /// The configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<ImageLayer>,
}

impl BuiltImage {
    /// Everything it consists of, the manifest last.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let layers = self.layers.iter().map(|l| l.layer.blob.clone());
        layers.chain([self.config.clone(), self.manifest.clone()]).collect()
    }
}

impl ImageSpec {
    /// Names everything that the image's bytes depend on.
    fn key(&self, compression: Compression) -> Sha256 {
        use std::fmt::Write as _;
        let mut text = format!("image {LAYERS} {} {} {}\n", compression.key(), self.system, self.environment.path);
        for planned in &self.layers {
            let _ = write!(text, "layer {}", planned.name);
            for index in &planned.packages {
                let _ = write!(text, " {}", self.packages[*index].path);
            }
            text.push('\n');
        }
        if let Some((profile, _)) = &self.profile {
            let _ = writeln!(text, "profile {profile}");
        }
        for (path, _) in &self.copies {
            let _ = writeln!(text, "copy {path}");
        }
        let config = serde_json::to_string(&self.config).unwrap_or_default();
        let _ = writeln!(text, "{}\n{config}\n{:?}\n{:?}", self.additions.key(), self.created, self.annotations);
        Sha256::of(text.as_bytes())
    }

    /// Its layers, lowest first: packages by plan, what igloo generated, the project's own code.
    fn specs(&self) -> Vec<LayerSpec<'_>> {
        let of_packages = self.layers.iter().map(|planned| {
            let packages: Vec<Package> = planned.packages.iter().map(|i| self.packages[*i].clone()).collect();
            let mut paths: Vec<String> = packages.iter().map(|p| p.path.to_string()).collect();
            paths.sort();
            LayerSpec {
                name: planned.name.clone(),
                key: Sha256::of(format!("packages {}", paths.join(" ")).as_bytes()),
                weight: planned.packages.iter().map(|i| self.weights[*i]).sum::<u64>().max(1),
                packages: packages.iter().map(Package::label).collect(),
                entries: Box::new(move || package::layer(&packages)),
            }
        });
        let mut key = format!("generated {} {}", self.environment.path, self.additions.key());
        if let Some((profile, _)) = &self.profile {
            key += &format!(" {profile}");
        }
        let generated = LayerSpec {
            name: "igloo".to_owned(),
            key: Sha256::of(key.as_bytes()),
            weight: 1 << 20,
            packages: Vec::new(),
            entries: Box::new(|| {
                let profile = self.profile.as_ref().map(|(_, data)| data.as_path());
                top::layer(&self.environment, &self.packages, profile, &self.additions)
            }),
        };
        let mut specs: Vec<LayerSpec<'_>> = of_packages.chain([generated]).collect();
        if !self.copies.is_empty() {
            let paths: Vec<String> = self.copies.iter().map(|(path, _)| path.to_string()).collect();
            let key = format!("copies {} {}", self.environment.path, paths.join(" "));
            specs.push(LayerSpec {
                name: "code".to_owned(),
                key: Sha256::of(key.as_bytes()),
                weight: 1 << 20,
                packages: Vec::new(),
                entries: Box::new(|| {
                    let trees: Vec<PathBuf> = self.copies.iter().map(|(_, data)| data.clone()).collect();
                    copies::layer(&trees, &self.environment)
                }),
            });
        }
        specs
    }

    fn finish(&self, blobs: &Blobs, specs: &[LayerSpec<'_>], layers: &[Layer]) -> Result<BuiltImage, ImageError> {
        let platform = Platform::from(self.system);
        let history = |spec: &LayerSpec<'_>| History {
            created: self.created.clone(),
            created_by: Some(format!("igloo layer {}", spec.name)),
            comment: (!spec.packages.is_empty()).then(|| spec.packages.join(" ")),
            empty_layer: None,
        };
        let config = ImageConfig {
            created: self.created.clone(),
            author: None,
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: None,
            config: self.config.clone(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|l| l.diff_id).collect() },
            history: specs.iter().map(history).collect(),
        };
        let config = blobs.put(media::CONFIG, &json(&config)?)?;
        let annotated = specs.iter().zip(layers).map(|(spec, layer)| {
            let mut blob = layer.blob.clone();
            blob.annotations.insert(LAYER_NAME.to_owned(), spec.name.clone());
            if !spec.packages.is_empty() {
                blob.annotations.insert(LAYER_PACKAGES.to_owned(), spec.packages.join(" "));
            }
            blob
        });
        let mut manifest = Manifest::new(config.clone(), annotated.collect());
        manifest.annotations = self.annotations.clone();
        let mut manifest = blobs.put(media::MANIFEST, &json(&manifest)?)?;
        manifest.platform = Some(platform);
        let layers = specs.iter().zip(layers).map(|(spec, layer)| ImageLayer {
            name: spec.name.clone(),
            packages: spec.packages.clone(),
            layer: layer.clone(),
        });
        Ok(BuiltImage { manifest, config, layers: layers.collect() })
    }
}

/// Makes images, in their order. Layers of all of them are made together, each once; an image that this machine made
/// before costs one look.
pub fn build(
    blobs: &Blobs,
    images: &[ImageSpec],
    compression: Compression,
    reporter: &dyn Reporter,
) -> Result<Vec<BuiltImage>, ImageError> {
    let keys: Vec<Sha256> = images.iter().map(|i| i.key(compression)).collect();
    let mut built = Vec::with_capacity(images.len());
    for key in &keys {
        let known: Option<BuiltImage> = blobs.recall("images", key)?;
        built.push(known.filter(|b| b.blobs().iter().all(|d| blobs.has(&d.digest, d.size))));
    }
    let mut ranges = Vec::new();
    let mut specs = Vec::new();
    for (index, image) in images.iter().enumerate().filter(|(i, _)| built[*i].is_none()) {
        let start = specs.len();
        specs.extend(image.specs());
        ranges.push((index, start..specs.len()));
    }
    let layers = layer::build(blobs, &specs, compression, reporter)?;
    for (index, range) in ranges {
        let image = images[index].finish(blobs, &specs[range.clone()], &layers[range])?;
        blobs.remember("images", &keys[index], &image)?;
        built[index] = Some(image);
    }
    Ok(built.into_iter().flatten().collect())
}

/// What names several images of one name: an index, or the only image itself.
pub fn join(
    blobs: &Blobs,
    images: &[BuiltImage],
    annotations: &BTreeMap<String, String>,
) -> Result<Descriptor, ImageError> {
    if let [only] = images {
        return Ok(Descriptor { platform: None, ..only.manifest.clone() });
    }
    let mut manifests: Vec<Descriptor> = images.iter().map(|i| i.manifest.clone()).collect();
    manifests.sort_by(|a, b| a.platform.cmp(&b.platform));
    let mut index = Index::new(manifests);
    index.annotations = annotations.clone();
    blobs.put(media::INDEX, &json(&index)?)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|source| ImageError::Record { path: "a document of the image".into(), source })
}
