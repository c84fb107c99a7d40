//! Version numbers, compared by dpkg's rules.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest version that is taken; the longest of Debian's 60,000 has 60 bytes.
const MAX_LENGTH: usize = 512;

/// `[epoch:]upstream[-revision]`. Text is kept as written; order, equality and hash are dpkg's, so that
/// `1.0`, `0:1.0` and `1.00-0` are equal.
#[derive(Clone)]
pub struct Version(String);

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no version: {why}")]
pub struct VersionError {
    /// The refused text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Version {
    /// Takes what dpkg takes, except that a version may begin with a letter, as apt allows.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        match check(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(why) => Err(VersionError { text: text.chars().take(80).collect(), why }),
        }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Upstream version and revision, without the epoch: what file names carry.
    pub fn upstream_without_epoch(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, rest)| rest)
    }

    /// Epoch, upstream version, revision.
    fn parts(&self) -> (u32, &[u8], &[u8]) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream.as_bytes(), revision.as_bytes())
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_LENGTH {
        return Err("it is too long");
    }
    let rest = match text.split_once(':') {
        None => text,
        Some((epoch, rest)) => {
            let digits = !epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_digit());
            if !digits || epoch.parse::<i32>().is_err() {
                return Err("what comes before the colon is no number");
            }
            rest
        }
    };
    let (upstream, revision) = match rest.rsplit_once('-') {
        None => (rest, None),
        Some((upstream, revision)) => (upstream, Some(revision)),
    };
    if upstream.is_empty() {
        return Err("it is empty");
    }
    if revision == Some("") {
        return Err("nothing follows the last hyphen");
    }
    let good = |c: u8| c.is_ascii_alphanumeric() || b".+~-:".contains(&c);
    if !rest.bytes().all(good) || revision.is_some_and(|r| r.contains(':')) {
        return Err("only letters, digits and `.+-~:` are allowed");
    }
    Ok(())
}

/// Weight of a byte outside a number: `~` before the end, the end before letters, letters before the rest.
fn weight(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None | Some(b'0'..=b'9') => 1,
        Some(c) if c.is_ascii_alphabetic() => 2 + u16::from(*c),
        Some(c) => 258 + u16::from(*c),
    }
}

/// Takes the digits at the head of `text`, without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().position(|&c| c != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let in_word = |text: &[u8]| text.first().is_some_and(|c| !c.is_ascii_digit());
    while !a.is_empty() || !b.is_empty() {
        while in_word(a) || in_word(b) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            // Equal weights mean equal bytes here, so both have one.
            (a, b) = (&a[1..], &b[1..]);
        }
        // Numbers of any length: the longer one is larger, equal lengths compare as text.
        let (x, y) = (take_number(&mut a), take_number(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let (a, b) = (self.parts(), other.parts());
        a.0.cmp(&b.0).then_with(|| compare(a.1, b.1)).then_with(|| compare(a.2, b.2))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (epoch, upstream, revision) = self.parts();
        epoch.hash(state);
        for mut text in [upstream, revision] {
            while !text.is_empty() {
                let end = text.iter().position(u8::is_ascii_digit).unwrap_or(text.len());
                let (word, rest) = text.split_at(end);
                text = rest;
                let number = take_number(&mut text);
                // `1` and `1-0`, `a` and `a0` are equal: what is empty must leave no trace.
                if !word.is_empty() || !number.is_empty() {
                    word.hash(state);
                    number.hash(state);
                }
            }
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::parse(text)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Pairs in the order of `dpkg --compare-versions`.
    #[test]
    fn order_is_dpkgs() {
        let ascending: &[&[&str]] = &[
            &["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0a", "1.0+", "1.0."],
            &["1.0~rc1-1", "1.0-0~", "1.0-0.1", "1.0-1~bpo12+1", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-1.1"],
            &["9.9", "10.0", "1:0.1", "2:0"],
            &["1.2", "1.2.3", "1.10", "1.10a", "1.10.1"],
            &["0~", "0", "0a", "0.0"],
            &["2.36-9+deb12u9", "2.36-9+deb12u10", "2.36-9+deb12u10+b1"],
            &["1.0-a", "1.0-a1", "1.0-b"],
            &["99999999999999999999998", "99999999999999999999999", "199999999999999999999999"],
            &["1-1-1", "1-1-2", "1-2-1"],
        ];
        for line in ascending {
            for (i, a) in line.iter().enumerate() {
                for (j, b) in line.iter().enumerate() {
                    assert_eq!(version(a).cmp(&version(b)), i.cmp(&j), "{a} ? {b}");
                }
            }
        }
    }

    fn hash(version: &Version) -> u64 {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn equal_versions_hash_equal() {
        for line in
            [&["1", "0:1", "1-0", "01", "00:1", "1-00"][..], &["1.0a", "1.00a0", "1.0a-0"], &["1.", "1.0", "1.00-0"]]
        {
            for (a, b) in line.iter().flat_map(|a| line.iter().map(move |b| (a, b))) {
                assert_eq!(version(a), version(b), "{a} = {b}");
                assert_eq!(hash(&version(a)), hash(&version(b)), "{a} = {b}");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1:", ":1", "a:1", "-1:1", "1-", "-1", "1 0", "1_0", "1:2-3:4", "4294967296:1", "1\u{e9}"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::parse(&"1".repeat(MAX_LENGTH + 1)).is_err());
        assert_eq!(version("2:1:0-1").upstream_without_epoch(), "1:0-1");
        assert_eq!(version("1:2.0-3").upstream_without_epoch(), "2.0-3");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,20}") {
            let _ = Version::parse(&text);
        }

        /// Against another implementation of the same rules.
        #[test]
        fn order_agrees_with_debversion(a in "([0-9]:)?[0-9][0-9a-c.+~]{0,6}(-[0-9a.+~]{1,4})?", b in "([0-9]:)?[0-9][0-9a-c.+~]{0,6}(-[0-9a.+~]{1,4})?") {
            let theirs = a.parse::<debversion::Version>().map(|v| b.parse().map(|w| v.cmp(&w)));
            if let Ok(Ok(theirs)) = theirs {
                prop_assert_eq!(version(&a).cmp(&version(&b)), theirs);
            }
        }

        #[test]
        fn order_is_total(a in "[0-9][0a~.]{0,4}", b in "[0-9][0a~.]{0,4}", c in "[0-9][0a~.]{0,4}") {
            let (a, b, c) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            if a == b {
                prop_assert_eq!(hash(&a), hash(&b));
            }
        }
    }
}
