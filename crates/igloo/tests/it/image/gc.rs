//! `igloo gc` and images.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{boxes, digest};
use crate::world::people;

fn age(directory: &Path) {
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(20 * 24 * 3600);
    for entry in fs::read_dir(directory).expect("list").flatten() {
        fs::File::open(entry.path()).and_then(|f| f.set_modified(old)).expect("age");
    }
}

#[test]
fn content_that_no_lock_needs_goes_two_weeks_after_its_last_use() {
    for person in people() {
        let project = boxes(&person);
        // All of its own: other projects' locks would keep the same content.
        let cache = project.join("cache");
        let alone = |mut command: Command| -> Command {
            command.env("IGLOO_CACHE_DIR", &cache).env("IGLOO_STATE_DIR", project.join("state"));
            command.env("IGLOO_DATA_DIR", project.join("data")).current_dir(&project);
            command
        };
        let igloo = |words: &[&str]| {
            let output = alone(person.igloo_command(&project, words)).output().expect("igloo");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{} {words:?}: {said}", person.name);
            (String::from_utf8_lossy(&output.stdout).into_owned(), said)
        };
        // What of the images a collection deletes, or would.
        let gc = |words: &[&str]| -> Vec<String> {
            let report = igloo(&[&["gc", "--json"], words].concat()).0;
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            let below = cache.join("oci").display().to_string();
            let deleted = report["deleted"].as_array().expect("deleted").iter();
            deleted.filter_map(|d| Some(d[0].as_str()?.strip_prefix(&below)?.to_owned())).collect()
        };
        let built = digest(&igloo(&["image", "build"]).0);
        igloo(&["image", "run", "box"]);
        let (blobs, trees) = (cache.join("oci/blobs/sha256"), cache.join("oci/trees"));
        assert_eq!(gc(&["-n"]), Vec::<String>::new(), "{}: all of it is new", person.name);
        age(&blobs);
        age(&trees);
        assert_eq!(gc(&["-n"]), Vec::<String>::new(), "it is old, and the project's");
        let manifest = fs::read_to_string(project.join("igloo.toml")).expect("read");
        fs::write(project.join("igloo.toml"), format!("{manifest}# changed\n")).expect("write");
        // Not while somebody uses images.
        let mut locked = alone(person.command("flock"));
        let output = locked.arg("-s").arg(cache.join("oci/.lock")).args(["igloo", "gc"]).output().expect("flock");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("images are in use right now, and none was deleted"), "{said}");
        let would = gc(&["-n"]);
        assert!(would.iter().any(|p| p.starts_with("/blobs/")), "{would:?}");
        assert!(would.iter().any(|p| p.starts_with("/trees/")), "{would:?}");
        assert!(fs::read_dir(&blobs).expect("list").count() > 3);
        assert_eq!(gc(&[]), would);
        assert_eq!(fs::read_dir(&blobs).expect("list").count(), 0);
        assert!(fs::read_dir(&trees).expect("list").flatten().all(|e| e.file_name() == ".lock"));
        // It is made again, the same.
        assert_eq!(digest(&igloo(&["image", "build"]).0), built);
        assert_eq!(igloo(&["image", "run", "box"]).0, "ran well\n");
    }
}
