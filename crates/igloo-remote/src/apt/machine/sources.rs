//! The two forms of apt's sources.

use std::path::{Path, PathBuf};

use super::{MachineSource, SignedBy, trim};

/// `deb [signed-by=/k.gpg arch=amd64] http://host/debian bookworm main`
pub(super) fn one_line(text: &str, file: &Path, sources: &mut Vec<MachineSource>) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => match inner.split_once(']') {
                Some(parts) => parts,
                None => continue,
            },
            None => ("", rest),
        };
        let mut source = MachineSource { file: file.to_owned(), ..MachineSource::default() };
        for option in options.split_ascii_whitespace() {
            let Some((name, value)) = option.split_once('=') else { continue };
            let values = value.split(',').filter(|v| !v.is_empty());
            match name.to_ascii_lowercase().as_str() {
                "arch" => source.architectures = values.map(str::to_owned).collect(),
                "signed-by" => source.signed_by = values.map(signed_by).collect(),
                _ => {}
            }
        }
        let mut words = rest.split_ascii_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        source.uris = vec![trim(uri)];
        source.suites = vec![suite.to_owned()];
        source.components = words.map(str::to_owned).collect();
        add(source, sources);
    }
}

/// Paragraphs of `Types:`, `URIs:`, ...
pub(super) fn deb822(text: &str, file: &Path, sources: &mut Vec<MachineSource>) {
    let mut paragraph: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !paragraph.is_empty() {
                stanza(&std::mem::take(&mut paragraph), file, sources);
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = paragraph.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            paragraph.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn stanza(paragraph: &[(String, String)], file: &Path, sources: &mut Vec<MachineSource>) {
    let field = |name: &str| paragraph.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
    let words = |name: &str| field(name).split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let off = matches!(field("enabled").to_ascii_lowercase().as_str(), "no" | "false" | "without" | "off" | "0");
    if off || !words("types").iter().any(|t| t == "deb") {
        return;
    }
    let keys = field("signed-by");
    let signed_by = match keys.contains("-----BEGIN") {
        true => vec![SignedBy::Inline(unfold(keys))],
        false => keys.split([' ', '\t', '\n', ',']).filter(|w| !w.is_empty()).map(signed_by).collect(),
    };
    add(
        MachineSource {
            file: file.to_owned(),
            uris: words("uris").iter().map(|u| trim(u)).collect(),
            suites: words("suites"),
            components: words("components"),
            signed_by,
            architectures: words("architectures"),
        },
        sources,
    );
}

/// A value of several lines as it was before it was folded: one blank less, and ` .` for an empty line.
fn unfold(value: &str) -> String {
    let mut text = String::new();
    for line in value.lines() {
        let line = line.trim();
        text.push_str(if line == "." { "" } else { line });
        text.push('\n');
    }
    text.trim_start().to_owned()
}

fn signed_by(word: &str) -> SignedBy {
    match word.starts_with('/') {
        true => SignedBy::File(PathBuf::from(word)),
        // An exclamation mark means this very key and not its subkeys; we compare primary keys either way.
        false => SignedBy::Fingerprint(word.trim_end_matches('!').to_ascii_uppercase()),
    }
}

/// Suites that end in a slash are flat repositories, which have no components and are not Debian's form.
fn add(mut source: MachineSource, sources: &mut Vec<MachineSource>) {
    source.suites.retain(|suite| !suite.ends_with('/'));
    if !source.uris.is_empty() && !source.suites.is_empty() {
        sources.push(source);
    }
}
