//! After something went wrong: setup steps that did not finish, projects that were killed and forgotten, locks of
//! another igloo.

use std::fs;

use crate::guestbook::{find, is_alive, kill, supervisors, wait_until};
use crate::world::people;

const SETUP: &str = r#"
[project]
name = "setup"
[sources.debian]
suite = "bookworm"
[services.db]
packages = ["busybox-static"]
setup = ["busybox", "sh", "-c", "test -z \"$(busybox ls /data)\" || exit 9; echo made > /data/made; test -e /conf/good"]
run = ["busybox", "sleep", "1000"]
volumes = ["data:/data", "./conf:/conf:ro"]
"#;

#[test]
fn what_somebody_put_into_a_volume_after_a_failed_setup_is_never_lost() {
    for person in people() {
        let project = person.project("setup", SETUP);
        fs::create_dir(project.join("conf")).expect("mkdir");
        let failed = person.igloo(&project, &["up", "--wait", "--timeout", "20"]).fails();
        assert!(failed.contains("db"), "{failed}");
        person.igloo(&project, &["down"]).ok();
        let volumes = fs::read_dir(person.store().join("volumes")).expect("volumes");
        let volumes: Vec<_> = volumes
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("setup-")))
            .collect();
        assert_eq!(volumes.len(), 1, "{volumes:?}");
        fs::write(volumes[0].join("data/by-hand"), "precious").expect("write");
        fs::write(project.join("conf/good"), "").expect("write");
        let up = person.igloo(&project, &["up", "--wait"]);
        let told = up.stderr();
        up.ok();
        let trash: Vec<_> = fs::read_dir(&volumes[0])
            .expect("list")
            .flatten()
            .map(|e| e.path())
            .filter(|p| fs::read_to_string(p.join("by-hand")).is_ok_and(|t| t == "precious"))
            .collect();
        assert_eq!(trash.len(), 1, "{} {told}", person.name);
        assert!(told.contains(&trash[0].display().to_string()), "{} {told}", person.name);
        assert_eq!(fs::read_to_string(volumes[0].join("data/made")).expect("made"), "made\n");
        person.igloo(&project, &["down", "--volumes"]).ok();
        assert!(!trash[0].exists());
    }
}

const OWNERS: &str = r#"
[project]
name = "owners"
[sources.debian]
suite = "bookworm"
[services.one]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "busybox mkdir -m 700 /deep; echo x > /deep/x; busybox chown -R 33:33 /deep; busybox touch /done; busybox sleep 1000"]
ready = { exec = ["busybox", "test", "-e", "/done"] }
"#;

#[test]
fn gc_removes_what_a_killed_and_forgotten_project_left() {
    for person in people() {
        if person.name == "igloo-single" || person.name == "caller" {
            println!("skipped for {}: its containers have no second user", person.name);
            continue;
        }
        let project = person.project("owners", OWNERS);
        person.igloo(&project, &["up", "--wait"]).ok();
        let services = person.igloo(&project, &["ps", "--json"]).json();
        let pid = find(&services, "one")["pid"].as_u64().expect("pid");
        kill(supervisors(&person, &project)[0]);
        wait_until("the kernel ends the container", || !is_alive(pid));
        let left = || {
            let output = person.command("find").arg(person.state()).args(["-name", "deep"]).output().expect("find");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_ne!(left(), "", "{}: the test needs something that was left", person.name);
        fs::remove_file(project.join("igloo.toml")).expect("forget");
        person.igloo(&person.directory("elsewhere"), &["gc"]).ok();
        assert_eq!(left(), "", "{}", person.name);
    }
}

const TOOL: &str = r#"
[project]
name = "unpack"
[sources.debian]
suite = "bookworm"
[shells.default]
packages = ["busybox-static"]
"#;

#[test]
fn a_lock_completed_by_an_igloo_that_unpacks_differently_is_completed_again() {
    let person = &people()[0];
    let project = person.project("unpack", TOOL);
    person.igloo(&project, &["fetch"]).ok();
    let file = project.join("igloo.lock");
    let lock = fs::read_to_string(&file).expect("lock");
    let other: String = lock
        .lines()
        .map(|line| match line.strip_prefix("store = \"") {
            Some(path) => format!("store = \"{}{}\n", "0".repeat(32), &path[32..]),
            None if line.starts_with("unpack = ") => "unpack = 999\n".to_owned(),
            None => format!("{line}\n"),
        })
        .collect();
    assert!(other.contains("unpack = 999") && other.contains(&"0".repeat(32)), "{other}");
    fs::write(&file, &other).expect("write");
    let said = person.igloo(&project, &["fetch", "--locked"]).fails();
    assert!(said.contains("unpacking 999"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("lock"), other);
    person.igloo(&project, &["fetch"]).ok();
    assert_eq!(fs::read_to_string(&file).expect("lock"), lock);
}
