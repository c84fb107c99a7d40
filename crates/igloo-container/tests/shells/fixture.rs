//! A root made of busybox, a project, and ways to run this program in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Why a case can't run here.
pub(crate) struct Skip(pub(crate) String);

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) exe: PathBuf,
    /// Users to run as: root if we are root, and an ordinary one.
    pub(crate) users: Vec<User>,
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    /// True if we are this user already.
    own: bool,
    pub(crate) project: PathBuf,
    pub(crate) state: PathBuf,
}

const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "id", "env", "pwd", "touch", "sleep", "kill", "ps", "mount", "hostname", "true", "false",
    "stty", "test", "echo", "readlink", "grep", "ip", "ping", "nc", "tty", "wc", "stat", "mkdir", "umount", "dd",
    "whoami",
];

impl Fixture {
    pub(crate) fn new() -> Result<Self, Skip> {
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let busybox = busybox.ok_or_else(|| Skip("no busybox (package busybox-static)".into()))?;
        let dir = tempfile::Builder::new().prefix("igloo-shells-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let exe = dir.path().join("shells");
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        let (top, base) = (dir.path().join("top"), dir.path().join("base"));
        for sub in ["etc", "usr/share", "var/lib"] {
            fs::create_dir_all(top.join(sub)).unwrap();
        }
        fs::write(top.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n").unwrap();
        fs::write(top.join("etc/declared"), "yes\n").unwrap();
        fs::write(top.join("usr/share/script"), "echo from a script without a first line\n").unwrap();
        fs::set_permissions(top.join("usr/share/script"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(base.join("usr/bin")).unwrap();
        fs::create_dir_all(base.join("home")).unwrap();
        fs::copy(busybox, base.join("usr/bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", base.join("usr/bin").join(applet)).unwrap();
        }
        symlink("usr/bin", base.join("bin")).unwrap();
        fs::write(base.join("usr/bin/not-executable"), "").unwrap();
        let mut this = Self { dir, exe, users: Vec::new() };
        let own = rustix::process::geteuid().as_raw();
        let ordinary = std::env::var("IGLOO_TEST_USER").unwrap_or_else(|_| "igloo-test".into());
        if own == 0 {
            this.add_user("root", 0, true);
            match lookup(&ordinary) {
                Some(uid) => this.add_user(&ordinary, uid, false),
                None => println!("there is no user `{ordinary}`: cases run as root only"),
            }
        } else {
            this.add_user(&whoami(own), own, true);
        }
        Ok(this)
    }

    fn add_user(&mut self, name: &str, uid: u32, own: bool) {
        let project = self.dir.path().join(format!("projects/{name}/deep/project"));
        let state = self.dir.path().join(format!("state-{name}"));
        for path in [&project, &state] {
            fs::create_dir_all(path).unwrap();
            std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        }
        self.users.push(User { name: name.into(), uid, own, project, state });
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The layers, topmost first; `more` empty-ish ones below to make it as deep as real ones.
    pub(crate) fn lowers(&self, more: usize) -> String {
        let mut lowers = vec![self.dir.path().join("top"), self.dir.path().join("base")];
        for index in 0..more {
            let layer = self.dir.path().join(format!("layer-{index}"));
            fs::create_dir_all(layer.join("usr/share").join(index.to_string())).unwrap();
            lowers.push(layer);
        }
        lowers.iter().map(|l| l.to_str().unwrap()).collect::<Vec<_>>().join(":")
    }

    /// This program as a user, with these arguments.
    pub(crate) fn command(&self, user: &User, args: &[&str]) -> Command {
        let mut command = if user.own {
            Command::new(&self.exe)
        } else {
            let mut command = Command::new("setpriv");
            let id = user.uid.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&self.exe);
            command.env("HOME", format!("/home/{}", user.name)).env("USER", &user.name);
            command
        };
        command.arg("--act").args(args).current_dir(&user.project);
        command
    }

    /// Enters with the usual layers and a private home.
    pub(crate) fn enter(&self, user: &User, isolation: &str, options: &[&str], words: &[&str]) -> Command {
        let lowers = self.lowers(0);
        let (project, state) = (user.project.to_str().unwrap(), user.state.to_str().unwrap());
        let mut args =
            vec!["enter", "--isolation", isolation, "--lowers", &lowers, "--project", project, "--home", state];
        args.extend(options);
        args.push("--");
        args.extend(words);
        self.command(user, &args)
    }

    /// Standard output of a shell command inside, which must succeed.
    pub(crate) fn sh(&self, user: &User, isolation: &str, script: &str) -> String {
        let output = self.enter(user, isolation, &[], &["sh", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{} {isolation} `{script}`: {}", user.name, show(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

pub(crate) fn show(output: &Output) -> String {
    format!(
        "{:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn passwd() -> Vec<(String, u32)> {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields.first()?.to_string(), fields.get(2)?.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn lookup(name: &str) -> Option<u32> {
    passwd().into_iter().find(|(n, _)| n == name).map(|(_, uid)| uid)
}

fn whoami(uid: u32) -> String {
    passwd().into_iter().find(|(_, u)| *u == uid).map_or_else(|| "me".into(), |(name, _)| name)
}
