//! What every verb is given: where things are, who asks, how to tell progress.

use std::ffi::OsString;
use std::path::PathBuf;

use igloo_base::{Dirs, Reporter};
pub use igloo_remote::nix::AwsKeys;

/// The circumstances of one run of igloo.
#[derive(Clone)]
pub struct Context<'a> {
    /// Where igloo keeps things.
    pub dirs: Dirs,
    /// Who is told about progress.
    pub reporter: &'a dyn Reporter,
    /// Who asks.
    pub caller: Caller,
    /// The binary that answers to `__supervise`, `__sandbox` and `__enter`.
    pub exe: PathBuf,
    /// Where the project's manifest is.
    pub manifest: ManifestPlace,
    /// Use no network.
    pub offline: bool,
    /// The machine's apt configuration, `/etc/apt`.
    pub apt_root: PathBuf,
    /// Proxies for downloads.
    pub proxies: Proxies,
    /// How registries are spoken to.
    pub registries: Registries,
    /// Where Nix's things are.
    pub nix: NixAccess,
}

/// Where a project's manifest is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ManifestPlace {
    /// In the directory that one works in, or above.
    #[default]
    Found,
    /// In this file, which somebody generated; its relative names start at the directory that one works in.
    File(PathBuf),
    /// Nix makes it: `manifest` of this output of a flake.
    Flake(String),
}

/// Where the machine's own Nix store is, and who we are to binary caches.
#[derive(Debug, Clone, Default)]
pub struct NixAccess {
    /// Below it is the host's `nix/store`: `/`, or none if it is not to be looked at.
    pub host_store: Option<PathBuf>,
    /// What is in it, where its database can't be seen: a list as Nix gives it to builds.
    pub told: Option<PathBuf>,
    /// A netrc file.
    pub netrc: Option<PathBuf>,
    /// Bearer tokens by host.
    pub tokens: Vec<(String, String)>,
    /// Keys for buckets.
    pub aws: Option<AwsKeys>,
    /// A file like `~/.aws/credentials`.
    pub aws_credentials: Option<PathBuf>,
}

/// Where logins and certificates of registries are.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Files in docker's format, the first that knows a registry decides.
    pub auth_files: Vec<PathBuf>,
    /// A directory like docker's `certs.d`.
    pub certs: Option<PathBuf>,
    /// Registries beside those of this machine that plain HTTP may be spoken to.
    pub plain_http: Vec<String>,
}

/// Proxies for downloads, as the usual variables name them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// `http_proxy`.
    pub http: Option<String>,
    /// `https_proxy`.
    pub https: Option<String>,
    /// `no_proxy`.
    pub none: Option<String>,
}

/// The person who runs igloo.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// `$SHELL`.
    pub shell: Option<PathBuf>,
    /// `$TERM`.
    pub term: Option<String>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
}
