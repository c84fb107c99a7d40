//! Answers that say no, in the form that the specification wants.

use std::error::Error;
use std::io::ErrorKind;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::error::chain;
use crate::http::{Body, Broken};

/// A request that is not met.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    /// One of the specification's codes.
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the server's log only.
    pub fault: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new(), fault: None }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(crate) fn busy(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
            .with(hyper::header::RETRY_AFTER, &seconds.to_string())
    }

    pub(crate) fn digest(message: impl Into<String>) -> Self {
        Self::bad("DIGEST_INVALID", message)
    }

    /// A fault of ours: the client is told that there is one, the log which.
    pub(crate) fn internal(error: &dyn Error) -> Self {
        let mut refusal =
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the server could not do it; its log says why");
        refusal.fault = Some(chain(error));
        refusal
    }

    pub(crate) fn answer(self) -> Response<Body> {
        let errors = serde_json::json!({ "errors": [{ "code": self.code, "message": self.message }] });
        let mut response = Response::new(Body::Bytes(errors.to_string().into()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Slow => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "BLOB_UPLOAD_INVALID",
                "the content comes too slowly to be waited for",
            ),
            Broken::Gone => Self::bad("BLOB_UPLOAD_INVALID", "the content broke off"),
        }
    }
}

impl From<crate::ServeError> for Refusal {
    fn from(error: crate::ServeError) -> Self {
        match error {
            crate::ServeError::Path(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<igloo_base::PathError> for Refusal {
    fn from(error: igloo_base::PathError) -> Self {
        let mut refusal = Self::internal(&error);
        if matches!(error.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            refusal.status = StatusCode::INSUFFICIENT_STORAGE;
            refusal.message = "the server has no room for this".to_owned();
        }
        refusal
    }
}

impl From<tokio::task::JoinError> for Refusal {
    /// Something of ours panicked.
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(&error)
    }
}
