//! Requests and their answers.

mod blob;
mod lists;
mod manifest;
mod upload;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use igloo_base::{Event, Reporter};
use tokio::task::spawn_blocking;

use super::adhoc::Images;
use super::metrics::Metrics;
use super::name::Repository;
use super::refusal::Refusal;
use super::route::Route;
use super::storage::Storage;
use super::tokens::{Principal, Right, Tokens, presented};
use super::upload::Uploads;
use super::{Options, ServeError};
use crate::http::{Body, Frames, Service};

/// What is read of a body that nobody wants, so that the client hears the answer.
const MAX_DULL: u64 = 1 << 20;
/// How long that may take.
const DULL: Duration = Duration::from_secs(2);

/// The digest of an answer's content.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Tells clients of registries that this is one.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The number of an upload, for clients of docker's.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// A registry at work.
pub(crate) struct App {
    pub storage: Storage,
    pub uploads: Uploads,
    tokens: Option<Tokens>,
    images: Option<Arc<Images>>,
    metrics: Arc<Metrics>,
    pub reporter: Arc<dyn Reporter>,
    allow_delete: bool,
    idle: Duration,
}

impl App {
    pub(crate) fn new(options: &Options, storage: Storage, reporter: Arc<dyn Reporter>) -> Result<Self, ServeError> {
        let uploads = Uploads::open(&storage, options.max_uploads, options.max_upload, options.upload_expiry)?;
        let tokens = options.tokens.as_deref().map(Tokens::open).transpose()?;
        let metrics = Arc::new(Metrics::default());
        let images = options.adhoc.clone();
        let images = images.map(|adhoc| Arc::new(Images::new(adhoc, Arc::clone(&reporter), Arc::clone(&metrics))));
        let (allow_delete, idle) = (options.allow_delete, options.idle);
        Ok(Self { storage, uploads, tokens, images, metrics, reporter, allow_delete, idle })
    }

    /// Who asks; without tokens, that is decided by where they ask from.
    fn principal(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Principal, Refusal> {
        let Some(tokens) = &self.tokens else {
            let right = if is_local(headers, peer) { Right::Admin } else { Right::Pull };
            return Ok(Principal { name: None, right, prefix: None });
        };
        let token = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(presented);
        match token {
            None => Err(unauthorized("log in with a token as password")),
            Some(token) => tokens
                .find(&token, &*self.reporter)
                .ok_or_else(|| unauthorized("there is no such token; make one with `igloo registry token`")),
        }
    }

    fn allow(&self, principal: &Principal, right: Right, repository: &Repository) -> Result<(), Refusal> {
        if principal.may(right, repository) {
            return Ok(());
        }
        let said = match self.tokens {
            Some(_) => format!("this token is not good for `{}` in `{repository}`", right.name()),
            None => format!(
                "without tokens, `{}` is for clients on the server's own machine; start it with `--tokens`",
                right.name()
            ),
        };
        Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", said))
    }

    async fn answer(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        peer: IpAddr,
        who: &mut Option<String>,
    ) -> Result<Response<Body>, Refusal> {
        let route = Route::parse(parts.uri.path())?;
        let method = &parts.method;
        if route == Route::Health {
            return self.health(method).await;
        }
        let principal = self.principal(&parts.headers, peer)?;
        who.clone_from(&principal.name);
        let right = match (method, &route) {
            (&Method::GET | &Method::HEAD, Route::Upload(..)) => Right::Push,
            (&Method::GET | &Method::HEAD, _) => Right::Pull,
            (&Method::DELETE, Route::Manifest(..) | Route::Blob(..)) => Right::Admin,
            _ => Right::Push,
        };
        if let Some(repository) = route.repository() {
            self.allow(&principal, right, repository)?;
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match route {
            Route::Health => self.health(method).await,
            Route::Base if reads => Ok(json(&serde_json::json!({}))),
            Route::Metrics if reads => self.metrics(&principal).await,
            Route::Catalog if reads => self.catalog(parts, &principal).await,
            Route::Tags(name) if reads => self.tags(parts, name).await,
            Route::Referrers(name, subject) if reads => self.referrers(parts, name, subject).await,
            Route::Manifest(name, selector) => match *method {
                Method::GET | Method::HEAD => self.get_manifest(parts, name, selector).await,
                Method::PUT => self.put_manifest(parts, body, name, selector).await,
                Method::DELETE => self.delete_manifest(name, selector).await,
                _ => Err(no_method()),
            },
            Route::Blob(name, digest) => match *method {
                Method::GET | Method::HEAD => self.get_blob(parts, name, digest).await,
                Method::DELETE => self.delete_blob(name, digest).await,
                _ => Err(no_method()),
            },
            Route::Uploads(name) if *method == Method::POST => self.begin(parts, body, name, &principal).await,
            Route::Upload(name, id) => match *method {
                Method::GET | Method::HEAD => self.status(name, id),
                Method::PATCH => self.patch(parts, body, name, id).await,
                Method::PUT => self.finish(parts, body, name, id).await,
                Method::DELETE => self.cancel(name, id).await,
                _ => Err(no_method()),
            },
            _ => Err(no_method()),
        }
    }

    async fn health(&self, method: &Method) -> Result<Response<Body>, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(no_method());
        }
        let directory = self.storage.blobs();
        let there = spawn_blocking(move || directory.is_dir()).await?;
        match there {
            true => Ok(text("ok\n".to_owned())),
            false => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", "the storage is not there")),
        }
    }

    /// For everybody on this machine, or who may see all repositories.
    async fn metrics(&self, principal: &Principal) -> Result<Response<Body>, Refusal> {
        let may = match self.tokens {
            Some(_) => principal.prefix.is_none(),
            None => principal.right > Right::Pull,
        };
        if !may {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", "metrics are for those who may see everything"));
        }
        let size = match self.metrics.size() {
            Some(size) => size,
            None => {
                let storage = self.storage.clone();
                let size = spawn_blocking(move || storage.size()).await??;
                self.metrics.set_size(size);
                size
            }
        };
        Ok(text(self.metrics.render(self.uploads.count(), size)))
    }

    /// Reads the body that nobody wanted, a little: a connection that is closed on a client that still sends may take
    /// the answer with it.
    async fn drain(&self, parts: &Parts, body: &mut Incoming) {
        // Who waits to be told to go on has sent nothing yet.
        if parts.headers.contains_key(EXPECT) || hyper::body::Body::is_end_stream(body) {
            return;
        }
        let mut frames = Frames::new(body, DULL);
        let mut left = MAX_DULL;
        let all = async {
            while let Ok(Some(bytes)) = frames.next().await {
                left = left.saturating_sub(bytes.len() as u64);
                if left == 0 {
                    break;
                }
            }
        };
        // Late is as good as never.
        let _ = tokio::time::timeout(DULL, all).await;
    }

    async fn exchange(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let start = Instant::now();
        let (parts, mut body) = request.into_parts();
        let mut who = None;
        let answered = self.answer(&parts, &mut body, peer, &mut who).await;
        let refused = answered.is_err();
        let mut response = answered.unwrap_or_else(|refusal| {
            if let Some(fault) = &refusal.fault {
                let text = format!("{} {}: {fault}", parts.method, parts.uri.path());
                self.reporter.event(Event::Warning { text, hint: None });
            }
            refusal.answer()
        });
        if refused {
            self.drain(&parts, &mut body).await;
        }
        if parts.method == Method::HEAD {
            let length = response.body().len();
            response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
            *response.body_mut() = Body::empty();
        }
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        let (status, sent) = (response.status().as_u16(), response.body().len());
        let label = Route::parse(parts.uri.path()).map_or("none", |route| route.label());
        self.metrics.count(label, parts.method.as_str(), status);
        self.metrics.sent.fetch_add(sent, Ordering::Relaxed);
        let who = who.map(|name| format!(" {name}")).unwrap_or_default();
        let (method, path, took) = (&parts.method, parts.uri.path(), start.elapsed().as_millis());
        let path: String = path.chars().take(400).collect();
        self.reporter.event(Event::Note { text: format!("{peer}{who} {method} {path} {status} {sent} B {took} ms") });
        response
    }
}

impl Service for App {
    async fn call(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        // A task of its own ends what it began though the client goes away, and keeps a panic to itself.
        match tokio::spawn(Arc::clone(&self).exchange(request, peer)).await {
            Ok(response) => response,
            Err(failed) => {
                let text = format!("a request failed: {failed}");
                self.reporter.event(Event::Warning { text, hint: Some("report it as a fault of igloo".to_owned()) });
                Refusal::from(failed).answer()
            }
        }
    }
}

/// Whether a request comes from this machine, and neither through a proxy nor from a page in a browser: those say their
/// origin with everything that changes something.
fn is_local(headers: &HeaderMap, peer: IpAddr) -> bool {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    peer.is_loopback() && !forwarded && !headers.contains_key(ORIGIN)
}

fn unauthorized(said: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", said)
        .with(WWW_AUTHENTICATE, "Basic realm=\"igloo registry\", charset=\"UTF-8\"")
}

fn no_method() -> Refusal {
    Refusal::unsupported("this can't be done here")
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    // Values of ours always have a JSON form.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    with_type(bytes.into(), "application/json")
}

fn text(text: String) -> Response<Body> {
    with_type(text.into(), "text/plain; version=0.0.4; charset=utf-8")
}

fn with_type(bytes: hyper::body::Bytes, media_type: &str) -> Response<Body> {
    let mut response = Response::new(Body::Bytes(bytes));
    set(&mut response, CONTENT_TYPE, media_type);
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// Sets a header; what is no header's value was nothing that a client sent.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
