//! Release files: what a suite says about itself and which index files belong to it.
//!
//! Only ever parse the text that [`super::signature`] returned.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use igloo_base::Sha256;

/// Longest release file that is taken; Debian's are below 200 KB.
pub const MAX_RELEASE: usize = 16 << 20;

/// Most index files that are taken; Debian lists some 1,500.
const MAX_FILES: usize = 100_000;

/// A release file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Origin`: `Debian`.
    pub origin: String,
    /// `Label`: `Debian-Security`.
    pub label: String,
    /// `Suite`: `oldstable`.
    pub suite: String,
    /// `Codename`: `bookworm`.
    pub codename: String,
    /// `Date`: when it was made.
    pub date: SystemTime,
    /// `Valid-Until`: when to stop believing it.
    pub valid_until: Option<SystemTime>,
    /// `Architectures`
    pub architectures: Vec<String>,
    /// `Components`, as they are named in `files`: `main`, even where the field says `updates/main`.
    pub components: Vec<String>,
    /// `Acquire-By-Hash`: index files may be fetched by their digest.
    pub acquire_by_hash: bool,
    /// `NotAutomatic`: nothing is taken from here unless asked for.
    pub not_automatic: bool,
    /// `ButAutomaticUpgrades`: ... except newer versions of what was taken.
    pub but_automatic_upgrades: bool,
    /// `No-Support-for-Architecture-all: Packages`: the indexes of each architecture hold the `all` packages too.
    pub all_is_included: bool,
    /// Path below the suite's directory, size and digest of each index file.
    pub files: BTreeMap<String, (u64, Sha256)>,
}

/// Why a text is no release file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Longer than [`MAX_RELEASE`].
    #[error("the release file has {0} bytes, more than {MAX_RELEASE}")]
    TooLarge(usize),
    /// A line that is neither a field nor the continuation of one.
    #[error("line {0} of the release file is neither a field nor a continuation")]
    Line(usize),
    /// A field twice.
    #[error("the release file has the field `{0}` twice")]
    Twice(String),
    /// A field that is not there.
    #[error("the release file has no field `{0}`")]
    Missing(&'static str),
    /// A field that cannot be read.
    #[error("the release file's field `{field}` has `{value}`")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// More than [`MAX_FILES`] entries.
    #[error("the release file lists more than {MAX_FILES} files")]
    TooManyFiles,
}

impl Release {
    /// Parses the text of a release file.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        if text.len() > MAX_RELEASE {
            return Err(ReleaseError::TooLarge(text.len()));
        }
        let fields = fields(text)?;
        let field = |name: &'static str| fields.get(&name.to_ascii_lowercase()).copied();
        let owned = |name: &'static str| field(name).map(|v| v.trim().to_owned()).unwrap_or_default();
        let words = |name: &'static str| {
            field(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let yes = |name: &'static str| field(name).is_some_and(|v| v.trim().eq_ignore_ascii_case("yes"));
        let date = |name: &'static str| {
            field(name)
                .map(|v| parse_date(v.trim()).ok_or_else(|| ReleaseError::Field { field: name, value: clip(v.trim()) }))
                .transpose()
        };
        Ok(Self {
            origin: owned("Origin"),
            label: owned("Label"),
            suite: owned("Suite"),
            codename: owned("Codename"),
            date: date("Date")?.ok_or(ReleaseError::Missing("Date"))?,
            valid_until: date("Valid-Until")?,
            architectures: words("Architectures"),
            // The security archive says `updates/main` for historical reasons; apt takes what is after the slash.
            components: words("Components")
                .into_iter()
                .map(|c| c.rsplit_once('/').map(|(_, name)| name.to_owned()).unwrap_or(c))
                .collect(),
            acquire_by_hash: yes("Acquire-By-Hash"),
            not_automatic: yes("NotAutomatic"),
            but_automatic_upgrades: yes("ButAutomaticUpgrades"),
            all_is_included: words("No-Support-for-Architecture-all").iter().any(|w| w == "Packages"),
            files: files(field("SHA256").ok_or(ReleaseError::Missing("SHA256"))?)?,
        })
    }
}

/// Fields by lower-case name; a value keeps its continuation lines.
fn fields(text: &str) -> Result<BTreeMap<String, &str>, ReleaseError> {
    let mut fields = BTreeMap::new();
    let mut open: Option<(String, usize, usize)> = None;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = at;
        at += line.len();
        let content = line.trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            match &mut open {
                Some((_, _, end)) => *end = at,
                None => return Err(ReleaseError::Line(number + 1)),
            }
            continue;
        }
        let (name, _) = content.split_once(':').ok_or(ReleaseError::Line(number + 1))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ReleaseError::Line(number + 1));
        }
        close(&mut fields, text, open.take())?;
        open = Some((name.to_ascii_lowercase(), start + name.len() + 1, at));
    }
    close(&mut fields, text, open)?;
    Ok(fields)
}

fn close<'a>(
    fields: &mut BTreeMap<String, &'a str>,
    text: &'a str,
    open: Option<(String, usize, usize)>,
) -> Result<(), ReleaseError> {
    let Some((name, start, end)) = open else { return Ok(()) };
    match fields.insert(name.clone(), &text[start..end]) {
        Some(_) => Err(ReleaseError::Twice(clip(&name))),
        None => Ok(()),
    }
}

fn files(value: &str) -> Result<BTreeMap<String, (u64, Sha256)>, ReleaseError> {
    let mut files = BTreeMap::new();
    for line in value.lines().filter(|l| !l.trim().is_empty()) {
        let bad = || ReleaseError::Field { field: "SHA256", value: clip(line.trim()) };
        let mut words = line.split_ascii_whitespace();
        let (Some(digest), Some(size), Some(path), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad());
        };
        let digest: Sha256 = digest.parse().map_err(|_| bad())?;
        let size: u64 = size.parse().map_err(|_| bad())?;
        // The path becomes part of an address; one that climbs is nobody's index file.
        if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad());
        }
        files.insert(path.to_owned(), (size, digest));
        if files.len() > MAX_FILES {
            return Err(ReleaseError::TooManyFiles);
        }
    }
    Ok(files)
}

/// What was found, short enough for a message.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`, the one form Debian writes; `GMT`, `Z` and `+0000` are taken for `UTC` too, and a
/// day may have one digit.
pub fn parse_date(text: &str) -> Option<SystemTime> {
    let text = text.split_once(", ").map_or(text, |(_, rest)| rest);
    let mut words = text.split_ascii_whitespace();
    let (day, month, year, clock, zone) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !matches!(zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let number = |text: &str, longest: usize| -> Option<u64> {
        if text.is_empty() || text.len() > longest || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok()
    };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let (day, year) = (number(day, 2)?, number(year, 4)?);
    let mut clock = clock.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next().unwrap_or("0"), 2)?);
    if clock.next().is_some() || !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > length {
        return None;
    }
    // Days from civil, with years that begin in March so that the leap day is the last one.
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * years + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

/// `2026-11-20 00:12:41 UTC`, for messages.
pub fn format_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // Civil from days, the inverse of what `parse_date` does.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian
Label: Debian-Security
Suite: oldstable-security
Codename: bookworm-security
Date: Fri, 20 Nov 2026 00:12:41 UTC
Valid-Until: Fri, 27 Nov 2026 00:12:41 UTC
Acquire-By-Hash: yes
Architectures: amd64 arm64
Components: updates/main contrib
Description: Debian 12
MD5Sum:
 d41d8cd98f00b204e9800998ecf8427e        0 main/binary-amd64/Packages
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages
 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad        3 main/binary-amd64/Packages.xz
";

    #[test]
    fn a_release_file_is_read() {
        let release = Release::parse(TEXT).expect("parse");
        assert_eq!(release.suite, "oldstable-security");
        assert_eq!(release.codename, "bookworm-security");
        assert_eq!(release.components, ["main", "contrib"]);
        assert_eq!(release.architectures, ["amd64", "arm64"]);
        assert!(release.acquire_by_hash && !release.not_automatic && !release.all_is_included);
        assert_eq!(release.date, UNIX_EPOCH + Duration::from_secs(1_795_133_561));
        assert_eq!(release.valid_until, Some(release.date + Duration::from_secs(7 * 86_400)));
        assert_eq!(release.files["main/binary-amd64/Packages.xz"], (3, Sha256::of(b"abc")));
        assert_eq!(release.files.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let check = |from: &str, to: &str| Release::parse(&TEXT.replace(from, to)).expect_err(to).to_string();
        assert_eq!(check("Date: Fri, 20 Nov 2026 00:12:41 UTC\n", ""), "the release file has no field `Date`");
        assert_eq!(check("SHA256:", "SHA1:"), "the release file has no field `SHA256`");
        assert!(check("20 Nov", "31 Nov").contains("31 Nov 2026"));
        assert!(check("27 Nov 2026 00:12:41 UTC", "27 Nov 2026 00:12:41 CET").contains("`Valid-Until`"));
        assert!(check("        3 main", "  3 ../../main").contains(".."));
        assert!(check("        3 main", "  3 /main").contains("/main"));
        assert!(check("        3 main", "  -3 main").contains("-3"));
        assert!(check("ba78", "ba7").contains("a7"));
        assert!(check("Label: Debian-Security", "Suite: other").contains("twice"));
        assert!(check("Label: Debian-Security", "no field here").contains("line 2"));
        assert!(Release::parse(" begins with a continuation").is_err());
        assert!(matches!(Release::parse(&"A".repeat(MAX_RELEASE + 1)), Err(ReleaseError::TooLarge(_))));
    }

    #[test]
    fn dates_count_leap_days() {
        let seconds =
            |text: &str| parse_date(text).map(|t| t.duration_since(UNIX_EPOCH).expect("after the epoch").as_secs());
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(seconds("Tue, 29 Feb 2000 12:00:00 GMT"), Some(951_825_600));
        assert_eq!(seconds("Wed, 1 Mar 2000 00:00:00 +0000"), Some(951_868_800));
        assert_eq!(seconds("Sun, 31 Dec 2023 23:59:59 UTC"), Some(1_704_067_199));
        for text in [
            "",
            "Thu",
            "Wed, 29 Feb 2100 00:00:00 UTC",
            "Thu, 01 Jan 1969 00:00:00 UTC",
            "Thu, 01 Jan 2026 24:00:00 UTC",
            "Thu, 01 Jan 99999 00:00:00 UTC",
            "Thu, 01 Jan 2026 00:00:00 UTC x",
            "Thu, +1 Jan 2026 00:00:00 UTC",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_825_600, "2000-02-29 12:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_704_067_199, "2023-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(format_date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
