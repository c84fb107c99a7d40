//! Uploads: begun, gone on with, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use igloo_formats::oci::Digest;
use tokio::task::spawn_blocking;

use super::super::name::Repository;
use super::super::refusal::Refusal;
use super::super::route::parameter;
use super::super::tokens::{Principal, Right};
use super::super::upload::{Session, Turn};
use super::blob::header;
use super::{App, CONTENT_DIGEST, UPLOAD_UUID, set, status};
use crate::http::{Body, Frames};

fn digest_of(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|e: igloo_formats::oci::BadDigestText| Refusal::digest(e.to_string()))
}

/// Where an upload is, and how far it got.
fn awaited(name: &Repository, session: &Session, code: StatusCode) -> Response<Body> {
    let mut response = status(code);
    set(&mut response, LOCATION, &format!("/v2/{name}/blobs/uploads/{}", session.id));
    // Of nothing, too, there is a last byte in this header, as clients expect it.
    set(&mut response, RANGE, &format!("0-{}", session.length().saturating_sub(1)));
    set(&mut response, UPLOAD_UUID, &session.id);
    response
}

fn created(name: &Repository, digest: &Digest) -> Response<Body> {
    let mut response = status(StatusCode::CREATED);
    set(&mut response, LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

impl App {
    /// `POST`: mounts a blob, takes all of one, or awaits one.
    pub(super) async fn begin(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        name: Repository,
        principal: &Principal,
    ) -> Result<Response<Body>, Refusal> {
        let query = parts.uri.query();
        if let Some(digest) = parameter(query, "mount") {
            let digest = digest_of(&digest)?;
            if self.mount(parameter(query, "from"), &name, digest, principal).await? {
                return Ok(created(&name, &digest));
            }
        }
        let Some(digest) = parameter(query, "digest") else {
            let session = self.uploads.begin(&name).await?;
            return Ok(awaited(&name, &session, StatusCode::ACCEPTED));
        };
        let digest = digest_of(&digest)?;
        self.fits(parts, 0)?;
        let session = self.uploads.begin(&name).await?;
        let turn = self.uploads.turn(session).await?;
        self.take_rest(parts, body, turn, &name, digest).await
    }

    /// Mounts a blob from where the client says it is, if the client may read there.
    async fn mount(
        &self,
        from: Option<String>,
        to: &Repository,
        digest: Digest,
        principal: &Principal,
    ) -> Result<bool, Refusal> {
        let Some(from) = from.and_then(|from| from.parse::<Repository>().ok()) else { return Ok(false) };
        if !principal.may(Right::Pull, &from) {
            return Ok(false);
        }
        let (storage, to) = (self.storage.clone(), to.clone());
        Ok(spawn_blocking(move || storage.mount(&from, &to, &digest)).await??)
    }

    /// `GET`: how far an upload got.
    pub(super) fn status(&self, name: Repository, id: String) -> Result<Response<Body>, Refusal> {
        let session = self.uploads.find(&name, &id)?;
        Ok(awaited(&name, &session, StatusCode::NO_CONTENT))
    }

    /// `PATCH`: the next piece.
    pub(super) async fn patch(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        name: Repository,
        id: String,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.uploads.find(&name, &id)?;
        let mut turn = self.uploads.turn(session).await?;
        let most = self.piece(parts, &name, &turn)?;
        self.fits(parts, turn.session.length())?;
        if let Err(refusal) = self.take(body, &mut turn, most).await {
            return Err(self.give_up(turn, refusal));
        }
        Ok(awaited(&name, &turn.session, StatusCode::ACCEPTED))
    }

    /// `PUT`: the last piece, or none.
    pub(super) async fn finish(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        name: Repository,
        id: String,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.uploads.find(&name, &id)?;
        let digest = parameter(parts.uri.query(), "digest")
            .ok_or_else(|| Refusal::digest("the request does not say which digest the content has"))?;
        let digest = digest_of(&digest)?;
        let turn = self.uploads.turn(session).await?;
        self.piece(parts, &name, &turn)?;
        self.fits(parts, turn.session.length())?;
        self.take_rest(parts, body, turn, &name, digest).await
    }

    /// `DELETE`: never mind.
    pub(super) async fn cancel(&self, name: Repository, id: String) -> Result<Response<Body>, Refusal> {
        let session = self.uploads.find(&name, &id)?;
        let turn = self.uploads.turn(session).await?;
        self.uploads.cancel(turn);
        Ok(status(StatusCode::NO_CONTENT))
    }

    async fn take_rest(
        &self,
        parts: &Parts,
        body: &mut Incoming,
        mut turn: Turn,
        name: &Repository,
        digest: Digest,
    ) -> Result<Response<Body>, Refusal> {
        let most = range(parts)?.map_or(u64::MAX, |(first, last)| last - first + 1);
        if let Err(refusal) = self.take(body, &mut turn, most).await {
            return Err(self.give_up(turn, refusal));
        }
        self.uploads.finish(turn, name, digest).await?;
        Ok(created(name, &digest))
    }

    async fn take(&self, body: &mut Incoming, turn: &mut Turn, most: u64) -> Result<(), Refusal> {
        let before = turn.session.length();
        let mut frames = Frames::new(body, self.idle);
        let taken = self.uploads.receive(turn, &mut frames, most).await;
        let came = turn.session.length().saturating_sub(before);
        self.metrics.received.fetch_add(came, Ordering::Relaxed);
        taken
    }

    /// An upload that is too large ends; one that broke may be gone on with.
    fn give_up(&self, turn: Turn, refusal: Refusal) -> Refusal {
        if refusal.status == StatusCode::PAYLOAD_TOO_LARGE {
            self.uploads.cancel(turn);
        }
        refusal
    }

    /// Refuses what is announced to be too large before it comes.
    fn fits(&self, parts: &Parts, there: u64) -> Result<(), Refusal> {
        let announced = header(&parts.headers, CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        match there.saturating_add(announced) > self.uploads.largest() {
            true => Err(self.uploads.too_large()),
            false => Ok(()),
        }
    }

    /// How many bytes a piece may have; an error if it is not the next one.
    fn piece(&self, parts: &Parts, name: &Repository, turn: &Turn) -> Result<u64, Refusal> {
        let Some((first, last)) = range(parts)? else { return Ok(u64::MAX) };
        let length = turn.session.length();
        if first != length {
            let said = format!("the next piece begins at {length}, not at {first}");
            let there = awaited(name, &turn.session, StatusCode::ACCEPTED);
            let mut refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", said);
            for name in [LOCATION, RANGE] {
                if let Some(value) = header(there.headers(), name.clone()) {
                    refusal = refusal.with(name, value);
                }
            }
            return Err(refusal);
        }
        let most = last - first + 1;
        let announced = header(&parts.headers, CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
        match announced {
            Some(announced) if announced != most => {
                let said = format!("the range has {most} bytes and the content {announced}");
                Err(Refusal::bad("SIZE_INVALID", said))
            }
            _ => Ok(most),
        }
    }
}

/// `Content-Range: FIRST-LAST`, as the specification has it; also in HTTP's own form.
fn range(parts: &Parts) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(text) = header(&parts.headers, CONTENT_RANGE) else { return Ok(None) };
    let bare = text.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let bare = bare.split('/').next().unwrap_or_default();
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let pair = bare.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
    match pair {
        // Beyond i64 nothing is counted anywhere.
        Some((first, last)) if last >= first && last <= i64::MAX as u64 => Ok(Some((first, last))),
        _ => Err(Refusal::bad("BLOB_UPLOAD_INVALID", "`Content-Range` is not `FIRST-LAST`")),
    }
}
