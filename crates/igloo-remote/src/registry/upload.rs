//! Blobs and manifests on their way there: mounted, in one piece, or in pieces that are taken up again.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use igloo_formats::oci::{Descriptor, Digest, MAX_MANIFEST};
use ureq::http::Method;

use super::Registry;
use super::auth::{Scope, escape};
use super::call::{Body, Call, Reply, Target, read_capped, retries};
use super::error::RegistryError;
use super::read::{named, repository, selector};

/// Blobs up to this size are sent in one request and, if it breaks, again from the start.
const MONOLITHIC: u64 = 8 << 20;
/// The size of pieces for a registry, or a proxy before it, that does not take a large blob in one.
const PIECE: u64 = 16 << 20;
/// A connection that breaks again and again is taken up as long as it brought this much each time…
const PROGRESS: u64 = 64 << 10;
/// …and not more often than this.
const MAX_RESUMED: u32 = 1000;
/// How many repositories are asked whether they have a blob.
const MAX_MOUNTS: usize = 4;
/// What is read of answers that say nothing of interest, so that the connection can be used again.
const MAX_DULL: u64 = 64 << 10;

/// Opens a blob at an offset. Called again after a connection broke.
pub type Source<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The registry had it elsewhere.
    Mounted,
    /// All of it was sent.
    Uploaded,
}

/// An upload that a registry awaits.
struct Session {
    /// Where to, in full.
    location: String,
    /// The smallest piece it takes, apart from the last.
    piece: u64,
}

/// A blob on its way out.
struct Departure<'a> {
    registry: &'a Registry,
    name: &'a str,
    descriptor: &'a Descriptor,
    source: &'a Source<'a>,
    scope: &'a Scope,
    what: String,
    /// Told what is sent for the first time.
    progress: &'a dyn Fn(u64),
    /// How far it has been sent.
    reached: AtomicU64,
}

/// Why a session ended without the blob being there.
enum Ended {
    /// It may be tried again with another one, after these seconds.
    Again(RegistryError),
    Never(RegistryError),
}

impl Registry {
    /// Which of these blobs a repository has, in their order; asked for several at a time.
    pub fn has_blobs(&self, name: &str, digests: &[Digest]) -> Result<Vec<bool>, RegistryError> {
        self.has_blobs_in(digests, name, &Scope::pull(name))
    }

    pub(super) fn has_blobs_in(
        &self,
        digests: &[Digest],
        name: &str,
        scope: &Scope,
    ) -> Result<Vec<bool>, RegistryError> {
        let threads = self.config().client.connections.clamp(1, 8);
        let found = crate::apt::parallel(digests, threads, |digest| self.head_blob_in(name, *digest, scope));
        found.into_iter().map(|found| found.map(|f| f.is_some())).collect()
    }

    /// Brings a blob into a repository: mounted from one of `mount_from` if that has it, or else sent. The repository
    /// is not asked whether it has the blob.
    pub fn upload_blob(
        &self,
        name: &str,
        descriptor: &Descriptor,
        source: &Source<'_>,
        mount_from: &[String],
    ) -> Result<Sent, RegistryError> {
        self.upload_in(name, descriptor, source, mount_from, &Scope::push(name, mount_from), &|_| {})
    }

    pub(super) fn upload_in(
        &self,
        name: &str,
        descriptor: &Descriptor,
        source: &Source<'_>,
        mount_from: &[String],
        scope: &Scope,
        progress: &dyn Fn(u64),
    ) -> Result<Sent, RegistryError> {
        let what = named(repository(name)?, &descriptor.digest.to_string());
        let reached = AtomicU64::new(0);
        let departure = Departure { registry: self, name, descriptor, source, scope, what, progress, reached };
        departure.run(mount_from)
    }

    /// Puts a manifest or index below a tag or its digest.
    pub fn put_manifest(&self, name: &str, select: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        self.put_manifest_in(name, select, media_type, bytes, &Scope::push(name, &[]))
    }

    pub(super) fn put_manifest_in(
        &self,
        name: &str,
        select: &str,
        media_type: &str,
        bytes: &[u8],
        scope: &Scope,
    ) -> Result<(), RegistryError> {
        let path = format!("{}/manifests/{}", repository(name)?, selector(select)?);
        let what = named(name, select);
        if bytes.len() as u64 > MAX_MANIFEST {
            let why = "it is larger than 4 MiB, which registries refuse";
            return Err(self.protocol(&what, why));
        }
        let mut call = Call::new(Method::PUT, &path, scope, &what);
        call.headers.push(("Content-Type", media_type.to_owned()));
        call.body = Body::Bytes(bytes);
        let mut reply = self.call(&call)?;
        if !matches!(reply.status(), 200..=204) {
            return Err(self.refused(&call, &mut reply));
        }
        self.check_stored(&reply, Digest::of(bytes), &what)?;
        drain(&mut reply);
        Ok(())
    }

    /// A registry that stored something else than was sent says so, if it says anything.
    fn check_stored(&self, reply: &Reply, expected: Digest, what: &str) -> Result<(), RegistryError> {
        let told = reply.answer.header("docker-content-digest").and_then(|text| text.trim().parse::<Digest>().ok());
        match told {
            Some(found) if found != expected => {
                Err(self.protocol(what, "it stored it with another digest than what was sent"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads what is left of an answer that is of no interest.
fn drain(reply: &mut Reply) {
    // If it is long or breaks, the connection is not used again, which is all.
    let _ = read_capped(&mut reply.answer.reader(), MAX_DULL);
}

/// How often an upload is tried again after a failure, of `most`: sessions that are lost count as well.
fn patient(error: &RegistryError, most: u32) -> u32 {
    match retries(error, most) {
        0 => most,
        times => times,
    }
}

impl Departure<'_> {
    fn run(&self, mount_from: &[String]) -> Result<Sent, RegistryError> {
        let from = self.holder(mount_from)?;
        let most = self.registry.config().client.retries;
        let mut chunk = u64::MAX;
        let mut attempt = 0;
        loop {
            let Some(session) = self.begin(from.as_deref().filter(|_| attempt == 0))? else { return Ok(Sent::Mounted) };
            let ended = match self.descriptor.size {
                0..=MONOLITHIC => self.whole(&session),
                _ => self.pieces(session, &mut chunk),
            };
            let error = match ended {
                Ok(()) => return Ok(Sent::Uploaded),
                Err(Ended::Never(error)) => return Err(error),
                Err(Ended::Again(error)) => error,
            };
            if attempt >= patient(&error, most) {
                return Err(error);
            }
            self.registry.pause(attempt, error.after(), error)?;
            attempt += 1;
            // The answer may be all that was lost.
            if self.registry.head_blob_in(self.name, self.descriptor.digest, self.scope)?.is_some() {
                return Ok(Sent::Uploaded);
            }
        }
    }

    /// The repository to mount from. A single one is simply tried, since asking costs as much.
    fn holder(&self, mount_from: &[String]) -> Result<Option<String>, RegistryError> {
        let mut others = mount_from.iter().filter(|from| *from != self.name).take(MAX_MOUNTS).peekable();
        let Some(first) = others.next() else { return Ok(None) };
        repository(first)?;
        if others.peek().is_none() {
            return Ok(Some(first.clone()));
        }
        for from in std::iter::once(first).chain(others) {
            // A repository that we may not read has nothing to mount for us.
            if matches!(self.registry.head_blob_in(from, self.descriptor.digest, self.scope), Ok(Some(_))) {
                return Ok(Some(from.clone()));
            }
        }
        Ok(None)
    }

    /// Announces an upload; `None` if it was mounted instead.
    fn begin(&self, from: Option<&str>) -> Result<Option<Session>, RegistryError> {
        let mut path = format!("{}/blobs/uploads/", repository(self.name)?);
        if let Some(from) = from {
            path += &format!("?mount={}&from={}", escape(&self.descriptor.digest.to_string()), escape(from));
        }
        let call = Call::new(Method::POST, &path, self.scope, &self.what);
        let mut reply = self.registry.call(&call)?;
        // Some refuse a mount that is not theirs to give instead of awaiting the blob.
        if from.is_some() && matches!(reply.status(), 400 | 403 | 404 | 405) {
            drain(&mut reply);
            drop(reply);
            return self.begin(None);
        }
        match reply.status() {
            201 if from.is_some() => {
                self.registry.check_stored(&reply, self.descriptor.digest, &self.what)?;
                drain(&mut reply);
                Ok(None)
            }
            202 => {
                let piece = reply.answer.header("oci-chunk-min-length").and_then(|v| v.trim().parse().ok());
                let location = self.location(&mut reply)?;
                Ok(Some(Session { location, piece: piece.unwrap_or(0) }))
            }
            _ => Err(self.registry.refused(&call, &mut reply)),
        }
    }

    /// Where the registry wants to have the next request.
    fn location(&self, reply: &mut Reply) -> Result<String, RegistryError> {
        let Some(to) = reply.answer.header("location").filter(|to| !to.is_empty()).map(str::to_owned) else {
            return Err(self.registry.protocol(&self.what, "it does not say where to upload to"));
        };
        drain(reply);
        self.registry.resolve(&reply.url, &to, &self.what)
    }

    fn call<'b>(&'b self, method: Method, address: &'b str) -> Call<'b> {
        let mut call = Call::new(method, "", self.scope, &self.what);
        call.target = Target::Address(address);
        call.stores = self.descriptor.size;
        call
    }

    fn done(&self, location: &str) -> String {
        let digest = escape(&self.descriptor.digest.to_string());
        format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
    }

    /// What is left from `offset`, told about as it is read.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let inner = (self.source)(offset)?;
        Ok(Box::new(Counted { inner, at: offset, departure: self }))
    }

    /// A failure, judged by whether a new session may help.
    fn judge(&self, error: RegistryError) -> Ended {
        // The session is gone, or another one got in its way.
        let lost = matches!(error.status(), Some(404 | 416)) && !error.codes().iter().any(|c| c == "NAME_UNKNOWN");
        match retries(&error, 1) > 0 || lost {
            true => Ended::Again(error),
            false => Ended::Never(error),
        }
    }

    /// All in one request.
    fn whole(&self, session: &Session) -> Result<(), Ended> {
        let address = self.done(&session.location);
        let open = || self.open(0);
        let mut call = self.call(Method::PUT, &address);
        call.headers.push(("Content-Type", "application/octet-stream".to_owned()));
        call.body = match self.descriptor.size {
            0 => Body::Bytes(&[]),
            length => Body::Stream { open: &open, length, digest: self.descriptor.digest },
        };
        self.finish(&call)
    }

    /// The request after which the blob is there.
    fn finish(&self, call: &Call<'_>) -> Result<(), Ended> {
        let mut reply = self.registry.attempt(call).map_err(|error| self.judge(error))?;
        if !matches!(reply.status(), 200 | 201 | 204) {
            let error = self.registry.refused(call, &mut reply);
            return Err(self.judge(error));
        }
        self.registry.check_stored(&reply, self.descriptor.digest, &self.what).map_err(Ended::Never)?;
        drain(&mut reply);
        Ok(())
    }

    /// In as few pieces as the registry takes. A piece whose connection breaks goes on where the registry says it got
    /// to.
    fn pieces(&self, mut session: Session, chunk: &mut u64) -> Result<(), Ended> {
        let size = self.descriptor.size;
        let most = self.registry.config().client.retries;
        let (mut offset, mut attempt, mut resumed) = (0, 0, 0);
        while offset < size {
            let length = (size - offset).min((*chunk).max(session.piece));
            let error = match self.piece(&mut session, offset, length) {
                Ok(next) if next > offset => {
                    offset = next;
                    continue;
                }
                Ok(_) => self.registry.protocol(&self.what, "it takes a piece and does not get any further"),
                Err(error) => error,
            };
            if error.status() == Some(413) && *chunk > PIECE {
                *chunk = PIECE;
                return Err(Ended::Again(error));
            }
            let resumable = retries(&error, 1) > 0 || error.status() == Some(416);
            if !resumable {
                return Err(self.judge(error));
            }
            if attempt >= patient(&error, most) || resumed >= MAX_RESUMED {
                return Err(Ended::Never(error));
            }
            self.registry.pause(attempt, error.after(), error).map_err(Ended::Never)?;
            let held = self.held(&mut session)?;
            attempt = if held >= offset + PROGRESS { 0 } else { attempt + 1 };
            resumed += 1;
            offset = held;
        }
        let address = self.done(&session.location);
        self.finish(&self.call(Method::PUT, &address))
    }

    /// Sends one piece; gives how far the registry says it got.
    fn piece(&self, session: &mut Session, offset: u64, length: u64) -> Result<u64, RegistryError> {
        let address = session.location.clone();
        let open = || self.open(offset);
        let mut call = self.call(Method::PATCH, &address);
        call.headers.push(("Content-Type", "application/octet-stream".to_owned()));
        call.headers.push(("Content-Range", format!("{offset}-{}", offset + length - 1)));
        // So that a refusal comes before the content goes.
        call.headers.push(("Expect", "100-continue".to_owned()));
        call.body = Body::Stream { open: &open, length, digest: self.descriptor.digest };
        let mut reply = self.registry.attempt(&call)?;
        if !matches!(reply.status(), 200 | 201 | 202 | 204) {
            return Err(self.registry.refused(&call, &mut reply));
        }
        let next = match reply.answer.header("range") {
            Some(range) => self.held_by(range)?,
            None => offset + length,
        };
        session.location = self.location(&mut reply)?;
        match next > offset + length {
            true => Err(self.registry.protocol(&self.what, "it has more than was sent")),
            false => Ok(next),
        }
    }

    /// How much a session holds, asked after a connection broke.
    fn held(&self, session: &mut Session) -> Result<u64, Ended> {
        let address = session.location.clone();
        let call = self.call(Method::GET, &address);
        let mut reply = self.registry.call(&call).map_err(|error| self.judge(error))?;
        if !matches!(reply.status(), 200 | 202 | 204) {
            let error = self.registry.refused(&call, &mut reply);
            return Err(self.judge(error));
        }
        let range = reply.answer.header("range").unwrap_or_default().to_owned();
        if reply.answer.header("location").is_some() {
            session.location = self.location(&mut reply).map_err(Ended::Never)?;
        }
        let held = self.held_by(&range).map_err(Ended::Never)?;
        match held > self.descriptor.size {
            true => Err(Ended::Never(self.registry.protocol(&self.what, "it has more than was sent"))),
            // `0-0` is one byte by the specification and none with the widespread registry; either way a byte is little.
            false if held == 1 => {
                let why = "it does not say how much it has";
                Err(Ended::Again(self.registry.broken(&self.what, io::Error::other(why))))
            }
            false => Ok(held),
        }
    }

    /// The length that `0-99` means.
    fn held_by(&self, range: &str) -> Result<u64, RegistryError> {
        let range = range.trim();
        let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-').unwrap_or_default();
        match (first.trim(), last.trim().parse::<u64>()) {
            ("0", Ok(last)) if last < u64::MAX => Ok(last + 1),
            _ => Err(self.registry.protocol(&self.what, "it does not say how much of the upload it has")),
        }
    }
}

/// Tells what is read for the first time.
struct Counted<'a, 'b> {
    inner: Box<dyn Read + Send>,
    at: u64,
    departure: &'a Departure<'b>,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        let before = self.departure.reached.fetch_max(self.at, Ordering::Relaxed);
        (self.departure.progress)(self.at.saturating_sub(before));
        Ok(count)
    }
}
