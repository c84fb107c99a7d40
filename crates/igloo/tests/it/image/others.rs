//! Others' tools and registries.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Served, boxes, digest, has};
use crate::podman::Podman;
use crate::world::{Person, people};

#[test]
fn skopeo_reads_what_is_written() {
    if !has("skopeo") {
        return;
    }
    let person = people().pop().expect("somebody");
    for compression in ["zstd", "gzip"] {
        let project = boxes(&person);
        let all = ["-o", "out", "--oci-archive", "oci.tar", "--docker-archive", "docker.tar"];
        let build = [&["image", "build", "--compression", compression][..], &all].concat();
        let built = digest(&person.igloo(&project, &build).ok());
        let skopeo = |words: &[&str]| {
            let output = person.command("skopeo").args(words).current_dir(&project).output().expect("skopeo");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "skopeo {words:?}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        for architecture in ["amd64", "arm64"] {
            let inspected = skopeo(&["--override-arch", architecture, "inspect", "oci:out"]);
            let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
            assert_eq!(inspected["Architecture"], architecture);
            assert!(inspected["Layers"].as_array().expect("layers").len() >= 2, "{inspected}");
        }
        let raw = skopeo(&["inspect", "--raw", "oci:out"]);
        assert_eq!(format!("sha256:{}", igloo_base::Sha256::of(raw.as_bytes())), built);
        // Copied whole, with every digest checked.
        skopeo(&["copy", "--quiet", "--insecure-policy", "--all", "oci:out", "dir:all"]);
        skopeo(&["copy", "--quiet", "--insecure-policy", "oci-archive:oci.tar", "dir:one"]);
        skopeo(&["copy", "--quiet", "--insecure-policy", "docker-archive:docker.tar", "oci:again"]);
        // And what skopeo writes runs here.
        assert_eq!(person.igloo(&project, &["image", "run", "oci:again"]).ok(), "ran well\n");
    }
}

#[test]
fn podman_and_buildah_run_it() {
    let person = &people()[0];
    if person.name != "root" {
        return println!("skipped: only root's podman is set up here");
    }
    if !["podman", "buildah", "runc"].iter().all(|tool| has(tool)) {
        return;
    }
    let project = boxes(person);
    person.igloo(&project, &["image", "build", "--oci-archive", "oci.tar"]).ok();
    let podman = Podman::new(person, &project, "vfs");
    let tool = |name: &str, words: &[&str]| podman.tool(name, words);
    podman.load("oci.tar");
    let policy = podman.policy();
    let run =
        |words: &[&str]| tool("podman", &[&["run", "--rm", "--net=none", "localhost/box:latest"], words].concat());
    assert_eq!(run(&[]), "ran well");
    assert_eq!(
        run(&["busybox", "sh", "-c", "cat main; echo; stat -c '%a %u' /tmp /etc/motd"]),
        "the code\n1777 0\n600 0"
    );
    let from = tool("buildah", &["from", "--signature-policy", &policy, "oci-archive:oci.tar"]);
    let at = tool("buildah", &["mount", &from]);
    assert_eq!(fs::read_to_string(Path::new(&at).join("srv/app/main")).expect("read"), "the code");
    tool("buildah", &["umount", &from]);
    tool("buildah", &["rm", &from]);
}

/// Debian's `docker-registry` on loopback.
pub fn registry(person: &Person) -> Option<(Served, String)> {
    if !has("docker-registry") {
        return None;
    }
    let directory = person.directory("registry");
    // A port that is free now may be taken a moment later, so that it is tried again.
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        let host = format!("127.0.0.1:{port}");
        let data = directory.join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {host}\n",
            data.display()
        );
        let config = directory.join("config.yml");
        fs::write(&config, text).expect("write");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut served = Served(command.spawn().expect("spawn"));
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && served.0.try_wait().expect("wait").is_none() {
            if TcpStream::connect(&host).is_ok() {
                return Some((served, host));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("docker-registry does not start");
}

#[test]
fn an_image_goes_through_a_registry_and_runs_elsewhere() {
    let everybody = people();
    let Some((_served, host)) = registry(&everybody[0]) else { return };
    let project = boxes(&everybody[0]);
    let name = format!("{host}/acme/box");
    let built = digest(&everybody[0].igloo(&project, &["image", "build"]).ok());
    let push = || everybody[0].igloo(&project, &["image", "push", "--to", &name, "-t", "1"]);
    let first = push();
    assert!(first.stdout().contains(&built), "{first:?}");
    assert!(push().stderr().contains("all of it was there"));
    for person in &everybody {
        let elsewhere = person.directory("elsewhere");
        // With a cache of its own, so that everything has to come from the registry.
        let cache = elsewhere.join("cache");
        let igloo = |words: &[&str]| {
            let output =
                person.igloo_command(&elsewhere, words).env("IGLOO_CACHE_DIR", &cache).output().expect("igloo");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {words:?}: {said}", person.name);
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let tagged = format!("{name}:1");
        assert_eq!(igloo(&["image", "run", &tagged]), "ran well");
        assert_eq!(igloo(&["image", "pull", "--all", &tagged]), built);
        super::sound_blobs(&cache.join("oci/blobs/sha256"));
        assert_eq!(igloo(&["image", "run", &format!("{name}@{built}"), "--", "busybox", "cat", "main"]), "the code");
    }
}

/// Images of others are services like packages: locked by digest, from a registry or from a file.
#[test]
fn a_service_may_be_an_image() {
    let everybody = people();
    let Some((served, host)) = registry(&everybody[0]) else { return };
    let project = everybody[0].project(
        "imaged",
        r#"
[project]
name = "imaged"
[sources.debian]
suite = "bookworm"
[images.web]
packages = ["busybox-static"]
entrypoint = ["busybox"]
run = ["httpd", "-f", "-p", "8000", "-h", "/srv"]
files = [{ path = "/srv/index.html", text = "of the image", owner = "app" }]
env = { OWN = "image" }
workdir = "/srv"
"#,
    );
    let name = format!("{host}/acme/web");
    let built = digest(&everybody[0].igloo(&project, &["image", "build", "-o", "out"]).ok());
    everybody[0].igloo(&project, &["image", "push", "--to", &name, "-t", "1"]).ok();
    for person in &everybody {
        let layout = person.directory("layout");
        assert!(Command::new("cp").arg("-rT").arg(project.join("out")).arg(&layout).status().expect("cp").success());
        person.own(&layout);
        let manifest = format!(
            "[project]\nname = \"images\"\n[services.web]\nimage = \"{name}:1\"\ncopy = [{{ from = \"app\", to = \"/srv/app\" }}]\n\
             ready = {{ tcp = 8000 }}\nenv = {{ MORE = \"yes\" }}\n\
             [services.file]\nimage = \"oci:{}\"\nrun = [\"sh\", \"-c\", \"id -un; echo $OWN; exec sleep 1000\"]\nneeds = [\"web\"]\n",
            layout.display()
        );
        let directory = person.project("images", &manifest);
        fs::create_dir(directory.join("app")).expect("mkdir");
        fs::write(directory.join("app/own.txt"), "of the project").expect("write");
        person.own(&directory);
        person.igloo(&directory, &["up", "--wait"]).ok();
        let lock = fs::read_to_string(directory.join("igloo.lock")).expect("lock");
        assert!(lock.contains(&format!("\"{name}:1\" = \"{built}\"")), "{lock}");
        let inside =
            "busybox wget -qO- http://web:8000/ http://web:8000/app/own.txt; echo; id -u; pwd; echo $OWN $MORE";
        let seen = person.igloo(&directory, &["exec", "web", "--", "busybox", "sh", "-c", inside]).stdout();
        assert_eq!(seen, "of the imageof the project\n1000\n/srv\nimage yes\n", "{}", person.name);
        let said = person.igloo(&directory, &["logs", "file"]).stdout();
        assert!(said.contains("app\n") && said.contains("image\n"), "{said}");
        person.igloo(&directory, &["down"]).ok();
    }
    // What is here needs no registry, and what is locked is what runs, whatever the tag leads to.
    let manifest = format!("[project]\nname = \"later\"\n[services.web]\nimage = \"{name}:1\"\n");
    let person = &everybody[0];
    let directory = person.project("later", &manifest);
    person.igloo(&directory, &["fetch"]).ok();
    drop(served);
    person.igloo(&directory, &["up", "--wait"]).ok();
    person.igloo(&directory, &["down"]).ok();
    fs::write(directory.join("igloo.toml"), manifest.replace(":1\"", ":2\"")).expect("write");
    let failed = person.igloo(&directory, &["up", "--wait"]);
    assert!(failed.stderr().contains(&host), "{}", failed.stderr());
}
