//! The project's own files as store objects: `copy` of shells, services and images.
//!
//! What an object was made of is remembered beside the project's state, file by file as the kernel describes it.
//! A tree that didn't change costs a walk; of one that did, unchanged files are linked from the object before, so that
//! only what is new is copied (the digest of an archive still needs every byte read).

mod tree;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use igloo_base::Sha256;
use igloo_base::file::{At, create_dirs, create_private_dir, read_optional, write_atomic};
use igloo_formats::nix::StorePath;
use igloo_manifest::Content;
use igloo_store::Store;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use tree::{Entry, Kind};

/// Raised when the same files become another object.
const VERSION: u32 = 1;

/// The first line of what is remembered; the entries follow, one line.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    version: u32,
    /// Digest of the manifest's words and of every entry.
    digest: String,
    /// When the walk began, in ns.
    at: i64,
    /// The object, without `/nix/store/`.
    store: String,
}

/// One object with everything that `content` copies, and its `data/`, which is a layer. Nothing if nothing is copied.
pub(crate) fn realise(
    ctx: &Context<'_>,
    project: &Project,
    store: &Store,
    key: &str,
    content: Option<&Content>,
) -> Result<Option<(StorePath, PathBuf)>, OpsError> {
    let Some(content) = content.filter(|c| !c.copy.is_empty()) else { return Ok(None) };
    let root = format!("{key}.copy");
    let file = ctx.dirs.project_state(&project.id).join("copies").join(key);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let entries = tree::walk(&project.directory, key, content)?;
    let digest = digest(content, &entries);
    let text = read_optional(&file)?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (first, rest) = text.split_once('\n').unwrap_or_default();
    let before = serde_json::from_str::<Remembered>(first).ok().filter(|r| r.version == VERSION);
    let before = before.and_then(|r| Some((StorePath::parse(&r.store).ok()?, r)));
    if let Some((path, before)) = &before
        && before.digest == digest
        && entries.iter().all(|e| e.is_settled(before.at))
        && store.root_target(&project.id.0, &root)?.as_ref() == Some(path)
        && store.exists(path)
    {
        return Ok(Some((path.clone(), store.physical(path).join("data"))));
    }
    let path = make(store, key, &entries, before.map(|(path, r)| (path, r.at, rest)))?;
    if store.root_target(&project.id.0, &root)?.as_ref() != Some(&path) {
        store.add_root(&project.id.0, &root, &path)?;
    }
    remember(&file, &Remembered { version: VERSION, digest, at, store: path.to_string() }, &entries)?;
    let data = store.physical(&path).join("data");
    Ok(Some((path, data)))
}

fn digest(content: &Content, entries: &[Entry]) -> String {
    let mut text = String::new();
    for copy in &content.copy {
        let exclude: Vec<&str> = copy.exclude.iter().map(|g| g.as_str()).collect();
        text.push_str(&format!("{:?} {:?} {:?} {exclude:?}\n", copy.from, copy.to, copy.mode));
    }
    for entry in entries {
        entry.write_to(&mut text);
    }
    Sha256::of(text.as_bytes()).to_string()
}

/// Names that are not UTF-8 don't go into JSON: such a tree is made anew each time.
fn remember(file: &Path, first: &Remembered, entries: &[Entry]) -> Result<(), OpsError> {
    if let Some(parent) = file.parent() {
        create_private_dir(parent)?;
    }
    let mut bytes = serde_json::to_vec(first).map_err(OpsError::Json)?;
    bytes.push(b'\n');
    match serde_json::to_writer(&mut bytes, entries) {
        Ok(()) => Ok(write_atomic(file, &bytes)?),
        Err(_) => Ok(igloo_base::file::remove_tree(file)?),
    }
}

/// Puts the object together; `before` is the last one, when the walk for it began, and its entries.
fn make(
    store: &Store,
    key: &str,
    entries: &[Entry],
    before: Option<(StorePath, i64, &str)>,
) -> Result<StorePath, OpsError> {
    let mut known: HashMap<PathBuf, Entry> = HashMap::new();
    let mut old = None;
    if let Some((path, at, text)) = &before {
        store.protect(std::slice::from_ref(path))?;
        if store.exists(path) {
            let entries: Vec<Entry> = serde_json::from_str(text).unwrap_or_default();
            known = entries.into_iter().filter(|e| e.is_settled(*at)).map(|e| (e.to.clone(), e)).collect();
            old = Some(store.physical(path).join("data"));
        }
    }
    let staged = store.stage::<OpsError>(&format!("copy-{key}"), &[], |out| {
        let data = out.join("data");
        create_dirs(&data)?;
        for entry in entries {
            let to = data.join(&entry.to);
            // One that can't be linked (too many links, another file system) is copied.
            let linked = matches!(entry.kind, Kind::File { .. })
                && known.get(&entry.to) == Some(entry)
                && old.as_ref().is_some_and(|old| fs::hard_link(old.join(&entry.to), &to).is_ok());
            if !linked {
                put(entry, &to)?;
            }
        }
        Ok(())
    })?;
    let path = staged.path().clone();
    store.protect(std::slice::from_ref(&path))?;
    store.commit(vec![staged])?;
    Ok(path)
}

fn put(entry: &Entry, to: &Path) -> Result<(), OpsError> {
    match entry.kind {
        Kind::Directory => create_dirs(to)?,
        Kind::Symlink => {
            let target = fs::read_link(&entry.from).at("read", &entry.from)?;
            symlink(target, to).at("create", to)?;
        }
        Kind::File { mode } => {
            let mut source = fs::File::open(&entry.from).at("read", &entry.from)?;
            let mut target =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
            std::io::copy(&mut source, &mut target).at("copy", &entry.from)?;
            target.set_permissions(fs::Permissions::from_mode(mode | 0o400)).at("change the mode of", to)?;
        }
    }
    Ok(())
}
