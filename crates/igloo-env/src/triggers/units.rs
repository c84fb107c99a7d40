//! Trigger 4, second half, and trigger 10: directories that systemd units ask for, and units that scripts enable.

use crate::EnvError;
use crate::identity::Registry;
use crate::layer::{Layer, join};

const UNITS: &str = "usr/lib/systemd/system";

/// Directory settings of units, where they lie, whether the name of the mode's setting.
const DIRECTORIES: &[(&str, &str)] = &[
    ("RuntimeDirectory", "run"),
    ("StateDirectory", "var/lib"),
    ("CacheDirectory", "var/cache"),
    ("LogsDirectory", "var/log"),
    ("ConfigurationDirectory", "etc"),
];

/// Makes the directories of all service units.
pub(crate) fn directories(layer: &mut Layer<'_>, registry: &Registry) -> Result<(), EnvError> {
    for path in layer.list_files(UNITS, ".service") {
        let Some(text) = layer.read_text(&path)? else { continue };
        let unit = Unit::parse(&text);
        if unit.is("DynamicUser") {
            continue;
        }
        let user = unit.last("User").and_then(|u| registry.user(u));
        let (uid, gid) = user.unwrap_or((0, 0));
        let gid = unit.last("Group").and_then(|g| registry.group(g)).unwrap_or(gid);
        for (key, base) in DIRECTORIES {
            let mode = unit.last(&format!("{key}Mode")).and_then(|m| u32::from_str_radix(m, 8).ok());
            for name in unit.words(key).filter(|n| !n.contains('%')) {
                // `name:link` also makes a link; the name is what counts.
                let name = name.split(':').next().unwrap_or_default();
                layer.directory(&join(base, name), mode.unwrap_or(0o755), uid, gid, uid != 0);
            }
        }
        for key in ["ReadWritePaths", "ReadWriteDirectories"] {
            for path in unit.words(key) {
                let path = path.trim_start_matches(['-', '+']);
                let inside =
                    path.starts_with("/var/lib/") || path.starts_with("/var/log/") || path.starts_with("/var/cache/");
                if inside && !path.contains('%') && uid != 0 {
                    layer.directory(path, 0o750, uid, gid, false);
                }
            }
        }
    }
    Ok(())
}

/// Links of `[Install]` for units that scripts enable. Only if systemd itself is there.
pub(crate) fn enable(layer: &mut Layer<'_>, units: &[String]) -> Result<(), EnvError> {
    if !layer.exists("usr/lib/systemd/systemd") {
        return Ok(());
    }
    // Present and empty: a machine that starts for the first time fills it; absent would ask questions.
    layer.put("etc/machine-id", "");
    for name in units {
        let Some(text) = layer.read_text(&join(UNITS, name))? else { continue };
        let unit = Unit::parse(&text);
        let to = format!("/{UNITS}/{name}");
        for (key, suffix) in [("WantedBy", "wants"), ("RequiredBy", "requires")] {
            for target in unit.words(key).filter(|t| !t.contains(['/', '%'])) {
                layer.link(&to, &format!("etc/systemd/system/{target}.{suffix}/{name}"));
            }
        }
        for alias in unit.words("Alias").filter(|a| !a.contains(['/', '%'])) {
            layer.link(&to, &format!("etc/systemd/system/{alias}"));
        }
    }
    Ok(())
}

/// Settings of a unit file, sections taken together: no key is in two of them with different meanings.
struct Unit<'a> {
    settings: Vec<(&'a str, String)>,
}

impl<'a> Unit<'a> {
    fn parse(text: &'a str) -> Self {
        let mut settings: Vec<(&str, String)> = Vec::new();
        let mut open = false;
        for line in text.lines() {
            let body = line.trim();
            if body.starts_with(['#', ';']) {
                continue;
            }
            let (part, more) = body.strip_suffix('\\').map_or((body, false), |b| (b, true));
            match (open, settings.last_mut(), part.split_once('=')) {
                (true, Some((_, value)), _) => {
                    value.push(' ');
                    value.push_str(part.trim());
                }
                (_, _, Some((key, value))) => settings.push((key.trim(), value.trim().to_owned())),
                _ => {}
            }
            open = more;
        }
        Self { settings }
    }

    fn last(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(k, v)| *k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        self.settings.iter().filter(move |(k, _)| *k == key).flat_map(|(_, v)| v.split_whitespace())
    }

    fn is(&self, key: &str) -> bool {
        matches!(self.last(key), Some("yes" | "true" | "on" | "1"))
    }
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn settings_of_units() {
        let unit =
            Unit::parse("[Service]\nUser=a\n# User=b\nReadWritePaths=-/var/lib/x \\\n  /var/log/x\nDynamicUser=yes\n");
        assert_eq!(unit.last("User"), Some("a"));
        assert_eq!(unit.words("ReadWritePaths").collect::<Vec<_>>(), ["-/var/lib/x", "/var/log/x"]);
        assert!(unit.is("DynamicUser"));
    }
}
