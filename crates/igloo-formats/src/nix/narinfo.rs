//! `<digest part>.narinfo`: what a binary cache says of one store path. Read and written as Nix does (`nar-info.cc`).

use std::fmt::Write as _;
use std::str::FromStr;

use igloo_base::Sha256;

use super::signature::{self, Signature};
use super::store_path::StorePathError;
use super::{StorePath, parse_hash, show_hash};

/// Longest file that is read: a path with some thousand references takes half of it.
pub const MAX_LENGTH: usize = 1 << 20;
/// Most signatures that are read. Each may cost a check, and nobody has more than a few.
const MAX_SIGNATURES: usize = 64;

/// How the archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Compression {
    None,
    Xz,
    Bzip2,
    Gzip,
    Zstd,
    Brotli,
    Lz4,
    Lzip,
}

impl Compression {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::None, "none", ""),
        (Self::Xz, "xz", ".xz"),
        (Self::Bzip2, "bzip2", ".bz2"),
        (Self::Gzip, "gzip", ".gz"),
        (Self::Zstd, "zstd", ".zst"),
        (Self::Brotli, "br", ".br"),
        (Self::Lz4, "lz4", ".lz4"),
        (Self::Lzip, "lzip", ".lzip"),
    ];

    /// As narinfo files name it.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// What is appended to the file's name.
    pub fn suffix(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

impl FromStr for Compression {
    type Err = NarInfoError;

    fn from_str(text: &str) -> Result<Self, NarInfoError> {
        let found = Self::ALL.iter().find(|(_, name, _)| *name == text);
        found.map(|(one, _, _)| *one).ok_or_else(|| NarInfoError::Compression(text.chars().take(40).collect()))
    }
}

/// What a cache says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path.
    pub path: StorePath,
    /// Where the archive is, relative to the cache, or an address of its own.
    pub url: String,
    /// How it is packed.
    pub compression: Compression,
    /// Digest of the packed archive.
    pub file_hash: Option<Sha256>,
    /// Bytes of the packed archive.
    pub file_size: Option<u64>,
    /// Digest of the archive.
    pub nar_hash: Sha256,
    /// Bytes of the archive.
    pub nar_size: u64,
    /// Paths that it names, sorted.
    pub references: Vec<StorePath>,
    /// What built it.
    pub deriver: Option<StorePath>,
    /// Who vouches for it.
    pub signatures: Vec<Signature>,
    /// How the path follows from the content.
    pub content_address: Option<String>,
}

/// A narinfo file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// Too long, or no text.
    #[error("it is no text of at most {MAX_LENGTH} bytes")]
    NoText,
    /// A line that is no `Key: value`.
    #[error("`{0}` is no `Key: value`")]
    BadLine(String),
    /// Something that must be there is not.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Something is there twice.
    #[error("it has two lines of {0}")]
    Twice(&'static str),
    /// A value that does not fit its key.
    #[error("`{value}` is no {key}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Its value, cut.
        value: String,
    },
    /// A path that is none.
    #[error("its {key} is bad")]
    BadPath {
        /// The key.
        key: &'static str,
        /// Why.
        #[source]
        source: StorePathError,
    },
    /// A compression that nobody knows.
    #[error("its compression `{0}` is unknown")]
    Compression(String),
    /// More signatures than anybody has.
    #[error("it has more than {MAX_SIGNATURES} signatures")]
    Signatures,
}

impl NarInfo {
    /// Reads a narinfo file. Unknown keys are ignored; signatures of another kind, too.
    pub fn parse(bytes: &[u8]) -> Result<Self, NarInfoError> {
        if bytes.len() > MAX_LENGTH {
            return Err(NarInfoError::NoText);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| NarInfoError::NoText)?;
        let mut raw = Raw::default();
        for line in text.lines() {
            let shown = || NarInfoError::BadLine(line.chars().take(80).collect());
            let (key, value) =
                line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, ""))).ok_or_else(shown)?;
            raw.take(key, value)?;
        }
        raw.finish()
    }

    /// The file, with its keys in Nix's order.
    pub fn to_text(&self) -> String {
        let mut out =
            format!("StorePath: {}\nURL: {}\nCompression: {}\n", self.path.full(), self.url, self.compression.name());
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(out, "{key}: {value}");
        };
        if let Some(hash) = &self.file_hash {
            line("FileHash", &show_hash(hash));
        }
        if let Some(size) = self.file_size {
            line("FileSize", &size.to_string());
        }
        line("NarHash", &show_hash(&self.nar_hash));
        line("NarSize", &self.nar_size.to_string());
        let references: Vec<&str> = self.references.iter().map(StorePath::base_name).collect();
        line("References", &references.join(" "));
        if let Some(deriver) = &self.deriver {
            line("Deriver", deriver.base_name());
        }
        for signature in &self.signatures {
            line("Sig", &signature.to_string());
        }
        if let Some(address) = &self.content_address {
            line("CA", address);
        }
        out
    }

    /// What its signatures are over.
    pub fn fingerprint(&self) -> String {
        signature::fingerprint(&self.path, &self.nar_hash, self.nar_size, &self.references)
    }
}

/// A file as far as it was read.
#[derive(Default)]
struct Raw {
    path: Option<StorePath>,
    url: Option<String>,
    compression: Option<Compression>,
    file_hash: Option<Sha256>,
    file_size: Option<u64>,
    nar_hash: Option<Sha256>,
    nar_size: Option<u64>,
    references: Option<Vec<StorePath>>,
    deriver: Option<StorePath>,
    signatures: Vec<Signature>,
    content_address: Option<String>,
}

/// Every key at most once; Nix takes the last of some, but no cache writes two.
fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), NarInfoError> {
    if slot.replace(value).is_some() { Err(NarInfoError::Twice(key)) } else { Ok(()) }
}

impl Raw {
    fn take(&mut self, key: &str, value: &str) -> Result<(), NarInfoError> {
        let bad = |key| NarInfoError::BadValue { key, value: value.chars().take(80).collect() };
        let number = |key| value.parse::<u64>().map_err(|_| bad(key));
        let hash = |key| parse_hash(value).ok_or_else(|| bad(key));
        let base = |key, text: &str| match text.contains('/') {
            true => Err(bad(key)),
            false => StorePath::parse(text).map_err(|source| NarInfoError::BadPath { key, source }),
        };
        match key {
            "StorePath" => {
                let path =
                    StorePath::parse(value).map_err(|source| NarInfoError::BadPath { key: "StorePath", source })?;
                once(&mut self.path, "StorePath", path)
            }
            "URL" if value.is_empty() || value.chars().any(char::is_control) => Err(bad("URL")),
            "URL" => once(&mut self.url, "URL", value.to_owned()),
            "Compression" if value.is_empty() => once(&mut self.compression, "Compression", Compression::Bzip2),
            "Compression" => once(&mut self.compression, "Compression", value.parse()?),
            // A digest of another kind says nothing that we check.
            "FileHash" if !value.starts_with("sha256") => Ok(()),
            "FileHash" => once(&mut self.file_hash, "FileHash", hash("FileHash")?),
            "FileSize" => once(&mut self.file_size, "FileSize", number("FileSize")?),
            "NarHash" => once(&mut self.nar_hash, "NarHash", hash("NarHash")?),
            "NarSize" => once(&mut self.nar_size, "NarSize", number("NarSize")?),
            "References" => {
                let words = value.split(' ').filter(|w| !w.is_empty());
                let mut paths = words.map(|w| base("References", w)).collect::<Result<Vec<_>, _>>()?;
                paths.sort();
                paths.dedup();
                once(&mut self.references, "References", paths)
            }
            "Deriver" if value == "unknown-deriver" || value.is_empty() => Ok(()),
            "Deriver" => once(&mut self.deriver, "Deriver", base("Deriver", value)?),
            "Sig" => {
                self.signatures.extend(value.parse::<Signature>().ok());
                if self.signatures.len() > MAX_SIGNATURES { Err(NarInfoError::Signatures) } else { Ok(()) }
            }
            "CA" if value.is_empty() => Ok(()),
            "CA" => once(&mut self.content_address, "CA", value.to_owned()),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<NarInfo, NarInfoError> {
        use NarInfoError::Missing;
        Ok(NarInfo {
            path: self.path.ok_or(Missing("StorePath"))?,
            url: self.url.ok_or(Missing("URL"))?,
            // As caches did before there was a choice.
            compression: self.compression.unwrap_or(Compression::Bzip2),
            // Nix takes 0 for unknown.
            file_size: self.file_size.filter(|size| *size > 0),
            file_hash: self.file_hash,
            nar_hash: self.nar_hash.ok_or(Missing("NarHash"))?,
            nar_size: self.nar_size.filter(|size| *size > 0).ok_or(Missing("NarSize"))?,
            references: self.references.unwrap_or_default(),
            deriver: self.deriver,
            signatures: self.signatures,
            content_address: self.content_address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::PublicKey;

    /// As `nix copy --to 'file://…?compression=zstd'` of Nix 2.8 wrote it.
    const REAL: &str = "\
StorePath: /nix/store/jzn04982309sg9ndizv9ny2bc3a8zlgi-libgreet-1.2.0-dev
URL: nar/1kwqyry9nr3dcgmvw882n4g8k260zwv4r1xwmbgrbm1j97c4m0qj.nar.zst
Compression: zstd
FileHash: sha256:1kwqyry9nr3dcgmvw882n4g8k260zwv4r1xwmbgrbm1j97c4m0qj
FileSize: 363
NarHash: sha256:1fpdkxddp1219yf07rzqyw0ipgqlahg1x8p23jqj1j5zmch11328
NarSize: 1208
References: hdyxh8kra8napy0cxbnv83jz4sbxwzv5-libgreet-1.2.0 jzn04982309sg9ndizv9ny2bc3a8zlgi-libgreet-1.2.0-dev
Deriver: 75rqypmrii9bw2jnjbq808z0jb4zh9b1-libgreet-1.2.0.drv
Sig: test-1:Vppfddbt1VPYK5ps3HTwqSEKI20s/lCQbTBWlE49WXmUgM1/plvvJAJ/NnyCH7k7VqDuTXTVETqG3KQ2cO67Ag==
";

    #[test]
    fn what_nix_wrote_is_read_verified_and_written_again() {
        let info = NarInfo::parse(REAL.as_bytes()).expect("parse");
        assert_eq!(info.references.len(), 2);
        assert_eq!((info.file_size, info.nar_size), (Some(363), 1208));
        assert_eq!(info.to_text(), REAL);
        let key: PublicKey = "test-1:EUT5HCikA/HB/dOtG4UjxPlbdH7XniDdbymofq3Zd64=".parse().expect("key");
        assert!(key.verify(&info.fingerprint(), &info.signatures[0]));
        let fewer = NarInfo { references: Vec::new(), ..info };
        assert!(!key.verify(&fewer.fingerprint(), &fewer.signatures[0]));
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(REAL.contains(from), "{from}");
        NarInfo::parse(REAL.replacen(from, to, 1).as_bytes()).expect_err(to).to_string()
    }

    #[test]
    fn bad_ones_are_refused() {
        assert_eq!(refused("StorePath:", "Path:"), "it has no StorePath");
        assert_eq!(refused("/nix/store/", "/nix/store/../"), "its StorePath is bad");
        assert_eq!(refused("NarSize: 1208", "NarSize: 0"), "it has no NarSize");
        assert_eq!(refused("NarSize: 1208", "NarSize: -1"), "`-1` is no NarSize");
        assert_eq!(refused("NarSize: 1208", "NarSize: 99999999999999999999"), "`99999999999999999999` is no NarSize");
        assert_eq!(
            refused("NarHash: sha256:1", "NarHash: sha256:e"),
            "`sha256:efpdkxddp1219yf07rzqyw0ipgqlahg1x8p23jqj1j5zmch11328` is no NarHash"
        );
        assert_eq!(
            refused("NarHash: sha256", "NarHash: md5"),
            "`md5:1fpdkxddp1219yf07rzqyw0ipgqlahg1x8p23jqj1j5zmch11328` is no NarHash"
        );
        assert_eq!(refused("Deriver", "References: \nDeriver"), "it has two lines of References");
        assert_eq!(refused("Deriver", "CA: x\nCA: y\nDeriver"), "it has two lines of CA");
        assert_eq!(
            refused("References: ", "References: /nix/store/"),
            "`/nix/store/hdyxh8kra8napy0cxbnv83jz4sbxwzv5-libgreet-1.2.0 jzn04982309sg9ndizv9n` is no References"
        );
        assert_eq!(
            refused("References: h", "References: ../"),
            "`../dyxh8kra8napy0cxbnv83jz4sbxwzv5-libgreet-1.2.0 jzn04982309sg9ndizv9ny2bc3a8zl` is no References"
        );
        assert_eq!(refused("Compression: zstd", "Compression: rar"), "its compression `rar` is unknown");
        assert_eq!(
            refused("Deriver: ", "Deriver"),
            "`Deriver75rqypmrii9bw2jnjbq808z0jb4zh9b1-libgreet-1.2.0.drv` is no `Key: value`"
        );
        let long = format!("{REAL}X: {}\n", "x".repeat(MAX_LENGTH));
        assert_eq!(NarInfo::parse(long.as_bytes()), Err(NarInfoError::NoText));
        let many = format!("{REAL}{}", REAL.lines().last().map(|l| format!("{l}\n").repeat(64)).unwrap_or_default());
        assert_eq!(NarInfo::parse(many.as_bytes()), Err(NarInfoError::Signatures));
    }

    #[test]
    fn old_and_odd_ones_are_read() {
        let parse = |from: &str, to: &str| NarInfo::parse(REAL.replacen(from, to, 1).as_bytes()).expect(to);
        assert_eq!(parse("Compression: zstd\n", "").compression, Compression::Bzip2);
        assert_eq!(parse("Compression: zstd", "Compression: ").compression, Compression::Bzip2);
        assert_eq!(
            parse("Deriver: 75rqypmrii9bw2jnjbq808z0jb4zh9b1-libgreet-1.2.0.drv", "Deriver: unknown-deriver").deriver,
            None
        );
        assert_eq!(parse("Sig: test-1:V", "Sig: test-1:").signatures, Vec::new(), "no signature, and no error");
        assert_eq!(parse("Deriver: ", "System: x\nDeriver: ").nar_size, 1208);
        let hex = "NarHash: sha256:488c1020abbfc820b11ce2a21e1e5414bf1b01f7f8e7039c4f4184db5a9fedba";
        let info = parse("NarHash: sha256:1fpdkxddp1219yf07rzqyw0ipgqlahg1x8p23jqj1j5zmch11328", hex);
        assert_eq!(info.to_text(), REAL);
        for (one, name, _) in Compression::ALL {
            assert_eq!((one.name(), name.parse()), (name, Ok(one)));
        }
    }
}
