//! Which request is meant: the one place where paths and queries are read.

use igloo_formats::oci::Digest;

use super::name::{Repository, Selector};
use super::refusal::Refusal;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/tags/list`
    Tags(Repository),
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(Repository, Selector),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(Repository, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(Repository, String),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(Repository, Digest),
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
}

impl Route {
    /// Of a path as it came.
    pub(crate) fn parse(path: &str) -> Result<Route, Refusal> {
        match path {
            "/v2/" | "/v2" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog),
            "/healthz" => return Ok(Route::Health),
            "/metrics" => return Ok(Route::Metrics),
            _ => {}
        }
        let nothing = || Refusal::missing("UNSUPPORTED", "there is nothing at this path; the registry is at `/v2/`");
        let path = path.strip_prefix("/v2/").ok_or_else(nothing)?;
        let decoded = decode(path).ok_or_else(|| Refusal::bad("NAME_INVALID", "the path is no text"))?;
        // From the end, since a repository may be called `a/tags` or `a/blobs/uploads`.
        let (rest, last) = decoded.rsplit_once('/').ok_or_else(nothing)?;
        let (name, kind) = rest.rsplit_once('/').ok_or_else(nothing)?;
        let repository =
            |name: &str| name.parse::<Repository>().map_err(|e| Refusal::bad("NAME_INVALID", e.to_string()));
        let digest = || last.parse::<Digest>().map_err(|e| Refusal::digest(e.to_string()));
        match (kind, last) {
            ("tags", "list") => Ok(Route::Tags(repository(name)?)),
            ("manifests", _) => {
                let repository = repository(name)?;
                let selector = Selector::parse(last).ok_or_else(|| match last.contains(':') {
                    true => Refusal::digest("this is no digest of the form `sha256:<64 hexadecimal digits>`"),
                    false => Refusal::missing("MANIFEST_UNKNOWN", "this is no tag"),
                })?;
                Ok(Route::Manifest(repository, selector))
            }
            ("blobs", "uploads") => Ok(Route::Uploads(repository(name)?)),
            ("blobs", _) => Ok(Route::Blob(repository(name)?, digest()?)),
            ("referrers", _) => Ok(Route::Referrers(repository(name)?, digest()?)),
            ("uploads", id) => {
                let name = name.strip_suffix("/blobs").ok_or_else(nothing)?;
                match id {
                    "" => Ok(Route::Uploads(repository(name)?)),
                    id => Ok(Route::Upload(repository(name)?, id.to_owned())),
                }
            }
            _ => Err(nothing()),
        }
    }

    /// For counters and logs.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Route::Base => "base",
            Route::Catalog => "catalog",
            Route::Tags(_) => "tags",
            Route::Manifest(..) => "manifest",
            Route::Blob(..) => "blob",
            Route::Uploads(_) | Route::Upload(..) => "upload",
            Route::Referrers(..) => "referrers",
            Route::Health => "health",
            Route::Metrics => "metrics",
        }
    }

    /// The repository it is about.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match self {
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
            Route::Base | Route::Catalog | Route::Health | Route::Metrics => None,
        }
    }
}

/// Takes the percent signs out; `None` if what comes out is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let hex = after.get(..2).filter(|h| h.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// A parameter of a query; the first, if it stands there several times.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Repository {
        text.parse().expect(text)
    }

    #[test]
    fn paths() {
        let digest: Digest = format!("sha256:{}", "0a".repeat(32)).parse().expect("digest");
        for (path, expected) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/a/tags/tags/list".to_owned(), Route::Tags(name("a/tags"))),
            ("/v2/a/b/manifests/v1".to_owned(), Route::Manifest(name("a/b"), Selector::Tag("v1".into()))),
            (format!("/v2/a/manifests/{digest}"), Route::Manifest(name("a"), Selector::Digest(digest))),
            (format!("/v2/a/blobs/sha256%3A{}", digest.0), Route::Blob(name("a"), digest)),
            (format!("/v2/blobs/uploads/blobs/{digest}"), Route::Blob(name("blobs/uploads"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/x-1".to_owned(), Route::Upload(name("a"), "x-1".into())),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest)),
        ] {
            assert_eq!(Route::parse(&path).expect(&path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in [
            "/v2/../etc/tags/list",
            "/v2/a/../b/tags/list",
            "/v2/a/%2e%2e/b/tags/list",
            "/v2/a%2F..%2Fb/tags/list",
            "/v2/%00/tags/list",
            "/v2/_tags/tags/list",
            "/v2/a/_manifests/tags/list",
            "/v2/A/tags/list",
            "/v2//tags/list",
            "/v2/a//b/tags/list",
            "/v2/a/manifests/..",
            "/v2/a/manifests/..%2f..%2fx",
            "/v2/a/manifests/sha256:00",
            "/v2/a/blobs/..",
            "/v2/a/blobs/sha512:00",
            "/v2/a/%zz/tags/list",
            "/v2/a/%ff/tags/list",
            "/v1/a/tags/list",
            "/",
            "",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }

    proptest::proptest! {
        /// Whatever a path is, what it names lies below the directory of repositories and is no place of ours.
        #[test]
        fn names_are_safe_paths(path in "(/v2/)?([a-c._%0-9A-F/:-]|\\.\\./|%2[eEfF]|_tags/|blobs/|manifests/|uploads/|\\PC){0,40}") {
            let Ok(route) = Route::parse(&path) else { return Ok(()) };
            if let Some(repository) = route.repository() {
                for component in repository.as_str().split('/') {
                    proptest::prop_assert!(component.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
                    proptest::prop_assert!(component.starts_with(|c: char| c.is_ascii_alphanumeric()));
                }
            }
            if let Route::Manifest(_, Selector::Tag(tag)) = &route {
                proptest::prop_assert!(!tag.starts_with('.') && !tag.contains('/'));
            }
        }
    }

    #[test]
    fn parameters() {
        let query = Some("mount=sha256%3A12&from=a%2Fb&n=3&n=4&empty");
        assert_eq!(parameter(query, "mount").as_deref(), Some("sha256:12"));
        assert_eq!(parameter(query, "from").as_deref(), Some("a/b"));
        assert_eq!(parameter(query, "n").as_deref(), Some("3"));
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "m"), None);
        assert_eq!(parameter(None, "n"), None);
    }
}
