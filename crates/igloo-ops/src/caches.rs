//! `igloo store copy`: closures from a store or cache to a store or cache.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use igloo_base::file::{create_dirs, read_optional};
use igloo_base::{Task, Unit};
use igloo_formats::nix::signature::fingerprint;
use igloo_formats::nix::{NarInfo, PublicKey, SecretKey, Signature, StorePath};
use igloo_remote::nix::{BinaryCache, Packing};
use igloo_store::{PathInfo, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;
use crate::realise::{self, LockedPath, PIECE, parallel};

/// What is to be copied, and how.
#[derive(Debug, Clone)]
pub struct Copy {
    /// A cache's address, a directory below which a store lies, `host`, or nothing for our own store.
    pub from: Option<String>,
    /// Likewise; `host` cannot be written to.
    pub to: Option<String>,
    /// Store paths; what they refer to comes along.
    pub paths: Vec<String>,
    /// Keys whose signatures are believed.
    pub trusted: Vec<PublicKey>,
    /// The file of a key that signs what is written to a cache.
    pub key: Option<std::path::PathBuf>,
    /// The level of packing; see [`Packing::level`].
    pub level: i32,
}

/// What was copied.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Paths that were there already.
    pub present: usize,
    /// Paths that were copied.
    pub copied: usize,
    /// Bytes of their archives.
    pub bytes: u64,
}

/// One end of a copy.
enum End {
    Store(Store),
    Cache(BinaryCache),
}

fn open(ctx: &Context<'_>, at: Option<&str>, write: bool) -> Result<End, OpsError> {
    let is_cache = |at: &str| at.contains("://") || Path::new(at).join("nix-cache-info").is_file();
    Ok(match at {
        None => End::Store(Store::open(ctx.dirs.store_root())?),
        Some("host") if !write => {
            let root = ctx.nix.host_store.clone().unwrap_or_else(|| "/".into());
            End::Store(Store::open_readonly(&root)?)
        }
        Some(at) if is_cache(at) => {
            let (client, credentials) = (realise::client(ctx), Arc::new(realise::credentials(ctx)?));
            let at = if at.contains("://") {
                at.to_owned()
            } else {
                std::path::absolute(at).map(|p| p.display().to_string()).map_err(OpsError::Output)?
            };
            End::Cache(BinaryCache::new(&client, &credentials, &at)?)
        }
        Some(root) if write => End::Store(Store::open(Path::new(root))?),
        Some(root) => End::Store(Store::open_readonly(Path::new(root))?),
    })
}

/// Copies closures.
pub fn copy(ctx: &Context<'_>, copy: &Copy) -> Result<Copied, OpsError> {
    let parse = |text: &String| StorePath::parse(text).map_err(|_| OpsError::NoStorePath { text: text.clone() });
    let paths = copy.paths.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let from = open(ctx, copy.from.as_deref(), false)?;
    let to = open(ctx, copy.to.as_deref(), true)?;
    match (from, to) {
        (End::Store(from), End::Cache(to)) => upload(ctx, &from, &to, &paths, copy),
        (End::Cache(from), End::Store(to)) => {
            from.info()?;
            let wanted = closure(&from, &paths, &copy.trusted)?;
            into_store(ctx, &to, &wanted, &[from], &copy.trusted)
        }
        (End::Store(from), End::Store(to)) => {
            let wanted: Vec<LockedPath> = from.closure(&paths)?.into_iter().map(locked).collect();
            // One store is the other's host.
            let mut ctx = ctx.clone();
            ctx.nix.host_store = Some(from.root().to_owned());
            into_store(&ctx, &to, &wanted, &[], &[])
        }
        (End::Cache(from), End::Cache(to)) => {
            Err(OpsError::CacheToCache { from: from.name().to_owned(), to: to.name().to_owned() })
        }
    }
}

fn into_store(
    ctx: &Context<'_>,
    to: &Store,
    wanted: &[LockedPath],
    caches: &[BinaryCache],
    keys: &[PublicKey],
) -> Result<Copied, OpsError> {
    let done = realise::realise(ctx, to, wanted, caches, keys)?;
    Ok(Copied { present: done.present, copied: done.copied.len() + done.fetched.len(), bytes: done.bytes })
}

fn locked(info: PathInfo) -> LockedPath {
    LockedPath {
        path: info.path,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        content_address: info.content_address,
        deriver: info.deriver,
        signatures: info.signatures.iter().filter_map(|s| s.parse().ok()).collect(),
    }
}

/// Largest closure that a cache is followed into: a hundred times that of a desktop.
const MAX_CLOSURE: usize = 1 << 18;

/// The closure of paths as a cache tells it, each vouched for.
pub fn closure(cache: &BinaryCache, paths: &[StorePath], keys: &[PublicKey]) -> Result<Vec<LockedPath>, OpsError> {
    let mut found: BTreeMap<StorePath, LockedPath> = BTreeMap::new();
    let mut open: Vec<StorePath> = paths.to_vec();
    while !open.is_empty() {
        let mut next = BTreeSet::new();
        for (path, info) in open.iter().zip(parallel(&open, realise::QUESTIONS, |p| cache.vouched(p, keys, &[]))) {
            let Some(info) = info? else {
                let caches = vec![cache.name().to_owned()];
                return Err(OpsError::NotInCaches { paths: vec![path.full()], caches, faults: Vec::new() });
            };
            next.extend(info.references.iter().cloned());
            let locked = LockedPath {
                path: info.path,
                nar_hash: info.nar_hash,
                nar_size: info.nar_size,
                references: info.references,
                content_address: info.content_address,
                deriver: info.deriver,
                signatures: info.signatures,
            };
            found.insert(path.clone(), locked);
        }
        open = next.into_iter().filter(|p| !found.contains_key(p)).collect();
        if found.len() + open.len() > MAX_CLOSURE {
            return Err(OpsError::ClosureTooLarge { cache: cache.name().to_owned(), most: MAX_CLOSURE });
        }
    }
    Ok(found.into_values().collect())
}

/// Reads the file of a key that signs.
fn read_key(path: &Path) -> Result<SecretKey, OpsError> {
    let bytes = read_optional(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(|source| OpsError::BadKey { path: path.to_owned(), source })
}

/// Writes closures to a cache: all archives, then what is said of them, each after what it refers to.
fn upload(
    ctx: &Context<'_>,
    from: &Store,
    to: &BinaryCache,
    paths: &[StorePath],
    copy: &Copy,
) -> Result<Copied, OpsError> {
    let key = copy.key.as_deref().or(to.secret_key()).map(read_key).transpose()?;
    to.begin()?;
    let closure = from.closure(paths)?;
    let all = closure.len();
    let there = parallel(&closure, realise::QUESTIONS, |info| to.has_path(&info.path));
    let mut missing = Vec::new();
    for (info, there) in closure.into_iter().zip(there) {
        if !there? {
            missing.push(info);
        }
    }
    let present = all - missing.len();
    let mut order: Vec<&PathInfo> = missing.iter().collect();
    order.sort_by_key(|info| std::cmp::Reverse(info.nar_size));
    let total = missing.iter().map(|i| i.nar_size).sum();
    let what = format!("write {} store paths to {}", missing.len(), to.name());
    let task = Task::start(ctx.reporter, what, Some(total), Unit::Bytes);
    let scratch = ctx.dirs.cache.join("nars");
    create_dirs(&scratch)?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    // A path that is much longer than all others would keep one core busy and leave the rest idle.
    let compression = to.compression()?;
    let packing = |info: &PathInfo| Packing {
        compression,
        level: copy.level,
        threads: if info.nar_size > total / (2 * cores as u64) { cores as u32 } else { 1 },
    };
    let failed = AtomicBool::new(false);
    let written = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let one = |info: &PathInfo| -> Result<NarInfo, OpsError> {
        let nar = to.pack(packing(info), &scratch)?;
        let packed = from.export_nar(&info.path, Told { inner: nar, task: &task })?.inner.finish();
        let packed = packed.map_err(OpsError::Output)?;
        if packed.nar_hash != info.nar_hash {
            return Err(igloo_store::StoreError::NarHash {
                path: info.path.clone(),
                expected: info.nar_hash,
                found: packed.nar_hash,
            }
            .into());
        }
        let mut out = narinfo(info, key.as_ref());
        to.put_nar(packed, &mut out)?;
        Ok(out)
    };
    let results: Vec<Result<(), OpsError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.max(2).min(order.len()))
            .map(|_| {
                scope.spawn(|| {
                    while let Some(info) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if failed.load(Ordering::Relaxed) {
                            break;
                        }
                        let out = one(info).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                        written.lock().unwrap_or_else(PoisonError::into_inner).insert(info.path.clone(), out);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or(Err(igloo_store::StoreError::ThreadDied.into()))).collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    drop(task);
    to.sync()?;
    let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
    for rank in ranks(&written) {
        for result in parallel(&rank, realise::QUESTIONS, |info| to.put_narinfo(info)) {
            result?;
        }
    }
    Ok(Copied { present, copied: missing.len(), bytes: total })
}

/// What is said of a path, before it is known where its archive lies.
fn narinfo(info: &PathInfo, key: Option<&SecretKey>) -> NarInfo {
    let mut signatures: Vec<Signature> = info.signatures.iter().filter_map(|s| s.parse().ok()).collect();
    if let Some(key) = key {
        let own = key.sign(&fingerprint(&info.path, &info.nar_hash, info.nar_size, &info.references));
        signatures.retain(|s| s.name != own.name);
        signatures.push(own);
    }
    NarInfo {
        path: info.path.clone(),
        url: String::new(),
        compression: igloo_formats::nix::narinfo::Compression::None,
        file_hash: None,
        file_size: None,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references.clone(),
        deriver: info.deriver.clone(),
        signatures,
        content_address: info.content_address.clone(),
    }
}

/// Groups, each of which refers to earlier ones only, so that a narinfo means that those of its closure are there.
fn ranks(infos: &BTreeMap<StorePath, NarInfo>) -> Vec<Vec<&NarInfo>> {
    let mut done: BTreeSet<&StorePath> = BTreeSet::new();
    let mut left: Vec<&NarInfo> = infos.values().collect();
    let mut out = Vec::new();
    while !left.is_empty() {
        let ready = |info: &&NarInfo| {
            info.references.iter().all(|r| *r == info.path || done.contains(r) || !infos.contains_key(r))
        };
        let (mut now, later): (Vec<_>, Vec<_>) = left.iter().copied().partition(ready);
        if now.is_empty() {
            // No store has cycles; if one had, they would be written in some order.
            now = later;
            left = Vec::new();
        } else {
            left = later;
        }
        done.extend(now.iter().map(|info| &info.path));
        out.push(now);
    }
    out
}

/// A writer that tells how far it is.
struct Told<'a, W> {
    inner: W,
    task: &'a Task<'a>,
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(&buf[..buf.len().min(PIECE)])?;
        self.task.advance(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
