//! Manifests: what a tag or digest names, new ones, and their end.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use igloo_base::At as _;
use igloo_formats::oci::{Digest, MAX_MANIFEST};
use tokio::task::spawn_blocking;

use super::super::ServeError;
use super::super::document::Stored;
use super::super::name::{Repository, Selector};
use super::super::refusal::Refusal;
use super::super::storage::{Lacking, ManifestFile};
use super::blob::{etag, has_already, header};
use super::{App, CONTENT_DIGEST, set, status, with_type};
use crate::http::{Body, Frames};

/// What a pushed manifest says something about.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl App {
    pub(super) async fn get_manifest(
        self: &Arc<Self>,
        parts: &Parts,
        name: Repository,
        selector: Selector,
    ) -> Result<Response<Body>, Refusal> {
        let said = format!("`{name}` has no manifest `{selector}`");
        let found = self.find_manifest(name, selector, wants_gzip(parts)).await?;
        let file = found.ok_or_else(|| Refusal::missing("MANIFEST_UNKNOWN", said))?;
        if !accepts(parts, &file.media_type) {
            // What clients understand better than 406.
            let said = format!("it is a `{}`, which the request does not accept", file.media_type);
            return Err(Refusal::missing("MANIFEST_UNKNOWN", said));
        }
        let mut response = match has_already(&parts.headers, &file.digest) {
            true => status(StatusCode::NOT_MODIFIED),
            false => with_type(file.bytes.into(), &file.media_type),
        };
        set(&mut response, CONTENT_DIGEST, &file.digest.to_string());
        set(&mut response, ETAG, &etag(&file.digest));
        Ok(response)
    }

    /// A manifest that was pushed or, where nothing was pushed by this name, one that is built.
    async fn find_manifest(
        self: &Arc<Self>,
        name: Repository,
        selector: Selector,
        gzip: bool,
    ) -> Result<Option<ManifestFile>, Refusal> {
        let (storage, pushed, wanted) = (self.storage.clone(), name.clone(), selector.clone());
        let has_images = self.images.is_some();
        let (found, build) = spawn_blocking(move || {
            let digest = match &wanted {
                Selector::Digest(digest) => Some(*digest),
                Selector::Tag(tag) => storage.tag(&pushed, tag)?,
            };
            let found = match digest {
                Some(digest) => storage.manifest(&pushed, &digest)?,
                None => None,
            };
            let build = has_images && found.is_none() && !storage.exists(&pushed)?;
            Ok::<_, ServeError>((found, build))
        })
        .await??;
        let Some(images) = self.images.as_ref().filter(|_| build) else { return Ok(found) };
        let digest = match &selector {
            Selector::Digest(digest) => *digest,
            Selector::Tag(tag) => images.tag(&name, tag, gzip).await?.digest,
        };
        let images = Arc::clone(images);
        let built = spawn_blocking(move || {
            let Some((part, file)) = images.part(&name, &digest)? else { return Ok(None) };
            // Layers are asked for by digest as well, but not as manifests.
            if part.size > MAX_MANIFEST || !part.media_type.contains("manifest") && !part.media_type.contains("index") {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            file.take(MAX_MANIFEST).read_to_end(&mut bytes).at("read", digest.to_string())?;
            Ok::<_, ServeError>(Some(ManifestFile { digest, media_type: part.media_type, bytes }))
        });
        Ok(built.await??)
    }

    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        name: Repository,
        selector: Selector,
    ) -> Result<Response<Body>, Refusal> {
        let bytes = self.document(parts, body).await?;
        let media_type = header(&parts.headers, CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let stored = Stored::parse(media_type, &bytes)
            .map_err(|e| Refusal::bad("MANIFEST_INVALID", format!("this is no manifest that can be stored: {e}")))?;
        let digest = Digest::of(&bytes);
        let tag = match &selector {
            Selector::Digest(wanted) if *wanted != digest => {
                return Err(Refusal::digest(format!("the manifest has the digest {digest}, not {wanted}")));
            }
            Selector::Digest(_) => None,
            Selector::Tag(tag) => Some(tag.clone()),
        };
        let subject = stored.subject;
        let (storage, to) = (self.storage.clone(), name.clone());
        let put = spawn_blocking(move || storage.put_manifest(&to, tag.as_deref(), &stored, &bytes)).await??;
        put.map_err(|lacking| match lacking {
            Lacking::Blob(blob) => Refusal::bad("MANIFEST_BLOB_UNKNOWN", format!("`{name}` has no blob {blob}")),
            Lacking::Manifest(child) => {
                Refusal::bad("MANIFEST_BLOB_UNKNOWN", format!("`{name}` has no manifest {child}"))
            }
            Lacking::Size(part) => {
                Refusal::bad("MANIFEST_INVALID", format!("{part} has another size than the manifest says"))
            }
        })?;
        let mut response = status(StatusCode::CREATED);
        set(&mut response, LOCATION, &format!("/v2/{name}/manifests/{digest}"));
        set(&mut response, CONTENT_DIGEST, &digest.to_string());
        if let Some(subject) = subject {
            set(&mut response, SUBJECT, &subject.to_string());
        }
        Ok(response)
    }

    /// The body of a request, if it is no longer than a manifest may be.
    async fn document(&self, parts: &Parts, body: &mut Incoming) -> Result<Vec<u8>, Refusal> {
        let too_large = || {
            let said = format!("manifests of more than {MAX_MANIFEST} bytes are not taken");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", said)
        };
        let announced = header(&parts.headers, CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
        if announced.is_some_and(|n| n > MAX_MANIFEST) {
            return Err(too_large());
        }
        let mut frames = Frames::new(body, self.idle);
        let mut bytes = Vec::new();
        while let Some(more) = frames.next().await? {
            bytes.extend_from_slice(&more);
            if bytes.len() as u64 > MAX_MANIFEST {
                return Err(too_large());
            }
        }
        self.metrics.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    pub(super) async fn delete_manifest(
        self: &Arc<Self>,
        name: Repository,
        selector: Selector,
    ) -> Result<Response<Body>, Refusal> {
        self.may_delete()?;
        let unknown = Refusal::missing("MANIFEST_UNKNOWN", format!("`{name}` has no manifest `{selector}`"));
        let storage = self.storage.clone();
        let deleted = spawn_blocking(move || match &selector {
            Selector::Tag(tag) => storage.delete_tag(&name, tag),
            Selector::Digest(digest) => storage.delete_manifest(&name, digest),
        });
        match deleted.await?? {
            true => Ok(status(StatusCode::ACCEPTED)),
            false => Err(unknown),
        }
    }
}

/// Whether a client is known not to read zstd: docker before 23, which accepts the media types of the OCI all the same.
fn wants_gzip(parts: &Parts) -> bool {
    let agent = header(&parts.headers, USER_AGENT).unwrap_or_default();
    let major = agent.strip_prefix("docker/").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < 23)
}

/// Whether a client takes this media type. One that says nothing takes all.
fn accepts(parts: &Parts, media_type: &str) -> bool {
    let mut said = false;
    for value in parts.headers.get_all(ACCEPT) {
        for one in value.to_str().unwrap_or_default().split(',') {
            let one = one.split(';').next().unwrap_or_default().trim();
            said |= !one.is_empty();
            if one == media_type || one == "*/*" || one == "application/*" {
                return true;
            }
        }
    }
    !said
}
