//! `igloo shell` and `igloo run`: from an environment to a process in it.
//!
//! What a shell needs is prepared once and kept as JSON under the project's state, named by a digest of manifest and
//! lock; the next start reads that one file and enters.

mod host;
mod nix;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use igloo_base::Sha256;
use igloo_base::file::{At, create_dirs, create_private_dir, read_optional, write_atomic};
use igloo_container::enter::{self, Home, ShellSpec};
use igloo_manifest::Isolation;
use serde::{Deserialize, Serialize};

use crate::context::{Context, ManifestPlace};
use crate::environment;
use crate::error::OpsError;
use crate::project::{self, Project};

pub(crate) use nix::sweep as sweep_nix;
pub use nix::{NixShell, direnv_code, prepare_nix};

/// How to enter a shell.
#[derive(Debug)]
pub struct Options<'o> {
    /// Instead of what the manifest says.
    pub isolation: Option<&'o str>,
    /// Fail instead of changing the lock.
    pub locked: bool,
    /// The command; an interactive shell if empty.
    pub command: &'o [String],
    /// Where the command starts.
    pub directory: &'o Path,
}

/// A shell that no manifest declares.
#[derive(Debug)]
pub struct AdHoc<'o> {
    /// Packages, as in a manifest.
    pub packages: &'o [String],
    /// Debian suite; the machine's own if none is given.
    pub suite: Option<&'o str>,
    /// Isolation level.
    pub isolation: &'o str,
    /// The command.
    pub command: &'o [String],
    /// Where the command starts.
    pub directory: &'o Path,
}

/// Everything about a shell that doesn't change from start to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// Digest of what it was prepared from.
    key: String,
    /// Lower layers, topmost first.
    lowers: Vec<PathBuf>,
    /// The environment's variables, and over them the manifest's.
    declared: BTreeMap<String, String>,
    /// The manifest's variables.
    env: BTreeMap<String, String>,
    /// Shell code to run on entry.
    hook: Option<String>,
    /// Directory of shims, for isolation `host`.
    shims: Option<PathBuf>,
    /// What is to be seen at `/nix/store`.
    #[serde(default)]
    store: Option<PathBuf>,
    /// What is to be seen at `/nix`, and written.
    #[serde(default)]
    nix: Option<PathBuf>,
    /// Directories of Nix's commands that this machine has at their own paths, for isolation `host`.
    #[serde(default)]
    bins: Vec<PathBuf>,
    /// The home of isolation `pure` and `container`.
    home: PathBuf,
    /// The project's directory, or where an ad hoc command starts.
    project: PathBuf,
    /// Its name, for the prompt.
    name: String,
}

impl Kept {
    /// What comes first on PATH at isolation `host`.
    fn path(&self) -> String {
        let all = self.shims.iter().chain(&self.bins).map(|directory| directory.display().to_string());
        all.collect::<Vec<_>>().join(":")
    }
}

/// A shell ready to be entered; entering replaces this process.
pub struct Prepared {
    kind: Kind,
}

enum Kind {
    Enter(Box<ShellSpec>),
    Host(Box<Command>),
}

impl Prepared {
    /// Becomes the shell or the command. Returns only its exit code (where a parent has to stay) or the failure.
    pub fn enter(self) -> Result<ExitCode, OpsError> {
        match self.kind {
            Kind::Enter(spec) => Ok(enter::enter(&spec)?.pass_on()),
            Kind::Host(mut command) => {
                let source = command.exec();
                let program = command.get_program().to_string_lossy().into_owned();
                Err(OpsError::Command { program, source })
            }
        }
    }
}

fn level(word: &str) -> Result<Isolation, OpsError> {
    Isolation::NAMES
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, level)| *level)
        .ok_or_else(|| OpsError::NoIsolation { level: word.to_owned() })
}

/// Prepares a declared shell.
pub fn prepare(
    ctx: &Context<'_>,
    project: &mut Project,
    name: &str,
    options: &Options<'_>,
) -> Result<Prepared, OpsError> {
    let declared = project.manifest.shells.get(name).ok_or_else(|| OpsError::NoEnvironment {
        kind: "shell",
        name: name.to_owned(),
        known: project.manifest.shells.keys().cloned().collect(),
    })?;
    let isolation = match options.isolation {
        Some(word) => level(word)?,
        None => declared.isolation,
    };
    let kept = keep(ctx, project, name, options.locked)?;
    finish(ctx, &kept, isolation, options.command, options.directory)
}

/// Prepares a shell of packages that no manifest names, as a project of its own under igloo's state.
pub fn prepare_ad_hoc(ctx: &Context<'_>, request: &AdHoc<'_>) -> Result<Prepared, OpsError> {
    let isolation = level(request.isolation)?;
    finish(ctx, &keep_ad_hoc(ctx, request)?, isolation, request.command, request.directory)
}

/// A description for [`enter_prepared`]: the machine with these packages' `/usr`, and our store's `/nix`.
pub(crate) fn view_with_nix(ctx: &Context<'_>, request: &AdHoc<'_>) -> Result<PathBuf, OpsError> {
    let mut kept = keep_ad_hoc(ctx, request)?;
    let nix = ctx.dirs.store_root().join("nix");
    create_dirs(&nix)?;
    kept.nix = Some(nix);
    let json = serde_json::to_vec(&kept).map_err(OpsError::Json)?;
    let views = ctx.dirs.state.join("nix-views");
    create_private_dir(&views)?;
    let file = views.join(format!("{}.json", &Sha256::of(&json).to_string()[..16]));
    if read_optional(&file)?.as_deref() != Some(&json) {
        write_atomic(&file, &json)?;
    }
    Ok(file)
}

/// A description for [`enter_prepared`]: the machine with a service's `/usr`.
pub(crate) fn view_of_service(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    realised: &environment::Realised,
) -> Result<PathBuf, OpsError> {
    let mut kept = Kept {
        key: String::new(),
        lowers: realised.lowers(),
        declared: realised.environment.env.clone(),
        env: BTreeMap::new(),
        hook: None,
        shims: None,
        nix: None,
        store: realised.profile.as_ref().map(|profile| profile.store.clone()),
        bins: Vec::new(),
        home: ctx.caller.home.clone(),
        project: project.directory.clone(),
        name: name.to_owned(),
    };
    kept.key = Sha256::of(&serde_json::to_vec(&kept).map_err(OpsError::Json)?).to_string();
    let views = ctx.dirs.project_state(&project.id).join("views");
    create_private_dir(&views)?;
    let file = views.join(format!("{name}-{}.json", &kept.key[..16]));
    if !file.exists() {
        write_atomic(&file, &serde_json::to_vec(&kept).map_err(OpsError::Json)?)?;
    }
    Ok(file)
}

fn keep_ad_hoc(ctx: &Context<'_>, request: &AdHoc<'_>) -> Result<Kept, OpsError> {
    let suite = match request.suite {
        Some(suite) => suite.to_owned(),
        None => default_suite(ctx, request.directory)?,
    };
    let packages = request.packages.iter().map(|p| format!("    {p:?},\n")).collect::<String>();
    let text = format!(
        "[project]\nname = \"run\"\n\n[sources.debian]\nsuite = {suite:?}\n\n[shells.default]\npackages = [\n{packages}]\n"
    );
    let digest = Sha256::of(text.as_bytes()).to_string();
    let directory = ctx.dirs.state.join("run").join(&digest[..16]);
    create_dirs(&directory)?;
    if read_optional(directory.join(project::MANIFEST))?.as_deref() != Some(text.as_bytes()) {
        write_atomic(directory.join(project::MANIFEST), text.as_bytes())?;
    }
    // `gc` keeps what was used lately.
    let used = directory.join("used");
    fs::File::create(&used).at("write", &used)?;
    let ctx = &Context { manifest: ManifestPlace::Found, ..ctx.clone() };
    let mut project = project::open(ctx, &directory)?;
    let mut kept = keep(ctx, &mut project, "default", false)?;
    kept.project = request.directory.to_owned();
    Ok(kept)
}

/// The suite of the project around, or of the machine.
pub fn default_suite(ctx: &Context<'_>, directory: &Path) -> Result<String, OpsError> {
    if let Ok(project) = project::open(ctx, directory)
        && let Some(suite) = project.manifest.sources.values().find_map(|source| match source {
            igloo_manifest::Source::Debian(debian) => Some(debian.suite.clone()),
            igloo_manifest::Source::Nixpkgs(_) => None,
        })
    {
        return Ok(suite);
    }
    let path = PathBuf::from("/etc/os-release");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let field = |name: &str| {
        text.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_owned()))
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        _ => Err(OpsError::NoSuite { path }),
    }
}

/// What is kept of a shell; made anew when manifest, lock or igloo changed.
fn keep(ctx: &Context<'_>, project: &mut Project, name: &str, locked: bool) -> Result<Kept, OpsError> {
    let file = ctx.dirs.project_state(&project.id).join("shells").join(format!("{name}.json"));
    let key = key(ctx, project)?;
    if let Some(kept) = read_optional(&file)?.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok())
        && kept.key == key
        && kept.lowers.first().is_some_and(|top| top.exists())
        && project.manifest.shells[name].content.copy.is_empty()
    {
        return Ok(kept);
    }
    let realised = environment::realise(ctx, project, &[format!("shells.{name}")], locked)?;
    let realised = &realised[0];
    let state = ctx.dirs.project_state(&project.id);
    let shell = &project.manifest.shells[name];
    let mut declared = realised.environment.env.clone();
    declared.extend(shell.content.env.clone());
    let mut kept = Kept {
        // Realising may have completed the lock.
        key: self::key(ctx, project)?,
        lowers: realised.lowers(),
        declared,
        env: shell.content.env.clone(),
        hook: shell.hook.clone(),
        shims: None,
        nix: None,
        store: realised.profile.as_ref().map(|profile| profile.store.clone()),
        bins: realised
            .profile
            .as_ref()
            .map(|profile| host::bins(ctx, project, name, profile))
            .transpose()?
            .unwrap_or_default(),
        home: state.join("home"),
        project: project.directory.clone(),
        name: project.manifest.project.name.clone(),
    };
    create_private_dir(&kept.home)?;
    if let Some(parent) = file.parent() {
        create_private_dir(parent)?;
    }
    kept.shims = Some(host::shims(ctx, project, name, &kept, realised)?);
    write_atomic(&file, &serde_json::to_vec(&kept).map_err(OpsError::Json)?)?;
    Ok(kept)
}

/// Names what a shell is prepared from.
fn key(ctx: &Context<'_>, project: &Project) -> Result<String, OpsError> {
    let text = format!(
        "{}\0{}\0{}\0{}\0{}\0{:?}",
        env!("CARGO_PKG_VERSION"),
        igloo_env::TRIGGERS,
        ctx.exe.display(),
        project.text,
        project.lock_text().unwrap_or_default(),
        // Overlays and pins, which the manifest only names.
        crate::nix::files_digest(project)?
    );
    Ok(Sha256::of(text.as_bytes()).to_string())
}

fn finish(
    ctx: &Context<'_>,
    kept: &Kept,
    isolation: Isolation,
    command: &[String],
    directory: &Path,
) -> Result<Prepared, OpsError> {
    let kind = match isolation {
        Isolation::Vm => return Err(OpsError::NoVm),
        Isolation::Host => host::kind(ctx, kept, command, directory)?,
        Isolation::Pure | Isolation::Container => {
            Kind::Enter(Box::new(isolated(ctx, kept, isolation, command, directory)))
        }
    };
    Ok(Prepared { kind })
}

fn isolated(ctx: &Context<'_>, kept: &Kept, isolation: Isolation, command: &[String], directory: &Path) -> ShellSpec {
    let isolation = match isolation {
        Isolation::Container => enter::Isolation::Container,
        _ => enter::Isolation::Pure,
    };
    let mut declared = kept.declared.clone();
    declared.entry("PS1".into()).or_insert_with(|| format!("({}) \\w \\$ ", kept.name));
    declared.insert("IGLOO_SHELL".into(), kept.name.clone());
    let interactive = ["bash", "--norc", "-i"].map(str::to_owned).to_vec();
    let args = match (command, &kept.hook) {
        ([], None) => interactive,
        ([], Some(hook)) => {
            vec!["bash".to_owned(), "--norc".to_owned(), "-c".to_owned(), format!("{hook}\nexec bash --norc -i")]
        }
        (words, _) => words.to_vec(),
    };
    let home = Home::Private(kept.home.clone());
    spec(ctx, kept, isolation, &declared, home, args.into_iter().map(Into::into).collect(), directory)
}

fn spec(
    ctx: &Context<'_>,
    kept: &Kept,
    isolation: enter::Isolation,
    declared: &BTreeMap<String, String>,
    home: Home,
    args: Vec<OsString>,
    directory: &Path,
) -> ShellSpec {
    let caller = enter::Caller {
        name: ctx.caller.name.clone(),
        uid: ctx.caller.uid,
        gid: ctx.caller.gid,
        home: ctx.caller.home.clone(),
        shell: "/bin/bash".into(),
    };
    // A shim inside a shim would enter twice.
    let inherited = ctx.caller.environment.iter().map(|(name, value)| match name.to_str() {
        Some("PATH") => (name.clone(), host::without_shims(value)),
        _ => (name.clone(), value.clone()),
    });
    ShellSpec {
        lowers: kept.lowers.clone(),
        isolation,
        env: enter::environment(isolation, inherited, declared, &caller),
        caller,
        home,
        project_dir: kept.project.clone(),
        workdir: directory.to_owned(),
        args,
        binds: kept
            .store
            .iter()
            .map(|store| enter::Bind { source: store.clone(), target: "/nix/store".into(), read_only: true })
            .chain(kept.nix.iter().map(|nix| enter::Bind {
                source: nix.clone(),
                target: "/nix".into(),
                read_only: false,
            }))
            .collect(),
        hostname: kept.name.clone(),
        network: true,
    }
}

/// What a hook needs to know of a shell.
pub struct Activation {
    /// Directories that come first on PATH, with colons between them.
    pub path: String,
    /// The manifest's variables.
    pub env: BTreeMap<String, String>,
}

/// The activation of a shell whose environment is assembled; nothing is locked or fetched.
pub(crate) fn activation(
    ctx: &Context<'_>,
    project: &mut Project,
    name: &str,
    _: Isolation,
) -> Result<Option<Activation>, OpsError> {
    if environment::current(ctx, project, &format!("shells.{name}")).is_err() {
        return Ok(None);
    }
    let kept = keep(ctx, project, name, true)?;
    Ok(Some(Activation { path: kept.path(), env: kept.env }))
}

/// A shim was called: runs a program of a kept shell, seeing the machine's files.
pub fn enter_prepared(ctx: &Context<'_>, file: &Path, command: &[OsString]) -> Result<ExitCode, OpsError> {
    let bytes = fs::read(file).at("read", file)?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(OpsError::Json)?;
    let directory = std::env::current_dir().at("find", "the working directory")?;
    Ok(enter::enter(&host::spec(ctx, &kept, command.to_vec(), &directory))?.pass_on())
}
