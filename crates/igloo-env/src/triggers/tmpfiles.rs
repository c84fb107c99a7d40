//! Trigger 4, first half: `tmpfiles.d`.

use std::collections::BTreeSet;

use super::accounts::{config_files, words};
use crate::EnvError;
use crate::identity::Registry;
use crate::layer::{Layer, Owner};

/// A line that igloo acts on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The letter, modifiers removed.
    pub(crate) kind: char,
    /// Replaces what is there (`+`).
    pub(crate) force: bool,
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    /// Mode and owner only count for what the line itself makes (`:`).
    pub(crate) only_new: bool,
    /// The mode is combined with the one that is there (`~`).
    pub(crate) masked: bool,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) argument: Option<String>,
}

pub(crate) fn run(layer: &mut Layer<'_>, registry: &Registry) -> Result<(), EnvError> {
    let mut seen = BTreeSet::new();
    for file in config_files(layer, "tmpfiles.d") {
        for line in layer.read_text(&file)?.unwrap_or_default().lines() {
            let Some(line) = parse_line(line) else { continue };
            // As systemd has it: of two lines for one path, the earlier file's counts. `z` and `m` add to others.
            if "zZm".contains(line.kind) || seen.insert(line.path.clone()) {
                apply(layer, registry, &line);
            }
        }
    }
    Ok(())
}

fn apply(layer: &mut Layer<'_>, registry: &Registry, line: &Line) {
    let uid = line.user.as_deref().and_then(|u| registry.user(u)).map(|u| u.0);
    let gid = line.group.as_deref().and_then(|g| registry.group(g));
    let owner = Owner { mode: line.mode, uid, gid };
    let path = line.path.as_str();
    let factory = || format!("/usr/share/factory{path}");
    let made = match line.kind {
        'd' | 'D' | 'v' | 'q' | 'Q' => layer.mkdir(path),
        'e' | 'z' | 'm' => false,
        'Z' => {
            // Recursive owners; a mode would make files executable, so it stays at the top.
            for below in layer.tree(path) {
                layer.set_owner(&below, Owner { mode: None, uid, gid });
            }
            false
        }
        'f' | 'F' => {
            let text = line.argument.as_deref().unwrap_or_default();
            layer.put(path, unescape(text))
        }
        'L' => {
            let target = line.argument.clone().unwrap_or_else(factory);
            let done = if line.force { layer.relink(&target, path) } else { layer.link(&target, path) };
            // The owner of a link is nobody's concern, and the target's is not meant.
            let _ = done;
            return;
        }
        'C' => layer.copy(&line.argument.clone().unwrap_or_else(factory), path),
        _ => return,
    };
    if !layer.exists(path) || (line.only_new && !made) {
        return;
    }
    let owner = match (line.masked, layer.resolve(path, true), line.mode) {
        (true, Some(at), Some(mode)) if !made => {
            let old = layer.attributes(&at).0;
            let execute = if old & 0o111 != 0 || layer.is_dir(path) { 0o777 } else { 0o666 };
            Owner { mode: Some(mode & execute), ..owner }
        }
        _ => owner,
    };
    layer.set_owner(path, owner);
}

pub(crate) fn parse_line(line: &str) -> Option<Line> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let words = words(line);
    let mut kind = words[0].chars();
    let letter = kind.next()?;
    let modifiers = kind.as_str();
    if !modifiers.chars().all(|c| "+!-=~^$?".contains(c)) || modifiers.contains(['~', '^']) {
        return None;
    }
    let path = specifiers(words.get(1)?)?;
    // What is mounted over, and patterns, which only a running system needs.
    let outside = ["/dev", "/proc", "/sys", "/tmp"].iter().any(|d| path.starts_with(&format!("{d}/")));
    if !path.starts_with('/') || outside || path.contains(['*', '?', '[']) {
        return None;
    }
    let field = |i: usize| words.get(i).map(String::as_str).filter(|w| !matches!(*w, "-" | ""));
    let mode = field(2).unwrap_or_default();
    let digits = mode.trim_start_matches([':', '~']);
    let signs = &mode[..mode.len() - digits.len()];
    let name = |i: usize| field(i).map(|n| n.trim_start_matches(':').to_owned());
    let argument = match words.get(6..).map(|w| w.join(" ")).filter(|a| !matches!(a.as_str(), "" | "-")) {
        None => None,
        Some(text) => Some(specifiers(&text)?),
    };
    Some(Line {
        kind: letter,
        force: modifiers.contains('+'),
        path,
        mode: u32::from_str_radix(digits, 8).ok().filter(|m| *m <= 0o7777),
        only_new: signs.contains(':') || field(3).is_some_and(|u| u.starts_with(':')),
        masked: signs.contains('~'),
        user: name(3),
        group: name(4),
        argument,
    })
}

/// Replaces `%` specifiers; `None` if one depends on the machine.
fn specifiers(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        out.push_str(match chars.next()? {
            '%' => "%",
            'S' => "/var/lib",
            'C' => "/var/cache",
            'L' => "/var/log",
            't' => "/run",
            'T' => "/tmp",
            'V' => "/var/tmp",
            'h' => "/root",
            'u' | 'g' => "root",
            'U' | 'G' => "0",
            _ => return None,
        });
    }
    Some(out)
}

/// C escapes in the content of a file.
fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        parse_line(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn forms_of_tmpfiles() {
        let l = line("d /run/postgresql 2775 postgres postgres - -");
        assert_eq!((l.kind, l.path.as_str(), l.mode), ('d', "/run/postgresql", Some(0o2775)));
        assert_eq!((l.user.as_deref(), l.group.as_deref(), l.argument), (Some("postgres"), Some("postgres"), None));
        let l = line("d= /var/lib/private :0700");
        assert_eq!((l.mode, l.only_new, l.masked), (Some(0o700), true, false));
        let l = line("z /x ~0750 :a :b");
        assert_eq!((l.masked, l.only_new, l.user.as_deref()), (true, true, Some("a")));
        let l = line("L+ /etc/x - - - - ../y z");
        assert_eq!((l.kind, l.force, l.argument.as_deref()), ('L', true, Some("../y z")));
        assert_eq!(line("f %S/x 0644 - - - a%%b").argument.as_deref(), Some("a%b"));
        assert_eq!(line("D! %t/x").path, "/run/x");
        assert_eq!(line("q /var/tmp 1777 root root 30d").mode, Some(0o1777));
        assert_eq!(line("d \"/a b\" -").path, "/a b");
        for text in [
            "",
            "# d /x",
            "d",
            "d relative",
            "d /run/%m",
            "d /dev/x",
            "r! /a/*",
            "d /a/*",
            "f~ /x",
            "d /tmp/.X11-unix 1777",
        ] {
            assert_eq!(parse_line(text), None, "{text}");
        }
    }
}
