//! kill -9 while images are on their way, at moments spread over all that is done: the next one gets through, and nothing
//! half done passes for whole.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::others::registry;
use super::{boxes, digest, files, has, sound_blobs};
use crate::world::people;

/// Runs `command` once whole, then kills it at ever later moments, in time and by the files below `watched`; `after` is
/// told when. `before` makes it start from nothing.
fn at_each_moment(command: &dyn Fn() -> Command, watched: &Path, before: &dyn Fn(), after: &dyn Fn(&str)) {
    let quiet = || {
        let mut command = command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    before();
    let began = Instant::now();
    assert!(quiet().status().expect("run").success());
    let whole = began.elapsed();
    let mut killed = 0;
    for tenth in 0..10 {
        before();
        let began = Instant::now();
        let mut child = quiet().spawn().expect("spawn");
        while began.elapsed() < whole * tenth / 10 {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(child.kill());
        killed += usize::from(child.wait().expect("wait").code().is_none());
        after(&format!("after {tenth} tenths of {whole:?}"));
    }
    for count in 1..12 {
        before();
        let mut child = quiet().spawn().expect("spawn");
        while files(watched) < count && child.try_wait().expect("wait").is_none() {}
        drop(child.kill());
        let ended = child.wait().expect("wait").code().is_some();
        killed += usize::from(!ended);
        after(&format!("with {count} files"));
        if ended {
            break;
        }
    }
    assert!(killed > 6, "only {killed} were killed");
}

#[test]
fn pulls_and_copies() {
    let person = people().pop().expect("somebody");
    let Some((_served, host)) = registry(&person) else { return };
    let project = boxes(&person);
    let name = format!("{host}/acme/box:1");
    person.igloo(&project, &["image", "push", "--to", &name]).ok();
    let built = digest(&person.igloo(&project, &["image", "build"]).ok());
    let elsewhere = person.directory("killed");
    let cache = elsewhere.join("cache");
    let igloo = |words: &[&str]| {
        let mut command = person.igloo_command(&elsewhere, words);
        command.env("IGLOO_CACHE_DIR", &cache);
        command
    };
    let ok = |words: &[&str], when: &str| {
        let output = igloo(words).output().expect("igloo");
        assert!(output.status.success(), "{when}: {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let blobs = cache.join("oci/blobs/sha256");
    let sound = |directory: &Path| if directory.exists() { sound_blobs(directory) } else { 0 };
    let forget = |path: &str| {
        let path = elsewhere.join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("remove");
        } else {
            drop(fs::remove_file(path));
        }
    };

    let pull = ["image", "pull", "--all", &name];
    at_each_moment(&|| igloo(&pull), &cache, &|| forget("cache"), &|when| {
        sound(&blobs);
        assert_eq!(ok(&pull, when), built);
        assert!(sound(&blobs) > 5, "{when}");
    });

    // To a directory, which names nothing that it lacks.
    let copy = ["image", "copy", &name, "oci:out"];
    at_each_moment(&|| igloo(&copy), &elsewhere.join("out"), &|| forget("out"), &|when| {
        sound(&elsewhere.join("out/blobs/sha256"));
        if elsewhere.join("out/index.json").exists() {
            ok(&["image", "copy", "oci:out", "oci-archive:check.tar"], when);
        }
        ok(&copy, when);
        assert!(sound(&elsewhere.join("out/blobs/sha256")) > 5);
    });

    // To a file, which is there when it is whole.
    for form in ["oci-archive", "docker-archive"] {
        let (to, file) = (format!("{form}:copy.tar"), elsewhere.join("copy.tar"));
        let copy = ["image", "copy", &name, &to];
        at_each_moment(&|| igloo(&copy), &elsewhere, &|| forget("copy.tar"), &|when| {
            if file.exists() {
                assert_eq!(ok(&["image", "run", &to], when), "ran well");
            }
            ok(&copy, when);
            assert_eq!(ok(&["image", "run", &to], when), "ran well");
        });
    }

    // To a registry, where a tag names what is there.
    let number = std::cell::Cell::new(0);
    let to = || format!("{host}/copies/box-{}:1", number.get());
    let before = || number.set(number.get() + 1);
    at_each_moment(&|| igloo(&["image", "copy", &name, &to()]), &elsewhere, &before, &|when| {
        if igloo(&["image", "inspect", &to()]).output().expect("igloo").status.success() {
            forget("cache");
            assert_eq!(ok(&["image", "pull", "--all", &to()], when), built);
        }
        ok(&["image", "copy", &name, &to()], when);
        forget("cache");
        assert_eq!(ok(&["image", "pull", "--all", &to()], when), built);
    });
}

#[test]
fn loads() {
    let person = &people()[0];
    if person.name != "root" {
        return println!("skipped: only root's podman is set up here");
    }
    if !has("podman") {
        return;
    }
    let project = boxes(person);
    person.igloo(&project, &["image", "build"]).ok();
    let (root, runroot) = (project.join("graph"), project.join("rungraph"));
    let storage = project.join("storage.conf");
    fs::write(&storage, format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {runroot:?}\n"))
        .expect("write");
    let policy = project.join(".config/containers/policy.json");
    fs::create_dir_all(policy.parent().expect("parent")).expect("mkdir");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).expect("write");
    let temporary = project.join("tmp");
    fs::create_dir(&temporary).expect("mkdir");
    let surrounded = |mut command: Command| {
        command.env("HOME", &project).env("CONTAINERS_STORAGE_CONF", &storage).env("TMPDIR", &temporary);
        command.current_dir(&project);
        command
    };
    let load = || surrounded(person.igloo_command(&project, &["image", "load", "--into", "podman", "box"]));
    let podman = |words: &[&str]| {
        let mut command = surrounded(person.command("podman"));
        let output = command.args(words).output().expect("podman");
        assert!(output.status.success(), "podman {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    at_each_moment(&load, &root, &|| drop(podman(&["rmi", "--all", "--force"])), &|when| {
        let output = load().output().expect("igloo");
        assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(podman(&["images", "--format", "{{.Repository}}"]).contains("localhost/box"), "{when}");
        let ours = fs::read_dir(&temporary).expect("list").flatten();
        assert!(!ours.into_iter().any(|e| e.file_name().to_string_lossy().contains("igloo")), "{when}");
    });
}
