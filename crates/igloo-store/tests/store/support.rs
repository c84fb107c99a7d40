//! Archives made by hand, so that they can be wrong in every way; and this binary as a program of its own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use igloo_base::Sha256;
use igloo_base::event::Silent;
use igloo_store::{DebId, DebSource, Store};

/// A tar archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn entry(mut self, flag: u8, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        self.header(flag, name.as_bytes(), link.as_bytes(), mode, content.len() as u64);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn header(&mut self, flag: u8, name: &[u8], link: &[u8], mode: u32, size: u64) {
        let mut h = [0u8; 512];
        h[..name.len()].copy_from_slice(name);
        h[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        h[108..116].copy_from_slice(b"0000000\0");
        h[116..124].copy_from_slice(b"0000000\0");
        h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        h[136..148].copy_from_slice(b"14000000000\0");
        h[148..156].fill(b' ');
        h[156] = flag;
        h[157..157 + link.len()].copy_from_slice(link);
        h[257..265].copy_from_slice(b"ustar  \0");
        h[265..269].copy_from_slice(b"root");
        h[297..301].copy_from_slice(b"root");
        let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
        h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&h);
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", 0o755, b"")
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o644, content)
    }

    pub(crate) fn exe(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o755, content)
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, b"")
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// The bytes of a .deb, nothing compressed.
pub(crate) fn deb(name: &str, version: &str, data: Tar) -> Vec<u8> {
    let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nDescription: a test\n");
    let control = Tar::default()
        .dir("./")
        .file("./control", control.as_bytes())
        .file("./conffiles", b"/etc/x.conf\n")
        .exe("./postinst", b"#!/bin/sh\n");
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control.end()), ("data.tar", data.end())]
    {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes());
        out.extend(content);
    }
    out
}

/// Writes a .deb into `dir`.
pub(crate) fn write_deb(dir: &Path, name: &str, data: Tar) -> DebSource {
    write_bytes(dir, name, "1.0-1", &deb(name, "1.0-1", data))
}

pub(crate) fn write_bytes(dir: &Path, name: &str, version: &str, bytes: &[u8]) -> DebSource {
    let path = dir.join(format!("{name}.deb"));
    fs::write(&path, bytes).expect("write");
    let id = DebId { name: name.to_owned(), version: version.to_owned(), architecture: "amd64".to_owned() };
    DebSource { path, sha256: Sha256::of(bytes), size: bytes.len() as u64, id }
}

/// Content that differs for every seed and does not fit into one buffer.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A package with a bit of everything that packages have.
pub(crate) fn ordinary(dir: &Path, name: &str, seed: u32) -> DebSource {
    let tar = Tar::default()
        .dir("./")
        .dir("./etc/")
        .file("./etc/x.conf", b"x = 1\n")
        .dir("./lib/")
        .file("./lib/early.so", b"moves below usr")
        .dir("./usr/")
        .dir("./usr/bin/")
        .exe("./usr/bin/x", &noise(seed, 300_000))
        .entry(b'0', "./usr/bin/su", "", 0o4755, b"set-uid")
        .hard("./usr/bin/y", "./usr/bin/x")
        .dir("./usr/lib/")
        .link("./usr/lib/l", "../bin/x")
        .dir("./usr/share/")
        .dir("./usr/share/empty/");
    write_deb(dir, name, tar)
}

pub(crate) fn add(store: &Store, debs: &[DebSource]) -> Vec<igloo_formats::nix::StorePath> {
    store.add_debs(debs, &Silent, 2).expect("add")
}

pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a Nix command on the store below `root`; `None` if there is no Nix.
pub(crate) fn nix(root: &Path, program: &str, args: &[&str]) -> Option<Output> {
    let conf = root.join("nix-conf");
    fs::create_dir_all(&conf).expect("mkdir");
    fs::write(
        conf.join("nix.conf"),
        "experimental-features = nix-command\nsubstitute = false\nsubstituters =\nbuild-users-group =\nsandbox = false\n",
    )
    .expect("write");
    let store = format!("local?root={}", root.display());
    let run = Command::new(program)
        .args(["--store", &store])
        .args(args)
        .env("NIX_CONF_DIR", &conf)
        .env("HOME", &conf)
        .env_remove("NIX_REMOTE")
        .output();
    match run {
        Ok(output) => Some(output),
        Err(_) => {
            skip("there is no Nix on this machine");
            None
        }
    }
}

/// This test binary, running nothing but `helper` with these words in its environment.
pub(crate) fn helper(helper: &str, args: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command.args(["--exact", &format!("helpers::{helper}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command.envs(args.iter().copied());
    command
}

/// The ordinary user of this machine, if we may become it.
pub(crate) fn as_ordinary_user(command: &mut Command) -> bool {
    let id = Command::new("id").args(["-u", "igloo-test"]).output().ok().filter(|o| o.status.success());
    let uid = id.and_then(|o| String::from_utf8(o.stdout).ok()).and_then(|t| t.trim().parse::<u32>().ok());
    match uid {
        Some(uid) if is_root() => {
            command.uid(uid).gid(uid);
            true
        }
        _ => {
            skip("this needs root and a user called igloo-test");
            false
        }
    }
}

/// A word from the environment of a helper.
pub(crate) fn word(name: &str) -> String {
    std::env::var(name).expect(name)
}

pub(crate) fn debs_in(dir: &Path, count: u32) -> Vec<DebSource> {
    (0..count).map(|i| ordinary(dir, &format!("p{i}"), i)).collect()
}

pub(crate) fn object_count(root: &Path) -> usize {
    fs::read_dir(root.join("nix/store"))
        .expect("list")
        .filter(|e| e.as_ref().expect("entry").file_name() != ".links")
        .count()
}

pub(crate) fn staging_is_empty(root: &Path) -> bool {
    fs::read_dir(root.join("nix/var/igloo/staging")).expect("list").next().is_none()
}

pub(crate) fn tempdir() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    // Others look into it, too.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = dir.path().to_owned();
    (dir, path)
}
