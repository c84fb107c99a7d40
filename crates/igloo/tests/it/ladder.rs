//! Depend only on a lower rung, never sideways.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

const LADDER: &[(&str, u32)] = &[
    ("igloo", 7),
    ("igloo-serve", 6),
    ("igloo-ops", 5),
    ("igloo-image", 4),
    ("igloo-container", 4),
    ("igloo-supervisor", 4),
    ("igloo-store", 3),
    ("igloo-env", 3),
    ("igloo-remote", 3),
    ("igloo-manifest", 2),
    ("igloo-formats", 1),
    ("igloo-base", 0),
];

/// Fixtures: may see what it likes, and only tests may see it.
const FIXTURES: &str = "igloo-test";

#[test]
fn rooms_depend_only_on_lower_rungs() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let rungs: BTreeMap<&str, u32> = LADDER.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if name == FIXTURES {
            continue;
        }
        let Some(rung) = rungs.get(name) else {
            wrong.push(format!("{name} is not on the ladder"));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let below = rungs.get(to).is_none_or(|r| r < rung);
            let fixture = to == FIXTURES && dependency.kind != DependencyKind::Development;
            if !below || fixture {
                wrong.push(format!("{name} depends on {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A module that is in no `mod` line is dead without anybody noticing.
#[test]
fn no_room_is_missing_from_the_ladder() {
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for entry in std::fs::read_dir(crates).expect("list the crates") {
        let name = entry.expect("entry").file_name().into_string().expect("UTF-8");
        assert!(name == FIXTURES || LADDER.iter().any(|(room, _)| *room == name), "{name} is not on the ladder");
    }
}
