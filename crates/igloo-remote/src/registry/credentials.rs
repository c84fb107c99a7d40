//! Logins: docker's `config.json`, podman's `auth.json`, credential helpers, or what the caller was given.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use igloo_base::file::read_optional;
use serde::Deserialize;

use super::RegistryError;
use super::error::clean;
use crate::client::base64;

/// Largest file of logins: thousands of them fit.
const MAX_FILE: usize = 4 << 20;
/// Largest answer of a helper: tokens of several KiB exist.
const MAX_ANSWER: u64 = 256 << 10;
/// How long a helper may take: some ask a person or a cloud.
const HELPER: Duration = Duration::from_secs(30);

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// A user's name and password.
    Login { user: String, password: String },
    /// A token that is traded for others at the token server.
    Identity(String),
    /// A token for the registry itself.
    Bearer(String),
}

/// Never shows what is secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Login { user, .. } => write!(f, "Login({user})"),
            Self::Identity(_) => write!(f, "Identity"),
            Self::Bearer(_) => write!(f, "Bearer"),
        }
    }
}

/// Where logins come from: files, in order, or one that was given. Clones do not share what helpers answered.
#[derive(Debug)]
pub struct Credentials {
    given: Option<Secret>,
    files: Vec<File>,
    helper_time: Duration,
    helper_dirs: Vec<PathBuf>,
    /// What helpers answered, by program and server.
    asked: Mutex<HashMap<(String, String), Option<Secret>>>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::anonymous()
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            given: self.given.clone(),
            files: self.files.clone(),
            helper_time: self.helper_time,
            helper_dirs: self.helper_dirs.clone(),
            asked: Mutex::default(),
        }
    }
}

/// One file, as it is read.
#[derive(Clone, Default, Deserialize)]
struct Text {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry: Option<String>,
}

#[derive(Clone)]
struct File {
    path: PathBuf,
    text: Text,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Credentials {
    /// No login.
    pub fn anonymous() -> Self {
        let (files, helper_dirs) = (Vec::new(), Vec::new());
        Self { given: None, files, helper_time: HELPER, helper_dirs, asked: Mutex::default() }
    }

    /// A user's name and password, for whatever registry they are used with.
    pub fn login(user: &str, password: &str) -> Self {
        let secret = Secret::Login { user: user.to_owned(), password: password.to_owned() };
        Self { given: Some(secret), ..Self::anonymous() }
    }

    /// A token that the registry takes as it is.
    pub fn bearer(token: &str) -> Self {
        Self { given: Some(Secret::Bearer(token.to_owned())), ..Self::anonymous() }
    }

    /// A token that the registry's token server trades for others.
    pub fn identity(token: &str) -> Self {
        Self { given: Some(Secret::Identity(token.to_owned())), ..Self::anonymous() }
    }

    /// Logins of files in docker's format, the first that knows a registry decides. Files that are not there are
    /// left out; one that cannot be understood is an error.
    pub fn from_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, RegistryError> {
        let mut credentials = Self::anonymous();
        for path in paths {
            let path = path.as_ref();
            let Some(bytes) = read_optional(path).map_err(crate::RemoteError::from)? else { continue };
            let wrong = |why| RegistryError::Logins { path: path.to_owned(), why };
            if bytes.len() > MAX_FILE {
                return Err(wrong("it is larger than 4 MiB".to_owned()));
            }
            // Tools leave an empty file behind.
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // The parser's own words could quote a secret, so only the place is told.
            let text = serde_json::from_slice(&bytes).map_err(|e| {
                wrong(format!("line {} column {} is not what docker and podman write", e.line(), e.column()))
            })?;
            credentials.files.push(File { path: path.to_owned(), text });
        }
        Ok(credentials)
    }

    /// Another limit for helpers than 30 seconds.
    pub fn with_helper_time(mut self, time: Duration) -> Self {
        self.helper_time = time;
        self
    }

    /// Where helpers are looked for, before the places where programs usually are.
    pub fn with_helper_dirs(mut self, dirs: Vec<PathBuf>) -> Self {
        self.helper_dirs = dirs;
        self
    }

    /// Whether there is nothing to look into.
    pub fn is_empty(&self) -> bool {
        self.given.is_none() && self.files.is_empty()
    }

    /// The login for a repository of a registry.
    pub(super) fn find(&self, host: &str, repository: &str) -> Result<Option<Secret>, RegistryError> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        for file in &self.files {
            if let Some((_, helper)) = file.text.helpers.iter().find(|(key, _)| normal(key) == host)
                && let Some(secret) = self.ask(helper, host)?
            {
                return Ok(Some(secret));
            }
            if let Some(secret) = file.find(host, repository)? {
                return Ok(Some(secret));
            }
            if let Some(store) = &file.text.store {
                // docker asks by the very key it stored the login under.
                let keys = file.text.auths.keys().filter(|key| normal(key) == host && *key != host);
                for key in std::iter::once(host).chain(keys.map(String::as_str)) {
                    if let Some(secret) = self.ask(store, key)? {
                        return Ok(Some(secret));
                    }
                }
            }
        }
        Ok(None)
    }

    fn ask(&self, name: &str, server: &str) -> Result<Option<Secret>, RegistryError> {
        // Held while the helper runs, so that a person is asked once.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), server.to_owned());
        if let Some(known) = asked.get(&key) {
            return Ok(known.clone());
        }
        let secret = run(name, server, self.helper_time, &self.helper_dirs)?;
        asked.insert(key, secret.clone());
        Ok(secret)
    }
}

/// `https://host/v2/` and `host` are the same.
fn normal(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

impl File {
    /// The entry of the longest key that is the registry, or a beginning of the repository's path in it.
    fn find(&self, host: &str, repository: &str) -> Result<Option<Secret>, RegistryError> {
        let full = format!("{host}/{repository}");
        let fits = |key: &str| key == host || full == key || full.strip_prefix(key).is_some_and(|r| r.starts_with('/'));
        let entries = self.text.auths.iter().filter(|(key, _)| fits(normal(key)));
        let best = entries.max_by_key(|(key, _)| normal(key).len());
        best.map_or(Ok(None), |(key, entry)| {
            entry.secret().map_err(|()| RegistryError::Logins {
                path: self.path.clone(),
                why: format!("the `auth` of `{}` is not `user:password` in base 64; log in again", clean(key, 100)),
            })
        })
    }
}

impl Entry {
    fn secret(&self) -> Result<Option<Secret>, ()> {
        let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        if let Some(token) = filled(&self.identity) {
            return Ok(Some(Secret::Identity(token)));
        }
        if let Some(token) = filled(&self.registry) {
            return Ok(Some(Secret::Bearer(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let bytes = base64::decode(&auth).ok_or(())?;
            let text = String::from_utf8(bytes).map_err(|_| ())?;
            let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(())?;
            return Ok(Some(Secret::Login { user: user.to_owned(), password: password.to_owned() }));
        }
        let (user, password) = (filled(&self.username), filled(&self.password));
        Ok(user.zip(password).map(|(user, password)| Secret::Login { user, password }))
    }
}

/// Runs `docker-credential-NAME get`.
fn run(name: &str, server: &str, limit: Duration, dirs: &[PathBuf]) -> Result<Option<Secret>, RegistryError> {
    let program = format!("docker-credential-{}", clean(name, 60));
    let failed = |why: String| RegistryError::Helper { name: program.clone(), why };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_word) {
        return Err(failed("this is no name of a program".to_owned()));
    }
    let found = dirs.iter().map(|dir| dir.join(&program)).find(|path| path.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| PathBuf::from(&program)));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| failed(format!("it cannot be started ({})", e.kind())))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let server = server.to_owned();
    // A thread of its own, since whatever the helper left running may hold the pipe for ever.
    let (sender, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stdin) = stdin {
            // A helper that doesn't read it answers all the same.
            let _ = stdin.write_all(server.as_bytes());
        }
        if let Some(stdout) = stdout {
            // One that stops in the middle gives no JSON.
            let _ = stdout.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    let end = Instant::now() + limit;
    let bytes = answer.recv_timeout(limit);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if bytes.is_ok() && Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            _ => break None,
        }
    };
    let (Ok(bytes), Some(status)) = (bytes, status) else {
        // It may have ended this very moment.
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("it did not answer within {} s", limit.as_secs_f32())));
    };
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(failed("its answer is too long".to_owned()));
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes);
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!("{status}: {}", clean(&said, 200)))),
        };
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Username", default)]
        user: String,
        #[serde(rename = "Secret", default)]
        secret: String,
    }
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|_| failed("its answer is not the JSON of a helper".to_owned()))?;
    Ok(match (answer.user.as_str(), answer.secret.is_empty()) {
        (_, true) => None,
        ("<token>", _) => Some(Secret::Identity(answer.secret)),
        _ => Some(Secret::Login { user: answer.user, password: answer.secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Result<Credentials, RegistryError> {
        let dir = tempfile::tempdir().expect("directory");
        let paths: Vec<_> = (0..texts.len()).map(|i| dir.path().join(i.to_string())).collect();
        for (path, text) in paths.iter().zip(texts) {
            std::fs::write(path, text).expect("write");
        }
        Credentials::from_files(paths.iter().chain([&dir.path().join("absent")]))
    }

    fn login(user: &str, password: &str) -> Option<Secret> {
        Some(Secret::Login { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn the_longest_key_decides() {
        let credentials = files(&[
            "",
            r#"{"auths": {"https://r.example/v2/": {"auth": "dTpwOng="}, "r.example/acme": {"auth": "YTpi"},
                "r.example:5000": {"username": "c", "password": "d"}, "other.example": {"identitytoken": "t"}}}"#,
            r#"{"auths": {"r.example": {"auth": "eDp5"}, "last.example": {"auth": "eDp5"}}}"#,
        ])
        .expect("credentials");
        let find = |host, repository| credentials.find(host, repository).expect("find");
        assert_eq!(find("r.example", "web"), login("u", "p:x"));
        assert_eq!(find("r.example", "acme/web"), login("a", "b"));
        assert_eq!(find("r.example", "acmeweb"), login("u", "p:x"));
        assert_eq!(find("r.example:5000", "web"), login("c", "d"));
        assert_eq!(find("other.example", "web"), Some(Secret::Identity("t".to_owned())));
        assert_eq!(find("last.example", "web"), login("x", "y"));
        assert_eq!(find("nobody.example", "web"), None);
        assert!(!format!("{credentials:?}").contains("eDp5"));
    }

    #[test]
    fn files_that_are_broken_do_not_leak() {
        let error = files(&[r#"{"auths": {"r": {"auth": 5, "password": "hidden"}}}"#]).expect_err("broken").to_string();
        assert!(error.contains("line 1 column") && !error.contains("hidden"), "{error}");
        let credentials = files(&[r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#]).expect("read");
        let error = credentials.find("r.example", "a").expect_err("no colon").to_string();
        assert!(error.contains("log in again") && !error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn helpers_that_do_not_exist_are_named() {
        let error = run("../evil", "r.example", HELPER, &[]).expect_err("refused").to_string();
        assert!(error.contains("no name of a program"), "{error}");
        let error = run("igloo-absent", "r.example", HELPER, &[]).expect_err("absent").to_string();
        assert!(error.contains("docker-credential-igloo-absent"), "{error}");
    }

    #[test]
    fn helpers_that_answer_fail_or_hang() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("directory");
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        };
        // Each answers with what it was asked for, so that the question is checked, too.
        helper("good", r#"read -r s; printf '{"ServerURL":"%s","Username":"u-%s","Secret":"p"}' "$s" "$s$1""#);
        helper("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        helper("none", "echo 'credentials not found in native keychain'; exit 1");
        helper("broken", "printf 'no\\033[31m bus'; exit 3");
        helper("endless", "exec yes");
        helper("hanging", "exec sleep 30");
        helper("orphan", r#"sleep 3 & echo '{"Username":"u","Secret":"p"}'"#);
        let ask = |name| run(name, "r.example", Duration::from_millis(1500), &[dir.path().to_owned()]);
        assert_eq!(ask("good").expect("good"), login("u-r.exampleget", "p"));
        assert_eq!(ask("token").expect("token"), Some(Secret::Identity("t".to_owned())));
        assert_eq!(ask("none").expect("none"), None);
        for (name, expected) in [
            ("broken", "no [31m bus"),
            ("endless", "too long"),
            ("hanging", "did not answer"),
            ("orphan", "did not answer"),
        ] {
            let error = ask(name).expect_err(name).to_string();
            assert!(error.contains(expected) && !error.contains('\u{1b}'), "{name}: {error}");
        }
        let text = r#"{"credHelpers": {"r.example": "good"}, "credsStore": "token", "auths": {"s.example": {}}}"#;
        let credentials = files(&[text]).expect("read").with_helper_dirs(vec![dir.path().to_owned()]);
        assert_eq!(credentials.find("r.example", "a").expect("helper"), login("u-r.exampleget", "p"));
        assert_eq!(credentials.find("s.example", "a").expect("store"), Some(Secret::Identity("t".to_owned())));
    }
}
