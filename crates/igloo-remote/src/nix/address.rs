//! Addresses of binary caches, as Nix has them: `https://HOST/DIR`, `file:///DIR`, `s3://BUCKET?region=…&endpoint=…`,
//! each with `?priority=`, `trusted=`, `compression=` and the like behind it.

use std::path::PathBuf;

use crate::client::url;

use super::error::CacheError;

/// Where a binary cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Below an address, without a slash at its end.
    Http(String),
    /// A directory of this machine.
    Dir(PathBuf),
    /// A bucket: the address of its objects without a slash at its end, and the region for signatures.
    S3 { base: String, region: String, profile: Option<String> },
}

/// An address and what its parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: Place,
    /// Without the parameters: how it is called in messages.
    pub(super) shown: String,
    pub(super) priority: Option<u32>,
    pub(super) trusted: bool,
    /// `compression=` and `secret-key=`, for writing.
    pub(super) compression: Option<String>,
    pub(super) secret_key: Option<PathBuf>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, CacheError> {
        let bad = |why| CacheError::Address { url: without_password(text), why };
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut address = Self {
            place: Place::Dir(PathBuf::new()),
            shown: without_password(base.trim_end_matches('/')),
            priority: None,
            trusted: false,
            compression: None,
            secret_key: None,
        };
        let (mut region, mut endpoint, mut scheme, mut profile) = (None, None, "https".to_owned(), None);
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = String::from_utf8(url::decode(value)).map_err(|_| bad("a parameter is no text"))?;
            match key {
                "priority" => address.priority = Some(value.parse().map_err(|_| bad("`priority` is no number"))?),
                "trusted" => address.trusted = matches!(value.as_str(), "1" | "true"),
                "compression" => address.compression = Some(value),
                "secret-key" => address.secret_key = Some(value.into()),
                "region" => region = Some(value),
                "endpoint" => endpoint = Some(value),
                "scheme" => scheme = value,
                "profile" => profile = Some(value),
                // Nix has many that say how, not what.
                _ => {}
            }
        }
        address.place = if let Some(path) = url::local(base).or_else(|| base.starts_with('/').then(|| base.into())) {
            Place::Dir(path)
        } else if let Some(rest) = base.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
            if bucket.is_empty() || !bucket.bytes().all(good) || bucket.starts_with('.') {
                return Err(bad("the name of the bucket is bad"));
            }
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(bad("the region is bad"));
            }
            let objects = match endpoint {
                // Others than Amazon name the bucket in the path.
                Some(endpoint) => {
                    let at = if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") };
                    format!("{}/{bucket}", at.trim_end_matches('/'))
                }
                // A name with a dot does not fit the certificate of a host.
                None if bucket.contains('.') => format!("{scheme}://s3.{region}.amazonaws.com/{bucket}"),
                None => format!("{scheme}://{bucket}.s3.{region}.amazonaws.com"),
            };
            let base = match prefix.trim_matches('/') {
                "" => objects,
                prefix => url::file_url(&objects, prefix),
            };
            url::parse(&base).map_err(|_| bad("its endpoint is malformed"))?;
            Place::S3 { base, region, profile }
        } else if base.starts_with("http://") || base.starts_with("https://") {
            let uri = url::parse(base).map_err(|_| bad("it is malformed"))?;
            if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
                return Err(bad("a login belongs into netrc, not into an address"));
            }
            Place::Http(base.trim_end_matches('/').to_owned())
        } else {
            return Err(bad("it begins neither with http(s)://, nor with file:// or s3://"));
        };
        Ok(address)
    }
}

fn without_password(text: &str) -> String {
    let base = text.split('?').next().unwrap_or_default();
    match (base.find("://"), base.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &base[..scheme + 3], &base[at..]),
        _ => base.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let place = |text: &str| Address::parse(text).expect(text).place;
        assert_eq!(place("https://h/c/?priority=3"), Place::Http("https://h/c".into()));
        assert_eq!(place("file:///srv/a%20b"), Place::Dir("/srv/a b".into()));
        assert_eq!(place("/srv/c"), Place::Dir("/srv/c".into()));
        let s3 = |base: &str, region: &str| Place::S3 { base: base.into(), region: region.into(), profile: None };
        assert_eq!(place("s3://b"), s3("https://b.s3.us-east-1.amazonaws.com", "us-east-1"));
        assert_eq!(place("s3://b/p/q?region=eu-1"), s3("https://b.s3.eu-1.amazonaws.com/p/q", "eu-1"));
        assert_eq!(place("s3://b?endpoint=127.0.0.1:9&scheme=http"), s3("http://127.0.0.1:9/b", "us-east-1"));
        assert_eq!(place("s3://b?endpoint=https%3A%2F%2Fh"), s3("https://h/b", "us-east-1"));
        let all =
            Address::parse("http://h?priority=7&trusted=1&compression=xz&secret-key=/k&profile=p&want-mass-query=1")
                .expect("all");
        assert_eq!((all.priority, all.trusted, all.compression.as_deref()), (Some(7), true, Some("xz")));
        for bad in [
            "",
            "h",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "s3://",
            "s3://A",
            "s3://../x",
            "s3://b?region=a/b",
            "http://h?priority=x",
        ] {
            let error = Address::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
