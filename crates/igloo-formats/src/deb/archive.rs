//! The outside of a .deb: an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*`, read front to back.
//!
//! Nothing is kept: content goes from the decompressor's buffer to whoever asks. All caps are in [`Limits`].

use std::fmt;
use std::io::{self, BufReader, Read};

use liblzma::stream::{IGNORE_CHECK, Stream};

use super::meta::BadPath;

mod tar;

pub use tar::{TarEntry, TarKind, TarReader};

/// What is refused before it costs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the unpacked control archive. The largest of Debian (md5sums of kernel sources) has a few megabytes.
    pub control: u64,
    /// Bytes of the unpacked data archive.
    pub data: u64,
    /// Entries of one archive. The largest package of Debian has about 200,000.
    pub entries: u64,
    /// Bytes that a decompressor may take. `xz -9` needs 65 MiB, `zstd --ultra` at most 128 MiB.
    pub memory: u64,
}

impl Limits {
    /// Limits for a .deb of `size` bytes. Packages shrink to a third, texts to a tenth, a few tables of zeros to a
    /// hundredth; xz could make 7000 bytes of one. So: 400 times its size and 256 MiB, but never above 64 GiB.
    pub fn for_size(size: u64) -> Self {
        let data = size.saturating_mul(400).saturating_add(256 << 20).min(64 << 30);
        Self { control: 64 << 20, data, entries: 1_000_000, memory: 160 << 20 }
    }
}

/// The two archives inside a .deb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `control.tar.*`
    Control,
    /// `data.tar.*`
    Data,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Control => "control.tar",
            Part::Data => "data.tar",
        })
    }
}

/// What is wrong with a .deb.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The first bytes are not those of a .deb.
    #[error("this is no .deb archive")]
    NotADeb,
    /// `debian-binary` says something else than 2.x.
    #[error("the archive has format `{0}`, known is 2.0")]
    Format(String),
    /// A header of the outer archive makes no sense.
    #[error("the archive has a broken member header")]
    BadMember,
    /// It ends before it should.
    #[error("the archive is truncated")]
    Truncated,
    /// A part is not there, or not where it must be.
    #[error("the archive has no {0} where it must be")]
    Missing(Part),
    /// A compression that nobody uses for packages.
    #[error("`{0}` is compressed in an unknown way (known: gz, xz, zst, none)")]
    Compression(String),
    /// The bytes below could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The decompressor gave up.
    #[error("cannot decompress {part}")]
    Decompress {
        /// Which part.
        part: Part,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than [`Limits`] allow.
    #[error("{part} has more than {limit} {what}")]
    TooLarge {
        /// Which part.
        part: Part,
        /// The limit.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// A header of the inner archive makes no sense.
    #[error("{part} is broken: {why}")]
    Tar {
        /// Which part.
        part: Part,
        /// What was found.
        why: &'static str,
    },
    /// An entry has a name that no package needs and that would leave its place.
    #[error("{part} has an entry with a bad name, `{name}`")]
    Path {
        /// Which part.
        part: Part,
        /// The name, cleaned for printing.
        name: String,
        /// What is wrong with it.
        #[source]
        source: BadPath,
    },
    /// An entry is something that does not belong in a package.
    #[error("{part} has `{name}`, {why}")]
    Entry {
        /// Which part.
        part: Part,
        /// Its name, cleaned for printing.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A name of foreign origin, fit for an error: short, printable, one line.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(200)]);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Reads a .deb front to back: [`DebReader::control`], then [`DebReader::data`].
pub struct DebReader<R> {
    input: R,
    limits: Limits,
    /// Bytes of the open member that nobody has read yet, and its padding.
    left: u64,
    padding: bool,
}

/// Bytes of one member of the outer archive.
pub struct Member<'a, R> {
    deb: &'a mut DebReader<R>,
}

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.deb.left).map_or(buf.len(), |left| left.min(buf.len()));
        if want == 0 {
            return Ok(0);
        }
        let n = self.deb.input.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"));
        }
        self.deb.left -= n as u64;
        Ok(n)
    }
}

/// Decompressed bytes of one member.
pub enum Decoder<M: Read> {
    #[doc(hidden)]
    Stored(M),
    #[doc(hidden)]
    Gz(Box<flate2::bufread::GzDecoder<BufReader<M>>>),
    #[doc(hidden)]
    Xz(Box<liblzma::bufread::XzDecoder<BufReader<M>>>),
    #[doc(hidden)]
    Zst(Box<zstd::stream::read::Decoder<'static, BufReader<M>>>),
}

impl<M: Read> Read for Decoder<M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Stored(r) => r.read(buf),
            Decoder::Gz(r) => r.read(buf),
            Decoder::Xz(r) => r.read(buf),
            Decoder::Zst(r) => r.read(buf),
        }
    }
}

/// How much compressed data is read at once.
const INPUT: usize = 128 << 10;

impl<R: Read> DebReader<R> {
    /// Checks that `input` begins like a .deb.
    pub fn new(mut input: R, limits: Limits) -> Result<Self, ArchiveError> {
        let mut magic = [0u8; 8];
        match input.read_exact(&mut magic) {
            Ok(()) if magic == *b"!<arch>\n" => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(ArchiveError::Read(e)),
            _ => return Err(ArchiveError::NotADeb),
        }
        let mut deb = Self { input, limits, left: 0, padding: false };
        match deb.next_member()? {
            Some(name) if name == b"debian-binary" && deb.left <= 64 => {}
            _ => return Err(ArchiveError::NotADeb),
        }
        let mut version = Vec::new();
        Member { deb: &mut deb }.read_to_end(&mut version).map_err(read_error)?;
        if !version.starts_with(b"2.") || !version.ends_with(b"\n") {
            return Err(ArchiveError::Format(shown(version.trim_ascii())));
        }
        Ok(deb)
    }

    /// The control archive.
    pub fn control(&mut self) -> Result<TarReader<Decoder<Member<'_, R>>>, ArchiveError> {
        self.part(Part::Control)
    }

    /// The data archive. What the control archive had left is skipped.
    pub fn data(&mut self) -> Result<TarReader<Decoder<Member<'_, R>>>, ArchiveError> {
        self.part(Part::Data)
    }

    /// The reader below, wherever it stands. What follows the data archive means nothing to anybody.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn part(&mut self, part: Part) -> Result<TarReader<Decoder<Member<'_, R>>>, ArchiveError> {
        let name = loop {
            let name = self.next_member()?.ok_or(ArchiveError::Missing(part))?;
            // By the format's rules, members with a leading underscore may stand anywhere and are to be ignored.
            if !name.starts_with(b"_") {
                break name;
            }
        };
        let limits = self.limits;
        let (prefix, cap) = match part {
            Part::Control => (&b"control.tar"[..], limits.control),
            Part::Data => (&b"data.tar"[..], limits.data),
        };
        let suffix = name.strip_prefix(prefix).ok_or(ArchiveError::Missing(part))?;
        let member = Member { deb: self };
        let failed = |source| ArchiveError::Decompress { part, source };
        let decoder = match suffix {
            b"" => Decoder::Stored(member),
            b".gz" => {
                let input = BufReader::with_capacity(INPUT, member);
                Decoder::Gz(Box::new(flate2::bufread::GzDecoder::new(input)))
            }
            b".xz" => {
                // Its own checksums are not computed: whoever reads a package knows its SHA-256.
                let stream = Stream::new_stream_decoder(limits.memory, IGNORE_CHECK).map_err(|e| failed(e.into()))?;
                let input = BufReader::with_capacity(INPUT, member);
                Decoder::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream)))
            }
            b".zst" => {
                let input = BufReader::with_capacity(INPUT, member);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
                decoder.window_log_max(limits.memory.ilog2()).map_err(failed)?;
                Decoder::Zst(Box::new(decoder))
            }
            _ => return Err(ArchiveError::Compression(shown(&name))),
        };
        Ok(TarReader::new(decoder, part, cap, limits.entries))
    }

    /// Skips what is left of the open member, and reads the header of the next.
    fn next_member(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        io::copy(&mut Member { deb: self }, &mut io::sink()).map_err(read_error)?;
        if std::mem::take(&mut self.padding) && self.input.read(&mut [0u8]).map_err(read_error)? == 0 {
            return Ok(None);
        }
        let mut header = [0u8; 60];
        let mut have = 0;
        while have < header.len() {
            match self.input.read(&mut header[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(ArchiveError::Truncated),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(e)),
            }
        }
        if &header[58..] != b"`\n" {
            return Err(ArchiveError::BadMember);
        }
        let size = std::str::from_utf8(header[48..58].trim_ascii_end()).ok();
        let size = size.filter(|s| s.bytes().all(|b| b.is_ascii_digit())).and_then(|s| s.parse::<u64>().ok());
        self.left = size.ok_or(ArchiveError::BadMember)?;
        self.padding = self.left % 2 == 1;
        let name = header[..16].trim_ascii_end();
        Ok(Some(name.strip_suffix(b"/").unwrap_or(name).to_vec()))
    }
}

fn read_error(e: io::Error) -> ArchiveError {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        _ => ArchiveError::Read(e),
    }
}

#[cfg(test)]
mod tests;
