//! The members as one tree, before anything is generated: which package owns which path.
//!
//! All names come from `meta.json`; files are read relative to a member's `data/` by `openat2` that follows no
//! symlink at all, so that neither a lying record nor a link leads anywhere else.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use igloo_base::{At as _, PathError};
use igloo_formats::deb::meta::{Entry, Kind, META_FORMAT, Meta, control_field, relative_path};
use igloo_formats::deb::{Op, Relations, Version};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{EnvError, Member};

/// Largest file that a trigger reads: the biggest known is a 1 MiB bundle of certificates.
const MAX_READ: u64 = 16 << 20;
/// Largest `meta.json`: the biggest known package has 60,000 entries of about 120 bytes.
const MAX_META: u64 = 128 << 20;

/// What a path is in the union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned<'a> {
    /// Index of the owner.
    pub(crate) member: usize,
    /// Its record.
    pub(crate) entry: &'a Entry,
}

/// A path that two packages hold with different content.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The path.
    pub(crate) path: String,
    /// Owners, by index.
    pub(crate) first: usize,
    /// The other one.
    pub(crate) second: usize,
    /// Whose file it is by `Replaces`, if that says so.
    pub(crate) winner: Option<usize>,
}

/// The union of the members' trees.
pub(crate) struct Union<'m> {
    pub(crate) members: &'m [Member],
    pub(crate) metas: Vec<Meta>,
    data: Vec<OwnedFd>,
    control: Vec<Option<OwnedFd>>,
    /// Member and entry, sorted by path, one row a path.
    rows: Vec<(u32, u32)>,
    pub(crate) conflicts: Vec<Conflict>,
}

impl<'m> Union<'m> {
    /// Reads the records of all members.
    pub(crate) fn new(members: &'m [Member]) -> Result<Self, EnvError> {
        let mut union = Self {
            members,
            metas: Vec::with_capacity(members.len()),
            data: Vec::with_capacity(members.len()),
            control: Vec::with_capacity(members.len()),
            rows: Vec::new(),
            conflicts: Vec::new(),
        };
        for member in members {
            union.metas.push(read_meta_at(&member.physical)?);
            let data = member.physical.join("data");
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            union.data.push(rustix::fs::open(&data, flags, Mode::empty()).at("open", &data)?);
            let control = member.physical.join("control");
            union.control.push(rustix::fs::open(&control, flags, Mode::empty()).ok());
        }
        union.merge()?;
        Ok(union)
    }

    fn merge(&mut self) -> Result<(), EnvError> {
        let mut rows: Vec<(&str, u32, u32)> = Vec::with_capacity(self.metas.iter().map(|m| m.entries.len()).sum());
        for (m, meta) in self.metas.iter().enumerate() {
            rows.extend(meta.entries.iter().enumerate().map(|(e, entry)| (entry.path.as_str(), m as u32, e as u32)));
        }
        rows.sort_unstable();
        let mut kept: Vec<(u32, u32)> = Vec::with_capacity(rows.len());
        let (mut last, mut conflicts) = ("", Vec::new());
        for (path, m, e) in rows {
            if kept.is_empty() || path != last {
                kept.push((m, e));
                last = path;
                continue;
            }
            let Some(row) = kept.last_mut() else { continue };
            let (first, second) = ((row.0 as usize, row.1 as usize), (m as usize, e as usize));
            if self.same(first, second)? {
                // Of two directories the one with special attributes counts, and then the first.
                let plain = |(m, e): (usize, usize)| {
                    let e = &self.metas[m].entries[e];
                    e.mode == 0o755 && e.uid == 0 && e.gid == 0
                };
                if plain(first) && !plain(second) {
                    *row = (m, e);
                }
                continue;
            }
            let winner = if self.replaces(second.0, first.0) {
                Some(second.0)
            } else if self.replaces(first.0, second.0) {
                Some(first.0)
            } else {
                None
            };
            conflicts.push(Conflict { path: path.to_owned(), first: first.0, second: second.0, winner });
            if winner == Some(second.0) {
                *row = (m, e);
            }
        }
        self.rows = kept;
        self.conflicts = conflicts;
        Ok(())
    }

    /// Whether two entries of one path can live together: directories, or equal files or links.
    fn same(&self, a: (usize, usize), b: (usize, usize)) -> Result<bool, EnvError> {
        let (x, y) = (&self.metas[a.0].entries[a.1], &self.metas[b.0].entries[b.1]);
        Ok(match (x.kind, y.kind) {
            (Kind::Dir, Kind::Dir) => true,
            (Kind::Link, Kind::Link) => x.target == y.target,
            (Kind::File | Kind::Hard, Kind::File | Kind::Hard) => {
                x.mode == y.mode
                    && (x.size == y.size || x.kind != y.kind)
                    && self.read_entry(a.0, &x.path)? == self.read_entry(b.0, &y.path)?
            }
            _ => false,
        })
    }

    /// Whether `a` declares that it may overwrite files of `b`.
    fn replaces(&self, a: usize, b: usize) -> bool {
        let Ok(Some(control)) = self.control(a, "control") else { return false };
        let control = String::from_utf8_lossy(&control);
        let Some(Ok(replaces)) = control_field(&control, "Replaces").map(Relations::parse) else { return false };
        let other = &self.members[b];
        let fits = |constraint: &Option<(Op, Version)>| match constraint {
            None => true,
            Some((Op::Earlier, v)) => other.version < *v,
            Some((Op::EarlierEq, v)) => other.version <= *v,
            Some((Op::Equal, v)) => other.version == *v,
            Some((Op::LaterEq, v)) => other.version >= *v,
            Some((Op::Later, v)) => other.version > *v,
        };
        replaces.0.iter().flat_map(|c| &c.0).any(|alt| alt.name == other.name && fits(&alt.constraint))
    }

    fn row(&self, at: usize) -> Owned<'_> {
        let (m, e) = self.rows[at];
        Owned { member: m as usize, entry: &self.metas[m as usize].entries[e as usize] }
    }

    /// The owner of exactly this path, no link followed.
    pub(crate) fn get(&self, path: &str) -> Option<Owned<'_>> {
        let key = |row: &(u32, u32)| self.metas[row.0 as usize].entries[row.1 as usize].path.as_str();
        self.rows.binary_search_by(|row| key(row).cmp(path)).ok().map(|at| self.row(at))
    }

    /// Everything below a directory (not itself), in order of paths; no link followed.
    pub(crate) fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = Owned<'a>> + use<'a> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let start = self
            .rows
            .partition_point(|row| self.metas[row.0 as usize].entries[row.1 as usize].path.as_str() < prefix.as_str());
        (start..self.rows.len()).map(|at| self.row(at)).take_while(move |o| o.entry.path.starts_with(&prefix))
    }

    /// Every path with its owner.
    pub(crate) fn all(&self) -> impl Iterator<Item = Owned<'_>> {
        (0..self.rows.len()).map(|at| self.row(at))
    }

    /// Content of a regular file of one member.
    pub(crate) fn read_entry(&self, member: usize, path: &str) -> Result<Vec<u8>, EnvError> {
        let full = || self.members[member].physical.join("data").join(path);
        let file = self.open_entry(member, path).map_err(|source| PathError {
            act: "read",
            path: full(),
            source: source.into(),
        })?;
        read_capped(file, MAX_READ, &full())
    }

    /// Opens a regular file of one member for reading; follows no symlink, never leaves `data/`.
    pub(crate) fn open_entry(&self, member: usize, path: &str) -> rustix::io::Result<std::fs::File> {
        open_beneath(&self.data[member], path)
    }

    /// A file of a member's control data.
    pub(crate) fn control(&self, member: usize, name: &str) -> Result<Option<Vec<u8>>, EnvError> {
        let Some(control) = &self.control[member] else { return Ok(None) };
        let full = self.members[member].physical.join("control").join(name);
        match open_beneath(control, name) {
            Ok(file) => read_capped(file, MAX_READ, &full).map(Some),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e).at("read", &full).map_err(EnvError::from),
        }
    }
}

fn open_beneath(dir: &OwnedFd, path: &str) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = std::fs::File::from(rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)?);
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind == rustix::fs::FileType::RegularFile { Ok(file) } else { Err(rustix::io::Errno::INVAL) }
}

fn read_capped(file: std::fs::File, limit: u64, path: &std::path::Path) -> Result<Vec<u8>, EnvError> {
    // Room for all of it at once, and for the byte that shows the end.
    let size = file.metadata().at("read", path)?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(EnvError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// The record of the member that lies at `physical`, every path in it checked.
pub(crate) fn read_meta_at(physical: &std::path::Path) -> Result<Meta, EnvError> {
    let path = physical.join("meta.json");
    let file = std::fs::File::open(&path).at("open", &path)?;
    let bytes = read_capped(file, MAX_META, &path)?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|source| EnvError::Meta { path: path.clone(), source })?;
    if meta.format != META_FORMAT {
        return Err(EnvError::Format { path, found: meta.format, known: META_FORMAT });
    }
    let mut last = "";
    for entry in &meta.entries {
        // In order and each path once, since lookups search by halves.
        let plain = relative_path(entry.path.as_bytes()).ok().flatten().as_deref() == Some(entry.path.as_str());
        if !plain || entry.path.as_str() <= last {
            return Err(EnvError::BadPath { package: meta.name.clone(), path: entry.path.clone() });
        }
        last = &entry.path;
    }
    Ok(meta)
}
