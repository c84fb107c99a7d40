//! The store as igloo and as real Nix see it.

use std::process::Command;

use crate::world::people;

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

        nix_accepts(&person.store());
    }
}

fn nix_accepts(root: &std::path::Path) {
    let store = format!("local?root={}", root.display());
    let nix = |words: &[&str]| Command::new("nix-store").args(["--store", &store]).args(words).output();
    let Ok(output) = nix(&["--verify", "--check-contents"]) else {
        println!("skipped: nix-store is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{said}");
}
