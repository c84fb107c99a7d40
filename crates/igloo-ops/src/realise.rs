//! Store paths that a lock names, made valid in our store without Nix: what is there already, what the machine's own
//! Nix store has, and then the binary caches, in the order of their priorities. Nothing is evaluated and nothing built.
//!
//! All of a closure lies in our own store in the end, also what the host's store has: one directory can be shown to a
//! container or written to an image, a collection of the host's garbage takes nothing away, and no right to the host's
//! roots is needed. Files are copied, and hashed as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use igloo_base::file::{create_dirs, read_optional};
use igloo_base::{Event, Reporter, Sha256, Task, Unit};
use igloo_formats::nix::{NarInfo, PublicKey, Signature, StorePath};
use igloo_remote::nix::{BinaryCache, CacheError, Credentials, Netrc, Wanted};
use igloo_remote::{Client, Config};
use igloo_store::{PathInfo, Staged, Store, StoreError};

use crate::context::Context;
use crate::error::{OpsError, chain};
use crate::nix::HostStore;

/// A path of a closure, as a lock names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPath {
    /// The path.
    pub path: StorePath,
    /// Digest of its archive.
    pub nar_hash: Sha256,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Paths that it names; all of them must be locked, too.
    pub references: Vec<StorePath>,
    /// How it follows from its content.
    pub content_address: Option<String>,
    /// What built it.
    pub deriver: Option<StorePath>,
    /// Signatures that were known when it was locked.
    pub signatures: Vec<Signature>,
}

/// What [`realise`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Realised {
    /// Paths that were there.
    pub present: usize,
    /// Paths that came from the host's store.
    pub copied: Vec<StorePath>,
    /// Paths that came from a cache.
    pub fetched: Vec<StorePath>,
    /// Bytes of the archives of both.
    pub bytes: u64,
}

/// Staged archives of so many bytes are registered before the end, so that a run that is killed has not worked in vain.
const REGISTER: u64 = 512 << 20;
/// From so many bytes of archives on, the disk is told to write early.
const LARGE: u64 = 64 << 20;
/// How many questions are asked of caches at a time.
pub(crate) const QUESTIONS: usize = 16;
/// How many archives are under way at a time.
const TRANSFERS: usize = 4;
/// Bytes are handed from the thread that unpacks to the one that writes in pieces of this length, so many at a time.
pub(crate) const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// Binary caches at these addresses, those with the lowest priority first. One that cannot be reached is left out, with
/// a warning; without network, only those of this machine are taken.
pub fn caches(ctx: &Context<'_>, urls: &[String]) -> Result<Vec<BinaryCache>, OpsError> {
    let (client, credentials) = (client(ctx), Arc::new(credentials(ctx)?));
    let mut opened = Vec::new();
    for url in urls {
        let cache = BinaryCache::new(&client, &credentials, url)?;
        if !ctx.offline || cache.is_local() {
            opened.push(cache);
        }
    }
    let priorities = parallel(&opened, QUESTIONS, |cache| cache.priority());
    let mut good = Vec::new();
    for (cache, priority) in opened.into_iter().zip(priorities) {
        match priority {
            Ok(priority) => good.push((priority, cache)),
            Err(error) => warn(ctx.reporter, &error),
        }
    }
    // Stable: among equals the order in which they were named.
    good.sort_by_key(|(priority, _)| *priority);
    Ok(good.into_iter().map(|(_, cache)| cache).collect())
}

pub(crate) fn client(ctx: &Context<'_>) -> Client {
    let proxies = &ctx.proxies;
    Client::for_caches(Config {
        http_proxy: proxies.http.clone(),
        https_proxy: proxies.https.clone(),
        no_proxy: proxies.none.clone(),
        ..Config::default()
    })
}

pub(crate) fn credentials(ctx: &Context<'_>) -> Result<Credentials, OpsError> {
    let text = |path: &Option<std::path::PathBuf>| -> Result<Option<String>, OpsError> {
        let bytes = path.as_ref().map(read_optional).transpose()?.flatten();
        Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
    };
    Ok(Credentials {
        netrc: Netrc::parse(&text(&ctx.nix.netrc)?.unwrap_or_default()),
        tokens: ctx.nix.tokens.clone(),
        aws: ctx.nix.aws.clone(),
        aws_profiles: text(&ctx.nix.aws_credentials)?,
    })
}

fn warn(reporter: &dyn Reporter, error: &CacheError) {
    reporter.event(Event::Warning { text: chain(error), hint: Some("the next cache is asked".to_owned()) });
}

/// Makes all of `wanted` valid in `store`, or nothing is missing from it that could be had. What was fetched before a
/// failure stays.
pub fn realise(
    ctx: &Context<'_>,
    store: &Store,
    wanted: &[LockedPath],
    caches: &[BinaryCache],
    keys: &[PublicKey],
) -> Result<Realised, OpsError> {
    let paths: Vec<StorePath> = wanted.iter().map(|w| w.path.clone()).collect();
    // Protected first and then looked at, since a collection may be under way.
    store.protect(&paths)?;
    let valid = store.valid_subset(&paths)?;
    let mut realised = Realised { present: valid.len(), ..Realised::default() };
    let mut missing: Vec<&LockedPath> = wanted.iter().filter(|w| !valid.contains(&w.path)).collect();
    if missing.is_empty() {
        return Ok(realised);
    }
    let named: BTreeSet<&StorePath> = paths.iter().collect();
    for one in &missing {
        if let Some(other) = one.references.iter().find(|r| !named.contains(r)) {
            return Err(OpsError::ReferenceNotLocked { path: one.path.full(), reference: other.full() });
        }
    }
    // The long ones first, so that no thread begins one when the others are done.
    missing.sort_by_key(|w| (std::cmp::Reverse(w.nar_size), &w.path));
    missing.dedup_by_key(|w| &w.path);

    let host = Host::open(ctx, store, &missing)?;
    let rest: Vec<&&LockedPath> = missing.iter().filter(|w| !host.has(w)).collect();
    let faults = Mutex::new(Faults::default());
    let offered = parallel(&rest, QUESTIONS, |one| find(one, caches, keys, 0, &faults).is_some());
    let absent: Vec<String> = rest.iter().zip(&offered).filter(|(_, yes)| !**yes).map(|(w, _)| w.path.full()).collect();
    if !absent.is_empty() {
        return Err(absent_error(absent, caches, faults));
    }
    faults.lock().unwrap_or_else(PoisonError::into_inner).tell(ctx.reporter);

    let parts = ctx.dirs.cache.join("nars");
    create_dirs(&parts)?;
    let total = missing.iter().map(|w| w.nar_size).sum();
    let what = match &missing[..] {
        [one] => format!("fetch {}", one.path.name()),
        many => format!("fetch {} store paths", many.len()),
    };
    let task = Task::start(ctx.reporter, what, Some(total), Unit::Bytes);
    let run = Run { store, host: &host, caches, keys, parts: &parts, task: &task, reporter: ctx.reporter };
    run.all(&missing, valid, &mut realised)?;
    Ok(realised)
}

fn absent_error(paths: Vec<String>, caches: &[BinaryCache], faults: Mutex<Faults>) -> OpsError {
    let caches = caches.iter().map(|c| c.name().to_owned()).collect();
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner).lines;
    OpsError::NotInCaches { paths, caches, faults: faults.into_iter().collect() }
}

/// What caches did wrong, each told once.
#[derive(Default)]
struct Faults {
    lines: BTreeSet<String>,
}

impl Faults {
    fn tell(&mut self, reporter: &dyn Reporter) {
        for text in std::mem::take(&mut self.lines) {
            reporter.event(Event::Warning { text, hint: Some("the next cache is asked".to_owned()) });
        }
    }
}

/// The first cache from number `from` on that offers what is wanted, vouched for.
fn find(
    wanted: &LockedPath,
    caches: &[BinaryCache],
    keys: &[PublicKey],
    from: usize,
    faults: &Mutex<Faults>,
) -> Option<(usize, NarInfo)> {
    let mut references = wanted.references.clone();
    references.sort();
    references.dedup();
    let want = Wanted { path: wanted.path.clone(), nar_hash: wanted.nar_hash, nar_size: wanted.nar_size, references };
    for (number, cache) in caches.iter().enumerate().skip(from) {
        match cache.offer(&want, keys, &wanted.signatures) {
            Ok(Some(info)) => return Some((number, info)),
            Ok(None) => {}
            Err(error) => {
                faults.lock().unwrap_or_else(PoisonError::into_inner).lines.insert(chain(&error));
            }
        }
    }
    None
}

/// The machine's own Nix store, if there is one, and what it has of what is wanted.
struct Host {
    store: Option<HostStore>,
    has: BTreeMap<StorePath, PathInfo>,
}

impl Host {
    fn open(ctx: &Context<'_>, ours: &Store, missing: &[&LockedPath]) -> Result<Self, OpsError> {
        let store = HostStore::open(&ctx.nix, ours.root())?;
        let mut has = BTreeMap::new();
        if let Some(store) = &store {
            for one in missing {
                if let Some(info) = store.path_info(&one.path)
                    && (info.nar_hash, info.nar_size) == (one.nar_hash, one.nar_size)
                {
                    has.insert(one.path.clone(), info);
                }
            }
        }
        Ok(Self { store, has })
    }

    fn has(&self, wanted: &LockedPath) -> bool {
        self.has.contains_key(&wanted.path)
    }
}

/// What all transfers of one run share.
struct Run<'a> {
    store: &'a Store,
    host: &'a Host,
    caches: &'a [BinaryCache],
    keys: &'a [PublicKey],
    parts: &'a Path,
    task: &'a Task<'a>,
    reporter: &'a dyn Reporter,
}

enum Source {
    Host,
    Cache,
}

impl Run<'_> {
    fn all(
        &self,
        missing: &[&LockedPath],
        mut valid: BTreeSet<StorePath>,
        done: &mut Realised,
    ) -> Result<(), OpsError> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let (send, receive) = sync_channel(missing.len());
        let (staging, staged) = sync_channel(0);
        let large = missing.iter().map(|one| one.nar_size).sum::<u64>() > LARGE;
        let threads = TRANSFERS.max(std::thread::available_parallelism().map_or(1, |n| n.get())).min(missing.len());
        let mut failure = None;
        let mut waiting: Vec<Staged> = Vec::new();
        let mut waiting_bytes = 0;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let send = send.clone();
                let (next, stop) = (&next, &stop);
                scope.spawn(move || {
                    while let Some(one) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let result = self.one(one);
                        stop.fetch_or(result.is_err(), Ordering::Relaxed);
                        // The receiver stays until all senders are gone.
                        let _ = send.send(result.map(|(staged, source)| (staged, source, one.nar_size)));
                    }
                });
            }
            drop(send);
            if large {
                scope.spawn(move || self.store.write_out(&staged));
            }
            for result in receive {
                match result {
                    Ok((staged, source, size)) => {
                        let list = if matches!(source, Source::Host) { &mut done.copied } else { &mut done.fetched };
                        list.push(staged.path().clone());
                        done.bytes += size;
                        waiting_bytes += size;
                        waiting.push(staged);
                    }
                    Err(error) => failure = failure.take().or(Some(error)),
                }
                if waiting_bytes >= REGISTER && failure.is_none() {
                    waiting_bytes = 0;
                    if let Err(error) = register(self.store, &mut waiting, &mut valid) {
                        failure = Some(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            drop(staging);
        });
        let registered = register(self.store, &mut waiting, &mut valid);
        match failure {
            Some(error) => Err(error),
            None => registered,
        }
    }

    /// Stages one path from the first place that has it.
    fn one(&self, wanted: &LockedPath) -> Result<(Staged, Source), OpsError> {
        if let (Some(store), Some(info)) = (&self.host.store, self.host.has.get(&wanted.path)) {
            match self.copy(wanted, store.files(), info) {
                Ok(staged) => return Ok((staged, Source::Host)),
                // It was collected, or damaged: the caches may have it.
                Err(error) if is_of_source(&error) => {
                    let text = format!("the host's store cannot give {}: {}", wanted.path.full(), chain(&error));
                    self.reporter.event(Event::Warning { text, hint: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let faults = Mutex::new(Faults::default());
        let mut from = 0;
        while let Some((number, info)) = find(wanted, self.caches, self.keys, from, &faults) {
            match self.fetch(wanted, &self.caches[number], &info) {
                Ok(staged) => {
                    faults.into_inner().unwrap_or_else(PoisonError::into_inner).tell(self.reporter);
                    return Ok((staged, Source::Cache));
                }
                Err(Fault::Ours(error)) => return Err(error.into()),
                Err(Fault::Theirs(text)) => {
                    faults.lock().unwrap_or_else(PoisonError::into_inner).lines.insert(text);
                }
            }
            from = number + 1;
        }
        Err(absent_error(vec![wanted.path.full()], self.caches, faults))
    }

    fn copy(&self, wanted: &LockedPath, host: &Store, info: &PathInfo) -> Result<Staged, StoreError> {
        let signatures = info.signatures.iter().filter_map(|s| s.parse().ok()).collect();
        let expected = expected(wanted, signatures, info.deriver.clone());
        std::thread::scope(|scope| {
            let (mut input, output) = pipe(self.task);
            let written = scope.spawn(move || host.export_nar(&wanted.path, output).map(PipeWriter::end));
            let staged = self.store.stage_nar(&expected, &mut input);
            drop(input);
            // What failed to be written here is the cause of what failed to be read there.
            match written.join() {
                Ok(Err(error)) if matches!(staged, Err(StoreError::NarRead { .. } | StoreError::Nar { .. })) => {
                    Err(error)
                }
                _ => staged,
            }
        })
    }

    /// Stages a path from a cache; once more from the beginning if it went on with what was left by somebody else.
    fn fetch(&self, wanted: &LockedPath, cache: &BinaryCache, info: &NarInfo) -> Result<Staged, Fault> {
        match self.attempt(wanted, cache, info, Some(self.parts)) {
            Err((Fault::Theirs(_), true)) => self.attempt(wanted, cache, info, None),
            other => other,
        }
        .map_err(|(fault, _)| fault)
    }

    fn attempt(
        &self,
        wanted: &LockedPath,
        cache: &BinaryCache,
        info: &NarInfo,
        parts: Option<&Path>,
    ) -> Result<Staged, (Fault, bool)> {
        let theirs = |error: CacheError| Fault::Theirs(chain(&error));
        let mut reader = cache.nar(info, parts).map_err(|e| (theirs(e), false))?;
        let expected = expected(wanted, info.signatures.clone(), info.deriver.clone());
        let (staged, reader) = std::thread::scope(|scope| {
            let (mut input, mut output) = pipe(self.task);
            let unpacked = scope.spawn(move || {
                let ended = output.take_from(&mut reader);
                drop(output);
                (ended, reader)
            });
            let staged = self.store.stage_nar(&expected, &mut input);
            drop(input);
            (staged, unpacked.join())
        });
        let Ok((ended, reader)) = reader else { return Err((Fault::Ours(StoreError::ThreadDied), false)) };
        let resumed = reader.was_resumed();
        match staged {
            Ok(staged) => match reader.finish() {
                Ok(()) => Ok(staged),
                Err(error) => Err((theirs(error), resumed)),
            },
            // It ended early: how, the cache's side knows.
            Err(error) if is_of_source(&error) => {
                let said = if ended.is_err() { reader.finish().err() } else { None };
                let text = match said {
                    Some(said) => chain(&said),
                    None => format!("the cache `{}` sends a bad archive: {}", cache.name(), chain(&error)),
                };
                Err((Fault::Theirs(text), resumed))
            }
            Err(error) => Err((Fault::Ours(error), resumed)),
        }
    }
}

/// Whose fault it is that something did not come.
enum Fault {
    /// A cache's: the next one is tried.
    Theirs(String),
    /// Our own disk's, say.
    Ours(StoreError),
}

/// Whether it was what was read that was wrong, and not the place it was written to.
fn is_of_source(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Nar { .. }
            | StoreError::NarRead { .. }
            | StoreError::NarSize { .. }
            | StoreError::NarHash { .. }
            | StoreError::ContentAddress { .. }
    ) || matches!(error, StoreError::Path(e) if e.act == "archive")
}

fn expected(wanted: &LockedPath, found: Vec<Signature>, deriver: Option<StorePath>) -> PathInfo {
    let signatures: BTreeSet<String> = found.iter().chain(&wanted.signatures).map(Signature::to_string).collect();
    PathInfo {
        path: wanted.path.clone(),
        nar_hash: wanted.nar_hash,
        nar_size: wanted.nar_size,
        references: wanted.references.clone(),
        registered: 0,
        deriver: wanted.deriver.clone().or(deriver),
        ultimate: false,
        signatures: signatures.into_iter().collect(),
        content_address: wanted.content_address.clone(),
    }
}

/// Registers all whose references are valid or among them; the others stay in `waiting`.
pub(crate) fn register(
    store: &Store,
    waiting: &mut Vec<Staged>,
    valid: &mut BTreeSet<StorePath>,
) -> Result<(), OpsError> {
    let mut ready: BTreeSet<StorePath> = waiting.iter().map(|s| s.path().clone()).collect();
    loop {
        let before = ready.len();
        for staged in waiting.iter() {
            let complete = staged.info().references.iter().all(|r| valid.contains(r) || ready.contains(r));
            if !complete {
                ready.remove(staged.path());
            }
        }
        if ready.len() == before {
            break;
        }
    }
    let (now, later) = std::mem::take(waiting).into_iter().partition(|s| ready.contains(s.path()));
    *waiting = later;
    store.commit(now)?;
    valid.extend(ready);
    Ok(())
}

/// Bytes from the thread that makes them to the one that uses them. A writer that is dropped before it said that it is
/// done leaves the reader with an error.
pub(crate) fn pipe<'a>(task: &'a Task<'a>) -> (PipeReader<'a>, PipeWriter) {
    let (send, receive) = sync_channel(PIECES);
    let (back, empty) = sync_channel(PIECES + 2);
    let reader = PipeReader { receive, back, piece: Vec::new(), at: 0, task };
    (reader, PipeWriter { send: Some(send), empty, piece: Vec::new() })
}

pub(crate) struct PipeReader<'a> {
    receive: Receiver<Option<Vec<u8>>>,
    back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    task: &'a Task<'a>,
}

impl Read for PipeReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let done = std::mem::take(&mut self.piece);
            self.task.advance(done.len() as u64);
            let _ = self.back.try_send(done);
            self.at = 0;
            match self.receive.recv() {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buf.len().min(self.piece.len() - self.at);
        buf[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

pub(crate) struct PipeWriter {
    send: Option<SyncSender<Option<Vec<u8>>>>,
    empty: Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl PipeWriter {
    /// Passes on all that a reader has. An error is the reader's; that nobody wants more is none.
    fn take_from(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        loop {
            let mut piece = self.fresh();
            piece.resize(PIECE, 0);
            let mut filled = 0;
            while filled < PIECE {
                match reader.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            piece.truncate(filled);
            let Some(send) = &self.send else { return Ok(()) };
            if filled > 0 && send.send(Some(piece)).is_err() {
                return Ok(());
            }
            if filled < PIECE {
                let _ = send.send(None);
                return Ok(());
            }
        }
    }

    /// Says that this was all.
    fn end(mut self) {
        // Nobody reads: nobody misses it.
        let _ = io::Write::flush(&mut self);
        if let Some(send) = self.send.take() {
            let _ = send.send(None);
        }
    }

    fn fresh(&mut self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_default()
    }
}

impl io::Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece = self.fresh();
            self.piece.clear();
            self.piece.reserve(PIECE);
        }
        let count = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        match &self.send {
            Some(send) if !piece.is_empty() => send.send(Some(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }
}

/// Does `act` for all on so many threads; results in the order of `items`.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], threads: usize, act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = act(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
