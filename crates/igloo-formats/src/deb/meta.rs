//! `meta.json` of an unpacked package: what a Nix archive can't carry, and the rules for names in packages.
//!
//! A store object knows neither owners nor modes beyond "executable", no hard links and no empty set of extended
//! attributes. They are kept beside the tree, so that an environment can give them back where they matter.

use serde::{Deserialize, Serialize};

/// Version of the shape of `meta.json`.
pub const META_FORMAT: u32 = 1;

/// Longest path of a package: what Linux lets a program pass to the kernel, less some room for a store's prefix.
pub const MAX_PATH: usize = 3500;
/// Longest component of a path, `NAME_MAX`.
pub const MAX_COMPONENT: usize = 255;
/// Most components of a path. Nix reads no archive deeper than 64; `data/` and the object itself take two.
pub const MAX_DEPTH: usize = 61;
/// Longest target of a symlink, as in Nix (`PATH_MAX` less the final zero).
pub const MAX_TARGET: usize = 4095;

/// What a package is and what its tree looked like before it became a store object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// [`META_FORMAT`].
    pub format: u32,
    /// Name of the package.
    pub name: String,
    /// Its exact version, epoch and tildes included.
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
    /// Configuration files that the package declares, in its order, as absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conffiles: Vec<String>,
    /// Everything below `data/`, sorted by path.
    pub entries: Vec<Entry>,
}

/// One thing below `data/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path without a leading slash, after usrmerge: `usr/bin/x`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0o4755`.
    pub mode: u32,
    /// Owner by number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Group by number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Owner by name; empty means `root`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uname: String,
    /// Group by name; empty means `root`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gname: String,
    /// Bytes of a file's content.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub size: u64,
    /// Target of a symlink as it is, of a hard link as a path like [`Entry::path`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes by name, values in hexadecimal (`security.capability`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, String)>,
}

/// What an [`Entry`] is. Devices, pipes and sockets are refused when a package is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink.
    Link,
    /// A second name of a file named earlier.
    Hard,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

/// Why a name in a package is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Nothing, or a component without a letter.
    #[error("the name is empty")]
    Empty,
    /// Begins with a slash.
    #[error("the name is absolute")]
    Absolute,
    /// Has a `..`.
    #[error("the name climbs with `..`")]
    Climbs,
    /// Has a zero byte, or is not UTF-8.
    #[error("the name is not text")]
    NotText,
    /// A cap was reached.
    #[error("the name is too long or too deep")]
    TooLong,
}

/// The one spelling of a name in an archive: no leading `./`, no doubled or trailing slash. `None` is the root itself.
pub fn relative_path(name: &[u8]) -> Result<Option<String>, BadPath> {
    if name.is_empty() {
        return Err(BadPath::Empty);
    }
    if name[0] == b'/' {
        return Err(BadPath::Absolute);
    }
    let text = std::str::from_utf8(name).map_err(|_| BadPath::NotText)?;
    if text.contains('\0') {
        return Err(BadPath::NotText);
    }
    let mut out = String::with_capacity(text.len());
    let mut depth = 0;
    for component in text.split('/') {
        match component {
            "" | "." => continue,
            ".." => return Err(BadPath::Climbs),
            _ => {}
        }
        depth += 1;
        if component.len() > MAX_COMPONENT || depth > MAX_DEPTH {
            return Err(BadPath::TooLong);
        }
        if !out.is_empty() {
            out.push('/');
        }
        out.push_str(component);
    }
    if out.len() > MAX_PATH {
        return Err(BadPath::TooLong);
    }
    Ok(if out.is_empty() { None } else { Some(out) })
}

/// Directories that a merged system keeps below `usr`.
const MERGED: [&str; 7] = ["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"];

/// True if this top-level name is a link into `usr` on a merged system.
pub fn is_merged_name(top: &str) -> bool {
    MERGED.contains(&top)
}

/// Moves a relative path below `usr/` if it lies in one of the merged directories: `bin/sh` -> `usr/bin/sh`.
pub fn usrmerge(path: String) -> String {
    let top = path.split('/').next().unwrap_or_default();
    if is_merged_name(top) { format!("usr/{path}") } else { path }
}

/// Name of the store object of a package: `deb-<name>-<version>-<architecture>`, the version without its epoch and
/// with `_` for `~`, which store names can't have. The exact version is in [`Meta`].
pub fn object_name(name: &str, version: &str, architecture: &str) -> String {
    let upstream = match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => version,
    };
    let upstream = upstream.replace('~', "_");
    format!("deb-{name}-{upstream}-{architecture}")
}

/// Value of a field in the first paragraph of a control file, without continuation lines.
pub fn control_field<'a>(control: &'a str, field: &str) -> Option<&'a str> {
    control.lines().take_while(|line| !line.trim().is_empty()).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(field).then(|| value.trim())
    })
}

/// Absolute paths in a `conffiles` file. Flagged lines (`remove-on-upgrade /etc/x`) name files that are not there.
pub fn parse_conffiles(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_relative_or_refused() {
        let ok = |name: &[u8], path: &str| assert_eq!(relative_path(name), Ok(Some(path.to_owned())));
        ok(b"./usr/bin/", "usr/bin");
        ok(b"usr//bin/./x", "usr/bin/x");
        ok(b"./...", "...");
        ok("./usr/share/ä".as_bytes(), "usr/share/ä");
        assert_eq!(relative_path(b"./"), Ok(None));
        assert_eq!(relative_path(b""), Err(BadPath::Empty));
        assert_eq!(relative_path(b"/etc/passwd"), Err(BadPath::Absolute));
        assert_eq!(relative_path(b"./a/../../b"), Err(BadPath::Climbs));
        assert_eq!(relative_path(b".."), Err(BadPath::Climbs));
        assert_eq!(relative_path(b"a\0b"), Err(BadPath::NotText));
        assert_eq!(relative_path(b"a\xff"), Err(BadPath::NotText));
        assert_eq!(relative_path("x".repeat(256).as_bytes()), Err(BadPath::TooLong));
        assert_eq!(relative_path("x/".repeat(62).as_bytes()), Err(BadPath::TooLong));
    }

    #[test]
    fn merged_directories_move_below_usr() {
        for (raw, merged) in [
            ("bin/sh", "usr/bin/sh"),
            ("lib64/ld.so", "usr/lib64/ld.so"),
            ("lib", "usr/lib"),
            ("usr/lib/x", "usr/lib/x"),
            ("libexec/x", "libexec/x"),
            ("etc/lib", "etc/lib"),
        ] {
            assert_eq!(usrmerge(raw.to_owned()), merged);
        }
    }

    #[test]
    fn object_names_are_store_names() {
        for (version, expected) in [
            ("1:2.38.1-5+deb12u3", "deb-mount-2.38.1-5+deb12u3-amd64"),
            ("2.0~rc1-1", "deb-mount-2.0_rc1-1-amd64"),
            ("0:1:2", "deb-mount-1:2-amd64"),
        ] {
            assert_eq!(object_name("mount", version, "amd64"), expected);
        }
        crate::nix::store_path::check_name(&object_name("libstdc++6", "12.2.0-14~x", "all")).expect("name");
    }

    #[test]
    fn control_fields_are_found_in_the_first_paragraph_only() {
        let control = "Package: a\nDescription: short\n Version: no\nversion: 1\n\nArchitecture: x\n";
        assert_eq!(control_field(control, "Package"), Some("a"));
        assert_eq!(control_field(control, "Version"), Some("1"));
        assert_eq!(control_field(control, "Architecture"), None);
    }
}
