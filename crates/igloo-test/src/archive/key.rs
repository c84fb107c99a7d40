//! Signing keys, made on the spot.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use pgp::composed::{ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, KeyVersion, Password, Timestamp};

/// An Ed25519 signing key. Clones are the same key.
#[derive(Debug, Clone)]
pub struct Key(Arc<SignedSecretKey>);

impl Key {
    /// A new key.
    pub fn generate() -> Self {
        let parameters = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .version(KeyVersion::V4)
            .can_sign(true)
            .can_certify(true)
            .primary_user_id("igloo test archive <archive@invalid>".to_owned())
            .build()
            .expect("parameters");
        Self(Arc::new(parameters.generate(rand::thread_rng()).expect("generate a key")))
    }

    /// One key for the whole process.
    pub fn shared() -> Self {
        static SHARED: OnceLock<Key> = OnceLock::new();
        SHARED.get_or_init(Key::generate).clone()
    }

    /// The certificate, as in a binary keyring.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.to_public_key().to_bytes().expect("serialise")
    }

    /// The certificate, as in an `.asc` file.
    pub fn armored(&self) -> String {
        self.0.to_public_key().to_armored_string(ArmorOptions::default()).expect("serialise")
    }

    /// Upper-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.0.primary_key.fingerprint())
    }
}

/// The text with the signatures of these keys, in the form of `InRelease`.
pub(super) fn clear_sign(text: &str, keys: &[Key]) -> String {
    let message = CleartextSignedMessage::new_many(text, |normalized| {
        keys.iter()
            .map(|key| {
                let secret = &key.0.primary_key;
                let mut config = SignatureConfig::v4(SignatureType::Text, secret.algorithm(), HashAlgorithm::Sha256);
                let made = Timestamp::try_from(SystemTime::now()).expect("a time of this century");
                config.hashed_subpackets = vec![
                    Subpacket::regular(SubpacketData::SignatureCreationTime(made))?,
                    Subpacket::regular(SubpacketData::IssuerFingerprint(secret.fingerprint()))?,
                ];
                // gpgv names keys by what stands here.
                config.unhashed_subpackets =
                    vec![Subpacket::regular(SubpacketData::IssuerKeyId(secret.legacy_key_id()))?];
                config.sign(secret, &Password::empty(), normalized.as_bytes())
            })
            .collect()
    });
    message.and_then(|m| m.to_armored_string(ArmorOptions::default())).expect("sign")
}
