//! Keys of ssh's: ed25519, in the forms that OpenSSH writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// The only kind there is here.
const KIND: &str = "ssh-ed25519";
/// What a private key's file begins with, when it is decoded.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Width of base 64 in a private key's file.
const WIDTH: usize = 70;
/// A private key is padded to a whole number of these; it is what there is without encryption.
const BLOCK: usize = 8;

/// A pair of keys.
pub struct KeyPair {
    key: SigningKey,
    comment: String,
}

impl KeyPair {
    /// The pair of a secret, which must be random. The comment is one line.
    pub fn new(secret: &[u8; 32], comment: &str) -> Self {
        Self { key: SigningKey::from_bytes(secret), comment: comment.replace(['\n', '\r'], " ") }
    }

    /// The public half as `known_hosts` and the like have it, without a comment: `ssh-ed25519 AAAA…`.
    pub fn public(&self) -> String {
        format!("{KIND} {}", STANDARD.encode(self.blob()))
    }

    /// The public half as a file.
    pub fn public_file(&self) -> String {
        format!("{} {}\n", self.public(), self.comment)
    }

    /// The private half as a file, not encrypted.
    pub fn private_file(&self) -> String {
        let public = self.key.verifying_key().to_bytes();
        let mut secret = Vec::new();
        // Twice the same number, by which a reader sees whether it decrypted well.
        secret.extend_from_slice(&public[..4]);
        secret.extend_from_slice(&public[..4]);
        string(&mut secret, KIND.as_bytes());
        string(&mut secret, &public);
        string(&mut secret, &self.key.to_keypair_bytes());
        string(&mut secret, self.comment.as_bytes());
        for byte in 1.. {
            if secret.len().is_multiple_of(BLOCK) {
                break;
            }
            secret.push(byte);
        }
        let mut file = MAGIC.to_vec();
        // No cipher, no key derivation, one key.
        string(&mut file, b"none");
        string(&mut file, b"none");
        string(&mut file, b"");
        file.extend_from_slice(&1_u32.to_be_bytes());
        string(&mut file, &self.blob());
        string(&mut file, &secret);
        let mut text = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        for line in STANDARD.encode(file).as_bytes().chunks(WIDTH) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text + "-----END OPENSSH PRIVATE KEY-----\n"
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        string(&mut blob, KIND.as_bytes());
        string(&mut blob, &self.key.verifying_key().to_bytes());
        blob
    }
}

/// A public key as Nix's list of builders has it.
pub fn encoded(public: &str) -> String {
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    STANDARD.encode(words.join(" "))
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_keygen_reads_what_is_written() {
        for comment in ["", "a", "igloo", "of somebody@somewhere"] {
            let pair = KeyPair::new(&[7; 32], comment);
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), pair.private_file()).expect("write");
            let mut keygen = std::process::Command::new("ssh-keygen");
            let Ok(output) = keygen.arg("-y").arg("-f").arg(file.path()).output() else { return };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), format!("{} {comment}", pair.public()).trim(), "{output:?}");
        }
    }
}
