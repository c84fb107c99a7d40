//! Images as files for others: an OCI layout, an OCI archive, an archive that `docker load` takes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use igloo_base::At as _;
use igloo_base::file::{create_dirs, write_atomic};
use igloo_formats::oci::{Descriptor, Digest, Index};
use serde_json::json;

use crate::blobs::Blobs;
use crate::reader::decompressed;
use crate::tar::{Head, TarWriter, Type};
use crate::tree::ImageTree;
use crate::{ImageError, content::Content};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image and the names it gets.
pub struct Export<'a> {
    /// What is written.
    pub tree: &'a ImageTree,
    /// Names, `acme/web:1`; in an OCI layout the whole name is kept.
    pub names: Vec<String>,
}

fn index(images: &[Export<'_>]) -> Index {
    let mut manifests = Vec::new();
    for image in images {
        let names = if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            let mut top = image.tree.top.clone();
            top.annotations = name.map(|name| (REF_NAME.to_owned(), name.clone())).into_iter().collect();
            manifests.push(top);
        }
    }
    Index::new(manifests)
}

fn blobs_of(images: &[Export<'_>]) -> Vec<Descriptor> {
    let mut seen = BTreeSet::new();
    let all = images.iter().flat_map(|i| i.tree.blobs().into_iter().chain([i.tree.top.clone()]));
    all.filter(|d| seen.insert(d.digest)).collect()
}

fn json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|source| ImageError::Record { path: path.to_owned(), source })
}

/// Writes an OCI layout. A directory that is one gets what it lacks, and names only what is written now. Content is
/// linked where the file system can, so that nothing is stored twice.
pub fn layout(blobs: &Blobs, images: &[Export<'_>], to: &Path) -> Result<(), ImageError> {
    let directory = to.join("blobs/sha256");
    create_dirs(&directory)?;
    for blob in blobs_of(images) {
        let (from, path) = (blobs.path(&blob.digest), directory.join(blob.digest.0.to_string()));
        if fs::metadata(&path).is_ok_and(|m| m.len() == blob.size) {
            continue;
        }
        match fs::hard_link(&from, &path) {
            Ok(()) => {}
            Err(_) => {
                let mut temporary = temporary_in(&directory).at("write", &path)?;
                let mut content = File::open(&from).at("open", &from)?;
                io::copy(&mut content, &mut temporary).at("copy to", &path)?;
                temporary.as_file().sync_data().at("copy to", &path)?;
                temporary.persist(&path).map_err(|e| e.error).at("create", &path)?;
            }
        }
    }
    write_atomic(to.join("oci-layout"), LAYOUT.as_bytes())?;
    // Last: a layout that names an image has all of it.
    let path = to.join("index.json");
    Ok(write_atomic(&path, &json(&path, &index(images))?)?)
}

fn temporary_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = fs::Permissions::from_mode(0o644);
    tempfile::Builder::new().prefix(".igloo-").permissions(permissions).tempfile_in(directory)
}

/// Writes a file, which gets its name when it is whole.
fn whole(to: &Path, write: impl FnOnce(File) -> Result<File, ImageError>) -> Result<(), ImageError> {
    let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (file, temporary) = temporary_in(parent).at("write", to)?.into_parts();
    write(file)?.sync_data().at("write", to)?;
    temporary.persist(to).map_err(|e| e.error).at("create", to)?;
    Ok(())
}

/// A tar under way.
struct Output<W: Write> {
    tar: TarWriter<io::BufWriter<W>>,
}

impl<W: Write> Output<W> {
    fn new(to: W) -> Self {
        Self { tar: TarWriter::new(io::BufWriter::with_capacity(1 << 20, to)) }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8], to: &Path) -> Result<(), ImageError> {
        Ok(self.tar.bytes(&head(name, Type::File { size: bytes.len() as u64 }), bytes).at("write", to)?)
    }

    fn dir(&mut self, name: &str, to: &Path) -> Result<(), ImageError> {
        Ok(self.tar.entry(&Head { mode: 0o755, ..head(name, Type::Dir) }).at("write", to)?)
    }

    fn stream(&mut self, name: &str, size: u64, from: &mut dyn Read, to: &Path) -> Result<bool, ImageError> {
        Ok(self.tar.file(&head(name, Type::File { size }), size, from).at("write", to)?)
    }

    fn finish(self, to: &Path) -> Result<W, ImageError> {
        let buffer = self.tar.finish().at("write", to)?;
        Ok(buffer.into_inner().map_err(io::IntoInnerError::into_error).at("write", to)?)
    }
}

fn head<'a>(path: &'a str, kind: Type<'a>) -> Head<'a> {
    Head { path, kind, mode: 0o644, uid: 0, gid: 0, xattrs: &[] }
}

/// Writes an OCI layout as one tar.
pub fn oci_archive(blobs: &Blobs, images: &[Export<'_>], to: &Path) -> Result<(), ImageError> {
    whole(to, |file| oci_tar(blobs, images, file, to))
}

/// The same to whoever reads it; `to` is what messages call it.
pub fn oci_tar<W: Write>(blobs: &Blobs, images: &[Export<'_>], out: W, to: &Path) -> Result<W, ImageError> {
    let mut out = Output::new(out);
    out.bytes("oci-layout", LAYOUT.as_bytes(), to)?;
    out.bytes("index.json", &json(to, &index(images))?, to)?;
    out.dir("blobs", to)?;
    out.dir("blobs/sha256", to)?;
    for blob in blobs_of(images) {
        let image = to.display().to_string();
        let missing = ImageError::MissingBlob { image: image.clone(), digest: blob.digest };
        let mut reader = blobs.open(&blob.digest)?.ok_or(missing)?;
        let name = format!("blobs/sha256/{}", blob.digest.0);
        if !out.stream(&name, blob.size, &mut reader, to)? {
            return Err(ImageError::WrongDigest { image, digest: blob.digest });
        }
    }
    out.finish(to)
}

/// Writes what `docker load` of every age takes: plain layers, and the images for one system.
pub fn docker_archive(blobs: &Blobs, images: &[Export<'_>], architecture: &str, to: &Path) -> Result<(), ImageError> {
    whole(to, |file| docker_tar(blobs, images, architecture, file, to))
}

/// The same to whoever reads it; `to` is what messages call it.
pub fn docker_tar<W: Write>(
    blobs: &Blobs,
    images: &[Export<'_>],
    architecture: &str,
    out: W,
    to: &Path,
) -> Result<W, ImageError> {
    let mut out = Output::new(out);
    let mut list = Vec::new();
    let mut written: BTreeSet<Digest> = BTreeSet::new();
    for export in images {
        let name = export.names.first().cloned().unwrap_or_else(|| export.tree.top.digest.to_string());
        let image = export.tree.for_platform(&name, architecture)?;
        let config = image.manifest.config.digest;
        let file = format!("{}.json", config.0);
        if written.insert(config) {
            let bytes = blobs.read(&config, igloo_formats::oci::MAX_CONFIG)?;
            let bytes = bytes.ok_or(ImageError::MissingBlob { image: name.clone(), digest: config })?;
            out.bytes(&file, &bytes, to)?;
        }
        let mut layers = Vec::new();
        for (blob, diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
            let path = format!("{}/layer.tar", diff_id.0);
            if written.insert(*diff_id) {
                out.dir(&diff_id.0.to_string(), to)?;
                // A tar wants to know the size beforehand; only a plain layer tells it.
                let mut counted = decompressed(blobs, blob, &name)?;
                let size = io::copy(&mut counted, &mut io::sink()).at("read", blob.digest.to_string())?;
                let mut tar = decompressed(blobs, blob, &name)?;
                if !out.stream(&path, size, &mut tar, to)? {
                    return Err(ImageError::WrongDigest { image: name, digest: blob.digest });
                }
            }
            layers.push(path);
        }
        list.push(json!({ "Config": file, "RepoTags": export.names, "Layers": layers }));
    }
    out.bytes("manifest.json", &json(to, &list)?, to)?;
    out.finish(to)
}
