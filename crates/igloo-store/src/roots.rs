//! What must stay: links below `gcroots` and `profiles`, as Nix reads them, and our own among them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use igloo_base::file::{create_dirs, remove_tree};
use igloo_base::{At, PathError};
use igloo_formats::nix::{STORE_DIR, StorePath};

use crate::Store;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::list_dir;

/// Something that keeps an object alive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// Who holds it.
    pub holder: Holder,
    /// The object.
    pub target: StorePath,
}

/// Who holds a [`Root`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// An environment of a project (`gcroots/igloo/<project>/<key>`).
    Project {
        /// The project.
        project: String,
        /// `shells.default`, `services.db`, …
        key: String,
    },
    /// Another link or file below `gcroots` or `profiles`, or the link that one in `gcroots/auto` points to.
    Link(PathBuf),
    /// A process that adds objects and has not finished (`temproots/<pid>`).
    Temporary(u32),
    /// A process that runs, has open, or has mounted something in the store.
    Process(u32),
    /// Whoever collects asked for it.
    Caller,
}

/// Deepest directory below `gcroots` that is looked into; profiles of users are four deep.
const MAX_DEPTH: usize = 32;

impl Store {
    /// Keeps `target` for `key` of `project`, in place of what was kept for it before.
    pub fn add_root(&self, project: &str, key: &str, target: &StorePath) -> Result<(), StoreError> {
        let link = self.root_link(project, key)?;
        if fs::read_link(&link).is_ok_and(|t| t == Path::new(&target.full())) {
            return Ok(());
        }
        // A collection between the check and the link would leave the link dangling.
        let _no_collection = self.gc_shared()?;
        if !self.is_valid(target)? {
            return Err(StoreError::NotValid(target.clone()));
        }
        if let Some(parent) = link.parent() {
            create_dirs(parent)?;
        }
        let temporary = link.with_file_name(format!(".{key}.{}", std::process::id()));
        remove_tree(&temporary)?;
        symlink(target.full(), &temporary).at("create the link", &temporary)?;
        Ok(fs::rename(&temporary, &link).at("create the link", &link)?)
    }

    /// What is kept for `key` of `project`; reads one link, no database.
    pub fn root_target(&self, project: &str, key: &str) -> Result<Option<StorePath>, StoreError> {
        let link = self.root_link(project, key)?;
        match fs::read_link(&link) {
            Ok(target) => Ok(in_store(self.layout(), &target)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Ok(Err(e).at("read the link", &link)?),
        }
    }

    /// All that is kept for a project, by key.
    pub fn project_roots(&self, project: &str) -> Result<BTreeMap<String, StorePath>, StoreError> {
        check_name(project)?;
        let mut out = BTreeMap::new();
        for link in list_dir(&self.layout().project_roots().join(project))? {
            let key = link.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.'));
            let target = fs::read_link(&link).ok().and_then(|t| in_store(self.layout(), &t));
            if let (Some(key), Some(target)) = (key, target) {
                out.insert(key.to_owned(), target);
            }
        }
        Ok(out)
    }

    /// Lets go of what is kept for `key` of `project`.
    pub fn remove_root(&self, project: &str, key: &str) -> Result<(), StoreError> {
        self.writable()?;
        let link = self.root_link(project, key)?;
        match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Ok(Err(e).at("remove the link", &link)?),
            _ => Ok(()),
        }
    }

    /// Lets go of all that is kept for a project.
    pub fn remove_roots(&self, project: &str) -> Result<(), StoreError> {
        self.writable()?;
        check_name(project)?;
        Ok(remove_tree(self.layout().project_roots().join(project))?)
    }

    /// Everything that keeps an object alive, as Nix sees it, valid or not; sorted, our own first.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let layout = self.layout();
        let mut roots = Vec::new();
        for top in [layout.roots(), layout.profiles()] {
            find_links(layout, &top, 0, &mut roots)?;
        }
        for (pid, target) in crate::locks::read_temp_roots(&layout.temp_roots())? {
            roots.push(Root { holder: Holder::Temporary(pid), target });
        }
        let known = self.list()?.into_iter().map(|info| info.path);
        for (pid, target) in crate::processes::in_use(&layout.store, known) {
            roots.push(Root { holder: Holder::Process(pid), target });
        }
        roots.sort();
        roots.dedup();
        Ok(roots)
    }

    fn root_link(&self, project: &str, key: &str) -> Result<PathBuf, StoreError> {
        check_name(project)?;
        check_name(key)?;
        Ok(self.layout().project_roots().join(project).join(key))
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let bad = name.is_empty() || name.len() > 200 || name.starts_with('.') || name.contains(['/', '\0']);
    if bad { Err(StoreError::BadRoot(name.chars().take(200).collect())) } else { Ok(()) }
}

/// The object that a link's target names or lies in: logical, as Nix writes it, or where it is on disk.
fn in_store(layout: &Layout, target: &Path) -> Option<StorePath> {
    let below = target.strip_prefix(STORE_DIR).or_else(|_| target.strip_prefix(&layout.store)).ok()?;
    let base = below.components().next()?;
    StorePath::parse(base.as_os_str().to_str()?).ok()
}

fn holder(layout: &Layout, path: &Path) -> Holder {
    let text = |p: &Path| p.to_str().map(str::to_owned);
    let ours = path.strip_prefix(layout.project_roots()).ok();
    let named = ours.and_then(|p| Some((text(p.parent()?)?, text(Path::new(p.file_name()?))?)));
    match named {
        Some((project, key)) if !project.is_empty() => Holder::Project { project, key },
        _ => Holder::Link(path.to_owned()),
    }
}

fn find_links(layout: &Layout, path: &Path, depth: usize, roots: &mut Vec<Root>) -> Result<(), PathError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        // It vanished, or is none of our business.
        Err(_) => return Ok(()),
    };
    if kind.is_dir() {
        if depth < MAX_DEPTH {
            for child in list_dir(path)? {
                find_links(layout, &child, depth + 1, roots)?;
            }
        }
    } else if kind.is_file() {
        // An empty file named like an object is a root as well.
        let target = path.file_name().and_then(|n| n.to_str()).and_then(|n| StorePath::parse(n).ok());
        roots.extend(target.map(|target| Root { holder: holder(layout, path), target }));
    } else if kind.is_symlink() {
        let Ok(target) = fs::read_link(path) else { return Ok(()) };
        if let Some(target) = in_store(layout, &target) {
            roots.push(Root { holder: holder(layout, path), target });
            return Ok(());
        }
        // A link to a link into the store, such as `result` in somebody's project.
        let second = path.parent().unwrap_or(Path::new("/")).join(target);
        let target = fs::read_link(&second).ok().and_then(|t| in_store(layout, &t));
        roots.extend(target.map(|target| Root { holder: holder(layout, &second), target }));
    }
    Ok(())
}
