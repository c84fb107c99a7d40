//! Images unpacked: all layers merged into one tree of plain files, for our own runtime. The one owner of `cache/oci/trees`:
//!
//! ```text
//! cache/oci/trees/.lock             held while something is unpacked
//! cache/oci/trees/.igloo-<random>   a tree under way; without a holder of the lock it is garbage
//! cache/oci/trees/<name>/root       the files, owned by the caller, without setuid bits
//! cache/oci/trees/<name>/attributes.json   owners and modes that these can't carry
//! ```
//!
//! A tree's name is the chain of its layers' digests, so that images with the same layers share it. It appears whole and
//! on disk, or not at all. Nothing outside of the tree is ever touched: what an entry's name means is decided by what was
//! unpacked before, and the kernel is told to follow no link.
//!
//! A layer is laid over what is below as overlayfs does it: a directory where a lower layer has a link replaces the link.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use igloo_base::digest::HashWriter;
use igloo_base::file::{FileLock, create_dirs, create_private_dir, read_optional, remove_tree};
use igloo_base::{At as _, PathError, Reporter, Sha256, Task, Unit};
use igloo_formats::oci::{Descriptor, Digest};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use crate::ImageError;
use crate::content::Content;
use crate::reader::{ReadEntry, ReadKind, walk};
use crate::tree::Image;

/// Version of what an unpacked tree looks like. Raised by every change.
const UNPACK: u32 = 1;
/// Most paths of one image; the largest known have some hundred thousand. Each is held in memory meanwhile.
const MAX_PATHS: usize = 2_000_000;
/// Most bytes of all of them, for the same reason: real ones have some sixty each.
const MAX_NAMES: usize = 512 << 20;
/// Most bytes of one image: a blob of some kilobytes can claim any length.
const MAX_BYTES: u64 = 128 << 30;
/// Read and written at once.
const CHUNK: usize = 128 << 10;

const LOCK: &str = ".lock";
const PARTIAL: &str = ".igloo-";
const ROOT: &str = "root";
const ATTRIBUTES: &str = "attributes.json";

/// Owner and mode of a path that its file in the tree does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Absolute; never a symlink.
    pub path: String,
    /// Whether it is a directory.
    pub dir: bool,
    /// Permission bits, setuid and friends included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// An image, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// What is `/` of the image.
    pub root: PathBuf,
    /// What its files can't carry, parents first.
    pub attributes: Vec<Attribute>,
}

/// The directory of unpacked images.
#[derive(Debug, Clone)]
pub struct Trees {
    directory: PathBuf,
}

impl Trees {
    /// Trees below `directory`, which is made when something is unpacked.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the tree of an image with these layers, lowest first.
    pub fn name<'d>(diff_ids: impl IntoIterator<Item = &'d Digest>) -> String {
        // OCI's chain id, and what else decides the bytes on disk.
        let chain = diff_ids.into_iter().fold(None, |chain: Option<Digest>, diff_id| match chain {
            Some(below) => Some(Digest(Sha256::of(format!("{below} {diff_id}").as_bytes()))),
            None => Some(*diff_id),
        });
        format!("{}-{UNPACK}", chain.map_or_else(|| Sha256::of(b"").to_string(), |chain| chain.0.to_string()))
    }

    /// The tree of an image, if it is here. Counts as a use.
    pub fn find(&self, image: &Image) -> Result<Option<Tree>, ImageError> {
        let path = self.directory.join(Self::name(&image.config.rootfs.diff_ids));
        let record = path.join(ATTRIBUTES);
        let Some(bytes) = read_optional(&record)? else { return Ok(None) };
        let attributes =
            serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path: record, source })?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).at("note the use of", &path)?;
        Ok(Some(Tree { root: path.join(ROOT), attributes }))
    }

    /// The tree of an image; it is unpacked unless it is here. Every layer is verified by both its digests.
    pub fn unpack(
        &self,
        content: &dyn Content,
        image: &Image,
        name: &str,
        reporter: &dyn Reporter,
    ) -> Result<Tree, ImageError> {
        if let Some(tree) = self.find(image)? {
            return Ok(tree);
        }
        // Others could read what is a person's own, and find files that are setuid elsewhere.
        create_private_dir(&self.directory)?;
        let _turn = FileLock::exclusive(self.directory.join(LOCK))?;
        if let Some(tree) = self.find(image)? {
            return Ok(tree);
        }
        self.sweep()?;
        let partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(&self.directory)
            .at("create a directory in", &self.directory)?;
        // Removed by our own function, which knows read-only directories.
        let partial = partial.keep();
        let made = merge(&partial.join(ROOT), content, image, name, reporter)
            .and_then(|attributes| self.finish(&partial, image, attributes));
        if made.is_err() {
            // What stays is swept by the next one; the first error is what counts.
            drop(remove_tree(&partial));
        }
        made
    }

    fn finish(&self, partial: &Path, image: &Image, attributes: Vec<Attribute>) -> Result<Tree, ImageError> {
        let record = partial.join(ATTRIBUTES);
        let bytes =
            serde_json::to_vec(&attributes).map_err(|source| ImageError::Record { path: record.clone(), source })?;
        fs::write(&record, bytes).at("write", &record)?;
        // One call for all files: they must be on disk before the name is.
        let directory = File::open(partial).at("open", partial)?;
        rustix::fs::syncfs(&directory).at("write to disk", partial)?;
        let path = self.directory.join(Self::name(&image.config.rootfs.diff_ids));
        // Of a record that is missing, the files are of no use.
        remove_tree(&path)?;
        fs::rename(partial, &path).at("create", &path)?;
        File::open(&self.directory).and_then(|d| d.sync_all()).at("sync the directory", &self.directory)?;
        Ok(Tree { root: path.join(ROOT), attributes })
    }

    /// Removes what killed ones left. The lock is held.
    fn sweep(&self) -> Result<(), ImageError> {
        for entry in fs::read_dir(&self.directory).at("list", &self.directory)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                remove_tree(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Unpacks all layers into a new directory.
fn merge(
    root: &Path,
    content: &dyn Content,
    image: &Image,
    name: &str,
    reporter: &dyn Reporter,
) -> Result<Vec<Attribute>, ImageError> {
    let layers = &image.manifest.layers;
    let total = layers.iter().map(|l| l.size).sum();
    let task = Task::start(reporter, format!("unpack {} layers", layers.len()), Some(total), Unit::Bytes);
    create_dirs(root)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).at("open", root)?;
    let mut merge = Merge {
        image: name,
        path: root,
        root: Arc::new(fd),
        open: None,
        nodes: BTreeMap::from([(String::new(), Node { layer: 0, kind: Kind::Dir, mode: 0o755, uid: 0, gid: 0 })]),
        layer: 0,
        digest: Digest(Sha256::of(b"")),
        names: 0,
        bytes: 0,
        buffer: vec![0; CHUNK],
    };
    for (blob, diff_id) in layers.iter().zip(&image.config.rootfs.diff_ids) {
        merge.layer += 1;
        merge.digest = blob.digest;
        let verified = Verified { inner: content, blob, seen: Arc::default() };
        let walked = walk(&verified, blob, name, &mut |entry, content| merge.apply(&entry, content));
        let wrong = || ImageError::WrongDigest { image: name.to_owned(), digest: blob.digest };
        let found = match walked {
            Ok((found, _)) => found,
            // What can't be read is often not what was promised, which is the better thing to say.
            Err(e @ (ImageError::ReadLayer { .. } | ImageError::HostileEntry { .. })) => {
                return Err(if verified.is_sound()? { e } else { wrong() });
            }
            Err(e) => return Err(e),
        };
        if found != *diff_id || !verified.was_sound() {
            return Err(wrong());
        }
        task.advance(blob.size);
    }
    Ok(merge.attributes())
}

/// Hashes a blob as it is read.
struct Verified<'c> {
    inner: &'c dyn Content,
    blob: &'c Descriptor,
    seen: Arc<Mutex<Option<HashWriter<io::Sink>>>>,
}

struct Hashing {
    inner: Box<dyn Read + Send>,
    seen: Arc<Mutex<Option<HashWriter<io::Sink>>>>,
}

impl Content for Verified<'_> {
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        let Some(inner) = self.inner.open(digest)? else { return Ok(None) };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashWriter::new(io::sink()));
        Ok(Some(Box::new(Hashing { inner, seen: Arc::clone(&self.seen) })))
    }
}

impl Read for Hashing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(hash) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            hash.write_all(&buf[..n])?;
        }
        Ok(n)
    }
}

impl Verified<'_> {
    /// Whether what was read is what was promised, all of it.
    fn was_sound(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.is_some_and(|hash| {
            let (_, digest, length) = hash.finish();
            (digest, length) == (self.blob.digest.0, self.blob.size)
        })
    }

    /// The same, read anew.
    fn is_sound(&self) -> Result<bool, ImageError> {
        let Some(reader) = self.inner.open(&self.blob.digest)? else { return Ok(false) };
        let mut reader = reader.take(self.blob.size.saturating_add(1));
        let found = Sha256::of_reader(&mut reader).at("read", self.blob.digest.to_string())?;
        Ok(found == (self.blob.digest.0, self.blob.size))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Link,
}

/// What is at a path, after the layers so far.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The last layer that has it, or something below it.
    layer: u32,
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Bits that a file of the tree carries itself. What is ours must be readable and, if a directory, ours to fill.
fn carried(kind: Kind, mode: u32) -> u32 {
    mode & 0o777 | if kind == Kind::Dir { 0o700 } else { 0o400 }
}

/// The tree under way. What `nodes` tells is what is on disk: everything there was put there by us.
struct Merge<'m> {
    image: &'m str,
    path: &'m Path,
    root: Arc<OwnedFd>,
    /// The directory that was used last: neighbours come one after the other.
    open: Option<(String, Arc<OwnedFd>)>,
    /// By path, `""` the root. What is below a directory of an old layer is of old layers, too.
    nodes: BTreeMap<String, Node>,
    /// From 1.
    layer: u32,
    digest: Digest,
    /// Bytes of all names of entries.
    names: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Merge<'_> {
    fn apply(&mut self, entry: &ReadEntry, content: &mut dyn Read) -> Result<(), ImageError> {
        let path = entry.path.as_str();
        self.names += path.len();
        if self.nodes.len() >= MAX_PATHS || self.names > MAX_NAMES {
            return self.too_much(format!("more than {MAX_PATHS} paths, or {MAX_NAMES} bytes of them, are too many"));
        }
        let node = |kind| Node { layer: self.layer, kind, mode: entry.mode, uid: entry.uid, gid: entry.gid };
        match &entry.kind {
            // The root itself stays, whatever a layer says.
            ReadKind::Gone if !path.is_empty() => self.remove_older(path, true),
            ReadKind::Gone => Ok(()),
            ReadKind::Opaque => {
                if self.nodes.get(path).is_some_and(|n| n.kind == Kind::Dir) {
                    self.remove_older(path, false)?;
                }
                Ok(())
            }
            ReadKind::Dir => {
                let node = node(Kind::Dir);
                if self.nodes.get(path).is_none_or(|n| n.kind != Kind::Dir) {
                    self.make_way(path)?;
                    self.make_dir(path, node)
                } else {
                    self.touch_parents(path)?;
                    self.change_dir_mode(path, node.mode)?;
                    self.nodes.insert(path.to_owned(), node);
                    Ok(())
                }
            }
            ReadKind::File(_) => {
                let node = node(Kind::File);
                self.make_way(path)?;
                self.write(path, content, node.mode)?;
                self.nodes.insert(path.to_owned(), node);
                Ok(())
            }
            ReadKind::Link(target) => {
                let node = node(Kind::Link);
                self.make_way(path)?;
                let (parent, name) = self.parent(path)?;
                self.at("create the link", path, rustix::fs::symlinkat(target.as_str(), &*parent, name))?;
                self.nodes.insert(path.to_owned(), node);
                Ok(())
            }
            ReadKind::Hard(target) => self.hard_link(path, target),
        }
    }

    fn hard_link(&mut self, path: &str, target: &str) -> Result<(), ImageError> {
        if path == target {
            return self.hostile(path, "it is a hard link to itself");
        }
        self.make_way(path)?;
        let node = match self.nodes.get(target) {
            Some(node) if node.kind != Kind::Dir => Node { layer: self.layer, ..*node },
            Some(_) => return self.hostile(path, "it is a hard link to a directory"),
            None => return self.hostile(path, "it is a hard link to nothing that was unpacked"),
        };
        let (from, first) = self.parent(target)?;
        let (to, name) = self.parent(path)?;
        // No flag: a symlink is linked itself, and not followed.
        self.at("link", path, rustix::fs::linkat(&*from, first, &*to, name, AtFlags::empty()))?;
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Makes the parents of a path, and removes what is at it.
    fn make_way(&mut self, path: &str) -> Result<(), ImageError> {
        self.touch_parents(path)?;
        match self.nodes.get(path) {
            Some(_) => self.remove(path, &|_| true, true),
            None => Ok(()),
        }
    }

    /// Sees to it that everything above a path is a directory, and is known to be of this layer.
    fn touch_parents(&mut self, path: &str) -> Result<(), ImageError> {
        let layer = self.layer;
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends {
            let above = &path[..end];
            match self.nodes.get_mut(above) {
                Some(node) if node.kind == Kind::Dir => node.layer = layer,
                Some(node) if node.layer == layer => {
                    return self.hostile(path, "what is above it is no directory in the same layer");
                }
                found => {
                    if found.is_some() {
                        self.remove(above, &|_| true, true)?;
                    }
                    self.make_dir(above, Node { layer, kind: Kind::Dir, mode: 0o755, uid: 0, gid: 0 })?;
                }
            }
        }
        Ok(())
    }

    /// A whiteout: what older layers have at (if `itself`) and below a path is gone.
    fn remove_older(&mut self, path: &str, itself: bool) -> Result<(), ImageError> {
        let layer = self.layer;
        self.remove(path, &|node| node.layer < layer, itself)
    }

    /// Removes what is below a path, and itself if asked to, as far as `gone` says. Deepest first.
    fn remove(&mut self, path: &str, gone: &dyn Fn(&Node) -> bool, itself: bool) -> Result<(), ImageError> {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut paths: Vec<(String, Kind)> = self
            .nodes
            .range(below.clone()..)
            .take_while(|(p, _)| p.starts_with(&below))
            .filter(|(p, node)| !p.is_empty() && gone(node))
            .map(|(p, node)| (p.clone(), node.kind))
            .collect();
        if let Some(node) = self.nodes.get(path).filter(|node| itself && gone(node)) {
            paths.insert(0, (path.to_owned(), node.kind));
        }
        for (path, kind) in paths.into_iter().rev() {
            let (parent, name) = self.parent(&path)?;
            let flags = if kind == Kind::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            self.at("remove", &path, rustix::fs::unlinkat(&*parent, name, flags))?;
            self.nodes.remove(&path);
            if self.open.as_ref().is_some_and(|(open, _)| *open == path) {
                self.open = None;
            }
        }
        Ok(())
    }

    fn make_dir(&mut self, path: &str, node: Node) -> Result<(), ImageError> {
        let (parent, name) = self.parent(path)?;
        self.at("create the directory", path, rustix::fs::mkdirat(&*parent, name, Mode::RWXU))?;
        self.nodes.insert(path.to_owned(), node);
        self.change_dir_mode(path, node.mode)
    }

    /// Whatever the umask.
    fn change_dir_mode(&mut self, path: &str, mode: u32) -> Result<(), ImageError> {
        let name = if path.is_empty() { "." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.at("open", path, rustix::fs::openat2(&*self.root, name, flags, Mode::empty(), RESOLVE))?;
        let mode = Mode::from_raw_mode(carried(Kind::Dir, mode));
        self.at("change the mode of", path, rustix::fs::fchmod(fd, mode))
    }

    fn write(&mut self, path: &str, content: &mut dyn Read, mode: u32) -> Result<(), ImageError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(self.at("create", path, made)?);
        loop {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ImageError::ReadLayer { digest: self.digest, source }),
            };
            self.bytes += n as u64;
            if self.bytes > MAX_BYTES {
                return self.too_much(format!("more than {} GiB of files are too many", MAX_BYTES >> 30));
            }
            file.write_all(&self.buffer[..n]).at("write", self.path.join(path))?;
        }
        let mode = Mode::from_raw_mode(carried(Kind::File, mode));
        self.at("change the mode of", path, rustix::fs::fchmod(&file, mode))
    }

    /// The directory that a path is in, open, and the last part of the path.
    fn parent<'p>(&mut self, path: &'p str) -> Result<(Arc<OwnedFd>, &'p str), ImageError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if parent.is_empty() {
            return Ok((Arc::clone(&self.root), name));
        }
        if let Some((open, fd)) = &self.open
            && open == parent
        {
            return Ok((Arc::clone(fd), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&*self.root, parent, flags, Mode::empty(), RESOLVE);
        let fd = Arc::new(self.at("open", parent, opened)?);
        self.open = Some((parent.to_owned(), Arc::clone(&fd)));
        Ok((fd, name))
    }

    fn at<T>(&self, act: &'static str, path: &str, result: rustix::io::Result<T>) -> Result<T, ImageError> {
        Ok(result.map_err(|e| PathError { act, path: self.path.join(path), source: e.into() })?)
    }

    fn hostile<T>(&self, path: &str, why: &'static str) -> Result<T, ImageError> {
        Err(ImageError::HostileEntry { digest: self.digest, entry: path.chars().take(200).collect(), why })
    }

    fn too_much<T>(&self, what: String) -> Result<T, ImageError> {
        Err(ImageError::Unsupported { image: self.image.to_owned(), what })
    }

    /// What the files on disk don't have.
    fn attributes(&self) -> Vec<Attribute> {
        let differs = |node: &Node| {
            node.kind != Kind::Link && (node.uid, node.gid, node.mode) != (0, 0, carried(node.kind, node.mode))
        };
        let attribute = |(path, node): (&String, &Node)| Attribute {
            path: format!("/{path}"),
            dir: node.kind == Kind::Dir,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
        };
        self.nodes.iter().filter(|(_, node)| differs(node)).map(attribute).collect()
    }
}

/// Should anything not be as we left it, nothing outside is reached.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

#[cfg(test)]
mod tests;
