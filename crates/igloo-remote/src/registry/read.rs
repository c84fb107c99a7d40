//! What is asked of a registry without blobs: manifests, whether something is there, tags.

use igloo_formats::oci::{Descriptor, Digest, Document, MAX_MANIFEST, Reference, media};
use ureq::http::Method;

use super::Registry;
use super::auth::Scope;
use super::call::{Call, Reply, Target, is_at, read_capped};
use super::error::{RegistryError, clean};

/// Largest page of tags that is read.
const MAX_PAGE: u64 = 4 << 20;
/// The most tags that are listed, and the most pages asked for: the largest public repositories have some 10000.
const MAX_TAGS: usize = 200_000;
const MAX_PAGES: usize = 2000;
/// What is asked for at a time; registries give less if they like.
const PAGE: usize = 1000;

/// What a registry says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it said, without parameters; empty if it did not.
    pub media_type: String,
    /// As it said.
    pub digest: Option<Digest>,
    /// As it said, in bytes.
    pub size: Option<u64>,
}

/// A document of a registry, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

/// `repository` in an address, checked.
pub(super) fn repository(name: &str) -> Result<&str, RegistryError> {
    let part = |p: &str| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        p.bytes().next().is_some_and(word) && p.bytes().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'))
    };
    match name.len() <= 255 && name.split('/').all(part) {
        true => Ok(name),
        false => Err(RegistryError::Name { name: clean(name, 100) }),
    }
}

/// A tag or a digest in an address, checked.
pub(super) fn selector(name: &str) -> Result<&str, RegistryError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let tag = name.len() <= 128
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    match tag || name.parse::<Digest>().is_ok() {
        true => Ok(name),
        false => Err(RegistryError::Name { name: clean(name, 100) }),
    }
}

/// How a person says it.
pub(super) fn named(repository: &str, selector: &str) -> String {
    format!("`{repository}{}{selector}`", if selector.contains(':') { '@' } else { ':' })
}

impl Registry {
    /// Whether there is a registry that lets us in.
    pub fn ping(&self) -> Result<(), RegistryError> {
        let scope = Scope::default();
        let call = Call::new(Method::GET, "", &scope, "its version");
        let mut reply = self.call(&call)?;
        match reply.status() {
            200 => Ok(()),
            _ => Err(self.refused(&call, &mut reply)),
        }
    }

    /// A manifest or index: its media type, its bytes, and their digest, which is what was asked for or what the
    /// registry announced. Errors if it is no image, or larger than [`MAX_MANIFEST`].
    pub fn manifest(&self, reference: &Reference) -> Result<(String, Vec<u8>, Digest), RegistryError> {
        self.manifest_at(&reference.repository, &reference.selector())
    }

    /// The same by repository and tag or digest.
    pub fn manifest_at(&self, name: &str, select: &str) -> Result<(String, Vec<u8>, Digest), RegistryError> {
        let fetched = self.fetch(name, select, &Scope::pull(name))?;
        Ok((fetched.descriptor.media_type, fetched.bytes, fetched.descriptor.digest))
    }

    pub(super) fn fetch(&self, name: &str, select: &str, scope: &Scope) -> Result<Fetched, RegistryError> {
        let path = format!("{}/manifests/{}", repository(name)?, selector(select)?);
        let what = named(name, select);
        let call = Call { headers: vec![accept()], ..Call::new(Method::GET, &path, scope, &what) };
        let mut attempt = 0;
        let (mut reply, bytes) = loop {
            let mut reply = self.call(&call)?;
            if reply.status() != 200 {
                return Err(self.refused(&call, &mut reply));
            }
            let too_large =
                || RegistryError::TooLarge { host: self.host().into(), what: what.clone(), limit: MAX_MANIFEST };
            if reply.answer.length().is_some_and(|length| length > MAX_MANIFEST) {
                return Err(too_large());
            }
            let promised = reply.answer.length();
            let read = read_capped(&mut reply.answer.reader(), MAX_MANIFEST);
            let broken = match read {
                Ok(None) => return Err(too_large()),
                Ok(Some(bytes)) if promised.is_none_or(|length| length == bytes.len() as u64) => break (reply, bytes),
                Ok(Some(_)) => std::io::ErrorKind::UnexpectedEof.into(),
                Err(source) => source,
            };
            let error = RegistryError::Broken { host: self.host().into(), what: what.clone(), source: broken };
            if attempt >= self.config().client.retries {
                return Err(error);
            }
            drop(reply);
            self.pause(attempt, None, error)?;
            attempt += 1;
        };
        let found = Digest::of(&bytes);
        let expected = match select.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => self.announced(&reply, &what)?,
        };
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(RegistryError::Digest { host: self.host().into(), what, expected, found });
        }
        let (media_type, document) = self.understand(&mut reply, &bytes, &what)?;
        let descriptor = Descriptor::new(&media_type, found, bytes.len() as u64);
        Ok(Fetched { descriptor, bytes, document })
    }

    /// The `Docker-Content-Digest`, if it is one that can be checked.
    fn announced(&self, reply: &Reply, what: &str) -> Result<Option<Digest>, RegistryError> {
        match reply.answer.header("docker-content-digest").map(str::trim) {
            Some(text) if text.starts_with("sha256:") => match text.parse() {
                Ok(digest) => Ok(Some(digest)),
                Err(_) => Err(self.protocol(what, "the digest that it announces is malformed")),
            },
            _ => Ok(None),
        }
    }

    /// The media type of a document, and the document.
    fn understand(&self, reply: &mut Reply, bytes: &[u8], what: &str) -> Result<(String, Document), RegistryError> {
        let kind = reply.kind();
        // Some registries have one type for all that is JSON; the document says more then.
        let told = match kind.as_str() {
            "application/json" | "application/octet-stream" | "text/plain" => "",
            kind => kind,
        };
        if !told.is_empty() && !media::MANIFESTS.contains(&told) {
            let wanted = "an image manifest or an index of them";
            let (host, what, found) = (self.host().to_owned(), what.to_owned(), clean(told, 100));
            return Err(RegistryError::MediaType { host, what, found, wanted });
        }
        let document = Document::parse(told, bytes).map_err(|source| RegistryError::Document {
            host: self.host().to_owned(),
            what: what.to_owned(),
            source,
        })?;
        let inside = match &document {
            Document::Image(manifest) => (&manifest.media_type, media::MANIFEST),
            Document::Index(index) => (&index.media_type, media::INDEX),
        };
        let media_type = match (told, inside) {
            ("", (Some(inside), _)) if !inside.is_empty() => inside.clone(),
            ("", (_, usual)) => usual.to_owned(),
            (told, _) => told.to_owned(),
        };
        Ok((media_type, document))
    }

    /// Whether a manifest is there, and as what.
    pub fn head_manifest(&self, name: &str, select: &str) -> Result<Option<Found>, RegistryError> {
        self.head_manifest_in(name, select, &Scope::pull(name))
    }

    pub(super) fn head_manifest_in(
        &self,
        name: &str,
        select: &str,
        scope: &Scope,
    ) -> Result<Option<Found>, RegistryError> {
        let path = format!("{}/manifests/{}", repository(name)?, selector(select)?);
        self.head(&path, scope, &named(name, select), vec![accept()])
    }

    /// Whether a blob is there.
    pub fn head_blob(&self, name: &str, digest: Digest) -> Result<Option<Found>, RegistryError> {
        self.head_blob_in(name, digest, &Scope::pull(name))
    }

    pub(super) fn head_blob_in(
        &self,
        name: &str,
        digest: Digest,
        scope: &Scope,
    ) -> Result<Option<Found>, RegistryError> {
        let path = format!("{}/blobs/{digest}", repository(name)?);
        self.head(&path, scope, &named(name, &digest.to_string()), Vec::new())
    }

    fn head(
        &self,
        path: &str,
        scope: &Scope,
        what: &str,
        headers: Vec<(&str, String)>,
    ) -> Result<Option<Found>, RegistryError> {
        let call = Call { headers, ..Call::new(Method::HEAD, path, scope, what) };
        let mut reply = self.call(&call)?;
        match reply.status() {
            200 => {
                let digest = reply.answer.header("docker-content-digest").and_then(|text| text.trim().parse().ok());
                Ok(Some(Found { media_type: reply.kind(), digest, size: reply.answer.length() }))
            }
            404 => Ok(None),
            _ => Err(self.refused(&call, &mut reply)),
        }
    }

    /// All tags of a repository, in the registry's order.
    pub fn tags(&self, name: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let scope = Scope::pull(name);
        let what = format!("the tags of `{}`", repository(name)?);
        let first = format!("{name}/tags/list?n={PAGE}");
        let mut next: Option<String> = None;
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut call = Call::new(Method::GET, &first, &scope, &what);
            if let Some(address) = &next {
                call.target = Target::Address(address);
            }
            let mut reply = self.call(&call)?;
            if reply.status() != 200 {
                return Err(self.refused(&call, &mut reply));
            }
            let broken = |source| RegistryError::Broken { host: self.host().to_owned(), what: what.clone(), source };
            let body = read_capped(&mut reply.answer.reader(), MAX_PAGE).map_err(broken)?;
            let too_large =
                || RegistryError::TooLarge { host: self.host().into(), what: what.clone(), limit: MAX_PAGE };
            let page: Page = serde_json::from_slice(&body.ok_or_else(too_large)?).map_err(|source| {
                RegistryError::Document { host: self.host().to_owned(), what: what.clone(), source }
            })?;
            let found = page.tags.unwrap_or_default();
            // What is no tag could not be asked for, and may not be shown.
            tags.extend(found.into_iter().filter(|tag| selector(tag).is_ok() && !tag.contains(':')));
            if tags.len() > MAX_TAGS {
                return Err(self.protocol(&what, "there are more than 200000"));
            }
            let link = reply.answer.all("link").find_map(next_page).map(str::to_owned);
            let Some(link) = link else { return Ok(tags) };
            let address = self.resolve(&reply.url, &link, &what)?;
            if !is_at(&address, &self.origin(self.is_tls())) {
                return Err(self.astray(&what, &address, "further pages are on another host"));
            }
            if Some(&address) == next.as_ref() {
                return Err(self.protocol(&what, "a page follows itself"));
            }
            next = Some(address);
        }
        Err(self.protocol(&what, "there is no end of pages"))
    }
}

fn accept() -> (&'static str, String) {
    ("Accept", media::MANIFESTS.join(", "))
}

/// The address in `<address>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |p: &str| matches!(p.trim().replace('"', "").as_str(), "rel=next");
    rest.split(';').any(is_next).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_place_in_an_address() {
        for bad in ["", "../x", "a/../b", "a//b", "a?b", "A", "a b", "a/%2e", "/a", "a/"] {
            assert!(repository(bad).is_err(), "{bad}");
        }
        assert!(repository("acme/web-1.2/x__y").is_ok());
        for bad in ["", "..", "a/b", "a?b", "a:b", "sha256:12", "-a"] {
            assert!(selector(bad).is_err(), "{bad}");
        }
        assert!(selector("v1.2_x-Y").is_ok());
    }

    #[test]
    fn links_to_the_next_page() {
        assert_eq!(next_page("</v2/a/tags/list?n=1&last=x>; rel=\"next\""), Some("/v2/a/tags/list?n=1&last=x"));
        assert_eq!(next_page("</x>; rel=prev"), None);
        assert_eq!(next_page("x"), None);
    }
}
