//! Files by digest: parallel, resumed, verified.
//!
//! A file that is under way is `<sha256>.part`, locked by whoever fetches it; what a process that was killed left is
//! continued by the next. Complete and verified, it is renamed to `<sha256>.deb`, which is then taken by its name and
//! length: what is unpacked from it is hashed again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use igloo_base::digest::HashWriter;
use igloo_base::file::{FileLock, create_dirs};
use igloo_base::{At, Reporter, Sha256, Task, Unit};

use crate::apt::parallel;
use crate::check::{Checked, Promise};
use crate::client::url;
use crate::{Client, Config, RemoteError};

const BUFFER: usize = 128 << 10;

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where it may be had, tried in order.
    pub urls: Vec<String>,
    /// Its length in bytes; not a byte more is read.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// What a person calls it: `hello 2.10-3`.
    pub label: String,
}

/// Fetches files with the settings of [`Config::default`]; see [`Client::fetch`].
pub fn fetch(
    downloads: &[Download],
    into: &Path,
    reporter: &dyn Reporter,
    on_done: &(dyn Fn(usize, &Path) + Sync),
) -> Result<(), RemoteError> {
    Client::new(Config::default())?.fetch(downloads, into, reporter, on_done)
}

impl Client {
    /// Fetches files into a directory as `<sha256>.deb`, several at a time, the largest first. `on_done` is called with
    /// the position in `downloads` and the path as soon as that file is there and verified, from the thread that
    /// fetched it; those that are there already come first. A file whose address begins with `file:` is verified and
    /// stays where it is. The first failure ends the others early; what they have is kept for the next attempt.
    pub fn fetch(
        &self,
        downloads: &[Download],
        into: &Path,
        reporter: &dyn Reporter,
        on_done: &(dyn Fn(usize, &Path) + Sync),
    ) -> Result<(), RemoteError> {
        create_dirs(into).map_err(RemoteError::from_path)?;
        let mut missing = Vec::new();
        for (at, download) in downloads.iter().enumerate() {
            let path = complete(into, download);
            if is_complete(&path, download)? { on_done(at, &path) } else { missing.push((at, download)) }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_by_key(|(at, download)| (std::cmp::Reverse(download.size), *at));

        let total = missing.iter().map(|(_, d)| d.size).sum();
        let what = match &missing[..] {
            [(_, one)] => format!("fetch {}", one.label),
            many => format!("fetch {} packages", many.len()),
        };
        let task = Task::start(reporter, what, Some(total), Unit::Bytes);
        let failed = AtomicBool::new(false);
        let threads = self.config().connections.max(1) * hosts(&missing).clamp(1, 2);
        let results = parallel(&missing, threads, |(at, download)| {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let transfer = Transfer { client: self, download, into, task: &task, failed: &failed };
            match transfer.run() {
                Ok(Some(path)) => {
                    on_done(*at, &path);
                    Ok(())
                }
                // Somebody else's failure ended it.
                Ok(None) => Ok(()),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    Err(error)
                }
            }
        });
        // So that the names survive a crash as the contents do.
        let synced = File::open(into).and_then(|dir| dir.sync_all()).at("sync the directory", into);
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(synced?)
    }
}

/// How many hosts the first addresses name.
fn hosts(missing: &[(usize, &Download)]) -> usize {
    let mut hosts: Vec<&str> =
        missing.iter().filter_map(|(_, d)| d.urls.first()?.split("//").nth(1)?.split('/').next()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

fn complete(into: &Path, download: &Download) -> PathBuf {
    into.join(format!("{}.deb", download.sha256))
}

fn is_complete(path: &Path, download: &Download) -> Result<bool, RemoteError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() == download.size),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("look at", path).map_err(Into::into),
    }
}

/// One file on its way.
struct Transfer<'a> {
    client: &'a Client,
    download: &'a Download,
    into: &'a Path,
    task: &'a Task<'a>,
    failed: &'a AtomicBool,
}

/// The partial file: what it holds so far, hashed.
struct Partial {
    lock: FileLock,
    path: PathBuf,
    tally: HashWriter<io::Sink>,
}

impl Partial {
    fn held(&self) -> u64 {
        self.tally.length()
    }

    /// Starts over.
    fn clear(&mut self) -> Result<(), RemoteError> {
        self.tally = HashWriter::new(io::sink());
        let cleared = self.lock.file().set_len(0).and_then(|()| self.lock.file().seek(SeekFrom::Start(0)));
        cleared.at("truncate", &self.path)?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        self.lock.file().write_all(bytes).map_err(|source| RemoteError::write(&self.path, source))?;
        self.tally.write_all(bytes).at("hash", &self.path)?;
        Ok(())
    }
}

/// How one attempt ended without failing.
enum Outcome {
    Done(PathBuf),
    /// Another transfer failed, so that this one has no purpose any more.
    Abandoned,
}

impl Transfer<'_> {
    fn run(&self) -> Result<Option<PathBuf>, RemoteError> {
        let Some(mut partial) = self.partial()? else {
            // Another process was faster.
            self.task.advance(self.download.size);
            return Ok(Some(complete(self.into, self.download)));
        };
        let mut fault: Option<RemoteError> = None;
        for url in &self.download.urls {
            match self.from(url, &mut partial) {
                Ok(Outcome::Done(path)) => return Ok(Some(path)),
                Ok(Outcome::Abandoned) => return Ok(None),
                // That a file is gone says less than any other failure, since it may be gone from one place only.
                Err(error) if error.is_of_address() => {
                    fault = Some(match fault {
                        Some(kept) if !matches!(kept, RemoteError::Gone { .. }) => kept,
                        _ => error,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Err(fault.unwrap_or_else(|| RemoteError::NoAddress { label: self.download.label.clone() }))
    }

    /// Opens and locks the partial file and hashes what it holds; none if the file was completed meanwhile.
    fn partial(&self) -> Result<Option<Partial>, RemoteError> {
        let path = self.into.join(format!("{}.part", self.download.sha256));
        let lock = loop {
            let lock = FileLock::exclusive(&path).map_err(RemoteError::from_path)?;
            if is_complete(&complete(self.into, self.download), self.download)? {
                // The lock may have created it again.
                if is_same(&lock, &path) {
                    let _ = std::fs::remove_file(&path);
                }
                return Ok(None);
            }
            // Whoever held the lock before may have renamed or removed the file that was locked.
            if is_same(&lock, &path) {
                break lock;
            }
        };
        let mut partial = Partial { lock, path, tally: HashWriter::new(io::sink()) };
        let held = partial.lock.file().metadata().at("look at", &partial.path)?.len();
        if held > self.download.size {
            partial.clear()?;
        } else {
            let mut file = partial.lock.file().take(held);
            io::copy(&mut file, &mut partial.tally).at("read", &partial.path)?;
            self.task.advance(partial.held());
        }
        Ok(Some(partial))
    }

    /// Fetches from one address, trying again while that may help.
    fn from(&self, url: &str, partial: &mut Partial) -> Result<Outcome, RemoteError> {
        if let Some(path) = url::local(url) {
            return self.local(url, path, partial);
        }
        let mut validator = None;
        let mut attempt = 0;
        let mut restarted = false;
        let mut most = partial.held();
        loop {
            let before = partial.held();
            let resumed = before > 0;
            match self.attempt(url, partial, &mut validator) {
                // What was there before us may be what is wrong.
                Err(RemoteError::Digest { .. } | RemoteError::Size { .. }) if resumed && !restarted => {
                    restarted = true;
                    partial.clear()?;
                }
                Err(error @ (RemoteError::Digest { .. } | RemoteError::Size { .. })) => {
                    partial.clear()?;
                    return Err(error);
                }
                Err(error) if attempt < error.retries(self.client.config().retries) => {
                    // A connection that breaks again and again but brings something new each time gets there.
                    attempt = if partial.held() > most { 0 } else { attempt + 1 };
                    most = most.max(partial.held());
                    if self.failed.load(Ordering::Relaxed) {
                        return Ok(Outcome::Abandoned);
                    }
                    std::thread::sleep(self.client.pause(attempt));
                }
                other => return other,
            }
        }
    }

    /// One request, for what is still missing.
    fn attempt(
        &self,
        url: &str,
        partial: &mut Partial,
        validator: &mut Option<String>,
    ) -> Result<Outcome, RemoteError> {
        let expected = self.download.size;
        if partial.held() < expected || expected == 0 {
            let range = format!("bytes={}-", partial.held());
            let mut headers = Vec::new();
            if partial.held() > 0 {
                headers.push(("Range", range.as_str()));
                headers.extend(validator.as_deref().map(|tag| ("If-Range", tag)));
            }
            let mut answer = self.client.get(url, &headers)?;
            match answer.status {
                200 => {
                    if let Some(found) = answer.length().filter(|found| *found != expected) {
                        return Err(RemoteError::Size { url: url.to_owned(), expected, found });
                    }
                    if partial.held() > 0 {
                        partial.clear()?;
                    }
                }
                206 => {
                    let (start, total) = content_range(answer.header("content-range").unwrap_or_default());
                    if let Some(found) = total.filter(|found| *found != expected) {
                        return Err(RemoteError::Size { url: url.to_owned(), expected, found });
                    }
                    // A server that sends other bytes than it was asked for is asked for all of them.
                    if start != Some(partial.held()) {
                        partial.clear()?;
                        return Err(RemoteError::Read { url: url.to_owned(), source: wrong_range() });
                    }
                }
                404 | 410 => {
                    return Err(RemoteError::Gone { label: self.download.label.clone(), url: url.to_owned() });
                }
                416 => {
                    partial.clear()?;
                    return Err(RemoteError::Read { url: url.to_owned(), source: wrong_range() });
                }
                status => return Err(RemoteError::Status { url: url.to_owned(), status }),
            }
            // Only a strong one says that the bytes are the same.
            *validator = answer.header("etag").filter(|tag| tag.starts_with('"')).map(str::to_owned);
            let mut body = answer.reader();
            if !self.receive(url, &mut body, partial)? {
                return Ok(Outcome::Abandoned);
            }
        }
        self.finish(url, partial).map(Outcome::Done)
    }

    /// Appends the content; false if it was abandoned on the way.
    fn receive(&self, url: &str, body: &mut dyn Read, partial: &mut Partial) -> Result<bool, RemoteError> {
        let expected = self.download.size;
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.failed.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let count = match body.read(&mut buffer) {
                Ok(0) if partial.held() == expected => return Ok(true),
                Ok(0) => {
                    let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(RemoteError::Read { url: url.to_owned(), source });
                }
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(RemoteError::Read { url: url.to_owned(), source }),
            };
            if partial.held() + count as u64 > expected {
                return Err(RemoteError::Size { url: url.to_owned(), expected, found: expected + 1 });
            }
            partial.append(&buffer[..count])?;
            self.task.advance(count as u64);
        }
    }

    /// Verifies what was gathered and gives it its name.
    fn finish(&self, url: &str, partial: &mut Partial) -> Result<PathBuf, RemoteError> {
        let tally = std::mem::replace(&mut partial.tally, HashWriter::new(io::sink()));
        let (_, found, length) = tally.finish();
        let (expected, size) = (self.download.sha256, self.download.size);
        if length != size {
            return Err(RemoteError::Size { url: url.to_owned(), expected: size, found: length });
        }
        if found != expected {
            return Err(RemoteError::Digest { url: url.to_owned(), expected, found });
        }
        let path = complete(self.into, self.download);
        partial.lock.file().sync_all().map_err(|source| RemoteError::write(&partial.path, source))?;
        std::fs::rename(&partial.path, &path).at("rename", &partial.path)?;
        Ok(path)
    }

    /// A file of this machine: verified where it is.
    fn local(&self, url: &str, path: PathBuf, partial: &mut Partial) -> Result<Outcome, RemoteError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(RemoteError::Gone { label: self.download.label.clone(), url: url.to_owned() });
            }
            Err(e) => return Err(e).at("open", &path).map_err(Into::into),
        };
        let promise = Promise { size: self.download.size, sha256: self.download.sha256 };
        Checked::new(url, file, promise, &|count| self.task.advance(count)).finish()?;
        let _ = std::fs::remove_file(&partial.path);
        Ok(Outcome::Done(path))
    }
}

fn wrong_range() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server sent another range than was asked for")
}

/// Whether a locked file is still the one at its path.
fn is_same(lock: &FileLock, path: &Path) -> bool {
    match (lock.file().metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Start and total of `bytes 5-9/10`.
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let parse = || {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, _) = range.split_once('-')?;
        Some((start.trim().parse().ok(), total.trim().parse().ok()))
    };
    parse().unwrap_or_default()
}
