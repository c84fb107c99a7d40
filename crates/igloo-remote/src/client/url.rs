//! Addresses: just as much as is needed of them.

use std::path::PathBuf;

use ureq::http::Uri;

use crate::RemoteError;

/// An address of the web; anything else is refused.
pub(crate) fn parse(url: &str) -> Result<Uri, RemoteError> {
    let refuse = |why| RemoteError::Address { url: url.to_owned(), why };
    let uri: Uri = url.parse().map_err(|_| refuse("it is malformed"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(refuse("its kind is not http, https or file")),
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(uri),
        _ => Err(refuse("it has no host")),
    }
}

/// The host of an address that [`parse`] took.
pub(crate) fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default()
}

/// Whether a host is this machine, by its name alone: `localhost`, `127.0.0.0/8`, `::1`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// The path that a `file:` or `copy:` address names.
pub(crate) fn local(url: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let rest = url.strip_prefix("file:").or_else(|| url.strip_prefix("copy:"))?;
    // `file:/path`, `file:///path` and `file://localhost/path` are the same.
    let path = match rest.strip_prefix("//") {
        Some(rest) => &rest[rest.find('/')?..],
        None => rest,
    };
    path.starts_with('/').then(|| PathBuf::from(std::ffi::OsString::from_vec(decode(path))))
}

/// `%20` and the like.
pub(crate) fn decode(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match code.and_then(|c| u8::from_str_radix(c, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// The address of a file of an archive. `path` is a path as release files and indexes write it; what has a meaning
/// in addresses is escaped, `+` too, since some servers take it for a blank.
pub fn file_url(archive: &str, path: &str) -> String {
    let mut url = archive.trim_end_matches('/').to_owned();
    url.push('/');
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'=' | b',' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// Where a redirection from `base` leads, or why it is not followed.
pub(crate) fn redirect(base: &Uri, to: &str) -> Result<String, &'static str> {
    let next = resolve(base, to).ok_or("this is no address")?;
    if base.scheme_str() == Some("https") && !next.starts_with("https:") {
        return Err("it leaves https");
    }
    Ok(next)
}

/// An address as `base`'s server writes it, in full.
pub(crate) fn resolve(base: &Uri, to: &str) -> Option<String> {
    let to = to.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    let url = if to.starts_with("http://") || to.starts_with("https://") {
        to.to_owned()
    } else if let Some(rest) = to.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else if to.is_empty() || to.split('/').next().is_some_and(|first| first.contains(':')) {
        // Another kind of address, or none.
        return None;
    } else {
        let path = base.path();
        let directory = &path[..path.rfind('/').map_or(0, |i| i + 1)];
        format!("{scheme}://{authority}{directory}{to}")
    };
    parse(&url).is_ok().then_some(url)
}

/// Whether a host is in a `no_proxy` list: `*`, hosts, and domains with or without a dot before them.
pub(crate) fn is_listed(host: &str, list: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let entry = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &entry,
        };
        let domain = entry.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
        entry == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses() {
        let check = |url: &str| local(url).map(|p| p.display().to_string());
        assert_eq!(check("file:///srv/a%20b").as_deref(), Some("/srv/a b"));
        assert_eq!(check("file:/srv").as_deref(), Some("/srv"));
        assert_eq!(check("copy:///srv/%zz%").as_deref(), Some("/srv/%zz%"));
        assert_eq!(check("file://localhost/srv").as_deref(), Some("/srv"));
        assert_eq!(check("file:srv"), None);
        assert_eq!(check("http://host/srv"), None);
    }

    #[test]
    fn files_of_an_archive() {
        let url = file_url("http://host/debian/", "pool/main/g/g++/g++_1%3a2~rc1+b1_amd64.deb");
        assert_eq!(url, "http://host/debian/pool/main/g/g%2B%2B/g%2B%2B_1%253a2~rc1%2Bb1_amd64.deb");
    }

    #[test]
    fn redirections() {
        let base: Uri = "https://host:1/a/b?c".parse().expect("uri");
        let check = |to| redirect(&base, to).unwrap_or_else(str::to_owned);
        assert_eq!(check("http://other/x"), "it leaves https");
        assert_eq!(check("HTTP://other/x"), "this is no address");
        assert_eq!(check("https://other/x"), "https://other/x");
        assert_eq!(check("//other/x"), "https://other/x");
        assert_eq!(check("/x#y"), "https://host:1/x");
        assert_eq!(check("x/y"), "https://host:1/a/x/y");
        for to in ["file:///etc/passwd", "ftp://host/", ""] {
            assert_eq!(check(to), "this is no address", "{to}");
        }
        let plain: Uri = "http://host/a".parse().expect("uri");
        assert_eq!(redirect(&plain, "http://other/x").as_deref(), Ok("http://other/x"));
    }

    #[test]
    fn hosts_without_proxy() {
        for (host, list, expected) in [
            ("deb.example.org", "example.org", true),
            ("deb.example.org", "localhost, .example.org", true),
            ("deb.example.org", "*.example.org", true),
            ("example.org", ".example.org", true),
            ("badexample.org", "example.org", false),
            ("example.org", "EXAMPLE.org:8080", true),
            ("anything", "*", true),
            ("::1", "[::1]", true),
            ("example.org", "", false),
        ] {
            assert_eq!(is_listed(host, list), expected, "{host} in {list}");
        }
    }
}
