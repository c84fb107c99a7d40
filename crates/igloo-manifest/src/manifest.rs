//! The manifest's domain types: what `igloo.toml` means, once it is known to make sense.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use igloo_base::System;
use igloo_formats::deb::Version;

use crate::glob::Glob;

/// A project as its `igloo.toml` declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file it was read from; relative paths in it are relative to its directory.
    pub path: PathBuf,
    /// `[project]`.
    pub project: Project,
    /// `[sources.*]` by name (`debian`, `nixpkgs`).
    pub sources: BTreeMap<String, Source>,
    /// `[sets]`: the user's own ones; built-in ones are in [`crate::sets`].
    pub sets: BTreeMap<String, Set>,
    /// `[shells.*]`.
    pub shells: BTreeMap<String, Shell>,
    /// `[services.*]` and `[tasks.*]`, which share their names.
    pub services: BTreeMap<String, Service>,
    /// `[images.*]`.
    pub images: BTreeMap<String, Image>,
    /// `[vm]`.
    pub vm: Option<Vm>,
    /// `[scripts]`: what is to be done about the maintainer scripts of a package.
    pub scripts: BTreeMap<String, ScriptDecision>,
}

/// `[project]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's name.
    pub name: String,
    /// The source that names without a prefix are looked up in, if it is said.
    pub source: Option<String>,
    /// The systems to lock for; the current one unless said.
    pub systems: Vec<System>,
}

/// A place packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Debian archive.
    Debian(Debian),
    /// A flake of nixpkgs' shape.
    Nixpkgs(Nixpkgs),
}

impl Source {
    /// Which kind of source it is.
    pub fn kind(&self) -> SourceKind {
        match self {
            Source::Debian(_) => SourceKind::Debian,
            Source::Nixpkgs(_) => SourceKind::Nixpkgs,
        }
    }
}

/// The kinds of sources, which name the same tool differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// A Debian archive.
    Debian,
    /// nixpkgs.
    Nixpkgs,
}

/// `[sources.debian]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    /// The main suite, `bookworm`.
    pub suite: String,
    /// Every suite to read, the main one included: with its updates and security unless listed.
    pub suites: Vec<String>,
    /// Components, `main` unless said.
    pub components: Vec<String>,
    /// The archive's address; the machine's own apt configuration decides when there is none.
    pub url: Option<String>,
    /// The security archive's address.
    pub security_url: Option<String>,
    /// The keys to trust, relative to the manifest's directory.
    pub keyring: Option<PathBuf>,
    /// A moment of the dated archive, `20250520T000000Z`.
    pub snapshot: Option<String>,
    /// What every environment of this source starts from.
    pub base: Base,
    /// Whether recommended packages come along.
    pub recommends: bool,
}

/// What an environment holds before the first package that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Base {
    /// Nothing at all.
    None,
    /// The skeleton that most packages take for granted.
    #[default]
    Minimal,
    /// Every package the archive calls essential.
    Essential,
}

impl Base {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, Base); 3] =
        [("none", Base::None), ("minimal", Base::Minimal), ("essential", Base::Essential)];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Base::None => "none",
            Base::Minimal => "minimal",
            Base::Essential => "essential",
        }
    }
}

/// `[sources.nixpkgs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nixpkgs {
    /// A flake reference, `github:NixOS/nixpkgs/nixos-25.11`, or `npins:<name>` or `niv:<name>`.
    pub flake: String,
    /// Overlays: files, or directories of them, relative to the manifest's directory.
    pub overlays: Vec<PathBuf>,
    /// Whether packages without a free licence may be used.
    pub allow_unfree: bool,
    /// Packages with known faults that may be used, by name and version.
    pub permitted_insecure: Vec<String>,
    /// Addresses of binary caches, asked before those that Nix is configured with.
    pub caches: Vec<String>,
    /// Public keys of caches, beside those that Nix trusts.
    pub trusted_keys: Vec<String>,
}

/// A named list of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What is in it; `@name` of the same name means the built-in one.
    pub packages: Vec<PackageSpec>,
}

/// One element of a package list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSpec {
    /// As it was written.
    pub text: String,
    /// Where it was written, without the quotes.
    pub span: Range<usize>,
    /// What it means.
    pub kind: SpecKind,
}

/// What an element of a package list means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecKind {
    /// `@name`: a set.
    Set(String),
    /// `!name`: not this package.
    Exclude(String),
    /// `[source:]name[=version][/suite]`.
    Package {
        /// The source, if it is said.
        source: Option<String>,
        /// The package's name.
        name: String,
        /// Exactly this version.
        version: Option<Version>,
        /// From this suite.
        suite: Option<String>,
    },
    /// `flake:<reference>`: an output of a flake.
    Flake(String),
    /// `/nix/store/HASH-NAME`: a store path, as it is.
    StorePath(String),
}

/// What is in an environment; shells, services and images share it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The packages asked for.
    pub packages: Vec<PackageSpec>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Who runs in it: `name[:group]` or `uid[:gid]`.
    pub user: Option<String>,
    /// Where it runs, an absolute path.
    pub workdir: Option<String>,
    /// The project's own files to put in.
    pub copy: Vec<Copy>,
    /// Overrides the source's `recommends`.
    pub recommends: Option<bool>,
    /// Overrides the source's `base`.
    pub base: Option<Base>,
}

/// A file or directory of the project that becomes part of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Relative to the manifest's directory, and inside of it.
    pub from: PathBuf,
    /// An absolute path in the environment.
    pub to: String,
    /// The mode of files, their own unless said.
    pub mode: Option<u32>,
    /// What stays out.
    pub exclude: Vec<crate::Glob>,
}

/// `[shells.*]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shell {
    /// What is in it.
    pub content: Content,
    /// How far it is from the machine it runs on.
    pub isolation: Isolation,
    /// Shell commands to run on entry.
    pub hook: Option<String>,
}

/// How far an environment is from the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Isolation {
    /// The user's own shell, with more in its PATH.
    #[default]
    Host,
    /// Only what is declared.
    Pure,
    /// Namespaces of its own.
    Container,
    /// A kernel of its own.
    Vm,
}

impl Isolation {
    /// The words of the manifest, from near to far.
    pub const NAMES: [(&'static str, Isolation); 4] = [
        ("host", Isolation::Host),
        ("pure", Isolation::Pure),
        ("container", Isolation::Container),
        ("vm", Isolation::Vm),
    ];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Isolation::Host => "host",
            Isolation::Pure => "pure",
            Isolation::Container => "container",
            Isolation::Vm => "vm",
        }
    }
}

/// `[services.*]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// What is in it.
    pub content: Content,
    /// Instead of packages: an image of somebody else's, in a registry or in a file.
    pub image: Option<String>,
    /// Words before the command of an image, instead of the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// The command, as words.
    pub run: Vec<String>,
    /// Run once before the first start, while the volumes are empty.
    pub setup: Option<Vec<String>>,
    /// What must be reached before this one starts.
    pub needs: Vec<Need>,
    /// What is mounted into it.
    pub volumes: Vec<Volume>,
    /// What is published.
    pub ports: Vec<Port>,
    /// How to see that it is ready; a started one is, if nothing is said.
    pub ready: Option<Ready>,
    /// How to see that it is still well.
    pub health: Option<Health>,
    /// When it is started again.
    pub restart: Restart,
    /// How it is started again.
    pub backoff: Backoff,
    /// What makes it read its configuration anew.
    pub reload: Option<Reload>,
    /// It is only brought up with one of these, or when it is named or needed.
    pub profiles: Vec<String>,
    /// How many of it there are.
    pub replicas: u32,
    /// What is done when files of the project change.
    pub watch: Vec<Watch>,
    /// It does its work and ends: one of `[tasks.*]`.
    pub task: Option<Task>,
    /// What it may use.
    pub limits: Limits,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it has before it is killed.
    pub stop_grace: Duration,
    /// How far it is from the machine it runs on; `Container` unless said.
    pub isolation: Isolation,
    /// Its host name; the service's name unless said.
    pub hostname: Option<String>,
    /// Its programs may make namespaces and mounts of their own (`loosen = ["sandboxes"]`).
    pub sandboxes: bool,
    /// Files of variables, relative to the manifest's directory; later ones win, and `env` wins over all.
    pub env_files: Vec<PathBuf>,
    /// What it gets below `/run/secrets`, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Its root can't be written.
    pub read_only: bool,
    /// Its program is the init of a whole system (`init = "system"`).
    pub init: bool,
    /// What it reaches.
    pub network: Network,
    /// Ports of the machine's own 127.0.0.1 that it reaches at `host.igloo`.
    pub host: Vec<u16>,
}

/// What a service reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Itself.
    None,
    /// The project's services.
    #[default]
    Internal,
    /// Other machines, too.
    Open,
}

impl Network {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, Network); 3] =
        [("none", Network::None), ("internal", Network::Internal), ("open", Network::Open)];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, n)| *n == self).map_or("", |(name, _)| name)
    }
}

/// Where a secret comes from, each time services are brought up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A file, relative to the manifest's directory.
    File(PathBuf),
    /// A variable of whoever runs `igloo up`.
    Env(String),
    /// What a command on this machine prints, less one newline at the end.
    Command(Vec<String>),
}

/// A need of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The service or task that is needed.
    pub service: String,
    /// What it must have reached.
    pub condition: Condition,
}

/// What a need may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Its process runs.
    Started,
    /// It is ready.
    #[default]
    Ready,
    /// It ended with exit code 0.
    Completed,
}

impl Condition {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, Condition); 3] =
        [("started", Condition::Started), ("ready", Condition::Ready), ("completed", Condition::Completed)];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Started => "started",
            Condition::Ready => "ready",
            Condition::Completed => "completed",
        }
    }
}

/// `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What to try; [`Probe::Notify`] is the watchdog of `sd_notify`.
    pub probe: Probe,
    /// How long between two tries.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many failures in a row are an illness.
    pub retries: u32,
    /// What is done then.
    pub on_unhealthy: OnUnhealthy,
}

/// What is done about a service that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnhealthy {
    /// It is started anew.
    #[default]
    Restart,
    /// It is stopped.
    Stop,
    /// It is told.
    Ignore,
}

impl OnUnhealthy {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, OnUnhealthy); 3] =
        [("restart", OnUnhealthy::Restart), ("stop", OnUnhealthy::Stop), ("ignore", OnUnhealthy::Ignore)];
}

/// How a service is started again: after `first`, then twice that, up to `most`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Given up after so many ends in a row; `None` is never.
    pub tries: Option<u32>,
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// One that was ready so long is forgiven all ends before.
    pub healthy: Duration,
}

/// What makes a service read its configuration anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// A signal.
    Signal(i32),
    /// A command, run inside.
    Exec(Vec<String>),
}

/// What is done when files change while `up --watch` runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// A file or directory, relative to the manifest's.
    pub path: PathBuf,
    /// What is done.
    pub action: WatchAction,
    /// Where in the service it is copied to.
    pub to: Option<String>,
    /// A command that is run inside after copying.
    pub run: Option<Vec<String>>,
    /// Names and paths below that don't count.
    pub ignore: Vec<Glob>,
}

/// What is done when a watched file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchAction {
    /// The service is brought up to date and started anew.
    #[default]
    Restart,
    /// It reads its configuration anew.
    Reload,
    /// The files are copied into it.
    Sync,
}

impl WatchAction {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, WatchAction); 3] =
        [("restart", WatchAction::Restart), ("reload", WatchAction::Reload), ("sync", WatchAction::Sync)];
}

/// What a task has that a service has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The service whose environment it has; its own if none is said.
    pub of: Option<String>,
    /// It is run so often while the project is up.
    pub every: Option<Duration>,
}

/// Something mounted into a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// `name:/target[:ro]`: kept by igloo between starts.
    Named {
        /// The volume's name, shared by the project's services.
        name: String,
        /// An absolute path in the service.
        target: String,
        /// Not to be written.
        read_only: bool,
    },
    /// `./path:/target[:ro]`: a directory or file of the machine.
    Bind {
        /// Absolute, or relative to the manifest's directory.
        source: PathBuf,
        /// An absolute path in the service.
        target: String,
        /// Not to be written.
        read_only: bool,
    },
    /// `tmpfs:/target[:size=64M]`: memory, gone when the service stops.
    Tmpfs {
        /// An absolute path in the service.
        target: String,
        /// Its limit in bytes.
        size: Option<u64>,
    },
}

impl Volume {
    /// Where in the service it is mounted.
    pub fn target(&self) -> &str {
        match self {
            Volume::Named { target, .. } | Volume::Bind { target, .. } | Volume::Tmpfs { target, .. } => target,
        }
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The machine's address it is published on, 127.0.0.1 unless said.
    pub address: IpAddr,
    /// The machine's port; `None` takes a free one.
    pub host: Option<u16>,
    /// The service's port.
    pub container: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// How to see that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What to try.
    pub probe: Probe,
    /// How long until the start has failed.
    pub timeout: Duration,
    /// How long between two tries.
    pub interval: Duration,
}

/// What tells that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A command that succeeds inside the service.
    Exec(Vec<String>),
    /// A port that accepts.
    Tcp {
        /// As seen from inside the service; itself unless said.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// An address that answers well, as seen from inside the service.
    Http {
        /// The whole address.
        url: String,
        /// Sent along.
        headers: Vec<(String, String)>,
        /// Ranges of statuses that are good, 200 to 399 if there is none.
        status: Vec<(u16, u16)>,
    },
    /// `READY=1` on the service's notify socket.
    Notify,
    /// A line of output that matches.
    Log(String),
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Restart {
    /// Never.
    No,
    /// When it failed.
    #[default]
    OnFailure,
    /// However it ended.
    Always,
    /// However it ended, unless a person stopped it.
    UnlessStopped,
}

impl Manifest {
    /// The key of a service's or task's environment in the lock: `services.web`, `tasks.migrate`.
    pub fn environment_key(&self, name: &str) -> String {
        match self.services.get(name).and_then(|s| s.task.as_ref()) {
            Some(Task { of: Some(of), .. }) => format!("services.{of}"),
            Some(_) => format!("tasks.{name}"),
            None => format!("services.{name}"),
        }
    }
}

impl Restart {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, Restart); 4] = [
        ("no", Restart::No),
        ("on-failure", Restart::OnFailure),
        ("always", Restart::Always),
        ("unless-stopped", Restart::UnlessStopped),
    ];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }
}

/// What a service may use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors, also parts of one.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of `/dev/shm`, 64 MiB unless said.
    pub shm: Option<u64>,
    /// Open files of each process.
    pub nofile: Option<u64>,
}

/// `[images.*]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What is in it; with `of`, what it adds to that.
    pub content: Content,
    /// The shell or service it is made of, `services.web`.
    pub of: Option<String>,
    /// What it is for.
    pub kind: ImageKind,
    /// Its name in a registry, `registry.example/acme/guestbook`.
    pub name: Option<String>,
    /// The command it runs, as words.
    pub run: Option<Vec<String>>,
    /// Words that come before the command, whatever command it is run with.
    pub entrypoint: Option<Vec<String>>,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Ports that it says it listens on; those of the service it is made of, unless said.
    pub ports: Option<Vec<Port>>,
    /// Directories that it says it keeps data in; those of the service it is made of, unless said.
    pub volumes: Option<Vec<String>>,
    /// The signal that asks it to stop; the service's own unless said.
    pub stop_signal: Option<i32>,
    /// How to see that it is well; the service's `ready` unless said.
    pub healthcheck: Option<Healthcheck>,
    /// Files that are made for it.
    pub files: Vec<ImageFile>,
    /// How its layers are compressed.
    pub compression: LayerCompression,
    /// Nix works in it, as its user.
    pub nix_db: bool,
    /// The login name of the ordinary user (id 1000) that it adds.
    pub account: Option<String>,
}

/// `healthcheck` of an image, as docker and podman run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// A command that succeeds inside the container.
    pub exec: Vec<String>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// Of one check.
    pub timeout: Option<Duration>,
    /// Before failures count.
    pub start_period: Option<Duration>,
    /// How many failures make it unhealthy.
    pub retries: Option<u32>,
}

/// A file that is made for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// An absolute path in the image.
    pub path: String,
    /// What is there.
    pub content: ImageFileContent,
    /// Its mode: 0644, or 0755 of directories, unless said.
    pub mode: Option<u32>,
    /// Who owns it, `name[:group]` or `uid[:gid]`; root unless said.
    pub owner: Option<String>,
}

/// What an [`ImageFile`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFileContent {
    /// A file with this text.
    Text(String),
    /// A copy of a file of the project.
    From(PathBuf),
    /// A symlink.
    Link(String),
    /// An empty directory.
    Directory,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LayerCompression {
    /// Small and quick.
    #[default]
    Zstd,
    /// For readers of all ages.
    Gzip,
}

impl LayerCompression {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, LayerCompression); 2] =
        [("zstd", LayerCompression::Zstd), ("gzip", LayerCompression::Gzip)];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            LayerCompression::Zstd => "zstd",
            LayerCompression::Gzip => "gzip",
        }
    }
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ImageKind {
    /// To run a service.
    #[default]
    Runtime,
    /// To develop in, from an editor.
    Devcontainer,
    /// To build in.
    Builder,
}

impl ImageKind {
    /// The words of the manifest.
    pub const NAMES: [(&'static str, ImageKind); 3] =
        [("runtime", ImageKind::Runtime), ("devcontainer", ImageKind::Devcontainer), ("builder", ImageKind::Builder)];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            ImageKind::Runtime => "runtime",
            ImageKind::Devcontainer => "devcontainer",
            ImageKind::Builder => "builder",
        }
    }
}

/// `[vm]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vm {
    /// Processors.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of disk.
    pub disk: Option<u64>,
}

/// What is to be done about the maintainer scripts of a package that no trigger covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScriptDecision {
    /// Nothing: the package works without.
    Ignore,
    /// What igloo's own table says.
    Recipe,
    /// Run them in a sandbox and keep what they made.
    Sandbox,
}

impl ScriptDecision {
    /// The words of the manifest and of the lock.
    pub const NAMES: [(&'static str, ScriptDecision); 3] =
        [("ignore", ScriptDecision::Ignore), ("recipe", ScriptDecision::Recipe), ("sandbox", ScriptDecision::Sandbox)];

    /// The word of the manifest and of the lock.
    pub fn name(self) -> &'static str {
        match self {
            ScriptDecision::Ignore => "ignore",
            ScriptDecision::Recipe => "recipe",
            ScriptDecision::Sandbox => "sandbox",
        }
    }
}
