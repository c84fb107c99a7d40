//! What can go wrong in a verb, and what to do then.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use igloo_base::PathError;
use igloo_container::ContainerError;
use igloo_env::EnvError;
use igloo_image::ImageError;
use igloo_manifest::edit::EditError;
use igloo_manifest::lock::Problem;
use igloo_manifest::resolve::Conflict;
use igloo_manifest::{LockError, ManifestError};
use igloo_remote::RemoteError;
use igloo_store::StoreError;
use igloo_supervisor::{ClientError, SupervisorError};

/// A service that isn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub service: String,
    /// Why.
    pub reason: String,
    /// The last lines it wrote.
    pub tail: Vec<String>,
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// A failed verb.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A file.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The manifest.
    #[error("igloo.toml can't be used")]
    Manifest(#[from] ManifestError),
    /// The lock's text.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An edit of the manifest.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Packages that don't go together.
    #[error(transparent)]
    Conflict(#[from] Box<Conflict>),
    /// The network.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Nix.
    #[error(transparent)]
    Nix(#[from] igloo_remote::NixError),
    /// A package that has no version of its own.
    #[error("`{what}` is of a flake, and moves with it")]
    MovesWithSource {
        /// The package.
        what: String,
    },
    /// An answer of Nix's that names no store path.
    #[error("`{text}`, which Nix named, is no store path")]
    NotAStorePath {
        /// What it named.
        text: String,
    },
    /// Nothing to evaluate with.
    #[error("there is no `nix` on PATH, and none can be had from Debian")]
    NoNix {
        /// Why.
        source: Box<OpsError>,
    },
    /// An edit of a manifest that Nix made.
    #[error("the manifest is generated, and can't be changed: change what it is generated from")]
    GeneratedManifest,
    /// A file with an image that is another than the lock has.
    #[error("`{image}` is another image than igloo.lock says; `igloo update` takes it")]
    ImageMoved {
        /// As the manifest names it.
        image: String,
    },
    /// A compose file that can't be carried over.
    #[error("cannot carry over `{}`: {why}", path.display())]
    NoCompose {
        /// The file.
        path: PathBuf,
        /// Why, with the line.
        why: String,
    },
    /// A list of a closure, as Nix gives it to builds, that is none.
    #[error("`{}` has no `closure` of store paths", path.display())]
    BadClosure {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Pins that are not there.
    #[error("`{asked}` needs `{}`, which is not there", path.display())]
    NoPins {
        /// The reference.
        asked: String,
        /// What it looks for.
        path: PathBuf,
    },
    /// Nothing here that Nix would make a shell of.
    #[error("there is no flake.nix, shell.nix or default.nix in `{}`", directory.display())]
    NoNixShell {
        /// Where they were looked for.
        directory: PathBuf,
    },
    /// A binary cache.
    #[error(transparent)]
    Cache(#[from] igloo_remote::nix::CacheError),
    /// Store paths that no cache has, or none that may be believed.
    #[error("{}", not_in_caches(.paths, .caches, .faults))]
    NotInCaches {
        /// The paths.
        paths: Vec<String>,
        /// The caches that were asked.
        caches: Vec<String>,
        /// What was wrong with some of them.
        faults: Vec<String>,
    },
    /// Neither end of a copy is a store.
    #[error("`{from}` and `{to}` are both caches")]
    CacheToCache {
        /// One.
        from: String,
        /// The other.
        to: String,
    },
    /// A closure without an end.
    #[error("the closure that the cache `{cache}` tells has more than {most} paths")]
    ClosureTooLarge {
        /// The cache.
        cache: String,
        /// The limit.
        most: usize,
    },
    /// A file that holds no key.
    #[error("`{}` holds no secret key", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: igloo_formats::nix::signature::BadKey,
    },
    /// A lock that does not hold all of a closure.
    #[error("`{path}` refers to `{reference}`, which is not in the lock")]
    ReferenceNotLocked {
        /// The path.
        path: String,
        /// What it refers to.
        reference: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A plan of layers.
    #[error(transparent)]
    Plan(#[from] igloo_image::plan::PlanError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] igloo_remote::registry::RegistryError),
    /// A text that is no image's name.
    #[error(transparent)]
    Reference(igloo_formats::oci::BadReference),
    /// A container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A shell.
    #[error(transparent)]
    Enter(#[from] igloo_container::enter::EnterError),
    /// The supervisor.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// A request to the supervisor.
    #[error(transparent)]
    Client(#[from] ClientError),

    /// No manifest here or above.
    #[error("there is no igloo.toml in `{}` or above", start.display())]
    NoProject {
        /// Where the search began.
        start: PathBuf,
    },
    /// `init` where a manifest is.
    #[error("`{}` is there already", path.display())]
    ManifestExists {
        /// The manifest.
        path: PathBuf,
    },
    /// `init --devcontainer` where there is one.
    #[error("`{}` is there already", path.display())]
    DevcontainerExists {
        /// The file.
        path: PathBuf,
    },
    /// A template that isn't.
    #[error("there is no template `{name}`")]
    NoTemplate {
        /// The name.
        name: String,
    },
    /// A lock that is no text.
    #[error("`{}` is not UTF-8", path.display())]
    LockNotText {
        /// The lock.
        path: PathBuf,
    },
    /// A lock that contradicts itself.
    #[error("`{}` contradicts itself:{}", path.display(), list(problems))]
    BadLock {
        /// The lock.
        path: PathBuf,
        /// In which ways.
        problems: Vec<Problem>,
    },
    /// `--locked` or `--check`, and the lock would change.
    #[error("igloo.lock does not match igloo.toml, and was not to be changed")]
    LockStale,
    /// `update` of something that isn't there.
    #[error("`{what}` is neither a package nor a source of igloo.lock")]
    NothingToUpdate {
        /// What was named.
        what: String,
    },
    /// A lock for other machines.
    #[error("igloo.lock has nothing for this machine's system, {system}")]
    SystemNotLocked {
        /// This machine's system.
        system: &'static str,
    },
    /// A source that this igloo can't use yet.
    #[error("`{key}` takes packages from the source `{source_name}`, and this igloo can only use Debian sources")]
    SourceNotSupported {
        /// The environment.
        key: String,
        /// The source.
        source_name: String,
    },
    /// `igloo run` on a machine that tells no suite.
    #[error("this machine's Debian suite can't be found out from `{}`", path.display())]
    NoSuite {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An environment of this name is not declared.
    #[error("there is no {kind} `{name}` in igloo.toml; there are: {}", or_none(known))]
    NoEnvironment {
        /// `shell` or `environment`.
        kind: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A word that is no isolation level.
    #[error("`{level}` is no isolation level: host, pure or container")]
    NoIsolation {
        /// The word.
        level: String,
    },
    /// A command that is nowhere.
    #[error("`{program}` is neither in this environment nor on PATH")]
    NoCommand {
        /// The program.
        program: String,
    },
    /// A command of the machine that can't be run.
    #[error("cannot run `{program}`")]
    Command {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// VM shells are not there yet.
    #[error("isolation `vm` is not available in this igloo")]
    NoVm,
    /// A file that `copy` names can't be copied.
    #[error("`{key}` copies `{}`, which is neither a file, a directory nor a symlink", path.display())]
    BadCopy {
        /// The environment.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// A package that unpacks to something else than the lock says.
    #[error("`{package}` unpacks to `{found}`, but igloo.lock says `{expected}`")]
    OtherObject {
        /// The package.
        package: String,
        /// What the lock says.
        expected: String,
        /// What came out.
        found: String,
    },
    /// `--locked`, and the lock was completed by an igloo that unpacks to other objects.
    #[error("igloo.lock was completed with unpacking {lock}, this igloo has {own}, and it was not to be changed")]
    OtherUnpack {
        /// Version of the lock.
        lock: u32,
        /// Version of this igloo.
        own: u32,
    },
    /// Offline, and packages are missing.
    #[error("{missing} packages are not on this machine, and the network is not to be used")]
    Offline {
        /// How many.
        missing: usize,
    },

    /// A name that is neither an image of the project, nor a file, nor has a registry in it.
    #[error("`{name}` is no image of this project and no file, and names no registry")]
    NoImage {
        /// The name.
        name: String,
    },
    /// A name without a registry where one is needed.
    #[error("`{name}` names no registry; write `HOST/{name}`")]
    NoRegistry {
        /// The name.
        name: String,
    },
    /// Offline, and a registry is needed.
    #[error("`{host}` can't be asked, since the network is not to be used")]
    OfflineRegistry {
        /// The registry.
        host: String,
    },
    /// A file with several images.
    #[error("`{}` holds several images: {}", path.display(), names.join(", "))]
    SeveralImages {
        /// The file.
        path: PathBuf,
        /// What it holds.
        names: Vec<String>,
    },
    /// Several images and one place to push them to.
    #[error("several images can't be pushed to one place; name one image, or set `name` of each in igloo.toml")]
    OneTarget,
    /// An image without a place to be pushed to.
    #[error("igloo.toml does not say where image `{image}` is pushed to")]
    NoRepository {
        /// The image.
        image: String,
    },
    /// No container engine.
    #[error("there is neither podman nor docker nor ctr on PATH")]
    NoEngine,
    /// An engine that said no.
    #[error("{engine} did not take the image: {said}")]
    EngineRefused {
        /// The engine.
        engine: &'static str,
        /// What it said.
        said: String,
    },
    /// A path that an image doesn't have.
    #[error("`{image}` has no `{path}`")]
    NoPath {
        /// The image.
        image: String,
        /// The path.
        path: String,
    },
    /// An image that does not say what is to be run.
    #[error("`{image}` names no command")]
    NoImageCommand {
        /// The image.
        image: String,
    },
    /// A user that an image doesn't have.
    #[error("`{image}` has no user `{user}`, or no group of that name")]
    NoImageUser {
        /// The image.
        image: String,
        /// As it was written.
        user: String,
    },
    /// A text that is no bind.
    #[error("`{text}` can't be mounted; write `./SOURCE:/TARGET` or `/SOURCE:/TARGET:ro`")]
    BadVolume {
        /// The text.
        text: String,
    },
    /// A working directory that is no absolute path.
    #[error("`{path}` is no absolute path, and can't be the working directory")]
    BadWorkdir {
        /// The path.
        path: String,
    },
    /// `--check`, and the plan would change.
    #[error("`{}` is not what the fleet's plan would be now, and was not to be changed", path.display())]
    PlanStale {
        /// The plan.
        path: PathBuf,
    },
    /// `--check`, and the second build differs.
    #[error(
        "image `{image}` was {first} the first time and {second} the second: it is not reproducible; this is a fault of igloo"
    )]
    NotReproducible {
        /// The image.
        image: String,
        /// Digest of the first build.
        first: String,
        /// Digest of the second.
        second: String,
    },
    /// A project without images.
    #[error("igloo.toml declares no image; write `[images.NAME]` with `of = \"services.NAME\"` or `packages`")]
    NoImages,
    /// A file of an image that is too large to be held in memory.
    #[error("`{}` is too large for `files` of image `{image}`; use `copy`", path.display())]
    FileTooLarge {
        /// The image.
        image: String,
        /// The file.
        path: PathBuf,
    },
    /// A service of this name is not declared.
    #[error("there is no service `{name}` in igloo.toml; there are: {}", or_none(known))]
    NoService {
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Something that a manifest can say, and this igloo can't do.
    #[error("service `{service}` asks for {what}, which this igloo can't do yet")]
    NotYet {
        /// The service.
        service: String,
        /// What it asks for.
        what: &'static str,
    },
    /// Nothing to bring up.
    #[error("igloo.toml declares no services")]
    NoServices,
    /// A user that the environment doesn't have.
    #[error("service `{service}` is to run as `{user}`, whom its environment doesn't know")]
    NoUser {
        /// The service.
        service: String,
        /// The user.
        user: String,
        /// Whom it knows.
        known: Vec<String>,
    },
    /// A volume that isn't there.
    #[error("there is no volume `{name}`")]
    NoVolume {
        /// Its name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A volume that is there already.
    #[error("there is a volume `{name}` already")]
    VolumeExists {
        /// Its name.
        name: String,
    },
    /// A volume that a running service writes to.
    #[error("volume `{name}` is used by `{service}`, which runs")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// The service.
        service: String,
    },
    /// A text that can't name a volume.
    #[error("`{name}` can't name a volume")]
    VolumeName {
        /// The text.
        name: String,
    },
    /// A secret that can't be had.
    #[error("cannot read the secret `{secret}` of service `{service}`: {why}")]
    Secret {
        /// The service.
        service: String,
        /// The secret's name.
        secret: String,
        /// What is wrong.
        why: String,
    },
    /// A variable that a value of `env` asks for.
    #[error("service `{service}` needs the variable `{variable}` for its `{name}`{}", because(why))]
    Unset {
        /// The service.
        service: String,
        /// The variable of the service.
        name: String,
        /// The machine's.
        variable: String,
        /// Why, if the value says.
        why: String,
    },
    /// A file of variables that makes no sense.
    #[error("`{}`, line {line}: {why}", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A bind of nothing.
    #[error("service `{service}` mounts `{}`, which does not exist", path.display())]
    NoBindSource {
        /// The service.
        service: String,
        /// What is missing.
        path: PathBuf,
    },
    /// More services than a project's network has addresses.
    #[error("no address is left for service `{service}`: a project's network has 253")]
    TooManyServices {
        /// The first without.
        service: String,
    },
    /// A host in a probe that can't be resolved.
    #[error(
        "service `{service}`: the host `{host}` of its readiness probe is neither localhost, a service nor an address"
    )]
    ProbeHost {
        /// The service.
        service: String,
        /// The host.
        host: String,
    },
    /// A probe's URL that makes no sense.
    #[error("service `{service}`: `{url}` can't be probed; use http://HOST:PORT/PATH")]
    ProbeUrl {
        /// The service.
        service: String,
        /// The URL.
        url: String,
    },
    /// Nothing runs.
    #[error("`{project}` is not running")]
    NotRunning {
        /// The project.
        project: String,
    },
    /// A supervisor that won't end.
    #[error("`{project}` is still running 30 s after it was asked to stop")]
    StillRunning {
        /// The project.
        project: String,
    },
    /// A service that doesn't run.
    #[error("service `{service}` is not running")]
    ServiceNotRunning {
        /// The service.
        service: String,
    },
    /// Neither side is a service.
    #[error("neither side of `{text}` is `SERVICE:PATH`")]
    NoCopySide {
        /// Both sides.
        text: String,
    },
    /// The end here.
    #[error("cannot copy `{from}` to `{to}`")]
    Copy {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// Why not.
        source: io::Error,
    },
    /// The end inside, which has told why.
    #[error("`{from}` was not copied to `{to}`")]
    CopyInside {
        /// From where.
        from: String,
        /// To where.
        to: String,
    },
    /// No signal's name or number.
    #[error("`{text}` is no signal")]
    NoSignal {
        /// What was written.
        text: String,
    },
    /// A port that is not reachable from outside.
    #[error("service `{service}` does not publish port {port}, or is down")]
    NotPublished {
        /// The service.
        service: String,
        /// The port inside.
        port: String,
    },
    /// Services that aren't as they should be.
    #[error("{}", failures_text(failures))]
    Services {
        /// Which, and why.
        failures: Vec<Failure>,
    },

    /// A text that is no store path.
    #[error("`{text}` is no store path")]
    NoStorePath {
        /// The text.
        text: String,
    },
    /// A store path that isn't valid here.
    #[error("`{path}` is not in the store")]
    NotInStore {
        /// The path.
        path: String,
    },
    /// A builder that was never brought up.
    #[error("there is no builder yet")]
    NoBuilder,
    /// A directory that Nix's list of builders can't name.
    #[error("`{path}` has a character that Nix's list of builders can't have in it")]
    BuilderPlace {
        /// The directory.
        path: PathBuf,
    },
    /// A builder that runs and does not build.
    #[error("the builder runs, but nix cannot build through it")]
    BuilderUnproved {
        /// What Nix said.
        source: igloo_remote::NixError,
    },
    /// Our own JSON.
    #[error("cannot write or read a record of igloo's own")]
    Json(#[source] serde_json::Error),
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The event loop.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
}

impl OpsError {
    /// What a person can do next.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            OpsError::NoProject { .. } => "`igloo init` writes one".into(),
            OpsError::ManifestExists { .. } => "edit it, or remove it first".into(),
            OpsError::DevcontainerExists { .. } => "`igloo init --devcontainer --force` replaces it".into(),
            OpsError::MovesWithSource { .. } => {
                "`igloo update nixpkgs` moves all of nixpkgs, `igloo update flake` the flakes".into()
            }
            OpsError::NoPins { .. } => "run `npins init` or `niv init`, or name a flake".into(),
            OpsError::NoNixShell { .. } => "name one: `igloo shell --nix REF`, as `nix develop` takes it".into(),
            OpsError::Nix(igloo_remote::NixError::Missing) => "install Nix, or put its `nix` on PATH".into(),
            OpsError::NoBuilder => "`igloo builder up` starts one".into(),
            OpsError::BuilderPlace { .. } => {
                "set IGLOO_STATE_DIR to a directory without spaces and `;`, `#`, `%`".into()
            }
            OpsError::BuilderUnproved { .. } => "`igloo builder status` tells how it is".into(),
            OpsError::NoTemplate { .. } => "`igloo init --template list` tells what there is".into(),
            OpsError::BadLock { .. } => "restore it from version control, or remove it and run `igloo lock`".into(),
            OpsError::OtherObject { .. } => {
                "the lock was edited, or made by another igloo: restore it, or remove it and run `igloo lock`".into()
            }
            OpsError::OtherUnpack { .. } => "run `igloo fetch` without `--locked` and commit igloo.lock".into(),
            OpsError::LockStale => "run `igloo lock` and commit igloo.lock".into(),
            OpsError::SystemNotLocked { system } => {
                format!("add \"{system}\" to `systems` under [project] and run `igloo lock`")
            }
            OpsError::NothingToUpdate { .. } => "`igloo env show` lists the packages of an environment".into(),
            OpsError::NoSuite { .. } => "name one: `igloo run --suite bookworm -p …`".into(),
            OpsError::SourceNotSupported { .. } => "use packages of a [sources.debian]".into(),
            OpsError::Offline { .. } => "run `igloo fetch` with a network first".into(),
            OpsError::NoUser { known, .. } => {
                format!("it knows {}; add the package that makes the user, or give a number", or_none(known))
            }
            OpsError::Unset { variable, .. } => {
                format!("set it, `{variable}=… igloo up`, or give it a default: `${{{variable}:-default}}`")
            }
            OpsError::NoVolume { known, .. } => format!("there are {}", or_none(known)),
            OpsError::VolumeExists { name } => format!("`igloo volume rm {name}` moves it to the trash"),
            OpsError::VolumeInUse { service, .. } => format!("`igloo stop {service}` first"),
            OpsError::VolumeName { .. } => "small letters, digits, `_` and `-`, a letter or digit first".into(),
            OpsError::EnvFile { .. } => "lines are `NAME=value`, empty, or begin with `#`".into(),
            OpsError::NoBindSource { .. } => "create it, or use a named volume: `NAME:/path`".into(),
            OpsError::Enter(e) => match e.remedy() {
                Some(remedy) => remedy.to_owned(),
                None => return Vec::new(),
            },
            OpsError::CacheToCache { .. } => "copy to a store first, and from there to the other cache".into(),
            OpsError::BadKey { .. } => "`nix-store --generate-binary-cache-key NAME SECRET PUBLIC` makes one".into(),
            OpsError::NoRepository { image } => {
                format!("set `name` under [images.{image}], or push with `--to HOST/NAME`")
            }
            OpsError::NoImage { .. } => "registries are named: `HOST/NAME:TAG`; files: `oci:DIR`, `./FILE.tar`".into(),
            OpsError::NoImageCommand { image } => format!("give one: `igloo image run {image} -- COMMAND`"),
            OpsError::NoImageUser { .. } => "`--user` takes a name that the image has, or a number up to 65535".into(),
            OpsError::PlanStale { .. } => "run `igloo image plan --fleet` and commit the plan".into(),
            OpsError::NoCopySide { .. } => "`igloo cp web:/var/log/app.log .`, `igloo cp ./conf web:/etc/app`".into(),
            OpsError::NoSignal { .. } => "`HUP`, `SIGTERM`, `9` ...".into(),
            OpsError::NotPublished { service, .. } => format!("`igloo port {service}` lists what is published"),
            OpsError::NotRunning { .. } => "`igloo up` starts it".into(),
            OpsError::ServiceNotRunning { service } => {
                format!("`igloo ps` tells why; `igloo start {service}` starts it")
            }
            OpsError::StillRunning { .. } => "look at its supervisor.log, and report it as a fault of igloo".into(),
            OpsError::Services { failures } => match failures.first() {
                Some(first) => format!("`igloo logs {}` shows more", first.service),
                None => return Vec::new(),
            },
            OpsError::Remote(RemoteError::Gone { label, .. }) => format!(
                "the archive has replaced it: `igloo update {}` takes what it has now, or set `snapshot` in the source",
                label.split(' ').next().unwrap_or(label)
            ),
            _ => return Vec::new(),
        };
        vec![hint]
    }

    /// The exit code, where it isn't the usual one.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            OpsError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Some(3),
            OpsError::NoCommand { .. } => Some(127),
            OpsError::Command { .. } => Some(126),
            OpsError::Enter(e) => Some(e.exit_code()),
            _ => None,
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        next = cause.source();
    }
    text
}

fn list(problems: &[Problem]) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN) {
        text.push_str("\n  ");
        if let Some(environment) = &problem.environment {
            text.push_str(&format!("{environment}: "));
        }
        text.push_str(&problem.message);
    }
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", problems.len() - SHOWN));
    }
    text
}

fn not_in_caches(paths: &[String], caches: &[String], faults: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = match paths {
        [one] => format!("`{one}` is in no cache that may be believed"),
        many => format!("{} store paths are in no cache that may be believed", many.len()),
    };
    let listed = if paths.len() > 1 { paths } else { &[] };
    for line in listed.iter().take(SHOWN) {
        text.push_str(&format!("\n  {line}"));
    }
    if listed.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", listed.len() - SHOWN));
    }
    text.push_str(&format!("\n  asked: {}", or_none(caches)));
    for fault in faults.iter().take(SHOWN) {
        text.push_str(&format!("\n  {fault}"));
    }
    text
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn failures_text(failures: &[Failure]) -> String {
    let mut text = String::new();
    for failure in failures {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("service `{}` {}", failure.service, failure.reason));
        for line in &failure.tail {
            text.push_str(&format!("\n  | {line}"));
        }
    }
    text
}
