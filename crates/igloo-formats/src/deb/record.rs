//! One package as an index tells it.

use std::borrow::Cow;
use std::fmt;

use igloo_base::Sha256;
use igloo_base::digest::BadDigest;
use serde::{Deserialize, Serialize};

use super::relation::{RelationError, Relations, check_name};
use super::version::{Version, VersionError};

/// Longest stanza that is taken; Debian's longest is some 70 KB.
pub const MAX_STANZA: usize = 1 << 20;

/// A package of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `Package`
    pub name: String,
    /// `Version`
    pub version: Version,
    /// `amd64`, `arm64`, ... or `all`.
    pub architecture: String,
    /// Name of the source package, without its version.
    pub source: String,
    /// `Priority`
    pub priority: Priority,
    /// True for what dpkg refuses to remove.
    pub essential: bool,
    /// `Multi-Arch`
    pub multi_arch: MultiArch,
    /// `Section`
    pub section: String,
    /// KiB once unpacked.
    pub installed_size: u64,
    /// Path of the archive below the repository's root; never absolute, never with `..`.
    pub filename: String,
    /// Bytes of the archive.
    pub size: u64,
    /// Digest of the archive.
    pub sha256: Sha256,
    /// `Pre-Depends`
    pub pre_depends: Relations,
    /// `Depends`
    pub depends: Relations,
    /// `Recommends`
    pub recommends: Relations,
    /// `Conflicts`
    pub conflicts: Relations,
    /// `Breaks`
    pub breaks: Relations,
    /// `Replaces`
    pub replaces: Relations,
    /// `Provides`
    pub provides: Relations,
    /// First line of `Description`.
    pub description: String,
}

/// `Priority`, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Needed for dpkg to work.
    Required,
    /// Found on any Unix.
    Important,
    /// A small text-mode system.
    Standard,
    /// Everything else.
    #[default]
    Optional,
    /// Deprecated; conflicts with others.
    Extra,
}

/// `Multi-Arch`: who may be served by this package's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultiArch {
    /// Only its own architecture.
    #[default]
    No,
    /// Installable beside itself for other architectures.
    Same,
    /// Serves every architecture.
    Foreign,
    /// Serves every architecture where the dependency says `:any`.
    Allowed,
}

/// A stanza that tells no usable package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`MAX_STANZA`].
    #[error("a stanza of the package index has {0} bytes, more than {MAX_STANZA}")]
    TooLong(usize),
    /// No UTF-8.
    #[error("a stanza of the package index is not UTF-8")]
    NotUtf8,
    /// A field that every package must have.
    #[error("the package index has no `{field}` for `{package}`")]
    Missing {
        /// Which package, as far as known.
        package: String,
        /// Which field.
        field: &'static str,
    },
    /// A field whose text is not what it should be.
    #[error("the package index has a bad `{field}` for `{package}`: {why}")]
    Bad {
        /// Which package, as far as known.
        package: String,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A bad version.
    #[error("the package index has a bad version for `{package}`")]
    Version {
        /// Which package.
        package: String,
        /// What is wrong.
        #[source]
        source: VersionError,
    },
    /// A bad digest.
    #[error("the package index has a bad digest for `{package}`")]
    Digest {
        /// Which package.
        package: String,
        /// What is wrong.
        #[source]
        source: BadDigest,
    },
    /// A bad relation field.
    #[error("the package index has a bad `{field}` for `{package}`")]
    Relation {
        /// Which package.
        package: String,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: RelationError,
    },
}

/// The fields a record is made of, in the order an index keeps them; `Package` comes first.
pub(crate) const FIELDS: [&str; 20] = [
    "Package",
    "Version",
    "Architecture",
    "Source",
    "Priority",
    "Essential",
    "Multi-Arch",
    "Section",
    "Installed-Size",
    "Filename",
    "Size",
    "SHA256",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
    "Description",
];

/// Place of a field in [`FIELDS`], whatever its capitals.
pub(crate) fn field_at(name: &str) -> Option<usize> {
    FIELDS.iter().position(|f| f.eq_ignore_ascii_case(name))
}

/// The values of [`FIELDS`] in a stanza. Folded lines are joined by blanks, except those of `Description`: only its
/// first line is kept. Of equal fields the first counts.
pub(crate) fn fields(text: &str) -> [Option<Cow<'_, str>>; FIELDS.len()] {
    let mut values: [Option<Cow<'_, str>>; FIELDS.len()] = Default::default();
    let mut current: Option<usize> = None;
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(at) = current
                && FIELDS[at] != "Description"
                && let Some(value) = &mut values[at]
            {
                let value = value.to_mut();
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        current = None;
        if let Some((name, value)) = line.split_once(':')
            && let Some(at) = field_at(name)
            && values[at].is_none()
        {
            values[at] = Some(Cow::Borrowed(value.trim()));
            current = Some(at);
        }
    }
    values
}

impl Record {
    /// Parses a stanza; fields that a record does not keep are skipped.
    pub fn parse(stanza: &[u8]) -> Result<Record, RecordError> {
        if stanza.len() > MAX_STANZA {
            return Err(RecordError::TooLong(stanza.len()));
        }
        let text = std::str::from_utf8(stanza).map_err(|_| RecordError::NotUtf8)?;
        let values = fields(text);
        let get = |field: &'static str| field_at(field).and_then(|at| values[at].as_deref()).unwrap_or("");
        let package = || get("Package").chars().take(80).collect::<String>();
        let need = |field: &'static str| match get(field) {
            "" => Err(RecordError::Missing { package: package(), field }),
            value => Ok(value),
        };
        let bad = |field, why| RecordError::Bad { package: package(), field, why };
        let relations = |field: &'static str| {
            Relations::parse(get(field)).map_err(|source| RecordError::Relation { package: package(), field, source })
        };

        let name = need("Package")?;
        check_name(name).map_err(|why| bad("Package", why))?;
        let version =
            Version::parse(need("Version")?).map_err(|source| RecordError::Version { package: package(), source })?;
        let architecture = need("Architecture")?;
        if !architecture.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
            return Err(bad("Architecture", "it is no word"));
        }
        let source = get("Source").split_whitespace().next().unwrap_or(name);
        check_name(source).map_err(|why| bad("Source", why))?;
        let filename = need("Filename")?;
        check_path(filename).map_err(|why| bad("Filename", why))?;
        let size = need("Size")?.parse().map_err(|_| bad("Size", "it is no number"))?;
        let sha256 = need("SHA256")?.parse().map_err(|source| RecordError::Digest { package: package(), source })?;
        Ok(Record {
            name: name.to_owned(),
            version,
            architecture: architecture.to_owned(),
            source: source.to_owned(),
            priority: Priority::of(get("Priority")),
            essential: get("Essential").eq_ignore_ascii_case("yes"),
            multi_arch: MultiArch::of(get("Multi-Arch")),
            section: get("Section").to_owned(),
            // Only ever shown; some third-party archives leave it out.
            installed_size: get("Installed-Size").parse().unwrap_or(0),
            filename: filename.to_owned(),
            size,
            sha256,
            pre_depends: relations("Pre-Depends")?,
            depends: relations("Depends")?,
            recommends: relations("Recommends")?,
            conflicts: relations("Conflicts")?,
            breaks: relations("Breaks")?,
            replaces: relations("Replaces")?,
            provides: relations("Provides")?,
            description: get("Description").to_owned(),
        })
    }
}

/// Says what is wrong with a path below a repository's root, if anything: it becomes part of a URL.
fn check_path(path: &str) -> Result<(), &'static str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') {
        return Err("it is absolute");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it has an empty part, `.` or `..`");
    }
    if path.bytes().any(|c| c.is_ascii_control() || b" \\?#".contains(&c)) {
        return Err("it has bytes that no URL may have");
    }
    Ok(())
}

impl Priority {
    /// The priority that a word means; `optional` for unknown ones, as only the order of providers hangs on it.
    pub fn of(word: &str) -> Self {
        match word {
            "required" => Priority::Required,
            "important" => Priority::Important,
            "standard" => Priority::Standard,
            "extra" => Priority::Extra,
            _ => Priority::Optional,
        }
    }
}

impl MultiArch {
    /// What a word means; unknown ones mean `no`.
    pub fn of(word: &str) -> Self {
        match word {
            "same" => MultiArch::Same,
            "foreign" => MultiArch::Foreign,
            "allowed" => MultiArch::Allowed,
            _ => MultiArch::No,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Priority::Required => "required",
            Priority::Important => "important",
            Priority::Standard => "standard",
            Priority::Optional => "optional",
            Priority::Extra => "extra",
        })
    }
}

impl fmt::Display for MultiArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MultiArch::No => "no",
            MultiArch::Same => "same",
            MultiArch::Foreign => "foreign",
            MultiArch::Allowed => "allowed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STANZA: &str = "Package: redis-server
Source: redis (5:7.0.15-1)
Version: 5:7.0.15-1~deb12u1
Installed-Size: 198
Maintainer: somebody
Architecture: amd64
Replaces: redis-tools (<< 2:2.4.5-2)
Provides: redis
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: lsb-base (>= 3.2-14),
 redis-tools (= 5:7.0.15-1~deb12u1)
Breaks: redis-tools (<< 2:2.4.5-2)
Description: Persistent key-value database
 with a network interface
Section: database
priority: optional
Filename: pool/main/r/redis/redis-server_7.0.15-1~deb12u1_amd64.deb
Size: 72400
SHA256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
";

    #[test]
    fn a_stanza_is_read() {
        let record = Record::parse(STANZA.as_bytes()).expect("parse");
        assert_eq!(record.name, "redis-server");
        assert_eq!(record.source, "redis");
        assert_eq!(record.version.upstream_without_epoch(), "7.0.15-1~deb12u1");
        assert_eq!(record.depends.to_string(), "lsb-base (>= 3.2-14), redis-tools (= 5:7.0.15-1~deb12u1)");
        assert_eq!(record.description, "Persistent key-value database");
        assert_eq!(record.priority, Priority::Optional);
        assert_eq!((record.installed_size, record.size), (198, 72400));
        assert!(!record.essential);
    }

    #[test]
    fn what_could_harm_is_refused() {
        for (from, to) in [
            ("Package: redis-server", "Package: ../../etc/passwd"),
            ("Package: redis-server", "Package: -rf"),
            ("pool/main/r", "/etc"),
            ("pool/main/r", "../r"),
            ("pool/main/r", "pool//r"),
            ("Size: 72400", "Size: -1"),
            ("SHA256: ba", "SHA256: xx"),
            ("Version: 5:", "Version: x:"),
            ("Architecture: amd64", "Architecture: ../x"),
            ("lsb-base (>=", "lsb-base (~"),
            ("Filename:", "Filenam:"),
        ] {
            let stanza = STANZA.replacen(from, to, 1);
            assert_ne!(stanza, STANZA);
            assert!(Record::parse(stanza.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(matches!(Record::parse(&vec![b'a'; MAX_STANZA + 1]), Err(RecordError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::parse(&bytes);
        }

        #[test]
        fn damaged_stanzas_are_survived(at in 0..STANZA.len(), byte in any::<u8>()) {
            let mut stanza = STANZA.as_bytes().to_vec();
            stanza[at] = byte;
            if let Ok(record) = Record::parse(&stanza) {
                prop_assert!(!record.filename.contains(".."));
            }
        }
    }
}
