use super::*;

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        Self(dir)
    }

    fn machine(&self) -> Machine {
        Machine::read(&self.0.path().join("apt"), &self.0.path().join("keyrings")).expect("read")
    }

    fn locate(&self, suite: &str) -> Result<Location, RemoteError> {
        let request = SuiteRequest { suite: suite.to_owned(), ..SuiteRequest::default() };
        self.machine().locate(&request, &["amd64"])
    }

    /// Address, and keyrings by file name.
    #[track_caller]
    fn check(&self, suite: &str, expected: (&str, &[&str])) {
        let found = self.locate(suite).expect("locate");
        let name = |p: &PathBuf| p.file_name().expect("name").to_string_lossy().into_owned();
        let keyrings: Vec<String> = found.trust.keyrings.iter().map(name).collect();
        assert_eq!(
            (found.urls.join(" ").as_str(), keyrings.iter().map(String::as_str).collect()),
            (expected.0, expected.1.to_vec())
        );
    }
}

const BOOKWORM: &str = "Types: deb deb-src
# a comment
URIs: http://mirror.invalid/debian/
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.invalid/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://disabled.invalid/debian
Suites: trixie
Components: main
";

#[test]
fn both_forms_are_read() {
    let fixture = Fixture::new(&[
        (
            "apt/sources.list",
            "# deb http://comment.invalid/debian sid main\n\
             deb http://one.invalid/debian sid main contrib # trailing\n\
             deb-src http://source.invalid/debian sid main\n\
             deb [arch=amd64,arm64 signed-by=/k.gpg,0123abcd!] https://two.invalid/debian/ sid main\n\
             deb [unfinished http://three.invalid sid main\n\
             deb http://flat.invalid/ ./\n",
        ),
        ("apt/sources.list.d/debian.sources", BOOKWORM),
        ("apt/sources.list.d/off.list.disabled", "deb http://off.invalid/debian sid main\n"),
    ]);
    let sources = fixture.machine().sources;
    let uris: Vec<&str> = sources.iter().map(|s| s.uris[0].as_str()).collect();
    assert_eq!(
        uris,
        [
            "http://one.invalid/debian",
            "https://two.invalid/debian",
            "http://mirror.invalid/debian",
            "http://security.invalid/debian-security",
        ]
    );
    assert_eq!(sources[0].components, ["main", "contrib"]);
    assert_eq!(sources[1].architectures, ["amd64", "arm64"]);
    assert_eq!(sources[1].signed_by, [SignedBy::File("/k.gpg".into()), SignedBy::Fingerprint("0123ABCD".to_owned())]);
    assert_eq!(sources[2].suites, ["bookworm", "bookworm-updates"]);
    assert!(Machine::read(Path::new("/nonexistent"), Path::new("/nonexistent")).expect("read").sources.is_empty());
}

#[test]
fn inline_keys_are_unfolded() {
    let fixture = Fixture::new(&[(
        "apt/sources.list.d/x.sources",
        "Types: deb\nURIs: http://x.invalid\nSuites: stable\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n",
    )]);
    let expected = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n";
    assert_eq!(fixture.machine().sources[0].signed_by, [SignedBy::Inline(expected.to_owned())]);
    assert_eq!(fixture.locate("stable").expect("locate").trust.inline, [expected]);
}

#[test]
fn suites_that_are_listed_and_suites_that_are_not() {
    let fixture = Fixture::new(&[
        (
            "apt/sources.list.d/a-vendor.sources",
            "Types: deb\nURIs: http://vendor.invalid\nSuites: stable\nComponents: main\nSigned-By: /vendor.gpg\n",
        ),
        ("apt/sources.list.d/debian.sources", BOOKWORM),
        ("keyrings/debian-archive-keyring.gpg", ""),
    ]);
    let debian = "http://mirror.invalid/debian";
    let own = "debian-archive-keyring.gpg";
    fixture.check("bookworm-updates", (debian, &[own]));
    fixture.check("bookworm-security", ("http://security.invalid/debian-security", &[own]));
    fixture.check("trixie", (debian, &[own, own]));
    fixture.check("trixie-security", ("http://security.invalid/debian-security", &[own, own]));
    fixture.check("stable", ("http://vendor.invalid", &["vendor.gpg"]));
    assert!(fixture.locate("bookworm").expect("locate").configured);
    assert!(!fixture.locate("trixie").expect("locate").configured);
}

#[test]
fn the_security_archive_is_beside_the_main_one() {
    let fixture = Fixture::new(&[
        ("apt/sources.list", "deb http://mirror.invalid/debian bookworm main\n"),
        ("apt/trusted.gpg.d/a.gpg", ""),
        ("apt/trusted.gpg.d/b.asc", ""),
        ("apt/trusted.gpg.d/c.bak", ""),
    ]);
    fixture.check("bookworm-security", ("http://mirror.invalid/debian-security", &["a.gpg", "b.asc"]));
    let odd = Fixture::new(&[("apt/sources.list", "deb http://mirror.invalid/odd bookworm main\n")]);
    assert!(odd.locate("bookworm-security").is_err());
}

#[test]
fn without_a_source_of_debian_the_manifest_must_name_one() {
    let fixture = Fixture::new(&[(
        "apt/sources.list",
        "deb http://ubuntu.invalid/ubuntu noble main\ndeb [signed-by=/vendor.gpg] http://vendor.invalid stable main\n",
    )]);
    let message = fixture.locate("bookworm").expect_err("nothing").to_string();
    assert_eq!(
        message,
        "the machine's apt sources name no archive for the suite `bookworm`; set `[sources.debian] url`"
    );
}

#[test]
fn an_address_and_a_keyring_that_are_asked_for_are_used() {
    let fixture = Fixture::new(&[("apt/sources.list.d/debian.sources", BOOKWORM)]);
    let request = SuiteRequest {
        suite: "bookworm".to_owned(),
        url: Some("http://mine.invalid/debian/".to_owned()),
        keyring: Some("/mine.gpg".into()),
        ..SuiteRequest::default()
    };
    let location = fixture.machine().locate(&request, &["amd64"]).expect("locate");
    assert_eq!(location.urls, ["http://mine.invalid/debian"]);
    assert_eq!(location.trust.keyrings, [PathBuf::from("/mine.gpg")]);
}

#[test]
fn sources_of_other_architectures_are_not_used() {
    let fixture = Fixture::new(&[(
        "apt/sources.list",
        "deb [arch=riscv64] http://ports.invalid/debian sid main\ndeb http://mirror.invalid/debian sid main\n",
    )]);
    fixture.check("sid", ("http://mirror.invalid/debian", &[]));
}
