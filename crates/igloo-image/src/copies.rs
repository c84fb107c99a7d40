//! The project's own code as a layer: always the topmost one, since it changes most.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use igloo_base::At as _;
use igloo_env::{AttrKind, Environment};

use crate::ImageError;
use crate::entry::{Entries, Entry, EntryKind, Source, Tree};

/// The entries of some trees, later ones over earlier ones, all of it root's; directories that the environment has
/// with other attributes keep them.
pub(crate) fn layer(trees: &[PathBuf], environment: &Environment) -> Result<Vec<Entry>, ImageError> {
    let mut entries = Entries::default();
    for root in trees {
        let tree = Tree::open(root)?;
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            let at = root.join(&dir);
            for child in std::fs::read_dir(&at).at("list", &at)? {
                let child = child.at("list", &at)?;
                // The store takes names that are no text; tar would, too, but no reader of layers agrees on them.
                let Ok(name) = child.file_name().into_string() else {
                    return Err(ImageError::Damaged { path: child.path() });
                };
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let meta = child.metadata().at("read", child.path())?;
                if meta.is_dir() {
                    todo.push(path.clone());
                    entries.put(Entry::dir(path));
                } else if meta.is_symlink() {
                    let target = std::fs::read_link(child.path()).at("read", child.path())?;
                    let Some(target) = target.to_str() else {
                        return Err(ImageError::Damaged { path: child.path() });
                    };
                    entries.put(Entry::link(path, target));
                } else {
                    let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                    let source = Source::Tree { tree: Arc::clone(&tree), path: path.clone(), size: meta.len() };
                    entries.put(Entry {
                        path,
                        kind: EntryKind::File(source),
                        mode,
                        uid: 0,
                        gid: 0,
                        xattrs: Vec::new(),
                    });
                }
            }
        }
    }
    for attr in environment.attrs.iter().filter(|a| a.kind == AttrKind::Dir) {
        if entries.get(&attr.path).is_some_and(|e| matches!(e.kind, EntryKind::Dir)) {
            entries.replace(Entry::dir(attr.path.as_str()).with(attr.mode, attr.uid, attr.gid));
        }
    }
    Ok(entries.into_sorted())
}
