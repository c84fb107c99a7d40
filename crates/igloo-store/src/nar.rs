//! Objects from archives and archives from objects: how a store path comes from another store and goes to one.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use igloo_base::digest::HashWriter;
use igloo_base::{At, PathError, Sha256};
use igloo_formats::nix::content_address::HashModulo;
use igloo_formats::nix::nar::{self, Node};
use igloo_formats::nix::{ContentAddress, StorePath};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::Store;
use crate::db::PathInfo;
use crate::error::StoreError;
use crate::stage::Staged;
use crate::tree::{self, TIMES};

/// Read at once, and hashed in pieces of this length.
const BUFFER: usize = 128 << 10;

impl Store {
    /// Unpacks an archive in one pass and checks that it is what `info` says: size, digest, content address. Not a byte
    /// more than `info.nar_size` is read. When it was registered and whether it was built here is not taken from
    /// `info`. That its references are right, somebody must vouch for: a signature, or a lock.
    pub fn stage_nar(&self, info: &PathInfo, nar: &mut dyn Read) -> Result<Staged, StoreError> {
        let tree = self.writer()?.make()?;
        let parent = File::open(tree.path()).at("open", tree.path())?;
        let mut source = Counted { inner: nar, tally: HashWriter::new(io::sink()), most: info.nar_size, failure: None };
        let mut restore = Restore::new(parent.into());
        let result =
            nar::read(&mut BufReader::with_capacity(BUFFER, &mut source), |name, node| restore.node(name, node));
        let wrong_size = |found| StoreError::NarSize { path: info.path.clone(), expected: info.nar_size, found };
        if let Some(source) = source.failure {
            return Err(StoreError::NarRead { path: info.path.clone(), source });
        }
        if source.tally.length() > info.nar_size {
            return Err(wrong_size(source.tally.length()));
        }
        if let Err(error) = result {
            return Err(match error.into_io() {
                Ok(source) => PathError { act: "write an object to", path: tree.path().to_owned(), source }.into(),
                Err(source) => StoreError::Nar { path: info.path.clone(), source },
            });
        }
        let (_, found, length) = source.tally.finish();
        if length != info.nar_size {
            return Err(wrong_size(length));
        }
        if found != info.nar_hash {
            return Err(StoreError::NarHash { path: info.path.clone(), expected: info.nar_hash, found });
        }
        let root = tree.path().join(ROOT);
        check_content(info, &root)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_secs() as i64);
        let mut info = PathInfo { registered: now, ultimate: false, ..info.clone() };
        info.references.sort();
        info.references.dedup();
        Ok(Staged::inside(info, tree, ROOT))
    }

    /// Writes the archive of an object, as it lies on disk.
    pub fn export_nar<W: Write>(&self, path: &StorePath, out: W) -> Result<W, StoreError> {
        Ok(tree::dump(&self.physical(path), out, false)?)
    }

    /// Registers objects that are valid already with more signatures.
    pub fn add_signatures(&self, path: &StorePath, signatures: &[String]) -> Result<(), StoreError> {
        self.writable()?;
        self.db()?.add_signatures(path, signatures)
    }
}

/// What an object is called while it is made.
const ROOT: &str = "object";

/// Whether the content is what the content address says, if there is one that we know. Whether the path follows from
/// that is the caller's matter.
fn check_content(info: &PathInfo, root: &Path) -> Result<(), StoreError> {
    let Some(address) = info.content_address.as_ref().and_then(|a| a.parse::<ContentAddress>().ok()) else {
        return Ok(());
    };
    let (expected, found) = match address {
        ContentAddress::Recursive(digest) if info.references.contains(&info.path) => {
            let modulo = tree::dump(root, HashModulo::new(info.path.hash_part()), false)?;
            (digest, modulo.finish())
        }
        ContentAddress::Recursive(digest) => (digest, info.nar_hash),
        ContentAddress::Flat(digest) | ContentAddress::Text(digest) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(root, flags, Mode::empty()).map(File::from).at("open", root)?;
            if !file.metadata().at("inspect", root)?.is_file() {
                return Err(StoreError::ContentAddress { path: info.path.clone() });
            }
            (digest, Sha256::of_reader(&mut BufReader::new(file)).at("read", root)?.0)
        }
    };
    if found == expected { Ok(()) } else { Err(StoreError::ContentAddress { path: info.path.clone() }) }
}

/// A reader that hashes and counts, and stops after one byte too many.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    tally: HashWriter<io::Sink>,
    most: u64,
    failure: Option<io::Error>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.tally.length() > self.most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let left = self.most - self.tally.length();
        let longest = buf.len().min(usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX));
        match self.inner.read(&mut buf[..longest]) {
            Ok(count) => {
                self.tally.write_all(&buf[..count])?;
                Ok(count)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let copy = io::Error::new(e.kind(), e.to_string());
                self.failure = Some(e);
                Err(copy)
            }
        }
    }
}

/// Writes the nodes of an archive, each relative to the directory it is in, with the modes and times of objects.
struct Restore {
    /// The open directories; the first holds the root.
    open: Vec<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Restore {
    fn new(parent: OwnedFd) -> Self {
        Self { open: vec![parent], buffer: vec![0; BUFFER].into_boxed_slice() }
    }

    fn node(&mut self, name: Option<&[u8]>, node: Node<'_>) -> io::Result<()> {
        let name = CString::new(name.unwrap_or(ROOT.as_bytes()))?;
        let parent = self.open.last().ok_or(io::ErrorKind::InvalidInput)?;
        match node {
            Node::Dir => {
                rustix::fs::mkdirat(parent, &name, Mode::RWXU)?;
                let dir = tree::open_dir(parent.as_fd(), &name)?;
                self.open.push(dir);
            }
            Node::EndDir => {
                // The root must stay writable until it is moved to its place.
                if self.open.len() > 2 {
                    tree::seal_dir(parent.as_fd())?;
                }
                self.open.pop();
            }
            Node::Symlink(target) => {
                rustix::fs::symlinkat(target, parent, &name)?;
                rustix::fs::utimensat(parent, &name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Node::File { executable, content, .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
                let mut file = File::from(rustix::fs::openat(parent, &name, flags, mode)?);
                loop {
                    match content.read(&mut self.buffer) {
                        Ok(0) => break,
                        Ok(count) => file.write_all(&self.buffer[..count])?,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                // The mask of the process may have taken something away.
                rustix::fs::fchmod(&file, mode)?;
                rustix::fs::futimens(&file, &TIMES)?;
            }
        }
        Ok(())
    }
}
