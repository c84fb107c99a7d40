//! How often a source package is updated: what archives and locks tell about it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::OnceLock;

use super::NIX;

/// What is known about updates before a plan is made. See the module documentation of [`crate::plan`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prior {
    releases: Vec<Release>,
    /// Updates by source and release.
    counts: HashMap<String, Vec<f64>>,
    /// The same by stem, so that `postgresql-17` inherits from `postgresql-15`: the most any source of that stem had.
    stems: HashMap<String, Vec<f64>>,
    /// Sources and stems whose changelogs tell of security fixes, whatever release they were for.
    fixed: HashSet<String>,
    /// Sources that were looked at and had neither updates nor such fixes.
    quiet: HashSet<String>,
    /// From locks: updates by source, and how long was watched, in steps between two locks.
    learnt: BTreeMap<String, (f64, f64)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Release {
    name: String,
    years: f64,
}

/// How often a source is expected to change, and why that is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Volatility {
    /// Expected bursts of updates a year.
    pub per_year: f64,
    /// What it was computed from, `bookworm 18 in 3.1 years`; empty if nothing was ever seen.
    pub evidence: Vec<String>,
}

/// Updates that are assumed on top of those that were seen. Of the sources of bench/fleets.txt that no release updated,
/// one in three hundred is updated in four months if it never had a security fix, and one in twenty if it had.
const UNKNOWN: f64 = 0.1;
const NEVER_FIXED: f64 = 0.05;
const FIXED: f64 = 0.6;
/// How many years of watching that guess is worth.
const GUESS_YEARS: f64 = 1.0;
/// What counts in the oldest release is worth less: the number of fixes a year grows, and code moves on.
const OLDER: f64 = 0.7;
/// What counts in the newest release is worth more, for the same reason.
const NEWEST: f64 = 3.0;
/// How much of a year one step between two locks stands for. Locks carry no dates, people update monthly or so.
const STEP_YEARS: f64 = 1.0 / 12.0;
/// A project's own history speaks about its own habits, so it counts more than an archive's.
const OWN: f64 = 3.0;

impl Prior {
    /// A prior that knows nothing: every source is equally volatile.
    pub fn empty() -> Prior {
        Prior::default()
    }

    /// What ships with igloo, from the changelogs of three releases up to the day named in `data/updates.txt`.
    pub fn shipped() -> Prior {
        Prior::shipped_ref().clone()
    }

    pub(super) fn shipped_ref() -> &'static Prior {
        static SHIPPED: OnceLock<Prior> = OnceLock::new();
        SHIPPED.get_or_init(|| Prior::read(include_str!("../../data/updates.txt")))
    }

    /// Reads the shipped table; lines it can't read are left out, a test holds that there are none.
    fn read(text: &str) -> Prior {
        let mut prior = Prior::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let Some(source) = words.next() else { continue };
            if source == "release" {
                let (Some(name), Some(years)) = (words.next(), words.next().and_then(|word| word.parse().ok())) else {
                    continue;
                };
                prior.releases.push(Release { name: name.to_owned(), years });
                continue;
            }
            let words: Vec<&str> = words.collect();
            if words == ["-"] {
                prior.quiet.insert(source.to_owned());
                continue;
            }
            if words.last() == Some(&"cve") {
                prior.fixed.extend([source.to_owned(), stem(source).to_owned()]);
            }
            let counts: Vec<f64> = words.iter().filter_map(|word| word.parse().ok()).collect();
            if counts.len() != prior.releases.len() {
                continue;
            }
            let most = prior.stems.entry(stem(source).to_owned()).or_insert_with(|| vec![0.0; counts.len()]);
            for (most, count) in most.iter_mut().zip(&counts) {
                *most = most.max(*count);
            }
            prior.counts.insert(source.to_owned(), counts);
        }
        prior
    }

    /// Learns from one or several histories of locks: each a list of locks, oldest first, each lock the sources and
    /// versions it holds. A source is watched from one lock to the next that both hold it; it was updated if its version
    /// differs. Call it once for each project.
    pub fn learn(&mut self, history: &[Vec<(String, String)>]) {
        for pair in history.windows(2) {
            let [old, new] = pair else { continue };
            let old: BTreeMap<&str, &str> = old.iter().map(|(source, version)| (&**source, &**version)).collect();
            let new: BTreeMap<&str, &str> = new.iter().map(|(source, version)| (&**source, &**version)).collect();
            for (source, version) in &new {
                let Some(before) = old.get(source) else { continue };
                let (updates, steps) = self.learnt.entry((*source).to_owned()).or_default();
                *steps += 1.0;
                if before != version {
                    *updates += 1.0;
                }
            }
        }
    }

    /// How often `source` changes.
    ///
    /// Counts of releases and locks are averaged over the time that was watched, with a small guess added so that what
    /// never changed is still not for ever; the result is raised to the power of 3/4, because updates come in bursts
    /// and a burst between two revisions of an image costs once.
    pub fn volatility(&self, source: &str) -> Volatility {
        let learnt = self.learnt.get(source);
        // What is updated often in Debian is updated often elsewhere.
        let source = source.strip_prefix(NIX).unwrap_or(source);
        let fixed = self.fixed.contains(source) || self.fixed.contains(stem(source));
        let mut updates = match (fixed, self.quiet.contains(source)) {
            (true, _) => FIXED,
            (false, true) => NEVER_FIXED,
            (false, false) => UNKNOWN,
        };
        let mut years = GUESS_YEARS;
        let mut evidence = Vec::new();
        let by_stem = self.stems.get(stem(source));
        let own = self.counts.get(source);
        let newest = self.releases.len().saturating_sub(1);
        for (at, release) in self.releases.iter().enumerate() {
            let count = [own, by_stem].iter().flatten().map(|counts| counts[at]).fold(0.0, f64::max);
            let weight = match at {
                _ if at == newest => NEWEST,
                0 => OLDER,
                _ => 1.0,
            };
            updates += weight * count;
            years += weight * release.years;
            if count > 0.0 {
                evidence.push(format!("{} {count} in {:.1} years", release.name, release.years));
            }
        }
        if fixed {
            evidence.push("had security fixes before".to_owned());
        }
        if let Some((count, steps)) = learnt {
            updates += OWN * count;
            years += OWN * steps * STEP_YEARS;
            evidence.push(format!("{count} of {steps} steps between locks"));
        }
        Volatility { per_year: three_quarters(updates / years), evidence }
    }
}

/// `x` to the power of 3/4; by square roots, which are exact on every machine, so that plans are, too.
fn three_quarters(x: f64) -> f64 {
    let root = x.sqrt();
    root * root.sqrt()
}

/// A source's name without the version in it: `postgresql-15` and `postgresql-17` are `postgresql`, `php8.2` is `php`.
pub(crate) fn stem(source: &str) -> &str {
    let cut = source.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if cut.is_empty() { source } else { cut }
}

#[cfg(test)]
mod tests {
    use super::Prior;

    #[test]
    fn every_line_of_the_shipped_table_is_read() {
        let text = include_str!("../../data/updates.txt");
        let prior = Prior::shipped();
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(prior.releases.len() + prior.counts.len() + prior.quiet.len(), lines);
        assert!(prior.counts.len() > 1000 && prior.releases.len() > 2);
    }

    #[test]
    fn what_was_updated_more_often_is_more_volatile() {
        let rate = |source: &str| Prior::shipped().volatility(source).per_year;
        assert!(rate("openssl") > 4.0 * rate("perl"));
        assert!(rate("perl") > 4.0 * rate("no-such-source"));
        assert!(rate("no-such-source") > 0.0);
        // Another version of a source that is known.
        assert!(rate("postgresql-99") > 1.0);
        assert_eq!(Prior::empty().volatility("openssl"), Prior::empty().volatility("anything"));
    }

    #[test]
    fn locks_teach() {
        let lock = |version: &str| vec![("app".to_owned(), version.to_owned()), ("lib".to_owned(), "1".to_owned())];
        let mut prior = Prior::shipped();
        prior.learn(&[lock("1"), lock("2"), lock("2"), lock("3")]);
        prior.learn(&[lock("3"), vec![]]);
        prior.learn(&[]);
        let (app, lib) = (prior.volatility("app"), prior.volatility("lib"));
        assert!(app.per_year > 5.0 * lib.per_year);
        assert_eq!(app.evidence, ["2 of 3 steps between locks"]);
        assert!(lib.per_year < Prior::shipped().volatility("lib").per_year);
    }
}
