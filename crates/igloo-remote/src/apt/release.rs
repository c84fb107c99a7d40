//! Release files: fetched, verified, and held against what was seen before.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use igloo_base::{At, Event, Reporter, Sha256};
use igloo_formats::deb::release::{MAX_RELEASE, Release, format_date};
use igloo_formats::deb::signature::Keyring;

use super::machine::{Location, Trust};
use super::state::{Cached, State, SuiteDir};
use super::{Freshness, SuiteRequest};
use crate::client::url;
use crate::{Client, RemoteError};

/// How far the archive's clock may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// A release file that is believed.
pub(super) struct Obtained {
    /// The archive's address.
    pub(super) url: String,
    pub(super) release: Release,
    pub(super) digest: Sha256,
    pub(super) signers: Vec<String>,
    /// What is to be recorded once the indexes are there too.
    pub(super) state: State,
    /// Indexes that the cache held for the suite until now.
    pub(super) old_indexes: Vec<Sha256>,
}

/// All that it takes to obtain one.
pub(super) struct Wanted<'a> {
    pub(super) client: &'a Client,
    pub(super) request: &'a SuiteRequest,
    pub(super) location: &'a Location,
    pub(super) dir: &'a SuiteDir,
    pub(super) reporter: &'a dyn Reporter,
}

/// What an archive answered.
enum Answered {
    Unchanged,
    Content { bytes: Vec<u8>, etag: Option<String>, modified: Option<String> },
}

impl Wanted<'_> {
    /// The suite's release file, from the cache if `policy` allows.
    pub(super) fn obtain(&self, policy: Freshness, now: SystemTime) -> Result<Obtained, RemoteError> {
        let mut cached = self.dir.load()?;
        let from_cache = match policy {
            Freshness::CacheOnly => true,
            Freshness::MaxAge(age) => cached.as_ref().is_some_and(|c| is_fresh(&c.state, age, now)),
            Freshness::Now => false,
        };
        if from_cache {
            let found = match &cached {
                Some(cached) => self.recall(cached, policy, now)?,
                None => None,
            };
            match found {
                Some(obtained) => return Ok(obtained),
                None if policy == Freshness::CacheOnly => {
                    return Err(RemoteError::NotCached { suite: self.request.suite.clone() });
                }
                None => {}
            }
        }
        let mut last = None;
        for base in &self.location.urls {
            match self.ask(base, cached.as_mut(), now) {
                Err(error) if error.is_of_address() => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| RemoteError::NoSource { suite: self.request.suite.clone() }))
    }

    /// What the cache holds, if it is whole. It was believed when it was stored, so keys and `Valid-Until` are held
    /// against that time; that whoever signed it is trusted is checked anew, since that may have been changed.
    fn recall(&self, cached: &Cached, policy: Freshness, now: SystemTime) -> Result<Option<Obtained>, RemoteError> {
        let Some(bytes) = &cached.release else { return Ok(None) };
        let url = self.file(&cached.state.url);
        let (release, signers) = self.verify(&url, bytes, cached.state.checked())?;
        if let Some(until) = release.valid_until.filter(|until| *until < now && !self.request.frozen) {
            if policy != Freshness::CacheOnly {
                return Ok(None);
            }
            self.reporter.event(Event::Warning {
                text: format!(
                    "the cached package lists of `{}` were valid until {}",
                    self.request.suite,
                    format_date(until)
                ),
                hint: None,
            });
        }
        Ok(Some(Obtained {
            url: cached.state.url.clone(),
            release,
            digest: cached.state.release,
            signers,
            state: cached.state.clone(),
            old_indexes: cached.state.indexes.clone(),
        }))
    }

    /// Asks the archive at one address.
    fn ask(&self, base: &str, cached: Option<&mut Cached>, now: SystemTime) -> Result<Obtained, RemoteError> {
        let url = self.file(base);
        let known = cached.as_deref().filter(|c| c.state.url == base && c.release.is_some());
        let answered = self.client.retry(|| self.fetch(&url, known))?;
        let old_indexes = cached.as_ref().map(|c| c.state.indexes.clone()).unwrap_or_default();

        let (state, release, signers, bytes) = match (answered, cached) {
            (Answered::Unchanged, Some(Cached { state, release: Some(bytes) })) => {
                let (release, signers) = self.verify(&url, bytes, now)?;
                self.check_until(&url, &release, now)?;
                let mut state = state.clone();
                state.set_checked(now);
                (state, release, signers, None)
            }
            // Said to somebody who has nothing to be unchanged.
            (Answered::Unchanged, _) => return Err(RemoteError::Status { url, status: 304 }),
            (Answered::Content { bytes, etag, modified }, cached) => {
                let (release, signers) = self.verify(&url, &bytes, now)?;
                self.check_until(&url, &release, now)?;
                if release.date > now + CLOCK_SKEW {
                    return Err(RemoteError::FromFuture { url, date: release.date });
                }
                if let Some(seen) = cached.map(|c| c.state.date()).filter(|seen| release.date < *seen) {
                    return Err(RemoteError::Rollback { url, offered: release.date, seen });
                }
                let mut state = State::new(base, release.date, now, Sha256::of(&bytes));
                (state.etag, state.modified) = (etag, modified);
                state.indexes = old_indexes.clone();
                (state, release, signers, Some(bytes))
            }
        };
        self.dir.store(&state, bytes.as_deref())?;
        Ok(Obtained { url: base.to_owned(), release, digest: state.release, signers, state, old_indexes })
    }

    fn fetch(&self, url: &str, known: Option<&Cached>) -> Result<Answered, RemoteError> {
        if let Some(path) = url::local(url) {
            return read_local(&path, &self.request.suite, url);
        }
        let mut headers = Vec::new();
        if let Some(state) = known.map(|c| &c.state) {
            match (&state.etag, &state.modified) {
                (Some(etag), _) => headers.push(("If-None-Match", etag.as_str())),
                (None, Some(modified)) => headers.push(("If-Modified-Since", modified.as_str())),
                (None, None) => {}
            }
        }
        let mut answer = self.client.get(url, &headers)?;
        match answer.status {
            200 => {}
            304 => return Ok(Answered::Unchanged),
            404 | 410 => {
                return Err(RemoteError::NoSuite { suite: self.request.suite.clone(), url: url.to_owned() });
            }
            status => return Err(RemoteError::Status { url: url.to_owned(), status }),
        }
        let own = |name: &str| answer.header(name).map(str::to_owned);
        let (etag, modified) = (own("etag"), own("last-modified"));
        let mut bytes = Vec::new();
        let read = answer.reader().take(MAX_RELEASE as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| RemoteError::Read { url: url.to_owned(), source })?;
        Ok(Answered::Content { bytes, etag, modified })
    }

    /// Checks signature and suite.
    fn verify(&self, url: &str, bytes: &[u8], at: SystemTime) -> Result<(Release, Vec<String>), RemoteError> {
        let trust = &self.location.trust;
        let keyring = keyring(trust, url)?;
        let verified = keyring.verify_cleartext(bytes, at);
        let verified = verified.map_err(|source| RemoteError::Signature { url: url.to_owned(), source })?;
        let named = |signer: &String| trust.fingerprints.iter().any(|f| f == signer);
        if !trust.fingerprints.is_empty() && !verified.signers.iter().any(named) {
            return Err(RemoteError::Signer { url: url.to_owned(), found: verified.signers });
        }
        let release = Release::parse(&verified.text);
        let release = release.map_err(|source| RemoteError::Release { url: url.to_owned(), source })?;
        let asked = &self.request.suite;
        // Debian's oldest security suites are called `buster/updates` and say `buster`.
        let short = asked.strip_suffix("/updates").unwrap_or(asked);
        if ![&release.suite, &release.codename].into_iter().any(|name| name == asked || name == short) {
            let (suite, codename) = (release.suite, release.codename);
            return Err(RemoteError::WrongSuite { url: url.to_owned(), asked: asked.clone(), suite, codename });
        }
        Ok((release, verified.signers))
    }

    /// Whether the release may still be believed. A machine whose apt is told not to ask, because its archive is
    /// frozen, gets a warning.
    fn check_until(&self, url: &str, release: &Release, now: SystemTime) -> Result<(), RemoteError> {
        let Some(until) = release.valid_until.filter(|until| *until < now && !self.request.frozen) else {
            return Ok(());
        };
        let expired = RemoteError::Expired { url: url.to_owned(), until };
        if !self.location.configured || self.client.apt().checks_valid_until() {
            return Err(expired);
        }
        let hint = "this machine's apt is told not to mind (`Acquire::Check-Valid-Until`)".to_owned();
        self.reporter.event(Event::Warning { text: expired.to_string(), hint: Some(hint) });
        Ok(())
    }

    fn file(&self, base: &str) -> String {
        url::file_url(base, &format!("dists/{}/InRelease", self.request.suite))
    }
}

fn is_fresh(state: &State, age: Duration, now: SystemTime) -> bool {
    // A check in the future was made with another clock.
    now.duration_since(state.checked()).is_ok_and(|since| since <= age)
}

fn read_local(path: &Path, suite: &str, url: &str) -> Result<Answered, RemoteError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(RemoteError::NoSuite { suite: suite.to_owned(), url: url.to_owned() });
        }
        Err(e) => return Err(e).at("open", path).map_err(Into::into),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RELEASE as u64 + 1).read_to_end(&mut bytes).at("read", path)?;
    Ok(Answered::Content { bytes, etag: None, modified: None })
}

/// The keys that may sign. A keyring that cannot be used is no fault as long as another one can: fewer keys are
/// trusted then.
fn keyring(trust: &Trust, url: &str) -> Result<Keyring, RemoteError> {
    let mut all = Keyring::default();
    let mut fault = None;
    for path in &trust.keyrings {
        let read = std::fs::read(path).at("read the keyring", path).map_err(RemoteError::from);
        let parsed = read.and_then(|bytes| {
            Keyring::parse(&bytes).map_err(|source| RemoteError::Keyring { path: path.clone(), source })
        });
        match parsed {
            Ok(keyring) => all.extend(keyring),
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    for text in &trust.inline {
        match Keyring::parse(text.as_bytes()) {
            Ok(keyring) => all.extend(keyring),
            Err(source) => {
                fault = fault.or(Some(RemoteError::Keyring { path: "Signed-By".into(), source }));
            }
        }
    }
    if all.is_empty() {
        return Err(fault.unwrap_or_else(|| RemoteError::NoKeyring { url: url.to_owned() }));
    }
    Ok(all)
}
