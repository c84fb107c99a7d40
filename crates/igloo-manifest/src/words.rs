//! The small languages inside of the manifest's texts: packages, ports, volumes, durations, sizes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use igloo_formats::deb::{Version, relation};
use igloo_formats::nix::StorePath;

use crate::manifest::{Port, Probe, SpecKind, Volume};

/// What is wrong with a text, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadText {
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl BadText {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }

    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

type Result<T> = std::result::Result<T, BadText>;

/// Names of projects, shells, services, images and volumes: they become host names, directories and cgroups.
pub(crate) fn name(text: &str, what: &str) -> Result<()> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    let starts = text.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && text.len() <= 64 && text.bytes().all(good) {
        return Ok(());
    }
    let help = "a letter or digit first, then letters a to z, digits, `-` and `_`, 64 at most";
    Err(BadText::new(format!("`{text}` cannot be the name of {what}"), help))
}

/// Names of sets, which are also written in camel case.
pub(crate) fn set_name(text: &str) -> Result<()> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric()) && text.len() <= 64 && text.bytes().all(good) {
        return Ok(());
    }
    let help = "a letter or digit first, then letters, digits, `-` and `_`, 64 at most";
    Err(BadText::new(format!("`{text}` cannot be the name of a set"), help))
}

/// Whether a text can name a volume.
pub fn check_name(text: &str) -> Result<()> {
    name(text, "a volume")
}

/// Whether a text can name an environment variable.
pub fn check_variable(text: &str) -> Result<()> {
    variable(text)
}

/// Names of environment variables.
pub(crate) fn variable(text: &str) -> Result<()> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if text.bytes().all(good) && text.bytes().next().is_some_and(|c| !c.is_ascii_digit()) {
        return Ok(());
    }
    let help = "letters, digits and `_`, not a digit first";
    Err(BadText::new(format!("`{text}` cannot be the name of an environment variable"), help))
}

/// One element of a package list.
///
/// # Errors
/// When it is none of `[source:]name[=version][/suite]`, `@set`, `!name`, `flake:reference`, `/nix/store/HASH-NAME`.
pub fn spec(text: &str) -> Result<SpecKind> {
    if text.trim() != text || text.is_empty() {
        return Err(BadText::plain(if text.is_empty() {
            "a package without a name"
        } else {
            "a package name with blanks around it"
        }));
    }
    if let Some(set) = text.strip_prefix('@') {
        set_name(set)?;
        return Ok(SpecKind::Set(set.to_owned()));
    }
    if let Some(name) = text.strip_prefix('!') {
        package_name(name)?;
        return Ok(SpecKind::Exclude(name.to_owned()));
    }
    if text.starts_with('/') {
        return store_path(text);
    }
    let end = text.find('=').unwrap_or(text.len());
    let (source, rest) = match text[..end].split_once(':') {
        Some(("flake", _)) => return flake(&text["flake:".len()..]),
        Some((source @ ("debian" | "nixpkgs"), _)) => (Some(source.to_owned()), &text[source.len() + 1..]),
        Some((name, "any" | "native" | "amd64" | "arm64" | "i386" | "armhf" | "all")) => {
            let help = format!("write `{name}`; its architecture follows from `systems`");
            return Err(BadText::new(format!("`{text}` names an architecture"), help));
        }
        Some((source, _)) => {
            let help = "sources are `debian:` and `nixpkgs:`; an output of a flake is `flake:REF#NAME`";
            return Err(BadText::new(format!("`{source}` in `{text}` is no source"), help));
        }
        None => (None, text),
    };
    let (rest, suite) = match rest.split_once('/') {
        Some((rest, suite)) => (rest, Some(suite)),
        None => (rest, None),
    };
    let (name, version) = match rest.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    package_name(name)?;
    if suite.is_some_and(|s| !is_suite(s)) {
        return Err(BadText::new(format!("`{text}` names no suite after the `/`"), "write `name/bookworm-backports`"));
    }
    let version = match version.map(Version::parse) {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(e)) => {
            return Err(BadText::new(e.to_string(), "write `name=VERSION` with the whole version, `bash=5.2.15-2+b7`"));
        }
    };
    Ok(SpecKind::Package { source, name: name.to_owned(), version, suite: suite.map(str::to_owned) })
}

/// An image of somebody else's: `HOST/NAME:TAG`, or a file or directory.
pub fn foreign_image(text: &str) -> Result<()> {
    let is_file = text.starts_with(['.', '/']) || text.starts_with("oci:") || text.contains("-archive:");
    let host = text.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) || !(is_file || host) {
        let help = "write `HOST/NAME:TAG`, or a path: `./image.tar`, `oci:DIR`";
        return Err(BadText::new(format!("`{text}` names neither a registry nor a file"), help));
    }
    Ok(())
}

/// A login name as `useradd` takes it.
pub fn login(text: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if text.len() <= 32 && text.chars().all(good) && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') {
        return Ok(());
    }
    let help = "small letters, digits, `_` and `-`, 32 at most, a letter first";
    Err(BadText::new(format!("`{text}` is no login name"), help))
}

/// Packages may be store paths that somebody's Nix knows already: then nothing is evaluated.
fn store_path(text: &str) -> Result<SpecKind> {
    let base = text.strip_prefix("/nix/store/").unwrap_or_default();
    if StorePath::parse(base).is_err() {
        let message = format!("`{text}` is no store path");
        return Err(BadText::new(message, "write `/nix/store/HASH-NAME`, without what is below"));
    }
    Ok(SpecKind::StorePath(text.to_owned()))
}

fn flake(reference: &str) -> Result<SpecKind> {
    let bare = reference.split_once('#').map_or(reference, |(flake, _)| flake);
    if bare.is_empty() || reference.chars().any(char::is_whitespace) {
        let message = format!("`flake:{reference}` names no output of a flake");
        return Err(BadText::new(message, "write `flake:.#app` or `flake:github:owner/repo#name`"));
    }
    Ok(SpecKind::Flake(reference.to_owned()))
}

/// What Debian and nixpkgs both can call a package; an attribute path of nixpkgs has dots.
fn package_name(name: &str) -> Result<()> {
    relation::check_name(name).map_err(|why| BadText::plain(format!("`{name}` is no package: {why}")))
}

pub(crate) fn is_suite(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric()) && text.bytes().all(good) && !text.contains("..")
}

/// A moment of the dated archive, in the archive's own spelling.
pub(crate) fn snapshot(text: &str) -> Result<String> {
    let digits = |s: &str| s.bytes().all(|c| c.is_ascii_digit());
    let bytes = text.as_bytes();
    let full = |day: &str, time: &str| {
        let number = |s: &str| s.parse::<u32>().unwrap_or(99);
        let date_is = (1..=12).contains(&number(&day[4..6])) && (1..=31).contains(&number(&day[6..8]));
        let time_is = number(&time[..2]) < 24 && number(&time[2..4]) < 60 && number(&time[4..6]) < 60;
        date_is && time_is
    };
    if text.is_ascii() && bytes.len() == 16 && bytes[8] == b'T' && bytes[15] == b'Z' {
        let (day, time) = (&text[..8], &text[9..15]);
        if digits(day) && digits(time) && full(day, time) {
            return Ok(text.to_owned());
        }
    } else if text.is_ascii() && bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' {
        let day = text.replace('-', "");
        if digits(&day) && full(&day, "000000") {
            return Ok(format!("{day}T000000Z"));
        }
    }
    Err(BadText::new(format!("`{text}` is no moment"), "write `20250520T000000Z` or `2025-05-20`"))
}

/// `10s`, `200ms`, `2m`, `1h`; a bare number has no unit and is refused.
pub fn duration(text: &str) -> Result<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if !digits.is_empty() => {
            return Err(BadText::new(
                format!("the duration `{text}` has no unit"),
                format!("write `{text}s` or `{text}ms`"),
            ));
        }
        _ => return Err(bad_duration(text)),
    };
    let number: u64 = digits.parse().map_err(|_| bad_duration(text))?;
    // A year is more than anybody waits, and far from every overflow.
    number
        .checked_mul(scale)
        .filter(|&ms| ms <= 366 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| bad_duration(text))
}

fn bad_duration(text: &str) -> BadText {
    BadText::new(format!("`{text}` is no duration"), "a whole number and `ms`, `s`, `m` or `h`: `10s`")
}

/// `512M`, `8G`, `4096B`: powers of 1024.
pub fn size(text: &str) -> Result<u64> {
    let bad = || BadText::new(format!("`{text}` is no size"), "a whole number and `K`, `M`, `G` or `T`: `512M`");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let shift = match unit {
        "B" => 0,
        "K" | "KB" | "KiB" => 10,
        "M" | "MB" | "MiB" => 20,
        "G" | "GB" | "GiB" => 30,
        "T" | "TB" | "TiB" => 40,
        "" if !digits.is_empty() => {
            let help = format!("write `{text}M`, or `{text}B` for bytes");
            return Err(BadText::new(format!("the size `{text}` has no unit"), help));
        }
        "k" | "m" | "g" | "t" | "kb" | "mb" | "gb" | "tb" if !digits.is_empty() => {
            let unit = unit[..1].to_ascii_uppercase();
            return Err(BadText::new(format!("`{text}` is no size"), format!("units are capitals: `{digits}{unit}`")));
        }
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|&n| n > 0 && n <= i64::MAX as u64).ok_or_else(bad)
}

/// `0755`, `755`
pub(crate) fn mode(text: &str) -> Result<u32> {
    let digits = text.strip_prefix('0').unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if digits.len() == 3 && digits.bytes().all(|c| c.is_ascii_digit()) => Ok(mode),
        _ => Err(BadText::new(format!("`{text}` is no file mode"), "three octal digits: `0755`")),
    }
}

/// [`mode`] with setuid, setgid and sticky.
pub(crate) fn full_mode(text: &str) -> Result<u32> {
    let digits = text.bytes().all(|c| (b'0'..=b'7').contains(&c));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && (3..=5).contains(&text.len()) && mode <= 0o7777 => Ok(mode),
        _ => Err(BadText::new(format!("`{text}` is no file mode"), "three or four octal digits: `0755`, `2770`")),
    }
}

/// An absolute path without `.` and `..`; returned without a slash at the end.
pub(crate) fn absolute(text: &str) -> Result<String> {
    if !text.starts_with('/') {
        return Err(BadText::new(format!("`{text}` is not an absolute path"), format!("write `/{text}`")));
    }
    if text.split('/').any(|part| part == "." || part == "..") || text.contains('\0') {
        return Err(BadText::plain(format!("`{text}` must not have `.` or `..` in it")));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// A path of this machine, absolute or relative to the manifest.
pub(crate) fn path(text: &str) -> Result<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(BadText::plain("an empty path"));
    }
    if text.starts_with('~') || text.contains('$') {
        let help = "write a path relative to this file, or an absolute one";
        return Err(BadText::new(format!("`~` and `$` are not expanded in `{text}`"), help));
    }
    Ok(PathBuf::from(text))
}

/// A path inside the project: relative, and not leading out.
pub(crate) fn inner_path(text: &str) -> Result<PathBuf> {
    let path = path(text)?;
    let mut depth = 0i32;
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => depth -= 1,
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::CurDir => {}
            _ => depth = -1,
        }
        if depth < 0 {
            let help = "only the project's own files can be part of it; mount others with `volumes`";
            return Err(BadText::new(format!("`{text}` is outside of the project"), help));
        }
    }
    Ok(path)
}

/// `name[:group]` or `uid[:gid]`.
pub(crate) fn user(text: &str) -> Result<()> {
    let good = |part: &str| {
        let c = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        let number = part.bytes().all(|c| c.is_ascii_digit());
        let in_range = !number || part.parse::<u32>().is_ok_and(|id| id < u32::MAX);
        !part.is_empty() && part.len() <= 32 && part.bytes().all(c) && !part.starts_with('-') && in_range
    };
    let mut parts = text.splitn(2, ':');
    if parts.next().is_some_and(good) && parts.next().is_none_or(good) {
        return Ok(());
    }
    Err(BadText::new(format!("`{text}` is no user"), "`name`, `name:group`, `uid` or `uid:gid`"))
}

/// A host name by RFC 1123.
pub(crate) fn hostname(text: &str) -> Result<()> {
    let label = |l: &str| {
        let good = l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        !l.is_empty() && l.len() <= 63 && good && !l.starts_with('-') && !l.ends_with('-')
    };
    // The kernel's limit.
    if text.len() <= 64 && text.split('.').all(label) {
        return Ok(());
    }
    Err(BadText::new(format!("`{text}` is no host name"), "letters, digits and `-`, 64 at most"))
}

/// `5432`, `8080:5000`, `127.0.0.1:8080:5000`, `[::1]:8080:5000`, `:5000`, `auto:5000`, each maybe with `/udp`.
pub(crate) fn port(text: &str) -> Result<Port> {
    let bad = |message: String| {
        let help = "`5432`, `8080:5000`, `127.0.0.1:8080:5000`, `53:53/udp`; `auto:5000` takes a free port";
        BadText::new(message, help)
    };
    let (rest, udp) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), false),
        Some((rest, "udp")) => (rest, true),
        Some((_, protocol)) => return Err(bad(format!("`{protocol}` in `{text}` is neither `tcp` nor `udp`"))),
    };
    let number = |digits: &str| match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|c| c.is_ascii_digit()) => Ok(port),
        _ if digits == text => Err(bad(format!("`{text}` is no port from 1 to 65535"))),
        _ => Err(bad(format!("`{digits}` in `{text}` is no port from 1 to 65535"))),
    };
    let (host, container) = match rest.rsplit_once(':') {
        None => (rest, rest),
        Some((host, container)) => (host, container),
    };
    let container = number(container)?;
    let (address, host) = match host.rsplit_once(':') {
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), host),
        Some((address, host)) => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            let parsed = if bare == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { bare.parse() };
            (parsed.map_err(|_| bad(format!("`{address}` in `{text}` is no address")))?, host)
        }
    };
    let host = if host.is_empty() || host == "auto" { None } else { Some(number(host)?) };
    Ok(Port { address, host, container, udp })
}

/// `name:/target[:ro]`, `./path:/target[:ro]`, `tmpfs:/target[:size=64M]`.
pub(crate) fn volume(text: &str) -> Result<Volume> {
    let help = "`name:/target`, `./path:/target:ro` or `tmpfs:/target:size=64M`";
    let bad = |message: String| BadText::new(message, help);
    let mut parts = text.splitn(3, ':');
    let source = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        return Err(bad(format!("`{text}` does not say where to mount it")));
    };
    let target = absolute(target).map_err(|e| bad(e.message))?;
    if target == "/" {
        return Err(bad(format!("`{text}` would hide the whole environment")));
    }
    let option = parts.next();
    if source == "tmpfs" {
        let size = match option {
            None => None,
            Some(option) => match option.strip_prefix("size=") {
                Some(text) => Some(size(text)?),
                None => return Err(bad(format!("`{option}` in `{text}` is no option of a tmpfs"))),
            },
        };
        return Ok(Volume::Tmpfs { target, size });
    }
    let read_only = match option {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(option) => return Err(bad(format!("`{option}` in `{text}` is neither `ro` nor `rw`"))),
    };
    if source.starts_with(['/', '.', '~', '$']) {
        return Ok(Volume::Bind { source: path(source)?, target, read_only });
    }
    if source.contains('/') {
        let help = format!("a path begins with `./`, `../` or `/`: `./{text}`");
        return Err(BadText::new(format!("`{source}` in `{text}` is neither a name nor a path"), help));
    }
    name(source, "a volume")?;
    Ok(Volume::Named { name: source.to_owned(), target, read_only })
}

/// A port, or a host and a port.
pub(crate) fn tcp(text: &str) -> Result<Probe> {
    let bad = || BadText::new(format!("`{text}` is no port"), "`5432` or `host:5432`");
    let (host, port) = match text.rsplit_once(':') {
        None => (None, text),
        Some((host, port)) => (Some(host), port),
    };
    let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?;
    if host.is_some_and(|h| h.is_empty() || h.contains([' ', '/'])) {
        return Err(bad());
    }
    Ok(Probe::Tcp { host: host.map(str::to_owned), port })
}

/// The signals that make sense as a request to stop.
const SIGNALS: [(&str, i32); 9] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGWINCH", 28),
    ("SIGPWR", 30),
];

/// `SIGTERM` or `TERM`.
pub(crate) fn signal(text: &str) -> Result<i32> {
    SIGNALS
        .iter()
        .find(|(name, _)| *name == text || name.strip_prefix("SIG") == Some(text))
        .map(|(_, n)| *n)
        .ok_or_else(|| {
            let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
            BadText::new(format!("`{text}` is no signal to stop with"), format!("one of {}", names.join(", ")))
        })
}

/// The name of a signal that [`signal`] knows, `SIGTERM`.
pub fn signal_name(number: i32) -> &'static str {
    SIGNALS.iter().find(|(_, n)| *n == number).map_or("SIGTERM", |(name, _)| name)
}

/// The name of an image in a registry; its tag is given when it is pushed.
pub(crate) fn image_name(text: &str) -> Result<()> {
    let part = |p: &str| {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        !p.is_empty() && p.bytes().all(good) && p.as_bytes()[0].is_ascii_alphanumeric()
    };
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, text),
    };
    let host_is = |h: &str| h.bytes().all(|c| c.is_ascii_alphanumeric() || b".-:".contains(&c));
    if text.len() <= 255 && host.is_none_or(host_is) && rest.split('/').all(part) {
        return Ok(());
    }
    let help = if rest.contains([':', '@']) {
        "without a tag, which is given when the image is pushed"
    } else {
        "lower case: `registry.example/acme/guestbook`"
    };
    Err(BadText::new(format!("`{text}` is no name of an image"), help))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let show = |text: &str| match port(text) {
            Ok(p) => format!("{} {:?} {} {}", p.address, p.host, p.container, p.udp),
            Err(e) => e.message,
        };
        assert_eq!(show("5432"), "127.0.0.1 Some(5432) 5432 false");
        assert_eq!(show("8080:5000"), "127.0.0.1 Some(8080) 5000 false");
        assert_eq!(show("0.0.0.0:8080:5000/tcp"), "0.0.0.0 Some(8080) 5000 false");
        assert_eq!(show("[::1]:8080:5000"), "::1 Some(8080) 5000 false");
        assert_eq!(show("53:53/udp"), "127.0.0.1 Some(53) 53 true");
        assert_eq!(show(":5000"), "127.0.0.1 None 5000 false");
        assert_eq!(show("auto:5000"), "127.0.0.1 None 5000 false");
        assert_eq!(show("0.0.0.0:auto:5000"), "0.0.0.0 None 5000 false");
        assert_eq!(show("0"), "`0` is no port from 1 to 65535");
        assert_eq!(show("+80"), "`+80` is no port from 1 to 65535");
        assert_eq!(show("80:99999"), "`99999` in `80:99999` is no port from 1 to 65535");
        assert_eq!(show("80/sctp"), "`sctp` in `80/sctp` is neither `tcp` nor `udp`");
        assert_eq!(show("example.org:80:80"), "`example.org` in `example.org:80:80` is no address");
    }

    #[test]
    fn volumes() {
        let named = Volume::Named { name: "data".into(), target: "/var/lib/x".into(), read_only: false };
        assert_eq!(volume("data:/var/lib/x/"), Ok(named));
        let bind = Volume::Bind { source: "../conf".into(), target: "/etc/app".into(), read_only: true };
        assert_eq!(volume("../conf:/etc/app:ro"), Ok(bind));
        assert_eq!(volume("tmpfs:/run:size=64M"), Ok(Volume::Tmpfs { target: "/run".into(), size: Some(64 << 20) }));
        for text in [
            "data",
            "data:",
            "data:x",
            "data:/",
            "data:/a/../b",
            "Data:/a",
            "conf/x:/a",
            "data:/a:rx",
            "~/x:/a",
            "tmpfs:/a:ro",
        ] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn specs() {
        let package =
            |source: Option<&str>, name: &str, version: Option<&str>, suite: Option<&str>| SpecKind::Package {
                source: source.map(str::to_owned),
                name: name.to_owned(),
                version: version.map(|v| Version::parse(v).unwrap()),
                suite: suite.map(str::to_owned),
            };
        assert_eq!(spec("git"), Ok(package(None, "git", None, None)));
        assert_eq!(spec("git=1:2.39.5-0+deb12u3"), Ok(package(None, "git", Some("1:2.39.5-0+deb12u3"), None)));
        assert_eq!(spec("git/bookworm-backports"), Ok(package(None, "git", None, Some("bookworm-backports"))));
        let path = package(Some("nixpkgs"), "python312Packages.pip", None, None);
        assert_eq!(spec("nixpkgs:python312Packages.pip"), Ok(path));
        assert_eq!(spec("@devTools"), Ok(SpecKind::Set("devTools".into())));
        assert_eq!(spec("!fzf"), Ok(SpecKind::Exclude("fzf".into())));
        assert_eq!(spec("flake:.#app"), Ok(SpecKind::Flake(".#app".into())));
        let path = "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-hello-2.12";
        assert_eq!(spec(path), Ok(SpecKind::StorePath(path.into())));
        for text in [
            "",
            " git",
            "@",
            "!",
            "libc6:arm64",
            "pypi:flask",
            "git=",
            "git=a b",
            "git/",
            "git/../x",
            "-x",
            "flake:",
            "flake:#x",
            "a b",
            "/usr/bin/git",
            "/nix/store/x",
            "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-hello-2.12/bin",
        ] {
            assert!(spec(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_sizes_modes() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "10", "s", "-1s", "1.5s", "99999999999999999999s", "99999h", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("8GiB"), Ok(8 << 30));
        for text in ["", "512", "512m", "M", "0M", "-1M", "99999999999T", "1.5G"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!((mode("0755"), mode("644")), (Ok(0o755), Ok(0o644)));
        for text in ["", "0", "07555", "4755", "888", "+75", "-755"] {
            assert!(mode(text).is_err(), "{text}");
        }
        assert_eq!(snapshot("2025-05-20"), Ok("20250520T000000Z".into()));
        for text in ["20250520", "20251320T000000Z", "2025-05-32", "é025-05-20"] {
            assert!(snapshot(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_images() {
        for text in ["registry.example/acme/guestbook", "localhost:5000/x", "guestbook"] {
            assert_eq!(image_name(text), Ok(()));
        }
        for text in ["", "Guestbook", "registry.example/acme/x:1", "registry.example//x", "a b"] {
            assert!(image_name(text).is_err(), "{text}");
        }
    }
}
