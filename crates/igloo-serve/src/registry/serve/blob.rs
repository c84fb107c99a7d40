//! Blobs: their content, parts of it, and their end.

use std::fs::File;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use igloo_formats::oci::Digest;
use tokio::task::spawn_blocking;

use super::super::name::Repository;
use super::super::refusal::Refusal;
use super::{App, CONTENT_DIGEST, set, status};
use crate::http::{Body, FileBody, Span, span};

/// A header's text.
pub(super) fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Whether the client has this content already.
pub(super) fn has_already(headers: &HeaderMap, digest: &Digest) -> bool {
    let tag = etag(digest);
    header(headers, IF_NONE_MATCH).is_some_and(|v| v.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
}

pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

impl App {
    pub(super) async fn get_blob(
        self: &Arc<Self>,
        parts: &Parts,
        name: Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Refusal> {
        let this = Arc::clone(self);
        let unknown = Refusal::missing("BLOB_UNKNOWN", format!("`{name}` has no blob {digest}"));
        let found = spawn_blocking(move || this.find_blob(&name, &digest)).await??;
        let (file, size) = found.ok_or(unknown)?;
        let mut response = match has_already(&parts.headers, &digest) {
            true => status(StatusCode::NOT_MODIFIED),
            false => content(parts, file, size, &digest)?,
        };
        set(&mut response, CONTENT_DIGEST, &digest.to_string());
        set(&mut response, ETAG, &etag(&digest));
        set(&mut response, ACCEPT_RANGES, "bytes");
        Ok(response)
    }

    /// A blob that was pushed, or belongs to an image that was built.
    fn find_blob(&self, name: &Repository, digest: &Digest) -> Result<Option<(File, u64)>, Refusal> {
        if let Some(found) = self.storage.blob(name, digest)? {
            return Ok(Some(found));
        }
        match &self.images {
            Some(images) if !self.storage.exists(name)? => {
                Ok(images.part(name, digest)?.map(|(part, file)| (file, part.size)))
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn delete_blob(
        self: &Arc<Self>,
        name: Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Refusal> {
        self.may_delete()?;
        let unknown = Refusal::missing("BLOB_UNKNOWN", format!("`{name}` has no blob {digest}"));
        let storage = self.storage.clone();
        let deleted = spawn_blocking(move || storage.delete_blob(&name, &digest)).await??;
        match deleted {
            Ok(true) => Ok(status(StatusCode::ACCEPTED)),
            Ok(false) => Err(unknown),
            Err(manifest) => {
                let said = format!("the manifest {manifest} needs this blob; delete that first");
                Err(Refusal::unsupported(said))
            }
        }
    }

    pub(super) fn may_delete(&self) -> Result<(), Refusal> {
        match self.allow_delete {
            true => Ok(()),
            false => Err(Refusal::unsupported("deleting is not allowed; start the server with `--allow-delete`")),
        }
    }
}

fn content(parts: &Parts, file: File, size: u64, digest: &Digest) -> Result<Response<Body>, Refusal> {
    let headers = &parts.headers;
    let same = header(headers, IF_RANGE).is_none_or(|tag| tag.trim() == etag(digest));
    let range = header(headers, RANGE).filter(|_| same && parts.method == Method::GET);
    let part = span(range, size).map_err(|()| {
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", format!("the blob has {size} bytes"))
            .with(CONTENT_RANGE, &format!("bytes */{size}"))
    })?;
    let whole = Span { start: 0, length: size };
    let mut response = Response::new(Body::File(FileBody::new(file, part.unwrap_or(whole))));
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    if let Some(Span { start, length }) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, CONTENT_RANGE, &format!("bytes {start}-{}/{size}", start + length - 1));
    }
    Ok(response)
}
