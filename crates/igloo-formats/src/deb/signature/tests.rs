//! Every reason to refuse, with real keys made on the spot.

use pgp::composed::{ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, PacketTrait, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Duration as Seconds, KeyVersion, Password, SigningKey, Tag, Timestamp};

use super::*;

const TEXT: &str = "Origin: Test\n- a dash\n--- dashes\nend\n";

/// A certificate whose primary key signs, and a signing subkey.
fn key() -> SignedSecretKey {
    key_of(KeyType::Ed25519Legacy)
}

/// The only kind that may be used with hashes which are too short for the others.
fn rsa_key() -> SignedSecretKey {
    static KEY: std::sync::OnceLock<SignedSecretKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| key_of(KeyType::Rsa(2048))).clone()
}

fn key_of(kind: KeyType) -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(kind.clone())
        .version(KeyVersion::V4)
        .can_sign(true)
        .build()
        .expect("subkey");
    SecretKeyParamsBuilder::default()
        .key_type(kind)
        .version(KeyVersion::V4)
        .can_sign(true)
        .can_certify(true)
        .primary_user_id("test <test@invalid>".to_owned())
        .subkey(subkey)
        .build()
        .expect("parameters")
        .generate(rand::thread_rng())
        .expect("generate")
}

fn regular(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).expect("subpacket")
}

fn config(
    key: &impl SigningKey,
    typ: SignatureType,
    hash: HashAlgorithm,
    parts: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), hash);
    config.hashed_subpackets = parts.into_iter().map(regular).collect();
    if !config.hashed_subpackets.iter().any(|p| matches!(p.data, SubpacketData::SignatureCreationTime(_))) {
        config.hashed_subpackets.push(regular(SubpacketData::SignatureCreationTime(Timestamp::now())));
    }
    config.hashed_subpackets.push(regular(SubpacketData::IssuerFingerprint(key.fingerprint())));
    config
}

fn signature(key: &impl SigningKey, text: &str, hash: HashAlgorithm, parts: Vec<SubpacketData>) -> Signature {
    let text = text.replace('\n', "\r\n");
    config(key, SignatureType::Text, hash, parts).sign(key, &Password::empty(), text.as_bytes()).expect("sign")
}

fn message(text: &str, signatures: Vec<Signature>) -> String {
    let message = CleartextSignedMessage::new_many(text, |_| Ok(signatures)).expect("message");
    message.to_armored_string(ArmorOptions::default()).expect("armor")
}

/// Signed by the primary key, in the usual way.
fn signed(key: &SignedSecretKey) -> String {
    message(TEXT, vec![signature(&key.primary_key, TEXT, HashAlgorithm::Sha256, vec![])])
}

fn signed_by_subkey(key: &SignedSecretKey) -> String {
    message(TEXT, vec![signature(&key.secret_subkeys[0].key, TEXT, HashAlgorithm::Sha256, vec![])])
}

fn binary(key: &SignedSecretKey) -> Vec<u8> {
    key.to_public_key().to_bytes().expect("bytes")
}

fn keyring(keys: &[&SignedSecretKey]) -> Keyring {
    Keyring::parse(&keys.iter().flat_map(|k| binary(k)).collect::<Vec<_>>()).expect("keyring")
}

fn verify(keyring: &Keyring, text: &str) -> Result<Verified, SignatureError> {
    keyring.verify_cleartext(text.as_bytes(), SystemTime::now())
}

#[track_caller]
fn problem(keyring: &Keyring, text: &str) -> Problem {
    match verify(keyring, text) {
        Err(SignatureError::NoGoodSignature(problems)) if problems.len() == 1 => problems[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn fingerprint(key: &SignedSecretKey) -> String {
    format!("{:X}", key.primary_key.fingerprint())
}

fn subkey_fingerprint(key: &SignedSecretKey) -> String {
    format!("{:X}", key.secret_subkeys[0].key.fingerprint())
}

/// Replaces the self-signature, which carries the key's expiry and flags.
fn recertify(key: &mut SignedSecretKey, hash: HashAlgorithm, parts: Vec<SubpacketData>) {
    let primary = &key.primary_key;
    let user = &mut key.details.users[0];
    let certification = config(primary, SignatureType::CertPositive, hash, parts)
        .sign_certification(primary, primary.public_key(), &Password::empty(), Tag::UserId, &user.id)
        .expect("certify");
    user.signatures = vec![certification];
}

fn flags(sign: bool) -> SubpacketData {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(sign);
    SubpacketData::KeyFlags(flags)
}

fn ago(seconds: u32) -> SubpacketData {
    SubpacketData::SignatureCreationTime(Timestamp::from_secs(Timestamp::now().as_secs() - seconds))
}

#[test]
fn a_good_signature_gives_the_text_and_the_signer() {
    let (key, other) = (key(), key());
    for text in [signed(&key), signed_by_subkey(&key)] {
        let verified = verify(&keyring(&[&other, &key]), &text).expect("verify");
        assert_eq!(verified.text.trim_end(), TEXT.trim_end());
        assert_eq!(verified.signers, [fingerprint(&key)]);
    }
    // The other ends of lines are the same text to a signature.
    let verified = verify(&keyring(&[&key]), &signed(&key).replace('\n', "\r\n")).expect("verify");
    assert_eq!(verified.text.trim_end(), TEXT.trim_end());
}

#[test]
fn keyrings_may_be_armored_and_hold_several_blocks() {
    let (a, b) = (key(), key());
    let armored: String =
        [&a, &b].map(|k| k.to_public_key().to_armored_string(ArmorOptions::default()).expect("armor")).concat();
    let both = Keyring::parse(armored.as_bytes()).expect("keyring");
    assert_eq!(both.fingerprints().count(), 2);
    assert!(verify(&both, &signed(&b)).is_ok());
    assert!(matches!(Keyring::parse(b""), Err(SignatureError::NoCertificate)));
    assert!(matches!(Keyring::parse(b"no keys"), Err(SignatureError::NoCertificate)));
}

#[test]
fn a_changed_text_is_refused() {
    let key = key();
    let keyring = keyring(&[&key]);
    assert_eq!(problem(&keyring, &signed(&key).replace("Test", "Tesu")), Problem::Bad(fingerprint(&key)));
    assert_eq!(problem(&keyring, &signed(&key).replace("\nend", "\nend\nend")), Problem::Bad(fingerprint(&key)));
}

#[test]
fn an_unknown_key_is_named() {
    let (key, other) = (key(), key());
    assert_eq!(problem(&keyring(&[&other]), &signed(&key)), Problem::UnknownKey(fingerprint(&key)));
}

#[test]
fn one_good_signature_is_enough() {
    let (key, other) = (key(), key());
    let both = [&key, &other].map(|k| signature(&k.primary_key, TEXT, HashAlgorithm::Sha512, vec![]));
    let text = message(TEXT, both.to_vec());
    let verified = verify(&keyring(&[&other]), &text).expect("verify");
    assert_eq!(verified.signers, [fingerprint(&other)]);
    assert_eq!(verify(&keyring(&[&key, &other]), &text).expect("verify").signers.len(), 2);
}

#[test]
fn an_expired_key_is_refused_from_its_end_on() {
    let mut key = key();
    let parts = vec![flags(true), SubpacketData::KeyExpirationTime(Seconds::from_secs(3600))];
    recertify(&mut key, HashAlgorithm::Sha256, parts);
    let (keyring, text) = (keyring(&[&key]), signed(&key));
    assert!(verify(&keyring, &text).is_ok());
    let later = SystemTime::now() + Duration::from_secs(3700);
    let error = keyring.verify_cleartext(text.as_bytes(), later).expect_err("expired").to_string();
    assert!(error.contains(&format!("key {} expired at 20", fingerprint(&key))), "{error}");
    // ... and its subkey with it.
    assert!(keyring.verify_cleartext(signed_by_subkey(&key).as_bytes(), later).is_err());
}

#[test]
fn a_revoked_key_is_refused_in_any_copy_of_it() {
    let mut revoked = rsa_key();
    let clean = binary(&revoked);
    let primary = &revoked.primary_key;
    let revocation = config(primary, SignatureType::KeyRevocation, HashAlgorithm::Sha1, vec![])
        .sign_key(primary, &Password::empty(), primary.public_key())
        .expect("revoke");
    revoked.details.revocation_signatures.push(revocation);
    let expected = Problem::KeyRevoked(fingerprint(&revoked));
    assert_eq!(problem(&keyring(&[&revoked]), &signed(&revoked)), expected);
    assert_eq!(problem(&keyring(&[&revoked]), &signed_by_subkey(&revoked)), expected);

    let mut merged = Keyring::parse(&clean).expect("keyring");
    assert!(verify(&merged, &signed(&revoked)).is_ok());
    merged.extend(keyring(&[&revoked]));
    assert_eq!(merged.fingerprints().count(), 1);
    assert_eq!(problem(&merged, &signed(&revoked)), expected);
}

#[test]
fn somebody_elses_revocation_does_not_count() {
    let (mut victim, other) = (key(), key());
    let primary = &other.primary_key;
    let revocation = config(primary, SignatureType::KeyRevocation, HashAlgorithm::Sha256, vec![])
        .sign_key(primary, &Password::empty(), victim.primary_key.public_key())
        .expect("revoke");
    victim.details.revocation_signatures.push(revocation);
    assert!(verify(&keyring(&[&victim]), &signed(&victim)).is_ok());
}

#[test]
fn a_revoked_subkey_is_refused_and_the_primary_key_is_not() {
    let mut key = key();
    let primary = &key.primary_key;
    let subkey = &key.secret_subkeys[0];
    let revocation = config(primary, SignatureType::SubkeyRevocation, HashAlgorithm::Sha256, vec![])
        .sign_subkey_binding(primary, primary.public_key(), &Password::empty(), subkey.key.public_key())
        .expect("revoke");
    let expected = Problem::KeyRevoked(subkey_fingerprint(&key));
    key.secret_subkeys[0].signatures.push(revocation);
    assert_eq!(problem(&keyring(&[&key]), &signed_by_subkey(&key)), expected);
    assert!(verify(&keyring(&[&key]), &signed(&key)).is_ok());
}

#[test]
fn a_subkey_must_be_bound_for_signing_from_both_sides() {
    let good = key();
    let rebind = |parts: Vec<SubpacketData>| {
        let mut key = good.clone();
        let primary = &key.primary_key;
        let binding = config(primary, SignatureType::SubkeyBinding, HashAlgorithm::Sha256, parts)
            .sign_subkey_binding(
                primary,
                primary.public_key(),
                &Password::empty(),
                key.secret_subkeys[0].key.public_key(),
            )
            .expect("bind");
        key.secret_subkeys[0].signatures = vec![binding];
        key
    };
    let back = good.secret_subkeys[0].signatures[0].embedded_signature().expect("back signature").clone();
    let back = || SubpacketData::EmbeddedSignature(Box::new(back.clone()));
    let name = subkey_fingerprint(&good);
    let text = signed_by_subkey(&good);

    assert!(verify(&keyring(&[&rebind(vec![flags(true), back()])]), &text).is_ok());
    let unbound = Problem::NotForSigning(name.clone());
    assert_eq!(problem(&keyring(&[&rebind(vec![flags(true)])]), &text), unbound);
    assert_eq!(problem(&keyring(&[&rebind(vec![flags(false), back()])]), &text), unbound);
    assert_eq!(problem(&keyring(&[&rebind(vec![back()])]), &text), unbound);

    let ended = vec![flags(true), back(), SubpacketData::KeyExpirationTime(Seconds::from_secs(1))];
    let later = SystemTime::now() + Duration::from_secs(10);
    match keyring(&[&rebind(ended)]).verify_cleartext(text.as_bytes(), later) {
        Err(SignatureError::NoGoodSignature(p)) => assert!(matches!(p[0], Problem::KeyExpired { .. }), "{p:?}"),
        other => panic!("{other:?}"),
    }

    // Another certificate that claims this subkey as its own.
    let mut thief = key();
    let primary = &thief.primary_key;
    let stolen = good.secret_subkeys[0].clone();
    let claim = config(primary, SignatureType::SubkeyBinding, HashAlgorithm::Sha256, vec![flags(true), back()])
        .sign_subkey_binding(primary, primary.public_key(), &Password::empty(), stolen.key.public_key())
        .expect("bind");
    thief.secret_subkeys = vec![stolen];
    thief.secret_subkeys[0].signatures = vec![claim];
    assert_eq!(problem(&keyring(&[&thief]), &text), unbound);
}

#[test]
fn a_key_that_may_only_certify_is_refused() {
    let mut key = key();
    recertify(&mut key, HashAlgorithm::Sha256, vec![flags(false)]);
    assert_eq!(problem(&keyring(&[&key]), &signed(&key)), Problem::NotForSigning(fingerprint(&key)));
    assert!(verify(&keyring(&[&key]), &signed_by_subkey(&key)).is_ok());
}

#[test]
fn weak_hashes_are_refused() {
    let mut key = rsa_key();
    assert!(verify(&keyring(&[&key]), &signed(&key)).is_ok());
    for hash in [HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Ripemd160] {
        let text = message(TEXT, vec![signature(&key.primary_key, TEXT, hash, vec![])]);
        let expected = Problem::WeakHash { key: fingerprint(&key), hash: hash.to_string() };
        assert_eq!(problem(&keyring(&[&key]), &text), expected);
    }
    // In the certificate too.
    recertify(&mut key, HashAlgorithm::Sha1, vec![flags(true)]);
    assert_eq!(problem(&keyring(&[&key]), &signed(&key)), Problem::NotForSigning(fingerprint(&key)));
}

#[test]
fn signatures_have_a_beginning_and_an_end() {
    let key = key();
    let keyring = keyring(&[&key]);
    let with = |parts| message(TEXT, vec![signature(&key.primary_key, TEXT, HashAlgorithm::Sha256, parts)]);
    let future = Timestamp::from_secs(Timestamp::now().as_secs() + 3600);
    let text = with(vec![SubpacketData::SignatureCreationTime(future)]);
    assert!(matches!(problem(&keyring, &text), Problem::Future { .. }));
    let text = with(vec![ago(100), SubpacketData::SignatureExpirationTime(Seconds::from_secs(50))]);
    assert!(matches!(problem(&keyring, &text), Problem::Expired { .. }));
    let text = with(vec![ago(100_000)]);
    assert_eq!(problem(&keyring, &text), Problem::NotForSigning(fingerprint(&key)), "older than its key");
}

#[test]
fn other_kinds_of_signatures_and_unknown_critical_parts_are_refused() {
    let key = key();
    let primary = &key.primary_key;
    let text = TEXT.replace('\n', "\r\n");
    let of_binary = config(primary, SignatureType::Binary, HashAlgorithm::Sha256, vec![])
        .sign(primary, &Password::empty(), text.as_bytes())
        .expect("sign");
    let expected = Problem::Unsupported(fingerprint(&key));
    assert_eq!(problem(&keyring(&[&key]), &message(TEXT, vec![of_binary])), expected);

    let mut critical = config(primary, SignatureType::Text, HashAlgorithm::Sha256, vec![]);
    let part = SubpacketData::Experimental(101, b"?".to_vec().into());
    critical.hashed_subpackets.push(Subpacket::critical(part).expect("subpacket"));
    let critical = critical.sign(primary, &Password::empty(), text.as_bytes()).expect("sign");
    assert_eq!(problem(&keyring(&[&key]), &message(TEXT, vec![critical])), expected);
}

#[test]
fn nothing_outside_of_the_signed_block_is_used() {
    let key = key();
    let (keyring, text) = (keyring(&[&key]), signed(&key));
    let check = |text: &str| verify(&keyring, text).expect_err("refused");
    assert!(matches!(check(&format!("Origin: Evil\n{text}")), SignatureError::Outside));
    assert!(matches!(check(&format!("{text}Origin: Evil\n")), SignatureError::Outside));
    assert!(matches!(check(&format!("{text}{text}")), SignatureError::Outside));
    assert!(matches!(check(TEXT), SignatureError::NotSigned));
    assert!(matches!(check(&text[..text.len() / 2]), SignatureError::NotSigned));
    assert!(verify(&keyring, &format!("\n{text}\n\n")).is_ok());
    // A header other than `Hash` is not part of what is signed either.
    let with_header = text.replacen("Hash:", "Origin: Evil\nHash:", 1);
    assert!(matches!(check(&with_header), SignatureError::Malformed(_)));
    let none = text.replacen("-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----", 1);
    assert!(matches!(check(&none), SignatureError::Malformed(_)));
    let big = vec![b'-'; MAX_RELEASE + 1];
    assert!(matches!(keyring.verify_cleartext(&big, SystemTime::now()), Err(SignatureError::TooLarge(_))));
}

#[test]
fn the_user_id_may_be_revoked() {
    let mut key = key();
    let primary = &key.primary_key;
    let user = &mut key.details.users[0];
    assert_eq!(user.id.tag(), Tag::UserId);
    let revocation = config(primary, SignatureType::CertRevocation, HashAlgorithm::Sha256, vec![])
        .sign_certification(primary, primary.public_key(), &Password::empty(), Tag::UserId, &user.id)
        .expect("revoke");
    user.signatures.push(revocation);
    assert_eq!(problem(&keyring(&[&key]), &signed(&key)), Problem::NotForSigning(fingerprint(&key)));
}
