//! The data archive: which entries a package may have, where they go on a merged system, and what is noted of them.

use std::collections::HashMap;
use std::io::Read;

use igloo_formats::deb::archive::{ArchiveError, Part, TarEntry, TarKind, TarReader, shown};
use igloo_formats::deb::meta::{BadPath, Entry, Kind, MAX_TARGET, is_merged_name, relative_path, usrmerge};

use super::Failure;
use super::writer::TreeMaker;

const PART: Part = Part::Data;

/// Everything seen so far, by path.
struct Seen {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    /// Directory of the last entry: most entries share it.
    parent: String,
}

/// Writes the tree below `data/`; its entries, sorted by path.
pub(crate) fn unpack<R: Read>(mut tar: TarReader<R>, tree: &mut TreeMaker) -> Result<Vec<Entry>, Failure> {
    let mut seen = Seen { entries: Vec::new(), index: HashMap::new(), parent: String::new() };
    tree.dir("data")?;
    while let Some(header) = tar.next()? {
        let refused = |why| refused(&header.path, why);
        let Some(raw) = clean(&header.path, &header.path)? else {
            if header.kind == TarKind::Dir {
                continue;
            }
            return Err(refused("which is no directory"));
        };
        if header.kind == TarKind::Symlink && is_merge_link(&raw, &header.link) {
            continue;
        }
        let path = usrmerge(raw);
        seen.make_parents(&path, &header.path, tree)?;
        let before = seen.index.get(&path).map(|i| seen.entries[*i].kind);
        let mut entry = describe(&header, path);
        match (header.kind, before) {
            (TarKind::Dir, Some(Kind::Dir)) => {
                // Both halves of a split `/usr` name it; the later one wins, as with dpkg.
                let at = seen.index[&entry.path];
                seen.entries[at] = entry;
                continue;
            }
            (_, Some(_)) => return Err(refused("which was there before")),
            (TarKind::Dir, None) => tree.dir(&in_data(&entry.path))?,
            (TarKind::File, None) => {
                tree.file(&in_data(&entry.path), entry.mode & 0o100 != 0, &mut tar)?;
            }
            (TarKind::Symlink, None) => {
                let target = symlink_target(&header.link).ok_or_else(|| refused("a symlink with a bad target"))?;
                tree.symlink(&in_data(&entry.path), target)?;
                entry.target = Some(target.to_owned());
            }
            (TarKind::Hard, None) => {
                let target = clean(&header.link, &header.path)?.map(usrmerge).unwrap_or_default();
                let first = seen.index.get(&target).map(|i| &seen.entries[*i]);
                let first = first.filter(|e| matches!(e.kind, Kind::File | Kind::Hard));
                let first = first.ok_or_else(|| refused("a hard link to something that is no file before it"))?;
                // One inode has one owner and mode: those of its first name.
                let target = first.target.clone().unwrap_or(target);
                tree.hard_link(&in_data(&entry.path), &in_data(&target))?;
                entry = Entry { path: entry.path, kind: Kind::Hard, target: Some(target), ..first.clone() };
            }
            (TarKind::Special, None) => return Err(refused("which is a device, a pipe, or unknown")),
        }
        seen.note(entry);
    }
    seen.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(seen.entries)
}

impl Seen {
    fn note(&mut self, entry: Entry) {
        self.index.insert(entry.path.clone(), self.entries.len());
        self.entries.push(entry);
    }

    /// Makes what is missing between the root and `path`, which `raw` is called in the archive.
    fn make_parents(&mut self, path: &str, raw: &[u8], tree: &mut TreeMaker) -> Result<(), Failure> {
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        if parent == self.parent {
            return Ok(());
        }
        for end in parent.match_indices('/').map(|(i, _)| i).chain([parent.len()]) {
            let ancestor = &parent[..end];
            match self.index.get(ancestor).map(|i| self.entries[*i].kind) {
                Some(Kind::Dir) => {}
                Some(Kind::Link) => return Err(refused(raw, "which lies behind a symlink of the same archive")),
                Some(_) => return Err(refused(raw, "which lies below a file of the same archive")),
                None => {
                    tree.dir(&in_data(ancestor))?;
                    self.note(implied_dir(ancestor));
                }
            }
        }
        parent.clone_into(&mut self.parent);
        Ok(())
    }
}

fn refused(name: &[u8], why: &'static str) -> Failure {
    Failure::Archive(ArchiveError::Entry { part: PART, name: shown(name), why })
}

fn in_data(path: &str) -> String {
    format!("data/{path}")
}

fn clean(name: &[u8], entry: &[u8]) -> Result<Option<String>, ArchiveError> {
    let failed = |source: BadPath| ArchiveError::Path { part: PART, name: shown(entry), source };
    relative_path(name).map_err(failed)
}

/// True for the links themselves that make a system a merged one (`bin -> usr/bin`): every environment has them.
fn is_merge_link(path: &str, target: &[u8]) -> bool {
    let target = target.strip_prefix(b"/").unwrap_or(target);
    is_merged_name(path) && target.strip_prefix(b"usr/") == Some(path.as_bytes())
}

fn symlink_target(target: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(target).ok()?;
    (!text.is_empty() && text.len() <= MAX_TARGET && !text.contains('\0')).then_some(text)
}

fn describe(header: &TarEntry, path: String) -> Entry {
    let kind = match header.kind {
        TarKind::Dir => Kind::Dir,
        TarKind::Symlink => Kind::Link,
        TarKind::Hard => Kind::Hard,
        TarKind::File | TarKind::Special => Kind::File,
    };
    let unless_root = |name: &str| if name == "root" { String::new() } else { name.to_owned() };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut xattrs: Vec<_> = header.xattrs.iter().map(|(name, value)| (name.clone(), hex(value))).collect();
    xattrs.sort_unstable();
    Entry {
        path,
        kind,
        mode: if kind == Kind::Link { 0o777 } else { header.mode },
        uid: header.uid,
        gid: header.gid,
        uname: unless_root(&header.uname),
        gname: unless_root(&header.gname),
        size: header.size,
        target: None,
        xattrs,
    }
}

/// A directory that the archive takes for granted.
fn implied_dir(path: &str) -> Entry {
    Entry {
        path: path.to_owned(),
        kind: Kind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        uname: String::new(),
        gname: String::new(),
        size: 0,
        target: None,
        xattrs: Vec::new(),
    }
}
