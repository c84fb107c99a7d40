//! igloo's own flake, as flakes out there use it, with real Nix: their package set is `tests/nixpkgs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::nix_shell::{nix_works, set};
use crate::world::{Person, people};

/// A flake of a user's, whose inputs are all on this machine.
struct World {
    person: Person,
    directory: PathBuf,
}

impl World {
    /// `inputs` are names of inputs and what they are here.
    fn new(name: &str, flake: &str, inputs: &[(&str, &str)]) -> Option<Self> {
        let person = people().into_iter().next().filter(|_| nix_works())?;
        let directory = person.directory(name);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root");
        // The checkout without what was built in it.
        let igloo = directory.join("igloo");
        fs::create_dir(&igloo).expect("mkdir");
        for part in ["flake.nix", "nix", "Cargo.toml", "Cargo.lock"] {
            let copied = Command::new("cp").arg("-r").arg(root.join(part)).arg(&igloo).status().expect("cp");
            assert!(copied.success());
        }
        let user = directory.join("user");
        fs::create_dir(&user).expect("mkdir");
        fs::write(user.join("flake.nix"), flake).expect("write");
        let world = Self { person, directory: user };
        let mut words = vec!["flake".to_owned(), "lock".to_owned()];
        for (input, place) in inputs {
            let place = place.replace("@igloo@", &igloo.display().to_string());
            let place = place.replace("@set@", &set().display().to_string());
            words.extend(["--override-input".to_owned(), (*input).to_owned(), format!("path:{place}")]);
        }
        world.nix(&words.iter().map(String::as_str).collect::<Vec<_>>());
        Some(world)
    }

    fn nix(&self, words: &[&str]) -> String {
        let mut command = Command::new("nix");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(words);
        ok(self.with_nix(&mut command).current_dir(&self.directory).output().expect("run nix"))
    }

    fn igloo(&self, words: &[&str]) -> Output {
        let mut command = self.person.igloo_command(&self.directory, words);
        self.with_nix(&mut command).env("IGLOO_DATA_DIR", self.directory.join("../data")).output().expect("run igloo")
    }

    fn with_nix<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("IGLOO_PROGRAM", env!("CARGO_BIN_EXE_igloo"))
            .env("NIX_CONF_DIR", set())
            .env("XDG_CACHE_HOME", self.person.cache())
    }
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{output:#?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As projects have it that used the flake of others for this.
const IMAGES: &str = r#"{
  inputs = {
    infra.url = "github:some/where";
    nixpkgs.follows = "infra/nixpkgs";
  };
  outputs = { self, infra, nixpkgs }:
    let
      system = "x86_64-linux";
      sets = infra.packageSets.${system};
      lib = infra.lib.${system};
    in {
      devShells.${system}.default = infra.devShells.${system}.python;
      packages.${system} = {
        devcontainer = lib.mkDevContainer {
          name = "registry.example:5000/my-org/my-project/devcontainer";
          packages = sets.base ++ sets.nixTools ++ sets.devTools ++ sets.python ++ sets.pythonDev;
        };
        runtime = lib.mkRuntime {
          name = "registry.example:5000/my-org/my-project/runtime";
          tag = "v1";
          packages = sets.base ++ sets.python ++ [ nixpkgs.legacyPackages.${system}.hello ];
          extraConfig = { Cmd = [ "hello" ]; Env = [ "GREETING=a=b" ]; ExposedPorts."8080/tcp" = { }; };
        };
        wrong = lib.mkRuntime { packages = [ ]; extraConfig.Shell = [ "sh" ]; };
      };
    };
}"#;

#[test]
fn images_of_a_flake_are_described_by_nix() {
    let inputs = [("infra", "@igloo@"), ("infra/nixpkgs", "@set@")];
    let Some(world) = World::new("flake-images", IMAGES, &inputs) else { return };
    let shown = ok(world.igloo(&["--flake", ".#runtime", "config", "--json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["project"]["name"], "runtime", "{shown:#}");
    let wrong = world.igloo(&["--flake", ".#wrong", "config"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("`extraConfig.Shell` is not known"), "{said}");
    // Neither the sets nor the shells ask for what nobody uses.
    let names = world.nix(&["eval", "--raw", ".#devShells.x86_64-linux.default.name"]);
    assert_eq!(names, "nix-shell");
}

#[test]
fn images_of_a_flake_are_built_by_igloo_and_by_nix() {
    let inputs = [("infra", "@igloo@"), ("infra/nixpkgs", "@set@")];
    let Some(world) = World::new("flake-built", IMAGES, &inputs) else { return };
    let words = ["bash", "-c", "id -un; pwd; hello; echo $GREETING"];
    let wanted = "app\n/app\nHello, world!\na=b\n";
    let run = |image: &str, words: &[&str]| {
        let output = world.igloo(&[&["--flake", ".#runtime", "image", "run", image, "--"], words].concat());
        ok(output)
    };
    assert_eq!(run("runtime", &words), wanted);
    let built = world.igloo(&["--flake", ".#runtime", "image", "build", "--json"]);
    assert!(ok(built).contains("sha256:"));
    // In Nix's sandbox, as a derivation of what docker takes.
    world.nix(&["build", "--impure", "--out-link", "result", ".#runtime"]);
    assert_eq!(run("docker-archive:result", &words), wanted);
    let archive = Command::new("tar").arg("-xOf").arg(world.directory.join("result")).arg("manifest.json").output();
    let archive = ok(archive.expect("tar"));
    assert!(archive.contains("registry.example:5000/my-org/my-project/runtime:v1"), "{archive}");
    // To develop in: a user who may become root, and what editors look for.
    let seen = world.igloo(&[
        "--flake",
        ".#devcontainer",
        "image",
        "run",
        "devcontainer",
        "--",
        "bash",
        "-c",
        "id -un; cat /etc/os-release; direnv --version; ls -d /workspaces ~/.vscode-server",
    ]);
    let seen = ok(seen);
    assert!(seen.starts_with("vscode\nID=nixos\n") && seen.contains("direnv 2."), "{seen}");
}

/// The example of flake-containers, and more of its options.
const CONTAINERS: &str = r#"{
  inputs = {
    nixpkgs.url = "github:some/nixpkgs";
    flake-parts.url = "github:some/flake-parts";
    flake-root.url = "github:some/flake-root";
    flake-containers.url = "github:some/where";
  };
  outputs = inputs@{ self, nixpkgs, flake-parts, flake-containers, flake-root, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.flake-containers.flakeModule inputs.flake-root.flakeModule ];
      systems = [ "x86_64-linux" ];
      flake-containers = {
        enable = true;
        nixpkgs.overlays = [ (final: prev: { greeting = "from an overlay"; }) ];
        containers = {
          httpserver = {
            volumes = [ "src:/tmp/src" ];
            volumes-ro = [ "site:/srv" ];
            ports = [ "auto:80" ];
            configuration = { pkgs, lib, ... }: {
              networking.useDHCP = false;
              networking.firewall.allowedTCPPorts = [ 80 ];
              services.httpd = { enable = true; adminAddr = "morty@example.org"; };
            };
          };
          worker = {
            volumes = [ ".:/tmp/src" ];
            runCommand = pkgs: "cd /tmp/src; echo ${pkgs.greeting} > said";
            configuration = { ... }: { };
          };
        };
      };
    };
}"#;

const CONTAINER_INPUTS: [(&str, &str); 5] = [
    ("nixpkgs", "@set@"),
    ("flake-parts", "@set@/flake-parts"),
    ("flake-root", "@set@/flake-root"),
    ("flake-containers", "@igloo@"),
    ("flake-containers/nixpkgs", "@set@"),
];

#[test]
fn containers_of_a_flake_are_described_by_nix() {
    let Some(world) = World::new("flake-containers", CONTAINERS, &CONTAINER_INPUTS) else { return };
    let shown = world.nix(&["flake", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let of = |kind: &str| -> Vec<String> {
        let all = shown[kind]["x86_64-linux"].as_object().unwrap_or_else(|| panic!("{shown:#}"));
        all.keys().cloned().collect()
    };
    assert_eq!(of("devShells"), ["flake-containers"]);
    for name in
        ["httpserver-up", "httpserver-down", "httpserver-shell", "worker-up", "containers-up", "containers-down"]
    {
        assert!(of("packages").iter().any(|p| p == name), "{name} is not among {:?}", of("packages"));
    }
}

/// Takes containers down however a test ends.
struct Down<'d>(&'d dyn Fn());

impl Drop for Down<'_> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Each and all, up and down, and a look inside. By root alone: the others need a control group that somebody gives them.
#[test]
fn containers_of_a_flake_run() {
    let Some(world) = World::new("flake-runs", CONTAINERS, &CONTAINER_INPUTS) else { return };
    let script = |name: &str| {
        let built = world.nix(&["build", "--json", "--no-link", &format!(".#{name}")]);
        let built: serde_json::Value = serde_json::from_str(&built).expect("JSON");
        format!("{}/bin/{name}", built[0]["outputs"]["out"].as_str().expect("a path"))
    };
    let names =
        ["httpserver-up", "httpserver-shell", "httpserver-down", "containers-up", "containers-ps", "containers-down"];
    let scripts: std::collections::BTreeMap<&str, String> = names.iter().map(|name| (*name, script(name))).collect();
    for person in people().into_iter().take(1) {
        let directory = person.directory("flake-runs");
        for below in ["src", "site", "deep/er"] {
            fs::create_dir_all(directory.join(below)).expect("mkdir");
        }
        fs::copy(world.directory.join("flake.nix"), directory.join("flake.nix")).expect("copy");
        fs::write(directory.join("site/index.html"), "of a NixOS module").expect("write");
        person.own(&directory);
        // From below, too: the project is where the flake is.
        let run = |name: &str, words: &[&str]| {
            let mut command = person.command(&scripts[name]);
            command.args(words).current_dir(directory.join("deep/er")).env("IGLOO_DATA_DIR", directory.join("data"));
            let output = command.output().expect("run");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {name}: {said}", person.name);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let _down = Down(&|| {
            let mut command = person.command(&scripts["containers-down"]);
            let _ = command.current_dir(&directory).env("IGLOO_DATA_DIR", directory.join("data")).output();
        });
        run("httpserver-up", &[]);
        // The init is ready when it has started the server, which listens a moment later.
        let patient = "until busybox wget -qO- http://127.0.0.1:80/ 2> /tmp/why; do busybox sleep 0.05; done";
        let fetched = run("httpserver-shell", &["busybox", "timeout", "20", "bash", "-c", patient]);
        assert_eq!(fetched, "of a NixOS module", "{}", person.name);
        let system = run("httpserver-shell", &["readlink", "/run/current-system"]);
        assert!(system.contains("-nixos-system-httpserver-"), "{system}");
        assert!(!directory.join("said").exists());
        run("containers-up", &[]);
        let ps = run("containers-ps", &[]);
        assert!(ps.contains("httpserver") && ps.contains("worker"), "{ps}");
        // The command of the worker runs when its init has started it.
        let said = directory.join("said");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read_to_string(&said).unwrap_or_default() != "from an overlay\n" {
            assert!(std::time::Instant::now() < end, "{}: nothing was said", person.name);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        run("httpserver-down", &[]);
        run("containers-down", &[]);
        assert!(!run("containers-ps", &[]).contains("ready"));
    }
}

/// Modules of NixOS and nix-darwin with the options that they set.
const MODULES: &str = r#"
let
  inherit (import @set@ { system = "x86_64-linux"; }) lib;
  with' = import @igloo@/nix;
  set = lib.mkOption { type = lib.types.attrsOf lib.types.unspecified; default = { }; };
  any = lib.mkOption { default = null; };
  machine = { options = {
    environment.systemPackages = any; environment.systemPath = lib.mkOption { default = "/run/bin"; };
    security.unprivilegedUsernsClone = any;
    systemd.user.services = set;
    launchd.user.agents = set;
  }; };
  eval = module: config: (lib.evalModules {
    modules = [ machine (import module with') { inherit config; } ];
    specialArgs.pkgs = { };
  }).config;
  igloo = { package = "/igloo"; projects = [ "/home/me/it's here" ]; };
in {
  nixos = (eval @igloo@/nix/nixos.nix { virtualisation.igloo = igloo // { enable = true; logFile = "/tmp/log"; }; }).systemd.user.services.igloo;
  off = (eval @igloo@/nix/nixos.nix { }).systemd.user.services;
  darwin = (eval @igloo@/nix/darwin.nix {
    virtualisation.docker-darwin = { enable = true; logFile = "/tmp/docker.log"; };
    virtualisation.igloo = igloo;
  }).launchd.user.agents.igloo;
}"#;

/// All that cargo needs, and nothing that is large.
#[test]
fn the_package_is_made_of_the_sources() {
    if !nix_works() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root");
    let text = format!("(import {}/nix/package.nix {{ rustPlatform.buildRustPackage = a: a; }}).src", root.display());
    let mut command = Command::new("nix");
    command.args(["--extra-experimental-features", "nix-command flakes", "eval", "--impure", "--raw", "--expr", &text]);
    let source = PathBuf::from(ok(command.env("NIX_CONF_DIR", set()).output().expect("run nix")));
    for there in ["Cargo.lock", "crates/igloo-remote/src/nix/mod.rs", "crates/igloo/src/main.rs"] {
        assert!(source.join(there).exists(), "{there}");
    }
    for absent in [".git", "target", "flake.nix"] {
        assert!(!source.join(absent).exists(), "{absent}");
    }
}

#[test]
fn the_modules_make_services_of_the_session() {
    if !nix_works() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root");
    let text = MODULES.replace("@set@", &set().display().to_string()).replace("@igloo@", &root.display().to_string());
    let mut command = Command::new("nix");
    command.args([
        "--extra-experimental-features",
        "nix-command flakes",
        "eval",
        "--impure",
        "--json",
        "--expr",
        &text,
    ]);
    let told = ok(command.env("NIX_CONF_DIR", set()).output().expect("run nix"));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let script = told["nixos"]["script"].as_str().expect("script");
    assert!(script.contains(r"/igloo/bin/igloo -C '/home/me/it'\''s here' up --wait"), "{script}");
    assert_eq!(told["nixos"]["serviceConfig"]["StandardOutput"], "append:/tmp/log");
    assert_eq!(told["off"], serde_json::json!({}));
    assert_eq!(told["darwin"]["serviceConfig"]["StandardOutPath"], "/tmp/docker.log");
    assert_eq!(told["darwin"]["serviceConfig"]["RunAtLoad"], true);
    for script in [script, told["darwin"]["script"].as_str().expect("script")] {
        assert!(Command::new("sh").args(["-n", "-c", script]).status().expect("sh").success(), "{script}");
    }
}
