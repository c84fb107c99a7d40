//! What the command line, the environment and the machine say, merged once. The only file that reads
//! environment variables; everything below takes values.
//!
//! | variable | meaning |
//! |---|---|
//! | `IGLOO_DATA_DIR`, `IGLOO_STATE_DIR`, `IGLOO_CACHE_DIR`, `IGLOO_RUNTIME_DIR` | where igloo keeps things (README, "Files") |
//! | `XDG_DATA_HOME`, `XDG_STATE_HOME`, `XDG_CACHE_HOME`, `XDG_RUNTIME_DIR`, `HOME` | their defaults |
//! | `IGLOO_OFFLINE` | `1`: as `--offline` |
//! | `IGLOO_PROFILES` | profiles that `up` brings up, too, separated by commas |
//! | `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `XDG_CONFIG_HOME` | where logins of registries are |
//! | `IGLOO_PLAIN_HTTP` | registries that plain HTTP may be spoken to, separated by commas |
//! | `IGLOO_HOST_STORE` | below it is the host's `nix/store`, if not below `/` |
//! | `NETRC`, `NIX_CONF_DIR` | where logins of binary caches are: this file, `~/.netrc`, or `netrc` in that directory |
//! | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_SHARED_CREDENTIALS_FILE` | keys for caches in buckets |
//! | `http_proxy`, `https_proxy`, `no_proxy` | for downloads |
//! | `NO_COLOR`, `TERM` | no colours |
//! | `SHELL` | the shell that `igloo shell` starts when the environment has it |

use std::env::{var, var_os};
use std::path::PathBuf;

use igloo_base::Dirs;
use igloo_ops::context::{AwsKeys, Caller, Context, ManifestPlace, NixAccess, Proxies, Registries};

use crate::args::Global;
use crate::error::CommandError;

/// Everything a command needs to know about where and as whom it runs.
pub struct Settings {
    /// `-C DIR`, or the working directory.
    pub directory: PathBuf,
    dirs: Dirs,
    caller: Caller,
    manifest: ManifestPlace,
    offline: bool,
    exe: PathBuf,
}

impl Settings {
    /// Merges arguments and environment.
    pub fn load(global: &Global) -> Result<Self, CommandError> {
        let directory = match &global.directory {
            Some(dir) => dir
                .canonicalize()
                .map_err(|e| CommandError::user(format!("cannot enter the directory `{}`: {e}", dir.display())))?,
            None => std::env::current_dir()
                .map_err(|e| CommandError::user(format!("cannot find the working directory: {e}")))?,
        };
        let uid = rustix::process::geteuid().as_raw();
        let home = var_os("HOME").map(PathBuf::from).filter(|h| h.is_absolute()).unwrap_or_else(|| "/".into());
        let caller = Caller {
            uid,
            gid: rustix::process::getegid().as_raw(),
            name: user_name(uid).or_else(|| var("USER").ok()).unwrap_or_else(|| format!("u{uid}")),
            shell: var_os("SHELL").map(PathBuf::from),
            term: var("TERM").ok(),
            environment: std::env::vars_os().collect(),
            home,
        };
        let exe = std::env::current_exe()
            .map_err(|e| CommandError::internal(format!("cannot find the path of this program: {e}")))?;
        let offline = global.offline || var("IGLOO_OFFLINE").is_ok_and(|v| !v.is_empty() && v != "0");
        let manifest = match (&global.manifest, &global.flake) {
            (Some(file), _) => ManifestPlace::File(std::path::absolute(file).unwrap_or_else(|_| file.clone())),
            (None, Some(reference)) => ManifestPlace::Flake(reference.clone()),
            (None, None) => ManifestPlace::Found,
        };
        Ok(Self { directory, dirs: dirs(&caller), caller, manifest, offline, exe })
    }

    /// The same for a build of Nix's, which has this directory and nothing else, and tells in `attributes` of closures.
    pub fn context_in_build<'a>(
        &self,
        top: &std::path::Path,
        attributes: &std::path::Path,
        manifest: PathBuf,
        reporter: &'a dyn igloo_base::Reporter,
    ) -> Context<'a> {
        let below = |name: &str| top.join("igloo").join(name);
        let dirs = Dirs { data: below("data"), state: below("state"), cache: below("cache"), runtime: below("run") };
        let ctx = self.context(reporter);
        let nix = NixAccess { told: Some(attributes.to_owned()), ..ctx.nix.clone() };
        Context { dirs, manifest: ManifestPlace::File(manifest), nix, offline: true, ..ctx }
    }

    /// These profiles and those of the environment.
    pub fn profiles(&self, named: &[String]) -> Vec<String> {
        let more = var("IGLOO_PROFILES").unwrap_or_default();
        let more = more.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned);
        named.iter().cloned().chain(more).collect()
    }

    /// The context of ops, with this reporter.
    pub fn context<'a>(&self, reporter: &'a dyn igloo_base::Reporter) -> Context<'a> {
        Context {
            dirs: self.dirs.clone(),
            reporter,
            caller: self.caller.clone(),
            exe: self.exe.clone(),
            manifest: self.manifest.clone(),
            offline: self.offline,
            apt_root: "/etc/apt".into(),
            registries: registries(&self.caller),
            nix: nix(&self.caller),
            proxies: Proxies { http: either("http_proxy"), https: either("https_proxy"), none: either("no_proxy") },
        }
    }
}

/// Logins where docker and podman keep them.
fn registries(caller: &Caller) -> Registries {
    let config = absolute("XDG_CONFIG_HOME").unwrap_or_else(|| caller.home.join(".config"));
    let docker = absolute("DOCKER_CONFIG").unwrap_or_else(|| caller.home.join(".docker"));
    let named = absolute("REGISTRY_AUTH_FILE");
    let podman = absolute("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
    let usual = [podman, Some(config.join("containers/auth.json")), Some(docker.join("config.json"))];
    let certs = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let plain = var("IGLOO_PLAIN_HTTP").unwrap_or_default();
    Registries {
        auth_files: match named {
            Some(file) => vec![file],
            None => usual.into_iter().flatten().collect(),
        },
        certs: certs.into_iter().find(|d| d.is_dir()),
        plain_http: plain.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect(),
    }
}

/// The host's Nix store, and logins for binary caches where Nix and curl keep them.
fn nix(caller: &Caller) -> NixAccess {
    let conf = absolute("NIX_CONF_DIR").unwrap_or_else(|| "/etc/nix".into());
    let own = absolute("NETRC").unwrap_or_else(|| caller.home.join(".netrc"));
    let keys = var("AWS_ACCESS_KEY_ID").ok().zip(var("AWS_SECRET_ACCESS_KEY").ok());
    let token = var("AWS_SESSION_TOKEN").ok();
    NixAccess {
        host_store: Some(absolute("IGLOO_HOST_STORE").unwrap_or_else(|| "/".into())),
        told: None,
        netrc: [own, conf.join("netrc")].into_iter().find(|path| path.is_file()),
        tokens: Vec::new(),
        aws: keys.map(|(id, secret)| AwsKeys { id, secret, token }),
        aws_credentials: Some(
            absolute("AWS_SHARED_CREDENTIALS_FILE").unwrap_or_else(|| caller.home.join(".aws/credentials")),
        ),
    }
}

/// Root keeps things where daemons do, since containers of root run in user namespaces that can't enter `/root`.
fn dirs(caller: &Caller) -> Dirs {
    let root = caller.uid == 0;
    let home = |name: &str| caller.home.join(name);
    let pick = |own: &str, xdg: &str, for_root: &str, default: PathBuf| {
        absolute(own)
            .or_else(|| (!root).then(|| absolute(xdg)).flatten().map(|d| d.join("igloo")))
            .unwrap_or_else(|| if root { for_root.into() } else { default })
    };
    let state = pick("IGLOO_STATE_DIR", "XDG_STATE_HOME", "/var/lib/igloo/state", home(".local/state/igloo"));
    let user_runtime = PathBuf::from(format!("/run/user/{}", caller.uid));
    let runtime = if !root && absolute("XDG_RUNTIME_DIR").is_none() && user_runtime.is_dir() {
        user_runtime.join("igloo")
    } else {
        state.join("run")
    };
    Dirs {
        data: pick("IGLOO_DATA_DIR", "XDG_DATA_HOME", "/var/lib/igloo", home(".local/share/igloo")),
        cache: pick("IGLOO_CACHE_DIR", "XDG_CACHE_HOME", "/var/cache/igloo", home(".cache/igloo")),
        runtime: pick("IGLOO_RUNTIME_DIR", "XDG_RUNTIME_DIR", "/run/igloo", runtime),
        state,
    }
}

/// A variable that is written in small letters by some and in capitals by others.
fn either(name: &str) -> Option<String> {
    [name.to_owned(), name.to_uppercase()].into_iter().find_map(|name| var(name).ok().filter(|v| !v.is_empty()))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute())
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
