//! Plans of small fleets, and properties of all plans.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::search::Effort;
use super::{FleetImage, FleetPackage, MOST_LAYERS, Plan, PlannedLayer, Prior};

const QUICK: Effort = Effort { work: 100_000 };

fn package(name: &str, source: &str, megabytes: u64) -> FleetPackage {
    FleetPackage {
        name: name.to_owned(),
        version: "1".to_owned(),
        architecture: "amd64".to_owned(),
        source: source.to_owned(),
        size: megabytes << 20,
        installed: megabytes << 22,
    }
}

fn image(name: &str, words: &[(&str, u64)]) -> FleetImage {
    let mut packages: Vec<_> = words.iter().map(|(name, size)| package(name, name, *size)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    FleetImage { name: name.to_owned(), packages }
}

/// A base that hardly changes, `openssl` that often does, and something of each image's own.
fn small_fleet() -> Vec<FleetImage> {
    let base = [("bash", 2), ("coreutils", 3), ("openssl", 2), ("libfoo", 1)];
    let with = |name: &str, more: &[(&str, u64)]| image(name, &[&base, more].concat());
    vec![
        with("p/web", &[("nginx", 5), ("python3", 20)]),
        with("p/worker", &[("python3", 20), ("celery", 4)]),
        with("q/db", &[("postgresql-15", 30)]),
    ]
}

fn show(image: &FleetImage, layers: &[PlannedLayer]) -> String {
    let mut out = format!("{}:\n", image.name);
    for layer in layers {
        let names: Vec<&str> = layer.packages.iter().map(|at| &*image.packages[*at].name).collect();
        out += &format!("  {} = {}\n", layer.name, names.join(" "));
    }
    out
}

fn check(plan: &Plan, images: &[FleetImage], expected: Expect) {
    let shown: String = images.iter().map(|image| show(image, &plan.layers(image))).collect();
    expected.assert_eq(&shown);
}

fn plan(images: &[FleetImage]) -> Plan {
    Plan::with_effort(images, &Prior::shipped(), None, QUICK)
}

#[test]
fn what_is_shared_and_stable_lies_lowest() {
    let fleet = small_fleet();
    check(
        &plan(&fleet),
        &fleet,
        expect![[r#"
            p/web:
              coreutils = coreutils
              libfoo = libfoo
              bash = bash
              python3 = python3
              openssl = openssl
              nginx = nginx
            p/worker:
              coreutils = coreutils
              libfoo = libfoo
              bash = bash
              python3 = python3
              openssl = openssl
              celery = celery
            q/db:
              coreutils = coreutils
              libfoo = libfoo
              bash = bash
              postgresql-15 = postgresql-15
              openssl = openssl
        "#]],
    );
}

#[test]
fn what_is_added_goes_on_top_unless_more_is_shared_below() {
    let fleet = small_fleet();
    let plan = plan(&fleet);
    let before = plan.layers(&fleet[0]);
    let mut more = fleet[0].clone();
    more.packages.push(package("zsh", "zsh", 3));
    more.packages.push(package("celery", "celery", 4));
    more.packages.sort_by(|a, b| a.name.cmp(&b.name));
    let after = plan.layers(&more);
    let names = |image: &FleetImage, layer: &PlannedLayer| -> Vec<String> {
        layer.packages.iter().map(|at| image.packages[*at].name.clone()).collect()
    };
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(names(&fleet[0], old), names(&more, new));
    }
    check(
        &plan,
        &[more],
        expect![[r#"
        p/web:
          coreutils = coreutils
          libfoo = libfoo
          bash = bash
          python3 = python3
          openssl = openssl
          nginx = nginx
          celery = celery
          others = zsh
    "#]],
    );
    // What a host holds of the database is more than what would be below it.
    let mut more = fleet[0].clone();
    more.packages.push(package("postgresql-15", "postgresql-15", 30));
    more.packages.sort_by(|a, b| a.name.cmp(&b.name));
    check(
        &plan,
        &[more],
        expect![[r#"
        p/web:
          coreutils = coreutils
          libfoo = libfoo
          bash = bash
          postgresql-15 = postgresql-15
          openssl = openssl
          python3 = python3
          nginx = nginx
    "#]],
    );
}

#[test]
fn a_plan_made_again_from_itself_stays() {
    let fleet = small_fleet();
    let first = plan(&fleet);
    let again = Plan::with_effort(&fleet, &Prior::shipped(), Some(&first), QUICK);
    assert_eq!(first.render(), again.render());
}

#[test]
fn file() {
    let fleet = small_fleet();
    let plan = plan(&fleet[..2]);
    expect![[r##"
        # Written by `igloo image plan`; keep it under version control. Images have these layers in this order, bottom first;
        # an image takes the layers whose packages it has. `igloo image plan --explain` says why a package lies where it lies.
        version = 1

        [[group]]
        name = "coreutils"
        [[group.layer]]
        images = [
          "p/web",
          "p/worker",
        ]
        packages = [
          "coreutils",
        ]

        [[group]]
        name = "libfoo"
        [[group.layer]]
        images = [
          "p/web",
          "p/worker",
        ]
        packages = [
          "libfoo",
        ]

        [[group]]
        name = "bash"
        [[group.layer]]
        images = [
          "p/web",
          "p/worker",
        ]
        packages = [
          "bash",
        ]

        [[group]]
        name = "python3"
        [[group.layer]]
        images = [
          "p/web",
          "p/worker",
        ]
        packages = [
          "python3",
        ]

        [[group]]
        name = "openssl"
        [[group.layer]]
        images = [
          "p/web",
          "p/worker",
        ]
        packages = [
          "openssl",
        ]

        [[group]]
        name = "celery"
        [[group.layer]]
        images = [
          "p/worker",
        ]
        packages = [
          "celery",
        ]

        [[group]]
        name = "nginx"
        [[group.layer]]
        images = [
          "p/web",
        ]
        packages = [
          "nginx",
        ]

        # How often a source changes, by what is known.
        [sources]
        "bash" = { per_year = 0.2, evidence = ["bullseye 1 in 3.0 years", "had security fixes before"] }
        "nginx" = { per_year = 2.5, evidence = ["bullseye 3 in 3.0 years", "bullseye-lts 4 in 1.9 years", "bookworm 9 in 3.1 years", "trixie 7 in 0.9 years", "had security fixes before"] }
        "openssl" = { per_year = 3.2, evidence = ["bullseye 8 in 3.0 years", "bullseye-lts 6 in 1.9 years", "bookworm 18 in 3.1 years", "trixie 7 in 0.9 years", "had security fixes before"] }
        "python3" = { per_year = 1.83, evidence = ["bullseye 1 in 3.0 years", "bullseye-lts 6 in 1.9 years", "bookworm 8 in 3.1 years", "trixie 3 in 0.9 years", "had security fixes before"] }
    "##]].assert_eq(&plan.render());
    assert_eq!(Plan::parse(&plan.render(), Path::new("igloo.plan")), Ok(plan));
}

#[test]
fn explained() {
    let fleet = small_fleet();
    let plan = plan(&fleet);
    let explain = |image: &FleetImage, package: &str| plan.explain(image, package).map(|e| e.to_string());
    expect![[r#"
        openssl lies in layer `openssl`, 5 of 6 from below, with 1 packages (2.1 MB)
        3 images of the plan have the same layer: p/web, p/worker, q/db
        its source `openssl` changes 3.20 times a year: bullseye 8 in 3.0 years, bullseye-lts 6 in 1.9 years, bookworm 18 in 3.1 years, trixie 7 in 0.9 years, had security fixes before
        what changes most often in the layer: openssl 3.20"#]].assert_eq(&explain(&fleet[0], "openssl").unwrap());
    assert_eq!(explain(&fleet[0], "emacs"), None);
    let stranger = image("r/new", &[("bash", 2), ("emacs", 40)]);
    expect![[r#"
        emacs lies in layer `emacs`, 2 of 2 from below, with 1 packages (41.9 MB)
        the plan has no layer that fits it: cut by size and by how often it changes
        its source `emacs` changes 0.80 times a year: bullseye 5 in 3.0 years, bookworm 4 in 3.1 years, had security fixes before
        what changes most often in the layer: emacs 0.80"#]]
    .assert_eq(&explain(&stranger, "emacs").unwrap());
}

#[test]
fn hostile_files() {
    let check = |text: &str, expected: Expect| {
        let error = Plan::parse(text, Path::new("igloo.plan")).unwrap_err();
        expected.assert_eq(&error.to_string());
    };
    check("", expect!["igloo.plan:1:1: there is no `version`: this is no plan of igloo's"]);
    check("version = 1\n[[group]\n", expect!["igloo.plan:2:9: unclosed array table, expected `]`"]);
    check("version = 0\n", expect!["igloo.plan:1:11: `version` must be a whole number from 1"]);
    check(
        "version = 99\nanything = 1\n",
        expect!["igloo.plan is a plan of version 99, this igloo reads up to 1: update igloo"],
    );
    check(
        "version = 1\n\n[[group]]\nname = \"a\"\ncolour = 3\n",
        expect!["igloo.plan:5:1: a group has no key `colour`, it has name, layer"],
    );
    check("version = 1\n[[group]]\n", expect!["igloo.plan:1:1: a group needs `name`"]);
    check("version = 1\ngroup = 3\n", expect!["igloo.plan:2:9: `group` must be written as [[group]]"]);
    check(
        "version = 1\n[[group]]\nname = \"a\"\n[[group]]\nname = \"a\"\n",
        expect!["igloo.plan:5:8: there are two groups `a`"],
    );
    let layers = |a: &str, b: &str| {
        format!(
            "version = 1\n[[group]]\nname = \"a\"\n[[group.layer]]\nimages = []\npackages = [{a}]\n\
             [[group]]\nname = \"b\"\n[[group.layer]]\nimages = []\npackages = [{b}]\n"
        )
    };
    check(
        &layers("\"x\"", "\n  \"x\""),
        expect!["igloo.plan:12:3: `x` is in another group, too: a package lies in one"],
    );
    check(&layers("\"x\", \"x\"", ""), expect!["igloo.plan:6:18: `x` is in this layer twice"]);
    check(&layers("3", ""), expect!["igloo.plan:6:13: `packages` must be a list of texts that aren't empty"]);
    check(
        "version = 1\n[sources]\nperl = { per_year = -1, evidence = [] }\n",
        expect!["igloo.plan:3:21: `perl` needs `per_year`, a number from 0"],
    );
    check(
        "version = 1\n<<<<<<< ours\n",
        expect!["igloo.plan:2:1: an unresolved merge conflict: take either side, then run `igloo image plan`"],
    );
}

#[test]
fn names_with_odd_characters_are_read_back() {
    let fleet = [image("a\"b\\c\nd\u{7f}/ü", &[("x\"y", 2), ("[z]", 2)])];
    let plan = plan(&fleet);
    assert_eq!(Plan::parse(&plan.render(), Path::new("igloo.plan")), Ok(plan));
}

#[test]
fn a_fleet_of_nothing() {
    assert_eq!(plan(&[]), Plan::default());
    let empty = image("p/empty", &[]);
    let plan = plan(std::slice::from_ref(&empty));
    assert_eq!(plan.layers(&empty), []);
    assert_eq!(Plan::builtin().layers(&empty), []);
}

/// Fleets of a few images over forty packages of up to 16 MB, two packages a source.
fn fleets() -> impl Strategy<Value = Vec<FleetImage>> {
    let packages: Vec<FleetPackage> = (0..40u64)
        .map(|n| {
            let sources = ["openssl", "perl", "glibc", "nginx"];
            let source = sources.get(n as usize / 2).map_or_else(|| format!("source{}", n / 2), |s| (*s).to_owned());
            let mut package = package(&format!("package{n:02}"), &source, 1 + n % 5);
            package.size = 1000 << (n % 15);
            package
        })
        .collect();
    let image = prop::collection::vec(any::<bool>(), 40).prop_map(move |has| {
        packages.iter().zip(has).filter(|(_, has)| *has).map(|(package, _)| package.clone()).collect::<Vec<_>>()
    });
    prop::collection::vec(image, 1..6).prop_map(|images| {
        let named = |(at, packages)| FleetImage { name: format!("p/{at}"), packages };
        images.into_iter().enumerate().map(named).collect()
    })
}

fn everything_once(image: &FleetImage, layers: &[PlannedLayer]) {
    assert!(layers.len() <= MOST_LAYERS);
    let mut all: Vec<usize> = layers.iter().flat_map(|layer| layer.packages.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..image.packages.len()).collect::<Vec<_>>());
    let names: std::collections::BTreeSet<&str> = layers.iter().map(|layer| &*layer.name).collect();
    assert_eq!(names.len(), layers.len(), "layers have names of their own");
    assert!(layers.iter().all(|layer| !layer.packages.is_empty() && layer.packages.is_sorted()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_package_once(fleet in fleets(), strangers in fleets()) {
        let plan = Plan::with_effort(&fleet, &Prior::shipped(), None, Effort { work: 20_000 });
        for image in fleet.iter().chain(&strangers) {
            everything_once(image, &plan.layers(image));
            everything_once(image, &Plan::builtin().layers(image));
        }
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter(fleet in fleets(), turn in 0usize..5) {
        let effort = Effort { work: 20_000 };
        let plan = Plan::with_effort(&fleet, &Prior::shipped(), None, effort);
        let mut other = fleet.clone();
        let by = turn % other.len();
        other.rotate_left(by);
        for image in &mut other {
            image.packages.reverse();
        }
        let again = Plan::with_effort(&other, &Prior::shipped(), None, effort);
        prop_assert_eq!(plan.render(), again.render());
        for image in &other {
            let before = fleet.iter().find(|before| before.name == image.name).unwrap();
            let names = |image: &FleetImage| -> Vec<(String, Vec<String>)> {
                let layers = plan.layers(image).into_iter();
                layers.map(|layer| {
                    let mut names: Vec<_> = layer.packages.iter().map(|at| image.packages[*at].name.clone()).collect();
                    names.sort();
                    (layer.name, names)
                }).collect()
            };
            prop_assert_eq!(names(before), names(image));
        }
    }

    #[test]
    fn the_same_packages_give_the_same_layers(fleet in fleets(), stranger in fleets()) {
        let plan = Plan::with_effort(&fleet, &Prior::shipped(), None, Effort { work: 20_000 });
        for image in fleet.iter().chain(&stranger) {
            let twin = FleetImage { name: "another/name".to_owned(), packages: image.packages.clone() };
            prop_assert_eq!(plan.layers(image), plan.layers(&twin));
        }
    }

    #[test]
    fn files_are_read_back(fleet in fleets()) {
        let plan = Plan::with_effort(&fleet, &Prior::shipped(), None, Effort { work: 5_000 });
        prop_assert_eq!(Plan::parse(&plan.render(), Path::new("igloo.plan")), Ok(plan));
    }

    #[test]
    fn no_file_makes_it_panic(text in "(version = 1\n)?([\\[\\]a-z =\"\n0-9{},.#]|\\[\\[group\\]\\]\n|name = \"a\"\n|layer|packages|images){0,60}") {
        let _ = Plan::parse(&text, Path::new("igloo.plan"));
    }
}
