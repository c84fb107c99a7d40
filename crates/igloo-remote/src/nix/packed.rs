//! The packed archive on its way: taken up again when a connection breaks, kept for the next run when that does not
//! help, counted and hashed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use igloo_base::Sha256;
use igloo_base::digest::HashWriter;
use igloo_base::file::FileLock;
use igloo_formats::nix::{NarInfo, StorePath};

use super::transport::Body;
use super::{BinaryCache, CacheError, decode};
use crate::RemoteError;

/// Smaller ones are not worth keeping when they break off.
const KEEP: u64 = 1 << 20;

/// An archive as it comes out of its packing.
pub struct NarReader {
    decoder: Box<dyn Read + Send>,
    packed: Packed,
}

impl Read for NarReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

impl NarReader {
    /// To be called when the archive was read to its end, or reading failed: why it failed, or whether the packed
    /// archive was what the cache had said.
    pub fn finish(mut self) -> Result<(), CacheError> {
        let cache = self.packed.lock().cache.named();
        let path = self.packed.lock().path.clone();
        // What follows the end of the packed stream is read, too, as long as it was promised.
        let rest = match self.decoder.read(&mut [0]) {
            Ok(0) => io::copy(&mut self.packed, &mut io::sink()).map(|_| ()),
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        let mut packed = self.packed.lock();
        if let Some(failure) = packed.failure.take() {
            return Err(failure);
        }
        rest.map_err(|source| CacheError::Read { cache: cache.clone(), path: path.clone(), source })?;
        let tally = std::mem::replace(&mut packed.tally, HashWriter::new(io::sink()));
        let (_, found, length) = tally.finish();
        let checked = match (packed.size, packed.hash) {
            (Some(expected), _) if length != expected => {
                Err(CacheError::FileSize { cache, path, expected, found: length })
            }
            (_, Some(expected)) if found != expected => Err(CacheError::FileHash { cache, path, expected, found }),
            _ => Ok(()),
        };
        // Good or bad: nobody will want to go on with it.
        packed.forget();
        checked
    }

    /// Whether it began with what an earlier run had left, so that another attempt may succeed where this one failed.
    pub fn was_resumed(&self) -> bool {
        self.packed.lock().resumed
    }

    /// Removes what was kept of it.
    pub fn forget(self) {
        self.packed.lock().forget();
    }
}

/// Shared by the decoder, which reads it, and by whoever asks how it ended.
#[derive(Clone)]
struct Packed {
    state: Arc<Mutex<State>>,
}

impl Packed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Packed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }
}

struct State {
    cache: BinaryCache,
    path: StorePath,
    url: String,
    hash: Option<Sha256>,
    size: Option<u64>,
    /// Not a byte more is read.
    most: u64,
    tally: HashWriter<io::Sink>,
    body: Option<Body>,
    part: Option<Part>,
    resumed: bool,
    /// Attempts since something new came.
    attempts: u32,
    failure: Option<CacheError>,
}

/// What is kept of it in a file, locked while it grows.
struct Part {
    lock: FileLock,
    path: PathBuf,
    /// So many bytes of it are still to be read.
    replay: u64,
}

impl State {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::ErrorKind::Other.into());
        }
        match self.next(buf) {
            Ok(count) => {
                self.tally.write_all(&buf[..count])?;
                Ok(count)
            }
            Err(error) => {
                let shown = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(shown))
            }
        }
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<usize, CacheError> {
        let held = self.tally.length();
        if held > self.most {
            let (cache, path) = (self.cache.named(), self.path.clone());
            return Err(CacheError::FileSize { cache, path, expected: self.most, found: held });
        }
        // One byte more than promised is asked for, to see whether there is one.
        let left = usize::try_from(self.most - held + 1).unwrap_or(usize::MAX);
        let longest = buf.len().min(left);
        let buf = &mut buf[..longest];
        if let Some(part) = self.part.as_mut().filter(|part| part.replay > 0) {
            let longest = buf.len().min(usize::try_from(part.replay).unwrap_or(usize::MAX));
            match part.lock.file().read(&mut buf[..longest]) {
                Ok(count) if count > 0 => {
                    part.replay -= count as u64;
                    self.resumed = true;
                    return Ok(count);
                }
                // It is shorter than it was, or cannot be read: the network has the rest.
                _ => self.part = None,
            }
        }
        loop {
            match self.fetch(buf, held) {
                Ok(Ok(count)) => {
                    if count > 0 {
                        self.attempts = 0;
                        self.keep(&buf[..count]);
                    }
                    return Ok(count);
                }
                Ok(Err(error)) => {
                    self.body = None;
                    let client = &self.cache.inner.client;
                    if self.attempts >= error.retries(client.config().retries) {
                        return Err(self.cache.remote_error(error));
                    }
                    std::thread::sleep(client.pause(self.attempts));
                    self.attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Some bytes from position `held` on; what may pass is the inner error.
    fn fetch(&mut self, buf: &mut [u8], held: u64) -> Result<Result<usize, RemoteError>, CacheError> {
        let broken = |source| RemoteError::Read { url: self.url.clone(), source };
        if self.body.is_none() {
            // A server may refuse to continue at the end.
            if self.size == Some(held) && held > 0 {
                return Ok(Ok(0));
            }
            let (mut body, begins) = match self.cache.open(&self.url, held)? {
                Ok(opened) => opened,
                Err(error) => return Ok(Err(error)),
            };
            // A server that knows no ranges sends everything again.
            let skipped = io::copy(&mut (&mut body).take(held - begins), &mut io::sink());
            match skipped {
                Ok(count) if count == held - begins => self.body = Some(body),
                Ok(_) => return Ok(Err(broken(io::ErrorKind::UnexpectedEof.into()))),
                Err(source) => return Ok(Err(broken(source))),
            }
        }
        let Some(body) = &mut self.body else { return Ok(Ok(0)) };
        loop {
            return Ok(match body.read(buf) {
                Ok(0) if self.size.is_some_and(|size| held < size) => match body {
                    // What a file lacks will not come.
                    Body::File(_) => Ok(0),
                    Body::Answer(..) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
                },
                Ok(count) => Ok(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => Err(broken(source)),
            });
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // A full disk is told by what is unpacked there.
        if let Some(part) = &self.part
            && part.lock.file().write_all(bytes).is_err()
        {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some(part) = self.part.take() {
            let _ = std::fs::remove_file(&part.path);
        }
    }
}

impl BinaryCache {
    /// The archive that a narinfo speaks of. What a broken transfer brought is kept below `parts`, if it is long, and
    /// the next attempt, in this run or in another, goes on from there.
    pub fn nar(&self, info: &NarInfo, parts: Option<&Path>) -> Result<NarReader, CacheError> {
        // A packing makes an archive hardly longer; caches that do not tell the size get some leave.
        let most =
            info.file_size.unwrap_or_else(|| info.nar_size.saturating_add(info.nar_size / 8).saturating_add(1 << 20));
        let local = matches!(self.inner.address.place, super::address::Place::Dir(_));
        let keep = parts.filter(|_| !local && info.file_size.is_some_and(|size| size >= KEEP));
        let part = keep.zip(info.file_hash).and_then(|(dir, hash)| Part::open(dir, hash, most));
        let state = State {
            cache: self.clone(),
            path: info.path.clone(),
            url: info.url.clone(),
            hash: info.file_hash,
            size: info.file_size,
            most,
            tally: HashWriter::new(io::sink()),
            body: None,
            part,
            resumed: false,
            attempts: 0,
            failure: None,
        };
        let packed = Packed { state: Arc::new(Mutex::new(state)) };
        let failed = |source| CacheError::Read { cache: self.named(), path: info.path.clone(), source };
        let decoder = decode::decoder(info.compression, packed.clone()).map_err(failed)?;
        Ok(NarReader { decoder, packed })
    }
}

impl Part {
    /// The kept part of a file; none if another process has it, or it cannot be kept.
    fn open(dir: &Path, hash: Sha256, most: u64) -> Option<Self> {
        let path = dir.join(format!("{hash}.part"));
        let lock = FileLock::try_exclusive(&path).ok()??;
        let mut file: &File = lock.file();
        let mut length = file.metadata().ok()?.len();
        if length > most {
            file.set_len(0).ok()?;
            length = 0;
        }
        file.seek(SeekFrom::Start(0)).ok()?;
        Some(Self { lock, path, replay: length })
    }
}
