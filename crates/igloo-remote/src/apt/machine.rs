//! What the machine's own apt is configured to use: the archives, and the keys that it trusts for each.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use igloo_base::{At, PathError};

use super::SuiteRequest;
use crate::RemoteError;

mod sources;

/// Longest sources file that is read.
const MAX_FILE: u64 = 4 << 20;

/// The keyring that the distribution's package of keyrings installs.
const DEBIAN_KEYRING: &str = "debian-archive-keyring.gpg";

/// Names of Debian's suites, without `-updates` and the like. Only used to recognise which of the machine's sources is
/// Debian's archive; a suite that is asked for need not be among them.
const DEBIAN_SUITES: [&str; 13] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
];

/// One entry of apt's sources, binary packages only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineSource {
    /// The file that it is in.
    pub file: PathBuf,
    /// Addresses, all of the same content.
    pub uris: Vec<String>,
    /// Suites: `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components: `main`.
    pub components: Vec<String>,
    /// Keys that may sign it; all trusted ones when empty.
    pub signed_by: Vec<SignedBy>,
    /// Architectures it is used for; all when empty.
    pub architectures: Vec<String>,
}

/// One word of `Signed-By`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// A keyring.
    File(PathBuf),
    /// Armored certificates within the entry itself.
    Inline(String),
    /// A fingerprint, in upper-case hexadecimal; the key is in a keyring of the machine.
    Fingerprint(String),
}

/// The machine's archives.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its sources, in apt's order.
    pub sources: Vec<MachineSource>,
    etc_apt: PathBuf,
    keyrings: PathBuf,
}

/// Where a suite is and who may sign it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Addresses of the archive, tried in order, without a slash at the end.
    pub urls: Vec<String>,
    /// Who may sign; never empty.
    pub trust: Trust,
    /// True if a source of the machine lists just this suite, so that the machine's own policy holds for it.
    pub configured: bool,
}

/// Who may sign a release file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keyrings.
    pub keyrings: Vec<PathBuf>,
    /// Armored certificates.
    pub inline: Vec<String>,
    /// If there are any, a signer must be among these.
    pub fingerprints: Vec<String>,
}

impl Machine {
    /// Reads the sources below a directory that stands for `/etc/apt`. `keyrings` stands for `/usr/share/keyrings`.
    /// Entries that cannot be understood are left out: they are for apt to complain about.
    pub fn read(etc_apt: &Path, keyrings: &Path) -> Result<Self, PathError> {
        let mut files = vec![etc_apt.join("sources.list")];
        files.extend(list(&etc_apt.join("sources.list.d"), &["list", "sources"])?);
        let mut sources = Vec::new();
        for file in files {
            let Some(text) = read_text(&file, MAX_FILE).at("read", &file)? else { continue };
            match file.extension().is_some_and(|e| e == "sources") {
                true => sources::deb822(&text, &file, &mut sources),
                false => sources::one_line(&text, &file, &mut sources),
            }
        }
        Ok(Self { sources, etc_apt: etc_apt.to_owned(), keyrings: keyrings.to_owned() })
    }

    /// Where a suite is to be had: at the address that is asked for; or at that of the machine's source which lists
    /// the suite; or at that of the machine's source for Debian (for Debian's security archive, if the suite's name
    /// says so), which holds every suite of Debian.
    pub fn locate(&self, request: &SuiteRequest, arch: &[&str]) -> Result<Location, RemoteError> {
        let usable = |source: &&MachineSource| {
            source.architectures.is_empty() || arch.iter().any(|a| source.architectures.iter().any(|b| a == b))
        };
        let sources = || self.sources.iter().filter(usable);
        let listed = sources().find(|s| s.suites.contains(&request.suite));

        if let Some(url) = &request.url {
            let url = trim(url);
            let same = sources().find(|s| s.uris.contains(&url));
            let signed_by = same.map_or(&[][..], |s| &s.signed_by);
            let trust = self.trust(request, signed_by, true);
            return Ok(Location { urls: vec![url], trust, configured: false });
        }
        if let Some(source) = listed {
            let trust = self.trust(request, &source.signed_by, source.signed_by.is_empty());
            return Ok(Location { urls: source.uris.clone(), trust, configured: true });
        }
        let none = || RemoteError::NoSource { suite: request.suite.clone() };
        let security = is_security(&request.suite);
        let debian = |security: bool| {
            sources().find(move |s| s.is_debian() && s.suites.iter().any(|suite| is_security(suite) == security))
        };
        let (source, urls) = match debian(security) {
            Some(source) => (source, source.uris.clone()),
            None if security => {
                // Mirrors keep the security archive beside the main one.
                let source = debian(false).ok_or_else(none)?;
                let beside = |url: &String| Some(format!("{}-security", url.strip_suffix("/debian").map(|_| url)?));
                (source, source.uris.iter().filter_map(beside).collect())
            }
            None => return Err(none()),
        };
        if urls.is_empty() {
            return Err(none());
        }
        // The keys of another suite may be others than those the source names.
        Ok(Location { urls, trust: self.trust(request, &source.signed_by, true), configured: false })
    }

    /// The keys for a request; with `fallback`, also those that come with the distribution.
    fn trust(&self, request: &SuiteRequest, signed_by: &[SignedBy], fallback: bool) -> Trust {
        let mut trust = Trust::default();
        if let Some(keyring) = &request.keyring {
            trust.keyrings.push(keyring.clone());
            return trust;
        }
        for word in signed_by {
            match word {
                SignedBy::File(path) => trust.keyrings.push(path.clone()),
                SignedBy::Inline(text) => trust.inline.push(text.clone()),
                // The keys of another suite are others.
                SignedBy::Fingerprint(_) if fallback => {}
                SignedBy::Fingerprint(text) => trust.fingerprints.push(text.clone()),
            }
        }
        let unnamed = trust.keyrings.is_empty() && trust.inline.is_empty();
        if fallback || unnamed {
            let distribution = self.keyrings.join(DEBIAN_KEYRING);
            if distribution.exists() && !trust.keyrings.contains(&distribution) {
                trust.keyrings.push(distribution);
            }
        }
        if unnamed {
            // A directory that cannot be listed has no keys for us.
            trust.keyrings.extend(list(&self.etc_apt.join("trusted.gpg.d"), &["gpg", "asc"]).unwrap_or_default());
        }
        trust
    }
}

impl MachineSource {
    /// Whether this is an archive of Debian itself: known by its keyring or, where none is named, by its suites.
    fn is_debian(&self) -> bool {
        let keyring = self.signed_by.iter().any(|word| match word {
            SignedBy::File(path) => {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("debian-archive"))
            }
            _ => false,
        });
        let by_suite = self.suites.iter().any(|suite| {
            let name = suite.split(['-', '/']).next().unwrap_or_default();
            DEBIAN_SUITES.contains(&name)
        });
        // Other archives have a suite called `stable` too, and keys of their own.
        by_suite && (keyring || self.signed_by.is_empty())
    }
}

/// Suites of the archive of security updates.
fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

fn trim(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// Files of a directory of parts that have one of these extensions, in apt's order; names that apt skips are skipped.
pub(super) fn list(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, PathError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("list", directory),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.at("list", directory)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !name.starts_with('.');
        let extension = path.extension().map(|e| e.to_string_lossy()).unwrap_or_default();
        if plain && extensions.contains(&&*extension) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A text file, or none if it is not there or not for us to read.
pub(super) fn read_text(path: &Path, longest: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(longest).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests;
