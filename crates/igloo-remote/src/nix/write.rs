//! Writing a cache: an archive is packed into a file first, since its name and its narinfo tell the packed digest. The
//! narinfo follows only when the archive is there, and a caller sends those of references before those that refer.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use igloo_base::digest::HashWriter;
use igloo_base::file::create_dirs;
use igloo_base::{At, PathError, Sha256};
use igloo_formats::nix::narinfo::Compression;
use igloo_formats::nix::{CacheInfo, NarInfo, StorePath, base32};

use super::address::Place;
use super::{BinaryCache, CacheError};
use crate::RemoteError;

/// How archives are packed for a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// The method: `none`, `zstd`, `xz` or `gzip`.
    pub compression: Compression,
    /// The method's own level; 0 is what we take: 1 for zstd, the method's default for others.
    pub level: i32,
    /// Threads for one archive, where the method has them.
    pub threads: u32,
}

/// An archive that is being packed. It hashes both what comes in and what goes out.
pub struct NarFile {
    nar: HashWriter<Pack>,
    compression: Compression,
}

/// Digests and sizes of a packed archive, and its file.
pub struct PackedNar {
    pub(super) file: tempfile::NamedTempFile,
    pub(super) compression: Compression,
    pub(super) file_hash: Sha256,
    pub(super) file_size: u64,
    /// Digest of the archive.
    pub nar_hash: Sha256,
    /// Bytes of the archive.
    pub nar_size: u64,
}

type Out = HashWriter<BufWriter<tempfile::NamedTempFile>>;

enum Pack {
    None(Out),
    Zstd(zstd::stream::write::Encoder<'static, Out>),
    Xz(liblzma::write::XzEncoder<Out>),
    Gzip(flate2::write::GzEncoder<Out>),
}

impl Write for Pack {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(buf),
            Self::Zstd(out) => out.write(buf),
            Self::Xz(out) => out.write(buf),
            Self::Gzip(out) => out.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for NarFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.nar.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NarFile {
    fn new(dir: &Path, how: Packing) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        let file = tempfile::Builder::new().prefix(".igloo-").permissions(mode).tempfile_in(dir)?;
        let out = HashWriter::new(BufWriter::with_capacity(256 << 10, file));
        let pack = match how.compression {
            Compression::None => Pack::None(out),
            Compression::Zstd => {
                // Level 1 takes half the time of zstd's own default, for an eighth more bytes.
                let level = if how.level == 0 { 1 } else { how.level };
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                if how.threads > 1 {
                    encoder.multithread(how.threads)?;
                }
                Pack::Zstd(encoder)
            }
            Compression::Xz => {
                let level = if how.level > 0 { how.level as u32 } else { 6 };
                Pack::Xz(liblzma::write::XzEncoder::new(out, level))
            }
            Compression::Gzip => {
                let level = if how.level > 0 {
                    flate2::Compression::new(how.level as u32)
                } else {
                    flate2::Compression::default()
                };
                Pack::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            other => {
                let text = format!("archives are not packed with {}, but with none, zstd, xz or gzip", other.name());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        Ok(Self { nar: HashWriter::new(pack), compression: how.compression })
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<PackedNar> {
        let (pack, nar_hash, nar_size) = self.nar.finish();
        let out = match pack {
            Pack::None(out) => out,
            Pack::Zstd(encoder) => encoder.finish()?,
            Pack::Xz(encoder) => encoder.finish()?,
            Pack::Gzip(encoder) => encoder.finish()?,
        };
        let (buffered, file_hash, file_size) = out.finish();
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(PackedNar { file, compression: self.compression, file_hash, file_size, nar_hash, nar_size })
    }
}

impl BinaryCache {
    /// Makes sure that the cache says of itself what it is.
    pub fn begin(&self) -> Result<(), CacheError> {
        match self.info() {
            Ok(_) => Ok(()),
            Err(CacheError::NoCache { .. }) => {
                self.put_document("nix-cache-info", CacheInfo::default().to_text().as_bytes())
            }
            Err(error) => Err(error),
        }
    }

    /// How its address says that archives are packed; zstd if it says nothing.
    pub fn compression(&self) -> Result<Compression, CacheError> {
        let Some(name) = &self.inner.address.compression else { return Ok(Compression::Zstd) };
        let why = "its compression is unknown";
        name.parse().map_err(|_| CacheError::Address { url: self.named(), why })
    }

    /// The file that its address names for signatures (`?secret-key=FILE`).
    pub fn secret_key(&self) -> Option<&Path> {
        self.inner.address.secret_key.as_deref()
    }

    /// A file to pack an archive into; for a cache on the network below `scratch`.
    pub fn pack(&self, how: Packing, scratch: &Path) -> Result<NarFile, CacheError> {
        let dir = match &self.inner.address.place {
            Place::Dir(dir) => dir.join("nar"),
            _ => scratch.to_owned(),
        };
        create_dirs(&dir).and_then(|()| NarFile::new(&dir, how).at("write below", &dir)).map_err(|e| self.file_error(e))
    }

    /// Puts a packed archive in place and completes what is said of it.
    pub fn put_nar(&self, packed: PackedNar, info: &mut NarInfo) -> Result<(), CacheError> {
        let name = format!("nar/{}.nar{}", base32::encode(&packed.file_hash.0), packed.compression.suffix());
        info.url = name.clone();
        info.compression = packed.compression;
        (info.file_hash, info.file_size) = (Some(packed.file_hash), Some(packed.file_size));
        match &self.inner.address.place {
            Place::Dir(dir) => {
                let path = dir.join(&name);
                let moved = packed.file.persist(&path).map(drop).map_err(|e| e.error).at("write", &path);
                moved.map_err(|e| self.file_error(e))
            }
            Place::Http(base) | Place::S3 { base, .. } => {
                if self.has(&name)? {
                    return Ok(());
                }
                let path = packed.file.path();
                self.put(base, &name, (packed.file_size, packed.file_hash), &mut || {
                    let file = File::open(path).at("open", path).map_err(RemoteError::Path)?;
                    Ok(Box::new(file) as Box<dyn Read>)
                })
            }
        }
    }

    /// Says of a path that it is there. Its archive and its references must be.
    pub fn put_narinfo(&self, info: &NarInfo) -> Result<(), CacheError> {
        self.put_document(&format!("{}.narinfo", info.path.hash_part()), info.to_text().as_bytes())?;
        self.known().insert(info.path.hash_part().to_owned(), Some(info.clone()));
        Ok(())
    }

    /// Whether it has a path; asked once.
    pub fn has_path(&self, path: &StorePath) -> Result<bool, CacheError> {
        Ok(self.narinfo(path)?.is_some())
    }

    /// For a directory: waits until all archives are on the disk, so that no narinfo speaks of one that a crash took.
    pub fn sync(&self) -> Result<(), CacheError> {
        let Place::Dir(dir) = &self.inner.address.place else { return Ok(()) };
        let run = || -> Result<(), PathError> {
            let file = File::open(dir).at("open", dir)?;
            rustix::fs::syncfs(&file).at("write to the disk", dir)
        };
        run().map_err(|e| self.file_error(e))
    }

    fn put_document(&self, name: &str, content: &[u8]) -> Result<(), CacheError> {
        match &self.inner.address.place {
            Place::Dir(dir) => {
                let run = || create_dirs(dir).and_then(|()| write_unsynced(&dir.join(name), content));
                run().map_err(|e| self.file_error(e))
            }
            Place::Http(base) | Place::S3 { base, .. } => {
                self.put(base, name, (content.len() as u64, Sha256::of(content)), &mut || {
                    Ok(Box::new(io::Cursor::new(content.to_vec())) as Box<dyn Read>)
                })
            }
        }
    }
}

/// Replaces a file whole. Who waits for the disk does so once, for all of them ([`BinaryCache::sync`]).
fn write_unsynced(path: &Path, content: &[u8]) -> Result<(), PathError> {
    use std::os::unix::fs::PermissionsExt;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mode = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".igloo-").permissions(mode).tempfile_in(dir).at("write", path)?;
    file.write_all(content).at("write", path)?;
    file.persist(path).map(drop).map_err(|e| e.error).at("replace", path)
}
