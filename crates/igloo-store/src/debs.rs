//! Which object an archive became: a link `nix/var/igloo/debs/<unpack version>/<sha256>` that names it. A link whose
//! object is gone means nothing; a collection removes it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use igloo_base::{At, Sha256};
use igloo_formats::nix::StorePath;

use crate::Store;
use crate::error::StoreError;

impl Store {
    /// The valid object of an archive with this digest.
    pub fn deb_path(&self, sha256: &Sha256) -> Result<Option<StorePath>, StoreError> {
        Ok(self.deb_paths(std::slice::from_ref(sha256))?.pop().flatten())
    }

    /// [`Store::deb_path`] of many, in one question to the database.
    pub fn deb_paths(&self, digests: &[Sha256]) -> Result<Vec<Option<StorePath>>, StoreError> {
        let named: Vec<_> = digests.iter().map(|sha256| self.named_by(sha256)).collect::<Result<_, _>>()?;
        let paths: Vec<StorePath> = named.iter().flatten().cloned().collect();
        let valid = if paths.is_empty() { BTreeSet::new() } else { self.valid_subset(&paths)? };
        Ok(named.into_iter().map(|path| path.filter(|p| valid.contains(p))).collect())
    }

    fn named_by(&self, sha256: &Sha256) -> Result<Option<StorePath>, StoreError> {
        let link = self.layout().debs().join(sha256.to_string());
        match fs::read_link(&link) {
            Ok(target) => Ok(target.to_str().and_then(|t| StorePath::parse(t).ok())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Ok(Err(e).at("read the link", &link)?),
        }
    }

    /// Notes the object of an archive.
    pub(crate) fn remember_deb(&self, sha256: &Sha256, path: &StorePath) -> Result<(), StoreError> {
        let link = self.layout().debs().join(sha256.to_string());
        loop {
            match symlink(path.base_name(), &link) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => return Ok(other.at("create the link", &link)?),
            }
            if self.named_by(sha256)?.as_ref() == Some(path) {
                return Ok(());
            }
            match fs::remove_file(&link) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Ok(Err(e).at("remove the link", &link)?),
                _ => {}
            }
        }
    }

    /// Removes links to objects that are not valid.
    pub(crate) fn forget_debs(&self, valid: &BTreeSet<StorePath>) -> Result<(), StoreError> {
        let versions = self.layout().own.join("debs");
        for version in crate::list_dir(&versions)? {
            for link in crate::list_dir(&version)? {
                let target = fs::read_link(&link).ok();
                let path = target.as_deref().and_then(|t| t.to_str()).and_then(|t| StorePath::parse(t).ok());
                if path.is_none_or(|p| !valid.contains(&p)) {
                    // It is a cache: what can't be removed does no harm.
                    let _ = fs::remove_file(&link);
                }
            }
        }
        Ok(())
    }
}
