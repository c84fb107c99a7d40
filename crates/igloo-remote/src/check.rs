//! Bytes held against what was promised about them, on their way.

use std::io::{self, Read};

use igloo_base::Sha256;
use igloo_base::digest::HashWriter;

use crate::RemoteError;

/// What a signed or locked file says about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) size: u64,
    pub(crate) sha256: Sha256,
}

/// A reader that hashes, counts, and stops one byte after what was promised.
pub(crate) struct Checked<'a, R> {
    url: String,
    inner: R,
    promise: Promise,
    tally: HashWriter<io::Sink>,
    progress: &'a dyn Fn(u64),
    failure: Option<io::Error>,
}

impl<'a, R: Read> Checked<'a, R> {
    pub(crate) fn new(url: &str, inner: R, promise: Promise, progress: &'a dyn Fn(u64)) -> Self {
        let tally = HashWriter::new(io::sink());
        Self { url: url.to_owned(), inner, promise, tally, progress, failure: None }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads what is left and compares. A failure of the inner reader is told as such, whatever others made of it.
    pub(crate) fn finish(mut self) -> Result<(), RemoteError> {
        let mut buffer = [0; 16 << 10];
        while self.failure.is_none() && self.tally.length() <= self.promise.size {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(source) = self.failure {
            return Err(RemoteError::Read { url: self.url, source });
        }
        let (_, found, length) = self.tally.finish();
        if length != self.promise.size {
            return Err(RemoteError::Size { url: self.url, expected: self.promise.size, found: length });
        }
        if found != self.promise.sha256 {
            return Err(RemoteError::Digest { url: self.url, expected: self.promise.sha256, found });
        }
        Ok(())
    }
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // One byte more than promised is asked for, to see whether there is one.
        let left = (self.promise.size + 1).saturating_sub(self.tally.length());
        let longest = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if longest == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buf[..longest]) {
            Ok(count) => {
                io::Write::write_all(&mut self.tally, &buf[..count])?;
                (self.progress)(count as u64);
                Ok(count)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let copy = io::Error::new(e.kind(), e.to_string());
                self.failure = Some(e);
                Err(copy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &[u8], promised: &[u8]) -> Result<(), RemoteError> {
        let promise = Promise { size: promised.len() as u64, sha256: Sha256::of(promised) };
        let mut checked = Checked::new("u", content, promise, &|_| {});
        let mut start = [0; 2];
        checked.read_exact(&mut start).expect("read");
        checked.finish()
    }

    #[test]
    fn content_is_held_against_the_promise() {
        assert!(check(b"abcd", b"abcd").is_ok());
        assert!(matches!(check(b"abcx", b"abcd"), Err(RemoteError::Digest { .. })));
        assert!(matches!(check(b"abc", b"abcd"), Err(RemoteError::Size { found: 3, expected: 4, .. })));
        assert!(matches!(check(&[b'a'; 100_000], b"abcd"), Err(RemoteError::Size { found: 5, .. })));
    }
}
