//! The environment as a plain value, loaded from its store object in well under a millisecond.
//!
//! `env.json` is compact on purpose: it is read at every start of a shell or service. Format 1 is one object; ids are
//! numbers, modes are decimal numbers, attributes are arrays `[path, kind, mode, uid, gid]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use igloo_base::At as _;
use igloo_formats::nix::StorePath;
use serde::{Deserialize, Serialize};

use crate::EnvError;

/// The format of `env.json` that this code writes and reads.
pub const FORMAT: u32 = 1;

/// What kind of file an [`Attr`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttrKind {
    /// A directory; it is in one of the lower layers.
    #[serde(rename = "d")]
    Dir,
    /// A regular file in one of the lower layers.
    #[serde(rename = "f")]
    File,
    /// A symlink; only the owner matters.
    #[serde(rename = "l")]
    Link,
}

/// Owner and mode of a path, where a store object cannot carry them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "AttrRow", into = "AttrRow")]
pub struct Attr {
    /// Path relative to the root, without a leading slash, with no symlink in it.
    pub path: String,
    /// What is there.
    pub kind: AttrKind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How an [`Attr`] is written in `env.json`.
type AttrRow = (String, AttrKind, u32, u32, u32);

impl From<AttrRow> for Attr {
    fn from((path, kind, mode, uid, gid): AttrRow) -> Self {
        Self { path, kind, mode, uid, gid }
    }
}

impl From<Attr> for AttrRow {
    fn from(a: Attr) -> Self {
        (a.path, a.kind, a.mode, a.uid, a.gid)
    }
}

/// A line of `/etc/passwd`, with the groups that name its user as a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name; a number for an id that nobody has.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, without `gid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its id.
    pub gid: u32,
    /// Names of its members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// `env.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) triggers: u32,
    pub(crate) members: Vec<StorePath>,
    /// What is mounted below the generated layer, top first; empty = the members in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<StorePath>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
    pub(crate) attrs: Vec<Attr>,
}

/// An environment, ready to be realised.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Its store path.
    pub path: StorePath,
    /// The generated layer on this machine, `<object>/root`.
    pub root: PathBuf,
    /// Its packages and where their objects lie.
    pub members: Vec<(StorePath, PathBuf)>,
    /// Layers under `root`, top first, when they are not simply the members' `data/`.
    pub layers: Vec<(StorePath, PathBuf)>,
    /// What the store cannot carry, sorted by path.
    pub attrs: Vec<Attr>,
    /// Variables that a process in it starts with.
    pub env: BTreeMap<String, String>,
    /// Everybody in `/etc/passwd`.
    pub users: Vec<User>,
    /// Everything in `/etc/group`.
    pub groups: Vec<Group>,
}

impl Environment {
    /// Reads `object/env.json`; `physical` says where a store path lies on this machine.
    pub fn load(object: &Path, physical: &dyn Fn(&StorePath) -> PathBuf) -> Result<Environment, EnvError> {
        let name = object.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let path = StorePath::parse(name).map_err(|_| EnvError::NotAnObject { path: object.to_owned() })?;
        let file = object.join("env.json");
        let bytes = std::fs::read(&file).at("read", &file)?;
        let bad = |source| EnvError::Manifest { path: file.clone(), source };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(bad)?;
        if manifest.format != FORMAT {
            return Err(EnvError::Format { path: file, found: manifest.format, known: FORMAT });
        }
        let place = |paths: Vec<StorePath>| {
            paths
                .into_iter()
                .map(|p| {
                    let at = physical(&p);
                    (p, at)
                })
                .collect()
        };
        Ok(Environment {
            path,
            root: object.join("root"),
            members: place(manifest.members),
            layers: place(manifest.layers),
            attrs: manifest.attrs,
            env: manifest.env,
            users: manifest.users,
            groups: manifest.groups,
        })
    }

    /// The lower layers of the overlay, top first: the generated one, then `data/` of each member or bundle.
    pub fn lowers(&self) -> Vec<PathBuf> {
        let below = if self.layers.is_empty() { &self.members } else { &self.layers };
        std::iter::once(self.root.clone()).chain(below.iter().map(|(_, at)| at.join("data"))).collect()
    }

    /// Who `name`, `name:group`, `uid` or `uid:gid` is here. A number needs no entry; a name does.
    pub fn lookup_user(&self, text: &str) -> Option<User> {
        let (who, group) = match text.split_once(':') {
            Some((who, group)) => (who, Some(group)),
            None => (text, None),
        };
        let known = |u: &&User| u.name == who || who.parse() == Ok(u.uid);
        let mut user = match self.users.iter().find(known) {
            Some(user) => user.clone(),
            None => {
                let uid: u32 = who.parse().ok()?;
                User {
                    name: who.to_owned(),
                    uid,
                    gid: uid,
                    groups: Vec::new(),
                    home: "/".into(),
                    shell: "/bin/sh".into(),
                }
            }
        };
        if let Some(group) = group {
            user.gid = match self.groups.iter().find(|g| g.name == group) {
                Some(group) => group.gid,
                None => group.parse().ok()?,
            };
            // As docker and setpriv have it: a group that is named replaces the supplementary ones.
            user.groups.clear();
        }
        Some(user)
    }
}
