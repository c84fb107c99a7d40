//! Where the content of an image is read from: this machine's blobs, an OCI layout, an archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use igloo_base::At as _;
use igloo_formats::oci::{Descriptor, Digest, ImageConfig, Index, MAX_CONFIG, MAX_MANIFEST, Manifest, media};
use serde::Deserialize;

use crate::ImageError;
use crate::blobs::Blobs;
use crate::reader::{Heads, MAX_HEAD};

/// Content by digest.
pub trait Content: Send + Sync {
    /// A reader of the content, if it is there.
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError>;

    /// Whole content of a small blob; longer ones are cut after `most` bytes, and fail their digest then.
    fn small(&self, digest: &Digest, most: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(reader) = self.open(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(most).read_to_end(&mut bytes).at("read", digest.to_string())?;
        Ok(Some(bytes))
    }
}

impl Content for Blobs {
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        open(&self.path(digest))
    }
}

fn open(path: &Path) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
    match regular(path) {
        Ok(file) => Ok(Some(Box::new(file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("open", path).map_err(ImageError::from),
    }
}

/// A file, or a link to one as some tools lay out images; all of it is checked by digest. Nobody is waited for at a pipe.
fn regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(i32::try_from(flags).unwrap_or_default()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Most entries of an archive that is an image; layers of layers are not read here.
const MAX_ENTRIES: usize = 100_000;

/// An image in a directory or in a file, in OCI's or docker's form.
pub enum Packed {
    /// An OCI layout.
    Layout(PathBuf),
    /// An archive: where in it every file begins and how long it is.
    Archive {
        /// The archive.
        path: PathBuf,
        /// Files by name.
        files: BTreeMap<String, (u64, u64)>,
        /// Of docker's form, what its layers and configuration are by digest.
        named: BTreeMap<Digest, String>,
        /// Documents that docker's form doesn't have.
        made: BTreeMap<Digest, Vec<u8>>,
        /// What it holds, of docker's form.
        tops: Mutex<Vec<(Descriptor, Option<String>)>>,
    },
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Packed {
    /// Opens a directory that is an OCI layout, or a tar that holds one or was written by `docker save`.
    pub fn open(path: &Path) -> Result<Packed, ImageError> {
        if path.is_dir() {
            return Ok(Packed::Layout(path.to_owned()));
        }
        let unsupported =
            |what: &str| ImageError::Unsupported { image: path.display().to_string(), what: what.to_owned() };
        let file = regular(path).at("open", path)?;
        let (heads, budget) = Heads::new(io::BufReader::new(file));
        let mut archive = tar::Archive::new(heads);
        let mut files = BTreeMap::new();
        let mut entries = archive.entries_with_seek().at("read", path)?;
        loop {
            // What the files hold is passed over, not read.
            budget.set(MAX_HEAD);
            let Some(entry) = entries.next() else { break };
            let entry = entry.at("read", path)?;
            if files.len() >= MAX_ENTRIES {
                return Err(unsupported("it has too many entries"));
            }
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        let mut packed = Packed::Archive {
            path: path.to_owned(),
            files,
            named: BTreeMap::new(),
            made: BTreeMap::new(),
            tops: Mutex::new(Vec::new()),
        };
        match &packed {
            Packed::Archive { files, .. } if files.contains_key("index.json") => {}
            Packed::Archive { files, .. } if files.contains_key("manifest.json") => packed.saved()?,
            _ => return Err(unsupported("it is neither an OCI layout nor an archive of docker's")),
        }
        Ok(packed)
    }

    fn file(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        match self {
            Packed::Layout(directory) => open(&directory.join(name)),
            Packed::Archive { path, files, .. } => {
                let Some((at, size)) = files.get(name) else { return Ok(None) };
                let mut file = File::open(path).at("open", path)?;
                file.seek(SeekFrom::Start(*at)).at("read", path)?;
                Ok(Some(Box::new(file.take(*size))))
            }
        }
    }

    fn document(&self, name: &str, most: u64) -> Result<Vec<u8>, ImageError> {
        let image = self.name();
        let what = format!("it has no `{name}`");
        let reader = self.file(name)?.ok_or(ImageError::Unsupported { image, what })?;
        let mut bytes = Vec::new();
        reader.take(most).read_to_end(&mut bytes).at("read", name)?;
        Ok(bytes)
    }

    /// The directory or file.
    pub fn name(&self) -> String {
        match self {
            Packed::Layout(path) | Packed::Archive { path, .. } => path.display().to_string(),
        }
    }

    /// Makes the manifests that docker's form lacks.
    fn saved(&mut self) -> Result<(), ImageError> {
        let name = self.name();
        let bad = |source| ImageError::Document { what: "manifest.json", image: name.clone(), source };
        let images: Vec<Saved> = serde_json::from_slice(&self.document("manifest.json", MAX_MANIFEST)?).map_err(bad)?;
        let (mut named_now, mut made_now, mut tops_now) = (Vec::new(), Vec::new(), Vec::new());
        for saved in images {
            let bytes = self.document(&saved.config, MAX_CONFIG)?;
            let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| ImageError::Document {
                what: "the configuration",
                image: name.clone(),
                source,
            })?;
            let mut layers = Vec::new();
            for (digest, layer) in config.rootfs.diff_ids.iter().zip(&saved.layers) {
                let size = match self {
                    Packed::Archive { files, .. } => files.get(layer).map(|(_, size)| *size),
                    Packed::Layout(_) => None,
                };
                let what = format!("it has no `{layer}`");
                let size = size.ok_or(ImageError::Unsupported { image: name.clone(), what })?;
                named_now.push((*digest, layer.clone()));
                layers.push(Descriptor::new(media::LAYER, *digest, size));
            }
            let described = Descriptor::of(media::CONFIG, &bytes);
            made_now.push((described.digest, bytes));
            let manifest = serde_json::to_vec(&Manifest::new(described, layers))
                .map_err(|source| ImageError::Document { what: "the manifest", image: name.clone(), source })?;
            let top = Descriptor::of(media::MANIFEST, &manifest);
            made_now.push((top.digest, manifest));
            tops_now.push((top, saved.repo_tags.unwrap_or_default().into_iter().next()));
        }
        if let Packed::Archive { named, made, tops, .. } = self {
            named.extend(named_now);
            made.extend(made_now);
            *tops = Mutex::new(tops_now);
        }
        Ok(())
    }

    /// What it holds, with the names it gives them.
    pub fn tops(&self) -> Result<Vec<(Descriptor, Option<String>)>, ImageError> {
        if let Packed::Archive { tops, .. } = self {
            let tops = tops.lock().unwrap_or_else(|e| e.into_inner());
            if !tops.is_empty() {
                return Ok(tops.clone());
            }
        }
        let bytes = self.document("index.json", MAX_MANIFEST)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|source| ImageError::Document {
            what: "index.json",
            image: self.name(),
            source,
        })?;
        let name = |d: &Descriptor| d.annotations.get("org.opencontainers.image.ref.name").cloned();
        Ok(index.manifests.into_iter().map(|d| (d.clone(), name(&d))).collect())
    }
}

impl Content for Packed {
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        if let Packed::Archive { named, made, .. } = self {
            if let Some(bytes) = made.get(digest) {
                return Ok(Some(Box::new(io::Cursor::new(bytes.clone()))));
            }
            if let Some(name) = named.get(digest) {
                return self.file(name);
            }
        }
        self.file(&format!("blobs/sha256/{}", digest.0))
    }
}
