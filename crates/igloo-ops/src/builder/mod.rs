//! `igloo builder`: multi-user Nix in a service of its own, for the host's Nix to build in.
//!
//! The service belongs to a project that igloo writes: `state/builder/project/`, with what [`content`] says. The keys are
//! igloo's, too, so that both sides know each other before they first meet:
//!
//! | below `state/builder/` | what |
//! |---|---|
//! | `key`, `key.pub` | who may log in; 0600 |
//! | `known_hosts`, `ssh_config` | where the builder is, for `ssh -F` or to be included; the port is that of the last `up` |
//! | `project/keys/host_key`, `project/keys/authorized_key` | what the service is given |
//! | `project/igloo.toml`, `project/igloo.lock`, `project/files/` | the service |
//! | `proof/` | the store of a build by which `up` sees that all of it works |

pub(crate) mod content;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use igloo_base::file::{FileLock, create_dirs, read_optional, remove_tree, write_atomic};
use igloo_base::{At as _, System, Task, Unit};
use igloo_container::{Identity, userns};
use igloo_formats::ssh::{KeyPair, encoded};
use igloo_manifest::Source;
use igloo_remote::Nix;
use serde::Serialize;

use self::content::{File, USER};
use crate::context::{Context, ManifestPlace};
use crate::error::OpsError;
use crate::project::{self, MANIFEST, Project};
use crate::{services, shell};

/// What ssh calls it.
const HOST: &str = "igloo-builder";
/// How long a first start may take: Nix makes its store and builds once.
const START: Duration = Duration::from_secs(120);
/// How long the builder is given to greet who connects.
const GREETING: Duration = Duration::from_secs(5);

/// How to reach the builder.
#[derive(Debug, Clone, Serialize)]
pub struct Conf {
    /// `ssh-ng://igloo-builder`.
    pub store: String,
    /// The line of `nix.conf` or the value of `--builders`, without `builders = `.
    pub builders: String,
    /// The file to include in ssh's configuration, or to give to `ssh -F`.
    pub ssh_config: PathBuf,
    /// What is in it.
    pub ssh: String,
    /// The private key.
    pub key: PathBuf,
    /// What it builds for.
    pub system: String,
}

/// What `up` came to.
#[derive(Debug, Serialize)]
pub struct Up {
    /// How to reach it.
    #[serde(flatten)]
    pub conf: Conf,
    /// The port on this machine.
    pub port: u16,
    /// How long a small build through it took, in milliseconds.
    pub proved: Option<u128>,
    /// Why there was none.
    pub unproved: Option<&'static str>,
}

/// What is known of the builder.
#[derive(Debug, Serialize)]
pub struct Status {
    /// One word: `absent` before the first `up`, else the service's state.
    pub state: String,
    /// What else is to be known of it.
    pub detail: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// The port on this machine, while it runs.
    pub port: Option<u16>,
    /// Whether an ssh server answers there right now.
    pub answers: bool,
}

/// Starts the builder, or makes a running one what it should be, and builds something through it.
pub fn up(ctx: &Context<'_>, suite: Option<&str>, start: &Path) -> Result<Up, OpsError> {
    let place = ctx.dirs.builder();
    // Nix splits its list of builders, and what it gives to ssh, at these; ssh takes `%` for something else.
    if place.to_str().is_none_or(|text| text.contains(|c: char| c.is_whitespace() || ";#\"%".contains(c))) {
        return Err(OpsError::BuilderPlace { path: place });
    }
    create_dirs(&place)?;
    let _one = FileLock::exclusive(place.join("lock"))?;
    let before = opened(&of_place(ctx))?;
    let suite = match (suite, before.as_ref().and_then(suite_of)) {
        (Some(suite), _) => suite.to_owned(),
        (None, Some(suite)) => suite,
        (None, None) => shell::default_suite(ctx, start)?,
    };
    keys(&place)?;
    let ctx = &of_place(ctx);
    let mut project = write_project(ctx, &place, &suite)?;
    let options = services::UpOptions { wait: true, timeout: START, ..services::UpOptions::default() };
    let up = services::up(ctx, &mut project, &options)?;
    let port = up.services.iter().find_map(published).ok_or(OpsError::NoBuilder)?;
    write(&place.join("ssh_config"), ssh_config(&place, port).as_bytes(), 0o644)?;
    let conf = conf(ctx)?;
    let proof = prove(ctx, &place, &conf)?;
    let (proved, unproved) = match proof {
        Ok(took) => (Some(took.as_millis()), None),
        Err(why) => (None, Some(why)),
    };
    Ok(Up { conf, port, proved, unproved })
}

/// Stops the builder. Its store stays unless `volumes` says so. True if it ran.
pub fn down(ctx: &Context<'_>, volumes: bool) -> Result<services::Down, OpsError> {
    let ctx = &of_place(ctx);
    match opened(ctx)? {
        Some(project) => services::down(ctx, &project, volumes, None),
        None => Ok(services::Down { was_running: false, volumes: Vec::new() }),
    }
}

/// The builder as it truly is.
pub fn status(ctx: &Context<'_>) -> Result<Status, OpsError> {
    let ctx = &of_place(ctx);
    let absent = Status { state: "absent".to_owned(), detail: String::new(), since: None, port: None, answers: false };
    let Some(project) = opened(ctx)? else { return Ok(absent) };
    let Some(shown) = services::ps(ctx, &project)?.into_iter().next() else { return Ok(absent) };
    let port = published(&shown).filter(|_| shown.pid.is_some());
    let answers = port.is_some_and(greets);
    Ok(Status { state: shown.state, detail: shown.detail, since: shown.since, port, answers })
}

/// How to reach the builder of the last `up`.
pub fn conf(ctx: &Context<'_>) -> Result<Conf, OpsError> {
    let place = ctx.dirs.builder();
    let file = place.join("ssh_config");
    let ssh = read_optional(&file)?.ok_or(OpsError::NoBuilder)?;
    let host = read_optional(place.join("project/keys/host_key.pub"))?.ok_or(OpsError::NoBuilder)?;
    let host = String::from_utf8_lossy(&host).trim().to_owned();
    let system = System::current().nix().to_owned();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let key = place.join("key");
    let store = format!("ssh-ng://{HOST}");
    let features = "nixos-test,benchmark,big-parallel";
    let builders = format!("{store} {system} {} {jobs} 1 {features} - {}", key.display(), encoded(&host));
    Ok(Conf { store, builders, ssh_config: file, ssh: String::from_utf8_lossy(&ssh).into_owned(), key, system })
}

/// The public key that may log in. It is made if there is none.
pub fn key(ctx: &Context<'_>) -> Result<(PathBuf, String), OpsError> {
    let place = ctx.dirs.builder();
    create_dirs(&place)?;
    let _one = FileLock::exclusive(place.join("lock"))?;
    let public = pair(&place.join("key"), "igloo")?;
    Ok((place.join("key"), public.trim().to_owned()))
}

/// Whatever project the caller named, the builder's is another.
fn of_place<'a>(ctx: &Context<'a>) -> Context<'a> {
    Context { manifest: ManifestPlace::Found, ..ctx.clone() }
}

/// What a builder that is there was made of; so it stays, wherever `up` is called.
fn suite_of(project: &Project) -> Option<String> {
    project.manifest.sources.values().find_map(|source| match source {
        Source::Debian(debian) => Some(debian.suite.clone()),
        Source::Nixpkgs(_) => None,
    })
}

/// The builder's project, if there is one.
fn opened(ctx: &Context<'_>) -> Result<Option<Project>, OpsError> {
    let directory = ctx.dirs.builder().join("project");
    match directory.join(MANIFEST).exists() {
        true => project::open(ctx, &directory).map(Some),
        false => Ok(None),
    }
}

/// Both pairs of keys, and what tells each side of the other's.
fn keys(place: &Path) -> Result<(), OpsError> {
    let given = place.join("project/keys");
    create_dirs(&given)?;
    let own = pair(&place.join("key"), "igloo")?;
    let host = pair(&given.join("host_key"), HOST)?;
    write(&given.join("authorized_key"), own.as_bytes(), 0o644)?;
    write(&place.join("known_hosts"), format!("{HOST} {host}").as_bytes(), 0o644)
}

/// A pair of keys at `path` and `path.pub`; the public half. The private half is written last, and counts.
fn pair(path: &Path, comment: &str) -> Result<String, OpsError> {
    let public = PathBuf::from(format!("{}.pub", path.display()));
    if path.exists()
        && let Some(text) = read_optional(&public)?
    {
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let mut secret = [0; 32];
    let random = Path::new("/dev/urandom");
    let mut source = std::fs::File::open(random).at("open", random)?;
    std::io::Read::read_exact(&mut source, &mut secret).at("read", random)?;
    let pair = KeyPair::new(&secret, comment);
    write(&public, pair.public_file().as_bytes(), 0o644)?;
    write(path, pair.private_file().as_bytes(), 0o600)?;
    Ok(pair.public_file())
}

/// Writes what is not yet there.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), OpsError> {
    let there = read_optional(path)?.as_deref() == Some(content)
        && path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode);
    if !there {
        create_dirs(path.parent().unwrap_or(path))?;
        let beside = PathBuf::from(format!("{}.new", path.display()));
        let _ = std::fs::remove_file(&beside);
        // Nobody else reads it before it has its mode.
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.write(true).create_new(true).open(&beside).at("create", &beside)?;
        std::io::Write::write_all(&mut file, content).at("write", &beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).at("change the mode of", &beside)?;
        file.sync_all().at("write", &beside)?;
        std::fs::rename(&beside, path).at("create", path)?;
    }
    Ok(())
}

fn write_project(ctx: &Context<'_>, place: &Path, suite: &str) -> Result<Project, OpsError> {
    let directory = place.join("project");
    let files = directory.join("files");
    for (path, file) in content::files() {
        let path = files.join(path);
        match file {
            File::Text(text, executable) => write(&path, text.as_bytes(), if executable { 0o755 } else { 0o644 })?,
            File::Link(target) => {
                if std::fs::read_link(&path).ok().as_deref() != Some(Path::new(target)) {
                    create_dirs(path.parent().unwrap_or(&path))?;
                    let _ = std::fs::remove_file(&path);
                    symlink(target, &path).at("create the link", &path)?;
                }
            }
        }
    }
    // The project's name on this machine follows from its directory alone.
    let id = igloo_base::dirs::ProjectId::new("nix-builder", &directory);
    let single = userns::choose(None, &id.0)?.identity == Identity::SingleUid;
    let text = content::manifest(suite, single);
    let manifest = directory.join(MANIFEST);
    if read_optional(&manifest)?.as_deref() != Some(text.as_bytes()) {
        write_atomic(&manifest, text.as_bytes())?;
    }
    project::open(ctx, &directory)
}

fn ssh_config(place: &Path, port: u16) -> String {
    let quoted = |name: &str| format!("\"{}\"", place.join(name).display());
    format!(
        "Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  \
         HostKeyAlias {HOST}\n  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n  BatchMode yes\n  \
         ConnectTimeout 10\n  LogLevel ERROR\n",
        key = quoted("key"),
        known = quoted("known_hosts"),
    )
}

/// The port of this machine's that a running service is published on.
fn published(shown: &services::Shown) -> Option<u16> {
    let host = shown.ports.first()?.split_once("->")?.0;
    host.rsplit_once(':')?.1.parse().ok()
}

/// Whether an ssh server says who it is.
fn greets(port: u16) -> bool {
    let asked = || -> std::io::Result<String> {
        let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), GREETING)?;
        stream.set_read_timeout(Some(GREETING))?;
        let mut line = String::new();
        BufReader::new(std::io::Read::take(stream, 255)).read_line(&mut line)?;
        Ok(line)
    };
    asked().is_ok_and(|line| line.starts_with("SSH-2.0-"))
}

/// Has the host's Nix build something through the builder, as it will: by its build hook, into a store of its own, which is
/// thrown away. The inner error says why that could not be tried.
fn prove(ctx: &Context<'_>, place: &Path, conf: &Conf) -> Result<Result<Duration, &'static str>, OpsError> {
    let Ok(nix) = Nix::find(&ctx.caller.environment) else { return Ok(Err("there is no `nix` on PATH")) };
    let path = ctx.caller.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    if !std::env::split_paths(&path.unwrap_or_default()).any(|directory| directory.join("ssh").is_file()) {
        return Ok(Err("there is no `ssh` on PATH"));
    }
    let _task = Task::start(ctx.reporter, "build through the builder", None, Unit::Items);
    let scratch = place.join("proof");
    remove_tree(&scratch)?;
    create_dirs(&scratch)?;
    let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let system = &conf.system;
    let expression = format!(
        "derivation {{ name = \"igloo-builder-proof-{nanoseconds}\"; system = \"{system}\"; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo proved > $out\" ]; }}"
    );
    let scratch_text = scratch.display().to_string();
    // Nothing of the person's own configuration: what is proved is the builder.
    let nix = nix
        .with("NIX_REMOTE", &format!("local?root={scratch_text}"))
        .with("NIX_SSHOPTS", &format!("-F {}", conf.ssh_config.display()))
        .with("NIX_CONF_DIR", &scratch_text)
        .with("NIX_USER_CONF_FILES", "")
        .with("NIX_CONFIG", "substituters =\nbuild-users-group =\nbuilders-use-substitutes = false\n");
    let words = ["build", "--no-link", "--json", "--impure", "--max-jobs", "0", "--builders", &conf.builders];
    let begun = Instant::now();
    let built: Result<serde_json::Value, _> = nix.json(place, &[&words[..], &["--expr", &expression]].concat());
    let took = begun.elapsed();
    remove_tree(&scratch)?;
    built.map(|_| Ok(took)).map_err(|source| OpsError::BuilderUnproved { source })
}
