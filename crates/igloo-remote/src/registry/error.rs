//! What can go wrong between here and a registry. Everything a registry said is cleaned and cut before it is shown.

use std::io;
use std::path::PathBuf;

use igloo_formats::oci::{Descriptor, Digest};

use crate::RemoteError;

/// The longest text of a registry's that is shown.
const MAX_SAID: usize = 300;

/// An act on a registry that failed. `what` is what was asked for, as a person would say it, the repository in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A proxy, a certificate, an address.
    #[error(transparent)]
    Client(#[from] RemoteError),
    /// Not the name of a registry.
    #[error("`{host}` is not the name of a registry (`host` or `host:port`)")]
    Host {
        /// What was given.
        host: String,
    },
    /// Not a repository, a tag or a digest.
    #[error("`{name}` is not the name of a repository, a tag or a digest")]
    Name {
        /// What was given.
        name: String,
    },
    /// No connection, or one that broke, after all attempts.
    #[error("cannot reach the registry {host} for {what}")]
    Connection {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// What happened.
        source: Box<RemoteError>,
    },
    /// Content that broke off, after all attempts.
    #[error("the registry {host} broke off while it sent {what}")]
    Broken {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// What happened.
        source: io::Error,
    },
    /// Content that trickles.
    #[error("the registry {host} sends {what} too slowly to be waited for")]
    Slow {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry does not have it.
    #[error("the registry {host} does not have {what}{said}")]
    NotFound {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words, or nothing.
        said: Said,
    },
    /// No login, or one that is not accepted.
    #[error("the registry {host} wants a login for {what}{said}; {next}")]
    Unauthorized {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words, or nothing.
        said: Said,
        /// What to do.
        next: &'static str,
    },
    /// The login is good, but not for this.
    #[error(
        "the registry {host} does not allow {what}{said}; log in as somebody who may, or check the repository's name"
    )]
    Forbidden {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words, or nothing.
        said: Said,
    },
    /// Too many requests, after all attempts.
    #[error("the registry {host} is asked too often{said}; try again {}", again(*.after))]
    Busy {
        /// Whom was spoken to.
        host: String,
        /// The registry's own words, or nothing.
        said: Said,
        /// Seconds to wait, when it said so.
        after: Option<u64>,
    },
    /// Any other status.
    #[error("the registry {host} answered {status} for {what}{said}")]
    Status {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, or nothing.
        said: Said,
    },
    /// A challenge that cannot be met.
    #[error("cannot log in to the registry {host}: {why}")]
    Challenge {
        /// Whom was spoken to.
        host: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A token server that is not asked, or did not give a token.
    #[error("cannot get a token for the registry {host} from `{realm}`: {why}{said}")]
    Token {
        /// Whom was spoken to.
        host: String,
        /// The token server's address, without its query.
        realm: String,
        /// Why not.
        why: String,
        /// Its own words, or nothing.
        said: Said,
    },
    /// A credential helper that failed.
    #[error("the credential helper `{name}` failed: {why}")]
    Helper {
        /// The program.
        name: String,
        /// How.
        why: String,
    },
    /// A file of logins that cannot be understood.
    #[error("cannot understand the logins in `{}`: {why}", path.display())]
    Logins {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A redirection, or a place to upload to, that is not followed.
    #[error("the registry {host} sends {what} to `{to}`: {why}")]
    Redirect {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// Where it wants to send us, without its query.
        to: String,
        /// Why we do not go there.
        why: &'static str,
    },
    /// An answer larger than such an answer may be.
    #[error("the registry {host} sends more than {limit} bytes for {what}")]
    TooLarge {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The most that is read.
        limit: u64,
    },
    /// Content of another length than its descriptor says.
    #[error("the registry {host} sends {found} bytes for {what} where {expected} were expected")]
    Size {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The descriptor's length.
        expected: u64,
        /// The length that is there; one more than expected if reading stopped there.
        found: u64,
    },
    /// Content of another digest than asked for.
    #[error("the registry {host} sends {found} for {what} where {expected} was expected")]
    Digest {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Content of a kind that is no image.
    #[error("the registry {host} has {what} as `{found}`, which is not {wanted}")]
    MediaType {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// The media type.
        found: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// An answer that is not what the specification says.
    #[error("cannot understand what the registry {host} says of {what}")]
    Document {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An answer that breaks the protocol.
    #[error("the registry {host} answers {what} wrongly: {why}")]
    Protocol {
        /// Whom was spoken to.
        host: String,
        /// What was asked for.
        what: String,
        /// How.
        why: &'static str,
    },
    /// No image for a platform.
    #[error("{what} has no image for {wanted} (it has {})", available.join(", "))]
    Platform {
        /// What was asked for, the host in it.
        what: String,
        /// `linux/arm64`.
        wanted: String,
        /// Those it has, as many as are worth showing.
        available: Vec<String>,
    },
    /// A blob of ours that could not be read.
    #[error("cannot read {digest}, which is to be uploaded")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: io::Error,
    },
    /// A blob that could not be stored.
    #[error("cannot store {digest}")]
    Sink {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: io::Error,
    },
}

impl RegistryError {
    /// A descriptor's reader or writer that failed, by which it was.
    pub(super) fn sink(descriptor: &Descriptor, source: io::Error) -> Self {
        Self::Sink { digest: descriptor.digest, source }
    }

    /// The codes of the registry's own error list.
    pub(super) fn codes(&self) -> &[String] {
        match self {
            Self::NotFound { said, .. }
            | Self::Unauthorized { said, .. }
            | Self::Forbidden { said, .. }
            | Self::Busy { said, .. }
            | Self::Status { said, .. } => &said.codes,
            _ => &[],
        }
    }

    /// Seconds that the registry wants us to wait.
    pub(super) fn after(&self) -> Option<u64> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// The status, where that is what the error is about.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::NotFound { .. } => Some(404),
            Self::Unauthorized { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::Busy { .. } => Some(429),
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn again(after: Option<u64>) -> String {
    match after {
        Some(seconds) => format!("in {seconds} s"),
        None => "later".to_owned(),
    }
}

/// What a registry said about an error: nothing, or `: CODE: message`, without control characters, not too long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    codes: Vec<String>,
    text: String,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.text),
        }
    }
}

impl Said {
    /// Reads the error list of the distribution specification, a token server's `error`, or a few words of plain text.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct List {
            #[serde(default)]
            errors: Vec<One>,
            #[serde(default)]
            error: Option<serde_json::Value>,
            #[serde(default)]
            error_description: Option<String>,
            #[serde(default)]
            details: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: Option<serde_json::Value>,
            #[serde(default)]
            message: Option<String>,
        }
        let word = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => clean(text, 60),
            other => clean(&other.to_string(), 60),
        };
        let Ok(list) = serde_json::from_slice::<List>(body) else {
            let plain = content_type.starts_with("text/plain");
            let text = if plain { clean(&String::from_utf8_lossy(body), MAX_SAID) } else { String::new() };
            return Self { codes: Vec::new(), text };
        };
        let mut codes = Vec::new();
        let mut parts = Vec::new();
        for one in list.errors.iter().take(5) {
            let code = one.code.as_ref().map(word).unwrap_or_default();
            let message = one.message.as_deref().map(|m| clean(m, MAX_SAID)).unwrap_or_default();
            parts.push(
                [code.as_str(), message.as_str()].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": "),
            );
            codes.push(code);
        }
        let told = list.error.as_ref().map(word).into_iter().chain(list.error_description).chain(list.details);
        parts.extend(told.map(|text| clean(&text, MAX_SAID)));
        parts.retain(|part| !part.is_empty());
        Self { codes, text: clean(&parts.join("; "), MAX_SAID) }
    }
}

/// A foreign text that may be shown: control characters and what turns text around become blanks.
pub(super) fn clean(text: &str, most: usize) -> String {
    let harmless = |c: char| match c {
        c if c.is_control() => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => ' ',
        c => c,
    };
    let words: String = text.chars().take(4 * most).map(harmless).collect();
    let mut out = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if out.chars().count() > most {
        out = out.chars().take(most).collect::<String>() + "…";
    }
    out
}

/// An address that may be shown: tokens and states of uploads stand in queries, passwords before an `@`.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let bare = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{}", path.map(|p| format!("/{p}")).unwrap_or_default())
        }
        None => url.to_owned(),
    };
    clean(&bare, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_registries_are_read_and_cleaned() {
        let said = |body: &str| Said::read("application/json", body.as_bytes()).to_string();
        let denied = r#"{"errors":[{"code":"DENIED","message":"not\n\u001b[31mallowed","detail":{"a":1}}]}"#;
        assert_eq!(said(denied), ": DENIED: not [31mallowed");
        assert_eq!(said(r#"{"details":"incorrect username or password"}"#), ": incorrect username or password");
        assert_eq!(said("<html>no</html>"), "");
        assert_eq!(said("{}"), "");
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "y".repeat(5000));
        assert!(said(&long).chars().count() <= MAX_SAID + 3);
        assert_eq!(Said::read("text/plain; charset=utf-8", b"go away\n").to_string(), ": go away");
    }

    #[test]
    fn what_is_secret_in_an_address_is_not_shown() {
        assert_eq!(shown("https://u:p@h.example/a?token=x#y"), "https://h.example/a");
        assert_eq!(shown("https://u:p@h.example"), "https://h.example");
        assert_eq!(shown("/a?_state=x"), "/a");
    }
}
