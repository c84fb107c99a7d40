//! Uploads: content on its way in, hashed as it comes, at most so many at a time.
//!
//! An upload is a file in `uploads`, named by its id and its repository; everything else about it is in memory and
//! can be had again from the file, so that an upload goes on after a restart.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use igloo_base::digest::HashWriter;
use igloo_base::{At as _, Sha256};
use igloo_formats::oci::Digest;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::name::Repository;
use super::refusal::Refusal;
use super::storage::Storage;
use super::tokens;
use crate::error::ServeError;
use crate::http::Frames;

/// How much is gathered before it is hashed and written.
const BATCH: usize = 1 << 20;
/// When all places are taken, an upload to which nothing came for so long is given up for a new one.
const PATIENCE: Duration = Duration::from_secs(60);

/// All uploads under way.
pub(crate) struct Uploads {
    storage: Storage,
    most: usize,
    largest: u64,
    expiry: Duration,
    open: Mutex<HashMap<String, Arc<Session>>>,
}

/// One upload.
pub(crate) struct Session {
    /// Its name in addresses.
    pub id: String,
    path: PathBuf,
    length: AtomicU64,
    used: Mutex<Instant>,
    /// Whose turn it is: a client that comes again displaces its former self, whose connection may be dead.
    turn: watch::Sender<u64>,
    writer: Arc<tokio::sync::Mutex<Option<HashWriter<File>>>>,
}

impl Session {
    /// Bytes that are there.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn touch(&self) {
        *locked(&self.used) = Instant::now();
    }

    fn idle(&self) -> Duration {
        locked(&self.used).elapsed()
    }
}

/// A request's hold on an upload.
pub(crate) struct Turn {
    pub session: Arc<Session>,
    writer: OwnedMutexGuard<Option<HashWriter<File>>>,
    current: watch::Receiver<u64>,
}

/// A batch on its way to the disk.
type Writing = JoinHandle<Result<HashWriter<File>, ServeError>>;

impl Turn {
    /// Begins to hash and write a batch, where waiting for the disk holds up nobody.
    fn write(&mut self, batch: Vec<Bytes>) -> Result<Writing, Refusal> {
        let gone = || Refusal::bad("BLOB_UPLOAD_INVALID", "the upload could not be written");
        let mut writer = self.writer.take().ok_or_else(gone)?;
        let path = self.session.path.clone();
        Ok(spawn_blocking(move || {
            for bytes in &batch {
                writer.write_all(bytes).at("write", &path)?;
            }
            Ok(writer)
        }))
    }

    /// Waits until a batch is written. After a failure what is on disk counts.
    async fn written(&mut self, writing: Option<Writing>) -> Result<(), Refusal> {
        if let Some(writing) = writing {
            let writer = writing.await??;
            self.session.length.store(writer.length(), Ordering::Release);
            *self.writer = Some(writer);
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a file's name that ties an upload to its repository.
fn tie(repository: &Repository) -> String {
    Sha256::of(repository.as_str().as_bytes()).to_string()[..16].to_owned()
}

impl Uploads {
    /// Uploads in a storage, those included that a former server left.
    pub(crate) fn open(storage: &Storage, most: usize, largest: u64, expiry: Duration) -> Result<Self, ServeError> {
        let mut open = HashMap::new();
        let directory = storage.uploads();
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let entry = entry.at("list", &directory)?;
            let meta = entry.metadata().at("look at", &directory)?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            let age = meta.modified().ok().and_then(|m| m.elapsed().ok()).unwrap_or_default();
            if age > expiry {
                super::storage::remove(&entry.path())?;
            } else if meta.is_file() {
                open.insert(id.clone(), Arc::new(session(id, entry.path(), meta.len(), None)));
            }
        }
        Ok(Self { storage: storage.clone(), most, largest, expiry, open: Mutex::new(open) })
    }

    /// The largest content that is taken.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        locked(&self.open).len()
    }

    /// A new upload to a repository.
    pub(crate) async fn begin(&self, repository: &Repository) -> Result<Arc<Session>, Refusal> {
        let random = tokens::random()?;
        let id = format!("{}-{}", &random[..32], tie(repository));
        let path = self.storage.uploads().join(&id);
        let created = path.clone();
        let file = spawn_blocking(move || {
            OpenOptions::new().write(true).create_new(true).open(&created).at("create", &created)
        })
        .await??;
        let session = Arc::new(session(id.clone(), path, 0, Some(HashWriter::new(file))));
        let mut open = locked(&self.open);
        if open.len() >= self.most {
            let oldest = open.values().filter(|s| s.idle() > PATIENCE).max_by_key(|s| s.idle()).map(|s| s.id.clone());
            let displaced = oldest.and_then(|id| open.remove(&id));
            let gone = displaced.as_ref().unwrap_or(&session);
            // What can't be removed now is removed when it has expired.
            let _ = fs::remove_file(&gone.path);
            if displaced.is_none() {
                return Err(Refusal::busy("too many uploads are under way; try again later", 10));
            }
        }
        open.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// An upload of a repository.
    pub(crate) fn find(&self, repository: &Repository, id: &str) -> Result<Arc<Session>, Refusal> {
        let unknown = || Refusal::missing("BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin a new one");
        if id.rsplit_once('-').is_none_or(|(_, tied)| tied != tie(repository)) {
            return Err(unknown());
        }
        let session = locked(&self.open).get(id).cloned().ok_or_else(unknown)?;
        session.touch();
        Ok(session)
    }

    /// Waits until no other request writes to an upload; one that does is made to end.
    pub(crate) async fn turn(&self, session: Arc<Session>) -> Result<Turn, Refusal> {
        session.turn.send_modify(|turn| *turn += 1);
        let mut current = session.turn.subscribe();
        current.mark_unchanged();
        let mut writer = Arc::clone(&session.writer).lock_owned().await;
        if !locked(&self.open).contains_key(&session.id) {
            return Err(Refusal::missing("BLOB_UPLOAD_UNKNOWN", "the upload has ended; begin a new one"));
        }
        if writer.is_none() {
            // After a restart, or after a write that failed: what is on disk counts.
            let path = session.path.clone();
            let again = spawn_blocking(move || reopen(&path)).await??;
            session.length.store(again.length(), Ordering::Release);
            *writer = Some(again);
        }
        Ok(Turn { session, writer, current })
    }

    /// Takes the rest of a request into an upload, `most` bytes at most. What came before a failure stays.
    pub(crate) async fn receive(&self, turn: &mut Turn, frames: &mut Frames<'_>, most: u64) -> Result<(), Refusal> {
        let mut batch: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        let mut writing = None;
        let mut received: u64 = 0;
        let start = turn.session.length();
        let ended = loop {
            let frame = tokio::select! {
                biased;
                _ = turn.current.changed() => {
                    let said = "another request goes on with this upload";
                    break Err(Refusal::bad("BLOB_UPLOAD_INVALID", said));
                }
                frame = frames.next() => frame,
            };
            match frame {
                Err(broken) => break Err(broken.into()),
                Ok(None) => break Ok(()),
                Ok(Some(bytes)) => {
                    received += bytes.len() as u64;
                    gathered += bytes.len();
                    if received > most {
                        break Err(Refusal::bad("SIZE_INVALID", "there is more content than was announced"));
                    }
                    if start + received > self.largest {
                        break Err(self.too_large());
                    }
                    batch.push(bytes);
                }
            }
            if gathered >= BATCH {
                // One batch is written while the next one comes.
                turn.written(writing.take()).await?;
                writing = Some(turn.write(std::mem::take(&mut batch))?);
                gathered = 0;
                turn.session.touch();
            }
        };
        turn.written(writing).await?;
        let rest = turn.write(batch)?;
        turn.written(Some(rest)).await?;
        turn.session.touch();
        ended
    }

    pub(crate) fn too_large(&self) -> Refusal {
        let said = format!("content of more than {} bytes is not taken", self.largest);
        Refusal::new(hyper::StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", said)
    }

    /// Ends an upload: what it brought becomes a blob of the repository, if it is what it should be.
    pub(crate) async fn finish(&self, mut turn: Turn, repository: &Repository, digest: Digest) -> Result<(), Refusal> {
        let Some(writer) = turn.writer.take() else {
            return Err(Refusal::bad("BLOB_UPLOAD_INVALID", "the upload could not be written"));
        };
        let (storage, repository, path) = (self.storage.clone(), repository.clone(), turn.session.path.clone());
        let stored = spawn_blocking(move || {
            let (file, found, _) = writer.finish();
            if found != digest.0 {
                let said = format!("the content has the digest sha256:{found}, not {digest}");
                return Err(Refusal::digest(said));
            }
            file.sync_data().at("write", &path)?;
            storage.keep(&repository, &digest, &path)?;
            Ok(())
        })
        .await?;
        // Whatever became of it, it is over.
        self.forget(&turn.session);
        stored
    }

    /// Ends an upload without result.
    pub(crate) fn cancel(&self, turn: Turn) {
        self.forget(&turn.session);
    }

    fn forget(&self, session: &Session) {
        locked(&self.open).remove(&session.id);
        // After a success the file has another name; what can't be removed now is removed when it has expired.
        let _ = fs::remove_file(&session.path);
    }

    /// Ends uploads to which nothing came for long; how many.
    pub(crate) fn expire(&self) -> usize {
        let expired: Vec<Arc<Session>> = {
            let open = locked(&self.open);
            open.values().filter(|s| s.idle() > self.expiry).cloned().collect()
        };
        let ended = expired.iter().filter(|s| match s.writer.try_lock() {
            Ok(_held) => {
                self.forget(s);
                true
            }
            // Somebody sends after all.
            Err(_) => false,
        });
        ended.count()
    }
}

fn session(id: String, path: PathBuf, length: u64, writer: Option<HashWriter<File>>) -> Session {
    Session {
        id,
        path,
        length: AtomicU64::new(length),
        used: Mutex::new(Instant::now()),
        turn: watch::Sender::new(0),
        writer: Arc::new(tokio::sync::Mutex::new(writer)),
    }
}

/// Hashes what is there, and goes on at its end.
fn reopen(path: &Path) -> Result<HashWriter<File>, ServeError> {
    let file = File::options().append(true).open(path).at("open", path)?;
    let mut hashed = HashWriter::new(io::sink());
    let mut there = File::open(path).at("open", path)?;
    io::copy(&mut there, &mut hashed).at("read", path)?;
    Ok(hashed.onto(file))
}
