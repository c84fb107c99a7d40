//! A signed Debian archive in miniature.
//!
//! ```
//! use igloo_test::archive::{Archive, Package};
//!
//! let served = Archive::new()
//!     .suite("stable")
//!     .package(Package::new("libgreet1", "1.0-1").file("usr/lib/libgreet.so.1", 0o644, b"..."))
//!     .package(Package::new("hello", "2.10-3").depends("libgreet1 (>= 1.0)").file("usr/bin/hello", 0o755, b"#!/bin/sh\n"))
//!     .serve();
//! assert!(served.url.starts_with("http://127.0.0.1:"));
//! assert!(served.keyring.exists());
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use igloo_base::Sha256;
use igloo_formats::deb::release::format_date;

mod deb;
mod key;
mod package;
mod server;

pub use deb::{ar, tar};
pub use key::Key;
pub use package::{Compression, Entry, Kind, Package};
pub use server::{Fault, Request, Served};

/// An archive: suites and what is in them. The methods that speak of a suite mean the one named last.
#[derive(Debug, Clone)]
pub struct Archive {
    suites: Vec<Suite>,
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Suite {
    name: String,
    suite: String,
    codename: String,
    component: String,
    architectures: Vec<String>,
    date: Option<SystemTime>,
    valid_until: Option<SystemTime>,
    by_hash: bool,
    compressions: Vec<&'static str>,
    fields: Vec<(String, String)>,
    packages: Vec<Package>,
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    /// No suites yet; signed by [`Key::shared`].
    pub fn new() -> Self {
        Self { suites: Vec::new(), keys: vec![Key::shared()] }
    }

    /// Begins a suite, in `dists/<name>`. Its codename and suite are its name, its component is `main`, its
    /// architectures are `amd64` and `arm64`, its date is when it is rendered.
    #[must_use]
    pub fn suite(mut self, name: &str) -> Self {
        self.suites.push(Suite {
            name: name.to_owned(),
            suite: name.to_owned(),
            codename: name.to_owned(),
            component: "main".to_owned(),
            architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
            date: None,
            valid_until: None,
            by_hash: true,
            compressions: vec!["xz", "gz"],
            fields: Vec::new(),
            packages: Vec::new(),
        });
        self
    }

    /// Adds a package; one for each of the suite's architectures holds a copy if its architecture is `all`.
    #[must_use]
    pub fn package(mut self, package: Package) -> Self {
        self.last().packages.push(package);
        self
    }

    /// Adds several packages.
    #[must_use]
    pub fn packages(mut self, packages: impl IntoIterator<Item = Package>) -> Self {
        self.last().packages.extend(packages);
        self
    }

    /// `Codename` of the release file.
    #[must_use]
    pub fn codename(mut self, name: &str) -> Self {
        self.last().codename = name.to_owned();
        self
    }

    /// `Suite` of the release file.
    #[must_use]
    pub fn suite_name(mut self, name: &str) -> Self {
        self.last().suite = name.to_owned();
        self
    }

    /// The suite's one component.
    #[must_use]
    pub fn component(mut self, name: &str) -> Self {
        self.last().component = name.to_owned();
        self
    }

    /// The suite's architectures.
    #[must_use]
    pub fn architectures(mut self, names: &[&str]) -> Self {
        self.last().architectures = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    /// `Date` of the release file.
    #[must_use]
    pub fn date(mut self, date: SystemTime) -> Self {
        self.last().date = Some(date);
        self
    }

    /// `Date` of the release file, so long ago.
    #[must_use]
    pub fn age(self, age: Duration) -> Self {
        self.date(SystemTime::now() - age)
    }

    /// `Valid-Until` of the release file.
    #[must_use]
    pub fn valid_until(mut self, date: SystemTime) -> Self {
        self.last().valid_until = Some(date);
        self
    }

    /// No `Acquire-By-Hash`, and no files to acquire by hash.
    #[must_use]
    pub fn without_by_hash(mut self) -> Self {
        self.last().by_hash = false;
        self
    }

    /// The forms `Packages` is offered in besides the plain one, which is listed but, as in Debian, not there
    /// unless the list is empty: `xz`, `gz`.
    #[must_use]
    pub fn compressions(mut self, names: &[&'static str]) -> Self {
        self.last().compressions = names.to_vec();
        self
    }

    /// `NotAutomatic: yes` and `ButAutomaticUpgrades: yes`, as in backports.
    #[must_use]
    pub fn not_automatic(self) -> Self {
        self.field("NotAutomatic", "yes").field("ButAutomaticUpgrades", "yes")
    }

    /// Any other field of the release file.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.last().fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Signs with these keys instead; with none, the release file is left unsigned.
    #[must_use]
    pub fn signed_by(mut self, keys: &[Key]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    fn last(&mut self) -> &mut Suite {
        self.suites.last_mut().expect("a suite was begun")
    }

    /// Every file of the archive by its path below the archive's address.
    pub fn render(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for suite in &self.suites {
            suite.render(&self.keys, &mut files);
        }
        files
    }

    /// Serves it on loopback until the value returned is dropped.
    pub fn serve(&self) -> Served {
        Served::start(self)
    }
}

impl Suite {
    fn render(&self, keys: &[Key], files: &mut BTreeMap<String, Vec<u8>>) {
        let dists = format!("dists/{}", self.name);
        let mut listed = BTreeMap::new();
        for arch in &self.architectures {
            let mut text = String::new();
            for package in self.packages.iter().filter(|p| p.architecture == *arch || p.architecture == "all") {
                let deb = package.build();
                let path = package.pool_path();
                text.push_str(&package.stanza(&path, &deb));
                files.insert(path, deb);
            }
            let plain = format!("{}/binary-{arch}/Packages", self.component);
            let mut offered = Vec::new();
            for form in &self.compressions {
                offered.push((format!("{plain}.{form}"), compress(form, text.as_bytes())));
            }
            if self.compressions.is_empty() {
                offered.push((plain.clone(), text.clone().into_bytes()));
            }
            listed.insert(plain.clone(), (text.len(), Sha256::of(text.as_bytes())));
            for (path, bytes) in offered {
                let digest = Sha256::of(&bytes);
                listed.insert(path.clone(), (bytes.len(), digest));
                if self.by_hash {
                    let by_hash = format!("{dists}/{}/binary-{arch}/by-hash/SHA256/{digest}", self.component);
                    files.insert(by_hash, bytes.clone());
                }
                files.insert(format!("{dists}/{path}"), bytes);
            }
        }
        let text = self.release(&listed);
        let signed = if keys.is_empty() { text } else { key::clear_sign(&text, keys) };
        files.insert(format!("{dists}/InRelease"), signed.into_bytes());
    }

    fn release(&self, listed: &BTreeMap<String, (usize, Sha256)>) -> String {
        let mut text = format!(
            "Origin: Igloo test\nLabel: Igloo test\nSuite: {}\nCodename: {}\nDate: {}\n",
            self.suite,
            self.codename,
            debian_date(self.date.unwrap_or_else(SystemTime::now))
        );
        let mut field = |name: &str, value: &str| writeln!(text, "{name}: {value}").expect("write to a string");
        if let Some(date) = self.valid_until {
            field("Valid-Until", &debian_date(date));
        }
        if self.by_hash {
            field("Acquire-By-Hash", "yes");
        }
        for (name, value) in &self.fields {
            field(name, value);
        }
        field("Architectures", &self.architectures.join(" "));
        field("Components", &self.component);
        text.push_str("SHA256:\n");
        for (path, (size, digest)) in listed {
            writeln!(text, " {digest} {size:>8} {path}").expect("write to a string");
        }
        text
    }
}

fn compress(form: &str, bytes: &[u8]) -> Vec<u8> {
    match form {
        "xz" => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).expect("compress");
            out.finish().expect("compress")
        }
        "gz" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).expect("compress");
            out.finish().expect("compress")
        }
        "zst" => zstd::encode_all(bytes, 1).expect("compress"),
        other => panic!("no compression `{other}`"),
    }
}

/// `Fri, 20 Nov 2026 00:12:41 UTC`; nobody reads the day of the week, so it is always the same.
fn debian_date(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = format_date(time);
    let month: usize = text[5..7].parse().expect("a month");
    format!("Fri, {} {} {} {}", &text[8..10], MONTHS[month - 1], &text[..4], &text[11..])
}
