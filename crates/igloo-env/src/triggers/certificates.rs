//! Trigger 8: the bundle of certificate authorities, links to each of them by name and by OpenSSL's hash, and Java's
//! key store where there is a Java.

use sha1::{Digest as _, Sha1};

use crate::EnvError;
use crate::layer::{Layer, What, join};

const SOURCE: &str = "usr/share/ca-certificates";
const CERTS: &str = "etc/ssl/certs";

struct Certificate {
    /// Name of the file without its suffix.
    name: String,
    /// Where it is.
    path: String,
    text: String,
    der: Vec<u8>,
}

pub(crate) fn run(layer: &mut Layer<'_>) -> Result<(), EnvError> {
    let mut certificates = Vec::new();
    let mut configuration = String::new();
    for dir in [SOURCE, "usr/local/share/ca-certificates"] {
        for path in layer.tree(dir) {
            if !path.ends_with(".crt") || layer.stat(&path) != Some(What::File) {
                continue;
            }
            let text = layer.read_text(&path)?.unwrap_or_default();
            let Some(der) = der(&text) else { continue };
            if let Some(name) = path.strip_prefix(&format!("{SOURCE}/")) {
                configuration += &format!("{name}\n");
            }
            let (_, file) = crate::layer::split(&path);
            let name = file.trim_end_matches(".crt").replace(' ', "_").replace([',', '(', ')'], "=");
            certificates.push(Certificate { name, path, text, der });
        }
    }
    if certificates.is_empty() {
        return Ok(());
    }
    layer.put("etc/ca-certificates.conf", configuration);
    let mut bundle = String::new();
    for c in &certificates {
        bundle += c.text.trim_end();
        bundle.push('\n');
        layer.link(&format!("/{}", c.path), &format!("{CERTS}/{}.pem", c.name));
        if let Some(hash) = subject_hash(&c.der) {
            // Different certificates of one name are told apart by the number.
            for number in 0..10 {
                if layer.link(&format!("{}.pem", c.name), &format!("{CERTS}/{hash:08x}.{number}")) {
                    break;
                }
            }
        }
    }
    layer.replace_generated(&format!("{CERTS}/ca-certificates.crt"), bundle);
    layer.link("/etc/ssl/certs", "usr/lib/ssl/certs");
    layer.link("/etc/ssl/certs/ca-certificates.crt", "usr/lib/ssl/cert.pem");
    if layer.is_dir("usr/lib/jvm") {
        layer.put(&join(CERTS, "java/cacerts"), key_store(&certificates));
    }
    Ok(())
}

/// The first certificate of a PEM file.
fn der(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let (mut out, mut bits, mut count) = (Vec::with_capacity(body.len() * 3 / 4), 0u32, 0);
    for c in body.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ if c.is_ascii_whitespace() => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// Takes one DER value: tag, content, and what comes after it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        length = rest[..count].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        rest = &rest[count..];
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = (length as u32).to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (4 - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

/// OpenSSL's name for a certificate: digest of its subject, in which case and blanks do not count.
fn subject_hash(der: &[u8]) -> Option<u32> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    let (_, certificate, _) = value(der)?;
    let (_, mut rest, _) = value(certificate)?;
    // version (optional), serial, algorithm, issuer, validity, subject
    if rest.first() == Some(&0xa0) {
        rest = value(rest)?.2;
    }
    for _ in 0..4 {
        rest = value(rest)?.2;
    }
    let (_, mut names, _) = value(rest)?;
    let mut canonical = Vec::new();
    while !names.is_empty() {
        let (_, mut set, after) = value(names)?;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (_, attribute, next) = value(set)?;
            let (oid_tag, oid, tail) = value(attribute)?;
            let (tag, text, _) = value(tail)?;
            let mut content = encode(oid_tag, oid);
            content.extend(match canonical_text(tag, text) {
                Some(text) => encode(0x0c, text.as_bytes()),
                None => encode(tag, text),
            });
            attributes.push(encode(SEQUENCE, &content));
            set = next;
        }
        attributes.sort();
        canonical.extend(encode(SET, &attributes.concat()));
        names = after;
    }
    let digest = Sha1::digest(&canonical);
    Some(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
}

/// A string of a name as UTF-8, lower case, blanks trimmed and joined. `None` for what is no string.
fn canonical_text(tag: u8, bytes: &[u8]) -> Option<String> {
    let text = match tag {
        // UTF8String, PrintableString, IA5String, VisibleString
        0x0c | 0x13 | 0x16 | 0x1a => String::from_utf8_lossy(bytes).into_owned(),
        // T61String, read as Latin-1
        0x14 => bytes.iter().map(|b| char::from(*b)).collect(),
        // BMPString
        0x1e => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        _ => return None,
    };
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let words: Vec<&str> = text.split(blank).filter(|w| !w.is_empty()).collect();
    Some(words.join(" ").to_ascii_lowercase())
}

/// A Java key store (JKS) of trusted certificates with the password that everybody knows, `changeit`.
fn key_store(certificates: &[Certificate]) -> Vec<u8> {
    // Java takes any date; a fixed one keeps the file reproducible.
    const DATE: u64 = 1000;
    let mut out = 0xfeed_feed_u32.to_be_bytes().to_vec();
    out.extend(2u32.to_be_bytes());
    out.extend((certificates.len() as u32).to_be_bytes());
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    for c in certificates {
        out.extend(2u32.to_be_bytes());
        text(&mut out, &format!("debian:{}.pem", c.name.to_lowercase()));
        out.extend(DATE.to_be_bytes());
        text(&mut out, "X.509");
        out.extend((c.der.len() as u32).to_be_bytes());
        out.extend_from_slice(&c.der);
    }
    let mut digest = Sha1::new();
    for unit in "changeit".encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(&out);
    out.extend_from_slice(&digest.finalize());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_a_subject_is_openssls() {
        // ISRG Root X1: `openssl x509 -subject_hash` prints 4042bcee.
        let name = [
            (&[0x55, 4, 6][..], 0x13, "US"),
            (&[0x55, 4, 10], 0x13, "Internet Security Research Group"),
            (&[0x55, 4, 3], 0x13, "ISRG Root X1"),
        ];
        let mut subject = Vec::new();
        for (oid, tag, text) in name {
            let attribute = [encode(6, oid), encode(tag, text.as_bytes())].concat();
            subject.extend(encode(0x31, &encode(0x30, &attribute)));
        }
        let tbs: Vec<u8> = [
            encode(0xa0, &encode(2, &[2])),
            encode(2, &[1]),
            encode(0x30, &[]),
            encode(0x30, &[]),
            encode(0x30, &[]),
            encode(0x30, &subject),
        ]
        .concat();
        let certificate = encode(0x30, &encode(0x30, &tbs));
        assert_eq!(subject_hash(&certificate), Some(0x4042_bcee));
    }

    #[test]
    fn hostile_der_has_no_hash() {
        for bytes in [&b""[..], &[0x30], &[0x30, 0x84, 255, 255, 255, 255], &[0x30, 2, 0x30, 0]] {
            assert_eq!(subject_hash(bytes), None);
        }
        assert_eq!(der("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----"), Some(b"ABC".to_vec()));
    }
}
