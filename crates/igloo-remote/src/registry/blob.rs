//! Blobs on their way here: streamed, counted, hashed, resumed.

use std::io::{self, Read, Write};
use std::time::Instant;

use igloo_base::digest::HashWriter;
use igloo_formats::oci::{Descriptor, Digest};
use ureq::http::Method;

use super::Registry;
use super::auth::Scope;
use super::call::{Call, Reply, retries};
use super::error::RegistryError;
use super::read::{named, repository};

const BUFFER: usize = 128 << 10;
/// Fewer bytes within the time of patience are taken for none: a modem of the eighties is faster.
const TRICKLE: u64 = 4 << 10;
/// A connection that breaks again and again is taken up as long as it brought this much each time…
const PROGRESS: u64 = 64 << 10;
/// …and not more often than this.
const MAX_RESUMED: u32 = 1000;

/// A blob on its way into a writer.
struct Arrival<'a> {
    registry: &'a Registry,
    descriptor: &'a Descriptor,
    what: String,
    sink: HashWriter<&'a mut dyn Write>,
    progress: &'a dyn Fn(u64),
}

impl Registry {
    /// Writes a blob into `sink`, exactly as many bytes as the descriptor says. After an error `sink` holds an unknown
    /// part of it, or something else altogether, and must be thrown away.
    pub fn blob(&self, name: &str, descriptor: &Descriptor, sink: &mut dyn Write) -> Result<(), RegistryError> {
        self.blob_with(name, descriptor, sink, &|_| {})
    }

    /// The same, telling how many more bytes have come.
    pub(super) fn blob_with(
        &self,
        name: &str,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let path = format!("{}/blobs/{}", repository(name)?, descriptor.digest);
        let what = named(name, &descriptor.digest.to_string());
        let scope = Scope::pull(name);
        let mut arrival = Arrival { registry: self, descriptor, what, sink: HashWriter::new(sink), progress };
        let (mut attempt, mut resumed) = (0, 0);
        // Even nothing is asked for once: that it is there is part of the answer.
        loop {
            let before = arrival.held();
            match arrival.attempt(&path, &scope) {
                Ok(()) => break,
                Err(error) => {
                    if arrival.held() >= before + PROGRESS && resumed < MAX_RESUMED {
                        attempt = 0;
                    }
                    if attempt >= retries(&error, self.config().client.retries) {
                        return Err(error);
                    }
                    self.pause(attempt, error.after(), error)?;
                    attempt += 1;
                    resumed += 1;
                }
            }
        }
        let (_, found, _) = arrival.sink.finish();
        let (host, what, expected, found) = (self.host().to_owned(), arrival.what, descriptor.digest, Digest(found));
        match found == expected {
            true => Ok(()),
            false => Err(RegistryError::Digest { host, what, expected, found }),
        }
    }
}

impl Arrival<'_> {
    fn held(&self) -> u64 {
        self.sink.length()
    }

    /// One request for what is missing.
    fn attempt(&mut self, path: &str, scope: &Scope) -> Result<(), RegistryError> {
        let held = self.held();
        let size = self.descriptor.size;
        if held == size && held > 0 {
            return Ok(());
        }
        let mut call = Call { document: false, ..Call::new(Method::GET, path, scope, &self.what) };
        if held > 0 {
            call.headers.push(("Range", format!("bytes={held}-{}", size - 1)));
        }
        let mut reply = self.registry.attempt(&call)?;
        // Bytes at the beginning that are here already.
        let skip = match reply.status() {
            200 => held,
            206 if held > 0 => {
                let range = reply.answer.header("content-range").unwrap_or_default();
                if !is_range(range, held, size) {
                    return Err(self.registry.protocol(&self.what, "it sends another range than was asked for"));
                }
                0
            }
            _ => return Err(self.registry.refused(&call, &mut reply)),
        };
        let expected = size - held + skip;
        if let Some(found) = reply.answer.length().filter(|length| *length != expected) {
            return Err(self.size(found));
        }
        self.receive(&mut reply, skip)
    }

    fn size(&self, found: u64) -> RegistryError {
        let (host, what) = (self.registry.host().to_owned(), self.what.clone());
        RegistryError::Size { host, what, expected: self.descriptor.size, found }
    }

    fn receive(&mut self, reply: &mut Reply, mut skip: u64) -> Result<(), RegistryError> {
        let mut body = reply.answer.reader();
        let mut buffer = vec![0; BUFFER];
        let patience = self.registry.config().patience;
        let (mut since, mut came) = (Instant::now(), 0);
        let host = || self.registry.host().to_owned();
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if self.held() == self.descriptor.size && skip == 0 => return Ok(()),
                Ok(0) => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(RegistryError::Broken { host: host(), what: self.what.clone(), source });
                }
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(RegistryError::Broken { host: host(), what: self.what.clone(), source }),
            };
            came += count as u64;
            if since.elapsed() > patience {
                if came < TRICKLE {
                    return Err(RegistryError::Slow { host: host(), what: self.what.clone() });
                }
                (since, came) = (Instant::now(), 0);
            }
            let old = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= old as u64;
            let fresh = &buffer[old..count];
            if self.held() + fresh.len() as u64 > self.descriptor.size {
                return Err(self.size(self.descriptor.size + 1));
            }
            self.sink.write_all(fresh).map_err(|source| RegistryError::sink(self.descriptor, source))?;
            (self.progress)(fresh.len() as u64);
        }
    }
}

/// Whether `bytes 5-9/10` begins at `start` and is of a content of `size` bytes.
fn is_range(text: &str, start: u64, size: u64) -> bool {
    let parse = || {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let whole = total.trim() == "*" || total.trim().parse::<u64>().ok()? == size;
        Some(whole && first.trim().parse::<u64>().ok()? == start && last.trim().parse::<u64>().ok()? == size - 1)
    };
    parse().unwrap_or(false)
}
