//! People who run igloo: root, a user with subordinate ids, one without. Each has a home, a store and a cache that
//! all tests of a run share, so that packages are fetched once and stores see concurrent use.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Somebody who runs igloo.
#[derive(Debug, Clone)]
pub struct Person {
    pub name: &'static str,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

/// Everybody there is on this machine. As root: root and the two test users; else the caller.
pub fn people() -> Vec<Person> {
    let caller = rustix::process::geteuid().as_raw();
    if caller != 0 {
        return vec![person("caller", caller, rustix::process::getegid().as_raw())];
    }
    let mut people = vec![person("root", 0, 0)];
    for name in ["igloo-test", "igloo-single"] {
        match ids(name) {
            Some((uid, gid)) => people.push(person(name, uid, gid)),
            None => println!("skipped: there is no user `{name}`; tests/run makes it"),
        }
    }
    people
}

fn ids(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
}

fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        // Short, since sockets live below it; where ordinary users may enter.
        let base = PathBuf::from(format!("/var/tmp/igloo-it-{}", std::process::id()));
        fs::create_dir_all(&base).expect("create the test directory");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).expect("chmod");
        let binary = base.join("igloo");
        fs::copy(env!("CARGO_BIN_EXE_igloo"), &binary).expect("copy the binary");
        base
    })
}

fn person(name: &'static str, uid: u32, gid: u32) -> Person {
    static MADE: Mutex<()> = Mutex::new(());
    let _turn = MADE.lock().expect("lock");
    let home = base().join(name);
    if !home.exists() {
        fs::create_dir(&home).expect("create a home");
        chown(&home, Some(uid), Some(gid)).expect("chown");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    Person { name, uid, gid, home }
}

impl Person {
    /// User and group.
    pub fn ids(&self) -> [u32; 2] {
        [self.uid, self.gid]
    }

    /// A command that this person runs, with an environment of their own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", self.name)
            .env("SHELL", "/bin/bash")
            .env("PATH", format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", base().display()))
            .env("IGLOO_DATA_DIR", self.home.join("data"))
            .env("IGLOO_STATE_DIR", self.home.join("state"))
            .env("IGLOO_CACHE_DIR", self.home.join("cache"))
            .env("IGLOO_RUNTIME_DIR", self.home.join("run"))
            .current_dir(&self.home)
            .stdin(Stdio::null());
        if self.uid != rustix::process::geteuid().as_raw() {
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// `igloo` with these words, in a directory, not started.
    pub fn igloo_command(&self, directory: &Path, words: &[&str]) -> Command {
        let mut command = self.command(base().join("igloo"));
        command.args(words).current_dir(directory);
        command
    }

    /// Makes everything below a directory this person's.
    pub fn own(&self, directory: &Path) {
        let owner = format!("{}:{}", self.uid, self.gid);
        let status = Command::new("chown").args(["-R", "-h", &owner]).arg(directory).status().expect("chown");
        assert!(status.success());
    }

    /// `igloo` with these words, in a directory.
    pub fn igloo(&self, directory: &Path, words: &[&str]) -> Run {
        let output = self.igloo_command(directory, words).output().expect("run igloo");
        Run { what: format!("{}: igloo {}", self.name, words.join(" ")), output }
    }

    /// A fresh directory of this person's.
    pub fn directory(&self, name: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.home.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("create a directory");
        chown(&path, Some(self.uid), Some(self.gid)).expect("chown");
        path
    }

    /// A copy of one of the repository's examples.
    pub fn example(&self, name: &str) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let to = self.directory(name);
        let status = Command::new("cp").arg("-rT").arg(&from).arg(&to).status().expect("cp");
        assert!(status.success());
        let owner = format!("{}:{}", self.uid, self.gid);
        assert!(Command::new("chown").args(["-R", &owner]).arg(&to).status().expect("chown").success());
        // One that was left by a run in the repository.
        let _ = fs::remove_file(to.join("igloo.lock"));
        to
    }

    /// A project with this manifest.
    pub fn project(&self, name: &str, manifest: &str) -> PathBuf {
        let directory = self.directory(name);
        fs::write(directory.join("igloo.toml"), manifest).expect("write the manifest");
        directory
    }

    /// Where this person's store is, `local?root=` of Nix.
    pub fn store(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where what igloo knows of this person's projects is.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Where sockets and locks of this person's projects are.
    pub fn runtime(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Where this person's downloads are.
    pub fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }
}

/// A finished `igloo`.
pub struct Run {
    what: String,
    pub output: Output,
}

impl Run {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Panics, with all that was said, unless it ended with 0; gives standard output.
    pub fn ok(self) -> String {
        assert!(self.output.status.success(), "{self:?}");
        self.stdout()
    }

    /// Panics if it ended with 0; gives standard error.
    pub fn fails(self) -> String {
        assert!(!self.output.status.success(), "{self:?}");
        self.stderr()
    }

    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.output.status,
            self.stdout(),
            self.stderr()
        )
    }
}

/// One HTTP/1.0 request to `127.0.0.1:port`; status and body.
pub fn http(port: u16, request: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let text = format!(
        "{request} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no HTTP: {answer}"));
    (status, answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}
