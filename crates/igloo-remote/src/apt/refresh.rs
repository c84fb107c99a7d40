//! The whole of a refresh: release files in parallel, then the package lists that are not in the cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use igloo_base::file::FileLock;
use igloo_base::{Event, PathError, Reporter};

use super::machine::{Location, Machine};
use super::packages::List;
use super::release::{Obtained, Wanted};
use super::state::SuiteDir;
use super::{Freshness, PackageIndex, Suite, SuiteRequest};
use crate::{Client, RemoteError};

/// Lists that are indexed at one time: each takes a core and some tens of megabytes.
const MAX_INDEXING: usize = 4;

/// A request and where it leads.
struct Plan<'a> {
    request: &'a SuiteRequest,
    location: Location,
    dir: SuiteDir,
}

impl Client {
    /// Brings suites up to `policy` and opens their indexes. `cache` is the directory of verified release files and
    /// indexes, which several processes may share.
    pub fn refresh(
        &self,
        requests: &[SuiteRequest],
        arch: &[&str],
        cache: &Path,
        policy: Freshness,
        reporter: &dyn Reporter,
    ) -> Result<Vec<Suite>, RemoteError> {
        let machine = Machine::read(&self.config().etc_apt, &self.config().keyrings)?;
        let mut plans = Vec::new();
        for request in requests {
            let location = machine.locate(request, arch)?;
            let dir = SuiteDir::new(cache, location.urls.first().map_or("", String::as_str), &request.suite);
            plans.push(Plan { request, location, dir });
        }
        let _locks = lock(&plans, policy, reporter)?;

        let now = SystemTime::now();
        let obtained = parallel(&plans, plans.len().min(self.config().connections), |plan| {
            let Plan { request, location, dir } = plan;
            Wanted { client: self, request, location, dir, reporter }.obtain(policy, now)
        });
        let obtained: Vec<Obtained> = obtained.into_iter().collect::<Result<_, _>>()?;

        let mut lists = Vec::new();
        for (at, (plan, obtained)) in plans.iter().zip(&obtained).enumerate() {
            for (component, arch, list) in lists_of(plan.request, obtained, arch)? {
                lists.push((at, component, arch, list));
            }
        }
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_INDEXING);
        let indexes = parallel(&lists, threads, |(at, _, _, list)| {
            let dir = &plans[*at].dir;
            match list.cached(dir)? {
                Some(index) => Ok(index),
                None if policy == Freshness::CacheOnly => {
                    Err(RemoteError::NotCached { suite: plans[*at].request.suite.clone() })
                }
                None => list.fetch(self, dir, reporter),
            }
        });

        let mut suites: Vec<Suite> =
            plans.iter().zip(&obtained).map(|(plan, obtained)| suite(plan.request, obtained)).collect();
        let mut keys = vec![Vec::new(); suites.len()];
        for ((at, component, arch, list), index) in lists.into_iter().zip(indexes) {
            keys[at].push(list.key);
            suites[at].indexes.push((component, arch, index?));
        }
        if policy != Freshness::CacheOnly {
            for ((plan, obtained), keys) in plans.iter().zip(obtained).zip(keys) {
                record(plan, obtained, keys)?;
            }
        }
        Ok(suites)
    }
}

/// Keeps other processes from refreshing the same suites. Always in the same order, so that nobody waits in a circle.
fn lock(plans: &[Plan<'_>], policy: Freshness, reporter: &dyn Reporter) -> Result<Vec<FileLock>, PathError> {
    let dirs: BTreeMap<&SuiteDir, &str> = plans.iter().map(|p| (&p.dir, p.request.suite.as_str())).collect();
    let mut locks = Vec::new();
    for (dir, suite) in dirs {
        if policy == Freshness::CacheOnly {
            locks.push(dir.lock_shared()?);
            continue;
        }
        match FileLock::try_exclusive(dir.lock_path())? {
            Some(lock) => locks.push(lock),
            None => {
                let text = format!("waiting for another igloo that refreshes `{suite}`");
                reporter.event(Event::Note { text });
                locks.push(FileLock::exclusive(dir.lock_path())?);
            }
        }
    }
    Ok(locks)
}

/// The lists of a suite: component, architecture, list.
fn lists_of(
    request: &SuiteRequest,
    obtained: &Obtained,
    arch: &[&str],
) -> Result<Vec<(String, String, List)>, RemoteError> {
    let release = &obtained.release;
    let suite = &request.suite;
    let mut lists = Vec::new();
    for arch in arch {
        if !release.architectures.iter().any(|a| a == arch) {
            let (suite, arch, available) = (suite.clone(), (*arch).to_owned(), release.architectures.clone());
            return Err(RemoteError::NoArchitecture { suite, arch, available });
        }
        for component in &request.components {
            let list = |directory: &str| {
                let directory = format!("{component}/binary-{directory}");
                let label = format!("{suite} {component} {arch}");
                List::of(&obtained.url, suite, release, &directory, label)
            };
            let own = list(arch).ok_or_else(|| RemoteError::NoComponent {
                suite: suite.clone(),
                component: component.clone(),
                arch: (*arch).to_owned(),
                available: release.components.clone(),
            })?;
            lists.push((component.clone(), (*arch).to_owned(), own));
            // Archives that do not repeat packages of all architectures in the list of each keep them in their own.
            if release.architectures.iter().any(|a| a == "all") && !release.all_is_included {
                lists.extend(list("all").map(|all| (component.clone(), (*arch).to_owned(), all)));
            }
        }
    }
    Ok(lists)
}

fn suite(request: &SuiteRequest, obtained: &Obtained) -> Suite {
    let release = &obtained.release;
    Suite {
        name: request.suite.clone(),
        suite: release.suite.clone(),
        codename: release.codename.clone(),
        origin: release.origin.clone(),
        url: obtained.url.clone(),
        date: release.date,
        valid_until: release.valid_until,
        release: obtained.digest,
        signers: obtained.signers.clone(),
        components: request.components.clone(),
        not_automatic: release.not_automatic,
        but_automatic_upgrades: release.but_automatic_upgrades,
        indexes: Vec::<(String, String, PackageIndex)>::new(),
    }
}

/// Notes which indexes the suite has now, and lets go of those it no longer has. Indexes of other architectures or
/// components stay as long as the release does.
fn record(plan: &Plan<'_>, obtained: Obtained, mut keys: Vec<igloo_base::Sha256>) -> Result<(), RemoteError> {
    let Obtained { mut state, release, old_indexes, .. } = obtained;
    let listed = |digest: &igloo_base::Sha256| release.files.values().any(|(_, d)| d == digest);
    keys.extend(old_indexes.iter().filter(|digest| listed(digest)));
    keys.sort();
    keys.dedup();
    if state.indexes != keys {
        state.indexes = keys;
        plan.dir.store(&state, None)?;
    }
    plan.dir.prune(&old_indexes, &state.indexes);
    Ok(())
}

/// Applies `act` to each item on several threads; results are in the items' order.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], threads: usize, act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1).min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
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
