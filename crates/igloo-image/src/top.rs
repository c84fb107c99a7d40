//! The layer on top of the packages: what igloo generated, and what the image itself asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use igloo_base::digest::HashWriter;
use igloo_base::{At as _, Sha256};
use igloo_env::{Attr, Environment};
use igloo_formats::deb::meta::Kind;

use crate::ImageError;
use crate::entry::{Entries, Entry, EntryKind, Source, below};
use crate::package::{INFO, Opened, Package, PackageKind};

/// Largest file of the generated layer that is changed for an image.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// Somebody who is in an image and in none of its packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name, and name of the group.
    pub name: String,
    /// User and group id.
    pub id: u32,
    /// Home directory; made, and the account's own.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// What an image has beside its environment.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// What is there before anything else unless the environment has it.
    pub base: Vec<Entry>,
    /// Somebody to be added, unless the environment has the name or the id.
    pub account: Option<Account>,
    /// Files and directories to be put in, over what is there.
    pub entries: Vec<Entry>,
    /// Directories to be made unless something is there, with owner and group.
    pub directories: Vec<(String, u32, u32)>,
    /// Text to be put behind what is in a file, such as `/etc/skel/.bashrc` in a home directory: destination, the
    /// file it begins with, and what follows.
    pub appended: Vec<Appended>,
}

/// A file that is another one and more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where it is.
    pub path: String,
    /// What it begins with, if the environment has that.
    pub from: String,
    /// What follows.
    pub text: String,
    /// Owner and group.
    pub owner: u32,
}

/// The whole environment by path, as far as its upper layer has to know it.
struct Below<'p> {
    packages: Vec<Opened<'p>>,
    attrs: BTreeMap<&'p str, &'p Attr>,
    /// Of every path, whether it is a directory.
    paths: BTreeMap<String, bool>,
}

/// The generated layer with what is added to it, sorted.
pub(crate) fn layer(
    environment: &Environment,
    packages: &[Package],
    profile: Option<&Path>,
    additions: &Additions,
) -> Result<Vec<Entry>, ImageError> {
    let of_debian = packages.iter().filter(|p| p.kind == PackageKind::Debian);
    let packages = of_debian.map(Opened::new).collect::<Result<Vec<_>, _>>()?;
    let attrs = environment.attrs.iter().map(|a| (a.path.as_str(), a)).collect();
    let mut below = Below { packages, attrs, paths: BTreeMap::new() };
    for package in &below.packages {
        below.paths.extend(package.meta.entries.iter().map(|e| (e.path.clone(), e.kind == Kind::Dir)));
    }
    let mut entries = Entries::default();
    below.generated(&environment.root, &mut entries)?;
    below.corrections(&mut entries);
    for entry in additions.base.iter().filter(|entry| !below.paths.contains_key(&entry.path)) {
        entries.replace(entry.clone());
    }
    if let Some(profile) = profile {
        below.profile(profile, &mut entries)?;
    }
    account(environment, additions, &mut entries)?;
    for entry in &additions.entries {
        below.put(entry.clone(), &mut entries)?;
    }
    for appended in &additions.appended {
        let mut text = below.read(&appended.from, &entries)?.unwrap_or_default();
        text.extend_from_slice(appended.text.as_bytes());
        let mode = if text.starts_with(b"#!") { 0o755 } else { 0o644 };
        below
            .put(Entry::bytes(appended.path.as_str(), text).with(mode, appended.owner, appended.owner), &mut entries)?;
    }
    for (path, uid, gid) in &additions.directories {
        let path = path.trim_matches('/');
        if !path.is_empty() && entries.get(path).is_none() && !below.paths.contains_key(path) {
            below.put(Entry::dir(path).with(0o755, *uid, *gid), &mut entries)?;
        }
    }
    // Directories above what was added keep the attributes they have below.
    let mut sorted = entries.into_sorted();
    for entry in &mut sorted {
        let plain = entry.mode == 0o755 && entry.uid == 0 && entry.gid == 0;
        if matches!(entry.kind, EntryKind::Dir)
            && plain
            && let Some(attr) = below.attrs.get(entry.path.as_str())
        {
            (entry.mode, entry.uid, entry.gid) = (attr.mode, attr.uid, attr.gid);
        }
    }
    Ok(sorted)
}

impl Below<'_> {
    /// Everything in the environment's generated layer but dpkg's lists, which lie with their packages.
    fn generated(&mut self, root: &Path, entries: &mut Entries) -> Result<(), ImageError> {
        let lists: BTreeSet<String> = self
            .packages
            .iter()
            .flat_map(|p| [p.package.name.clone(), format!("{}:{}", p.package.name, p.package.architecture)])
            .map(|name| format!("{INFO}/{name}.list"))
            .collect();
        for mut entry in below(root)?.into_iter().filter(|e| !lists.contains(&e.path)) {
            if let Some(attr) = self.attrs.get(entry.path.as_str())
                && !matches!(entry.kind, EntryKind::Link(_))
            {
                (entry.mode, entry.uid, entry.gid) = (attr.mode, attr.uid, attr.gid);
            }
            self.paths.insert(entry.path.clone(), matches!(entry.kind, EntryKind::Dir));
            entries.replace(entry);
        }
        Ok(())
    }

    /// The links to Nix's packages, over what the environment has. A directory stays as it is: what a link in its place
    /// would show is linked into it.
    fn profile(&mut self, data: &Path, entries: &mut Entries) -> Result<(), ImageError> {
        let store = data.ancestors().nth(2).unwrap_or(data);
        let mut todo = below(data)?;
        todo.reverse();
        while let Some(entry) = todo.pop() {
            let is_dir = self.paths.get(&entry.path) == Some(&true);
            match &entry.kind {
                EntryKind::Dir if is_dir => {}
                EntryKind::Link(target) if is_dir => {
                    let physical = target.strip_prefix("/nix/store/").map(|inner| store.join(inner));
                    todo.extend(physical.map(|dir| links(&dir, &entry.path, target)).transpose()?.unwrap_or_default());
                }
                kind => {
                    self.paths.insert(entry.path.clone(), matches!(kind, EntryKind::Dir));
                    entries.replace(entry);
                }
            }
        }
        Ok(())
    }

    /// What a package's archive says of owner and mode and the environment says differently.
    fn corrections(&self, entries: &mut Entries) {
        for package in &self.packages {
            for (index, e) in package.meta.entries.iter().enumerate() {
                if e.kind == Kind::Link || entries.get(&e.path).is_some() {
                    continue;
                }
                let plain = |mode| {
                    if e.kind == Kind::Dir { mode == 0o755 } else { matches!(mode, 0o644 | 0o755 | 0o444 | 0o555) }
                };
                let default = match e.kind {
                    _ if plain(e.mode) => e.mode,
                    Kind::Dir => 0o755,
                    _ if e.mode & 0o111 != 0 => 0o755,
                    _ => 0o644,
                };
                let (mode, uid, gid) =
                    self.attrs.get(e.path.as_str()).map_or((default, 0, 0), |a| (a.mode, a.uid, a.gid));
                if (mode, uid, gid) == (e.mode, e.uid, e.gid) {
                    continue;
                }
                let kind = match e.kind {
                    Kind::Dir => EntryKind::Dir,
                    _ => EntryKind::File(package.content(index)),
                };
                entries.put(Entry { path: e.path.clone(), kind, mode, uid, gid, xattrs: Vec::new() });
            }
        }
    }

    /// Puts something in, if what is there allows it.
    fn put(&self, entry: Entry, entries: &mut Entries) -> Result<(), ImageError> {
        let is_dir = |path: &str| match entries.get(path) {
            Some(e) => Some(matches!(e.kind, EntryKind::Dir)),
            None => self.paths.get(path).copied(),
        };
        for (at, _) in entry.path.match_indices('/') {
            if is_dir(&entry.path[..at]) == Some(false) {
                let path = format!("/{}", &entry.path[..at]);
                return Err(ImageError::InTheWay { path, found: "a file or a link", wanted: "a directory" });
            }
        }
        let wanted = matches!(entry.kind, EntryKind::Dir);
        match is_dir(&entry.path) {
            Some(true) if !wanted => {
                let path = format!("/{}", entry.path);
                Err(ImageError::InTheWay { path, found: "a directory", wanted: "a file" })
            }
            Some(false) if wanted => {
                let path = format!("/{}", entry.path);
                Err(ImageError::InTheWay { path, found: "a file or a link", wanted: "a directory" })
            }
            _ => {
                entries.replace(entry);
                Ok(())
            }
        }
    }

    /// Content of a file as the image has it, links not followed.
    fn read(&self, path: &str, entries: &Entries) -> Result<Option<Vec<u8>>, ImageError> {
        if let Some(entry) = entries.get(path) {
            return match &entry.kind {
                EntryKind::File(source) => read(source).map(Some),
                _ => Ok(None),
            };
        }
        for package in &self.packages {
            if let Ok(index) = package.meta.entries.binary_search_by(|e| e.path.as_str().cmp(path))
                && matches!(package.meta.entries[index].kind, Kind::File | Kind::Hard)
            {
                return read(&package.content(index)).map(Some);
            }
        }
        Ok(None)
    }
}

fn read(source: &Source) -> Result<Vec<u8>, ImageError> {
    use std::io::Read as _;
    if source.size() > MAX_ACCOUNTS {
        let image = match source {
            Source::Tree { path, .. } => path.clone(),
            Source::Bytes(_) => "a generated file".to_owned(),
        };
        return Err(ImageError::Unsupported { image, what: "it is too large to be changed for an image".to_owned() });
    }
    match source {
        Source::Bytes(bytes) => Ok(bytes.to_vec()),
        Source::Tree { tree, path, .. } => {
            let mut bytes = Vec::new();
            tree.file(path)?.take(MAX_ACCOUNTS).read_to_end(&mut bytes).at("read", tree.path().join(path))?;
            Ok(bytes)
        }
    }
}

/// Links at `path/…` to everything in `target`, which lies in `directory`; none if that is no directory.
fn links(directory: &Path, path: &str, target: &str) -> Result<Vec<Entry>, ImageError> {
    if !directory.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        return Ok(Vec::new());
    }
    let mut links = Vec::new();
    for child in std::fs::read_dir(directory).at("list", directory)? {
        let child = child.at("list", directory)?;
        let name = child.file_name().into_string().map_err(|_| ImageError::NotText { path: child.path() })?;
        links.push(Entry::link(format!("{path}/{name}"), format!("{target}/{name}")));
    }
    Ok(links)
}

/// Adds the account to the files that name people.
fn account(environment: &Environment, additions: &Additions, entries: &mut Entries) -> Result<(), ImageError> {
    let Some(Account { name, id, home, shell }) = &additions.account else { return Ok(()) };
    let has_user = environment.users.iter().any(|u| u.name == *name || u.uid == *id);
    if has_user {
        return Ok(());
    }
    let has_group = environment.groups.iter().any(|g| g.name == *name || g.gid == *id);
    let mut lines = vec![
        ("etc/passwd", format!("{name}:x:{id}:{id}::{home}:{shell}\n")),
        ("etc/shadow", format!("{name}:!:1::::::\n")),
    ];
    if !has_group {
        lines.push(("etc/group", format!("{name}:x:{id}:\n")));
        lines.push(("etc/gshadow", format!("{name}:!::\n")));
    }
    for (path, line) in lines {
        let (mut text, mode, gid) = match entries.get(path) {
            Some(Entry { kind: EntryKind::File(source), mode, gid, .. }) => (read(source)?, *mode, *gid),
            // Without a file of secrets there is none to be locked.
            _ if path.ends_with("shadow") => continue,
            _ => (Vec::new(), 0o644, 0),
        };
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        entries.replace(Entry::bytes(path, text).with(mode, 0, gid));
    }
    let home = home.trim_matches('/');
    if !home.is_empty() && entries.get(home).is_none() {
        entries.put(Entry::dir(home).with(0o755, *id, *id));
    }
    Ok(())
}

impl Additions {
    /// Names everything that they put into an image.
    pub(crate) fn key(&self) -> Sha256 {
        let mut out = HashWriter::new(std::io::sink());
        // Writing to a sink can't fail.
        let mut write = |text: &str| drop(std::io::Write::write_all(&mut out, text.as_bytes()));
        write(&format!("{:?}\n{:?}\n{:?}\n", self.account, self.directories, self.appended));
        for Entry { path, kind, mode, uid, gid, xattrs } in self.base.iter().chain(&self.entries) {
            let kind = match kind {
                EntryKind::Dir => "dir".to_owned(),
                EntryKind::Link(target) => format!("link {target:?}"),
                EntryKind::Hard { target, .. } => format!("hard {target:?}"),
                EntryKind::File(Source::Bytes(bytes)) => format!("file {}", Sha256::of(bytes)),
                EntryKind::File(Source::Tree { tree, path, size }) => format!("tree {:?} {path:?} {size}", tree.path()),
            };
            write(&format!("{path:?} {kind} {mode} {uid} {gid} {xattrs:?}\n"));
        }
        out.finish().1
    }
}
