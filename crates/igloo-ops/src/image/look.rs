//! Looking into images: `inspect`, `ls`, `diff`, `why`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use igloo_formats::nix::StorePath;
use igloo_formats::oci::{Descriptor, Digest, ImageConfig};
use igloo_image::image::{LAYER_NAME, LAYER_PACKAGES};
use igloo_image::plan::NIX;
use igloo_image::reader::{ReadKind, walk};
use igloo_image::tree::Image;
use igloo_remote::registry::Choice;
use serde::Serialize;

use super::source::{self, Opened};
use crate::context::Context;
use crate::error::OpsError;

/// Longest list of dpkg's that is read of an image.
const MAX_LIST: u64 = 32 << 20;

/// Most bytes of paths, targets and lists of an image, which are held in memory: the largest real ones have some fifty million.
const MAX_HELD: usize = 512 << 20;

/// An image for a person.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// As it was called.
    pub name: String,
    /// Digest of the index or manifest.
    pub digest: String,
    /// One for each system.
    pub images: Vec<InspectedImage>,
}

/// An image of one system.
#[derive(Debug, Serialize)]
pub struct InspectedImage {
    /// `linux/amd64`.
    pub platform: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Compressed bytes of its layers.
    pub bytes: u64,
    /// Lowest first.
    pub layers: Vec<InspectedLayer>,
    /// How it is run.
    pub config: ImageConfig,
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct InspectedLayer {
    /// Digest of the blob.
    pub digest: String,
    /// Digest of the plain tar: the same however it is compressed.
    pub diff_id: String,
    /// Compressed bytes.
    pub bytes: u64,
    /// Its name in the plan, if igloo made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its packages, `name=version`, if igloo made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

/// What igloo notes of a layer it makes: in the manifest, and for archives that have none in the configuration's history.
fn layers(image: &Image) -> Vec<InspectedLayer> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut history = image.config.history.iter().filter(|h| h.empty_layer != Some(true));
    let one = |(blob, diff_id): (&Descriptor, &Digest)| {
        let step = history.next();
        let named = step.and_then(|h| h.created_by.as_deref()?.strip_prefix("igloo layer ")).map(str::to_owned);
        let packages = step.filter(|_| named.is_some()).and_then(|h| h.comment.as_deref());
        InspectedLayer {
            digest: blob.digest.to_string(),
            diff_id: diff_id.to_string(),
            bytes: blob.size,
            name: blob.annotations.get(LAYER_NAME).cloned().or(named),
            packages: blob
                .annotations
                .get(LAYER_PACKAGES)
                .map(String::as_str)
                .or(packages)
                .map(words)
                .unwrap_or_default(),
        }
    };
    image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).map(one).collect()
}

/// What an image is; its layers are not fetched.
pub fn inspect(ctx: &Context<'_>, start: &Path, text: &str) -> Result<Inspected, OpsError> {
    let opened = source::open(ctx, start, text, false, &Choice::All)?;
    let images = opened.tree.images.iter().map(|image| InspectedImage {
        platform: format!("{}/{}", image.config.os, image.config.architecture),
        digest: image.descriptor.digest.to_string(),
        bytes: image.manifest.layers.iter().map(|l| l.size).sum(),
        layers: layers(image),
        config: image.config.clone(),
    });
    Ok(Inspected { name: text.to_owned(), digest: opened.tree.top.digest.to_string(), images: images.collect() })
}

/// A path of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// `d`, `f`, `l`.
    pub kind: char,
    /// Permission bits, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Target of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The layer it comes from, from 0 at the bottom.
    pub layer: usize,
}

/// The merged tree of an image by path, and what dpkg's lists in it say.
struct Merged {
    files: BTreeMap<String, File>,
    /// Packages by path, from `var/lib/dpkg/info/*.list`.
    owners: BTreeMap<String, BTreeSet<String>>,
}

fn merged(opened: &Opened, image: &Image) -> Result<Merged, OpsError> {
    let mut merged = Merged { files: BTreeMap::new(), owners: BTreeMap::new() };
    let mut held = 0;
    for (layer, blob) in image.manifest.layers.iter().enumerate() {
        let (digest, _) = walk(opened.content.as_ref(), blob, &opened.name, &mut |entry, content| {
            held += entry.path.len();
            if held > MAX_HELD {
                let what = format!("its paths are more than {} MiB", MAX_HELD >> 20);
                return Err(igloo_image::ImageError::Unsupported { image: opened.name.clone(), what });
            }
            // Of the root, everything.
            let below = if entry.path.is_empty() { String::new() } else { format!("{}/", entry.path) };
            let old = |merged: &mut Merged| {
                let gone: Vec<String> = merged
                    .files
                    .range(below.clone()..)
                    .take_while(|(path, _)| path.starts_with(&below))
                    .filter(|(_, file)| file.layer < layer)
                    .map(|(path, _)| path.clone())
                    .collect();
                gone.iter().for_each(|path| drop(merged.files.remove(path)));
            };
            let (kind, size, target) = match &entry.kind {
                ReadKind::Gone => {
                    merged.files.remove(&entry.path);
                    old(&mut merged);
                    return Ok(());
                }
                ReadKind::Opaque => {
                    old(&mut merged);
                    return Ok(());
                }
                ReadKind::Dir => ('d', 0, None),
                ReadKind::File(size) => ('f', *size, None),
                ReadKind::Link(target) => ('l', 0, Some(target.clone())),
                ReadKind::Hard(first) => {
                    ('f', merged.files.get(first).map_or(0, |f| f.size), Some(format!("/{first}")))
                }
            };
            if kind != 'd' {
                old(&mut merged);
            }
            let list = entry.path.strip_prefix("var/lib/dpkg/info/").and_then(|n| n.strip_suffix(".list"));
            if let (Some(package), 'f') = (list, kind) {
                let mut text = String::new();
                // A list that is no text tells nothing.
                if std::io::Read::read_to_string(&mut std::io::Read::take(content, MAX_LIST), &mut text).is_ok() {
                    held += text.len();
                    let package = package.split(':').next().unwrap_or(package);
                    for path in text.lines().filter(|l| *l != "/.") {
                        let path = path.trim_start_matches('/').to_owned();
                        merged.owners.entry(path).or_default().insert(package.to_owned());
                    }
                }
            }
            if !entry.path.is_empty() {
                let ReadEntryParts { path, mode, uid, gid } = parts(&entry);
                merged.files.insert(entry.path.clone(), File { path, kind, mode, uid, gid, size, target, layer });
            }
            Ok(())
        })?;
        if image.config.rootfs.diff_ids.get(layer) != Some(&digest) {
            let image = opened.name.clone();
            return Err(igloo_image::ImageError::WrongDigest { image, digest: blob.digest }.into());
        }
    }
    Ok(merged)
}

struct ReadEntryParts {
    path: String,
    mode: String,
    uid: u32,
    gid: u32,
}

fn parts(entry: &igloo_image::reader::ReadEntry) -> ReadEntryParts {
    ReadEntryParts {
        path: format!("/{}", entry.path),
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
    }
}

fn choice(architecture: &str) -> Choice {
    let platform = igloo_formats::oci::Platform { architecture: architecture.to_owned(), ..source::here() };
    Choice::Platform(platform)
}

fn open(ctx: &Context<'_>, start: &Path, text: &str, architecture: &str) -> Result<(Opened, usize), OpsError> {
    let opened = source::open(ctx, start, text, true, &choice(architecture))?;
    let image = opened.tree.for_platform(text, architecture)?;
    let at = opened.tree.images.iter().position(|i| i == image).unwrap_or_default();
    Ok((opened, at))
}

/// What is in an image below a path.
pub fn ls(
    ctx: &Context<'_>,
    start: &Path,
    text: &str,
    below: &[String],
    architecture: &str,
) -> Result<Vec<File>, OpsError> {
    let (opened, at) = open(ctx, start, text, architecture)?;
    let merged = merged(&opened, &opened.tree.images[at])?;
    let below: Vec<String> = below.iter().map(|p| p.trim_matches('/').to_owned()).filter(|p| !p.is_empty()).collect();
    let within = |path: &str| {
        below.is_empty()
            || below
                .iter()
                .any(|b| path.strip_prefix(b.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    if let Some(missing) = below.iter().find(|b| !merged.files.contains_key(*b)) {
        return Err(OpsError::NoPath { image: text.to_owned(), path: format!("/{missing}") });
    }
    Ok(merged.files.into_iter().filter(|(path, _)| within(path)).map(|(_, file)| file).collect())
}

/// Why a path is in an image.
#[derive(Debug, Serialize)]
pub struct Why {
    /// The path and what it is.
    #[serde(flatten)]
    pub file: File,
    /// Digest of the layer it comes from.
    pub layer_digest: String,
    /// The layer's name in the plan, if igloo made it.
    pub layer_name: Option<String>,
    /// The packages that have it, `name=version` where that is known.
    pub packages: Vec<String>,
}

/// The package and the layer that a path of an image comes from. Links above the path are followed as far as the image's
/// own `/bin` and friends go.
pub fn why(ctx: &Context<'_>, start: &Path, text: &str, path: &str, architecture: &str) -> Result<Why, OpsError> {
    let (opened, at) = open(ctx, start, text, architecture)?;
    let image = &opened.tree.images[at];
    let merged = merged(&opened, image)?;
    let wanted = path.trim_matches('/').to_owned();
    let mut found = wanted.clone();
    if let Some((first, rest)) = wanted.split_once('/')
        && let Some(File { target: Some(target), kind: 'l', .. }) = merged.files.get(first)
    {
        found = format!("{}/{rest}", target.trim_matches('/'));
    }
    let file = merged.files.get(&found).cloned();
    let file = file.ok_or_else(|| OpsError::NoPath { image: text.to_owned(), path: format!("/{wanted}") })?;
    let layer = &layers(image)[file.layer];
    let mut packages: Vec<String> = merged.owners.get(&found).into_iter().flatten().cloned().collect();
    for package in &mut packages {
        let versions = layers(image);
        let mut all = versions.iter().flat_map(|l| &l.packages);
        if let Some(full) = all.find(|p| p.split('=').next() == Some(package.as_str())) {
            *package = full.clone();
        }
    }
    // A store path is a package; a link of the profile leads into one.
    let target = file.target.as_deref().unwrap_or_default();
    if let Some(path) = store_path(&format!("/{found}")).or_else(|| store_path(target)).filter(|_| packages.is_empty())
    {
        let (name, version) = super::nix::label(&path);
        packages.push(format!("{NIX}{name}={version}"));
    }
    Ok(Why { layer_digest: layer.digest.clone(), layer_name: layer.name.clone(), packages, file })
}

/// The store path that an absolute path is below of.
fn store_path(path: &str) -> Option<StorePath> {
    let name = path.strip_prefix("/nix/store/")?.split('/').next()?;
    StorePath::parse(name).ok()
}

/// How two images differ.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// Packages: name, version in the first, version in the second.
    pub packages: Vec<(String, Option<String>, Option<String>)>,
    /// Layers of both.
    pub shared: usize,
    /// Of the layers of both, those below which everything is the same.
    pub shared_chain: usize,
    /// Compressed bytes of layers that only the second has: what a host with the first has to pull.
    pub pull: u64,
    /// Layers that only the first has: digest, bytes, name.
    pub removed: Vec<InspectedLayer>,
    /// Layers that only the second has.
    pub added: Vec<InspectedLayer>,
    /// Compressed bytes of the first and of the second.
    pub bytes: (u64, u64),
}

/// Compares two images by their documents.
pub fn diff(ctx: &Context<'_>, start: &Path, a: &str, b: &str, architecture: &str) -> Result<Diff, OpsError> {
    let read = |text: &str| -> Result<Vec<InspectedLayer>, OpsError> {
        let opened = source::open(ctx, start, text, false, &choice(architecture))?;
        Ok(layers(opened.tree.for_platform(text, architecture)?))
    };
    let (a, b) = (read(a)?, read(b)?);
    let versions = |layers: &[InspectedLayer]| -> BTreeMap<String, String> {
        let split = |p: &String| p.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
        layers.iter().flat_map(|l| l.packages.iter().filter_map(split)).collect()
    };
    let (old, new) = (versions(&a), versions(&b));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let packages = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| (name.clone(), old.get(name).cloned(), new.get(name).cloned()))
        .collect();
    let digests =
        |layers: &[InspectedLayer]| -> BTreeSet<String> { layers.iter().map(|l| l.diff_id.clone()).collect() };
    let (in_a, in_b) = (digests(&a), digests(&b));
    let shared_chain = a.iter().zip(&b).take_while(|(a, b)| a.diff_id == b.diff_id).count();
    let bytes = (a.iter().map(|l| l.bytes).sum(), b.iter().map(|l| l.bytes).sum());
    let removed: Vec<InspectedLayer> = a.into_iter().filter(|l| !in_b.contains(&l.diff_id)).collect();
    let added: Vec<InspectedLayer> = b.into_iter().filter(|l| !in_a.contains(&l.diff_id)).collect();
    Ok(Diff {
        packages,
        shared: in_a.intersection(&in_b).count(),
        shared_chain,
        pull: added.iter().map(|l| l.bytes).sum(),
        removed,
        added,
        bytes,
    })
}
