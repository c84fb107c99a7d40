//! `igloo up --watch`: files of the project are watched, and services brought up to date or told to reload.
//!
//! The kernel says that something happened; what counts is whether the watched files are different afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};

use igloo_base::{At, Event, PathError};
use igloo_manifest::{Watch, WatchAction};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use super::verbs::{Order, order};
use super::{Action, UpOptions, act, up};
use crate::context::Context;
use crate::error::{OpsError, chain};
use crate::project::{self, Project};

/// An editor or a checkout writes several files; all of it is one change.
const CALM: Timespec = Timespec { tv_sec: 0, tv_nsec: 150_000_000 };
/// How soon the end is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// More files below one path are no source code; watching them all would use up what the kernel has for it.
const MAX_FILES: usize = 100_000;

/// Size, time and number of each file.
type Snapshot = BTreeMap<PathBuf, (u64, i64, i64, u64)>;

/// One `watch` of one service.
struct Watched {
    service: String,
    watch: Watch,
    seen: Snapshot,
}

/// Watches until the other end of `stopped` is dropped. What goes wrong is told, and watching goes on.
pub(super) fn watch(
    ctx: &Context<'_>,
    project: &Project,
    options: &UpOptions,
    stopped: &Receiver<()>,
) -> Result<(), OpsError> {
    let mut all: Vec<Watched> = Vec::new();
    for (service, declared) in &project.manifest.services {
        for watch in &declared.watch {
            let seen = snapshot(&project.directory, watch)?;
            all.push(Watched { service: service.clone(), watch: watch.clone(), seen });
        }
    }
    let (mut kernel, mut directories) = listen(&project.directory, &all)?;
    while stopped.try_recv() != Err(TryRecvError::Disconnected) {
        if !wait(&kernel, &TICK) {
            continue;
        }
        while wait(&kernel, &CALM) {}
        let mut changed: BTreeMap<String, WatchAction> = BTreeMap::new();
        for watched in &mut all {
            let now = snapshot(&project.directory, &watched.watch)?;
            if now != watched.seen {
                watched.seen = now;
                let action = changed.entry(watched.service.clone()).or_insert(watched.watch.action);
                // A restart reads everything anew.
                if watched.watch.action == WatchAction::Restart {
                    *action = WatchAction::Restart;
                }
            }
        }
        for (service, action) in changed {
            if let Err(error) = update(ctx, project, options, &service, action) {
                let text = format!("{service}: its files changed, and {}", chain(&error));
                ctx.reporter.event(Event::Warning { text, hint: None });
            }
        }
        let now = below(&project.directory, &all)?;
        if now != directories {
            (kernel, directories) = listen(&project.directory, &all)?;
        }
    }
    Ok(())
}

fn update(
    ctx: &Context<'_>,
    project: &Project,
    options: &UpOptions,
    service: &str,
    action: WatchAction,
) -> Result<(), OpsError> {
    ctx.reporter.event(Event::Note { text: format!("{service}: its files changed") });
    let services = [service.to_owned()];
    if action == WatchAction::Reload {
        return order(ctx, project, Order::Reload, &services);
    }
    let pids = |project: &Project| -> Result<Vec<Option<u32>>, OpsError> {
        let shown = super::ps(ctx, project)?.into_iter();
        Ok(shown.filter(|s| super::base_name(&s.name) == service).map(|s| s.pid).collect())
    };
    let before = pids(project)?;
    // The manifest may have changed as well.
    let mut project = project::open(ctx, &project.directory)?;
    up(ctx, &mut project, &UpOptions { services: services.to_vec(), ..options.clone() })?;
    if pids(&project)? == before {
        act(ctx, &project, Action::Restart, &services)?;
    }
    Ok(())
}

/// Waits for news of the kernel's; true if there are some.
fn wait(kernel: &OwnedFd, patience: &Timespec) -> bool {
    let mut fds = [PollFd::new(kernel, PollFlags::IN)];
    if !rustix::event::poll(&mut fds, Some(patience)).is_ok_and(|n| n > 0) {
        return false;
    }
    let mut buffer = [0; 16 << 10];
    while rustix::io::read(kernel, &mut buffer).is_ok_and(|n| n > 0) {}
    true
}

/// Watches every directory in question.
fn listen(project: &Path, all: &[Watched]) -> Result<(OwnedFd, BTreeSet<PathBuf>), PathError> {
    use inotify::WatchFlags as Flags;
    let kernel = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).at("watch", project)?;
    let directories = below(project, all)?;
    let what = Flags::CLOSE_WRITE | Flags::CREATE | Flags::DELETE | Flags::MOVED_FROM | Flags::MOVED_TO | Flags::ATTRIB;
    for directory in &directories {
        match inotify::add_watch(&kernel, directory, what) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e).at("watch", directory),
        }
    }
    Ok((kernel, directories))
}

/// Directories in which something may change that counts; of a file it is the one that it is in.
fn below(project: &Path, all: &[Watched]) -> Result<BTreeSet<PathBuf>, PathError> {
    let mut directories = BTreeSet::new();
    for watched in all {
        let path = project.join(&watched.watch.path);
        directories.extend(path.parent().map(Path::to_owned));
        walk(&path, &watched.watch, &mut Vec::new(), &mut |path, metadata| {
            if metadata.is_dir() {
                directories.insert(path.to_owned());
            }
        })?;
    }
    Ok(directories)
}

fn snapshot(project: &Path, watch: &Watch) -> Result<Snapshot, PathError> {
    let mut snapshot = Snapshot::new();
    walk(&project.join(&watch.path), watch, &mut Vec::new(), &mut |path, metadata| {
        if !metadata.is_dir() && snapshot.len() < MAX_FILES {
            let about = (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
            snapshot.insert(path.to_owned(), about);
        }
    })?;
    Ok(snapshot)
}

/// Everything that is not ignored; links are not followed. What vanishes meanwhile is not there.
fn walk(
    path: &Path,
    watch: &Watch,
    names: &mut Vec<Vec<u8>>,
    see: &mut dyn FnMut(&Path, &fs::Metadata),
) -> Result<(), PathError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    see(path, &metadata);
    if !metadata.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        names.push(entry.file_name().as_bytes().to_vec());
        let parts: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        if !watch.ignore.iter().any(|glob| glob.matches(&parts)) {
            walk(&entry.path(), watch, names, see)?;
        }
        names.pop();
    }
    Ok(())
}
