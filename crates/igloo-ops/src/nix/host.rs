//! The machine's own Nix store: read, never written. What is in it its database tells, or, where a build of Nix's runs
//! igloo, which sees no database, the list of the closure that Nix gave that build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use igloo_base::At;
use igloo_formats::nix::{StorePath, parse_hash};
use igloo_remote::evaluate::packages;
use igloo_store::{PathInfo, Store};

use crate::context::NixAccess;
use crate::error::OpsError;

/// The store, opened to read.
pub(crate) struct HostStore {
    store: Store,
    told: Option<BTreeMap<StorePath, PathInfo>>,
}

impl HostStore {
    /// The host's store, unless there is none, or it is `ours`.
    pub(crate) fn open(access: &NixAccess, ours: &Path) -> Result<Option<Self>, OpsError> {
        let told = access.told.as_deref().map(read).transpose()?;
        let root = access.host_store.as_ref().filter(|root| root.as_path() != ours);
        Ok(root.and_then(|root| Store::open_readonly(root).ok()).map(|store| Self { store, told }))
    }

    /// What is known of a path; nothing if the store can't be read.
    pub(crate) fn path_info(&self, path: &StorePath) -> Option<PathInfo> {
        match &self.told {
            Some(told) => told.get(path).cloned(),
            None => self.store.path_info(path).ok().flatten(),
        }
    }

    /// All that `path` needs, itself among them; `None` if a part of it is not here.
    pub(crate) fn closure(&self, path: &StorePath) -> Option<Vec<PathInfo>> {
        let mut closure = Vec::new();
        let (mut seen, mut waiting) = (BTreeSet::from([path.clone()]), vec![path.clone()]);
        while let Some(path) = waiting.pop() {
            let info = self.path_info(&path)?;
            waiting.extend(info.references.iter().filter(|r| seen.insert((*r).clone())).cloned());
            closure.push(info);
        }
        Some(closure)
    }

    /// The store itself, for its files.
    pub(crate) fn files(&self) -> &Store {
        &self.store
    }
}

/// The `closure` of what Nix writes for a build with `exportReferencesGraph.closure` and `__structuredAttrs`.
fn read(path: &Path) -> Result<BTreeMap<StorePath, PathInfo>, OpsError> {
    #[derive(serde::Deserialize)]
    struct Attributes {
        closure: Vec<packages::PathInfo>,
    }
    let bytes = std::fs::read(path).at("read", path)?;
    let attributes: Attributes =
        serde_json::from_slice(&bytes).map_err(|source| OpsError::BadClosure { path: path.to_owned(), source })?;
    let bad = |text: &str| OpsError::NotAStorePath { text: text.chars().take(300).collect() };
    let parse = |full: &String| StorePath::parse(full.rsplit('/').next().unwrap_or_default()).map_err(|_| bad(full));
    let info = |told: &packages::PathInfo| {
        let mut references = told.references.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        references.sort();
        Ok(PathInfo {
            path: parse(&told.path)?,
            nar_hash: parse_hash(&told.nar_hash).ok_or_else(|| bad(&told.nar_hash))?,
            nar_size: told.nar_size,
            references,
            registered: 0,
            deriver: None,
            ultimate: false,
            signatures: told.signatures.clone(),
            content_address: told.ca.clone(),
        })
    };
    attributes.closure.iter().map(|told| info(told).map(|info| (info.path.clone(), info))).collect()
}
