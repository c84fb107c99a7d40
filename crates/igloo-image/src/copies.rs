//! The project's own code as a layer: always the topmost one, since it changes most.

use std::path::PathBuf;

use igloo_env::{AttrKind, Environment};

use crate::ImageError;
use crate::entry::{Entries, Entry, EntryKind, below};

/// The entries of some trees, later ones over earlier ones, all of it root's; directories that the environment has
/// with other attributes keep them.
pub(crate) fn layer(trees: &[PathBuf], environment: &Environment) -> Result<Vec<Entry>, ImageError> {
    let mut entries = Entries::default();
    for root in trees {
        for entry in below(root)? {
            entries.put(entry);
        }
    }
    for attr in environment.attrs.iter().filter(|a| a.kind == AttrKind::Dir) {
        if entries.get(&attr.path).is_some_and(|e| matches!(e.kind, EntryKind::Dir)) {
            entries.replace(Entry::dir(attr.path.as_str()).with(attr.mode, attr.uid, attr.gid));
        }
    }
    Ok(entries.into_sorted())
}
