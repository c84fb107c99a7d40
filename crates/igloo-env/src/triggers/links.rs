//! Trigger 1: the shape of a root, usrmerge links and the directories that everything expects.

use crate::layer::Layer;

/// Links of a merged `/usr`; those for other ABIs only where a package has the directory.
const MERGED: &[(&str, bool)] = &[
    ("bin", true),
    ("sbin", true),
    ("lib", true),
    ("lib64", false),
    ("lib32", false),
    ("libx32", false),
    ("libo32", false),
];

/// Directories with modes, as base-files has them.
const DIRECTORIES: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/sbin", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o2775),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Group `mail` of Debian's policy, which owns `/var/mail`.
const MAIL: u32 = 8;

pub(crate) fn run(layer: &mut Layer<'_>) {
    for (name, always) in MERGED {
        if *always || layer.is_dir(&format!("usr/{name}")) {
            layer.link(&format!("usr/{name}"), name);
        }
    }
    for (path, mode) in DIRECTORIES {
        layer.directory(path, *mode, 0, if *path == "var/mail" { MAIL } else { 0 }, false);
    }
    // Packages of old put directories there; what they hold moves to the target.
    for (link, target) in [("var/run", "run"), ("var/lock", "run/lock")] {
        let below: Vec<String> = layer.union.below(link).map(|o| o.entry.path.clone()).collect();
        if layer.replace_by_link(link, &format!("/{target}")) {
            for path in below {
                let moved = format!("{target}{}", &path[link.len()..]);
                layer.move_from_member(&path, &moved);
            }
        }
    }
    layer.link("../run", "var/run");
    layer.link("/proc/mounts", "etc/mtab");
}
