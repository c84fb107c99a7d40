//! Where everything of a store lies; see the table in the crate's documentation.

use std::path::{Path, PathBuf};

use igloo_formats::nix::StorePath;

/// Version of what unpacking makes of a .deb. A change of it changes store paths, so that the map from archives to
/// objects must not be asked with the old one.
pub const UNPACK: u32 = 1;

/// The directories of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) store: PathBuf,
    /// `nix/var/nix`
    pub(crate) state: PathBuf,
    /// `nix/var/igloo`
    pub(crate) own: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            store: root.join("nix/store"),
            state: root.join("nix/var/nix"),
            own: root.join("nix/var/igloo"),
        }
    }

    pub(crate) fn object(&self, path: &StorePath) -> PathBuf {
        self.store.join(path.base_name())
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.store.join(".links")
    }

    pub(crate) fn db_dir(&self) -> PathBuf {
        self.state.join("db")
    }

    pub(crate) fn schema(&self) -> PathBuf {
        self.state.join("db/schema")
    }

    pub(crate) fn gc_lock(&self) -> PathBuf {
        self.state.join("gc.lock")
    }

    pub(crate) fn temp_roots(&self) -> PathBuf {
        self.state.join("temproots")
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.state.join("gcroots")
    }

    pub(crate) fn profiles(&self) -> PathBuf {
        self.state.join("profiles")
    }

    pub(crate) fn project_roots(&self) -> PathBuf {
        self.state.join("gcroots/igloo")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.own.join("staging")
    }

    pub(crate) fn debs(&self) -> PathBuf {
        self.own.join("debs").join(UNPACK.to_string())
    }

    /// Every directory that Nix or we expect, parents first.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        vec![
            self.store.clone(),
            self.links(),
            self.db_dir(),
            self.temp_roots(),
            self.roots().join("auto"),
            self.project_roots(),
            self.profiles(),
            self.state.join("gc-socket"),
            self.staging(),
            self.debs(),
        ]
    }
}
