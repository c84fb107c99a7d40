//! A store path of Nix's in a layer: at its own place, with the modes and the time that Nix gives it, root's.
//!
//! Whoever may use Nix in the image, the paths stay root's: so their bytes are the same in every image.

use std::os::unix::fs::PermissionsExt as _;

use igloo_base::At as _;

use crate::ImageError;
use crate::entry::{Entry, EntryKind, Source, Tree, below};
use crate::package::Package;

/// Where store paths lie, relative to the root.
pub(crate) const STORE: &str = "nix/store/";

/// Everything of a store path; it may be a directory, a file or a link.
pub(crate) fn entries(package: &Package) -> Result<Vec<Entry>, ImageError> {
    let at = format!("{STORE}{}", package.path.base_name());
    let physical = &package.physical;
    let meta = physical.symlink_metadata().at("read", physical)?;
    if meta.is_dir() {
        let inner = below(physical)?.into_iter().map(|entry| {
            let mode = canonical(&entry.kind, entry.mode);
            Entry { path: format!("{at}/{}", entry.path), ..entry }.with(mode, 0, 0)
        });
        return Ok(std::iter::once(Entry::dir(at.clone()).with(0o555, 0, 0)).chain(inner).collect());
    }
    let damaged = || ImageError::Damaged { path: physical.clone() };
    if meta.is_symlink() {
        let target = std::fs::read_link(physical).at("read", physical)?;
        let not_text = || ImageError::NotText { path: physical.clone() };
        return Ok(vec![Entry::link(at, target.to_str().ok_or_else(not_text)?)]);
    }
    let tree = Tree::open(physical.parent().ok_or_else(damaged)?)?;
    let kind = EntryKind::File(Source::Tree { tree, path: package.path.base_name().to_owned(), size: meta.len() });
    let mode = canonical(&kind, meta.permissions().mode());
    Ok(vec![Entry { path: at, kind, mode, uid: 0, gid: 0, xattrs: Vec::new() }])
}

fn canonical(kind: &EntryKind, mode: u32) -> u32 {
    match kind {
        EntryKind::Link(_) => 0o777,
        EntryKind::File(_) | EntryKind::Hard { .. } if mode & 0o111 == 0 => 0o444,
        _ => 0o555,
    }
}
