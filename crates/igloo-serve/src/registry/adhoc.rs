//! Images that are built when they are pulled: `HOST/shell/git/python3` is an image with these Debian packages.
//!
//! The components of a name are packages, in their order. `shell` stands for a shell and the usual tools, `amd64` and
//! `arm64` for another architecture than the server's, `_plus` for the `+` that names of repositories can't have
//! (`g_plus_plus`). The tag is a suite, or `latest` for the server's own. Clients that can't read zstd get an image of their
//! own, with gzip, kept as if `<suite>.gzip` were a suite.
//!
//! ```text
//! state/registry/<digest of name>/<suite>/igloo.toml, igloo.lock   what the name means, and for how long
//! state/registry/<digest of name>/<suite>/made.json                the images that were made of it, newest first
//! state/registry/<digest of name>/<suite>/used                     touched when it is pulled, for `igloo gc`
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use igloo_base::file::{create_dirs, read_optional, remove_tree, write_atomic};
use igloo_base::{At as _, Event, Reporter, Sha256, System};
use igloo_formats::oci::{Descriptor, Digest};
use igloo_image::Blobs;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::metrics::Metrics;
use super::name::Repository;
use super::refusal::Refusal;
use crate::error::{ServeError, chain};

/// Most packages of one name; a name has 255 bytes anyway.
const MAX_PACKAGES: usize = 64;
/// Builds at the same time: each uses all processors where it can.
const BUILDS: usize = 2;
/// Builds that wait; more are refused.
const WAITING: usize = 32;
/// A name that could not be built is not tried again for so long.
const FAILED: Duration = Duration::from_secs(60);
/// When newer versions can't be had, they are asked for again after this.
const AGAIN: Duration = Duration::from_secs(300);
/// Images of a name that are remembered, for those who pull while a newer one is made.
const HISTORY: usize = 8;
/// Names that could not be built, most that are remembered.
const MAX_FAILED: usize = 1024;
/// How often it is noted that an image is used.
const NOTED: Duration = Duration::from_secs(3600);

/// What is added to a suite's name for images with gzip; no suite is called so.
const GZIP: &str = ".gzip";

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Debian packages, in their order, each once.
    pub packages: Vec<String>,
    /// With a shell and the usual tools.
    pub shell: bool,
    /// For this system.
    pub system: System,
    /// From this suite.
    pub suite: String,
    /// With layers in gzip, and not zstd.
    pub gzip: bool,
}

impl Request {
    /// What a repository's name asks for; an error in words if it can't be built.
    pub fn parse(name: &Repository, suite: &str) -> Result<Self, String> {
        let mut request = Self {
            packages: Vec::new(),
            shell: false,
            system: System::current(),
            suite: suite.to_owned(),
            gzip: false,
        };
        for component in name.as_str().split('/') {
            match component {
                "shell" => request.shell = true,
                "amd64" => request.system = System::X86_64Linux,
                "arm64" => request.system = System::Aarch64Linux,
                package => {
                    let package = package.replace("_plus", "+");
                    if !is_package(&package) {
                        return Err(format!("`{component}` is not the name of a package"));
                    }
                    if !request.packages.contains(&package) {
                        request.packages.push(package);
                    }
                }
            }
        }
        match request.packages.len() {
            0 if !request.shell => Err("the name has no package in it".to_owned()),
            n if n > MAX_PACKAGES => Err(format!("{n} packages are too many for a name, {MAX_PACKAGES} at most")),
            _ => Ok(request),
        }
    }
}

/// As Debian's policy has it.
fn is_package(text: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() >= 2
        && text.as_bytes().first().is_some_and(alnum)
        && text.bytes().all(|b| alnum(&b) || matches!(b, b'+' | b'-' | b'.'))
}

/// Why there is no image.
#[derive(Debug)]
pub enum BuildError {
    /// There are no such packages, or they don't go together: the one who asks can do something about it.
    Request(String),
    /// Anything else.
    Fault(ServeError),
}

impl From<ServeError> for BuildError {
    fn from(error: ServeError) -> Self {
        BuildError::Fault(error)
    }
}

impl From<igloo_base::PathError> for BuildError {
    fn from(error: igloo_base::PathError) -> Self {
        BuildError::Fault(error.into())
    }
}

/// Makes images. There are two: igloo's own, and that of tests.
pub trait Builder: Send + Sync + 'static {
    /// Makes an image with the lock in `directory`, which is made where there is none, or anew with `refresh`. All of
    /// it is then among the [`Builder::blobs`]: what names it, then everything it consists of.
    fn build(&self, request: &Request, directory: &Path, refresh: bool) -> Result<Vec<Descriptor>, BuildError>;

    /// Where the content of what was made is.
    fn blobs(&self) -> Blobs;
}

/// How images are built on pull.
#[derive(Clone)]
pub struct AdHoc {
    /// Who builds.
    pub builder: Arc<dyn Builder>,
    /// Where locks and records are kept.
    pub directory: PathBuf,
    /// The suites that a tag may name. The first is `latest`.
    pub suites: Vec<String>,
    /// How long versions are kept.
    pub refresh: Duration,
}

/// What was made of a name, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Record {
    /// When versions were decided on, seconds since 1970.
    resolved: u64,
    images: Vec<Image>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Image {
    /// What names it, then what it consists of.
    parts: Vec<Descriptor>,
}

/// How a build ended, for all who wait for it.
#[derive(Debug, Clone)]
enum Outcome {
    Made(Arc<Record>),
    /// In words for the client.
    Refused(String),
    /// The log has it.
    Fault,
}

type Key = (String, String);

/// Names and what is known of them.
pub(crate) struct Images {
    adhoc: AdHoc,
    blobs: Blobs,
    reporter: Arc<dyn Reporter>,
    metrics: Arc<Metrics>,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    made: HashMap<Key, (Arc<Record>, Instant)>,
    flights: HashMap<Key, watch::Receiver<Option<Outcome>>>,
    failed: HashMap<Key, (Instant, String)>,
}

impl Images {
    pub(crate) fn new(adhoc: AdHoc, reporter: Arc<dyn Reporter>, metrics: Arc<Metrics>) -> Self {
        let blobs = adhoc.builder.blobs();
        let permits = Semaphore::new(BUILDS);
        Self { adhoc, blobs, reporter, metrics, permits, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a tag of a name stands for, built if need be.
    pub(crate) async fn tag(self: &Arc<Self>, name: &Repository, tag: &str, gzip: bool) -> Result<Descriptor, Refusal> {
        let unknown = |said: String| Refusal::missing("MANIFEST_UNKNOWN", said);
        let suites = &self.adhoc.suites;
        let suite = match (tag, suites.first()) {
            ("latest", Some(first)) => first.clone(),
            (tag, _) if suites.iter().any(|s| s == tag) => tag.to_owned(),
            (tag, _) => {
                let known = suites.join(", ");
                return Err(unknown(format!("nothing was pushed as `{name}:{tag}`, and `{tag}` is no suite: {known}")));
            }
        };
        let mut request = Request::parse(name, &suite)
            .map_err(|why| unknown(format!("nothing was pushed as `{name}`, and it can't be built: {why}")))?;
        request.gzip = gzip;
        let key = (name.to_string(), if gzip { suite + GZIP } else { suite });
        let mut flight = match self.depart(&key, request).await? {
            Depart::There(record) => return newest(&record),
            Depart::Flight(flight) => flight,
        };
        let landed = flight.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match landed {
            Ok(Some(Outcome::Made(record))) => newest(&record),
            Ok(Some(Outcome::Refused(said))) => Err(unknown(said)),
            // The builder panicked, or the log has it.
            Ok(Some(Outcome::Fault) | None) | Err(_) => Err(Refusal::new(
                hyper::StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                format!("`{name}` could not be built; the server's log says why"),
            )),
        }
    }

    /// What is there, or the one build that all who ask for it wait for.
    async fn depart(self: &Arc<Self>, key: &Key, request: Request) -> Result<Depart, Refusal> {
        if let Some(record) = self.fresh(key).await? {
            self.metrics.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Depart::There(record));
        }
        let mut state = self.state();
        if let Some(flight) = state.flights.get(key).filter(|f| f.has_changed().is_ok()) {
            return Ok(Depart::Flight(flight.clone()));
        }
        if let Some((at, said)) = state.failed.get(key) {
            if at.elapsed() < FAILED {
                return Err(Refusal::missing("MANIFEST_UNKNOWN", said.clone()));
            }
            state.failed.remove(key);
        }
        if state.flights.len() >= BUILDS + WAITING {
            return Err(Refusal::busy("too many images are being built; try again later", 30));
        }
        let (landed, flight) = watch::channel(None);
        state.flights.insert(key.clone(), flight.clone());
        drop(state);
        let (this, key) = (Arc::clone(self), key.clone());
        // A task of its own: whoever asked first may go away meanwhile.
        tokio::spawn(async move {
            let outcome = this.build(&key, request).await;
            let mut state = this.state();
            state.flights.remove(&key);
            match &outcome {
                Outcome::Made(record) => {
                    state.made.insert(key, (Arc::clone(record), Instant::now()));
                }
                Outcome::Refused(said) => {
                    if state.failed.len() >= MAX_FAILED {
                        state.failed.retain(|_, (at, _)| at.elapsed() < FAILED / 2);
                    }
                    if state.failed.len() < MAX_FAILED {
                        state.failed.insert(key, (Instant::now(), said.clone()));
                    }
                }
                Outcome::Fault => {}
            }
            drop(state);
            landed.send_replace(Some(outcome));
        });
        Ok(Depart::Flight(flight))
    }

    /// The record of a name whose versions still hold and whose content is all there.
    async fn fresh(self: &Arc<Self>, key: &Key) -> Result<Option<Arc<Record>>, Refusal> {
        let known = self.state().made.get(key).cloned();
        let (this, key) = (Arc::clone(self), key.clone());
        let found = tokio::task::spawn_blocking(move || {
            let directory = this.directory(&key);
            let (record, noted) = match known {
                Some((record, noted)) => (record, Some(noted)),
                None => (Arc::new(read(&directory)?), None),
            };
            let age = now().saturating_sub(record.resolved);
            let whole =
                record.images.first().is_some_and(|i| i.parts.iter().all(|p| this.blobs.has(&p.digest, p.size)));
            if !whole || age > this.adhoc.refresh.as_secs() {
                return Ok::<_, ServeError>(None);
            }
            if noted.is_none_or(|at| at.elapsed() > NOTED) {
                note(&directory)?;
                this.state().made.insert(key, (Arc::clone(&record), Instant::now()));
            }
            Ok(Some(record))
        });
        Ok(found.await??)
    }

    async fn build(self: &Arc<Self>, key: &Key, request: Request) -> Outcome {
        let Ok(_permit) = self.permits.acquire().await else { return Outcome::Fault };
        let (this, owned) = (Arc::clone(self), key.clone());
        let start = Instant::now();
        let made = tokio::task::spawn_blocking(move || this.make(&owned, &request)).await;
        let metrics = &self.metrics;
        metrics.builds.fetch_add(1, Ordering::Relaxed);
        metrics.building.fetch_add(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        let failed = |fault: String| {
            self.reporter.event(Event::Warning { text: format!("cannot build `{}`: {fault}", key.0), hint: None });
        };
        if !matches!(made, Ok(Ok(_))) {
            metrics.failures.fetch_add(1, Ordering::Relaxed);
        }
        match made {
            Ok(Ok(record)) => Outcome::Made(Arc::new(record)),
            // The client is told, and the log has the answer.
            Ok(Err(BuildError::Request(said))) => Outcome::Refused(said),
            Ok(Err(BuildError::Fault(error))) => {
                failed(chain(&error));
                Outcome::Fault
            }
            Err(panicked) => {
                failed(panicked.to_string());
                Outcome::Fault
            }
        }
    }

    /// Builds, on a thread that may take its time.
    fn make(&self, key: &Key, request: &Request) -> Result<Record, BuildError> {
        let directory = self.directory(key);
        create_dirs(&directory)?;
        note(&directory)?;
        let mut record = read(&directory)?;
        let due = record.resolved > 0 && now().saturating_sub(record.resolved) > self.adhoc.refresh.as_secs();
        let built = self.adhoc.builder.build(request, &directory, due);
        let (parts, resolved) = match built {
            Ok(parts) if due || record.resolved == 0 => (parts, now()),
            Ok(parts) => (parts, record.resolved),
            // No newer versions today: those that are here are good for a while longer.
            Err(error) if due => {
                let why = match error {
                    BuildError::Request(said) => said,
                    BuildError::Fault(error) => chain(&error),
                };
                let text = format!("newer versions for `{}` can't be had: {why}", key.0);
                self.reporter.event(Event::Warning { text, hint: None });
                let parts = self.adhoc.builder.build(request, &directory, false)?;
                (parts, now().saturating_sub(self.adhoc.refresh.as_secs()).saturating_add(AGAIN.as_secs()))
            }
            Err(error) => {
                if record.images.is_empty() && matches!(error, BuildError::Request(_)) {
                    remove_tree(&directory)?;
                    // Another suite of the name may be there, which is fine.
                    let _ = directory.parent().map(fs::remove_dir);
                }
                return Err(error);
            }
        };
        let image = Image { parts };
        record.images.retain(|i| *i != image);
        record.images.insert(0, image);
        record.images.truncate(HISTORY);
        record.resolved = resolved;
        let bytes = serde_json::to_vec(&record).map_err(ServeError::Json)?;
        write_atomic(directory.join("made.json"), &bytes)?;
        Ok(record)
    }

    /// A part of any image that was made of a name, and its file.
    pub(crate) fn part(&self, name: &Repository, digest: &Digest) -> Result<Option<(Descriptor, File)>, ServeError> {
        let suites = &self.adhoc.suites;
        for suite in suites.iter().cloned().chain(suites.iter().map(|suite| suite.clone() + GZIP)) {
            let key = (name.to_string(), suite);
            let known = self.state().made.get(&key).map(|(record, _)| Arc::clone(record));
            let record = match known {
                Some(record) => record,
                None => Arc::new(read(&self.directory(&key))?),
            };
            let part = record.images.iter().flat_map(|i| &i.parts).find(|p| p.digest == *digest);
            let Some(part) = part else { continue };
            let path = self.blobs.path(digest);
            match File::open(&path) {
                Ok(file) if file.metadata().is_ok_and(|m| m.len() == part.size) => {
                    return Ok(Some((part.clone(), file)));
                }
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at("open", &path)?,
            }
        }
        Ok(None)
    }

    fn directory(&self, (name, suite): &Key) -> PathBuf {
        let digest = Sha256::of(name.as_bytes()).to_string();
        self.adhoc.directory.join(&digest[..16]).join(suite)
    }
}

enum Depart {
    There(Arc<Record>),
    Flight(watch::Receiver<Option<Outcome>>),
}

fn newest(record: &Record) -> Result<Descriptor, Refusal> {
    let top = record.images.first().and_then(|i| i.parts.first()).cloned();
    top.ok_or_else(|| Refusal::missing("MANIFEST_UNKNOWN", "nothing was made of this name"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A record that can't be read is none: everything in it can be made again.
fn read(directory: &Path) -> Result<Record, ServeError> {
    let bytes = read_optional(directory.join("made.json"))?;
    Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default())
}

/// Notes that an image is used.
fn note(directory: &Path) -> Result<(), ServeError> {
    let used = directory.join("used");
    fs::write(&used, b"").at("write", &used)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<Request, String> {
        Request::parse(&name.parse().expect(name), "bookworm")
    }

    #[test]
    fn names() {
        let request = parse("arm64/shell/git/python3/git").expect("good");
        assert_eq!(request.packages, ["git", "python3"]);
        assert!(request.shell);
        assert_eq!(request.system, System::Aarch64Linux);
        assert_eq!(parse("g_plus_plus/libstdc_plus_plus6").expect("good").packages, ["g++", "libstdc++6"]);
        assert!(parse("shell").expect("good").packages.is_empty());
        for bad in ["arm64", "a", "git/a_b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
