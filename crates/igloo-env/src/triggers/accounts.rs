//! Triggers 2 and 3: `/etc/passwd` and its kin from base-passwd's masters, users of `sysusers.d`.

use std::collections::BTreeMap;

use crate::EnvError;
use crate::identity::{PrimaryGroup, Registry, UserRequest, good_name};
use crate::layer::{Layer, Owner};

/// Takes the masters and makes the files exist, so that scripts that look for them find them.
pub(crate) fn masters(layer: &mut Layer<'_>, registry: &mut Registry) -> Result<(), EnvError> {
    let passwd = layer.read_text("usr/share/base-passwd/passwd.master")?;
    let group = layer.read_text("usr/share/base-passwd/group.master")?;
    registry.masters(passwd.as_deref(), group.as_deref());
    for (path, text) in registry.files() {
        layer.put(path, text);
    }
    Ok(())
}

/// Writes the files as they are after all scripts.
pub(crate) fn write(layer: &mut Layer<'_>, registry: &Registry) {
    for (path, text) in registry.files() {
        layer.replace(path, text);
        if path.ends_with("shadow") {
            let gid = registry.group("shadow").unwrap_or(0);
            layer.set_owner(path, Owner { mode: Some(0o640), uid: Some(0), gid: Some(gid) });
        }
    }
}

/// A line of `sysusers.d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    User(UserRequest),
    Group { name: String, gid: Option<u32> },
    Member { user: String, group: String },
}

/// Users of all `sysusers.d` files: by name of file, those in `/etc` in place of the same name in `/usr/lib`.
pub(crate) fn sysusers(layer: &Layer<'_>, registry: &mut Registry) -> Result<(), EnvError> {
    let mut members = Vec::new();
    for path in config_files(layer, "sysusers.d") {
        let resolved = layer.resolve(&path, true).unwrap_or_default();
        let owner = layer.union.get(&resolved).map(|o| layer.union.members[o.member].name.clone());
        let owner = owner.unwrap_or_default();
        for line in layer.read_text(&path)?.unwrap_or_default().lines() {
            match parse_line(line) {
                Some(Line::User(user)) => registry.add_user(&user, &owner)?,
                Some(Line::Group { name, gid }) => {
                    registry.add_group(&name, gid, &owner)?;
                }
                Some(Line::Member { user, group }) => members.push((user, group, owner.clone())),
                None => {}
            }
        }
    }
    for (user, group, owner) in members {
        registry.add_group(&group, None, &owner)?;
        registry.add_member(&user, &group);
    }
    Ok(())
}

/// Files of a systemd-like configuration directory in the order in which they count.
pub(crate) fn config_files(layer: &Layer<'_>, dir: &str) -> Vec<String> {
    let mut files = BTreeMap::new();
    for base in ["usr/lib", "etc"] {
        for path in layer.list_files(&format!("{base}/{dir}"), ".conf") {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            files.insert(name, path);
        }
    }
    files.into_values().collect()
}

/// Splits a line of `sysusers.d` or `tmpfiles.d`: blanks separate, quotes of both kinds hold together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut current, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                current.get_or_insert_default();
            }
            ('\\', _) => {
                let word = current.get_or_insert_default();
                match chars.next() {
                    Some(c @ ('"' | '\'' | '\\' | ' ')) => word.push(c),
                    Some(c) => word.extend(['\\', c]),
                    None => {}
                }
            }
            (c, None) if c.is_whitespace() => words.extend(current.take()),
            (c, _) => current.get_or_insert_default().push(c),
        }
    }
    words.extend(current);
    words
}

fn parse_line(line: &str) -> Option<Line> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let words = words(line);
    let field = |i: usize| words.get(i).map(String::as_str).filter(|w| !matches!(*w, "-" | ""));
    let name = field(1)?.to_owned();
    if !good_name(&name) {
        return None;
    }
    let id = field(2);
    match words[0].trim_end_matches('!') {
        "u" => {
            let (uid, group) = match id {
                // A path means "as the owner of that file", which is nobody before anything is installed.
                Some(id) if !id.starts_with('/') => match id.split_once(':') {
                    Some((uid, group)) => {
                        let group = group.parse().map_or(PrimaryGroup::Named(group.to_owned()), PrimaryGroup::Id);
                        (uid.parse().ok(), group)
                    }
                    None => (id.parse().ok(), PrimaryGroup::Own),
                },
                _ => (None, PrimaryGroup::Own),
            };
            if matches!(&group, PrimaryGroup::Named(g) if !good_name(g)) {
                return None;
            }
            Some(Line::User(UserRequest {
                name,
                uid,
                group,
                gecos: field(3).unwrap_or_default().to_owned(),
                home: field(4).unwrap_or("/").to_owned(),
                shell: field(5).unwrap_or("/usr/sbin/nologin").to_owned(),
            }))
        }
        "g" => Some(Line::Group { name, gid: id.and_then(|id| id.parse().ok()) }),
        "m" => id.filter(|g| good_name(g)).map(|group| Line::Member { user: name, group: group.to_owned() }),
        // `r` reserves a range; nothing is made.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(line: &str) -> UserRequest {
        match parse_line(line) {
            Some(Line::User(user)) => user,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn forms_of_sysusers() {
        let u = user("u! sshd - \"sshd user\" /run/sshd");
        assert_eq!(
            (u.name.as_str(), u.uid, u.gecos.as_str(), u.home.as_str()),
            ("sshd", None, "sshd user", "/run/sshd")
        );
        assert_eq!((u.shell.as_str(), u.group), ("/usr/sbin/nologin", PrimaryGroup::Own));
        assert_eq!(user("u a 404 'x' - /bin/bash").uid, Some(404));
        let u = user("u _x 65534:65533");
        assert_eq!((u.uid, u.group), (Some(65534), PrimaryGroup::Id(65533)));
        let u = user("u _y -:wheel \"\"");
        assert_eq!((u.uid, u.group, u.gecos.as_str()), (None, PrimaryGroup::Named("wheel".into()), ""));
        let u = user("u db /var/lib/db");
        assert_eq!((u.uid, u.group, u.home.as_str()), (None, PrimaryGroup::Own, "/"));
        assert_eq!(parse_line("g input - -"), Some(Line::Group { name: "input".into(), gid: None }));
        assert_eq!(parse_line("g x 77"), Some(Line::Group { name: "x".into(), gid: Some(77) }));
        assert_eq!(parse_line("m a b"), Some(Line::Member { user: "a".into(), group: "b".into() }));
        for line in ["# u x", "", "r - 500-900", "u %H", "u a:b", "u ../x", "u"] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(words(r#"a "b c" 'd "e"' f\ g "" "#), ["a", "b c", r#"d "e""#, "f g", ""]);
    }
}
