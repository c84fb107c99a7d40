//! The resolver against the one it imitates: `apt-get -s install` on a machine without any package.
//!
//! Takes minutes and the machine's package lists, so it runs only when asked for:
//! `cargo test -p igloo-manifest --release --test apt -- --ignored --nocapture`. `IGLOO_APT_SAMPLE` says how many
//! packages are drawn, `IGLOO_APT_SEED` which. Prints why if it cannot run.

#![allow(clippy::print_stdout, reason = "figures are what this test is run for")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use igloo_base::System;
use igloo_formats::deb::{Index, index};
use igloo_manifest::resolve::{Indexes, MINIMAL, resolve};
use igloo_manifest::{Base, EnvironmentRequest, Root};

const CLOSURES: [&str; 14] = [
    "bash coreutils ca-certificates tzdata",
    "python3",
    "nodejs",
    "postgresql-15",
    "redis-server",
    "nginx",
    "git",
    "golang",
    "rustc cargo",
    "openssh-server",
    "nix-bin",
    "systemd",
    "gcc libc6-dev make",
    "git curl ca-certificates",
];

/// apt with no package installed, no pins, and whatever sources the machine (or `APT_CONFIG`) says.
struct Apt {
    dir: tempfile::TempDir,
}

impl Apt {
    fn run(&self, program: &str, words: &[&str]) -> Option<Vec<u8>> {
        let status = format!("Dir::State::status={}", self.dir.path().join("status").display());
        let extended = format!("Dir::State::extended_states={}", self.dir.path().join("extended").display());
        let cache = format!("Dir::Cache={}", self.dir.path().display());
        let output = Command::new(program)
            .args(["-o", &status, "-o", &extended, "-o", &cache, "-o", "APT::Architectures::=amd64"])
            // As by default; container images turn apt's own index off, which would make the comparison unfair.
            .args(["-o", "Dir::Cache::pkgcache=pkgcache.bin", "-o", "Dir::Cache::srcpkgcache=srcpkgcache.bin"])
            .args(["-o", "Dir::Etc::preferences=/dev/null", "-o", "Dir::Etc::preferencesparts=/dev/null"])
            .args(words)
            .env("LC_ALL", "C")
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// Suite and decompressed list of every package index, in apt's order.
    fn lists(&self) -> Vec<(String, Vec<u8>)> {
        let format = "$(SUITE) $(FILENAME)";
        let targets = self.run("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]);
        let targets = String::from_utf8(targets.unwrap_or_default()).expect("text");
        let mut lists = Vec::new();
        for (suite, file) in targets.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(list) = self.run("/usr/lib/apt/apt-helper", &["cat-file", file]) {
                lists.push((suite.to_owned(), list));
            }
        }
        lists
    }

    fn install(&self, roots: &[&str], recommends: bool) -> Option<BTreeMap<String, String>> {
        let recommends = if recommends { "--install-recommends" } else { "--no-install-recommends" };
        let output = self.run("apt-get", &[&["-s", "install", recommends][..], roots].concat())?;
        let text = String::from_utf8(output).expect("text");
        let installed = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        });
        Some(installed.collect())
    }
}

fn request(roots: &[&str], base: Base, recommends: bool) -> EnvironmentRequest {
    let root = |name: &&str| Root { name: (*name).to_owned(), version: None, suite: None, span: 0..0 };
    EnvironmentRequest {
        key: "shells.default".to_owned(),
        source: "debian".to_owned(),
        roots: roots.iter().map(root).collect(),
        excludes: Vec::new(),
        base,
        recommends,
    }
}

#[derive(Default)]
struct Tally {
    equal: usize,
    both_refuse: usize,
    asked: usize,
    ours: Duration,
    theirs: Duration,
}

#[test]
#[ignore = "takes minutes and the machine's package lists"]
fn chooses_what_apt_chooses() {
    let apt = Apt { dir: tempfile::tempdir().expect("tempdir") };
    std::fs::write(apt.dir.path().join("status"), "").expect("write");
    let lists = apt.lists();
    if lists.is_empty() {
        println!("skipped: there is no apt here, or it has no package lists");
        return;
    }
    let started = Instant::now();
    let mut indexes = Vec::new();
    for (suite, list) in &lists {
        let mut bytes = Vec::new();
        index::build(&mut list.as_slice(), &mut bytes).expect("build");
        println!("{suite}: {} bytes of list, {} of index", list.len(), bytes.len());
        indexes.push((suite, bytes));
    }
    println!("built in {:?}", started.elapsed());
    let started = Instant::now();
    let indexes: Vec<_> = indexes.iter().map(|(suite, bytes)| (suite, Index::open(bytes).expect("open"))).collect();
    println!("opened in {:?}", started.elapsed());

    let essential: BTreeSet<&str> = indexes.iter().flat_map(|(_, index)| index.essential()).collect();
    let essential: Vec<&str> = essential.into_iter().collect();
    let number = |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let names: BTreeSet<&str> = indexes.iter().flat_map(|(_, index)| index.names()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut state: u64 = number("IGLOO_APT_SEED", 1);
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        names[(state >> 33) as usize % names.len()]
    };

    let mut asked: Vec<(Vec<&str>, Base, bool)> = Vec::new();
    for roots in CLOSURES {
        let roots: Vec<&str> = roots.split(' ').collect();
        asked.push((roots.clone(), Base::None, false));
        asked.push((roots.clone(), Base::Minimal, false));
        asked.push((roots.clone(), Base::Essential, false));
        asked.push((roots, Base::None, true));
    }
    for i in 0..number("IGLOO_APT_SAMPLE", 200) {
        let roots: Vec<&str> = (0..1 + i % 4 / 3 * 3).map(|_| draw()).collect();
        asked.push((roots, Base::None, i % 8 == 7));
    }

    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (roots, base, recommends) in asked {
        let tally = tallies.entry(if recommends { "with recommends" } else { "depends only" }).or_default();
        tally.asked += 1;
        let started = Instant::now();
        let mut universe = Indexes::new();
        for (suite, index) in &indexes {
            universe.add(suite, false, index);
        }
        let ours = resolve(&universe, &request(&roots, base, recommends), System::X86_64Linux);
        let took = started.elapsed();
        tally.ours += took;

        // What igloo always prefers, apt has to be told.
        let mut told: Vec<&str> = match base {
            Base::None => Vec::new(),
            Base::Minimal => MINIMAL.to_vec(),
            Base::Essential => [&[MINIMAL[0]][..], &essential].concat(),
        };
        let merged = ours.as_ref().is_ok_and(|r| r.why.contains_key(MINIMAL[0]));
        if merged && base == Base::None {
            told.push(MINIMAL[0]);
        }
        told.extend(&roots);
        let started = Instant::now();
        let theirs = apt.install(&told, recommends);
        let took_theirs = started.elapsed();
        tally.theirs += took_theirs;
        let what = format!("{} (base {base:?}, recommends {recommends})", roots.join(" "));
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => {
                let ours: BTreeMap<String, String> =
                    ours.packages.iter().map(|c| (c.record.name.clone(), c.record.version.to_string())).collect();
                if ours.len() > 400 {
                    println!("{what}: {} packages in {took:?}, apt {took_theirs:?}", ours.len());
                }
                if ours == theirs {
                    tally.equal += 1;
                } else {
                    let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
                        a.iter()
                            .filter(|(n, v)| b.get(*n) != Some(v))
                            .map(|(n, v)| format!("{n} {v}"))
                            .collect::<Vec<_>>()
                    };
                    println!(
                        "DIFFERS {what}: only igloo {:?}, only apt {:?}",
                        only(&ours, &theirs),
                        only(&theirs, &ours)
                    );
                }
            }
            (Err(_), None) => tally.both_refuse += 1,
            (Err(conflict), Some(theirs)) => {
                println!(
                    "DIFFERS {what}: apt has {} packages, igloo: {conflict}\n{}",
                    theirs.len(),
                    conflict.details()
                );
            }
            (Ok(ours), None) => println!("DIFFERS {what}: igloo has {} packages, apt refuses", ours.packages.len()),
        }
    }
    for (what, tally) in &tallies {
        println!(
            "{what}: {} asked, {} equal, {} refused by both; igloo {:?}, apt {:?}",
            tally.asked, tally.equal, tally.both_refuse, tally.ours, tally.theirs
        );
    }
    let plain = &tallies["depends only"];
    assert!((plain.equal + plain.both_refuse) * 100 >= plain.asked * 99, "less than 99 of 100 are as apt has them");
}
