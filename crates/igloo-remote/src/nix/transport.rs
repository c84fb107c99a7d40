//! Files of a cache, wherever it is: read whole or from some byte on, and written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use igloo_base::{At, PathError, Sha256};
use igloo_formats::nix::narinfo::Compression;
use ureq::http::Method;

use super::address::Place;
use super::error::CacheError;
use super::{BinaryCache, decode, s3};
use crate::RemoteError;
use crate::client::{Answer, Ask, Content, base64, url};

const MAX_REDIRECTS: usize = 5;

/// The content of a file, from some byte on.
pub(super) enum Body {
    File(File),
    /// The reader, and what keeps its connection counted.
    Answer(Box<dyn Read + Send>, #[expect(dead_code, reason = "held for what its end does")] Box<Answer>),
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buf),
            Self::Answer(reader, _) => reader.read(buf),
        }
    }
}

impl BinaryCache {
    /// A small file, whole; none if it is not there.
    pub(super) fn document(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, CacheError> {
        let read = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader.take(most as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
        };
        let bytes = match &self.inner.address.place {
            Place::Dir(dir) => {
                let path = dir.join(name);
                let mut file = match File::open(&path) {
                    Ok(file) => file,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(source) => return Err(self.file_error(PathError { act: "open", path, source })),
                };
                read(&mut file).at("read", &path).map_err(|e| self.file_error(e))?
            }
            Place::Http(base) | Place::S3 { base, .. } => {
                let at = format!("{base}/{name}");
                let got = self.inner.client.retry(|| {
                    let mut answer = self.get(&at, None)?;
                    match answer.status {
                        200 => {}
                        // A bucket that may not be listed says 403 for what is not there.
                        403 if matches!(self.inner.address.place, Place::S3 { .. }) => return Ok(Ok(None)),
                        404 | 410 => return Ok(Ok(None)),
                        status if status >= 500 || matches!(status, 408 | 425 | 429) => {
                            return Err(RemoteError::Status { url: at.clone(), status });
                        }
                        status => return Ok(Err(status)),
                    }
                    let packing = match answer.header("content-encoding").unwrap_or("identity") {
                        "identity" | "" => Compression::None,
                        other => other.parse().map_err(|_| RemoteError::Status { url: at.clone(), status: 415 })?,
                    };
                    let failed = |source| RemoteError::Read { url: at.clone(), source };
                    let reader = answer.reader();
                    let mut reader = decode::decoder(packing, reader).map_err(failed)?;
                    read(&mut reader).map(|bytes| Ok(Some(bytes))).map_err(failed)
                });
                match got.map_err(|e| self.remote_error(e))? {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        return Err(CacheError::Status { cache: self.named(), name: name.to_owned(), status });
                    }
                }
            }
        };
        if bytes.len() > most {
            return Err(CacheError::TooLong { cache: self.named(), name: name.to_owned(), most });
        }
        Ok(Some(bytes))
    }

    /// A large file from byte `from` on, as its narinfo names it: the content, and the byte it really begins with.
    pub(super) fn open(&self, name: &str, from: u64) -> Result<Result<(Body, u64), RemoteError>, CacheError> {
        let (at, status) = match &self.inner.address.place {
            Place::Dir(dir) => {
                let path = self.below(dir, name)?;
                let open = || -> Result<File, PathError> {
                    let mut file = File::open(&path).at("open", &path)?;
                    file.seek(SeekFrom::Start(from)).at("seek in", &path)?;
                    Ok(file)
                };
                return open().map(|file| Ok((Body::File(file), from))).map_err(|e| self.file_error(e));
            }
            Place::Http(base) | Place::S3 { base, .. } => {
                let at = self.absolute(base, name)?;
                let mut answer = match self.get(&at, Some(from).filter(|from| *from > 0)) {
                    Ok(answer) => answer,
                    Err(error) => return Ok(Err(error)),
                };
                let begins = match answer.status {
                    200 => Some(0),
                    206 => answer
                        .header("content-range")
                        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()),
                    _ => None,
                };
                if let Some(begins) = begins.filter(|begins| *begins <= from) {
                    return Ok(Ok((Body::Answer(answer.reader(), Box::new(answer)), begins)));
                }
                (at, answer.status)
            }
        };
        match status {
            408 | 425 | 429 | 500.. | 206 => Ok(Err(RemoteError::Status { url: at, status })),
            status => Err(CacheError::Status { cache: self.named(), name: name.to_owned(), status }),
        }
    }

    /// Whether a file is there.
    pub(super) fn has(&self, name: &str) -> Result<bool, CacheError> {
        match &self.inner.address.place {
            Place::Dir(dir) => Ok(self.below(dir, name)?.is_file()),
            Place::Http(base) | Place::S3 { base, .. } => {
                let at = self.absolute(base, name)?;
                let answer =
                    self.inner.client.retry(|| self.ask(Method::HEAD, &at, None, &Sha256::of(b""), Content::None));
                match answer.map_err(|e| self.remote_error(e))?.status {
                    200 => Ok(true),
                    403 | 404 | 410 => Ok(false),
                    status => Err(CacheError::Status { cache: self.named(), name: name.to_owned(), status }),
                }
            }
        }
    }

    /// Sends a file to a server. `content` makes a new reader for each attempt.
    pub(super) fn put(
        &self,
        base: &str,
        name: &str,
        (length, digest): (u64, Sha256),
        content: &mut dyn FnMut() -> Result<Box<dyn Read>, RemoteError>,
    ) -> Result<(), CacheError> {
        let at = self.absolute(base, name)?;
        let answer = self.inner.client.retry(|| {
            let mut reader = content()?;
            let answer = self.ask(Method::PUT, &at, None, &digest, Content::Stream(&mut *reader, length))?;
            match answer.status {
                408 | 425 | 429 | 500.. => Err(RemoteError::Status { url: at.clone(), status: answer.status }),
                status => Ok(status),
            }
        });
        match answer.map_err(|e| self.remote_error(e))? {
            200..=299 => Ok(()),
            status => Err(CacheError::Refused { cache: self.named(), name: name.to_owned(), status }),
        }
    }

    /// Asks once, and follows redirections; logins stay with the cache's own origin.
    fn get(&self, at: &str, from: Option<u64>) -> Result<Answer, RemoteError> {
        let mut at = at.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(Method::GET, &at, from, &Sha256::of(b""), Content::None)?;
            if !answer.is_redirection() {
                return Ok(answer);
            }
            let to = answer.header("location").unwrap_or_default().to_owned();
            let next = url::redirect(&url::parse(&at)?, &to);
            at = next.map_err(|why| RemoteError::Redirect { url: at.clone(), to, why })?;
        }
        Err(RemoteError::Redirect { url: at.clone(), to: at, why: "there are too many redirections" })
    }

    fn ask(
        &self,
        method: Method,
        at: &str,
        from: Option<u64>,
        digest: &Sha256,
        content: Content<'_>,
    ) -> Result<Answer, RemoteError> {
        let mut headers = self.login(method.as_str(), at, digest)?;
        headers.extend(from.map(|from| ("range", format!("bytes={from}-"))));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // Taken apart, so that its lifetime may be a shorter one.
        let content = match content {
            Content::None => Content::None,
            Content::Bytes(bytes) => Content::Bytes(bytes),
            Content::Stream(reader, length) => Content::Stream(&mut *reader, length),
        };
        self.inner.client.exchange(Ask { method, url: at, headers: &headers, content, whole: None, answer: None })
    }

    /// What tells who we are, if the address is one of the cache's own origin, and nobody on the way can read it.
    fn login(&self, method: &str, at: &str, digest: &Sha256) -> Result<Vec<(&'static str, String)>, RemoteError> {
        let inner = &self.inner;
        let (Place::Http(base) | Place::S3 { base, .. }) = &inner.address.place else { return Ok(Vec::new()) };
        let (own, uri) = (url::parse(base)?, url::parse(at)?);
        let same = own.scheme_str() == uri.scheme_str() && own.authority() == uri.authority();
        if !same {
            return Ok(Vec::new());
        }
        let host = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        if let (Place::S3 { region, .. }, Some(keys)) = (&inner.address.place, &inner.keys) {
            // Signed requests do not tell the secret, so that plain HTTP will do.
            return Ok(s3::sign(keys, region, method, &host, uri.path(), digest, SystemTime::now()));
        }
        if uri.scheme_str() != Some("https") && !url::is_loopback(url::host(&uri)) {
            return Ok(Vec::new());
        }
        let bare = url::host(&uri);
        if let Some((_, token)) = inner.credentials.tokens.iter().find(|(of, _)| *of == host || of == bare) {
            return Ok(vec![("authorization", format!("Bearer {token}"))]);
        }
        let login = inner.credentials.netrc.login(bare);
        let basic = |(name, password)| format!("Basic {}", base64::encode(format!("{name}:{password}").as_bytes()));
        Ok(login.map(|login| ("authorization", basic(login))).into_iter().collect())
    }

    /// The address of a file: a narinfo may name one elsewhere.
    fn absolute(&self, base: &str, name: &str) -> Result<String, CacheError> {
        let bad = |why| CacheError::Address { url: name.chars().take(200).collect(), why };
        if name.starts_with("http://") || name.starts_with("https://") {
            let uri = url::parse(name).map_err(|_| bad("it is malformed"))?;
            if base.starts_with("https:") && uri.scheme_str() != Some("https") {
                return Err(bad("it leaves https"));
            }
            return Ok(name.to_owned());
        }
        let path = name.split('?').next().unwrap_or_default();
        if name.contains("://") || path.split('/').any(|part| part == "..") {
            return Err(bad("it leads out of the cache"));
        }
        // Caches may give a query, as for signed addresses; nothing else has a meaning in names of archives.
        let at = format!("{base}/{}", name.trim_start_matches('/'));
        url::parse(&at).map(|_| at).map_err(|_| bad("it is malformed"))
    }

    /// The path of a file in a directory.
    pub(super) fn below(&self, dir: &Path, name: &str) -> Result<PathBuf, CacheError> {
        let path = Path::new(name);
        if name.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
            let why = "it leads out of the cache";
            return Err(CacheError::Address { url: name.chars().take(200).collect(), why });
        }
        Ok(dir.join(path))
    }

    pub(super) fn remote_error(&self, source: RemoteError) -> CacheError {
        CacheError::Remote { cache: self.named(), source: Box::new(source) }
    }

    pub(super) fn file_error(&self, source: PathError) -> CacheError {
        CacheError::File { cache: self.named(), source }
    }
}
