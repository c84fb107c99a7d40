//! The fixture itself, held against Debian's own tools where there are some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::process::Command;

use igloo_test::archive::{Archive, Compression, Fault, Package};

fn package() -> Package {
    let long = format!("usr/share/{}/file", "long".repeat(40));
    Package::new("hello", "1:2.10-3~rc1")
        .depends("libc6 (>= 2.36)")
        .file("usr/bin/hello", 0o4755, b"#!/bin/sh\n")
        .hardlink("usr/bin/hallo", "usr/bin/hello")
        .symlink("usr/bin/hey", "hello")
        .dir("var/lib/hello", 0o2770)
        .group(42, "shadow")
        .file(&long, 0o644, b"")
        .conffile("etc/hello.conf", b"greeting=hello\n")
        .script("postinst", "#!/bin/sh\nexit 0\n")
}

#[test]
fn dpkg_reads_the_packages() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: no dpkg-deb on this machine");
        return;
    }
    for compression in [Compression::None, Compression::Gz, Compression::Xz, Compression::Zst] {
        let control = if compression == Compression::None { Compression::Gz } else { compression };
        let deb = package().compression(control, compression).build();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello.deb");
        std::fs::write(&path, &deb).unwrap();
        let run = |option: &str| {
            let output = Command::new("dpkg-deb").arg(option).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let listing = run("--contents");
        for part in [
            "-rwsr-xr-x root/root",
            "./usr/bin/hallo link to ./usr/bin/hello",
            "./usr/bin/hey -> hello",
            "drwxrws--- root/shadow",
            "/file",
            "./etc/hello.conf",
        ] {
            assert!(listing.contains(part), "{part}:\n{listing}");
        }
        let fields = run("--field");
        assert!(
            fields.contains("Version: 1:2.10-3~rc1\n") && fields.contains("Depends: libc6 (>= 2.36)\n"),
            "{fields}"
        );
    }
}

#[test]
fn the_same_words_give_the_same_bytes() {
    assert_eq!(package().build(), package().build());
}

#[test]
fn apt_accepts_the_archive() {
    if Command::new("apt-get").arg("--version").output().is_err() {
        println!("skipped: no apt-get on this machine");
        return;
    }
    let served = Archive::new().suite("stable").architectures(&["amd64"]).package(package()).serve();
    let root = served.dir().join("root");
    served.write_apt(&root.join("etc/apt"), &["stable"]);
    for dir in ["var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg", "etc/apt/apt.conf.d"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let config = root.join("etc/apt/apt.conf");
    let text = format!(
        "Dir \"{}\";\nAPT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\nDir::Bin::Methods \"/usr/lib/apt/methods\";\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let apt = |tool: &str, arguments: &[&str]| {
        let output = Command::new(tool).args(arguments).env("APT_CONFIG", &config).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && !text.contains("W:"), "{text}");
        text
    };
    apt("apt-get", &["update"]);
    let shown = apt("apt-cache", &["show", "hello"]);
    assert!(shown.contains("Version: 1:2.10-3~rc1"), "{shown}");
}

#[test]
fn the_server_answers_ranges_and_faults() {
    let served = Archive::new().suite("stable").package(package()).serve();
    let path = package().pool_path();
    let ask = |header: &str| {
        let (host, root) = served.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let path = path.replace('~', "%7E");
        write!(stream, "GET /{root}/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8_lossy(&answer[..12]).into_owned(), answer.split_off(end))
    };
    let deb = package().build();
    assert_eq!(ask(""), ("HTTP/1.1 200".to_owned(), deb.clone()));
    assert_eq!(ask("Range: bytes=100-\r\n"), ("HTTP/1.1 206".to_owned(), deb[100..].to_vec()));
    assert_eq!(ask("Range: bytes=100-\r\nIf-Range: \"x\"\r\n"), ("HTTP/1.1 200".to_owned(), deb.clone()));
    assert_eq!(ask("Range: bytes=99999999-\r\n").0, "HTTP/1.1 416");
    served.fault_times(1, "pool/", Fault::Status(500));
    assert_eq!(ask("").0, "HTTP/1.1 500");
    served.fault("pool/", Fault::Drop(10));
    assert_eq!(ask(""), ("HTTP/1.1 200".to_owned(), deb[..10].to_vec()));
    served.heal();
    served.fault("pool/", Fault::Tamper);
    assert_ne!(ask("").1, deb);
}
