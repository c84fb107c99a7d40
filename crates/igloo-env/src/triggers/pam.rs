//! Trigger 9: `/etc/pam.d/common-*` from the profiles of `/usr/share/pam-configs`, as pam-auth-update makes them.

use std::collections::BTreeMap;

use crate::EnvError;
use crate::layer::Layer;

/// File, kind of module, the kind's section in profiles, whether the session is not interactive.
const STACKS: &[(&str, &str, &str, bool)] = &[
    ("common-auth", "auth", "Auth", false),
    ("common-account", "account", "Account", false),
    ("common-session", "session", "Session", false),
    ("common-session-noninteractive", "session", "Session", true),
    ("common-password", "password", "Password", false),
];

pub(crate) fn run(layer: &mut Layer<'_>) -> Result<(), EnvError> {
    let mut profiles = Vec::new();
    for path in layer.list_files("usr/share/pam-configs", "") {
        let profile = Profile::parse(&layer.read_text(&path)?.unwrap_or_default());
        if profile.field("Default") == "yes" {
            let priority: i64 = profile.field("Priority").parse().unwrap_or(0);
            profiles.push((std::cmp::Reverse(priority), path, profile));
        }
    }
    if profiles.is_empty() {
        return Ok(());
    }
    profiles.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    for (file, module, section, quiet) in STACKS {
        let stack = |kind: &str| {
            let type_key = format!("{section}-Type");
            let chosen = profiles.iter().map(|p| &p.2).filter(|p| p.field(&type_key) == kind);
            let chosen = chosen.filter(|p| !quiet || p.field("Session-Interactive-Only") != "yes");
            let mut lines: Vec<&str> = Vec::new();
            for (i, profile) in chosen.enumerate() {
                let initial = format!("{section}-Initial");
                let key = if i == 0 && !profile.field(&initial).is_empty() { initial.as_str() } else { section };
                lines.extend(profile.field(key).lines().map(str::trim).filter(|l| !l.is_empty()));
            }
            lines.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let primary = stack("Primary");
        let count = primary.len();
        let mut text = format!("# {file}: made by igloo from /usr/share/pam-configs\n");
        for (i, line) in primary.iter().enumerate() {
            // `end` jumps behind the line that denies.
            text += &format!("{module}\t{}\n", line.replace("=end", &format!("={}", count - i)));
        }
        if primary.is_empty() {
            // Nobody asks anything here, so that nothing may be denied.
            text += &format!("{module}\t[default=1]\tpam_permit.so\n");
        }
        text += &format!("{module}\trequisite\tpam_deny.so\n{module}\trequired\tpam_permit.so\n");
        for line in stack("Additional") {
            text += &format!("{module}\t{}\n", line.replace("=end", "=ignore"));
        }
        layer.put(&format!("etc/pam.d/{file}"), text);
    }
    Ok(())
}

/// A profile: `Key: value`, where indented lines go on.
struct Profile {
    fields: BTreeMap<String, String>,
}

impl Profile {
    fn parse(text: &str) -> Self {
        let (mut fields, mut last) = (BTreeMap::<String, String>::new(), None::<String>);
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                if let Some(value) = last.as_ref().and_then(|key| fields.get_mut(key)) {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                fields.insert(key.to_owned(), value.trim().to_owned());
                last = Some(key.to_owned());
            }
        }
        Self { fields }
    }

    fn field(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }
}
