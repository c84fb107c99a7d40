//! Garbage: content that no manifest of any repository reaches, and that nobody touched for a while.
//!
//! What is needed is found without holding up anybody. Then, while no new names are made for content, the manifests
//! that came meanwhile are looked at, and what is still not needed goes. A push that goes on beside it loses nothing:
//! what it uploaded, mounted or asked for is young.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use igloo_base::At as _;
use igloo_formats::oci::Digest;
use serde::Serialize;

use super::document::Stored;
use super::name::Repository;
use super::storage::{Storage, age, remove};
use crate::error::ServeError;

/// What is collected.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What was touched within this time stays. Shorter than a push takes means that a push may fail.
    pub grace: Duration,
    /// Also manifests that no tag names, directly, through an index or as the subject of what refers to it.
    pub untagged: bool,
    /// Delete nothing.
    pub dry_run: bool,
}

/// What was, or would be, deleted.
#[derive(Debug, Default, Serialize)]
pub struct Collected {
    /// Content, by digest, and its bytes.
    pub blobs: Vec<(String, u64)>,
    /// Manifests without a tag, `repository@digest`.
    pub manifests: Vec<String>,
    /// Files that were left by writes and uploads that never ended.
    pub leftovers: usize,
    /// Bytes of all that.
    pub freed: u64,
    /// How much content stays.
    pub kept: usize,
}

/// A repository's manifests that were looked at, and what they need.
#[derive(Default)]
struct Seen {
    manifests: BTreeMap<Digest, Option<Stored>>,
}

impl Seen {
    /// Looks at the manifests that were not looked at before.
    fn look(&mut self, storage: &Storage, name: &Repository) -> Result<(), ServeError> {
        for digest in storage.manifests(name)? {
            if self.manifests.contains_key(&digest) {
                continue;
            }
            let stored = match storage.manifest(name, &digest)? {
                Some(file) => Some(Stored::parse(&file.media_type, &file.bytes).map_err(|source| {
                    ServeError::BadManifest { repository: name.to_string(), digest: digest.to_string(), source }
                })?),
                // Deleted since it was listed. If its link is still there, its content is lost: that needs nothing.
                None => None,
            };
            self.manifests.insert(digest, stored);
        }
        Ok(())
    }

    /// Manifests that a tag leads to, and what says something about those.
    fn tagged(&self, storage: &Storage, name: &Repository) -> Result<BTreeSet<Digest>, ServeError> {
        let mut alive = BTreeSet::new();
        let mut next: Vec<Digest> = Vec::new();
        for tag in storage.tags(name)? {
            next.extend(storage.tag(name, &tag)?);
        }
        while let Some(digest) = next.pop() {
            if !alive.insert(digest) {
                continue;
            }
            if let Some(Some(stored)) = self.manifests.get(&digest) {
                next.extend(stored.manifests.iter().map(|m| m.digest));
            }
            let about = |s: &&Option<Stored>| s.as_ref().is_some_and(|s| s.subject == Some(digest));
            next.extend(self.manifests.iter().filter(|(_, s)| about(s)).map(|(d, _)| *d));
        }
        Ok(alive)
    }
}

/// Collects garbage.
pub fn collect(storage: &Storage, options: &Options) -> Result<Collected, ServeError> {
    let mut seen: BTreeMap<Repository, Seen> = BTreeMap::new();
    for name in storage.all()? {
        seen.entry(name.clone()).or_default().look(storage, &name)?;
    }
    let _lock = storage.deleting()?;
    let mut collected = Collected::default();
    let names = storage.all()?;
    for name in &names {
        seen.entry(name.clone()).or_default().look(storage, name)?;
    }
    seen.retain(|name, _| names.contains(name));
    if options.untagged {
        for (name, seen) in &mut seen {
            untagged(storage, name, seen, options, &mut collected)?;
        }
    }
    let mut needed = BTreeSet::new();
    for (name, seen) in &seen {
        let mut own = BTreeSet::new();
        for (digest, stored) in &seen.manifests {
            needed.insert(*digest);
            own.extend(stored.iter().flat_map(|s| &s.blobs).map(|b| b.digest));
        }
        // A blob that no manifest of its repository needs is no longer that repository's.
        let directory = storage.repository(name).join("_blobs");
        for digest in storage.digests(&directory)? {
            let link = storage.link(name, "_blobs", &digest);
            if own.contains(&digest) {
                needed.insert(digest);
            } else if is_old(&link, options.grace)? {
                if !options.dry_run {
                    remove(&link)?;
                }
            } else {
                needed.insert(digest);
            }
        }
        leftovers(&storage.repository(name), options, &mut collected)?;
    }
    sweep(storage, &needed, options, &mut collected)?;
    if !options.dry_run {
        names.iter().try_for_each(|name| tidy(storage, name))?;
    }
    Ok(collected)
}

fn is_old(path: &Path, grace: Duration) -> Result<bool, ServeError> {
    Ok(age(path)?.is_some_and(|age| age >= grace))
}

fn untagged(
    storage: &Storage,
    name: &Repository,
    seen: &mut Seen,
    options: &Options,
    collected: &mut Collected,
) -> Result<(), ServeError> {
    let alive = seen.tagged(storage, name)?;
    let dead: Vec<Digest> = seen.manifests.keys().copied().filter(|d| !alive.contains(d)).collect();
    for digest in dead {
        if !is_old(&storage.link(name, "_manifests", &digest), options.grace)? {
            continue;
        }
        if !options.dry_run {
            storage.unlink_manifest(name, &digest)?;
        }
        seen.manifests.remove(&digest);
        collected.manifests.push(format!("{name}@{digest}"));
    }
    Ok(())
}

/// Deletes content that is neither needed nor young.
fn sweep(
    storage: &Storage,
    needed: &BTreeSet<Digest>,
    options: &Options,
    collected: &mut Collected,
) -> Result<(), ServeError> {
    let directory = storage.blobs();
    for digest in storage.digests(&directory)? {
        let path = storage.blob_path(&digest);
        if needed.contains(&digest) || !is_old(&path, options.grace)? {
            collected.kept += 1;
            continue;
        }
        let size = fs::metadata(&path).map_or(0, |m| m.len());
        if !options.dry_run {
            remove(&path)?;
        }
        collected.freed += size;
        collected.blobs.push((digest.to_string(), size));
    }
    leftovers(&directory, options, collected)
}

/// Deletes what writes that were killed left in a directory and, for a repository, in those below it that are ours.
fn leftovers(directory: &Path, options: &Options, collected: &mut Collected) -> Result<(), ServeError> {
    // Writes take no minutes, whatever the grace is.
    let grace = options.grace.max(Duration::from_secs(600));
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.at("list", directory)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('_') {
            leftovers(&entry.path(), options, collected)?;
        } else if name.starts_with(".igloo-") && is_old(&entry.path(), grace)? {
            collected.freed += entry.metadata().map_or(0, |m| m.len());
            collected.leftovers += 1;
            if !options.dry_run {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes directories in which nothing is left.
fn tidy(storage: &Storage, name: &Repository) -> Result<(), ServeError> {
    let directory = storage.repository(name);
    let referrers = directory.join("_referrers");
    if let Ok(entries) = fs::read_dir(&referrers) {
        // One that is not empty stays, which is what is wanted; so below.
        entries.flatten().for_each(|e| drop(fs::remove_dir(e.path())));
    }
    for kind in ["_referrers", "_blobs", "_manifests", "_tags"] {
        let _ = fs::remove_dir(directory.join(kind));
    }
    let repositories = storage.repositories();
    for above in directory.ancestors().take_while(|p| *p != repositories && p.starts_with(&repositories)) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}
