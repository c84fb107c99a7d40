//! Layers read back: decompressed, as entries with names that were checked. All of it was written by somebody else.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use igloo_base::digest::HashWriter;
use igloo_formats::deb::meta::{MAX_TARGET, relative_path};
use igloo_formats::oci::{Descriptor, Digest, media};

use crate::ImageError;
use crate::content::Content;

/// Most bytes that a layer may unpack to: a blob of some kilobytes can claim any length.
const MAX_UNPACKED: u64 = 64 << 30;
/// Most entries of one layer.
const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes of what describes one entry: names and attributes, which the kernel allows 64 KiB of.
pub(crate) const MAX_HEAD: u64 = 4 << 20;
/// Window of zstd, 2^27 bytes: what `zstd -d` takes without being asked.
const ZSTD_WINDOW: u32 = 27;

/// A reader of a layer's tar.
pub(crate) fn decompressed(
    content: &dyn Content,
    blob: &Descriptor,
    image: &str,
) -> Result<Box<dyn Read + Send>, ImageError> {
    let missing = ImageError::MissingBlob { image: image.to_owned(), digest: blob.digest };
    let raw = io::BufReader::with_capacity(128 << 10, content.open(&blob.digest)?.ok_or(missing)?);
    let failed = |source| ImageError::ReadLayer { digest: blob.digest, source };
    let reader: Box<dyn Read + Send> = match blob.media_type.as_str() {
        media::LAYER => Box::new(raw),
        media::LAYER_GZIP | media::DOCKER_LAYER_GZIP => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        media::LAYER_ZSTD => {
            let mut decoder = zstd::Decoder::with_buffer(raw).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(failed)?;
            Box::new(decoder)
        }
        other => {
            let what = format!("layer {} is of a kind that igloo does not read, `{other}`", blob.digest);
            return Err(ImageError::Unsupported { image: image.to_owned(), what });
        }
    };
    Ok(Box::new(reader.take(MAX_UNPACKED)))
}

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadKind {
    /// A directory.
    Dir,
    /// A regular file of so many bytes.
    File(u64),
    /// A symlink to this.
    Link(String),
    /// Another name of an earlier file.
    Hard(String),
    /// The path below is gone: a whiteout.
    Gone,
    /// Everything that lower layers have in this directory is gone.
    Opaque,
}

/// An entry of a layer, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEntry {
    /// Relative, without a leading slash and without `..`; empty is the root.
    pub path: String,
    /// What it is; of a whiteout, `path` is what is gone.
    pub kind: ReadKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Reads a layer entry by entry; `take` may read a file's content. Digest and length of the tar are what it ends with,
/// if all of it was read.
pub fn walk(
    content: &dyn Content,
    blob: &Descriptor,
    image: &str,
    take: &mut dyn FnMut(ReadEntry, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(Digest, u64), ImageError> {
    let digest = blob.digest;
    let failed = |source| ImageError::ReadLayer { digest, source };
    let mut hashed = Hashed { inner: decompressed(content, blob, image)?, hash: HashWriter::new(io::sink()) };
    {
        let (heads, budget) = Heads::new(&mut hashed);
        let mut archive = tar::Archive::new(heads);
        let mut entries = archive.entries().map_err(failed)?;
        let mut count = 0;
        loop {
            budget.set(MAX_HEAD);
            let Some(entry) = entries.next() else { break };
            budget.set(u64::MAX);
            let mut entry = entry.map_err(failed)?;
            count += 1;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let hostile = |why| ImageError::HostileEntry { digest, entry: name.chars().take(200).collect(), why };
            if count > MAX_ENTRIES {
                return Err(hostile("the layer has too many entries"));
            }
            // The holes of a sparse file cost nothing to claim.
            if entry.size() > MAX_UNPACKED {
                return Err(hostile("it is too large"));
            }
            if let Some(read) = read_entry(&mut entry, &hostile).map_err(|e| e.unwrap_or_else(failed))? {
                take(read, &mut entry)?;
            }
            // To its end, so that what is read next is what describes the next one.
            io::copy(&mut entry, &mut io::sink()).map_err(failed)?;
        }
        budget.set(u64::MAX);
    }
    // What follows the archive's end belongs to the digest as well.
    io::copy(&mut hashed, &mut io::sink()).map_err(failed)?;
    let (_, diff_id, length) = hashed.hash.finish();
    Ok((Digest(diff_id), length))
}

/// Allows only so many bytes to be read. The tar library holds names and attributes in memory, whatever their length.
pub(crate) struct Heads<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R> Heads<R> {
    /// The reader, and how much it may still read.
    pub(crate) fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let left = Rc::new(Cell::new(MAX_HEAD));
        (Self { inner, left: Rc::clone(&left) }, left)
    }
}

impl<R: Read> Read for Heads<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.get().checked_sub(n as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "what describes an entry is too long")),
        }
        Ok(n)
    }
}

impl<R: io::Seek> io::Seek for Heads<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hash: HashWriter<io::Sink>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        io::Write::write_all(&mut self.hash, &buf[..n])?;
        Ok(n)
    }
}

/// `Ok(None)` for what has no meaning in an image: devices, pipes, global headers.
fn read_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    hostile: &dyn Fn(&'static str) -> ImageError,
) -> Result<Option<ReadEntry>, Result<ImageError, io::Error>> {
    use tar::EntryType;
    let refuse = |why: &'static str| Err(Ok(hostile(why)));
    let bytes = entry.path_bytes().into_owned();
    let trimmed: &[u8] = bytes.strip_prefix(b"/").unwrap_or(&bytes);
    let path = match relative_path(if trimmed.is_empty() { b"." } else { trimmed }) {
        Ok(path) => path.unwrap_or_default(),
        Err(_) => return refuse("its name is no path within the image"),
    };
    let header = entry.header();
    let number = |n: io::Result<u64>| {
        n.map_err(Err).and_then(|n| u32::try_from(n).map_err(|_| Ok(hostile("its owner is no user id"))))
    };
    let (mut uid, mut gid) = (number(header.uid())?, number(header.gid())?);
    let mode = header.mode().map_err(Err)? & 0o7777;
    let link = entry.link_name_bytes().map(|l| l.into_owned());
    let kind = header.entry_type();
    let size = entry.size();
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions().map_err(Err)? {
        for extension in extensions {
            let extension = extension.map_err(Err)?;
            let Ok(key) = extension.key() else { continue };
            let value = extension.value_bytes();
            let text = || std::str::from_utf8(value).ok().and_then(|t| t.parse::<u32>().ok());
            match key {
                "uid" => uid = text().unwrap_or(uid),
                "gid" => gid = text().unwrap_or(gid),
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
    }
    let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(p, n)| (p, n));
    if name == ".wh..wh..opq" {
        let path = parent.to_owned();
        return Ok(Some(ReadEntry { path, kind: ReadKind::Opaque, mode, uid, gid, xattrs }));
    }
    if let Some(gone) = name.strip_prefix(".wh.") {
        if gone.is_empty() || gone == "." || gone == ".." {
            return refuse("it is a whiteout of nothing");
        }
        let path = if parent.is_empty() { gone.to_owned() } else { format!("{parent}/{gone}") };
        return Ok(Some(ReadEntry { path, kind: ReadKind::Gone, mode, uid, gid, xattrs }));
    }
    let target = |what: &'static str| {
        let bytes = link.clone().unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|_| Ok(hostile(what)))?;
        if text.is_empty() || text.len() > MAX_TARGET || text.contains('\0') {
            return Err(Ok(hostile(what)));
        }
        Ok(text)
    };
    let kind = match kind {
        EntryType::Directory => ReadKind::Dir,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => ReadKind::File(size),
        EntryType::Symlink => ReadKind::Link(target("it is a link to nothing")?),
        EntryType::Link => {
            let text = target("it is a hard link to nothing")?;
            match relative_path(text.trim_start_matches('/').as_bytes()) {
                Ok(Some(path)) => ReadKind::Hard(path),
                _ => return refuse("it is a hard link out of the image"),
            }
        }
        _ => return Ok(None),
    };
    if path.is_empty() && kind != ReadKind::Dir {
        return refuse("it is the root, and no directory");
    }
    Ok(Some(ReadEntry { path, kind, mode, uid, gid, xattrs }))
}
