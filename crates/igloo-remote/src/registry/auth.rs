//! Challenges and tokens (RFC 6750, RFC 7235, docker's token specification).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Method, Uri};

use super::credentials::Secret;
use super::error::{RegistryError, Said, shown};
use super::{Registry, call};
use crate::RemoteError;
use crate::client::{Ask, Content, base64, url};

/// Largest answer of a token server.
const MAX_ANSWER: u64 = 256 << 10;
/// The longest token: what fits a header of any server.
const MAX_TOKEN: usize = 64 << 10;
/// The life of a token whose server says nothing, as docker's specification has it.
const LIFE: u64 = 60;
/// No token is kept longer, whatever its server says.
const LONGEST: u64 = 24 * 3600;
/// A token this close to its end is replaced first.
const MARGIN: Duration = Duration::from_secs(5);

/// What is known of a registry's way to let people in.
#[derive(Default)]
pub(super) struct Auth {
    state: Mutex<State>,
    /// Held while somebody logs in, so that those who were refused together log in once.
    login: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The whole header, of a registry that wants the login or a token of its own itself.
    fixed: Option<String>,
    /// The token server.
    bearer: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, (String, Instant)>,
}

/// One challenge of a `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    values: HashMap<String, String>,
}

impl Challenge {
    fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request needs to be allowed: actions on repositories, as token servers write it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scope {
    /// The repository whose login is used.
    pub(super) repository: String,
    /// `repository:NAME:pull,push`, several for a mount.
    pub(super) parts: Vec<String>,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), parts: vec![format!("repository:{repository}:pull")] }
    }

    /// To push to one repository and mount from others.
    pub(super) fn push(repository: &str, from: &[String]) -> Self {
        let mut parts = vec![format!("repository:{repository}:pull,push")];
        parts.extend(from.iter().filter(|f| *f != repository).map(|f| format!("repository:{f}:pull")));
        Self { repository: repository.to_owned(), parts }
    }

    fn key(&self) -> String {
        self.parts.join(" ")
    }
}

impl Registry {
    /// The `Authorization` for a scope, as far as it is known how this registry wants it.
    pub(super) fn ready(&self, scope: &Scope) -> Result<Option<String>, RegistryError> {
        let known = self.known(scope);
        // A token server that is known is asked before the registry refuses once more.
        if known.is_none() && lock(&self.inner.auth.state).bearer.is_some() {
            return self.login(scope, None, &[]).map(Some);
        }
        Ok(known)
    }

    fn known(&self, scope: &Scope) -> Option<String> {
        let state = lock(&self.inner.auth.state);
        if state.fixed.is_some() {
            return state.fixed.clone();
        }
        let (token, end) = state.tokens.get(&scope.key())?;
        (Instant::now() + MARGIN < *end).then(|| format!("Bearer {token}"))
    }

    /// Logs in after a refusal: `refused` is what was sent, `headers` are the values of `WWW-Authenticate`.
    pub(super) fn login(
        &self,
        scope: &Scope,
        refused: Option<&str>,
        headers: &[String],
    ) -> Result<String, RegistryError> {
        let _one = lock(&self.inner.auth.login);
        if let Some(known) = self.known(scope).filter(|known| Some(known.as_str()) != refused) {
            return Ok(known);
        }
        let challenges: Vec<Challenge> = headers.iter().flat_map(|header| parse(header)).collect();
        let named = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme).cloned();
        let bearer =
            named("bearer").or_else(|| lock(&self.inner.auth.state).bearer.clone().filter(|_| headers.is_empty()));
        let secret = self.config().credentials.find(self.host(), &scope.repository)?;
        let unauthorized = |next| RegistryError::Unauthorized {
            host: self.host().to_owned(),
            what: format!("`{}`", scope.repository),
            said: Said::default(),
            next,
        };
        let fixed = match (&secret, bearer) {
            (Some(Secret::Bearer(token)), _) => header("Bearer", token),
            (_, Some(challenge)) => {
                let token = self.token(&challenge, scope, secret.as_ref())?;
                let header = format!("Bearer {}", token.0);
                let mut state = lock(&self.inner.auth.state);
                state.bearer = Some(challenge);
                state.tokens.insert(scope.key(), token);
                return Ok(header);
            }
            (Some(Secret::Login { user, password }), None) if named("basic").is_some() => {
                header("Basic", &base64::encode(format!("{user}:{password}").as_bytes()))
            }
            (None, None) if named("basic").is_some() => return Err(unauthorized(call::LOG_IN)),
            (Some(Secret::Identity(_)), None) if named("basic").is_some() => {
                return Err(unauthorized("it takes no tokens; log in with a user name and a password"));
            }
            _ => {
                let why = "it refuses without saying how to log in";
                return Err(RegistryError::Challenge { host: self.host().to_owned(), why });
            }
        };
        let Some(fixed) = fixed else {
            return Err(unauthorized("the token has characters that no token has; log in again"));
        };
        lock(&self.inner.auth.state).fixed = Some(fixed.clone());
        Ok(fixed)
    }

    /// Whether the registry was given anything that says who we are.
    pub(super) fn is_anonymous(&self, scope: &Scope) -> bool {
        matches!(self.config().credentials.find(self.host(), &scope.repository), Ok(None))
    }

    /// Asks the token server.
    fn token(
        &self,
        challenge: &Challenge,
        scope: &Scope,
        secret: Option<&Secret>,
    ) -> Result<(String, Instant), RegistryError> {
        let realm = challenge.value("realm");
        let failed =
            |why: String, said| RegistryError::Token { host: self.host().to_owned(), realm: shown(realm), why, said };
        let plainly = |why: &str| failed(why.to_owned(), Said::default());
        let uri: Uri = url::parse(realm).map_err(|_| plainly("this is no address; the registry is set up wrongly"))?;
        if realm.contains('#') || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(plainly("this is no address; the registry is set up wrongly"));
        }
        if uri.scheme_str() != Some("https") {
            if self.is_tls() {
                return Err(plainly("it is not encrypted, although the registry is"));
            }
            // A login goes in plain text to the registry's own host, where the caller allowed it, and nowhere else.
            if secret.is_some() && !self.is_own_host(&uri) {
                return Err(plainly("it is on another host and not encrypted, so your login is not sent there"));
            }
        }
        // The registry may know the repository by another name than we do.
        let mut parts = scope.parts.clone();
        let resource = |part: &str| part.rsplit_once(':').map(|(name, _)| name.to_owned());
        for part in challenge.value("scope").split(' ').filter(|p| !p.is_empty()).take(4) {
            if !parts.iter().any(|p| resource(p) == resource(part)) {
                parts.push(part.to_owned());
            }
        }
        let service = challenge.value("service");
        let whole = Some(self.config().patience);
        let agent = self.config().user_agent.as_str();
        let mut answer = match secret {
            Some(Secret::Identity(token)) => {
                let mut form = format!("grant_type=refresh_token&client_id=igloo&refresh_token={}", escape(token));
                form += &format!("&service={}&scope={}", escape(service), escape(&parts.join(" ")));
                let kind = ("Content-Type", "application/x-www-form-urlencoded");
                let content = Content::Bytes(form.as_bytes());
                let headers = &[kind, ("User-Agent", agent)];
                self.inner.client.retry(|| {
                    let content = match &content {
                        Content::Bytes(bytes) => Content::Bytes(bytes),
                        _ => Content::None,
                    };
                    server(self.inner.client.exchange(Ask {
                        method: Method::POST,
                        url: realm,
                        headers,
                        content,
                        whole,
                        answer: None,
                    }))
                })
            }
            other => {
                let mut asked =
                    format!("{realm}{}service={}", if realm.contains('?') { '&' } else { '?' }, escape(service));
                parts.iter().for_each(|part| asked += &format!("&scope={}", escape(part)));
                let basic = match other {
                    Some(Secret::Login { user, password }) => {
                        asked += &format!("&account={}", escape(user));
                        format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
                    }
                    _ => String::new(),
                };
                let mut headers = vec![("User-Agent", agent)];
                headers.extend((!basic.is_empty()).then_some(("Authorization", basic.as_str())));
                self.inner.client.retry(|| {
                    let content = Content::None;
                    let ask = Ask { method: Method::GET, url: &asked, headers: &headers, content, whole, answer: None };
                    server(self.inner.client.exchange(ask))
                })
            }
        }
        .map_err(|error| match error {
            RemoteError::Status { status, .. } => failed(format!("it answered {status}"), Said::default()),
            source => {
                // Its own words would show the address with all that was asked.
                let cause = std::error::Error::source(&source).map_or_else(String::new, |s| format!(" ({s})"));
                failed(format!("it cannot be reached{cause}"), Said::default())
            }
        })?;
        let status = answer.status;
        let body = call::read_capped(&mut answer.reader(), MAX_ANSWER)
            .map_err(|e| failed(format!("its answer broke off ({})", e.kind()), Said::default()))?
            .ok_or_else(|| plainly("its answer is too long"))?;
        if matches!(status, 401 | 403) && secret.is_some() {
            let said = Said::read(answer.header("content-type").unwrap_or_default(), &body);
            return Err(failed("it does not accept the login; log in again".to_owned(), said));
        }
        if matches!(status, 401 | 403) {
            let said = Said::read(answer.header("content-type").unwrap_or_default(), &body);
            return Err(failed("it wants a login; log in to the registry first".to_owned(), said));
        }
        if status != 200 {
            let said = Said::read(answer.header("content-type").unwrap_or_default(), &body);
            return Err(failed(format!("it answered {status}"), said));
        }
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<f64>,
        }
        let token: Token = serde_json::from_slice(&body).map_err(|_| plainly("its answer is no token"))?;
        let life = token.expires_in.filter(|s| *s > 0.0).map_or(LIFE, |s| s as u64).clamp(1, LONGEST);
        let value = token.token.filter(|t| !t.is_empty()).or(token.access_token).unwrap_or_default();
        if value.is_empty() || value.len() > MAX_TOKEN || !value.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(plainly("its answer is no token"));
        }
        Ok((value, Instant::now() + Duration::from_secs(life)))
    }

    /// The registry's host, on whatever port; this machine has many names.
    fn is_own_host(&self, uri: &Uri) -> bool {
        let Ok(own) = self.host().parse::<ureq::http::uri::Authority>() else { return false };
        let other = url::host(uri);
        own.host().eq_ignore_ascii_case(other) || (url::is_loopback(own.host()) && url::is_loopback(other))
    }
}

/// An overloaded token server is asked again.
fn server(answer: Result<crate::client::Answer, RemoteError>) -> Result<crate::client::Answer, RemoteError> {
    match answer {
        Ok(answer) if matches!(answer.status, 429 | 500 | 502 | 503 | 504) => {
            Err(RemoteError::Status { url: String::new(), status: answer.status })
        }
        other => other,
    }
}

fn header(scheme: &str, value: &str) -> Option<String> {
    (!value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic())).then(|| format!("{scheme} {value}"))
}

/// For queries and forms.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The challenges of one header, several of which may stand behind one another.
fn parse(header: &str) -> Vec<Challenge> {
    // Real ones are a few hundred bytes.
    let header: String = header.chars().take(8 << 10).collect();
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = read_value(value);
                if let Some(last) = challenges.last_mut() {
                    last.values.entry(word.to_ascii_lowercase()).or_insert(value);
                }
                rest = after;
            }
            None => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), values: HashMap::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
        if word.is_empty() {
            // Not as the grammar has it; what was read before stands.
            break;
        }
    }
    challenges
}

/// A word or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_in_all_their_forms() {
        let parsed = parse(r#"Bearer realm="https://a.example/t",service="a",scope="repository:x:pull,push""#);
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].scheme, "bearer");
        assert_eq!(parsed[0].value("realm"), "https://a.example/t");
        assert_eq!(parsed[0].value("scope"), "repository:x:pull,push");
        let parsed = parse(r#"Basic realm="a \"b\" c", Bearer realm=https://h/t , service=s"#);
        assert_eq!(parsed.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!(parsed[0].value("realm"), "a \"b\" c");
        assert_eq!((parsed[1].value("realm"), parsed[1].value("service")), ("https://h/t", "s"));
        for odd in ["", ",", "=", "Bearer realm=\"", "Bearer realm", "\"", "Bearer =x,,= ="] {
            let _ = parse(odd);
        }
        assert_eq!(parse("Negotiate")[0].scheme, "negotiate");
    }

    #[test]
    fn what_is_asked_of_token_servers_is_escaped() {
        assert_eq!(escape("repository:a/b:pull,push"), "repository%3Aa%2Fb%3Apull%2Cpush");
        assert_eq!(escape("a&b=c d"), "a%26b%3Dc%20d");
    }
}
