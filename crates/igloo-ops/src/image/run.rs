//! `igloo image run`: an image from anywhere in our own runtime, in the foreground.
//!
//! The image is unpacked once, as plain files of the caller's, and shown below a writable layer that goes away with the
//! run. It has the same locks as a service, and no network but loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use igloo_base::file::{FileLock, create_private_dir};
use igloo_base::{At as _, Event, System};
use igloo_container::rootfs::Root;
use igloo_container::{Attr, AttrKind, ContainerSpec, Mount, MountKind, SandboxConfig, User, foreground};
use igloo_formats::oci::Platform;
use igloo_image::tree::Image;
use igloo_image::{Attribute, Tree, Trees};

use super::source::{self, Choice};
use super::user;
use crate::context::Context;
use crate::error::OpsError;

/// Longest `/etc/passwd` or `/etc/group` of an image that is looked into.
const MAX_ACCOUNTS: u64 = 1 << 20;
/// Ids up to here exist in a container.
pub(super) const MAX_ID: u32 = 65_535;
/// For images that say none.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const LOCK: &str = "lock";

/// What to run, and how.
#[derive(Debug)]
pub struct Options<'o> {
    /// An image anywhere.
    pub image: &'o str,
    /// Where relative paths begin.
    pub directory: &'o Path,
    /// Of this system in an index.
    pub system: System,
    /// `NAME=VALUE`, or `NAME` for the caller's value.
    pub env: &'o [String],
    /// `SOURCE:TARGET[:ro]`.
    pub volumes: &'o [String],
    /// Instead of the image's user.
    pub user: Option<&'o str>,
    /// Instead of the image's working directory.
    pub workdir: Option<&'o str>,
    /// Instead of the image's entry point and command.
    pub entrypoint: &'o [String],
    /// Instead of the image's command.
    pub command: &'o [String],
}

/// A run that is ready.
pub struct Prepared {
    sandbox: SandboxConfig,
    container: ContainerSpec,
    stop_signal: Option<i32>,
    place: Place,
    /// Keeps `gc` from the image.
    _hold: FileLock,
}

/// Directory of one run, which is gone with it; one that nobody locks was left by a killed run.
struct Place {
    exe: PathBuf,
    id: String,
    directory: PathBuf,
    _lock: FileLock,
}

/// Brings and unpacks the image, and works out what to run.
pub fn prepare(ctx: &Context<'_>, options: &Options<'_>) -> Result<Prepared, OpsError> {
    let hold = super::hold(ctx)?;
    let (image, tree, trees) = unpack(ctx, options)?;
    let config = &image.config.config;
    let name = || options.image.to_owned();
    let wanted = options.user.or(config.user.as_deref()).unwrap_or_default();
    let accounts = |path: &str| accounts(&tree.root, path);
    let user = user::lookup(wanted, &accounts("/etc/passwd")?, &accounts("/etc/group")?)
        .filter(|u| u.uid <= MAX_ID && u.gid <= MAX_ID)
        .ok_or_else(|| OpsError::NoImageUser { image: name(), user: wanted.to_owned() })?;
    let args = match (options.entrypoint, options.command) {
        ([], []) => [config.entrypoint.clone().unwrap_or_default(), config.cmd.clone().unwrap_or_default()].concat(),
        ([], command) => [&config.entrypoint.clone().unwrap_or_default(), command].concat(),
        (entrypoint, command) => [entrypoint, command].concat(),
    };
    if args.is_empty() {
        return Err(OpsError::NoImageCommand { image: name() });
    }
    let terminal = foreground::terminal_size();
    let hostname = hostname(options.image);
    let workdir = options.workdir.or(config.working_dir.as_deref()).filter(|w| !w.is_empty()).unwrap_or("/");
    if !workdir.starts_with('/') {
        return Err(OpsError::BadWorkdir { path: workdir.to_owned() });
    }
    let mounts = options.volumes.iter().map(|text| mount(options.directory, text)).collect::<Result<_, _>>()?;
    let place = Place::make(ctx)?;
    let container = ContainerSpec {
        id: "run".to_owned(),
        env: environment(
            ctx,
            config.env.as_deref().unwrap_or_default(),
            options.env,
            &user,
            &hostname,
            terminal.is_some(),
        ),
        hostname,
        lowers: vec![tree.root.clone()],
        attrs: attrs(ctx, &tree.attributes),
        state_dir: place.directory.join("container"),
        args,
        workdir: workdir.to_owned(),
        user,
        mounts,
        terminal,
        ..ContainerSpec::default()
    };
    let sandbox = SandboxConfig {
        exe: ctx.exe.clone(),
        // All of the host that it sees, read-only.
        store_root: trees.directory().to_owned(),
        run_dir: place.directory.join("sandbox"),
        project: place.id.clone(),
        subnet: None,
        identity: None,
    };
    let stop_signal = config.stop_signal.as_deref().and_then(signal);
    Ok(Prepared { sandbox, container, stop_signal, place, _hold: hold })
}

impl Prepared {
    /// Runs it; the exit code is its program's. Only for processes with a single thread.
    pub fn run(self) -> Result<ExitCode, OpsError> {
        let ended = foreground::run(&self.sandbox, &self.container, self.stop_signal);
        // What can't be removed now is by the next run.
        drop(self.place.remove());
        Ok(ended?.pass_on())
    }
}

fn unpack(ctx: &Context<'_>, options: &Options<'_>) -> Result<(Image, Tree, Trees), OpsError> {
    let trees = super::trees(ctx);
    let platform = Platform::from(options.system);
    let architecture = platform.architecture.clone();
    let choice = Choice::Platform(platform);
    // One that is unpacked already needs its documents only.
    let opened = source::open(ctx, options.directory, options.image, false, &choice)?;
    let image = opened.tree.for_platform(options.image, &architecture)?.clone();
    if let Some(tree) = trees.find(&image)? {
        return Ok((image, tree, trees));
    }
    let opened = source::open(ctx, options.directory, options.image, true, &choice)?;
    let image = opened.tree.for_platform(options.image, &architecture)?.clone();
    let tree = trees.unpack(opened.content.as_ref(), &image, options.image, ctx.reporter)?;
    Ok((image, tree, trees))
}

/// A file of an image, links followed within it; empty if it is none.
pub(super) fn accounts(root: &Path, path: &str) -> Result<String, OpsError> {
    let Some(fd) = Root::open(root)?.find(path)? else { return Ok(String::new()) };
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if !fs::metadata(&link).at("look at", path)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&link).at("open", path)?;
    file.take(MAX_ACCOUNTS).read_to_end(&mut bytes).at("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn environment(
    ctx: &Context<'_>,
    of_image: &[String],
    wanted: &[String],
    user: &User,
    hostname: &str,
    terminal: bool,
) -> Vec<(String, String)> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), user.home.clone()),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
    ]);
    if terminal {
        env.insert("TERM".to_owned(), ctx.caller.term.clone().unwrap_or_else(|| "xterm".to_owned()));
    }
    let split = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    env.extend(of_image.iter().filter_map(split));
    for text in wanted {
        match split(text) {
            Some((name, value)) => drop(env.insert(name, value)),
            None => {
                let own = ctx.caller.environment.iter().find(|(name, _)| name == text.as_str());
                env.extend(own.map(|(_, value)| (text.clone(), value.to_string_lossy().into_owned())));
            }
        }
    }
    env.into_iter().filter(|(name, _)| !name.is_empty()).collect()
}

pub(super) fn attrs(ctx: &Context<'_>, attributes: &[Attribute]) -> Vec<Attr> {
    let exists = |id: u32| if id <= MAX_ID { id } else { 0 };
    let strangers = attributes.iter().filter(|a| a.uid > MAX_ID || a.gid > MAX_ID).count();
    if strangers > 0 {
        ctx.reporter.event(Event::Warning {
            text: format!("{strangers} files of the image belong to ids above {MAX_ID}, and are root's here"),
            hint: None,
        });
    }
    let attr = |a: &Attribute| Attr {
        path: a.path.clone(),
        kind: if a.dir { AttrKind::Dir } else { AttrKind::File },
        mode: Some(a.mode),
        uid: exists(a.uid),
        gid: exists(a.gid),
    };
    attributes.iter().map(attr).collect()
}

fn mount(directory: &Path, text: &str) -> Result<Mount, OpsError> {
    let bad = || OpsError::BadVolume { text: text.to_owned() };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(bad()),
    };
    // A bare name would be a volume elsewhere.
    if !target.starts_with('/') || !(source.starts_with('.') || source.contains('/')) {
        return Err(bad());
    }
    let source = directory.join(source);
    let source = fs::canonicalize(&source).at("find", &source)?;
    Ok(Mount { kind: MountKind::Bind { source }, target: target.to_owned(), read_only })
}

/// A host name from an image's: `web` from `HOST/acme/web:1`.
fn hostname(image: &str) -> String {
    let last = image.rsplit(['/', ':']).find(|part| part.chars().any(|c| c.is_ascii_alphabetic()));
    let text: String = last
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(32)
        .collect();
    match text.trim_matches('-') {
        "" => "image".to_owned(),
        text => text.to_owned(),
    }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`. What is no signal is ignored, as by others.
pub(crate) fn signal(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    // What C libraries leave of the kernel's.
    const REAL_TIME: (i32, i32) = (34, 64);
    let number = |text: &str| text.parse::<i32>().ok();
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = if let Some(rest) = name.strip_prefix("RTMIN") {
        REAL_TIME.0 + if rest.is_empty() { 0 } else { number(rest)? }
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        REAL_TIME.1 + if rest.is_empty() { 0 } else { number(rest)? }
    } else {
        match NAMES.iter().position(|n| *n == name) {
            Some(at) => i32::try_from(at + 1).ok()?,
            None => number(name)?,
        }
    };
    (1..=REAL_TIME.1).contains(&found).then_some(found)
}

/// Removes what killed runs left. While the lock of the directory is held, nobody makes another.
fn sweep(ctx: &Context<'_>, all: &Path) -> Result<(), OpsError> {
    for entry in fs::read_dir(all).at("list", all)?.flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        // One that ends by itself right now may be gone by now.
        if let Ok(Some(lock)) = FileLock::try_exclusive(entry.path().join(LOCK)) {
            let killed = Place { exe: ctx.exe.clone(), id, directory: entry.path(), _lock: lock };
            drop(killed.remove());
        }
    }
    Ok(())
}

/// Removes what killed runs left: for `gc`.
pub(crate) fn sweep_all(ctx: &Context<'_>) -> Result<(), OpsError> {
    let all = directory(ctx);
    if !all.is_dir() {
        return Ok(());
    }
    let _turn = FileLock::exclusive(all.join(LOCK))?;
    sweep(ctx, &all)
}

fn directory(ctx: &Context<'_>) -> PathBuf {
    ctx.dirs.state.join("image-runs")
}

impl Place {
    fn make(ctx: &Context<'_>) -> Result<Self, OpsError> {
        let all = directory(ctx);
        create_private_dir(&all)?;
        let _turn = FileLock::exclusive(all.join(LOCK))?;
        sweep(ctx, &all)?;
        let made = tempfile::Builder::new().prefix("run-").tempdir_in(&all).at("create a directory in", &all)?;
        let directory = made.keep();
        let lock = FileLock::exclusive(directory.join(LOCK))?;
        let id = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { exe: ctx.exe.clone(), id, directory, _lock: lock })
    }

    /// Much of it belongs to users that exist only inside.
    fn remove(&self) -> Result<(), OpsError> {
        Ok(igloo_container::userns::remove_tree(&self.exe, &self.id, &self.directory)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, wanted) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGPWR", Some(30)),
            ("SIGNOTHING", None),
            ("0", None),
            ("65", None),
            ("RTMIN+x", None),
            ("", None),
        ] {
            assert_eq!(signal(text), wanted, "{text}");
        }
    }

    #[test]
    fn host_names_come_from_images() {
        for (image, wanted) in [
            ("web", "web"),
            ("example.org:5000/acme/Web_App:1.2", "web-app"),
            ("oci:./out", "out"),
            ("example.org/x@sha256:0123", "x-sha256"),
            ("/tmp/a.tar", "a-tar"),
            ("./1", "image"),
        ] {
            assert_eq!(hostname(image), wanted, "{image}");
        }
    }

    #[test]
    fn volumes_are_paths() {
        let here = tempfile::tempdir().expect("tempdir");
        fs::create_dir(here.path().join("d")).expect("mkdir");
        let source = fs::canonicalize(here.path().join("d")).expect("path");
        let bind =
            |read_only| Mount { kind: MountKind::Bind { source: source.clone() }, target: "/t".into(), read_only };
        assert_eq!(mount(here.path(), "./d:/t").expect("mount"), bind(false));
        assert_eq!(mount(here.path(), "./d:/t:rw").expect("mount"), bind(false));
        assert_eq!(mount(here.path(), "./d:/t:ro").expect("mount"), bind(true));
        for text in ["d:/t", "./d:t", "./d", "./d:/t:ro:x", "./d:/t:z", "./missing:/t", ""] {
            assert!(mount(here.path(), text).is_err(), "{text}");
        }
    }
}
