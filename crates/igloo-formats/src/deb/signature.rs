//! OpenPGP signatures of release files: clear-signed text, checked against a keyring.
//!
//! Everything that `gpgv` would check is checked here, since the library below only does the arithmetic: expiry and
//! revocation of keys and subkeys at a given time, bindings of subkeys and what they may be used for, age of the
//! signature, strength of hashes and keys. One good signature is enough, as for apt.

use std::io::Cursor;
use std::time::{Duration, SystemTime};

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::packet::Signature;
use pgp::types::KeyDetails;

use super::release::{MAX_RELEASE, format_date};

mod certificate;
#[cfg(test)]
mod tests;

/// Largest keyring that is taken; Debian's is 56 KB.
const MAX_KEYRING: usize = 16 << 20;

/// Most certificates of one keyring.
const MAX_CERTIFICATES: usize = 10_000;

/// Most signatures of one text; each costs an attempt per key that it names.
const MAX_SIGNATURES: usize = 64;

/// How far the clock of the signer may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const END: &str = "-----END PGP SIGNATURE-----";
const ARMOR: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Why a text is not taken as signed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Longer than a release file can be.
    #[error("the signed text has {0} bytes, more than {MAX_RELEASE}")]
    TooLarge(usize),
    /// A keyring that is longer than [`MAX_KEYRING`] or holds too many certificates.
    #[error("the keyring is too large")]
    KeyringTooLarge,
    /// A keyring without a usable certificate.
    #[error("the keyring holds no certificate that can be read")]
    NoCertificate,
    /// Not a clear-signed text at all.
    #[error("the text is not clear-signed (no `{BEGIN}`)")]
    NotSigned,
    /// Something stands before or after the signed block.
    #[error("there is text outside of the signed block")]
    Outside,
    /// A clear-signed text that cannot be read.
    #[error("the signed text cannot be read")]
    Malformed(#[source] Box<pgp::errors::Error>),
    /// Signatures that all have something against them.
    #[error("no good signature: {}", list(.0))]
    NoGoodSignature(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [] => "there are no signatures".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// What speaks against one signature. Keys are named by fingerprint or, where only that is known, by key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The keyring has no such key.
    #[error("key {0} is not in the keyring")]
    UnknownKey(String),
    /// The arithmetic says no.
    #[error("the text is not what key {0} signed")]
    Bad(String),
    /// A kind or version of signature that is not taken.
    #[error("key {0} made a kind of signature that is not used for release files")]
    Unsupported(String),
    /// MD5, SHA-1, RIPEMD or worse.
    #[error("key {key} signed with the weak hash {hash}")]
    WeakHash {
        /// The key.
        key: String,
        /// The algorithm.
        hash: String,
    },
    /// RSA below 2048 bits, DSA.
    #[error("key {0} is too weak")]
    WeakKey(String),
    /// Made after now.
    #[error("key {key} signed in the future, at {}", format_date(*.at))]
    Future {
        /// The key.
        key: String,
        /// When.
        at: SystemTime,
    },
    /// The signature itself has an end.
    #[error("the signature of key {key} expired at {}", format_date(*.at))]
    Expired {
        /// The key.
        key: String,
        /// When.
        at: SystemTime,
    },
    /// The key has an end.
    #[error("key {key} expired at {}", format_date(*.at))]
    KeyExpired {
        /// The key.
        key: String,
        /// When.
        at: SystemTime,
    },
    /// The key was taken back.
    #[error("key {0} is revoked")]
    KeyRevoked(String),
    /// The key may not sign, or its certificate does not hold together.
    #[error("key {0} is not bound to its certificate as a signing key")]
    NotForSigning(String),
}

/// A text with at least one good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Exactly what was signed, with `\n` at the ends of lines.
    pub text: String,
    /// Fingerprints, in upper-case hexadecimal, of the primary keys of good signatures, sorted.
    pub signers: Vec<String>,
}

/// Certificates that are trusted to sign.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

impl Keyring {
    /// Reads certificates, binary or armored (several blocks too). Those that cannot be read are left out, which
    /// can only make fewer signatures good.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > MAX_KEYRING {
            return Err(SignatureError::KeyringTooLarge);
        }
        let mut keyring = Self::default();
        if bytes.first().is_some_and(|b| b & 0x80 != 0) {
            if let Ok(certificates) = SignedPublicKey::from_bytes_many(Cursor::new(bytes)) {
                keyring.insert(certificates)?;
            }
        } else {
            let starts: Vec<usize> = memchr::memmem::find_iter(bytes, ARMOR).collect();
            for (i, start) in starts.iter().enumerate() {
                let end = starts.get(i + 1).copied().unwrap_or(bytes.len());
                if let Ok((certificates, _)) = SignedPublicKey::from_armor_many_buf(Cursor::new(&bytes[*start..end])) {
                    keyring.insert(certificates)?;
                }
            }
        }
        match keyring.certificates.is_empty() {
            true => Err(SignatureError::NoCertificate),
            false => Ok(keyring),
        }
    }

    fn insert(
        &mut self,
        certificates: impl Iterator<Item = Result<SignedPublicKey, pgp::errors::Error>>,
    ) -> Result<(), SignatureError> {
        // The iterator also yields what it could not read, so it is the one that is counted.
        for (count, certificate) in certificates.enumerate() {
            if count == MAX_CERTIFICATES {
                return Err(SignatureError::KeyringTooLarge);
            }
            if let Ok(certificate) = certificate {
                self.add(certificate);
            }
        }
        Ok(())
    }

    /// Adds the certificates of another keyring.
    pub fn extend(&mut self, other: Keyring) {
        for certificate in other.certificates {
            self.add(certificate);
        }
    }

    /// Keeps what every copy of a certificate says, so that a revocation in one of them holds for all.
    fn add(&mut self, certificate: SignedPublicKey) {
        let fingerprint = certificate.fingerprint();
        match self.certificates.iter_mut().find(|c| c.fingerprint() == fingerprint) {
            Some(known) if *known == certificate => {}
            Some(known) => certificate::merge(known, certificate),
            None => self.certificates.push(certificate),
        }
    }

    /// Whether it holds no certificate.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Fingerprints of the primary keys, in upper-case hexadecimal.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> + '_ {
        self.certificates.iter().map(|c| format!("{:X}", c.fingerprint()))
    }

    /// Checks a clear-signed text. What is returned is the signed text alone; a text that has anything before or
    /// after its signed block is refused, as apt does, because nobody can have meant it.
    pub fn verify_cleartext(&self, signed: &[u8], now: SystemTime) -> Result<Verified, SignatureError> {
        if signed.len() > MAX_RELEASE {
            return Err(SignatureError::TooLarge(signed.len()));
        }
        let block = signed_block(signed)?;
        let (message, _) =
            CleartextSignedMessage::from_string(block).map_err(|e| SignatureError::Malformed(Box::new(e)))?;
        let text = message.signed_text();
        let mut signers = Vec::new();
        let mut problems = Vec::new();
        for signature in message.signatures().iter().take(MAX_SIGNATURES) {
            match self.check(signature, text.as_bytes(), now) {
                Ok(signer) => signers.push(signer),
                Err(problem) => problems.push(problem),
            }
        }
        if signers.is_empty() {
            return Err(SignatureError::NoGoodSignature(problems));
        }
        signers.sort();
        signers.dedup();
        Ok(Verified { text: text.replace("\r\n", "\n"), signers })
    }

    /// The primary key that a good signature belongs to.
    fn check(&self, signature: &Signature, text: &[u8], now: SystemTime) -> Result<String, Problem> {
        let candidates = self.certificates.iter().flat_map(|c| certificate::keys_named_by(c, signature));
        let mut worst = Problem::UnknownKey(issuer(signature));
        for key in candidates {
            match key.check(signature, text, now) {
                Ok(()) => return Ok(format!("{:X}", key.certificate.fingerprint())),
                Err(problem) => worst = problem,
            }
        }
        Err(worst)
    }
}

/// Whom a signature names as its maker.
fn issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("{fingerprint:X}");
    }
    signature.issuer_key_id().first().map_or_else(|| "of no name".to_owned(), |id| id.to_string().to_uppercase())
}

/// The signed block, from its first dash to its last.
fn signed_block(signed: &[u8]) -> Result<&str, SignatureError> {
    let text = std::str::from_utf8(signed).map_err(|_| SignatureError::NotSigned)?;
    let at_line_start = |position: usize| position == 0 || text.as_bytes()[position - 1] == b'\n';
    let begin = text.match_indices(BEGIN).map(|(i, _)| i).find(|i| at_line_start(*i));
    let begin = begin.ok_or(SignatureError::NotSigned)?;
    let end = text.match_indices(END).map(|(i, _)| i).find(|i| *i > begin && at_line_start(*i));
    let end = end.ok_or(SignatureError::NotSigned)? + END.len();
    if !text[..begin].trim().is_empty() || !text[end..].trim().is_empty() {
        return Err(SignatureError::Outside);
    }
    Ok(&text[begin..end])
}
