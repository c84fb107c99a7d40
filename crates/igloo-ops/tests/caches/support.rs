use std::path::{Path, PathBuf};
use std::sync::Mutex;

use igloo_base::{Dirs, Event, Reporter};
use igloo_formats::nix::PublicKey;
use igloo_ops::context::{Caller, Context, NixAccess, Proxies, Registries};
use igloo_ops::error::OpsError;
use igloo_ops::realise::{LockedPath, Realised, caches, realise};
use igloo_store::{PathInfo, Store};
use igloo_test::nix::NixStore;

/// Remembers what was said.
#[derive(Default)]
pub(crate) struct Ears {
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Reporter for Ears {
    fn event(&self, event: Event) {
        if let Event::Warning { text, .. } = event {
            self.warnings.lock().expect("lock").push(text);
        }
    }
}

/// Somebody with a store and a cache of their own.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ears: Ears,
    pub(crate) nix: NixAccess,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("tempdir"), ears: Ears::default(), nix: NixAccess::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ctx(&self) -> Context<'_> {
        let at = |name: &str| self.path(name);
        Context {
            dirs: Dirs { data: at("data"), state: at("state"), cache: at("cache"), runtime: at("run") },
            reporter: &self.ears,
            caller: Caller {
                uid: 0,
                gid: 0,
                name: "test".into(),
                home: at("home"),
                shell: None,
                term: None,
                environment: Vec::new(),
            },
            exe: "/nonexistent".into(),
            manifest: Default::default(),
            offline: false,
            apt_root: at("apt"),
            proxies: Proxies::default(),
            registries: Registries::default(),
            nix: self.nix.clone(),
        }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.path("data")).expect("open the store")
    }

    /// Real Nix on the same store.
    pub(crate) fn nix(&self) -> NixStore {
        NixStore::at(self.path("data"))
    }

    pub(crate) fn realise(&self, wanted: &[LockedPath], urls: &[String], keys: &[&str]) -> Result<Realised, OpsError> {
        let ctx = self.ctx();
        let keys: Vec<PublicKey> = keys.iter().map(|k| k.parse().expect("key")).collect();
        let caches = caches(&ctx, urls)?;
        realise(&ctx, &self.store(), wanted, &caches, &keys)
    }
}

/// The closure of paths of a store, as a lock has it.
pub(crate) fn locked(store: &Path, paths: &[&igloo_formats::nix::StorePath]) -> Vec<LockedPath> {
    let paths: Vec<_> = paths.iter().map(|p| (*p).clone()).collect();
    let infos = Store::open_readonly(store).expect("open").closure(&paths).expect("closure");
    infos.into_iter().map(lock).collect()
}

pub(crate) fn lock(info: PathInfo) -> LockedPath {
    LockedPath {
        path: info.path,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        content_address: info.content_address,
        deriver: None,
        signatures: Vec::new(),
    }
}

pub(crate) fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}
