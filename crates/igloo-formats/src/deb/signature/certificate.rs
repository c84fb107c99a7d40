//! Whether a certificate makes one of its keys fit to have made a signature.

use std::time::{Duration, SystemTime};

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, KeyVersion, PublicParams, Tag};

use super::{CLOCK_SKEW, Problem};

/// Adds everything that a second copy of a certificate says.
pub(super) fn merge(known: &mut SignedPublicKey, other: SignedPublicKey) {
    known.details.revocation_signatures.extend(other.details.revocation_signatures);
    known.details.direct_signatures.extend(other.details.direct_signatures);
    for user in other.details.users {
        match known.details.users.iter_mut().find(|u| u.id.id() == user.id.id()) {
            Some(same) => same.signatures.extend(user.signatures),
            None => known.details.users.push(user),
        }
    }
    for subkey in other.public_subkeys {
        match known.public_subkeys.iter_mut().find(|k| k.key.fingerprint() == subkey.key.fingerprint()) {
            Some(same) => same.signatures.extend(subkey.signatures),
            None => known.public_subkeys.push(subkey),
        }
    }
}

/// A primary key or subkey that may have made a signature.
pub(super) struct Candidate<'a> {
    pub(super) certificate: &'a SignedPublicKey,
    /// None for the primary key.
    subkey: Option<&'a SignedPublicSubKey>,
}

/// The keys of a certificate that a signature names as its maker.
pub(super) fn keys_named_by<'a>(certificate: &'a SignedPublicKey, signature: &Signature) -> Vec<Candidate<'a>> {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    let is_named = |key: &dyn KeyDetails| match fingerprints.is_empty() {
        false => fingerprints.contains(&&key.fingerprint()),
        true => ids.contains(&&key.legacy_key_id()),
    };
    let primary = is_named(&certificate.primary_key).then_some(Candidate { certificate, subkey: None });
    let subkeys = certificate.public_subkeys.iter().filter(|subkey| is_named(&subkey.key));
    primary.into_iter().chain(subkeys.map(|subkey| Candidate { certificate, subkey: Some(subkey) })).collect()
}

impl Candidate<'_> {
    /// Whether this key made this signature and was, at `now`, entitled to.
    pub(super) fn check(&self, signature: &Signature, text: &[u8], now: SystemTime) -> Result<(), Problem> {
        let primary = &self.certificate.primary_key;
        let name = match self.subkey {
            None => format!("{:X}", primary.fingerprint()),
            Some(subkey) => format!("{:X}", subkey.key.fingerprint()),
        };
        if signature.typ() != Some(SignatureType::Text) || !is_understood(signature) {
            return Err(Problem::Unsupported(name));
        }
        if let Some(hash) = weak_hash(signature) {
            return Err(Problem::WeakHash { key: name, hash });
        }
        let good = match self.subkey {
            None => signature.verify(primary, text),
            Some(subkey) => signature.verify(&subkey.key, text),
        };
        if good.is_err() {
            return Err(Problem::Bad(name));
        }

        let made: SystemTime = signature.created().ok_or_else(|| Problem::Unsupported(name.clone()))?.into();
        if made > now + CLOCK_SKEW {
            return Err(Problem::Future { key: name, at: made });
        }
        if let Some(at) = end(made, signature.signature_expiration_time()).filter(|at| *at <= now) {
            return Err(Problem::Expired { key: name, at });
        }

        let flags_sign = self.check_primary(now)?;
        match self.subkey {
            None if !flags_sign => Err(Problem::NotForSigning(name)),
            None => check_made_after_key(&name, primary.created_at().into(), made),
            Some(subkey) => {
                self.check_subkey(subkey, &name, now)?;
                check_made_after_key(&name, subkey.key.created_at().into(), made)
            }
        }
    }

    /// Whether the primary key, and so the certificate, is alive at `now`; true if it may sign itself.
    fn check_primary(&self, now: SystemTime) -> Result<bool, Problem> {
        let key = &self.certificate.primary_key;
        let details = &self.certificate.details;
        let name = format!("{:X}", key.fingerprint());
        if !matches!(key.version(), KeyVersion::V4 | KeyVersion::V6) || is_weak(key.public_params()) {
            return Err(Problem::WeakKey(name));
        }
        // A revocation counts whatever hash it was made with, and whenever.
        if details.revocation_signatures.iter().any(|s| s.verify_key(key).is_ok()) {
            return Err(Problem::KeyRevoked(name));
        }

        let current = details.direct_signatures.iter().filter(|s| is_current(s, now));
        let direct = latest(current, |s| s.verify_key(key).is_ok());
        let users = details.users.iter().filter_map(|user| {
            let counts = user.signatures.iter().filter(|s| is_revocation(s) || is_current(s, now));
            let own = latest(counts, |s| s.verify_certification(key, Tag::UserId, &user.id).is_ok())?;
            (!is_revocation(own)).then_some(own)
        });
        let user = users.max_by_key(|s| s.created().map(|t| t.as_secs()));
        if user.is_none() && direct.is_none() {
            return Err(Problem::NotForSigning(name));
        }

        // Both may name an end; the earlier one is taken.
        let ends = [user, direct].into_iter().flatten().map(|s| s.key_expiration_time());
        let ends = ends.filter_map(|after| end(key.created_at().into(), after));
        if let Some(at) = ends.min().filter(|at| *at <= now) {
            return Err(Problem::KeyExpired { key: name, at });
        }
        let flags = [user, direct].into_iter().flatten().find_map(signing_flag);
        // Keys older than key flags have none, and may do what their algorithm can.
        Ok(flags.unwrap_or(true))
    }

    /// Whether a subkey is alive at `now` and bound as a signing key.
    fn check_subkey(&self, subkey: &SignedPublicSubKey, name: &str, now: SystemTime) -> Result<(), Problem> {
        let primary = &self.certificate.primary_key;
        if is_weak(subkey.key.public_params()) {
            return Err(Problem::WeakKey(name.to_owned()));
        }
        let of_type = |typ| subkey.signatures.iter().filter(move |s| s.typ() == Some(typ));
        let is_own = |s: &Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
        if of_type(SignatureType::SubkeyRevocation).any(is_own) {
            return Err(Problem::KeyRevoked(name.to_owned()));
        }
        let unbound = || Problem::NotForSigning(name.to_owned());
        let bindings = of_type(SignatureType::SubkeyBinding).filter(|s| is_current(s, now));
        let binding = latest(bindings, is_own).ok_or_else(unbound)?;
        if let Some(at) = end(subkey.key.created_at().into(), binding.key_expiration_time()).filter(|at| *at <= now) {
            return Err(Problem::KeyExpired { key: name.to_owned(), at });
        }
        // The subkey must say itself that it belongs to this primary key, or anybody's key could be claimed.
        let back = binding.embedded_signature().ok_or_else(unbound)?;
        let bound = signing_flag(binding) == Some(true)
            && is_current(back, now)
            && back.verify_primary_key_binding(&subkey.key, primary).is_ok();
        if bound { Ok(()) } else { Err(unbound()) }
    }
}

/// The latest signature that verifies; a revocation comes after what was made in the same second. From the latest on,
/// since each attempt costs a millisecond or two.
fn latest<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    verifies: impl Fn(&Signature) -> bool,
) -> Option<&'a Signature> {
    let mut signatures: Vec<&Signature> = signatures.collect();
    signatures.sort_by_key(|s| std::cmp::Reverse((s.created().map(|t| t.as_secs()), is_revocation(s))));
    signatures.into_iter().find(|s| verifies(s))
}

fn is_revocation(signature: &Signature) -> bool {
    signature.typ() == Some(SignatureType::CertRevocation)
}

fn check_made_after_key(name: &str, key: SystemTime, made: SystemTime) -> Result<(), Problem> {
    // A signature older than its key was made with a wrong clock or was never made by it.
    if made + CLOCK_SKEW < key { Err(Problem::NotForSigning(name.to_owned())) } else { Ok(()) }
}

/// Whether a signature within a certificate counts at `now`.
fn is_current(signature: &Signature, now: SystemTime) -> bool {
    let Some(made) = signature.created() else { return false };
    let made: SystemTime = made.into();
    is_understood(signature)
        && weak_hash(signature).is_none()
        && made <= now + CLOCK_SKEW
        && end(made, signature.signature_expiration_time()).is_none_or(|at| at > now)
}

/// Whether its version is current and every part that its maker called critical is known.
fn is_understood(signature: &Signature) -> bool {
    let Some(config) = signature.config() else { return false };
    matches!(signature.version(), SignatureVersion::V4 | SignatureVersion::V6)
        && !config.hashed_subpackets().any(|part| {
            let unknown = matches!(
                part.data,
                SubpacketData::Experimental(..) | SubpacketData::Other(..) | SubpacketData::Notation(..)
            );
            part.is_critical && unknown
        })
}

/// The hash's name, if it is not one that is still believed in.
fn weak_hash(signature: &Signature) -> Option<String> {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    match signature.hash_alg() {
        Some(Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512) => None,
        Some(other) => Some(other.to_string()),
        None => Some("none".to_owned()),
    }
}

/// RSA below 2048 bits and everything built on DSA's small groups.
fn is_weak(params: &PublicParams) -> bool {
    match params {
        // Modulus and exponent, each with two bytes of length before it.
        PublicParams::RSA(rsa) => rsa.write_len() < 2 + 2048 / 8 + 2 + 1,
        PublicParams::ECDSA(_) | PublicParams::EdDSALegacy(_) | PublicParams::Ed25519(_) | PublicParams::Ed448(_) => {
            false
        }
        _ => true,
    }
}

/// What the key flags say about signing, if there are any.
fn signing_flag(signature: &Signature) -> Option<bool> {
    let has_flags = signature.config()?.hashed_subpackets().any(|part| matches!(part.data, SubpacketData::KeyFlags(_)));
    has_flags.then(|| signature.key_flags().sign())
}

/// When something that began at `start` ends; OpenPGP says "never" by zero as well as by nothing.
fn end(start: SystemTime, after: Option<pgp::types::Duration>) -> Option<SystemTime> {
    let after: Duration = after.filter(|d| d.as_secs() != 0)?.into();
    start.checked_add(after)
}
