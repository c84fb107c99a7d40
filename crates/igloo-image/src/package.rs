//! A package's part of a layer. Of one of Debian's: its own files, as its archive had them, and dpkg's record of them.
//! Of Nix's: a store path.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use igloo_base::At as _;
use igloo_formats::deb::meta::{Kind, META_FORMAT, Meta};
use igloo_formats::nix::StorePath;

use crate::entry::{Entries, Entry, EntryKind, Source, Tree};
use crate::{ImageError, store_path};

/// Whose package it is, and so what its object looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageKind {
    /// Debian's: `data/`, `control/`, `meta.json`.
    Debian,
    /// A store path of Nix's, as it is.
    Nix,
}

/// A package to be put into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Whose it is.
    pub kind: PackageKind,
    /// Its store path.
    pub path: StorePath,
    /// Where the object lies on this machine.
    pub physical: PathBuf,
    /// Its name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
}

impl Package {
    /// `name=version`, as layers are annotated with it.
    pub(crate) fn label(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// A package with its record read.
pub(crate) struct Opened<'p> {
    pub(crate) package: &'p Package,
    pub(crate) meta: Meta,
    pub(crate) tree: Arc<Tree>,
}

impl<'p> Opened<'p> {
    pub(crate) fn new(package: &'p Package) -> Result<Self, ImageError> {
        let file = package.physical.join("meta.json");
        let bytes = std::fs::read(&file).at("read", &file)?;
        let meta: Meta =
            serde_json::from_slice(&bytes).map_err(|source| ImageError::Record { path: file.clone(), source })?;
        if meta.format != META_FORMAT {
            return Err(ImageError::Damaged { path: file });
        }
        Ok(Self { package, meta, tree: Tree::open(package.physical.join("data"))? })
    }

    /// What dpkg calls it in its records: with the architecture if several may be installed side by side.
    fn dpkg_name(&self) -> Result<String, ImageError> {
        let file = self.package.physical.join("control/control");
        let control = std::fs::read(&file).at("read", &file)?;
        let same = String::from_utf8_lossy(&control).lines().any(|l| l.trim_end() == "Multi-Arch: same");
        let Package { name, architecture, .. } = self.package;
        Ok(if same { format!("{name}:{architecture}") } else { name.clone() })
    }

    /// Everything of it.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, ImageError> {
        let firsts = first_names(&self.meta);
        let mut entries = Vec::with_capacity(self.meta.entries.len() + 2);
        for (index, entry) in self.meta.entries.iter().enumerate() {
            let kind = match entry.kind {
                Kind::Dir => EntryKind::Dir,
                Kind::Link => EntryKind::Link(entry.target.clone().unwrap_or_default()),
                Kind::File | Kind::Hard => match firsts.get(&index) {
                    Some(first) if *first != index => {
                        EntryKind::Hard { target: self.meta.entries[*first].path.clone(), source: self.content(index) }
                    }
                    _ => EntryKind::File(self.content(index)),
                },
            };
            entries.push(Entry {
                path: entry.path.clone(),
                kind,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                xattrs: entry.xattrs.iter().filter_map(|(n, v)| Some((n.clone(), unhex(v)?))).collect(),
            });
        }
        entries.extend(self.record()?);
        Ok(entries)
    }

    /// Content of the file that is entry `index`.
    pub(crate) fn content(&self, index: usize) -> Source {
        let entry = &self.meta.entries[index];
        // A hard link's size is that of the file it names.
        let size = match (&entry.kind, &entry.target) {
            (Kind::Hard, Some(target)) => {
                let at = self.meta.entries.binary_search_by(|e| e.path.as_str().cmp(target));
                at.map_or(entry.size, |at| self.meta.entries[at].size)
            }
            _ => entry.size,
        };
        Source::Tree { tree: Arc::clone(&self.tree), path: entry.path.clone(), size }
    }

    /// dpkg's own files: the list of its paths and their digests, as scanners read them.
    fn record(&self) -> Result<Vec<Entry>, ImageError> {
        let name = self.dpkg_name()?;
        let mut list = String::from("/.\n");
        for entry in &self.meta.entries {
            list.push('/');
            list += &entry.path;
            list.push('\n');
        }
        let mut entries = vec![Entry::bytes(format!("{INFO}/{name}.list"), list)];
        if let Some(sums) = igloo_base::file::read_optional(self.package.physical.join("control/md5sums"))? {
            entries.push(Entry::bytes(format!("{INFO}/{name}.md5sums"), sums));
        }
        Ok(entries)
    }
}

/// Where dpkg keeps its records of single packages.
pub(crate) const INFO: &str = "var/lib/dpkg/info";

/// For every name of a file with several names, the one that comes first in a layer.
fn first_names(meta: &Meta) -> BTreeMap<usize, usize> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, entry) in meta.entries.iter().enumerate() {
        if let (Kind::Hard, Some(target)) = (entry.kind, &entry.target) {
            groups.entry(target).or_default().push(index);
        }
    }
    let mut firsts = BTreeMap::new();
    for (target, mut names) in groups {
        if let Ok(at) = meta.entries.binary_search_by(|e| e.path.as_str().cmp(target)) {
            names.push(at);
        }
        let first = names.iter().copied().min().unwrap_or_default();
        firsts.extend(names.into_iter().map(|name| (name, first)));
    }
    firsts
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The entries of a layer of packages, sorted.
pub(crate) fn layer(packages: &[Package]) -> Result<Vec<Entry>, ImageError> {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort_by(|a, b| (&a.name, &a.architecture, &a.path).cmp(&(&b.name, &b.architecture, &b.path)));
    let mut entries = Entries::default();
    for package in packages {
        let of_package = match package.kind {
            PackageKind::Debian => Opened::new(package)?.entries()?,
            PackageKind::Nix => store_path::entries(package)?,
        };
        for entry in of_package {
            entries.put(entry);
        }
    }
    Ok(entries.into_sorted())
}
