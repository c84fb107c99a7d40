//! Bodies: of answers, which are bytes or a part of a file; of requests, which are read with a deadline.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How much of a file is read at a time.
const CHUNK: usize = 256 << 10;
/// Who sends less than this many bytes a second…
const SLOWEST: u64 = 2 << 10;
/// …is borne with for so long.
const GRACE: Duration = Duration::from_secs(60);

/// The body of an answer.
pub(crate) enum Body {
    /// Nothing, or all of it at once.
    Bytes(Bytes),
    /// A part of a file.
    File(FileBody),
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Body::Bytes(Bytes::new())
    }

    /// How long it is.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(file) => file.left,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Body::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::File(file) => file.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

/// A part of a file, read ahead by one chunk on a thread that may wait for the disk.
pub(crate) struct FileBody {
    file: Arc<File>,
    /// Where the next read starts.
    at: u64,
    /// Bytes that the connection has not been given.
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: File, span: Span) -> Self {
        Self { file: Arc::new(file), at: span.start, left: span.length, reading: None }
    }

    /// Reads the next chunk of the `left` bytes from `at`.
    fn read(&mut self, left: u64) -> JoinHandle<io::Result<Bytes>> {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let (file, at) = (Arc::clone(&self.file), self.at);
        self.at += length as u64;
        tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at)?;
            Ok(Bytes::from(chunk))
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.read(self.left),
        };
        let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let chunk = match read {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(e)) => return Poll::Ready(Some(Err(e))),
            Err(e) => return Poll::Ready(Some(Err(io::Error::other(e)))),
        };
        self.left -= chunk.len() as u64;
        if self.left > 0 {
            self.reading = Some(self.read(self.left));
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

/// A part of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// What a `Range` asks of `size` bytes: a part, all of it (`None`; also for what is not understood and for several
/// ranges, which nobody who pulls images needs), or nothing that is there.
pub(crate) fn span(header: Option<&str>, size: u64) -> Result<Option<Span>, ()> {
    let Some(range) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Ok(None) };
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        // More digits than a number has are beyond every end.
        true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        false => None,
    };
    let (start, end) = match (number(first.trim()), number(last.trim())) {
        (Some(start), Some(last)) if last >= start => (start, last.saturating_add(1).min(size)),
        (Some(start), None) if last.trim().is_empty() => (start, size),
        (None, Some(count)) if first.trim().is_empty() && count > 0 => (size.saturating_sub(count), size),
        (None, Some(0)) if first.trim().is_empty() => return Err(()),
        _ => return Ok(None),
    };
    if start >= end { Err(()) } else { Ok(Some(Span { start, length: end - start })) }
}

/// Why a body did not come to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nothing came for too long, or too little.
    Slow,
    /// The connection broke, or what came is no HTTP.
    Gone,
}

/// The body of a request, with a deadline that moves as bytes come.
pub(crate) struct Frames<'b> {
    body: &'b mut Incoming,
    idle: Duration,
    start: Instant,
    received: u64,
}

impl<'b> Frames<'b> {
    pub(crate) fn new(body: &'b mut Incoming, idle: Duration) -> Self {
        Self { body, idle, start: Instant::now(), received: 0 }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let earned = Duration::from_secs(self.received / SLOWEST);
            let deadline = (Instant::now() + self.idle).min(self.start + GRACE.max(self.idle) + earned);
            let frame = std::future::poll_fn(|cx| {
                let frame = ready!(Pin::new(&mut *self.body).poll_frame(cx));
                Poll::Ready(frame)
            });
            match tokio::time::timeout_at(deadline, frame).await {
                Err(_) => return Err(Broken::Slow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(Broken::Gone),
                Ok(Some(Ok(frame))) => {
                    // Trailers are of no interest.
                    if let Ok(data) = frame.into_data() {
                        self.received += data.len() as u64;
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let some = |start, length| Ok(Some(Span { start, length }));
        for (text, expected) in [
            ("bytes=0-0", some(0, 1)),
            ("bytes=2-", some(2, 8)),
            ("bytes=2-100", some(2, 8)),
            ("bytes=-3", some(7, 3)),
            ("bytes=-300", some(0, 10)),
            ("bytes=10-", Err(())),
            ("bytes=99999999999999999999999-", Err(())),
            ("bytes=0-99999999999999999999999", some(0, 10)),
            ("bytes=-0", Err(())),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=a-", Ok(None)),
            ("bytes=-", Ok(None)),
            ("items=0-1", Ok(None)),
        ] {
            assert_eq!(span(Some(text), 10), expected, "{text}");
        }
        assert_eq!(span(None, 10), Ok(None));
        assert_eq!(span(Some("bytes=0-"), 0), Err(()));
    }
}
