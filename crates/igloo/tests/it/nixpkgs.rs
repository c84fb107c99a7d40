//! Packages from nixpkgs: locked by real Nix, run with it and without it. The set is `tests/nixpkgs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::nix_shell::{nix_works, set};
use crate::world::{Person, people};

/// A person's project, and where its things are.
pub struct World {
    pub person: Person,
    pub directory: PathBuf,
}

impl World {
    pub fn new(person: &Person, manifest: &str) -> Self {
        let manifest = manifest.replace("@set@", &set().display().to_string());
        let world = Self { directory: person.project("nixpkgs", &manifest), person: person.clone() };
        world.person.own(&world.directory);
        world
    }

    /// With the machine's Nix, in its own store.
    pub fn igloo(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("run igloo")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.person.igloo_command(&self.directory, words);
        // Another store than other tests have: this one's collections would take theirs away.
        command.env("NIX_CONF_DIR", set()).env("XDG_CACHE_HOME", self.person.cache());
        command.env("IGLOO_DATA_DIR", self.directory.join("data"));
        command
    }

    /// Where there is no Nix, and never was.
    pub fn without_nix(&self, words: &[&str]) -> Output {
        self.nixless(words).output().expect("run igloo")
    }

    fn nixless(&self, words: &[&str]) -> Command {
        let base = self.directory.join("no-nix");
        if !base.exists() {
            fs::create_dir(&base).expect("mkdir");
            for tool in ["bash", "sh", "cat", "env", "newuidmap", "newgidmap"] {
                let _ = std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), base.join(tool));
            }
            let igloo = self.person.igloo_command(&self.directory, &[]).get_program().to_owned();
            std::os::unix::fs::symlink(igloo, base.join("igloo")).expect("link");
            self.person.own(&base);
        }
        let mut command = self.command(words);
        command.env("PATH", base).env("IGLOO_HOST_STORE", self.directory.join("none"));
        command
    }

    pub fn edit(&self, from: &str, to: &str) {
        let file = self.directory.join("igloo.toml");
        let text = fs::read_to_string(&file).expect("read");
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).expect("write");
    }
}

pub fn ok(output: Output) -> String {
    assert!(output.status.success(), "{output:#?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it told the person, having succeeded.
pub fn says(output: Output) -> String {
    assert!(output.status.success(), "{output:#?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn fails(output: Output) -> String {
    assert!(!output.status.success(), "{output:#?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const MANIFEST: &str = r#"
[project]
name = "of-nix"
systems = ["x86_64-linux", "aarch64-linux"]
[sources.nixpkgs]
flake = "path:@set@"
[shells.default]
packages = ["@base", "hello", "python312Packages.pip"]
env = { GREETING = "from the manifest" }
"#;

#[test]
fn a_project_is_locked_with_nix_and_runs_where_there_is_none() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let world = World::new(&root, MANIFEST);
    let said = ok(world.igloo(&["lock"]));
    assert!(said.contains("hello 2.12"), "{said}");
    let lock = || fs::read_to_string(world.directory.join("igloo.lock")).expect("lock");
    assert!(lock().contains("nar-hash = \"sha256-") && lock().contains("aarch64-linux"), "{}", lock());
    for isolation in ["host", "pure", "container"] {
        let shell = |words: &[&str]| world.igloo(&[&["shell", "--isolation", isolation, "--"], words].concat());
        assert_eq!(ok(shell(&["hello"])), "Hello, world!\n", "{isolation}");
        assert_eq!(ok(shell(&["sh", "-c", "echo $GREETING"])), "from the manifest\n", "{isolation}");
        assert_eq!(shell(&["sh", "-c", "exit 5"]).status.code(), Some(5), "{isolation}");
    }
    // At `host` with this machine's Nix: by PATH, nothing in between.
    let path = ok(world.igloo(&["shell", "--", "sh", "-c", "command -v hello"]));
    assert!(path.starts_with("/nix/store/") && path.ends_with("-hello-2.12/bin/hello\n"), "{path}");
    // Nothing moved: nothing is evaluated, by no Nix at all.
    let before = lock();
    assert!(says(world.without_nix(&["lock"])).contains("up to date"));
    assert_eq!(lock(), before);
    // Somebody else puts it into a cache; the others have the lock, the cache and its key.
    let hello = Path::new(path.trim()).ancestors().nth(2).expect("a path").display().to_string();
    let sources = cached(&root, &lock(), &hello);
    for person in people() {
        let other = World::new(&person, MANIFEST);
        fs::write(other.directory.join("igloo.lock"), lock()).expect("write");
        let said = fails(other.without_nix(&["shell", "--isolation", "pure", "--", "hello"]));
        assert!(said.contains("hello-2.12") || said.contains("store path"), "{}: {said}", person.name);
        other.edit(&format!("flake = \"path:{}\"", set().display()), &sources);
        person.own(&other.directory);
        for isolation in ["pure", "container", "host"] {
            let ran = other.without_nix(&["shell", "--isolation", isolation, "--", "hello"]);
            assert_eq!(ok(ran), "Hello, world!\n", "{} {isolation}", person.name);
        }
        assert_eq!(fs::read_to_string(other.directory.join("igloo.lock")).expect("read"), lock());
        // What was fetched is what Nix says it is.
        let store = format!("local?root={}", other.directory.join("data").display());
        let mut verify = person.command("nix");
        verify.args(["store", "verify", "--no-trust", "--store", &store, &hello]).env("NIX_CONF_DIR", set());
        ok(verify.output().expect("nix"));
    }
}

/// Puts what a lock names and this machine's Nix has into a cache, `known` among it; what a manifest says to use it.
pub fn cached(root: &Person, lock: &str, known: &str) -> String {
    let cache = root.directory("nix-cache");
    let nix = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("NIX_CONF_DIR", set()).env("HOME", &cache).current_dir(&cache);
        ok(command.output().expect("nix"))
    };
    nix(&["nix-store", "--generate-binary-cache-key", "test-1", "key.secret", "key.public"]);
    let all: Vec<String> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"').map(|base| format!("/nix/store/{base}")))
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(all.iter().any(|path| path == known), "{all:?}");
    let to = format!("file://{}/c?compression=zstd&secret-key={}/key.secret", cache.display(), cache.display());
    let words: Vec<&str> = ["nix", "copy", "--to", &to].into_iter().chain(all.iter().map(String::as_str)).collect();
    nix(&words);
    let key = fs::read_to_string(cache.join("key.public")).expect("key");
    format!(
        "flake = \"path:{}\"\ncaches = [\"file://{}/c\"]\ntrusted-keys = [\"{}\"]",
        set().display(),
        cache.display(),
        key.trim()
    )
}

#[test]
fn what_cannot_be_had_is_told_at_its_place() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let world = World::new(&root, &MANIFEST.replace("\"hello\"", "\"helo\""));
    let said = fails(world.igloo(&["lock"]));
    assert!(said.contains("there is no `helo` for ") && said.contains("`hello`"), "{said}");
    assert!(said.contains("igloo.toml:8:"), "{said}");
    world.edit("\"helo\"", "\"vscode\"");
    let said = fails(world.igloo(&["lock"]));
    assert!(said.contains("can't give `vscode`") && said.contains("unfree"), "{said}");
    assert!(said.contains("allow-unfree = true"), "{said}");
    world.edit("[shells.default]", "allow-unfree = true\n[shells.default]");
    ok(world.igloo(&["lock"]));
    world.edit("\"vscode\"", "\"python312Packages\"");
    let said = fails(world.igloo(&["lock"]));
    assert!(said.contains("`python312Packages` is no package but a set of packages"), "{said}");
    // One that does not build is told with the words of its builder.
    world.edit("\"python312Packages\"", "\"fails\"");
    ok(world.igloo(&["lock"]));
    let said = fails(world.igloo(&["fetch"]));
    assert!(said.contains("this build fails"), "{said}");
    let no_nix = World::new(&root, &MANIFEST.replace("path:@set@", "path:@set@?of=nobody"));
    let mut command = no_nix.nixless(&["--offline", "lock"]);
    let said = fails(command.env("IGLOO_CACHE_DIR", no_nix.directory.join("cache")).output().expect("run igloo"));
    assert!(said.contains("there is no `nix` on PATH, and none can be had from Debian"), "{said}");
}

/// Nix comes from Debian then, and evaluates and builds into our store.
#[test]
fn where_there_is_no_nix_debians_evaluates_and_builds() {
    let manifest = r#"
[project]
name = "no-nix"
[sources.debian]
suite = "bookworm"
[sources.nixpkgs]
flake = "path:@set@"
[shells.default]
packages = ["flake:./own#greeting"]
isolation = "pure"
"#;
    for person in people() {
        let world = World::new(&person, manifest);
        let own = world.directory.join("own");
        fs::create_dir(&own).expect("mkdir");
        fs::copy("/usr/bin/busybox", own.join("busybox")).expect("busybox-static");
        let script = r#"b() { "${b}/busybox" "$@"; }; b mkdir -p $out/bin; b cp ${b}/busybox $out/bin/busybox
            { echo '#!'$out/bin/busybox sh; echo 'echo built without Nix'; } > $out/bin/greeting; b chmod +x $out/bin/greeting"#;
        let flake = format!(
            "{{ outputs = {{ self }}: {{ packages.x86_64-linux.greeting = let b = self; in derivation {{ name = \"greeting-1\"; \
             system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\" ''{script}'' ]; }}; }}; }}"
        );
        fs::write(own.join("flake.nix"), flake).expect("write");
        person.own(&world.directory);
        let ran = world.without_nix(&["shell", "--", "greeting"]);
        assert_eq!(ok(ran), "built without Nix\n", "{}", person.name);
        // Nothing moved: nothing is evaluated, and the lock has what was built.
        assert!(says(world.without_nix(&["lock"])).contains("up to date"), "{}", person.name);
        let lock = fs::read_to_string(world.directory.join("igloo.lock")).expect("read");
        assert!(lock.contains("-greeting-1\"\nnar-hash"), "{lock}");
    }
}

#[test]
fn overlays_pins_and_flakes_of_the_project_are_evaluated_again_when_they_change() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let manifest = r#"
[project]
name = "overlaid"
[sources.nixpkgs]
flake = "npins:nixpkgs"
overlays = ["overlays"]
[shells.default]
packages = ["said", "coreutils", "flake:./own#greeting", "libgreet.dev"]
"#;
    let world = World::new(&root, manifest);
    let write = |name: &str, text: &str| {
        let path = world.directory.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text.replace("@set@", &set().display().to_string())).expect("write");
    };
    write("npins/default.nix", "{ nixpkgs = { outPath = @set@; }; }");
    let overlay = "final: prev: { said = prev.writeShellScriptBin \"said\" \"echo WHAT\"; }";
    write("overlays/said.nix", &overlay.replace("WHAT", "first"));
    write(
        "own/flake.nix",
        "{ inputs.nixpkgs.url = \"path:@set@\"; outputs = { nixpkgs, ... }: { packages.x86_64-linux.greeting = \
         nixpkgs.legacyPackages.x86_64-linux.writeShellScriptBin \"greeting\" \"echo from a flake\"; }; }",
    );
    let shell = |words: &[&str]| ok(world.igloo(&[&["shell", "--"], words].concat()));
    assert_eq!(shell(&["said"]), "first\n");
    assert_eq!(shell(&["greeting"]), "from a flake\n");
    assert!(says(world.without_nix(&["lock"])).contains("up to date"));
    write("overlays/said.nix", &overlay.replace("WHAT", "second"));
    assert_eq!(shell(&["said"]), "second\n");
    let lock = fs::read_to_string(world.directory.join("igloo.lock")).expect("read");
    assert!(lock.contains("output = \"dev\"") && lock.contains("libgreet-1.2.0-dev"), "{lock}");
    let said = fails(world.igloo(&["update", "said"]));
    assert!(said.contains("`said` is of a flake, and moves with it"), "{said}");
    assert!(says(world.igloo(&["update", "nixpkgs"])).contains("up to date"));
}

/// What a lock has does not depend on how the same files are referred to.
#[test]
fn every_kind_of_reference_leads_to_the_same_packages() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let manifest = "[project]\nname = \"referred\"\n[sources.nixpkgs]\nflake = \"REF\"\n[shells.default]\npackages = [\"hello\"]\n";
    let place = root.directory("references");
    let run = |program: &str, words: &[&str]| {
        let mut command = root.command(program);
        ok(command.args(words).current_dir(&place).output().expect("run"))
    };
    // The same files in a repository, in an archive, in a registry, and pinned by niv.
    run("cp", &["-rT", &set().display().to_string(), "set"]);
    run("tar", &["-czf", "set.tar.gz", "set"]);
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-C", "set"];
    for words in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "all"]] {
        run("git", &[&identity, words].concat());
    }
    let at = |name: &str| place.join(name).display().to_string();
    let entry = serde_json::json!({ "version": 2, "flakes": [{
        "from": { "type": "indirect", "id": "mini" },
        "to": { "type": "path", "path": at("set") },
    }]});
    fs::write(place.join("registry.json"), entry.to_string()).expect("write");
    let mut seen = Vec::new();
    for reference in [
        format!("path:{}", at("set")),
        format!("git+file://{}", at("set")),
        format!("file://{}", at("set.tar.gz")),
        "flake:mini".to_owned(),
        "mini".to_owned(),
        "niv:nixpkgs".to_owned(),
    ] {
        let world = World::new(&root, &manifest.replace("REF", &reference));
        if reference.starts_with("niv:") {
            fs::create_dir(world.directory.join("nix")).expect("mkdir");
            let pins = format!("{{ nixpkgs = {{ outPath = {}; }}; }}", at("set"));
            fs::write(world.directory.join("nix/sources.nix"), pins).expect("write");
        }
        let mut command = world.command(&["lock"]);
        command.env("NIX_CONFIG", format!("flake-registry = {}", at("registry.json")));
        let output = command.output().expect("run igloo");
        assert!(output.status.success(), "{reference}: {output:#?}");
        let lock = fs::read_to_string(world.directory.join("igloo.lock")).expect("lock");
        let output = lock.split("[[output]]").nth(1).expect("an output");
        let path = output.lines().find(|line| line.starts_with("path = ")).expect("a path").to_owned();
        assert!(reference.starts_with("git") == lock.contains("revision = "), "{reference}: {lock}");
        seen.push((reference, path));
    }
    assert!(seen.iter().all(|(_, path)| *path == seen[0].1), "{seen:#?}");
}

#[test]
fn services_run_nixs_packages_and_both_sources_go_together() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let manifest = r#"
[project]
name = "mixed"
source = "nixpkgs"
[sources.debian]
suite = "bookworm"
base = "none"
[sources.nixpkgs]
flake = "path:@set@"
[shells.both]
packages = ["hello", "debian:busybox-static"]
isolation = "pure"
[services.web]
packages = ["coreutils", "hello"]
run = ["sh", "-c", "mkdir /srv/w && hello > /srv/w/index.html && exec busybox httpd -f -p 8000 -h /srv/w"]
ports = ["auto:8000"]
ready = { tcp = 8000 }
"#;
    let world = World::new(&root, manifest);
    let both = ok(world.igloo(&["shell", "both", "--", "busybox", "sh", "-c", "hello; type busybox"]));
    assert!(both.starts_with("Hello, world!\n"), "{both}");
    ok(world.igloo(&["up", "--wait"]));
    let ps = ok(world.igloo(&["ps"]));
    let fetched = ok(world.igloo(&["exec", "web", "--", "busybox", "wget", "-qO-", "http://web:8000/"]));
    ok(world.igloo(&["down"]));
    assert_eq!(fetched, "Hello, world!\n", "{ps}");
}
