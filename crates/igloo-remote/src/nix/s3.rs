//! Requests to S3, signed as its Signature Version 4 asks for. Only what reading and writing single objects takes.

use std::time::{Duration, SystemTime};

use igloo_base::Sha256;

/// Keys of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// `aws_access_key_id`.
    pub id: String,
    /// `aws_secret_access_key`.
    pub secret: String,
    /// `aws_session_token`, for keys that end.
    pub token: Option<String>,
}

impl std::fmt::Debug for AwsKeys {
    /// Never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AwsKeys({})", self.id)
    }
}

impl AwsKeys {
    /// The keys of a profile in a file like `~/.aws/credentials`.
    pub fn from_credentials(text: &str, profile: &str) -> Option<Self> {
        let (mut inside, mut id, mut secret, mut token) = (false, None, None, None);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                inside = name.trim().trim_start_matches("profile ") == profile;
            } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
                let value = Some(value.trim().to_owned());
                match key.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Self { id: id?, secret: secret?, token })
    }
}

/// The headers that a signed request has beside `Host`.
pub(super) fn sign(
    keys: &AwsKeys,
    region: &str,
    method: &str,
    host: &str,
    path: &str,
    content: &Sha256,
    now: SystemTime,
) -> Vec<(&'static str, String)> {
    let time = timestamp(now);
    let date = &time[..8];
    let mut headers = vec![("x-amz-content-sha256", content.to_string()), ("x-amz-date", time.clone())];
    headers.extend(keys.token.clone().map(|token| ("x-amz-security-token", token)));
    let signed =
        signed_request(keys, region, "s3", method, path, "", host, &headers, &content.to_string(), date, &time);
    headers.push(("authorization", signed));
    headers
}

/// The `Authorization` header of a request.
#[allow(clippy::too_many_arguments)] // as many parts as a request has
fn signed_request(
    keys: &AwsKeys,
    region: &str,
    service: &str,
    method: &str,
    path: &str,
    query: &str,
    host: &str,
    headers: &[(&str, String)],
    content: &str,
    date: &str,
    time: &str,
) -> String {
    let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("host", host));
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{content}");
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Sha256::of(request.as_bytes()));
    let mut key = hmac(format!("AWS4{}", keys.secret).as_bytes(), date.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = hmac(&key.0, part.as_bytes());
    }
    let signature = hmac(&key.0, text.as_bytes());
    format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", keys.id)
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> Sha256 {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::of(key).0);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::of(&[&block.map(|b| b ^ 0x36)[..], text].concat());
    Sha256::of(&[&block.map(|b| b ^ 0x5c)[..], &inner.0].concat())
}

/// `20130524T000000Z`.
fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> AwsKeys {
        AwsKeys {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        }
    }

    #[test]
    fn vector_of_rfc_4231() {
        let mac = hmac(&[0x0b; 20], b"Hi There");
        assert_eq!(mac.to_string(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        let mac = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(mac.to_string(), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn the_published_examples_of_amazon() {
        // "Authenticating Requests: Using the Authorization Header", GET Object and PUT Object.
        let (date, time) = ("20130524", "20130524T000000Z");
        let empty = Sha256::of(b"").to_string();
        let headers = [
            ("range", "bytes=0-9".to_owned()),
            ("x-amz-content-sha256", empty.clone()),
            ("x-amz-date", time.to_owned()),
        ];
        let host = "examplebucket.s3.amazonaws.com";
        let get =
            signed_request(&example(), "us-east-1", "s3", "GET", "/test.txt", "", host, &headers, &empty, date, time);
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(get.ends_with(expected), "{get}");
        let content = Sha256::of(b"Welcome to Amazon S3.").to_string();
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT".to_owned()),
            ("x-amz-content-sha256", content.clone()),
            ("x-amz-date", time.to_owned()),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()),
        ];
        let path = "/test%24file.text";
        let put = signed_request(&example(), "us-east-1", "s3", "PUT", path, "", host, &headers, &content, date, time);
        assert!(put.ends_with("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"), "{put}");
    }

    #[test]
    fn the_published_example_of_the_test_suite() {
        // "get-vanilla" of the test suite of Signature Version 4.
        let keys = AwsKeys {
            id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        };
        let time = "20150830T123600Z";
        let headers = [("x-amz-date", time.to_owned())];
        let empty = Sha256::of(b"").to_string();
        let host = "example.amazonaws.com";
        let made =
            signed_request(&keys, "us-east-1", "service", "GET", "/", "", host, &headers, &empty, "20150830", time);
        assert!(made.ends_with("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"), "{made}");
    }

    #[test]
    fn times_and_keys() {
        let at = |s| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(1_369_353_600), "20130524T000000Z");
        assert_eq!(at(951_827_696), "20000229T123456Z");
        assert_eq!(at(1_735_689_599), "20241231T235959Z");
        let file = "[default]\naws_access_key_id = A\n[p]\naws_access_key_id=B\naws_secret_access_key = c=\naws_session_token=t\n";
        assert_eq!(AwsKeys::from_credentials(file, "default"), None);
        let keys = AwsKeys::from_credentials(file, "p").expect("keys");
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token.as_deref()), ("B", "c=", Some("t")));
    }
}
