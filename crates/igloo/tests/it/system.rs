//! `init = "system"`: Debian's systemd as a service, by root, by a user who was given control groups, and refused with
//! the reason to those who can't have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{Person, people};

const MANIFEST: &str = r#"
[project]
name = "system"

[sources.debian]
suite = "bookworm"

[services.box]
packages = ["@base", "systemd", "systemd-sysv", "dbus", "nginx-light"]
init = "system"
"#;

/// A group of version 2 that a person may divide: what systemd gives to its users, and what root can give by hand.
struct Given {
    group: PathBuf,
}

impl Given {
    fn to(person: &Person) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let group = Path::new(line.split(' ').nth(4)?).join(format!("igloo-it-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        person.own(&group);
        Some(Self { group })
    }

    /// Runs igloo from inside the group.
    fn run(&self, person: &Person, directory: &Path, words: &[&str]) -> Output {
        let own = person.igloo_command(directory, words);
        // The group is entered before root's rights are given up.
        let script =
            "echo $$ > \"$0/cgroup.procs\"; exec setpriv --reuid=\"$1\" --regid=\"$2\" --clear-groups -- \"${@:3}\"";
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(&self.group).args(person.ids().map(|id| id.to_string()));
        command.arg(own.get_program()).args(own.get_args()).current_dir(directory).env_clear();
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().expect("run")
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn systemd_boots_is_entered_and_halts() {
    for person in people() {
        let project = person.project("system", MANIFEST);
        let given = if person.name == "root" { None } else { Given::to(&person) };
        let output = match &given {
            Some(given) => given.run(&person, &project, &["up", "--wait"]),
            None => person.igloo(&project, &["up", "--wait"]).output,
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if person.name == "igloo-single" {
            assert!(!output.status.success() && said.contains("/etc/subuid"), "{said}");
            person.igloo(&project, &["down"]).ok();
            continue;
        }
        if person.name != "root" && given.is_none() {
            println!("skipped for {}: no group of version 2 can be given here", person.name);
            assert!(!output.status.success() && said.contains("control groups"), "{said}");
            person.igloo(&project, &["down"]).ok();
            continue;
        }
        assert!(output.status.success(), "{}: {said}", person.name);
        let inside = |words: &[&str]| person.igloo(&project, &[&["exec", "box"], words].concat());
        // READY comes when the last job is done, or just before.
        assert_eq!(inside(&["systemctl", "is-system-running", "--wait"]).ok(), "running\n");
        assert_eq!(inside(&["systemctl", "is-active", "nginx"]).ok(), "active\n");
        assert_eq!(inside(&["systemd-detect-virt"]).stdout(), "container-other\n");
        // The journal is there, and on the console, which is the log.
        assert!(inside(&["journalctl", "--no-pager", "-u", "nginx"]).ok().contains("Started nginx.service"));
        assert!(person.igloo(&project, &["logs", "box"]).ok().contains("Started nginx.service"));
        // Its control groups are its own, down from the root.
        assert_eq!(inside(&["sh", "-c", "cat /proc/1/cgroup | grep ^0"]).ok(), "0::/init.scope\n");
        let audited = person.igloo(&project, &["audit", "--json"]);
        assert_eq!(audited.code(), Some(0), "{audited:?}");
        let begun = std::time::Instant::now();
        person.igloo(&project, &["down"]).ok();
        let logs = person.igloo(&project, &["logs", "box"]).ok();
        assert!(logs.contains("Stopped nginx.service"), "{:?}: {logs}", begun.elapsed());
    }
}

/// What is missing is said.
#[test]
fn a_system_without_control_groups_is_refused() {
    for person in people().into_iter().filter(|p| p.name == "igloo-test") {
        let project = person.project("system", MANIFEST);
        let said = person.igloo(&project, &["up", "--wait"]).fails();
        assert!(said.contains("control groups of its own") && said.contains("cgroup.procs"), "{said}");
        person.igloo(&project, &["down"]).ok();
    }
}
