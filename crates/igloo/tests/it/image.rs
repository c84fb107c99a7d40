//! `igloo image`: images of real packages, by each kind of person, read back by others' tools and run here.

mod gc;
mod killed;
mod others;
mod run;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use igloo_base::Sha256;

use crate::world::{Person, people};

pub const BOX: &str = r#"
[project]
name = "boxes"
systems = ["x86_64-linux", "aarch64-linux"]
[sources.debian]
suite = "bookworm"
[images.box]
base = "none"
packages = ["busybox-static"]
copy = [{ from = "app", to = "/srv/app" }]
run = ["busybox", "echo", "ran", "well"]
env = { GREETING = "hello there" }
workdir = "/srv/app"
user = "root"
stop-signal = "SIGUSR1"
files = [{ path = "/etc/motd", text = "welcome\n", mode = "0600" }]
"#;

/// A project with one image of little, for two systems.
pub fn boxes(person: &Person) -> PathBuf {
    let project = person.project("boxes", BOX);
    fs::create_dir(project.join("app")).expect("mkdir");
    fs::write(project.join("app/main"), "the code").expect("write");
    if let Some(lock) = LOCK.get() {
        fs::write(project.join("igloo.lock"), lock).expect("write");
    } else {
        person.igloo(&project, &["lock"]).ok();
        let _ = LOCK.set(fs::read_to_string(project.join("igloo.lock")).expect("read"));
    }
    person.own(&project);
    project
}

static LOCK: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// The digest that a build prints.
pub fn digest(printed: &str) -> String {
    let first = printed.split_whitespace().next().unwrap_or_default();
    assert!(first.starts_with("sha256:") && first.len() == 71, "{printed}");
    first.to_owned()
}

/// Every blob of a directory `blobs/sha256` has the content that its name says; there is nothing else.
fn sound_blobs(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).expect("list").flatten() {
        let name = entry.file_name().into_string().expect("name");
        if name.starts_with(".igloo-") {
            continue;
        }
        assert_eq!(Sha256::of(&fs::read(entry.path()).expect("read")).to_string(), name);
        count += 1;
    }
    count
}

#[test]
fn the_digest_is_the_same_whoever_builds_where_and_when() {
    let surroundings =
        [("022", "UTC", "C"), ("077", "Pacific/Apia", "de_DE.UTF-8"), ("002", "America/St_Johns", "tr_TR.UTF-8")];
    for compression in ["zstd", "gzip"] {
        let mut digests = BTreeSet::new();
        for (person, (umask, zone, locale)) in people().iter().zip(surroundings) {
            let project = boxes(person);
            let built = person.igloo(&project, &["image", "build", "--compression", compression, "-o", "out"]).ok();
            digests.insert(digest(&built));
            // From nothing, in other surroundings.
            let other = boxes(person);
            let script = format!("umask {umask}; exec igloo image build --compression {compression}");
            let output = person
                .command("sh")
                .args(["-c", &script])
                .env("TZ", zone)
                .env("LANG", locale)
                .env("LC_ALL", locale)
                .env("IGLOO_CACHE_DIR", other.join("another-cache"))
                .current_dir(&other)
                .output()
                .expect("sh");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {said}", person.name);
            digests.insert(digest(&String::from_utf8_lossy(&output.stdout)));
            sound_blobs(&project.join("out/blobs/sha256"));
            // An index of both systems.
            let index = fs::read(project.join("out/index.json")).expect("read");
            let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
            let top =
                index["manifests"][0]["digest"].as_str().expect("digest").trim_start_matches("sha256:").to_owned();
            let top = fs::read(project.join("out/blobs/sha256").join(top)).expect("read");
            let top: serde_json::Value = serde_json::from_slice(&top).expect("JSON");
            let systems: Vec<_> = top["manifests"].as_array().expect("an index").iter().collect();
            let systems: Vec<_> = systems.iter().map(|m| m["platform"]["architecture"].as_str()).collect();
            assert_eq!(systems, [Some("amd64"), Some("arm64")], "{top}");
        }
        assert_eq!(digests.len(), 1, "{compression}: {digests:?}");
    }
    let person = &people()[0];
    person.igloo(&boxes(person), &["image", "build", "--check"]).ok();
}

/// How many files there are below, while they come and go.
fn files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let below = |e: fs::DirEntry| if e.path().is_dir() { files(&e.path()) } else { 1 };
    entries.flatten().map(below).sum()
}

#[test]
fn a_killed_build_leaves_nothing_that_the_next_one_trips_over() {
    let person = people().pop().expect("somebody");
    let project = boxes(&person);
    let expected = digest(&person.igloo(&project, &["image", "build"]).ok());
    let cache = project.join("cache");
    let build = |project: &Path| -> Command {
        let mut command = person.igloo_command(project, &["image", "build", "--locked"]);
        command.env("IGLOO_CACHE_DIR", &cache).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Killed when so many files are there, once for each number that a build goes through.
    let mut killed = 0;
    for moment in 1..14 {
        let _ = fs::remove_dir_all(cache.join("oci"));
        let mut child = build(&project).spawn().expect("spawn");
        let ended = loop {
            if files(&cache.join("oci")) >= moment {
                break false;
            }
            if child.try_wait().expect("wait").is_some() {
                break true;
            }
        };
        drop(child.kill());
        drop(child.wait());
        if ended {
            break;
        }
        killed += 1;
        if cache.join("oci/blobs/sha256").exists() {
            sound_blobs(&cache.join("oci/blobs/sha256"));
        }
        let output = build(&project).stdout(Stdio::piped()).output().expect("igloo");
        assert_eq!(digest(&String::from_utf8_lossy(&output.stdout)), expected, "killed at file {moment}");
        assert!(sound_blobs(&cache.join("oci/blobs/sha256")) > 3);
    }
    assert!(killed > 4, "only {killed} builds were killed");
}

#[test]
fn what_was_spoilt_is_said_and_not_run() {
    let person = people().pop().expect("somebody");
    let project = boxes(&person);
    // Of its own, since it is emptied: other tests' runs stand on theirs.
    let cache = project.join("cache");
    let igloo = |words: &[&str]| -> (Option<i32>, String) {
        let mut command = person.igloo_command(&project, words);
        let output = command.env("IGLOO_CACHE_DIR", &cache).output().expect("run igloo");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let fresh = |name: &str| -> PathBuf {
        let (code, said) = igloo(&["image", "build", "-o", name]);
        assert_eq!(code, Some(0), "{said}");
        // Its own files, not links to the cache's.
        let to = project.join(format!("{name}-own"));
        assert!(person.command("cp").arg("-rT").args([&project.join(name), &to]).status().expect("cp").success());
        to
    };
    let blobs = |layout: &Path| -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(layout.join("blobs/sha256")).expect("list").flatten().collect();
        all.sort_by_key(|e| std::cmp::Reverse(e.metadata().map_or(0, |m| m.len())));
        all.into_iter().map(|e| e.path()).collect()
    };
    let run = |layout: &Path| {
        let name = format!("oci:{}", layout.display());
        let (code, ran) = igloo(&["image", "run", &name]);
        assert_eq!(code, Some(1), "{ran}");
        let (code, copied) = igloo(&["image", "copy", &name, "oci-archive:copy.tar"]);
        assert!(code != Some(0) && !project.join("copy.tar").exists(), "{copied}");
        (ran, copied)
    };
    // Something in the image that no other test has, so that nothing of it is known yet.
    fs::write(project.join("app/main"), "spoilt, by and by").expect("write");

    let layout = fresh("flipped");
    for blob in blobs(&layout) {
        let mut bytes = fs::read(&blob).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).expect("write");
    }
    let (ran, _) = run(&layout);
    assert!(ran.contains("has other content than its digest says"), "{ran}");

    // Layers alone: the largest are for both systems.
    let layout = fresh("layers");
    for blob in blobs(&layout).into_iter().take(2) {
        let mut bytes = fs::read(&blob).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&blob, bytes).expect("write");
    }
    fs::remove_dir_all(cache.join("oci")).expect("forget");
    let (ran, copied) = run(&layout);
    for said in [ran, copied] {
        assert!(said.contains("has other content than its digest says"), "{said}");
    }

    let layout = fresh("missing");
    fs::remove_dir_all(cache.join("oci")).expect("forget");
    blobs(&layout).into_iter().take(2).for_each(|blob| fs::remove_file(blob).expect("remove"));
    let (ran, copied) = run(&layout);
    for said in [ran, copied] {
        assert!(said.contains("which is not in it"), "{said}");
    }
    fs::remove_file(layout.join("index.json")).expect("remove");
    let (ran, _) = run(&layout);
    assert!(ran.contains("it has no `index.json`"), "{ran}");
}

/// A server that ends with the test.
pub struct Served(pub Child);

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether a tool is there; says so if not.
pub fn has(tool: &str) -> bool {
    let found =
        ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(tool).exists());
    if !found {
        println!("skipped: `{tool}` is not installed");
    }
    found
}
