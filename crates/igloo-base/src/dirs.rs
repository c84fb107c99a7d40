//! Where igloo keeps things. The binary decides the four roots (see `settings.rs` there); everyone
//! else asks this value, so that each directory is named in one place.

use std::path::{Path, PathBuf};

use crate::digest::Sha256;

/// The four roots and the names below them.
///
/// | path | content | may be lost |
/// |---|---|---|
/// | `data/nix/store`, `data/nix/var` | the Nix store and its database | no |
/// | `data/volumes/<project>/<volume>` | named volumes | no |
/// | `data/registry/…` | images that were pushed to `igloo registry serve` | no |
/// | `cache/debs/<sha256>.deb` | downloaded archives | yes |
/// | `cache/apt/…` | verified release files and package indexes | yes |
/// | `cache/nars/<sha256>.part` | packed archives of store paths that broke off | yes |
/// | `cache/oci/…` | layers and documents of images by digest | yes |
/// | `state/projects/<project>/` | known projects, logs, service state | history only |
/// | `state/registry/<repository>/` | locks of images that were built on pull | then newer versions |
/// | `state/builder/…` | keys and the project of `igloo builder` | then it has other keys |
/// | `runtime/<project>/` | sockets and locks of running projects | at boot |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// `$XDG_DATA_HOME/igloo`; `/var/lib/igloo` for root.
    pub data: PathBuf,
    /// `$XDG_STATE_HOME/igloo`; `/var/lib/igloo/state` for root.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/igloo`; `/var/cache/igloo` for root.
    pub cache: PathBuf,
    /// `$XDG_RUNTIME_DIR/igloo`; `/run/igloo` for root.
    pub runtime: PathBuf,
}

impl Dirs {
    /// Root of the chroot store: `local?root=` of real Nix.
    pub fn store_root(&self) -> &Path {
        &self.data
    }

    /// Verified package archives, `<sha256>.deb`, and partial downloads beside them.
    pub fn debs(&self) -> PathBuf {
        self.cache.join("debs")
    }

    /// Verified release files and package indexes.
    pub fn apt(&self) -> PathBuf {
        self.cache.join("apt")
    }

    /// Content of images by digest, and what is remembered of it.
    pub fn oci(&self) -> PathBuf {
        self.cache.join("oci")
    }

    /// Images that were pushed to this machine's registry.
    pub fn registry(&self) -> PathBuf {
        self.data.join("registry")
    }

    /// Locks of images that this machine's registry built when they were pulled.
    pub fn registry_locks(&self) -> PathBuf {
        self.state.join("registry")
    }

    /// Keys and the project of `igloo builder`.
    pub fn builder(&self) -> PathBuf {
        self.state.join("builder")
    }

    /// Durable state of one project.
    pub fn project_state(&self, project: &ProjectId) -> PathBuf {
        self.state.join("projects").join(&project.0)
    }

    /// All known projects.
    pub fn projects(&self) -> PathBuf {
        self.state.join("projects")
    }

    /// Sockets and locks of one running project.
    pub fn project_runtime(&self, project: &ProjectId) -> PathBuf {
        self.runtime.join(&project.0)
    }

    /// Named volumes of one project.
    pub fn volumes(&self, project: &ProjectId) -> PathBuf {
        self.data.join("volumes").join(&project.0)
    }
}

/// Names a project on this machine: its name for people, a digest of its directory for uniqueness.
/// At most 41 bytes of `[a-z0-9-]`, so that socket paths stay below the kernel's 108 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(pub String);

impl ProjectId {
    /// Id of the project called `name` that lives in `directory` (absolute, symlinks resolved).
    pub fn new(name: &str, directory: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let digest = Sha256::of(directory.as_os_str().as_bytes()).to_string();
        let slug: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(32)
            .collect();
        Self(format!("{slug}-{}", &digest[..8]))
    }
}

impl std::fmt::Display for ProjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
