//! Igloo and real Nix in one store at once, beside a daemon, both killed at any moment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use igloo_test::nix::{Fixture, NixStore, fixture};

/// A store of its own and a signed cache to fill it from.
struct Place {
    dir: tempfile::TempDir,
    store: NixStore,
    cache: String,
    public: String,
}

impl Place {
    /// With the machine's Nix, or another one.
    fn new(fixture: &Fixture, bin: Option<&Path>) -> Self {
        let dir = tempfile::Builder::new().prefix("igloo-both-").tempdir_in("/var/tmp").expect("tempdir");
        let (secret, public) = fixture.store.key(dir.path(), "both-1");
        let cache = format!("file://{}", dir.path().join("cache").display());
        let paths: Vec<String> = fixture.paths.values().map(|p| p.full()).collect();
        let place =
            Self { store: NixStore::at(dir.path().join("data")).by(bin), dir, cache, public: public.trim().to_owned() };
        let mut words = vec!["store", "copy", "--from", fixture.store.root.to_str().expect("text")];
        let secret = secret.display().to_string();
        words.extend(["--to", place.cache.as_str(), "--sign", secret.as_str()]);
        words.extend(paths.iter().map(String::as_str));
        good(place.igloo(&words).output().expect("igloo"));
        place
    }

    fn igloo(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_igloo"));
        let at = |name: &str| self.dir.path().join(name);
        command.env("IGLOO_DATA_DIR", at("data")).env("IGLOO_STATE_DIR", at("state")).env("IGLOO_CACHE_DIR", at("own"));
        command.env("IGLOO_RUNTIME_DIR", at("run")).env("HOME", at("home")).args(words).stdin(Stdio::null());
        command
    }

    /// Igloo fills the store.
    fn fetch(&self, path: &str) -> Command {
        self.igloo(&["store", "copy", "--from", &self.cache, "--trust", &self.public, path])
    }

    /// Nix fills it, by itself or through a daemon.
    fn nix_fetch(&self, to: &str, path: &str) -> Command {
        let mut command = self.store.command("nix");
        command.args([
            "copy",
            "--from",
            &self.cache,
            "--to",
            to,
            "--option",
            "trusted-public-keys",
            &self.public,
            path,
        ]);
        command
    }
}

fn good(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().expect("start")
}

/// A daemon on the store; killed when dropped.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(place: &Place) -> Self {
        let socket: PathBuf = place.dir.path().join("daemon/socket");
        std::fs::create_dir_all(socket.parent().expect("parent")).expect("mkdir");
        let mut command = place.store.command("nix-daemon");
        command.env("NIX_DAEMON_SOCKET_PATH", &socket).args(["--option", "trusted-public-keys", &place.public]);
        let child = quiet(&mut command);
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the daemon did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, url: format!("unix://{}", socket.display()) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_fill_collect_and_are_killed_and_the_store_is_whole() {
    let Some(fixture) = fixture() else { return };
    chaos(fixture, None, Duration::from_secs(12));
}

#[test]
fn a_newer_nix_and_igloo_are_killed_and_the_store_is_whole() {
    let (Some(fixture), Some(newer)) = (fixture(), crate::newer::nix()) else { return };
    chaos(fixture, Some(newer), Duration::from_secs(8));
}

/// Whether a process has a file of this store path open, mapped, or in its environment.
fn is_run_somewhere(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("list").flatten();
    processes.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())).any(|process| {
        let text = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
        let exe = std::fs::read_link(process.path().join("exe")).unwrap_or_default();
        let told = [text("maps"), text("environ"), exe.into_os_string().into_encoded_bytes()];
        told.iter().any(|told| String::from_utf8_lossy(told).contains(&format!("/nix/store/{name}")))
    })
}

fn chaos(fixture: &Fixture, bin: Option<&Path>, long: Duration) {
    let place = Place::new(fixture, bin);
    let all: Vec<String> = fixture.paths.values().map(|p| p.full()).collect();
    // The first of them makes the database, whoever it is.
    good(place.igloo(&["store", "roots"]).output().expect("igloo"));
    let daemon = Daemon::start(&place);
    let mut state =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    println!("seed {state}");
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let begin = Instant::now();
    let mut round = 0;
    while begin.elapsed() < long {
        round += 1;
        let mut children = Vec::new();
        for _ in 0..3 {
            let path = &all[random(all.len() as u64) as usize];
            let mut command = match random(6) {
                0 | 1 => place.fetch(path),
                2 => place.nix_fetch(&place.store.url(), path),
                3 => place.nix_fetch(&daemon.url, path),
                4 => place.igloo(&["gc"]),
                _ => {
                    let mut command = place.store.command("nix-store");
                    command.arg("--gc");
                    command
                }
            };
            children.push(quiet(&mut command));
        }
        std::thread::sleep(Duration::from_millis(random(250)));
        for mut child in children {
            if random(3) > 0 {
                let _ = child.kill();
            }
            child.wait().expect("wait");
        }
    }
    println!("{round} rounds");
    drop(daemon);
    place.store.check();
    good(place.igloo(&["store", "verify", "--contents"]).output().expect("igloo"));
    // And all of it can be had, by either.
    for (turn, path) in all.iter().enumerate() {
        let mut command = if turn % 2 == 0 { place.fetch(path) } else { place.nix_fetch(&place.store.url(), path) };
        good(command.output().expect("run"));
    }
    place.store.check();
    place.store.ok("nix", &["store", "verify", "--all", "--option", "trusted-public-keys", &place.public]);
    good(place.igloo(&["store", "verify", "--contents"]).output().expect("igloo"));
    // What the dead left is garbage that either removes.
    good(place.igloo(&["gc"]).output().expect("igloo"));
    place.store.ok("nix-store", &["--gc"]);
    let left: Vec<_> = std::fs::read_dir(place.store.root.join("nix/store"))
        .expect("list")
        .map(|e| e.expect("entry").file_name())
        .filter(|name| name != ".links")
        // Nix takes for a root what any process of the machine refers to, and other tests run what is built of the same set.
        .filter(|name| !is_run_somewhere(&name.to_string_lossy()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let staging = place.store.root.join("nix/var/igloo/staging");
    assert_eq!(std::fs::read_dir(staging).map_or(0, Iterator::count), 0);
}

#[test]
fn nix_signs_serves_and_optimises_what_igloo_fetched() {
    let Some(fixture) = fixture() else { return };
    carried(fixture, None);
}

#[test]
fn a_newer_nix_signs_serves_and_optimises_what_igloo_fetched() {
    let (Some(fixture), Some(newer)) = (fixture(), crate::newer::nix()) else { return };
    carried(fixture, Some(newer));
}

fn carried(fixture: &Fixture, bin: Option<&Path>) {
    let place = Place::new(fixture, bin);
    let hello = fixture.path("hello").full();
    good(place.fetch(&hello).output().expect("igloo"));
    let (secret, other) = place.store.key(place.dir.path(), "other-1");
    place.store.ok("nix", &["store", "sign", "-r", "-k", &secret.display().to_string(), &hello]);
    place.store.ok("nix-store", &["--optimise"]);
    place.store.check();
    good(place.igloo(&["store", "verify", "--contents"]).output().expect("igloo"));
    // Igloo carries Nix's signature on into a cache, from which Nix takes it by that key alone.
    let cache = format!("file://{}", place.dir.path().join("second").display());
    good(place.igloo(&["store", "copy", "--to", &cache, &hello]).output().expect("igloo"));
    let third = NixStore::at(place.dir.path().join("third")).by(bin);
    let to = third.url();
    third.ok("nix", &["copy", "--from", &cache, "--to", &to, "--option", "trusted-public-keys", &other, &hello]);
    third.check();
    // What igloo fetched runs.
    assert_eq!(
        run_in(&third.root, &format!("{hello}/bin/hello")).as_deref().unwrap_or("Hello, world!\n"),
        "Hello, world!\n"
    );
    // The daemon gives from it, too.
    let daemon = Daemon::start(&place);
    let fourth = NixStore::at(place.dir.path().join("fourth")).by(bin);
    let to = fourth.url();
    fourth.ok("nix", &["copy", "--from", &daemon.url, "--to", &to, "--no-check-sigs", &hello]);
    fourth.check();
}

/// Runs a program with another `/nix`; none if we may not.
fn run_in(root: &Path, program: &str) -> Option<String> {
    let script = format!("mount --bind {}/nix /nix && exec {program}", root.display());
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
