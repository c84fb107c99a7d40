//! The store as igloo and as real Nix see it.

mod both_tools;

use crate::world::{Person, people};

const MANIFEST: &str = r#"
[project]
name = "stored"
[sources.debian]
suite = "bookworm"
[shells.default]
packages = ["jq", "git"]
"#;

#[test]
fn the_store_verifies_collects_and_is_nixs() {
    for person in people() {
        let project = person.project("stored", MANIFEST);
        person.igloo(&project, &["fetch"]).ok();
        person.igloo(&project, &["store", "verify", "--contents"]).ok();
        let infos = person.igloo(&project, &["store", "path-info", "--json"]).json();
        let paths: Vec<String> =
            infos.as_array().expect("infos").iter().map(|i| i["path"].as_str().expect("path").to_owned()).collect();
        let git = paths.iter().find(|p| p.contains("-deb-git-2")).expect("git");
        assert!(person.igloo(&project, &["store", "ls", git]).ok().contains("data/usr/bin/git"));
        let roots = person.igloo(&project, &["store", "roots"]).ok();
        assert!(roots.contains("shells.default"), "{roots}");

        // Nothing that a known project needs is ever collected.
        person.igloo(&project, &["gc"]).ok();
        person.igloo(&project, &["--offline", "shell", "--", "git", "--version"]).ok();

        nix_accepts(&person);
    }
}

/// As the store's owner: what root touches there would not be his any more.
fn nix_accepts(person: &Person) {
    let store = format!("local?root={}", person.store().display());
    let nix = |words: &[&str]| person.command("nix-store").args(["--store", &store]).args(words).output();
    let Ok(output) = nix(&["--verify", "--check-contents"]) else {
        println!("skipped: nix-store is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{said}");
}

/// A cache is only a cache: what is damaged in it is fetched again, and offline it is told.
#[test]
fn a_damaged_download_is_fetched_again() {
    let person = &people()[0];
    let project = person.project("damaged", &MANIFEST.replace("\"jq\", \"git\"", "\"hello\", \"sl\""));
    person.igloo(&project, &["lock"]).ok();
    let lock = std::fs::read_to_string(project.join("igloo.lock")).expect("lock");
    let hello = lock.split("[[package]]").find(|p| p.contains("name = \"hello\"")).expect("hello");
    let field = |name: &str| {
        let line = hello.lines().find(|l| l.starts_with(&format!("{name} = "))).expect(name);
        line.split('=').nth(1).expect(name).trim().trim_matches('"').to_owned()
    };
    let size: usize = field("size").parse().expect("size");
    let debs = person.cache().join("debs");
    let output = person.command("mkdir").arg("-p").arg(&debs).output().expect("mkdir");
    assert!(output.status.success());
    let file = debs.join(format!("{}.deb", field("sha256")));
    std::fs::write(&file, vec![b'x'; size]).expect("write");
    let said = person.igloo(&project, &["--offline", "fetch"]).fails();
    assert!(said.contains("not on this machine") || said.contains("deb"), "{said}");
    let run = person.igloo(&project, &["fetch"]);
    assert!(run.stderr().contains("fetched again"), "{run:?}");
    run.ok();
    assert_eq!(person.igloo(&project, &["shell", "--", "hello"]).ok().trim(), "Hello, world!");
}
