//! `igloo shell --nix` on real flakes and shell.nix files, evaluated and built by real Nix from `tests/nixpkgs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{Person, people};

/// Nix can put store objects where their names say they are.
pub fn nix_works() -> bool {
    let can_write = rustix::process::geteuid().is_root() && Path::new("/nix/store").exists();
    let is_there = Command::new("nix").arg("--version").output().is_ok_and(|o| o.status.success());
    if !(can_write && is_there) {
        println!("skipped: Nix's own store is not there, or not ours");
    }
    can_write && is_there
}

pub fn set() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/nixpkgs").canonicalize().expect("tests/nixpkgs")
}

struct World {
    person: Person,
    directory: PathBuf,
}

impl World {
    fn new(name: &str) -> Option<Self> {
        let person = people().into_iter().next().filter(|_| nix_works())?;
        let directory = person.directory(name);
        Some(Self { person, directory })
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text.replace("@set@", &set().display().to_string())).expect("write");
        // Nobody can tell a file that changes while Nix reads it, so such an evaluation is not kept.
        std::thread::sleep(std::time::Duration::from_millis(30));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.person.igloo_command(&self.directory, words);
        command.env("NIX_CONF_DIR", set()).env("XDG_CACHE_HOME", self.person.cache());
        command
    }

    fn run(&self, words: &[&str]) -> String {
        ok(self.command(words).output().expect("run igloo"))
    }

    /// The same where there is no `nix`: what is kept is enough.
    fn without_nix(&self, words: &[&str]) -> Output {
        let base = self.directory.join("no-nix");
        if !base.exists() {
            fs::create_dir(&base).expect("mkdir");
            for tool in ["bash", "sh", "cat", "env"] {
                std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), base.join(tool)).expect("link");
            }
        }
        self.command(words).env("PATH", base).output().expect("run igloo")
    }
}

fn ok(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const FLAKE: &str = r#"{
  inputs.nixpkgs.url = "path:@set@";
  outputs = { self, nixpkgs }: let pkgs = nixpkgs.legacyPackages.x86_64-linux; in {
    devShells.x86_64-linux = {
      default = pkgs.mkShell {
        packages = [ pkgs.hello ];
        GREETING = "hi \"there\" $HOME 'you'";
        DATA = builtins.readFile ./data.txt;
        EXTRA = if builtins.pathExists ./extra then "yes" else "no";
      };
      hooked = pkgs.mkShell { packages = [ pkgs.hello ]; shellHook = "export HOOKED=$((40 + 2))"; };
    };
  };
}
"#;

#[test]
fn a_flakes_shell_is_evaluated_once_and_again_when_what_it_read_changes() {
    let Some(world) = World::new("flake") else { return };
    world.write("data.txt", "first");
    // Another content each time, so that Nix copies it, and looks at its links.
    world.write("unrelated.txt", &world.directory.display().to_string());
    std::os::unix::fs::symlink("unrelated.txt", world.directory.join("link")).expect("link");
    world.write("flake.nix", FLAKE);
    let show = ["shell", "--nix", "--", "sh", "-c", "hello; echo \"$GREETING|$DATA|$EXTRA|$IN_NIX_SHELL\""];
    let shown = world.run(&show);
    assert!(shown.ends_with("hi \"there\" $HOME 'you'|first|no|impure\n"), "{shown}");
    assert!(shown.to_lowercase().contains("hello"), "{shown}");
    // The same without Nix, also from below, and after a file changed that Nix copied and never read.
    world.write("unrelated.txt", "y");
    let touched = fs::File::open(world.directory.join("data.txt")).expect("open");
    touched.set_modified(std::time::SystemTime::now()).expect("touch");
    assert_eq!(ok(world.without_nix(&show)), shown);
    fs::create_dir(world.directory.join("sub")).expect("mkdir");
    let mut below = world.command(&show);
    assert_eq!(ok(below.current_dir(world.directory.join("sub")).output().expect("igloo")), shown);
    // Of what was read, and of what was looked for and not there, every change counts.
    world.write("data.txt", "second");
    let without = world.without_nix(&show);
    assert!(String::from_utf8_lossy(&without.stderr).contains("no `nix` on PATH"), "{without:?}");
    assert!(world.run(&show).contains("|second|no|"));
    world.write("extra", "");
    assert!(world.run(&show).contains("|second|yes|"));
    assert!(ok(world.without_nix(&show)).contains("|second|yes|"));
    world.write("flake.nix", &FLAKE.replace("hi ", "ho "));
    assert!(world.run(&show).contains("ho \"there\""));
}

/// At a terminal it is the person's own shell, with what the shell's own hook exported.
#[test]
fn bash_zsh_and_fish_are_started_in_it() {
    let Some(world) = World::new("interactive") else { return };
    world.write("data.txt", "first");
    world.write("flake.nix", FLAKE);
    world.run(&["shell", "--nix", ".#hooked", "--", "true"]);
    for shell in ["bash", "zsh", "fish"] {
        let path = Path::new("/usr/bin").join(shell);
        if !path.exists() {
            println!("skipped: there is no {shell}");
            continue;
        }
        let program = world.command(&[]).get_program().to_owned();
        let command = world.command(&[]);
        let typed = format!("{} shell --nix .#hooked", program.to_string_lossy());
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &typed, "/dev/null"])
            .env_clear()
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        terminal.env("SHELL", &path).env("TERM", "dumb").current_dir(&world.directory);
        let mut child =
            terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("script");
        let input = child.stdin.as_mut().expect("piped");
        std::io::Write::write_all(input, b"hello\necho hooked-$HOOKED\nexit 3\n").expect("type");
        let output = child.wait_with_output().expect("wait");
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(seen.contains("Hello, world!") && seen.contains("hooked-42"), "{shell}: {seen}");
        assert_eq!(output.status.code(), Some(3), "{shell}: {seen}");
    }
}

/// `nix-daemon`, ended with the test.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // Whoever finds a socket takes it for a daemon.
        let _ = fs::remove_file(SOCKET);
    }
}

const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// A Nix of many users: what an ordinary one has evaluated and built lies in a store that is root's.
#[test]
fn an_ordinary_users_shells_and_packages_come_through_the_daemon() {
    let Some(person) = people().into_iter().nth(1).filter(|_| nix_works()) else { return };
    if Path::new(SOCKET).exists() {
        println!("skipped: this machine has a nix-daemon of its own");
        return;
    }
    let directory = person.directory("daemon");
    let own = directory.join("set");
    assert!(Command::new("cp").arg("-rT").arg(set()).arg(&own).status().expect("cp").success());
    let at = |text: &str| text.replace("@set@", &own.display().to_string());
    fs::write(directory.join("flake.nix"), at(FLAKE)).expect("write");
    fs::write(directory.join("data.txt"), "from a file").expect("write");
    let manifest = "[project]\nname = \"daemon\"\n[sources.nixpkgs]\nflake = \"path:@set@\"\n[shells.default]\npackages = [\"hello\"]\n";
    fs::write(directory.join("igloo.toml"), at(manifest)).expect("write");
    person.own(&directory);
    let daemon = Command::new("nix-daemon").env("NIX_CONF_DIR", set()).stderr(std::process::Stdio::null()).spawn();
    let _daemon = Daemon(daemon.expect("nix-daemon"));
    while std::os::unix::net::UnixStream::connect(SOCKET).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let run = |words: &[&str]| {
        let mut command = person.igloo_command(&directory, words);
        command.env("NIX_CONF_DIR", &own).env("NIX_REMOTE", "daemon").env("IGLOO_DATA_DIR", directory.join("data"));
        ok(command.output().expect("igloo"))
    };
    for _ in 0..2 {
        let shown = run(&["shell", "--nix", "--", "sh", "-c", "hello; echo $DATA"]);
        assert_eq!(shown, "Hello, world!\nfrom a file\n");
    }
    for isolation in ["host", "pure"] {
        assert_eq!(run(&["shell", "--isolation", isolation, "--", "hello"]), "Hello, world!\n", "{isolation}");
    }
}

#[test]
fn a_shells_own_hook_runs_and_its_exit_code_is_the_commands() {
    let Some(world) = World::new("hook") else { return };
    world.write("data.txt", "first");
    world.write("flake.nix", FLAKE);
    let hooked = ["shell", "--nix", ".#hooked", "--", "sh", "-c", "echo $HOOKED; exit 7"];
    for mut command in [world.command(&hooked), world.command(&hooked)] {
        let output = command.output().expect("igloo");
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stdout)), (Some(7), "42\n"), "{output:?}");
    }
    // Pure: nothing of the caller's but who he is.
    let all = world.command(&["shell", "--nix", "--isolation", "pure", "--", "sh", "-c", "echo $FOO$PATH"]);
    let mut all = all;
    let path = ok(all.env("FOO", "of the caller").output().expect("igloo"));
    assert!(!path.contains("of the caller") && !path.contains("/usr/bin"), "{path}");
    assert!(path.contains("-hello-"), "{path}");
    // One that does not evaluate is told in Nix's own words.
    world.write("flake.nix", "{ outputs = _: { devShells.x86_64-linux.default = throw \"not today\"; }; }");
    let failed = world.command(&["shell", "--nix", "--", "true"]).output().expect("igloo");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("not today"), "{failed:?}");
}

#[test]
fn a_shell_nix_is_reloaded_when_a_file_it_imports_changes() {
    let Some(world) = World::new("file") else { return };
    world.write("name.nix", "\"first\"");
    world.write(
        "shell.nix",
        "{ pkgs ? import @set@ { } }:\nlet lib = pkgs.lib; in pkgs.mkShell { packages = [ pkgs.jq ]; NAME = import ./name.nix; IN = builtins.getEnv \"IN_NIX_SHELL\"; }\n",
    );
    let show = ["shell", "--nix", "--", "sh", "-c", "command -v jq; echo $NAME $IN"];
    let shown = world.run(&show);
    assert!(shown.contains("-jq-") && shown.ends_with("first impure\n"), "{shown}");
    assert_eq!(ok(world.without_nix(&show)), shown);
    world.write("name.nix", "\"second\"");
    assert!(world.run(&show).ends_with("second impure\n"));
    // What it stands on is safe from Nix's collector while its files are there, and not afterwards.
    let jq = shown.lines().next().expect("a path").to_owned();
    let store_path = Path::new(&jq).ancestors().find(|p| p.parent() == Some(Path::new("/nix/store"))).expect("a path");
    let roots = || {
        let mut nix = Command::new("nix-store");
        nix.args(["--query", "--roots"]).arg(store_path).env("NIX_CONF_DIR", set());
        String::from_utf8_lossy(&nix.output().expect("nix-store").stdout).into_owned()
    };
    let state = world.person.state().join("nix-shells").display().to_string();
    let held = roots();
    assert!(held.contains(&state), "{held}");
}

#[test]
fn direnv_takes_use_flake_and_use_nix_from_us() {
    if Command::new("direnv").arg("version").output().is_err() {
        println!("skipped: there is no direnv");
        return;
    }
    let Some(world) = World::new("direnv") else { return };
    world.write("data.txt", "first");
    world.write("flake.nix", FLAKE);
    let home = world.person.directory("direnv-home");
    fs::create_dir_all(home.join("lib")).expect("mkdir");
    fs::write(home.join("lib/igloo.sh"), world.run(&["hook", "direnv"])).expect("write");
    let direnv = |words: &[&str]| {
        let mut command = world.person.command("direnv");
        command.args(words).current_dir(&world.directory).env("DIRENV_CONFIG", &home).env("NIX_CONF_DIR", set());
        command.env("XDG_CACHE_HOME", world.person.cache()).env("XDG_DATA_HOME", home.join("data"));
        ok(command.output().expect("direnv"))
    };
    for (envrc, shown) in [("use flake\n", "first|no|"), ("use flake .#hooked\n", "||42")] {
        world.write(".envrc", envrc);
        direnv(&["allow"]);
        let script = "hello >/dev/null && echo \"$DATA|$EXTRA|$HOOKED\"";
        assert_eq!(direnv(&["exec", ".", "sh", "-c", script]).trim(), shown, "{envrc}");
    }
    world.write("shell.nix", "(import @set@ { }).mkShell { packages = [ ]; NAME = \"from shell.nix\"; }\n");
    world.write(".envrc", "use nix\n");
    direnv(&["allow"]);
    assert_eq!(direnv(&["exec", ".", "sh", "-c", "echo $NAME"]).trim(), "from shell.nix");
}
