//! Removing what no root reaches, under Nix's locks and in Nix's order: first out of the database, then off the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use igloo_base::file::{FileLock, remove_tree};
use igloo_base::{At, PathError, Reporter, Task, Unit};
use igloo_formats::nix::StorePath;

use crate::db::{PathInfo, free_reserved_space, reserve_space};
use crate::error::StoreError;
use crate::locks::try_lock;
use crate::roots::{Holder, Root};
use crate::usage::Usage;
use crate::{Store, list_dir};

/// What [`Store::collect`] removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Objects that nothing reaches, with the bytes each takes on disk.
    pub dead: Vec<(StorePath, u64)>,
    /// What lay in the store without being registered, with its bytes.
    pub orphans: Vec<(String, u64)>,
    /// What stays, and a root that reaches it.
    pub kept: Vec<(StorePath, Root)>,
    /// Bytes that were (would be) freed.
    pub freed: u64,
}

/// What is to be done.
struct Plan {
    kept: BTreeMap<StorePath, Root>,
    dead: Vec<StorePath>,
    orphans: Vec<String>,
}

impl Store {
    /// Removes what no root reaches and `keep` does not ask for; with `dry_run`, only tells.
    pub fn collect(
        &self,
        dry_run: bool,
        keep: &dyn Fn(&StorePath) -> bool,
        reporter: &dyn Reporter,
    ) -> Result<GcReport, StoreError> {
        if dry_run {
            return self.report(self.plan(keep)?, reporter);
        }
        self.writable()?;
        let layout = self.layout();
        refuse_connections(&layout.state.join("gc-socket/socket"));
        let nobody_adds = FileLock::exclusive(layout.gc_lock())?;
        // On a full disk, the database needs some room to forget something.
        free_reserved_space(layout);
        let plan = self.plan(keep)?;
        self.db()?.invalidate(&plan.dead)?;
        self.forget_debs(&plan.kept.keys().cloned().collect())?;

        // While others wait for us, things are only moved away. If there is no room even for that, they are removed
        // where they are.
        let names: Vec<&str> =
            plan.dead.iter().map(StorePath::base_name).chain(plan.orphans.iter().map(String::as_str)).collect();
        let trash = self.writer().and_then(|staging| Ok(staging.make()?)).ok();
        let trash = trash.as_ref().map_or(layout.store.as_path(), |trash| trash.path());
        let in_place = trash == layout.store;
        if !in_place {
            for name in &names {
                move_away(&layout.store.join(name), &trash.join(name))?;
            }
        }
        let locked = in_place.then_some(nobody_adds);
        let report = self.measure(&plan, trash)?;
        let task =
            Task::start(reporter, format!("remove {} objects", names.len()), Some(names.len() as u64), Unit::Items);
        for name in &names {
            remove_tree(trash.join(name))?;
            task.advance(1);
        }
        remove_unshared(&layout.links());
        drop(locked);
        reserve_space(layout);
        Ok(GcReport { kept: plan.kept.into_iter().collect(), ..report })
    }

    fn report(&self, plan: Plan, reporter: &dyn Reporter) -> Result<GcReport, StoreError> {
        let _task = Task::start(reporter, "measure objects", None, Unit::Items);
        let report = self.measure(&plan, &self.layout().store)?;
        Ok(GcReport { kept: plan.kept.into_iter().collect(), ..report })
    }

    /// Sizes of what is to go, which lies in `dir`.
    fn measure(&self, plan: &Plan, dir: &Path) -> Result<GcReport, StoreError> {
        let mut usage = Usage::default();
        let mut report = GcReport::default();
        for path in &plan.dead {
            report.dead.push((path.clone(), usage.add(&dir.join(path.base_name()))?));
        }
        for name in &plan.orphans {
            report.orphans.push((name.clone(), usage.add(&dir.join(name))?));
        }
        report.freed = usage.freed(&self.layout().links())?;
        Ok(report)
    }

    fn plan(&self, keep: &dyn Fn(&StorePath) -> bool) -> Result<Plan, StoreError> {
        let objects: BTreeMap<StorePath, PathInfo> =
            self.list()?.into_iter().map(|info| (info.path.clone(), info)).collect();
        let mut roots = self.roots()?;
        let asked = objects.keys().filter(|path| keep(path));
        roots.extend(asked.map(|path| Root { holder: Holder::Caller, target: path.clone() }));

        // Breadth first, so that the root that is told is a near one.
        let mut kept: BTreeMap<StorePath, Root> = BTreeMap::new();
        let mut open: VecDeque<(&StorePath, &Root)> = roots.iter().map(|root| (&root.target, root)).collect();
        while let Some((path, root)) = open.pop_front() {
            let Some(info) = objects.get(path) else { continue };
            if kept.contains_key(path) {
                continue;
            }
            kept.insert(path.clone(), root.clone());
            // Nix, as it comes, keeps the derivations of what it keeps (`keep-derivations`).
            open.extend(info.references.iter().chain(&info.deriver).map(|next| (next, root)));
        }
        let dead = objects.keys().filter(|path| !kept.contains_key(*path)).cloned().collect();
        let protected: BTreeSet<&str> = roots.iter().map(|root| root.target.base_name()).collect();
        let orphans = self.orphans(&objects, &protected)?;
        Ok(Plan { kept, dead, orphans })
    }

    /// What lies in the store without being registered, and is not being made just now.
    fn orphans(
        &self,
        objects: &BTreeMap<StorePath, PathInfo>,
        protected: &BTreeSet<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let layout = self.layout();
        let mut out = Vec::new();
        for path in list_dir(&layout.store)? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let valid = StorePath::parse(name).is_ok_and(|p| objects.contains_key(&p));
            // Nix makes `<path>.lock`, `<path>.check`, `<path>.chroot` beside what it holds a temporary root for.
            let made_now = protected.range(..=name).next_back().is_some_and(|p| name.starts_with(*p));
            if valid || made_now || path == layout.links() || is_locked(&path) {
                continue;
            }
            out.push(name.to_owned());
        }
        out.sort();
        Ok(out)
    }
}

/// True if somebody holds a lock on the file or directory.
fn is_locked(path: &Path) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    if !meta.is_file() && !meta.is_dir() {
        return false;
    }
    File::open(path).is_ok_and(|file| !try_lock(&file).unwrap_or(false))
}

/// Nix tells a running collection by a socket what it begins to use. We are done so soon that it may as well wait:
/// a socket nobody listens on makes it try again.
fn refuse_connections(socket: &Path) {
    if !socket.exists() {
        // The path may be too long for a socket; then Nix has no way to talk to any collector here.
        let _ = UnixListener::bind(socket);
    }
}

fn move_away(from: &Path, to: &Path) -> Result<(), PathError> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            // To get another parent, a directory must be writable.
            let writable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(from, writable).at("make writable", from)?;
            fs::rename(from, to).at("move away", from)
        }
        other => other.at("move away", from),
    }
}

/// Removes shared files that nobody shares any more.
fn remove_unshared(links: &Path) {
    let paths: Vec<PathBuf> = list_dir(links).unwrap_or_default();
    for path in paths {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.nlink() == 1) {
            // The next collection tries again.
            let _ = fs::remove_file(path);
        }
    }
}
