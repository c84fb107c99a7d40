//! How a path follows from its content: `text:sha256:…`, `fixed:sha256:…`, `fixed:r:sha256:…`, as narinfo files and
//! Nix's database write it (`content-address.cc`).

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use igloo_base::Sha256;
use igloo_base::digest::HashWriter;
use memchr::memmem::Finder;

use super::store_path::StorePathError;
use super::{StorePath, base32};

/// The rule by which a path was made, and the digest that went into it.
///
/// Only SHA-256 is known here: it is what nearly all paths have. A path of another digest (`fixed:sha512:…`) is as good
/// as one that is not content-addressed: it needs a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentAddress {
    /// A derivation, or `builtins.toFile`: the digest of a file, which may have references.
    Text(Sha256),
    /// The digest of a file without references.
    Flat(Sha256),
    /// The digest of the archive; with its own digest part blanked, if it refers to itself.
    Recursive(Sha256),
}

/// A text that is no content address that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no content address by SHA-256")]
pub struct BadContentAddress(pub String);

impl FromStr for ContentAddress {
    type Err = BadContentAddress;

    fn from_str(text: &str) -> Result<Self, BadContentAddress> {
        let bad = || BadContentAddress(text.chars().take(120).collect());
        let (make, rest): (fn(Sha256) -> Self, _) = if let Some(rest) = text.strip_prefix("text:") {
            (Self::Text, rest)
        } else if let Some(rest) = text.strip_prefix("fixed:r:") {
            (Self::Recursive, rest)
        } else {
            (Self::Flat, text.strip_prefix("fixed:").ok_or_else(bad)?)
        };
        let digits = rest.strip_prefix("sha256:").ok_or_else(bad)?;
        base32::decode(digits).map(|digest| make(Sha256(digest))).ok_or_else(bad)
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, digest) = match self {
            Self::Text(digest) => ("text:", digest),
            Self::Flat(digest) => ("fixed:", digest),
            Self::Recursive(digest) => ("fixed:r:", digest),
        };
        write!(f, "{kind}sha256:{}", base32::encode(&digest.0))
    }
}

impl ContentAddress {
    /// The path that an object of this name, content and references has; `own` is the path it claims to have, which
    /// may be among the references.
    pub fn path(&self, own: &StorePath, references: &[StorePath]) -> Result<StorePath, StorePathError> {
        let others: Vec<StorePath> = references.iter().filter(|r| *r != own).cloned().collect();
        let to_itself = others.len() != references.len();
        match self {
            Self::Text(digest) => StorePath::text(own.name(), *digest, references),
            Self::Flat(digest) => StorePath::fixed_flat(own.name(), *digest),
            Self::Recursive(digest) => StorePath::fixed_recursive(own.name(), *digest, &others, to_itself),
        }
    }

    /// Whether `path` is the one that follows from this address. What it says of the content is another question.
    pub fn makes(&self, path: &StorePath, references: &[StorePath]) -> bool {
        let fits = !matches!(self, Self::Flat(_)) || references.is_empty();
        fits && self.path(path, references).is_ok_and(|made| made == *path)
    }
}

/// Digest of a byte stream in which every occurrence of an object's own digest part counts as 32 zero bytes; where
/// those were is hashed at the end, as `|<position>` each, so that zeros that were there before make a difference.
/// That is how Nix addresses objects that name themselves (`references.cc`, `HashModuloSink`).
pub struct HashModulo {
    finder: Finder<'static>,
    out: HashWriter<io::Sink>,
    /// What may be the beginning of an occurrence.
    tail: Vec<u8>,
    /// Position of `tail` in the stream.
    position: u64,
    matches: Vec<u64>,
}

impl HashModulo {
    /// `own` is the digest part, 32 digits.
    pub fn new(own: &str) -> Self {
        Self {
            finder: Finder::new(own.as_bytes()).into_owned(),
            out: HashWriter::new(io::sink()),
            tail: Vec::new(),
            position: 0,
            matches: Vec::new(),
        }
    }

    /// The digest.
    pub fn finish(mut self) -> Sha256 {
        let mut last = std::mem::take(&mut self.tail);
        for position in &self.matches {
            last.extend_from_slice(format!("|{position}").as_bytes());
        }
        // A hash does not fail.
        let _ = self.out.write_all(&last);
        self.out.finish().1
    }
}

impl Write for HashModulo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.finder.needle().len();
        self.tail.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = self.finder.find(&self.tail[from..]) {
            let at = from + at;
            self.matches.push(self.position + at as u64);
            self.tail[at..at + length].fill(0);
            from = at + length;
        }
        let done = self.tail.len().saturating_sub(length - 1);
        self.out.write_all(&self.tail[..done])?;
        self.tail.drain(..done);
        self.position += done as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_nix_writes_them() {
        // nix path-info --json of builtins.toFile "greet" "hello\n"
        let text = "text:sha256:0c3r67v6ny67v1m95rm3fbss5gxn05z1n1xhgp2x6f57b9lmxsr2";
        let own = StorePath::parse("yyr7r82l08607461bjnaqxw54fiafnqw-greet").expect("path");
        let address = ContentAddress::Text(Sha256::of(b"hello\n"));
        assert!(address.makes(&own, &[]));
        assert!(!address.makes(&own, std::slice::from_ref(&own)), "a text never names itself");
        assert_eq!(address.to_string().len(), text.len());
        assert_eq!(address.to_string().parse(), Ok(address));
        // nix store add-path t, see `nar`
        let nar = "b4c10ef90fc732f3568e43e113a727926f06a422300bb225f5700789abf1582e".parse().expect("digest");
        let own = StorePath::parse("wwkmkbhh3bariwn96wjkzybgzffq2bvg-t").expect("path");
        assert!(ContentAddress::Recursive(nar).makes(&own, &[]));
        assert!(!ContentAddress::Flat(nar).makes(&own, &[]));
    }

    #[test]
    fn own_digest_parts_count_as_zeros_with_their_positions() {
        let own = "wwkmkbhh3bariwn96wjkzybgzffq2bvg";
        let text = format!("x{own}{own}y{}", &own[..31]);
        let expected = [b"x", &[0; 64][..], b"y", &own.as_bytes()[..31], b"|1|33"].concat();
        for piece in [1, 7, 32, 1000] {
            let mut modulo = HashModulo::new(own);
            text.as_bytes().chunks(piece).for_each(|c| modulo.write_all(c).expect("hash"));
            assert_eq!(modulo.finish(), Sha256::of(&expected), "{piece}");
        }
    }

    #[test]
    fn others_are_refused() {
        let digits = "0".repeat(52);
        for text in ["", "fixed:", "fixed:sha1:aaaa", "r:sha256:", "fixed:git:sha256:0", &format!("x:sha256:{digits}")]
        {
            assert!(text.parse::<ContentAddress>().is_err(), "{text}");
        }
        assert!(format!("fixed:r:sha256:{digits}").parse::<ContentAddress>().is_ok());
    }
}
