//! Nix's packages in images, alone and beside Debian's, and Nix itself at work in one. The set is `tests/nixpkgs`.

use std::collections::BTreeMap;
use std::fs;

use crate::image::has;
use crate::nix_shell::{nix_works, set};
use crate::nixpkgs::{World, cached, ok};
use crate::podman::Podman;
use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "of-nix"
source = "nixpkgs"
[sources.debian]
suite = "bookworm"
base = "none"
[sources.nixpkgs]
flake = "path:@set@"
[images.alone]
packages = ["hello", "bash", "coreutils"]
run = ["hello"]
[images.little]
packages = ["hello"]
run = ["hello"]
[images.mixed]
packages = ["hello", "libgreet.bin", "debian:nix-bin", "debian:base-passwd", "debian:busybox-static"]
nix-db = true
run = ["hello"]
[images.stocked]
kind = "builder"
packages = ["hello"]
"#;

/// Digests by image, as a build prints them.
fn built(world: &World, nix: bool) -> BTreeMap<String, String> {
    let words = ["image", "build", "--oci-archive", "out.tar"];
    let mut digests = BTreeMap::new();
    for image in ["alone", "little", "mixed"] {
        let words = [&words[..], &[image]].concat();
        let printed = ok(if nix { world.igloo(&words) } else { world.without_nix(&words) });
        fs::rename(world.directory.join("out.tar"), world.directory.join(format!("{image}.tar"))).expect("rename");
        digests.insert(image.to_owned(), crate::image::digest(&printed));
    }
    digests
}

/// What is done in an image in which Nix works.
const AT_WORK: &str = r#"
set -e
busybox test "$(busybox id -u)" = 1000
nix-store --verify --check-contents
nix store verify --all --no-trust
nix path-info --all | busybox wc -l
busybox echo something > /tmp/something
added=$(nix-store --add /tmp/something)
busybox cat "$added"
nix-collect-garbage | busybox grep 'paths deleted'
busybox test ! -e "$added"
hello
"#;

/// What holds in an image of a builder, before it is one.
const STOCKED: &str = r#"
set -e
busybox stat -c '%a %g' /nix/store
nix-store --verify --check-contents
nix path-info --all | busybox wc -l
"#;

#[test]
fn nixs_packages_are_in_images_and_nix_works_in_one() {
    let Some(root) = people().into_iter().next().filter(|_| nix_works()) else { return };
    let world = World::new(&root, MANIFEST);
    let digests = built(&world, true);
    assert_eq!(ok(world.igloo(&["image", "run", "alone"])), "Hello, world!\n");
    let whole = ok(world.igloo(&["image", "run", "alone", "--", "sh", "-c", "id -u; touch /tmp/x; cat /etc/passwd"]));
    assert!(whole.starts_with("1000\nroot:x:0:0:"), "{whole}");
    // By name: in the plan, in the image, and the other way round.
    let plan = ok(world.igloo(&["image", "plan", "alone"]));
    assert!(plan.contains("nix:hello=2.12-") && plan.contains("nix:libgreet=1.2.0-"), "{plan}");
    let why = ok(world.igloo(&["image", "why", "mixed", "/usr/local/bin/hello"]));
    assert!(why.contains("nix:hello=2.12-"), "{why}");
    let hello = ok(world.igloo(&["image", "ls", "mixed", "/usr/local/bin/hello"]));
    let hello = hello.split_once(" -> ").expect("a link").1.trim().trim_end_matches("/bin/hello").to_owned();
    // A builder whose store is not empty.
    let stocked = ["image", "run", "stocked", "--entrypoint", "/usr/bin/busybox", "--", "sh", "-c", STOCKED];
    assert_eq!(ok(world.igloo(&stocked)), "1775 30000\n4\n");
    // Planned together, images share what they share.
    ok(world.igloo(&["image", "plan", "--fleet", "."]));
    built(&world, true);
    let diff = ok(world.igloo(&["image", "diff", "little", "alone", "--json"]));
    let diff: serde_json::Value = serde_json::from_str(&diff).expect("JSON");
    assert!(diff["shared"].as_u64() >= Some(1), "{diff}");
    fs::remove_file(world.directory.join("igloo.plan")).expect("remove the plan");
    assert_eq!(built(&world, true), digests);

    let lock = fs::read_to_string(world.directory.join("igloo.lock")).expect("read");
    let sources = cached(&root, &lock, &hello);
    for person in people() {
        let other = World::new(&person, MANIFEST);
        fs::write(other.directory.join("igloo.lock"), &lock).expect("write");
        other.edit(&format!("flake = \"path:{}\"", set().display()), &sources);
        person.own(&other.directory);
        assert_eq!(built(&other, false), digests, "{}", person.name);
        let ran = other.without_nix(&["image", "run", "mixed", "--", "busybox", "sh", "-c", AT_WORK]);
        let said = ok(ran);
        assert_eq!(said, "5\nsomething\n1 store paths deleted, 0.00 MiB freed\nHello, world!\n", "{}", person.name);
        // Half a gigabyte that nobody needs any more.
        fs::remove_dir_all(&other.directory).expect("remove");
    }

    if !["podman", "runc"].iter().all(|tool| has(tool)) {
        return;
    }
    let podman = Podman::new(&root, &world.directory, "overlay");
    let run = |image: &str, words: &[&str]| {
        let name = format!("localhost/{image}:latest");
        podman.tool("podman", &[&["run", "--rm", "--net=none", &name], words].concat())
    };
    podman.load("alone.tar");
    assert_eq!(run("alone", &[]), "Hello, world!");
    podman.load("mixed.tar");
    let said = run("mixed", &["busybox", "sh", "-c", AT_WORK]);
    assert!(said.starts_with("5\nsomething\n1 store paths deleted"), "{said}");
}
