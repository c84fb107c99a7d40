//! A package, from a few words.

use std::fmt::Write as _;

use igloo_base::Sha256;

use super::{compress, deb};

/// A package that is to be made. The methods that speak of an entry mean the one added last.
#[derive(Debug, Clone)]
pub struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    fields: Vec<(String, String)>,
    entries: Vec<Entry>,
    control: Vec<(String, u32, Vec<u8>)>,
    conffiles: Vec<String>,
    control_compression: Compression,
    data_compression: Compression,
    bare: bool,
}

/// What a tar member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with this content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symlink to this target.
    Symlink(String),
    /// A hard link to this path.
    Hardlink(String),
    /// Anything else, by its type flag: `b'3'` is a character device.
    Other(u8),
}

/// A member of `data.tar`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name exactly as in the archive: `./usr/bin/hello`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner, number and name.
    pub user: (u64, String),
    /// Group, number and name.
    pub group: (u64, String),
}

/// How a member of the `.deb` is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.tar`
    None,
    /// `.tar.gz`
    Gz,
    /// `.tar.xz`
    Xz,
    /// `.tar.zst`
    Zst,
}

impl Compression {
    fn apply(self, tar: Vec<u8>, stem: &str) -> (String, Vec<u8>) {
        let form = match self {
            Compression::None => return (stem.to_owned(), tar),
            Compression::Gz => "gz",
            Compression::Xz => "xz",
            Compression::Zst => "zst",
        };
        (format!("{stem}.{form}"), compress(form, &tar))
    }
}

impl Package {
    /// A package for `amd64` without content.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            fields: Vec::new(),
            entries: Vec::new(),
            control: Vec::new(),
            conffiles: Vec::new(),
            control_compression: Compression::Xz,
            data_compression: Compression::Xz,
            bare: false,
        }
    }

    /// `Architecture`
    #[must_use]
    pub fn architecture(mut self, name: &str) -> Self {
        self.architecture = name.to_owned();
        self
    }

    /// Any field of the control file, e.g. `Source`, `Multi-Arch`.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(n, _)| n != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Depends`
    #[must_use]
    pub fn depends(self, relations: &str) -> Self {
        self.field("Depends", relations)
    }

    /// `Pre-Depends`
    #[must_use]
    pub fn pre_depends(self, relations: &str) -> Self {
        self.field("Pre-Depends", relations)
    }

    /// `Recommends`
    #[must_use]
    pub fn recommends(self, relations: &str) -> Self {
        self.field("Recommends", relations)
    }

    /// `Conflicts`
    #[must_use]
    pub fn conflicts(self, relations: &str) -> Self {
        self.field("Conflicts", relations)
    }

    /// `Breaks`
    #[must_use]
    pub fn breaks(self, relations: &str) -> Self {
        self.field("Breaks", relations)
    }

    /// `Replaces`
    #[must_use]
    pub fn replaces(self, relations: &str) -> Self {
        self.field("Replaces", relations)
    }

    /// `Provides`
    #[must_use]
    pub fn provides(self, relations: &str) -> Self {
        self.field("Provides", relations)
    }

    /// `Essential: yes`
    #[must_use]
    pub fn essential(self) -> Self {
        self.field("Essential", "yes").priority("required")
    }

    /// `Priority`
    #[must_use]
    pub fn priority(self, priority: &str) -> Self {
        self.field("Priority", priority)
    }

    /// `Multi-Arch`
    #[must_use]
    pub fn multi_arch(self, value: &str) -> Self {
        self.field("Multi-Arch", value)
    }

    /// A file owned by root; missing directories above it are added, 0755 and owned by root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.add(path, Kind::File(content.as_ref().to_vec()), mode)
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.add(path, Kind::Directory, mode)
    }

    /// A symlink.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, Kind::Symlink(target.to_owned()), 0o777)
    }

    /// A hard link to a file that was added before.
    #[must_use]
    pub fn hardlink(self, path: &str, to: &str) -> Self {
        let target = format!("./{to}");
        let mode = self.entries.iter().find(|e| e.path == target).map_or(0o644, |e| e.mode);
        self.add(path, Kind::Hardlink(target), mode)
    }

    /// Owner of the last entry.
    #[must_use]
    pub fn user(mut self, id: u64, name: &str) -> Self {
        self.entries.last_mut().expect("an entry was added").user = (id, name.to_owned());
        self
    }

    /// Group of the last entry.
    #[must_use]
    pub fn group(mut self, id: u64, name: &str) -> Self {
        self.entries.last_mut().expect("an entry was added").group = (id, name.to_owned());
        self
    }

    /// A member exactly as given, hostile ones too.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// A maintainer script: `postinst`, `preinst`, `prerm`, `postrm`.
    #[must_use]
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.control.push((name.to_owned(), 0o755, text.as_bytes().to_vec()));
        self
    }

    /// Another file of the control archive: `triggers`, `templates`.
    #[must_use]
    pub fn control_file(mut self, name: &str, text: &str) -> Self {
        self.control.push((name.to_owned(), 0o644, text.as_bytes().to_vec()));
        self
    }

    /// Adds a file below `/etc` and names it in `conffiles`.
    #[must_use]
    pub fn conffile(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.conffiles.push(format!("/{path}"));
        self.file(path, 0o644, content)
    }

    /// How its two tars are compressed; xz unless said.
    #[must_use]
    pub fn compression(mut self, control: Compression, data: Compression) -> Self {
        (self.control_compression, self.data_compression) = (control, data);
        self
    }

    /// Leaves out the directories that were not added by name.
    #[must_use]
    pub fn without_parents(mut self) -> Self {
        self.bare = true;
        self
    }

    fn add(mut self, path: &str, kind: Kind, mode: u32) -> Self {
        let root = || (0, "root".to_owned());
        let path = format!("./{path}");
        if !self.bare {
            let ends: Vec<usize> = path.match_indices('/').map(|(i, _)| i).collect();
            for end in ends {
                let parent = &path[..end];
                let known = self.entries.iter().any(|e| e.path.trim_end_matches('/') == parent);
                if !known {
                    let path = format!("{parent}/");
                    let kind = Kind::Directory;
                    self.entries.push(Entry { path, kind, mode: 0o755, user: root(), group: root() });
                }
            }
        }
        let path = if kind == Kind::Directory { format!("{}/", path.trim_end_matches('/')) } else { path };
        self.entries.push(Entry { path, kind, mode, user: root(), group: root() });
        self
    }

    /// Where it is in the archive's pool.
    pub fn pool_path(&self) -> String {
        let version = self.version.split_once(':').map_or(&*self.version, |(_, v)| v);
        let first = &self.name[..if self.name.starts_with("lib") { 4.min(self.name.len()) } else { 1 }];
        format!("pool/main/{first}/{0}/{0}_{version}_{1}.deb", self.name, self.architecture)
    }

    /// The control file.
    pub fn control(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Igloo test <test@invalid>\n",
            self.name, self.version, self.architecture
        );
        let bytes: usize = self.entries.iter().map(|e| if let Kind::File(c) = &e.kind { c.len() } else { 0 }).sum();
        let defaults = [
            ("Installed-Size", bytes.div_ceil(1024).to_string()),
            ("Section", "misc".to_owned()),
            ("Priority", "optional".to_owned()),
            ("Description", format!("test package {}", self.name)),
        ];
        for (name, value) in defaults {
            if !self.fields.iter().any(|(n, _)| n == name) {
                writeln!(text, "{name}: {value}").expect("write to a string");
            }
        }
        for (name, value) in &self.fields {
            writeln!(text, "{name}: {value}").expect("write to a string");
        }
        text
    }

    /// Its paragraph of `Packages`.
    pub fn stanza(&self, path: &str, deb: &[u8]) -> String {
        format!("{}Filename: {path}\nSize: {}\nSHA256: {}\n\n", self.control(), deb.len(), Sha256::of(deb))
    }

    /// The `.deb`; the same bytes each time.
    pub fn build(&self) -> Vec<u8> {
        let root = || (0, "root".to_owned());
        let member = |name: &str, mode: u32, content: &[u8]| Entry {
            path: format!("./{name}"),
            kind: Kind::File(content.to_vec()),
            mode,
            user: root(),
            group: root(),
        };
        let top = Entry { path: "./".to_owned(), kind: Kind::Directory, mode: 0o755, user: root(), group: root() };
        let mut control = vec![top.clone(), member("control", 0o644, self.control().as_bytes())];
        if !self.conffiles.is_empty() {
            control.push(member("conffiles", 0o644, (self.conffiles.join("\n") + "\n").as_bytes()));
        }
        control.extend(self.control.iter().map(|(name, mode, content)| member(name, *mode, content)));

        let mut data = self.entries.clone();
        if !self.bare && !data.iter().any(|e| e.path == "./") {
            data.insert(0, top);
        }
        let (control_name, control) = self.control_compression.apply(deb::tar(&control), "control.tar");
        let (data_name, data) = self.data_compression.apply(deb::tar(&data), "data.tar");
        deb::ar(&[("debian-binary", b"2.0\n"), (&control_name, &control), (&data_name, &data)])
    }
}
