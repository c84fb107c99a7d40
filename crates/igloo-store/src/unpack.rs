//! A .deb becomes a tree in one pass: read, hash, decompress and write; what is written is hashed from the page cache,
//! in the order that Nix wants. Foreign names never reach the kernel as paths through anything but directories made here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use igloo_base::digest::HashWriter;
use igloo_base::{At, PathError, Sha256};
use igloo_formats::deb::archive::{ArchiveError, DebReader, Limits, Part, TarKind, TarReader, shown};
use igloo_formats::deb::meta::{META_FORMAT, Meta, control_field, parse_conffiles, relative_path};
use igloo_formats::nix::StorePath;

use crate::error::StoreError;
use crate::tree;
use crate::unpack::writer::TreeMaker;

mod data;
mod writer;

/// What a .deb must say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebId {
    /// Name of the package.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
}

/// A .deb on disk and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebSource {
    /// Where it lies.
    pub path: std::path::PathBuf,
    /// Its expected digest.
    pub sha256: Sha256,
    /// Its expected size in bytes.
    pub size: u64,
    /// What it must say about itself.
    pub id: DebId,
}

/// Why unpacking ended early: the archive, or the disk.
#[derive(Debug)]
pub(crate) enum Failure {
    Archive(ArchiveError),
    Disk(PathError),
}

impl From<ArchiveError> for Failure {
    fn from(e: ArchiveError) -> Self {
        Failure::Archive(e)
    }
}

impl From<PathError> for Failure {
    fn from(e: PathError) -> Self {
        Failure::Disk(e)
    }
}

/// Digest and size of the archive of what was unpacked.
pub(crate) struct Unpacked {
    pub(crate) nar_hash: Sha256,
    pub(crate) nar_size: u64,
    /// Name of the object.
    pub(crate) name: String,
}

/// Reads `R` and hashes what it reads.
struct Hashing<R> {
    input: R,
    hash: HashWriter<io::Sink>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.hash.write_all(&buf[..n])?;
        Ok(n)
    }
}

/// Unpacks `deb` into the empty directory `into`, and checks size, digest and identity.
pub(crate) fn unpack(deb: &DebSource, into: &Path) -> Result<Unpacked, StoreError> {
    let path = &deb.path;
    let file = File::open(path).at("open", path)?;
    let found = file.metadata().at("inspect", path)?.len();
    if found != deb.size {
        return Err(StoreError::DebSize { path: path.clone(), expected: deb.size, found });
    }
    let mut input = Hashing { input: file, hash: HashWriter::new(io::sink()) };
    let result = unpack_from(&mut input, deb, into);
    // Whatever went wrong inside, a wrong digest is the better explanation.
    let rest = io::copy(&mut input, &mut io::sink());
    if matches!(result, Err(StoreError::Path(_))) {
        return result;
    }
    rest.at("read", path)?;
    let (_, found, _) = input.hash.finish();
    if found != deb.sha256 {
        return Err(StoreError::DebDigest { path: path.clone(), expected: deb.sha256, found });
    }
    result
}

fn unpack_from(input: &mut impl Read, deb: &DebSource, into: &Path) -> Result<Unpacked, StoreError> {
    let failed = |e: Failure| match e {
        Failure::Archive(source) => StoreError::Deb { path: deb.path.clone(), source },
        Failure::Disk(e) => StoreError::Path(e),
    };
    let archive = |source| StoreError::Deb { path: deb.path.clone(), source };
    let mut reader = DebReader::new(input, Limits::for_size(deb.size)).map_err(archive)?;
    let control = read_control(reader.control().map_err(archive)?).map_err(archive)?;
    check_identity(&control, deb)?;

    let mut tree = TreeMaker::new(into).map_err(failed)?;
    tree.dir("control").map_err(failed)?;
    for (name, (executable, content)) in &control {
        tree.whole_file(&format!("control/{name}"), *executable, content).map_err(failed)?;
    }
    let entries = data::unpack(reader.data().map_err(archive)?, &mut tree).map_err(failed)?;
    let conffiles = control.get("conffiles").map(|(_, text)| String::from_utf8_lossy(text)).unwrap_or_default();
    let meta = Meta {
        format: META_FORMAT,
        name: deb.id.name.clone(),
        version: deb.id.version.clone(),
        architecture: deb.id.architecture.clone(),
        conffiles: parse_conffiles(&conffiles),
        entries,
    };
    let meta = serde_json::to_vec(&meta).map_err(io::Error::other).at("write", into.join("meta.json"))?;
    tree.whole_file("meta.json", false, &meta).map_err(failed)?;
    tree.finish().map_err(failed)?;
    // Not on the way: an archive of dpkg's has symlinks last, and so is hardly ever in the order of Nix's.
    let (nar_hash, nar_size) = tree::hash(into)?;
    let DebId { name, version, architecture } = &deb.id;
    Ok(Unpacked { nar_hash, nar_size, name: igloo_formats::deb::meta::object_name(name, version, architecture) })
}

/// Files of the control archive, which are few and small: name to executable and content.
fn read_control<R: Read>(mut tar: TarReader<R>) -> Result<BTreeMap<String, (bool, Vec<u8>)>, ArchiveError> {
    let part = Part::Control;
    let mut files = BTreeMap::new();
    while let Some(entry) = tar.next()? {
        let name = shown(&entry.path);
        let path = relative_path(&entry.path);
        let path = path.map_err(|source| ArchiveError::Path { part, name: name.clone(), source })?;
        let bad = |why| Err(ArchiveError::Entry { part, name: name.clone(), why });
        match (path, entry.kind) {
            (None, TarKind::Dir) => {}
            (Some(path), TarKind::File) if !path.contains('/') => {
                let mut content = Vec::new();
                loop {
                    let chunk = tar.chunk()?;
                    if chunk.is_empty() {
                        break;
                    }
                    content.extend_from_slice(chunk);
                }
                if files.insert(path, (entry.mode & 0o100 != 0, content)).is_some() {
                    return bad("which was there before");
                }
            }
            _ => return bad("which is no file at the top of the archive"),
        }
    }
    Ok(files)
}

fn check_identity(control: &BTreeMap<String, (bool, Vec<u8>)>, deb: &DebSource) -> Result<(), StoreError> {
    let text = control.get("control").map(|(_, text)| String::from_utf8_lossy(text)).unwrap_or_default();
    for (field, name, expected) in [
        ("Package", "package", &deb.id.name),
        ("Version", "version", &deb.id.version),
        ("Architecture", "architecture", &deb.id.architecture),
    ] {
        let found = control_field(&text, field).unwrap_or_default();
        if found != expected.as_str() {
            let (expected, found) = (expected.clone(), shown(found.as_bytes()));
            return Err(StoreError::DebIdentity { path: deb.path.clone(), field: name, expected, found });
        }
    }
    Ok(())
}

/// Path and description of the content of an object without references.
pub(crate) fn content_path(
    name: &str,
    nar_hash: Sha256,
    references: &[StorePath],
) -> Result<(StorePath, String), StoreError> {
    let path = StorePath::fixed_recursive(name, nar_hash, references, false).map_err(StoreError::BadName)?;
    Ok((path, format!("fixed:r:sha256:{}", igloo_formats::nix::base32::encode(&nar_hash.0))))
}
