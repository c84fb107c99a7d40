//! What is mounted where, for each level of isolation: pure decisions, but for a look at the host's root directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use igloo_base::{At, PathError};

use super::{Home, Isolation, ShellSpec};

/// Top-level names that the environment provides; all others are the host's at [`Isolation::Host`].
const ENVIRONMENT: &[&str] =
    &["bin", "boot", "etc", "lib", "lib32", "lib64", "libo32", "libx32", "lost+found", "sbin", "usr", "var"];
/// Devices that every program may expect.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Something to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) what: What,
    /// Absolute path inside.
    pub(super) target: PathBuf,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A directory or file of the host with all that is mounted below; if `optional`, an empty directory in its place
    /// when it can't be had.
    Tree { source: PathBuf, read_only: bool, optional: bool },
    /// Memory, with this mode.
    Memory { mode: u32 },
    /// Pseudo terminals of its own.
    Terminals,
    /// Only the mount point: what comes there is not ours to mount yet.
    Later,
}

/// Everything to be mounted, in order, and symlinks for the skeleton (path and target).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mounts: Vec<Mount>,
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

impl Plan {
    pub(super) fn new(spec: &ShellSpec) -> Result<Self, PathError> {
        let mut plan = Self::default();
        match spec.isolation {
            Isolation::Host => plan.host()?,
            Isolation::Pure => plan.private(false),
            Isolation::Container => plan.private(true),
        }
        let home = &spec.caller.home;
        match &spec.home {
            Home::Private(source) if spec.isolation != Isolation::Host => plan.tree(source, home, false),
            // A caller without a home directory has `/` or a path that does not exist.
            _ if home.parent().is_some() && home.is_dir() => plan.same(home),
            _ => {}
        }
        plan.same(&spec.project_dir);
        for bind in &spec.binds {
            plan.tree(&bind.source, &bind.target, bind.read_only);
        }
        Ok(plan)
    }

    fn tree(&mut self, source: &Path, target: &Path, read_only: bool) {
        let what = What::Tree { source: source.to_owned(), read_only, optional: false };
        self.mounts.push(Mount { what, target: target.to_owned() });
    }

    fn memory(&mut self, target: &str, mode: u32) {
        self.mounts.push(Mount { what: What::Memory { mode }, target: target.into() });
    }

    /// A host directory at its own path, unless what is mounted already shows it there.
    fn same(&mut self, path: &Path) {
        let over = self.mounts.iter().rev().find(|m| path.starts_with(&m.target));
        let shown =
            over.is_some_and(|m| matches!(&m.what, What::Tree { source, read_only: false, .. } if *source == m.target));
        if !shown {
            self.tree(path, path, false);
        }
    }

    /// The host's root directory but for what the environment provides.
    fn host(&mut self) -> Result<(), PathError> {
        let mut names = Vec::new();
        for entry in fs::read_dir("/").at("list", "/")? {
            names.push(entry.at("list", "/")?);
        }
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let (path, kind) = (entry.path(), entry.file_type().at("look at", entry.path())?);
            if ENVIRONMENT.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if kind.is_dir() {
                // A dead network disk is no reason not to get a shell.
                let what = What::Tree { source: path.clone(), read_only: false, optional: true };
                self.mounts.push(Mount { what, target: path });
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).at("read the link", &path)?;
                self.links.push((path, target));
            }
        }
        if Path::new("/var/tmp").is_dir() {
            self.tree(Path::new("/var/tmp"), Path::new("/var/tmp"), false);
        }
        Ok(())
    }

    fn private(&mut self, container: bool) {
        for device in DEVICES {
            let path = Path::new("/dev").join(device);
            if path.exists() {
                self.tree(&path, &path, false);
            }
        }
        let links =
            [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")];
        self.links.extend(links.map(|(name, target)| (Path::new("/dev").join(name), target.into())));
        self.memory("/dev/shm", 0o1777);
        let pts = Path::new("/dev/pts");
        if container {
            self.mounts.push(Mount { what: What::Later, target: "/proc".into() });
            self.mounts.push(Mount { what: What::Terminals, target: pts.to_owned() });
            // The caller's terminal has no name among the container's own ones; `/dev/console` is where C libraries look.
            if let Some(terminal) = terminal() {
                self.tree(&terminal, Path::new("/dev/console"), false);
            }
        } else {
            self.tree(pts, pts, false);
            self.tree(Path::new("/proc"), Path::new("/proc"), false);
        }
        self.tree(Path::new("/sys"), Path::new("/sys"), true);
        for (target, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755)] {
            self.memory(target, mode);
        }
        if container {
            for hidden in ["/sys/firmware", "/sys/devices/virtual/powercap"] {
                if Path::new(hidden).is_dir() {
                    self.memory(hidden, 0o000);
                }
            }
        }
    }
}

/// The device of the caller's terminal.
fn terminal() -> Option<PathBuf> {
    if !rustix::termios::isatty(io::stdin()) {
        return None;
    }
    let path = fs::read_link("/proc/self/fd/0").ok()?;
    (path.starts_with("/dev") && path.exists()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::super::{Bind, Caller};
    use super::*;

    fn spec(isolation: Isolation, home: Home) -> ShellSpec {
        ShellSpec {
            lowers: vec!["/l".into()],
            isolation,
            caller: Caller { name: "e".into(), uid: 1, gid: 1, home: "/home/e".into(), shell: "/bin/sh".into() },
            home,
            project_dir: "/home/e/project".into(),
            workdir: "/home/e/project".into(),
            args: vec!["true".into()],
            env: Vec::new(),
            binds: vec![Bind { source: "/a".into(), target: "/b".into(), read_only: true }],
            hostname: String::new(),
            network: true,
        }
    }

    fn targets(plan: &Plan) -> Vec<&str> {
        plan.mounts.iter().map(|m| m.target.to_str().expect("text")).collect()
    }

    #[test]
    fn pure_shows_the_project_and_a_private_home_only() {
        let plan = Plan::new(&spec(Isolation::Pure, Home::Private("/state/home".into()))).expect("plan");
        let from_host: Vec<&Path> = plan
            .mounts
            .iter()
            .filter_map(|m| match &m.what {
                What::Tree { source, .. } if !source.starts_with("/dev") => Some(source.as_path()),
                _ => None,
            })
            .collect();
        assert_eq!(from_host, ["/proc", "/sys", "/state/home", "/home/e/project", "/a"].map(Path::new));
    }

    #[test]
    fn a_container_has_no_processes_of_the_host() {
        let plan = Plan::new(&spec(Isolation::Container, Home::Private("/state/home".into()))).expect("plan");
        assert!(plan.mounts.contains(&Mount { what: What::Later, target: "/proc".into() }));
        assert!(plan.mounts.iter().any(|m| m.what == What::Terminals));
    }

    #[test]
    fn what_is_shown_already_is_not_mounted_again() {
        let mut plan = Plan::default();
        plan.tree(Path::new("/home"), Path::new("/home"), false);
        plan.same(Path::new("/home/e"));
        assert_eq!(targets(&plan), ["/home"]);
        plan.tree(Path::new("/state"), Path::new("/home/e"), false);
        plan.same(Path::new("/home/e/project"));
        assert_eq!(targets(&plan), ["/home", "/home/e", "/home/e/project"]);
        plan.same(Path::new("/homes"));
        assert_eq!(targets(&plan).last(), Some(&"/homes"));
    }
}
