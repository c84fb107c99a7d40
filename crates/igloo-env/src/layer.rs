//! The generated layer while it is made: an overlay in memory over the members' union.
//!
//! All paths that come from packages are resolved here, inside: links are followed in the union and never on the real
//! file system. A path in [`Layer::nodes`] has only directories above it, all of them generated as well, so writing the
//! layer out creates every directory itself and can go nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use igloo_base::At as _;
use igloo_formats::deb::meta::{Kind, relative_path};

use crate::union::{Owned, Union};
use crate::{Attr, AttrKind, EnvError};

/// As many links as Linux follows.
const MAX_LINKS: u32 = 40;

/// Something generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(Content),
    Link(String),
}

/// Content of a generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A copy of a member's file.
    Member {
        member: usize,
        path: String,
    },
}

/// Overrides of owner and mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Dir,
    File,
    Link,
}

pub(crate) struct Layer<'u> {
    pub(crate) union: &'u Union<'u>,
    pub(crate) nodes: BTreeMap<String, Node>,
    owners: BTreeMap<String, Owner>,
}

/// `dir/name`, where `dir` may be the root.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The directory a path is in, and its last component.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl<'u> Layer<'u> {
    pub(crate) fn new(union: &'u Union<'u>) -> Self {
        Self { union, nodes: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// The target of a link at exactly this path.
    fn link_at(&self, path: &str) -> Option<&str> {
        match self.nodes.get(path) {
            Some(Node::Link(target)) => Some(target),
            Some(_) => None,
            None => match self.union.get(path) {
                Some(Owned { entry, .. }) if entry.kind == Kind::Link => entry.target.as_deref(),
                _ => None,
            },
        }
    }

    /// The path with every link in it followed (the last one only if `last`), as a path relative to the root.
    /// `..` stops at the root. `None` for links in a circle.
    pub(crate) fn resolve(&self, path: &str, last: bool) -> Option<String> {
        let mut todo: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let (mut out, mut links) = (String::new(), 0);
        while let Some(component) = todo.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." => {
                    out.truncate(split(&out).0.len());
                    continue;
                }
                _ => {}
            }
            let candidate = join(&out, &component);
            let follow = last || todo.iter().any(|c| !matches!(c.as_str(), "" | "."));
            match self.link_at(&candidate) {
                Some(target) if follow => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        out.clear();
                    }
                    todo.extend(target.rsplit('/').map(str::to_owned));
                }
                _ => out = candidate,
            }
        }
        Some(out)
    }

    /// What is at a resolved path.
    fn at(&self, path: &str) -> Option<What> {
        if path.is_empty() {
            return Some(What::Dir);
        }
        match self.nodes.get(path) {
            Some(Node::Dir) => Some(What::Dir),
            Some(Node::File(_)) => Some(What::File),
            Some(Node::Link(_)) => Some(What::Link),
            None => self.union.get(path).map(|o| match o.entry.kind {
                Kind::Dir => What::Dir,
                Kind::Link => What::Link,
                Kind::File | Kind::Hard => What::File,
            }),
        }
    }

    /// What a path is, links followed. A dangling link is nothing.
    pub(crate) fn stat(&self, path: &str) -> Option<What> {
        self.at(&self.resolve(path, true)?)
    }

    /// What a path is, the last link not followed.
    pub(crate) fn lstat(&self, path: &str) -> Option<What> {
        self.at(&self.resolve(path, false)?)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.stat(path).is_some()
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.stat(path) == Some(What::Dir)
    }

    /// Mode, owner and group of a resolved path as they will be.
    pub(crate) fn attributes(&self, path: &str) -> (u32, u32, u32) {
        let (mut mode, mut uid, mut gid) = match self.nodes.get(path) {
            None => self.union.get(path).map_or((0o755, 0, 0), |o| (o.entry.mode, o.entry.uid, o.entry.gid)),
            Some(Node::Dir) => match self.union.get(path) {
                Some(o) if o.entry.kind == Kind::Dir => (o.entry.mode, o.entry.uid, o.entry.gid),
                _ => (0o755, 0, 0),
            },
            Some(Node::File(_)) => (0o644, 0, 0),
            Some(Node::Link(_)) => (0o777, 0, 0),
        };
        if let Some(owner) = self.owners.get(path) {
            mode = owner.mode.unwrap_or(mode);
            uid = owner.uid.unwrap_or(uid);
            gid = owner.gid.unwrap_or(gid);
        }
        (mode, uid, gid)
    }

    /// Whether somebody may execute the file there.
    pub(crate) fn executable(&self, path: &str) -> bool {
        self.resolve(path, true).is_some_and(|p| self.at(&p).is_some() && self.attributes(&p).0 & 0o111 != 0)
    }

    /// Content of a regular file, links followed; `None` if there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, EnvError> {
        let Some(path) = self.resolve(path, true) else { return Ok(None) };
        match self.nodes.get(&path) {
            Some(Node::File(Content::Bytes(bytes))) => Ok(Some(bytes.clone())),
            Some(Node::File(Content::Member { member, path })) => self.union.read_entry(*member, path).map(Some),
            Some(_) => Ok(None),
            None => match self.union.get(&path) {
                Some(o) if matches!(o.entry.kind, Kind::File | Kind::Hard) => {
                    self.union.read_entry(o.member, &path).map(Some)
                }
                _ => Ok(None),
            },
        }
    }

    /// [`Layer::read`] as text, bytes that are none replaced.
    pub(crate) fn read_text(&self, path: &str) -> Result<Option<String>, EnvError> {
        Ok(self.read(path)?.map(|b| String::from_utf8_lossy(&b).into_owned()))
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&self, dir: &str) -> Vec<String> {
        let Some(dir) = self.resolve(dir, true) else { return Vec::new() };
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut names = BTreeSet::new();
        let generated = self.nodes.range(prefix.clone()..).take_while(|(p, _)| p.starts_with(&prefix));
        let paths = generated.map(|(p, _)| p.as_str()).chain(self.union.below(&dir).map(|o| o.entry.path.as_str()));
        for path in paths {
            let name = path[prefix.len()..].split('/').next().unwrap_or_default();
            if !name.is_empty() && !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        names.into_iter().collect()
    }

    /// Files (links included) in a directory whose names end so, as paths.
    pub(crate) fn list_files(&self, dir: &str, suffix: &str) -> Vec<String> {
        let names = self.list(dir).into_iter().filter(|n| n.ends_with(suffix));
        names.map(|n| join(dir, &n)).filter(|p| self.stat(p) == Some(What::File)).collect()
    }

    /// Makes all directories above a resolved path nodes; false if one of them is something else.
    fn parents(&mut self, path: &str) -> bool {
        let mut end = 0;
        while let Some(next) = path[end..].find('/') {
            end += next;
            let dir = &path[..end];
            match self.at(dir) {
                None | Some(What::Dir) => {
                    if !self.nodes.contains_key(dir) {
                        self.nodes.insert(dir.to_owned(), Node::Dir);
                    }
                }
                Some(_) => return false,
            }
            end += 1;
        }
        true
    }

    fn insert(&mut self, path: &str, node: Node) -> bool {
        // Every name is checked here, whoever made it up: this is where it becomes a file name.
        let good = relative_path(path.as_bytes()).ok().flatten().as_deref() == Some(path);
        let done = good && self.parents(path);
        if done {
            self.nodes.insert(path.to_owned(), node);
        }
        done
    }

    /// Makes a directory and those above it. True if it was not there before.
    pub(crate) fn mkdir(&mut self, path: &str) -> bool {
        let Some(path) = self.resolve(path, true) else { return false };
        self.at(&path).is_none() && self.insert(&path, Node::Dir)
    }

    /// Writes a file unless something is there.
    pub(crate) fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) -> bool {
        self.lstat(path).is_none() && self.replace(path, content)
    }

    /// Writes a file over what is there, links followed.
    pub(crate) fn replace(&mut self, path: &str, content: impl Into<Vec<u8>>) -> bool {
        let Some(path) = self.resolve(path, true) else { return false };
        self.at(&path) != Some(What::Dir) && self.insert(&path, Node::File(Content::Bytes(content.into())))
    }

    /// Copies a file, link or tree unless something is at `to`.
    pub(crate) fn copy(&mut self, from: &str, to: &str) -> bool {
        let (Some(from), Some(to)) = (self.resolve(from, true), self.resolve(to, true)) else { return false };
        if self.at(&to).is_some() || to.starts_with(&format!("{from}/")) {
            return false;
        }
        self.copy_resolved(&from, &to)
    }

    fn copy_resolved(&mut self, from: &str, to: &str) -> bool {
        let node = match (self.nodes.get(from), self.union.get(from)) {
            (Some(node), _) => node.clone(),
            (None, Some(o)) => match o.entry.kind {
                Kind::Dir => Node::Dir,
                Kind::Link => Node::Link(o.entry.target.clone().unwrap_or_default()),
                Kind::File | Kind::Hard => Node::File(Content::Member { member: o.member, path: from.to_owned() }),
            },
            (None, None) => return false,
        };
        let (mode, uid, gid) = self.attributes(from);
        let dir = node == Node::Dir;
        let link = matches!(node, Node::Link(_));
        if !self.insert(to, node) {
            return false;
        }
        if !link {
            self.owners.insert(to.to_owned(), Owner { mode: Some(mode), uid: Some(uid), gid: Some(gid) });
        }
        if dir {
            for name in self.list(from) {
                self.copy_resolved(&join(from, &name), &join(to, &name));
            }
        }
        true
    }

    /// Puts one member's file, link or directory at exactly this path, over whatever another member has there.
    pub(crate) fn prefer(&mut self, member: usize, from: &str, to: &str) -> bool {
        let meta = &self.union.metas[member];
        let Ok(at) = meta.entries.binary_search_by(|e| e.path.as_str().cmp(from)) else { return false };
        let entry = &meta.entries[at];
        let node = match entry.kind {
            Kind::Dir => Node::Dir,
            Kind::Link => Node::Link(entry.target.clone().unwrap_or_default()),
            Kind::File | Kind::Hard => Node::File(Content::Member { member, path: from.to_owned() }),
        };
        let owner = Owner { mode: Some(entry.mode), uid: Some(entry.uid), gid: Some(entry.gid) };
        self.owners.insert(to.to_owned(), owner);
        self.insert(to, node)
    }

    /// Makes a link unless something is there.
    pub(crate) fn link(&mut self, target: &str, path: &str) -> bool {
        let Some(path) = self.resolve(path, false) else { return false };
        let fits = !target.is_empty() && target.len() <= igloo_formats::deb::meta::MAX_TARGET && !target.contains('\0');
        fits && self.at(&path).is_none() && self.insert(&path, Node::Link(target.to_owned()))
    }

    /// Moves what was generated; false if a member has it, or something else than a file or link is in the way.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> bool {
        let (Some(from), Some(to)) = (self.resolve(from, false), self.resolve(to, false)) else { return false };
        let movable = self.union.get(&from).is_none() && self.union.get(&to).is_none();
        let node = match self.nodes.get(&from) {
            Some(node @ (Node::File(_) | Node::Link(_))) if movable && self.at(&to) != Some(What::Dir) => node.clone(),
            _ => return false,
        };
        if !self.insert(&to, node) {
            return false;
        }
        self.nodes.remove(&from);
        match self.owners.remove(&from) {
            Some(owner) => self.owners.insert(to, owner),
            None => self.owners.remove(&to),
        };
        true
    }

    /// Makes a link in place of a file or link.
    pub(crate) fn relink(&mut self, target: &str, path: &str) -> bool {
        let Some(resolved) = self.resolve(path, false) else { return false };
        if self.at(&resolved) == Some(What::Dir) {
            return false;
        }
        self.insert(&resolved, Node::Link(target.to_owned()))
    }

    /// Puts a link in the place of a member's directory; false if there is none.
    pub(crate) fn replace_by_link(&mut self, path: &str, target: &str) -> bool {
        self.at(path) == Some(What::Dir) && self.insert(path, Node::Link(target.to_owned()))
    }

    /// Copies what a member has at exactly `from` to `to`, unless something is there.
    pub(crate) fn move_from_member(&mut self, from: &str, to: &str) {
        if let (Some(owned), None) = (self.union.get(from), self.at(to)) {
            self.prefer(owned.member, from, to);
        }
    }

    /// Writes a file, unless a member has one there.
    pub(crate) fn replace_generated(&mut self, path: &str, content: impl Into<Vec<u8>>) -> bool {
        self.union.get(path).is_none() && self.replace(path, content)
    }

    /// Removes what was generated; false if a member has something there.
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        let Some(path) = self.resolve(path, false) else { return false };
        let below = format!("{path}/");
        self.nodes.retain(|p, _| *p != path && !p.starts_with(&below));
        self.owners.retain(|p, _| *p != path && !p.starts_with(&below));
        self.at(&path).is_none()
    }

    /// Sets mode and owner of what is at `path`, links followed.
    pub(crate) fn set_owner(&mut self, path: &str, set: Owner) {
        let Some(path) = self.resolve(path, true) else { return };
        if path.is_empty() || self.at(&path).is_none() {
            return;
        }
        let owner = self.owners.entry(path).or_default();
        owner.mode = set.mode.or(owner.mode);
        owner.uid = set.uid.or(owner.uid);
        owner.gid = set.gid.or(owner.gid);
    }

    /// A directory with this owner and mode; one that exists keeps what it has unless `force`.
    pub(crate) fn directory(&mut self, path: &str, mode: u32, uid: u32, gid: u32, force: bool) {
        if self.mkdir(path) || force {
            self.set_owner(path, Owner { mode: Some(mode), uid: Some(uid), gid: Some(gid) });
        }
    }

    /// Everything at and below a path, links not followed.
    pub(crate) fn tree(&self, path: &str) -> Vec<String> {
        let Some(root) = self.resolve(path, true) else { return Vec::new() };
        if self.at(&root).is_none() {
            return Vec::new();
        }
        let prefix = format!("{root}/");
        let generated =
            self.nodes.range(prefix.clone()..).map(|(p, _)| p.clone()).take_while(|p| p.starts_with(&prefix));
        let mut all: BTreeSet<String> = generated.collect();
        all.extend(self.union.below(&root).map(|o| o.entry.path.clone()));
        all.insert(root);
        all.into_iter().collect()
    }

    /// Everything that the store cannot carry, sorted: from the members, then from what was generated.
    pub(crate) fn attrs(
        &self,
        by_name: &dyn Fn(&str, u32) -> u32,
        group_by_name: &dyn Fn(&str, u32) -> u32,
    ) -> Vec<Attr> {
        let mut attrs = BTreeMap::new();
        let mut add = |path: &str, kind: AttrKind, mode: u32, uid: u32, gid: u32| {
            let plain = match kind {
                AttrKind::Dir => mode == 0o755,
                AttrKind::File => matches!(mode, 0o644 | 0o755 | 0o444 | 0o555),
                AttrKind::Link => true,
            };
            if !plain || uid != 0 || gid != 0 {
                attrs.insert(path.to_owned(), Attr { path: path.to_owned(), kind, mode, uid, gid });
            }
        };
        for o in self.union.all() {
            let e = o.entry;
            let hidden = matches!(self.nodes.get(&e.path), Some(n) if *n != Node::Dir || e.kind != Kind::Dir);
            if hidden || self.owners.contains_key(&e.path) {
                continue;
            }
            let kind = match e.kind {
                Kind::Dir => AttrKind::Dir,
                Kind::File | Kind::Hard => AttrKind::File,
                Kind::Link => AttrKind::Link,
            };
            add(&e.path, kind, e.mode, by_name(&e.uname, e.uid), group_by_name(&e.gname, e.gid));
        }
        for path in self.owners.keys() {
            let kind = match self.at(path) {
                Some(What::Dir) => AttrKind::Dir,
                Some(What::File) => AttrKind::File,
                Some(What::Link) => AttrKind::Link,
                None => continue,
            };
            let (mode, uid, gid) = self.attributes(path);
            add(path, kind, mode, uid, gid);
        }
        attrs.into_values().collect()
    }

    /// Writes the layer below `out`, an empty directory.
    pub(crate) fn write(&self, out: &std::path::Path) -> Result<(), EnvError> {
        use std::os::unix::fs::PermissionsExt as _;
        for (path, node) in &self.nodes {
            let to = out.join(path);
            match node {
                Node::Dir => std::fs::create_dir(&to).at("create the directory", &to)?,
                Node::Link(target) => std::os::unix::fs::symlink(target, &to).at("create the link", &to)?,
                Node::File(content) => {
                    let mut file = std::fs::File::create_new(&to).at("create", &to)?;
                    match content {
                        Content::Bytes(bytes) => std::io::Write::write_all(&mut file, bytes).at("write", &to)?,
                        Content::Member { member, path } => {
                            let mut from = self.union.open_entry(*member, path).at("read", &to)?;
                            std::io::copy(&mut from, &mut file).at("write", &to)?;
                        }
                    }
                    if self.attributes(path).0 & 0o111 != 0 {
                        file.set_permissions(std::fs::Permissions::from_mode(0o755)).at("change the mode of", &to)?;
                    }
                }
            }
        }
        Ok(())
    }
}
