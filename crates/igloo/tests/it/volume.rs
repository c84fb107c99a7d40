//! `igloo volume`: files keep their owners through archives and copies, and nothing is deleted.

use std::fs;

use serde_json::Value;

use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "volumes"

[sources.debian]
suite = "bookworm"

[services.app]
packages = ["busybox-static"]
user = "www-data"
volumes = ["data:/data", "copy:/copy"]
run = ["/bin/busybox", "sleep", "1000"]
"#;

#[test]
fn volumes_are_backed_up_restored_copied_and_taken_back() {
    for person in people() {
        let project = person.project("volumes", MANIFEST);
        let igloo = |words: &[&str]| person.igloo(&project, words);
        let inside = |script: &str| igloo(&["exec", "app", "/bin/busybox", "sh", "-c", script]).ok();
        let seen = "cd /data; find . | sort; stat -c '%U %a %s' deep/file; readlink link; cat deep/file";
        igloo(&["up", "--wait"]).ok();
        inside("cd /data; mkdir -m 700 deep; echo precious > deep/file; chmod 640 deep/file; ln -s /etc/passwd link");
        let before = inside(seen);
        assert!(before.contains("www-data 640 9") && before.contains("/etc/passwd"), "{before}");
        // One in use is copied with a warning, and neither replaced nor removed.
        assert!(igloo(&["volume", "backup", "data"]).stderr().contains("half of a change"));
        for words in [&["volume", "rm", "data"][..], &["volume", "restore", "data", "data.tar"]] {
            let said = igloo(words).fails();
            assert!(said.contains("igloo stop app"), "{said}");
        }
        let listing =
            std::process::Command::new("tar").arg("-tvf").arg(project.join("data.tar")).output().expect("tar");
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        // Links are links, and what they lead to is not in it.
        assert!(listing.contains("link -> /etc/passwd") && listing.contains("deep/file"), "{listing}");
        igloo(&["down"]).ok();
        let there = |name: &str| -> Value { igloo(&["volume", "inspect", name]).json() };
        igloo(&["volume", "rm", "data"]).ok();
        assert_eq!(there("data")["made"], false);
        assert!(igloo(&["volume", "backup", "data"]).fails().contains("no volume `data`"));
        igloo(&["volume", "undo", "data"]).ok();
        assert_eq!(there("data")["trash"].as_array().map(Vec::len), Some(0));
        // A copy takes the place of an empty one only when that is gone.
        assert!(igloo(&["volume", "clone", "data", "copy"]).fails().contains("already"));
        igloo(&["volume", "rm", "copy"]).ok();
        igloo(&["volume", "clone", "data", "copy"]).ok();
        igloo(&["up", "--wait"]).ok();
        assert_eq!(inside(&seen.replace("/data", "/copy")), before);
        inside("rm -rf /data/deep; echo spoilt > /data/new");
        igloo(&["down"]).ok();
        igloo(&["volume", "restore", "data", "data.tar"]).ok();
        assert_eq!(there("data")["trash"].as_array().map(Vec::len), Some(1));
        igloo(&["up", "--wait"]).ok();
        assert_eq!(inside(seen), before, "{}", person.name);
        // What leads out is refused, and changes nothing.
        igloo(&["down"]).ok();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
        header.set_cksum();
        archive.append(&header, std::io::empty()).expect("append");
        fs::write(project.join("bad.tar"), archive.into_inner().expect("archive")).expect("write");
        assert!(igloo(&["volume", "restore", "data", "bad.tar"]).fails().contains("escape"));
        assert_eq!(there("data")["made"], true);
        let list = igloo(&["volume", "ls", "--json"]).json();
        assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
        igloo(&["down", "--volumes"]).ok();
    }
}
