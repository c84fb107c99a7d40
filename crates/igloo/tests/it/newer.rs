//! Debian 13's Nix (2.26) beside the machine's own, from an environment of igloo's.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::world::people;

/// Where its commands are; none, and a line that says why, if it can't be had here.
pub fn nix() -> Option<&'static Path> {
    static NEWER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let person = people().into_iter().next()?;
        let run = |script: &str| {
            let directory = person.directory("newer");
            let words = ["run", "--suite", "trixie", "-p", "nix-bin", "-p", "openssh-client", "--", "sh", "-c", script];
            person.igloo(&directory, &words)
        };
        let version = run("nix --version");
        if version.code() != Some(0) {
            println!("skipped: no Nix of Debian 13 here: {}", version.stderr());
            return None;
        }
        assert!(version.stdout().contains(" 2.26."), "{}", version.stdout());
        Some(PathBuf::from(run("dirname \"$(command -v nix)\"").ok().trim()))
    };
    NEWER.get_or_init(find).as_deref()
}
