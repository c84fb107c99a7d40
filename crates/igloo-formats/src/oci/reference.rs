//! Names of images: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, with docker's short forms.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The longest repository name that registries take, host included.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// The name of an image in a registry.
///
/// A first component with a dot or a colon, or `localhost`, is a host; without one the registry is not known
/// ([`Reference::host`] is `None`) and the one who asks decides. A reference has a tag, a digest, or both; `latest` if
/// neither was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `host[:port]`.
    pub host: Option<String>,
    /// The repository, `acme/guestbook`.
    pub repository: String,
    /// A tag.
    pub tag: Option<String>,
    /// A digest; decides when there is a tag, too.
    pub digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an image: {why}")]
pub struct BadReference {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// What a registry's `manifests/` is asked for: the digest, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository at another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, BadReference> {
        let reference = Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() };
        match is_tag(tag) {
            true => Ok(reference),
            false => Err(BadReference { text: tag.to_owned(), why: "the tag is not valid" }),
        }
    }

    /// The same repository at a digest.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`, as the distribution specification has it.
pub(crate) fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// Whether a text is the name of a repository without a host, `acme/guestbook`.
pub fn is_repository(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('/').all(is_component)
}

/// Whether a text is a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= MAX_TAG
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0))
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = |why| BadReference { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|_| bad("the digest is not `sha256:` and 64 hexadecimal digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':', '[']) || first == "localhost" => (Some(first), path),
            _ => (None, rest),
        };
        if host.is_some_and(|h| !is_host(h)) {
            return Err(bad("the host is not valid"));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad("the tag is not valid"));
        }
        if repository.is_empty() {
            return Err(bad("there is no repository in it"));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("repositories are written in lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad("the repository is not valid"));
        }
        if repository.len() + host.map_or(0, str::len) > MAX_NAME {
            return Err(bad("it is too long"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { host: host.map(str::to_owned), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<String>, bool) {
        let r: Reference = text.parse().expect(text);
        (r.host, r.repository, r.tag, r.digest.is_some())
    }

    #[test]
    fn names_in_all_their_forms() {
        let of =
            |h: Option<&str>, r: &str, t: Option<&str>, d| (h.map(str::to_owned), r.into(), t.map(str::to_owned), d);
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(parts("redis"), of(None, "redis", Some("latest"), false));
        assert_eq!(parts("acme/web:1.2"), of(None, "acme/web", Some("1.2"), false));
        assert_eq!(parts("localhost/a"), of(Some("localhost"), "a", Some("latest"), false));
        assert_eq!(parts("127.0.0.1:5000/a/b__c:x"), of(Some("127.0.0.1:5000"), "a/b__c", Some("x"), false));
        assert_eq!(parts("[::1]:5000/a"), of(Some("[::1]:5000"), "a", Some("latest"), false));
        assert_eq!(parts(&format!("r.example/a@{digest}")), of(Some("r.example"), "a", None, true));
        assert_eq!(parts(&format!("r.example/a:t@{digest}")), of(Some("r.example"), "a", Some("t"), true));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "A",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a@sha256:12",
            "a@md5:x",
            "-a",
            "a..b",
            "a___b",
            "r.example/",
            "a:b:c",
            "a/../b",
            "r.example:99999/a",
            "a b",
            "exa mple.com/a",
            "[::1/a",
            "a:-x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
