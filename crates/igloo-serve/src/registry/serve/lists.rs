//! Lists: repositories, tags, what refers to an image. Pages are told by `Link`.

use std::sync::Arc;

use hyper::Response;
use hyper::header::{HeaderName, LINK};
use hyper::http::request::Parts;
use igloo_formats::oci::{Digest, media};
use tokio::task::spawn_blocking;

use super::super::name::Repository;
use super::super::refusal::Refusal;
use super::super::route::parameter;
use super::super::storage::order;
use super::super::tokens::Principal;
use super::{App, json, set, with_type};
use crate::http::Body;

/// Most entries of a page.
const MAX_PAGE: usize = 10_000;
/// Bytes of a page of referrers: an index is a manifest, of which clients read 4 MiB.
const MAX_BYTES: usize = 3 << 20;

/// Which referrers were left out.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A page of a sorted list, and what the next one begins after.
struct Page {
    entries: Vec<String>,
    next: Option<String>,
}

fn page(parts: &Parts, mut all: Vec<String>) -> Result<Page, Refusal> {
    let query = parts.uri.query();
    let most = match parameter(query, "n") {
        None => MAX_PAGE,
        Some(n) => n
            .parse::<usize>()
            .map_err(|_| Refusal::bad("PAGINATION_NUMBER_INVALID", "`n` is not a number of entries"))?
            .min(MAX_PAGE),
    };
    if let Some(last) = parameter(query, "last") {
        let last = order(&last);
        all.retain(|entry| order(entry) > last);
    }
    let more = all.len() > most;
    all.truncate(most);
    // A page of nothing leads nowhere.
    let next = all.last().filter(|_| more).map(|last| format!("n={most}&last={last}"));
    Ok(Page { entries: all, next })
}

fn link(response: &mut Response<Body>, path: &str, next: Option<String>) {
    if let Some(next) = next {
        set(response, LINK, &format!("<{path}?{next}>; rel=\"next\""));
    }
}

impl App {
    pub(super) async fn catalog(&self, parts: &Parts, principal: &Principal) -> Result<Response<Body>, Refusal> {
        let storage = self.storage.clone();
        let all = spawn_blocking(move || storage.all()).await??;
        let mut seen: Vec<String> = all.iter().filter(|name| principal.sees(name)).map(Repository::to_string).collect();
        seen.sort_by_cached_key(|name| order(name));
        let Page { entries, next } = page(parts, seen)?;
        let mut response = json(&serde_json::json!({ "repositories": entries }));
        link(&mut response, "/v2/_catalog", next);
        Ok(response)
    }

    pub(super) async fn tags(&self, parts: &Parts, name: Repository) -> Result<Response<Body>, Refusal> {
        let (storage, asked) = (self.storage.clone(), name.clone());
        let found = spawn_blocking(move || match storage.exists(&asked)? {
            true => storage.tags(&asked).map(Some),
            false => Ok(None),
        });
        let unknown = || Refusal::missing("NAME_UNKNOWN", format!("nothing was pushed as `{name}`"));
        let Page { entries, next } = page(parts, found.await??.ok_or_else(unknown)?)?;
        let mut response = json(&serde_json::json!({ "name": name.as_str(), "tags": entries }));
        link(&mut response, &format!("/v2/{name}/tags/list"), next);
        Ok(response)
    }

    pub(super) async fn referrers(
        self: &Arc<Self>,
        parts: &Parts,
        name: Repository,
        subject: Digest,
    ) -> Result<Response<Body>, Refusal> {
        let query = parts.uri.query();
        let kind = parameter(query, "artifactType");
        let after = parameter(query, "last").and_then(|last| last.parse::<Digest>().ok());
        let (storage, asked) = (self.storage.clone(), name.clone());
        let mut all = spawn_blocking(move || storage.referrers(&asked, &subject)).await??;
        all.retain(|one| kind.is_none() || one.artifact_type == kind);
        all.retain(|one| after.is_none_or(|after| one.digest > after));
        let mut bytes = 0;
        let mut next = None;
        let mut shown = Vec::new();
        for one in all {
            let value = serde_json::to_value(&one).map_err(|e| Refusal::internal(&e))?;
            bytes += value.to_string().len();
            if bytes > MAX_BYTES && !shown.is_empty() {
                next = shown.last().map(|(last, _): &(Digest, _)| format!("last={last}"));
                break;
            }
            shown.push((one.digest, value));
        }
        let manifests: Vec<serde_json::Value> = shown.into_iter().map(|(_, value)| value).collect();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": manifests });
        let mut response = with_type(index.to_string().into(), media::INDEX);
        if kind.is_some() {
            set(&mut response, FILTERS, "artifactType");
        }
        let kind = kind.map(|kind| format!("&artifactType={}", escape(&kind))).unwrap_or_default();
        link(&mut response, &format!("/v2/{name}/referrers/{subject}"), next.map(|next| next + &kind));
        Ok(response)
    }
}

/// A text as a value in a query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
