//! Manifest, lock, `add`, `remove`, `update`, and what is said when something is wrong.

use std::fs;

use crate::world::people;

const MANIFEST: &str = r#"# A comment that stays.
[project]
name = "locked"

[sources.debian]
suite = "bookworm"

[shells.default]
packages = ["jq"] # and this one
"#;

#[test]
fn a_lock_is_stable_and_edits_keep_comments() {
    let person = &people()[0];
    let project = person.project("locked", MANIFEST);
    person.igloo(&project, &["lock"]).ok();
    let lock = fs::read_to_string(project.join("igloo.lock")).expect("lock");
    assert!(lock.contains("name = \"jq\"") || lock.contains("jq"), "{lock}");
    assert!(!lock.contains("://"), "a lock names no address");
    person.igloo(&project, &["lock"]).ok();
    assert_eq!(fs::read_to_string(project.join("igloo.lock")).expect("lock"), lock);
    person.igloo(&project, &["lock", "--check"]).ok();

    let said = person.igloo(&project, &["add", "tree"]).ok();
    assert!(said.contains("+ tree"), "{said}");
    let manifest = fs::read_to_string(project.join("igloo.toml")).expect("manifest");
    assert!(manifest.contains("# A comment that stays.") && manifest.contains("# and this one"), "{manifest}");
    assert!(manifest.contains("\"tree\""), "{manifest}");
    let said = person.igloo(&project, &["remove", "tree"]).ok();
    assert!(said.contains("- tree"), "{said}");
    assert_eq!(fs::read_to_string(project.join("igloo.toml")).expect("manifest"), MANIFEST);
    assert_eq!(fs::read_to_string(project.join("igloo.lock")).expect("lock"), lock);

    // A package that isn't there: nothing is written.
    let said = person.igloo(&project, &["add", "no-such-package-at-all"]).fails();
    assert!(said.contains("no-such-package-at-all"), "{said}");
    assert_eq!(fs::read_to_string(project.join("igloo.toml")).expect("manifest"), MANIFEST);

    let shown = person.igloo(&project, &["env", "show", "--json"]).json();
    let packages = shown["packages"].as_array().expect("packages");
    let jq = packages.iter().find(|p| p["name"] == "jq").expect("jq");
    assert_eq!(jq["why"], "asked for");
    let libjq = packages.iter().find(|p| p["name"] == "libjq1").expect("libjq1");
    assert_eq!(libjq["why"], "needed by jq");
}

#[test]
fn mistakes_are_drawn_with_file_line_and_column() {
    let person = &people()[0];
    let project = person.project("mistaken", &MANIFEST.replace("packages", "pakages"));
    let run = person.igloo(&project, &["lock"]);
    assert_eq!(run.code(), Some(1));
    let said = run.stderr();
    assert!(said.contains("igloo.toml:9:1"), "{said}");
    assert!(said.contains("pakages") && said.contains("`packages`"), "{said}");
    assert_eq!(person.igloo(&project, &["--no-such-option"]).code(), Some(2));
    let nowhere = person.directory("nowhere");
    assert!(person.igloo(&nowhere, &["lock"]).fails().contains("igloo init"));
}

#[test]
fn a_lock_edited_by_hand_is_refused() {
    let person = &people()[0];
    let project = person.project("edited", MANIFEST);
    person.igloo(&project, &["fetch"]).ok();
    let path = project.join("igloo.lock");
    let lock = fs::read_to_string(&path).expect("lock");
    let line = lock.lines().find(|l| l.starts_with("store = ")).expect("a completed lock names store paths");
    let digest = &line["store = \"".len()..][..32];
    let other = format!("{}{}", &digest[1..], &digest[..1]);
    fs::write(&path, lock.replace(digest, &other)).expect("write");
    let said = person.igloo(&project, &["shell", "--", "true"]).fails();
    assert!(said.contains("igloo.lock"), "{said}");
}

#[test]
fn every_template_locks() {
    let person = &people()[0];
    let listed = person.igloo(&person.directory("templates"), &["init", "--template", "list"]).ok();
    let names: Vec<&str> = listed.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.len() >= 5, "{listed}");
    for name in names {
        let directory = person.directory("template");
        person.igloo(&directory, &["init", "--template", name]).ok();
        assert!(person.igloo(&directory, &["init"]).fails().contains("igloo.toml"));
        person.igloo(&directory, &["lock"]).ok();
    }
}

#[test]
fn both_systems_are_locked_side_by_side() {
    let person = &people()[0];
    let manifest =
        MANIFEST.replace("name = \"locked\"", "name = \"both\"\nsystems = [\"x86_64-linux\", \"aarch64-linux\"]");
    let project = person.project("both", &manifest);
    person.igloo(&project, &["lock"]).ok();
    let lock = fs::read_to_string(project.join("igloo.lock")).expect("lock");
    assert!(lock.contains("_amd64.deb") && lock.contains("_arm64.deb"), "{lock}");
    person.igloo(&project, &["shell", "--", "jq", "--version"]).ok();
}
