//! From entries to a compressed layer with both its digests, in one pass, several layers at a time.

use std::io::{self, BufWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use igloo_base::digest::HashWriter;
use igloo_base::{Reporter, Sha256, Task, Unit};
use igloo_formats::oci::{Descriptor, Digest, media};
use serde::{Deserialize, Serialize};

use crate::blobs::Blobs;
use crate::entry::{Entry, EntryKind, Source};
use crate::tar::{Head, TarWriter, Type};
use crate::{ImageError, LAYERS};

/// zstd's level: what peers use; twice the level costs three times the time for three parts in a hundred.
const ZSTD_LEVEL: i32 = 3;
/// gzip's level.
const GZIP_LEVEL: u32 = 6;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Small and quick; docker since 23, podman and containerd read it.
    #[default]
    Zstd,
    /// For readers of all ages.
    Gzip,
    /// As docker's own archives have it.
    None,
}

impl Compression {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, Compression); 3] =
        [("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)];

    fn media_type(self) -> &'static str {
        match self {
            Compression::Zstd => media::LAYER_ZSTD,
            Compression::Gzip => media::LAYER_GZIP,
            Compression::None => media::LAYER,
        }
    }

    /// Names the bytes it makes of a tar.
    pub(crate) fn key(self) -> String {
        match self {
            Compression::Zstd => format!("zstd {ZSTD_LEVEL} {}", zstd::zstd_safe::version_string()),
            Compression::Gzip => format!("gzip {GZIP_LEVEL}"),
            Compression::None => "none".to_owned(),
        }
    }
}

/// A layer to be made, if it is not known.
pub struct LayerSpec<'a> {
    /// Its name in the plan.
    pub name: String,
    /// Names everything that its content depends on.
    pub key: Sha256,
    /// About how many bytes there are to read: large ones are begun first.
    pub weight: u64,
    /// Its packages, `name=version`.
    pub packages: Vec<String>,
    /// Its content, sorted by path; asked only when the layer has to be made.
    pub entries: Box<dyn Fn() -> Result<Vec<Entry>, ImageError> + Send + Sync + 'a>,
}

/// A layer that is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub unpacked: u64,
    /// The compressed blob.
    pub blob: Descriptor,
}

/// Makes what is not yet made; in the order of `specs`. A layer that this machine made before costs one look.
pub fn build(
    blobs: &Blobs,
    specs: &[LayerSpec<'_>],
    compression: Compression,
    reporter: &dyn Reporter,
) -> Result<Vec<Layer>, ImageError> {
    let keys: Vec<Sha256> = specs
        .iter()
        .map(|s| Sha256::of(format!("layer {LAYERS} {} {}", compression.key(), s.key).as_bytes()))
        .collect();
    let mut layers = Vec::with_capacity(specs.len());
    for key in &keys {
        let known: Option<Layer> = blobs.recall("layers", key)?;
        layers.push(known.filter(|l| blobs.has(&l.blob.digest, l.blob.size)));
    }
    let mut missing: Vec<usize> = (0..specs.len()).filter(|i| layers[*i].is_none()).collect();
    // Images share layers; each is made once.
    missing.sort_by_key(|i| (keys[*i], *i));
    missing.dedup_by_key(|i| keys[*i]);
    if missing.is_empty() {
        return Ok(layers.into_iter().flatten().collect());
    }
    missing.sort_by_key(|i| std::cmp::Reverse(specs[*i].weight));
    let total = missing.iter().map(|i| specs[*i].weight).sum();
    let task = Task::start(reporter, format!("pack {} layers", missing.len()), Some(total), Unit::Bytes);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Layer, ImageError>)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(missing.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(&index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let spec = &specs[index];
                    let made = write(blobs, spec, compression)
                        .and_then(|layer| blobs.remember("layers", &keys[index], &layer).map(|()| layer));
                    task.advance(spec.weight);
                    let failed = made.is_err();
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((index, made));
                    if failed {
                        next.store(missing.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for (index, made) in done.into_inner().unwrap_or_else(|e| e.into_inner()) {
        let made = made?;
        for (layer, _) in layers.iter_mut().zip(&keys).filter(|(_, key)| **key == keys[index]) {
            *layer = Some(made.clone());
        }
    }
    Ok(layers.into_iter().flatten().collect())
}

fn write(blobs: &Blobs, spec: &LayerSpec<'_>, compression: Compression) -> Result<Layer, ImageError> {
    let entries = (spec.entries)()?;
    let failed = |source| ImageError::WriteLayer { layer: spec.name.clone(), source };
    let mut partial = blobs.begin()?;
    let file = partial.file().try_clone().map_err(failed)?;
    let sink = HashWriter::new(BufWriter::with_capacity(256 << 10, file));
    let (sink, diff_id, unpacked) = match compression {
        Compression::None => finish(tar(sink, &entries, spec)?, Ok).map_err(failed)?,
        Compression::Gzip => {
            let encoder = flate2::write::GzEncoder::new(sink, flate2::Compression::new(GZIP_LEVEL));
            finish(tar(encoder, &entries, spec)?, flate2::write::GzEncoder::finish).map_err(failed)?
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL).map_err(failed)?;
            // Compresses beside the reading and hashing; the bytes are the same for every number of threads above none.
            encoder.multithread(1).map_err(failed)?;
            encoder.include_checksum(true).map_err(failed)?;
            finish(tar(encoder, &entries, spec)?, zstd::Encoder::finish).map_err(failed)?
        }
    };
    let (buffer, digest, size) = sink.finish();
    buffer.into_inner().map_err(|e| failed(e.into_error()))?;
    let digest = Digest(digest);
    blobs.keep(partial, &digest)?;
    Ok(Layer { diff_id: Digest(diff_id), unpacked, blob: Descriptor::new(compression.media_type(), digest, size) })
}

/// Ends an archive and its compression: the sink below both, digest and length of the tar.
fn finish<W: Write, S>(hasher: HashWriter<W>, end: impl FnOnce(W) -> io::Result<S>) -> io::Result<(S, Sha256, u64)> {
    let (encoder, digest, length) = hasher.finish();
    Ok((end(encoder)?, digest, length))
}

/// Writes the tar through a hasher.
fn tar<W: Write>(out: W, entries: &[Entry], spec: &LayerSpec<'_>) -> Result<HashWriter<W>, ImageError> {
    let failed = |source| ImageError::WriteLayer { layer: spec.name.clone(), source };
    let mut tar = TarWriter::new(HashWriter::new(out));
    for entry in entries {
        let head = |kind| Head {
            path: &entry.path,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            xattrs: &entry.xattrs,
        };
        match &entry.kind {
            EntryKind::Dir => tar.entry(&head(Type::Dir)).map_err(failed)?,
            EntryKind::Link(target) => tar.entry(&head(Type::Link(target))).map_err(failed)?,
            EntryKind::Hard { target, .. } => tar.entry(&head(Type::Hard(target))).map_err(failed)?,
            EntryKind::File(Source::Bytes(bytes)) => {
                tar.bytes(&head(Type::File { size: bytes.len() as u64 }), bytes).map_err(failed)?;
            }
            EntryKind::File(Source::Tree { tree, path, size }) => {
                let mut file = tree.file(path)?;
                if !tar.file(&head(Type::File { size: *size }), *size, &mut file).map_err(failed)? {
                    return Err(ImageError::Damaged { path: tree.path().join(path) });
                }
            }
        }
    }
    tar.finish().map_err(failed)
}
