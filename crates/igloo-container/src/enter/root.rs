//! Building the root and moving into it.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use igloo_base::{At, PathError};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::accounts::{Content, File};
use super::plan::{Mount, Plan, What};
use super::{Act, EnterError, Isolation, ShellSpec};
use crate::rootfs;
use crate::{ContainerError, sys};

/// Directories that a machine usually has and an environment's store is hardly ever below of: one is covered by our
/// scratch file system until we have left the host's root. Only we see that.
const SCRATCH: &[&str] = &["/mnt", "/media", "/srv", "/opt", "/tmp", "/var/tmp", "/boot", "/usr/lib", "/sys"];

/// The host's root, still mounted below ours.
pub(super) struct OldRoot(OwnedFd);

/// Builds the root, in the mount namespace that we have just got, and makes it this process's root. All is there
/// but for what [`finish_container`] does.
pub(super) fn build(spec: &ShellSpec, files: Vec<File>) -> Result<OldRoot, EnterError> {
    // The caller's umask is for the caller's files.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    let built = build_root(spec, files);
    rustix::process::umask(umask);
    built
}

fn build_root(spec: &ShellSpec, files: Vec<File>) -> Result<OldRoot, EnterError> {
    let plan = Plan::new(spec)?;
    // Taken now, while the host's paths still mean what the caller meant.
    let prepared =
        plan.mounts.into_iter().map(|mount| Prepared::new(mount, &spec.lowers)).collect::<Result<Vec<_>, _>>()?;
    let scratch = scratch_for(&spec.lowers)?;
    let memory = rootfs::fresh("tmpfs", &[("mode", "0755")]).act("make a memory file system")?;
    rootfs::attach_at(memory, scratch)?;
    let (skeleton, target) = (scratch.join("skeleton"), scratch.join("root"));
    for dir in [&skeleton, &target] {
        make_dir(dir, 0o755)?;
    }
    fill(&skeleton, &prepared, &plan.links, files)?;
    let mut lowers = Vec::with_capacity(spec.lowers.len() + 1);
    lowers.push(skeleton);
    lowers.extend(spec.lowers.iter().cloned());
    rootfs::overlay(&lowers, None, &scratch.join("groups"), &target)?;
    let old = pivot(&target)?;
    for mount in prepared {
        mount.attach()?;
    }
    if spec.isolation != Isolation::Host {
        let runtime = PathBuf::from(format!("/run/user/{}", spec.caller.uid));
        make_dir(Path::new("/run/lock"), 0o755)?;
        make_dir(Path::new("/run/user"), 0o755)?;
        make_dir(&runtime, 0o700)?;
    }
    Ok(old)
}

/// A directory to mount the scratch file system on, which hides none of the layers.
fn scratch_for(lowers: &[PathBuf]) -> Result<&'static Path, EnterError> {
    let free = |dir: &&Path| dir.is_dir() && !lowers.iter().any(|lower| lower.starts_with(dir));
    let found = SCRATCH.iter().map(Path::new).find(free);
    found.ok_or(EnterError::Spec("no directory of this machine can serve as a mount point"))
}

/// A mount whose source is held.
struct Prepared {
    mount: Mount,
    /// What is to be attached; none for what can only be made inside.
    tree: Option<OwnedFd>,
    is_dir: bool,
    /// The target as the environment's symlinks have it.
    target: PathBuf,
}

impl Prepared {
    fn new(mount: Mount, lowers: &[PathBuf]) -> Result<Self, EnterError> {
        let (tree, is_dir) = match &mount.what {
            What::Tree { source, read_only, optional } => match rootfs::clone_tree(source) {
                Err(_) if *optional => (None, true),
                tree => {
                    let tree = tree?;
                    let mode = rustix::fs::fstat(&tree).at("look at", source)?.st_mode;
                    if *read_only {
                        let flags = sys::MOUNT_ATTR_RDONLY;
                        sys::restrict_mount(&tree, flags, true).at("make read-only the mount of", source)?;
                    }
                    (Some(tree), FileType::from_raw_mode(mode) == FileType::Directory)
                }
            },
            What::Memory { mode } => {
                let tree =
                    rootfs::fresh("tmpfs", &[("mode", &format!("{mode:o}"))]).act("make a memory file system")?;
                (Some(tree), true)
            }
            What::Terminals | What::Later => (None, true),
        };
        let target = within(&mount.target, lowers);
        Ok(Self { mount, tree, is_dir, target })
    }

    /// Attaches it, inside. Its mount point is in the skeleton or made now, in what has been mounted before.
    fn attach(self) -> Result<(), EnterError> {
        if !self.target.exists() {
            if self.is_dir { igloo_base::file::create_dirs(&self.target)? } else { write_file(&self.target, b"")? }
        }
        let point = rustix::fs::open(&self.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let point = point.at("open", &self.target)?;
        let failed = |what: &str| {
            let (what, target) = (what.to_owned(), self.mount.target.clone());
            move |source: io::Error| EnterError::from(ContainerError::Mount { what, target, source })
        };
        let what = match &self.mount.what {
            What::Tree { source, .. } => source.to_string_lossy(),
            What::Memory { .. } => "a memory file system".into(),
            What::Terminals | What::Later => "devpts".into(),
        };
        let tree = match (self.tree, &self.mount.what) {
            (Some(tree), _) => tree,
            (None, What::Later | What::Tree { .. }) => return Ok(()),
            (None, _) => rootfs::fresh("devpts", &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")])
                .map_err(failed(&what))?,
        };
        rootfs::move_to(tree, point).map_err(|e| failed(&what)(e.into()))
    }
}

/// Resolves symlinks of the environment in a target, so that the skeleton does not put a directory in the place of, say,
/// the link `/bin`. Only paths into what environments provide are looked at.
fn within(target: &Path, lowers: &[PathBuf]) -> PathBuf {
    const PLAIN: &[&str] = &["dev", "home", "media", "mnt", "nix", "proc", "root", "run", "srv", "sys", "tmp"];
    let mut rest: Vec<Component> = target.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let plain = rest.first().is_none_or(|first| PLAIN.iter().any(|plain| first.as_os_str() == *plain));
    // Ours at every level, and worth not looking for in a hundred layers.
    if plain || target == Path::new("/var/tmp") {
        return target.to_owned();
    }
    rest.reverse();
    let mut pending: Vec<PathBuf> = rest.into_iter().map(|c| PathBuf::from(c.as_os_str())).collect();
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == Path::new("..") {
            resolved.pop();
            continue;
        }
        let candidate = resolved.join(&name);
        let relative = candidate.strip_prefix("/").unwrap_or(&candidate);
        let link = lowers.iter().find_map(|lower| fs::symlink_metadata(lower.join(relative)).ok().map(|_| lower));
        match link.and_then(|lower| fs::read_link(lower.join(relative)).ok()) {
            Some(to) if links < 40 => {
                links += 1;
                if to.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                let parts = to.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
                let parts: Vec<PathBuf> = parts.map(|c| PathBuf::from(c.as_os_str())).collect();
                pending.extend(parts.into_iter().rev());
            }
            _ => resolved = candidate,
        }
    }
    resolved
}

/// Mount points, links and generated files.
fn fill(
    skeleton: &Path,
    mounts: &[Prepared],
    links: &[(PathBuf, PathBuf)],
    files: Vec<File>,
) -> Result<(), EnterError> {
    let inside = |path: &Path| skeleton.join(path.strip_prefix("/").unwrap_or(path));
    for (index, mount) in mounts.iter().enumerate() {
        // What lies in an earlier mount gets its mount point there.
        if mounts[..index].iter().any(|earlier| mount.target.starts_with(&earlier.target)) {
            continue;
        }
        let point = inside(&mount.target);
        if mount.is_dir {
            igloo_base::file::create_dirs(&point)?;
        } else {
            write_file(&point, b"")?;
        }
    }
    for (path, target) in links {
        make_link(&inside(path), target)?;
    }
    for File { path, content } in files {
        let path = inside(Path::new(path));
        match content {
            Content::Bytes(bytes) => write_file(&path, &bytes)?,
            Content::Link(target) => make_link(&path, &target)?,
        }
    }
    Ok(())
}

fn make_link(path: &Path, target: &Path) -> Result<(), PathError> {
    make_parents(path)?;
    match std::os::unix::fs::symlink(target, path) {
        // Something is to be mounted there, or below: that is more than a link.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.at("create the link", path),
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), PathError> {
    make_parents(path)?;
    // Not through a link of the skeleton: it would lead to the host.
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path).at("create", path)?;
    file.write_all(content).at("write", path)
}

fn make_parents(path: &Path) -> Result<(), PathError> {
    path.parent().map_or(Ok(()), igloo_base::file::create_dirs)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), PathError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.at("create the directory", path),
    }
}

/// Makes a mount the root of this mount namespace; the old root stays mounted below it.
fn pivot(target: &Path) -> Result<OldRoot, EnterError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).at("open", "/")?;
    rustix::process::chdir(target).at("change to the directory", target)?;
    rustix::process::pivot_root(".", ".").at("make the root directory of", target)?;
    rustix::process::chdir("/").at("change to the directory", "/")?;
    Ok(OldRoot(old))
}

/// Lets go of the host's root.
pub(super) fn detach(old: &OldRoot) -> Result<(), EnterError> {
    rustix::process::fchdir(old.0.as_fd()).act("change to the old root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).act("let go of the old root")?;
    rustix::process::chdir("/").act("change to the new root")
}

/// Of `/proc`, what tells of the machine; seen as empty.
const HIDDEN: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Of `/proc`, what changes the machine; not to be written.
const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The rest of a container's root, which the first process of its process ids must do: `/proc`, and the host name.
pub(super) fn finish_container(old: &OldRoot, hostname: &str) -> Result<(), EnterError> {
    let proc = Path::new("/proc");
    if !hostname.is_empty() {
        rustix::system::sethostname(hostname.as_bytes()).act("set the host name")?;
    }
    rootfs::mount_fresh("proc", proc, &[])?;
    for (names, hide) in [(HIDDEN, true), (READ_ONLY, false)] {
        for name in names {
            let path = proc.join(name);
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let tree = match (hide, metadata.is_dir()) {
                (true, true) => rootfs::fresh("tmpfs", &[("mode", "0")]).act("make a memory file system")?,
                (true, false) => rootfs::clone_tree(Path::new("/dev/null"))?,
                (false, _) => rootfs::clone_tree(&path)?,
            };
            if !hide || metadata.is_dir() {
                sys::restrict_mount(&tree, sys::MOUNT_ATTR_RDONLY, true).at("make read-only", &path)?;
            }
            let point = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", &path)?;
            rootfs::move_to(tree, point).at("hide or protect", &path)?;
        }
    }
    detach(old)
}
