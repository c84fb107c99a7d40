//! Who may do what: a file of tokens, of which only the digests are kept.
//!
//! One token a line: `NAME SHA256-OF-TOKEN pull|push|admin [PREFIX]`; `#` begins a comment. `push` may pull as well,
//! `admin` may delete as well. With a prefix a token is good for the repository of that name and those below it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use igloo_base::file::read_optional;
use igloo_base::{Event, Reporter, Sha256};

use super::name::Repository;
use crate::error::{ServeError, chain};

/// Largest file of tokens.
const MAX_FILE: usize = 1 << 20;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What somebody may do; each right includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Delete.
    Admin,
}

impl Right {
    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Right::Pull => "pull",
            Right::Push => "push",
            Right::Admin => "admin",
        }
    }
}

/// Who asks, and what they may do.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// The token's name, if there was one.
    pub name: Option<String>,
    /// The most they may do.
    pub right: Right,
    /// Where.
    pub prefix: Option<String>,
}

impl Principal {
    pub(crate) fn may(&self, right: Right, repository: &Repository) -> bool {
        self.right >= right && self.sees(repository)
    }

    /// Whether a repository is within the prefix.
    pub(crate) fn sees(&self, repository: &Repository) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| repository.is_below(prefix))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: String,
    digest: Sha256,
    right: Right,
    prefix: Option<String>,
}

/// The tokens of a file, read again when it changes.
pub(crate) struct Tokens {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    tokens: Vec<Token>,
    stamp: Option<(SystemTime, u64)>,
    looked: Instant,
}

impl Tokens {
    /// Reads the file, which must be there.
    pub(crate) fn open(path: &Path) -> Result<Self, ServeError> {
        let stamp = stamp(path);
        let state = State { tokens: read(path)?, stamp, looked: Instant::now() };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Whose token this is. A file that can't be read any more changes nothing: nobody is let in or locked out by an
    /// editor's half-written file.
    pub(crate) fn find(&self, token: &str, reporter: &dyn Reporter) -> Option<Principal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let now = stamp(&self.path);
            if now != state.stamp {
                state.stamp = now;
                match read(&self.path) {
                    Ok(tokens) => state.tokens = tokens,
                    Err(e) => reporter.event(Event::Warning {
                        text: chain(&e),
                        hint: Some("the tokens as they were before stay in use".to_owned()),
                    }),
                }
            }
        }
        // Digests are compared, of which nothing can be learnt from how long it takes.
        let digest = Sha256::of(token.as_bytes());
        let found = state.tokens.iter().find(|t| t.digest == digest)?;
        Some(Principal { name: Some(found.name.clone()), right: found.right, prefix: found.prefix.clone() })
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn read(path: &Path) -> Result<Vec<Token>, ServeError> {
    let at = |line: usize, why: &'static str| ServeError::Tokens { path: path.to_owned(), line, why };
    let bytes = read_optional(path)?.ok_or_else(|| at(1, "there is no such file; `igloo registry token` makes it"))?;
    if bytes.len() > MAX_FILE {
        return Err(at(1, "the file is larger than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| at(1, "the file is not UTF-8"))?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        tokens.push(token(&words).map_err(|why| at(number + 1, why))?);
    }
    Ok(tokens)
}

fn token(words: &[&str]) -> Result<Token, &'static str> {
    let [name, digest, right, prefix @ ..] = words else {
        return Err("a line is `NAME SHA256-OF-TOKEN pull|push|admin [PREFIX]`");
    };
    let right = [Right::Pull, Right::Push, Right::Admin].into_iter().find(|r| r.name() == *right);
    let prefix = match prefix {
        [] => None,
        [one] if one.parse::<Repository>().is_ok() => Some((*one).to_owned()),
        [_] => return Err("the prefix is not the name of a repository"),
        _ => return Err("there is something after the prefix"),
    };
    Ok(Token {
        name: (*name).to_owned(),
        digest: digest.parse().map_err(|_| "the second word is not a SHA-256 digest in hexadecimal")?,
        right: right.ok_or("the third word is none of `pull`, `push` and `admin`")?,
        prefix,
    })
}

/// The token in an `Authorization` header: the password of a login (whoever it says it is), or a bearer's.
pub(crate) fn presented(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let login = String::from_utf8(bytes).ok()?;
    login.split_once(':').map(|(_, password)| password.to_owned())
}

/// A new token, and the line that lets it in.
#[derive(Debug, serde::Serialize)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// What the client gives as password. Kept nowhere.
    pub token: String,
    /// The line of the file of tokens.
    pub line: String,
}

/// Makes a token of 256 random bits; adds its line to `file`, if one is given.
pub fn create(
    name: &str,
    right: Right,
    prefix: Option<&Repository>,
    file: Option<&Path>,
) -> Result<NewToken, ServeError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use igloo_base::At as _;

    let token = format!("igloo_{}", random()?);
    let digest = Sha256::of(token.as_bytes());
    let name: String = name.chars().filter(|c| !c.is_whitespace() && !c.is_control() && *c != '#').collect();
    let prefix = prefix.map(|p| format!(" {p}")).unwrap_or_default();
    let line = format!("{name} {digest} {}{prefix}", right.name());
    if let Some(path) = file {
        // What is there must be good, or the server would go on without the new one.
        let old = read_optional(path)?.unwrap_or_default();
        if !old.is_empty() {
            read(path)?;
        }
        let start = if old.is_empty() || old.ends_with(b"\n") { "" } else { "\n" };
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.append(true).create(true).mode(0o600).open(path).at("open", path)?;
        out.write_all(format!("{start}{line}\n").as_bytes()).at("write", path)?;
        out.sync_all().at("write", path)?;
    }
    Ok(NewToken { name, token, line })
}

/// 256 random bits, hexadecimal.
pub(crate) fn random() -> Result<String, ServeError> {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let more = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += more.map_err(|e| ServeError::Random(e.into()))?;
    }
    Ok(Sha256(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let digest = "0a".repeat(32);
        let good = token(&["ci", &digest, "push", "acme"]).expect("good");
        assert_eq!((good.name.as_str(), good.right, good.prefix.as_deref()), ("ci", Right::Push, Some("acme")));
        for bad in [
            vec!["ci"],
            vec!["ci", &digest],
            vec!["ci", "12", "push"],
            vec!["ci", &digest, "all"],
            vec!["ci", &digest, "push", "../a"],
            vec!["ci", &digest, "push", "a", "b"],
        ] {
            assert!(token(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn logins() {
        assert_eq!(presented("Bearer abc").as_deref(), Some("abc"));
        // `user:to:ken`
        assert_eq!(presented("Basic dXNlcjp0bzprZW4=").as_deref(), Some("to:ken"));
        assert_eq!(presented("Basic !!!"), None);
        assert_eq!(presented("Digest x"), None);
        assert_eq!(presented("Basic"), None);
    }

    #[test]
    fn a_prefix_is_whole_components() {
        let principal = Principal { name: None, right: Right::Push, prefix: Some("acme".into()) };
        let may = |name: &str| principal.may(Right::Push, &name.parse().expect("name"));
        assert!(may("acme") && may("acme/web") && !may("acme2/web") && !may("web"));
        assert!(!principal.may(Right::Admin, &"acme".parse().expect("name")));
    }

    #[test]
    fn created_tokens_are_found_and_kept_nowhere() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("tokens");
        std::fs::write(&file, "# ours").expect("write");
        let made = create("ci", Right::Push, None, Some(&file)).expect("create");
        let tokens = Tokens::open(&file).expect("open");
        let found = tokens.find(&made.token, &igloo_base::event::Silent).expect("found");
        assert_eq!((found.name.as_deref(), found.right), (Some("ci"), Right::Push));
        assert!(tokens.find("igloo_", &igloo_base::event::Silent).is_none());
        assert!(!std::fs::read_to_string(&file).expect("read").contains(&made.token));
    }
}
