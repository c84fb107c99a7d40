//! `igloo builder`, and images that are one: the machine's own Nix builds in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::guestbook::{kill, supervisors, wait_until};
use crate::image::has;
use crate::podman::Podman;
use crate::world::{Person, people};

/// Whether there is something to build with; says so if not.
fn nix_and_ssh() -> bool {
    ["nix", "nix-build", "ssh", "ssh-keygen"].iter().all(|tool| has(tool))
}

/// What a build sees, as its output.
const SEES: &str = "echo /*; echo $$";

/// Somebody's Nix, with a store of its own that builds nothing itself.
struct HostNix<'p> {
    person: &'p Person,
    directory: PathBuf,
    builders: String,
    ssh: PathBuf,
    /// Where its commands are, if not on PATH.
    bin: Option<&'static Path>,
}

impl HostNix<'_> {
    fn command(&self, program: &str) -> Command {
        let program = self.bin.map_or_else(|| PathBuf::from(program), |bin| bin.join(program));
        let mut command = self.person.command(program);
        let store = self.directory.join("store");
        command
            .env("NIX_REMOTE", format!("local?root={}", store.display()))
            .env("NIX_CONF_DIR", &self.directory)
            .env("NIX_CONFIG", "substituters =\nbuild-users-group =\nexperimental-features = nix-command")
            .env("NIX_SSHOPTS", format!("-F {}", self.ssh.display()))
            .current_dir(&self.directory);
        command
    }

    fn build(&self, name: &str, script: &str) -> Output {
        let expression = format!(
            "derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
             args = [ \"-c\" \"{script}\" ]; }}"
        );
        let mut command = self.command("nix-build");
        command.args(["--no-out-link", "--max-jobs", "0", "--builders", &self.builders, "--expr", &expression]);
        command.output().expect("nix-build")
    }

    /// Builds on the builder; the output's path and content.
    fn built(&self, name: &str, script: &str) -> (String, String) {
        let output = self.build(name, script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", self.person.name);
        assert!(said.contains("on 'ssh-ng://igloo-builder'"), "{said}");
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let file = self.directory.join("store").join(path.trim_start_matches('/'));
        let content = fs::read_to_string(file).expect("read the output");
        (path, content)
    }

    /// In a sandbox, with a process namespace of its own.
    fn is_sandboxed(&self, name: &str) -> String {
        let (path, content) = self.built(name, &format!("({SEES}) > $out"));
        let seen: Vec<&str> = content.lines().collect();
        assert_eq!(seen[0], "/bin /build /dev /etc /nix /proc /tmp", "{}", self.person.name);
        assert_eq!(&seen[1..], ["1"], "{}", self.person.name);
        path
    }

    fn ssh(&self, words: &[&str]) -> Output {
        self.person.command("ssh").arg("-F").arg(&self.ssh).args(words).output().expect("ssh")
    }
}

#[test]
fn the_hosts_nix_builds_in_the_builder() {
    if !nix_and_ssh() {
        return;
    }
    for person in people() {
        let name = person.name;
        let directory = person.directory("builder");
        let igloo = |words: &[&str]| person.igloo(&directory, &[&["builder"], words].concat());
        let absent = igloo(&["status"]);
        assert_eq!((absent.code(), absent.stdout().as_str()), (Some(1), "absent\n"), "{name}");
        assert!(igloo(&["conf"]).fails().contains("`igloo builder up` starts one"));

        let mut spaced = person.igloo_command(&directory, &["builder", "up"]);
        let spaced = spaced.env("IGLOO_STATE_DIR", directory.join("two words")).output().expect("igloo");
        assert!(String::from_utf8_lossy(&spaced.stderr).contains("IGLOO_STATE_DIR"), "{spaced:?}");
        let up = igloo(&["up", "--suite", "bookworm", "--json"]).json();
        assert!(up["proved"].is_u64(), "{name}: {up}");
        let status = igloo(&["status", "--json"]).json();
        assert_eq!((status["state"].as_str(), status["answers"].as_bool()), (Some("ready"), Some(true)), "{status}");
        let key = PathBuf::from(igloo(&["key", "--path"]).ok().trim());
        assert_eq!(fs::metadata(&key).expect("the key").permissions().mode() & 0o777, 0o600);
        assert!(igloo(&["key"]).ok().starts_with("ssh-ed25519 "));
        let conf = igloo(&["conf", "--json"]).json();
        let builders = igloo(&["conf", "--builders"]).ok().trim().to_owned();
        assert_eq!(conf["builders"].as_str(), Some(builders.as_str()));
        let text = igloo(&["conf"]).ok();
        assert!(text.contains(&format!("builders = {builders}\n")) && text.contains("Host igloo-builder\n"), "{text}");
        let ssh = PathBuf::from(conf["ssh_config"].as_str().expect("a path"));

        let nix = HostNix { person: &person, directory: directory.clone(), builders, ssh, bin: None };
        let first = nix.is_sandboxed("first");
        // A failure is one, with its words.
        let failed = nix.build("fails", "echo these words; exit 3");
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && said.contains("these words"), "{said}");
        // Nix's protocol and nothing else, for one key and no other.
        let other = nix.ssh(&["igloo-builder", "echo", "a shell"]);
        assert!(!String::from_utf8_lossy(&other.stdout).contains("a shell"), "{other:?}");
        let stranger = directory.join("stranger");
        let mut keygen = person.command("ssh-keygen");
        assert!(
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).status().expect("keygen").success()
        );
        let config = fs::read_to_string(&nix.ssh)
            .expect("read")
            .replace(&key.display().to_string(), &stranger.display().to_string());
        fs::write(directory.join("as-stranger"), config).expect("write");
        let strange = HostNix {
            person: &person,
            directory: directory.clone(),
            builders: String::new(),
            ssh: directory.join("as-stranger"),
            bin: None,
        };
        let refused = strange.ssh(&["igloo-builder"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");

        // Killed, it is gone; brought up again, it has what it had.
        let project = key.parent().expect("a directory").join("project");
        let running = supervisors(&person, &project);
        assert!(!running.is_empty(), "{name}");
        running.iter().for_each(|pid| kill(*pid));
        wait_until("the builder is gone", || igloo(&["status"]).code() == Some(1));
        igloo(&["up", "--suite", "bookworm"]).ok();
        let mut info = nix.command("nix");
        info.args(["path-info", "--store", "ssh-ng://igloo-builder", &first]);
        let info = info.output().expect("nix");
        assert!(info.status.success(), "{name}: {info:?}");
        nix.is_sandboxed("second");

        // Debian 13's Nix builds in Debian 12's, and the other way round.
        if let Some(bin) = crate::newer::nix().filter(|_| name == people()[0].name) {
            let newer = HostNix { bin: Some(bin), ..nix };
            newer.is_sandboxed("by-a-newer");
            igloo(&["up", "--suite", "trixie"]).ok();
            newer.is_sandboxed("newer-by-a-newer");
            HostNix { bin: None, ..newer }.is_sandboxed("newer-by-an-older");
        }
        igloo(&["down", "--volumes"]).ok();
        assert_eq!(igloo(&["status"]).code(), Some(1));
    }
}

const IMAGE: &str = r#"
[project]
name = "builders"
[sources.debian]
suite = "bookworm"
[images.builder]
kind = "builder"
"#;

#[test]
fn an_image_is_a_builder_where_sandboxes_are_allowed_and_says_so_where_not() {
    if !nix_and_ssh() {
        return;
    }
    let root = &people()[0];
    let project = root.project("builders", IMAGE);
    root.igloo(&project, &["image", "build", "--oci-archive", "out.tar"]).ok();
    // In a container with all locks it says what it lacks, and doesn't build without.
    let mut keygen = root.command("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", "key"]).current_dir(&project);
    assert!(keygen.status().expect("keygen").success());
    let public = fs::read_to_string(project.join("key.pub")).expect("the key");
    let variable = format!("IGLOO_BUILDER_KEY={}", public.trim());
    let locked = root.igloo(&project, &["image", "run", "builder", "-e", &variable, "-e", "NIX_CONFIG=substituters ="]);
    assert_eq!(locked.code(), Some(78), "{locked:?}");
    assert!(locked.stderr().contains("Nix's sandbox does not work here"), "{locked:?}");
    let keyless = root.igloo(&project, &["image", "run", "builder"]);
    assert!(keyless.code() == Some(78) && keyless.stderr().contains("nobody may log in"), "{keyless:?}");

    if root.name != "root" || !["podman", "runc"].iter().all(|tool| has(tool)) {
        return;
    }
    let podman = Podman::new(root, &project, "overlay");
    podman.load("out.tar");
    let capabilities = ["--cap-add", "SYS_ADMIN", "--security-opt", "unmask=ALL", "--net=none"];
    let words = ["run", "--detach", "--name", "b", "-e", &variable, "-e", "NIX_CONFIG=substituters ="];
    podman.tool("podman", &[&words[..], &capabilities, &["localhost/builder:latest"]].concat());
    let said = || {
        let output = podman.command("podman").args(["logs", "b"]).output().expect("podman");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    wait_until("it listens", || said().contains("Server listening on"));
    let host = said();
    let host = host.lines().find_map(|line| line.split_once("host key: ")).expect("a host key").1;
    fs::write(project.join("known"), format!("igloo-builder {host}\n")).expect("write");
    // Its port is reached without any network of the host's.
    let proxy = project.join("proxy");
    let environment = format!(
        "#!/bin/sh\nexport CONTAINERS_CONF={0}/containers.conf CONTAINERS_STORAGE_CONF={0}/storage.conf\nexec podman \
         exec -i b busybox nc 127.0.0.1 22\n",
        project.display()
    );
    fs::write(&proxy, environment).expect("write");
    fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).expect("chmod");
    let config = format!(
        "Host igloo-builder\n User builder\n IdentityFile {0}/key\n HostKeyAlias igloo-builder\n \
         UserKnownHostsFile {0}/known\n ProxyCommand {0}/proxy\n",
        project.display()
    );
    fs::write(project.join("ssh"), config).expect("write");
    let key: &Path = &project.join("key");
    let builders = format!("ssh-ng://igloo-builder x86_64-linux {} 1 1 - -", key.display());
    let nix = HostNix { person: root, directory: project.clone(), builders, ssh: project.join("ssh"), bin: None };
    nix.is_sandboxed("in-an-image");
}
