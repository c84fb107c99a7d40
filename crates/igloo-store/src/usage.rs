//! What trees take on disk, and what their removal would free.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use igloo_base::{At, PathError};

use crate::list_dir;

/// Adds up trees that are to be removed together.
#[derive(Default)]
pub(crate) struct Usage {
    /// Bytes of inodes with one name.
    single: u64,
    /// Inodes with several names: how many there are, how many were seen, bytes.
    shared: HashMap<(u64, u64), (u64, u64, u64)>,
}

impl Usage {
    /// Adds a tree; bytes that it takes by itself.
    pub(crate) fn add(&mut self, path: &Path) -> Result<u64, PathError> {
        let mut own = 0;
        let mut seen = HashSet::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let meta = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.at("inspect", &path)?,
            };
            let bytes = meta.blocks() * 512;
            if meta.is_dir() || meta.nlink() == 1 {
                self.single += bytes;
                own += bytes;
            } else {
                let inode = (meta.dev(), meta.ino());
                let entry = self.shared.entry(inode).or_insert((meta.nlink(), 0, bytes));
                entry.1 += 1;
                if seen.insert(inode) {
                    own += bytes;
                }
            }
            if meta.is_dir() {
                open.extend(list_dir(&path)?);
            }
        }
        Ok(own)
    }

    /// Bytes that are free when all added trees are gone, and with them the names in `links` (Nix's `.links`, by
    /// which it shares equal files) that nobody else needs.
    pub(crate) fn freed(&self, links: &Path) -> Result<u64, PathError> {
        let mut linked = HashSet::new();
        if self.shared.values().any(|(names, seen, _)| seen + 1 == *names) {
            for link in list_dir(links)? {
                if let Ok(meta) = fs::symlink_metadata(&link) {
                    linked.insert((meta.dev(), meta.ino()));
                }
            }
        }
        let gone = |(inode, (names, seen, _)): &(&(u64, u64), &(u64, u64, u64))| {
            seen + u64::from(linked.contains(*inode)) >= *names
        };
        Ok(self.single + self.shared.iter().filter(gone).map(|(_, (_, _, bytes))| bytes).sum::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_file_is_free_when_its_last_name_is() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "links"] {
            fs::create_dir(path(name)).expect("mkdir");
        }
        fs::write(path("a/f"), vec![1; 100_000]).expect("write");
        let bytes = fs::metadata(path("a/f")).expect("stat").blocks() * 512;
        fs::hard_link(path("a/f"), path("a/g")).expect("link");
        fs::hard_link(path("a/f"), path("b/f")).expect("link");
        fs::hard_link(path("a/f"), path("links/x")).expect("link");
        let mut usage = Usage::default();
        let own = usage.add(&path("a")).expect("usage");
        assert!(own >= bytes && own < 2 * bytes, "two names, one content: {own}");
        assert!(usage.freed(&path("links")).expect("freed") < bytes, "b has it still");
        usage.add(&path("b")).expect("usage");
        assert!(usage.freed(&path("links")).expect("freed") >= bytes);
    }
}
