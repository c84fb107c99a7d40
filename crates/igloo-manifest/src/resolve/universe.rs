//! What there is to choose from.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use igloo_formats::deb::{Index, Record, Relations};

use crate::lock::LockedPackage;

/// A package that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What the index says about it.
    pub record: Record,
    /// The suite it is from.
    pub suite: String,
    /// The suite says `NotAutomatic`, as backports do: taken when asked for by suite, when nothing else can satisfy,
    /// or when no other suite has the package.
    pub not_automatic: bool,
    /// The lock has it; preferred to newer ones.
    pub locked: bool,
    /// Where the archive first mentions the package. Between equal providers the later one wins, as in apt.
    pub rank: u64,
}

impl Candidate {
    /// Order among the versions of a package, the best first.
    pub fn preference(a: &Candidate, b: &Candidate) -> Ordering {
        let key = |c: &Candidate| (Reverse(c.locked), c.not_automatic);
        key(a).cmp(&key(b)).then_with(|| b.record.version.cmp(&a.record.version))
    }
}

impl From<&LockedPackage> for Candidate {
    /// What a lock keeps of a package; the index, if it still has it, knows the rest.
    fn from(package: &LockedPackage) -> Self {
        let record = Record {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            source: package.name.clone(),
            priority: package.priority,
            essential: package.essential,
            multi_arch: package.multi_arch,
            section: package.section.clone(),
            installed_size: package.installed_size,
            filename: package.file.clone(),
            size: package.size,
            sha256: package.sha256,
            pre_depends: Relations::default(),
            depends: package.depends.clone(),
            recommends: package.recommends.clone(),
            conflicts: package.conflicts.clone(),
            breaks: Relations::default(),
            replaces: package.replaces.clone(),
            provides: package.provides.clone(),
            description: String::new(),
        };
        Candidate { record, suite: package.suite.clone(), not_automatic: false, locked: true, rank: 0 }
    }
}

/// Candidates by name.
pub trait Universe {
    /// Every version of a package, the best first: see [`Candidate::preference`].
    fn candidates(&self, name: &str) -> Vec<Arc<Candidate>>;

    /// Every candidate that provides a name, under another name of its own, in any order.
    fn providers(&self, name: &str) -> Vec<Arc<Candidate>>;

    /// Names of the Essential packages.
    fn essential(&self) -> Vec<String>;

    /// Names that could have been meant, the most similar first.
    fn names_like(&self, name: &str) -> Vec<String>;

    /// Why packages of this name, which are there, cannot be used.
    fn unreadable(&self, name: &str) -> Option<String>;
}

/// The universe of some package indexes, all for the same architecture, and of the packages of a lock.
///
/// Parses a stanza when somebody asks for the package, once.
pub struct Indexes<'a, B: AsRef<[u8]>> {
    suites: Vec<Suite<'a, B>>,
    locked: HashMap<String, Vec<Arc<Candidate>>>,
    /// Names of locked packages by what they provide.
    locked_providers: HashMap<String, Vec<String>>,
    known: RefCell<HashMap<String, Vec<Arc<Candidate>>>>,
    known_providers: RefCell<HashMap<String, Vec<Arc<Candidate>>>>,
    unreadable: RefCell<HashMap<String, String>>,
}

struct Suite<'a, B: AsRef<[u8]>> {
    name: String,
    not_automatic: bool,
    index: &'a Index<B>,
}

impl<B: AsRef<[u8]>> Default for Indexes<'_, B> {
    fn default() -> Self {
        Self {
            suites: Vec::new(),
            locked: HashMap::new(),
            locked_providers: HashMap::new(),
            known: RefCell::new(HashMap::new()),
            known_providers: RefCell::new(HashMap::new()),
            unreadable: RefCell::new(HashMap::new()),
        }
    }
}

impl<'a, B: AsRef<[u8]>> Indexes<'a, B> {
    /// Nothing to choose from.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the packages of a suite. Of equal versions the one from the suite that was added first is taken.
    pub fn add(&mut self, suite: &str, not_automatic: bool, index: &'a Index<B>) {
        self.forget();
        self.suites.push(Suite { name: suite.to_owned(), not_automatic, index });
    }

    /// Adds a package of the lock: it can be chosen even if no index has it any more, and is preferred to newer ones.
    pub fn lock(&mut self, candidate: Candidate) {
        self.forget();
        let candidate = Arc::new(Candidate { locked: true, ..candidate });
        for provided in candidate.record.provides.iter().flat_map(|clause| &clause.0) {
            self.locked_providers.entry(provided.name.clone()).or_default().push(candidate.record.name.clone());
        }
        self.locked.entry(candidate.record.name.clone()).or_default().push(candidate);
    }

    fn forget(&mut self) {
        self.known.get_mut().clear();
        self.known_providers.get_mut().clear();
    }

    fn rank(&self, name: &str) -> u64 {
        let found = self.suites.iter().zip(0u64..).find_map(|(s, i)| Some(i << 32 | u64::from(s.index.rank(name)?)));
        found.unwrap_or(0)
    }

    fn read(&self, name: &str) -> Vec<Arc<Candidate>> {
        let rank = self.rank(name);
        let mut found = self.locked.get(name).cloned().unwrap_or_default();
        for candidate in &mut found {
            Arc::make_mut(candidate).rank = rank;
        }
        for suite in &self.suites {
            for record in suite.index.find(name) {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => {
                        let why = innermost(&error);
                        self.unreadable.borrow_mut().insert(name.to_owned(), why);
                        continue;
                    }
                };
                if let Some(same) = found.iter_mut().find(|c| same_package(&c.record, &record)) {
                    // The index knows more than a lock keeps.
                    if same.locked && same.record.description.is_empty() {
                        Arc::make_mut(same).record = record;
                    }
                    continue;
                }
                let (suite, not_automatic) = (suite.name.clone(), suite.not_automatic);
                found.push(Arc::new(Candidate { record, suite, not_automatic, locked: false, rank }));
            }
        }
        found.sort_by(|a, b| Candidate::preference(a, b));
        found
    }
}

fn same_package(a: &Record, b: &Record) -> bool {
    (&a.version, &a.architecture, &a.sha256) == (&b.version, &b.architecture, &b.sha256)
}

/// The message of an error and of all that caused it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl<B: AsRef<[u8]>> Universe for Indexes<'_, B> {
    fn candidates(&self, name: &str) -> Vec<Arc<Candidate>> {
        if let Some(known) = self.known.borrow().get(name) {
            return known.clone();
        }
        let found = self.read(name);
        self.known.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }

    fn providers(&self, name: &str) -> Vec<Arc<Candidate>> {
        if let Some(known) = self.known_providers.borrow().get(name) {
            return known.clone();
        }
        let indexed = self.suites.iter().flat_map(|suite| suite.index.providers(name));
        let locked = self.locked_providers.get(name).into_iter().flatten().map(String::as_str);
        let mut owners: Vec<&str> = indexed.chain(locked).filter(|owner| *owner != name).collect();
        owners.sort_unstable();
        owners.dedup();
        let provides = |c: &Candidate| c.record.provides.iter().flat_map(|clause| &clause.0).any(|p| p.name == name);
        let mut found: Vec<_> = owners.into_iter().flat_map(|owner| self.candidates(owner)).collect();
        found.retain(|c| provides(c));
        self.known_providers.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }

    fn essential(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.suites.iter().flat_map(|suite| suite.index.essential()).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn names_like(&self, name: &str) -> Vec<String> {
        similar_names(name, self.suites.iter().flat_map(|suite| suite.index.names()))
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        self.unreadable.borrow().get(name).cloned()
    }
}

/// The names that are most like this one: few letters differ, or it is the beginning of them.
fn similar_names<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const MOST: usize = 3;
    let tolerated = match name.len() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    let mut found: Vec<(usize, usize, &str)> = names
        .filter_map(|other| {
            if other.len().abs_diff(name.len()) <= tolerated {
                let distance = strsim::osa_distance(name, other);
                if distance <= tolerated {
                    return Some((distance, 0, other));
                }
            }
            // `postgresql-server` for `postgresql`, `libssl` for `libssl3`; shortest first.
            let longer = name.len() >= 3 && (other.starts_with(name) || other.contains(&format!("-{name}")));
            longer.then_some((tolerated + 1, other.len(), other))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(MOST).map(|(.., name)| name.to_owned()).collect()
}
