//! The built-in package sets, by source and suite.
//!
//! The names of Debian's packages were looked up in the archives of bookworm and trixie. A tool that a suite does not
//! have is told with the reason, instead of making the whole set unusable.

use crate::manifest::SourceKind;

/// A built-in set as one source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltIn {
    /// The packages, by the source's names.
    pub packages: Vec<&'static str>,
    /// Tools the source lacks, and why.
    pub missing: Vec<(&'static str, &'static str)>,
}

/// A set as it is written down below.
struct Row {
    name: &'static str,
    about: &'static str,
    debian: &'static [&'static str],
    nixpkgs: &'static [&'static str],
    /// Tools that Debian does not have, or not in every suite.
    missing: &'static [Missing],
}

/// A tool that is not everywhere.
struct Missing {
    tool: &'static str,
    /// The package that suites which are not listed have, if any has one.
    package: Option<&'static str>,
    /// The suites without it; none listed means all.
    suites: &'static [&'static str],
    why: &'static str,
}

const fn nowhere(tool: &'static str, why: &'static str) -> Missing {
    Missing { tool, package: None, suites: &[], why }
}

const ROWS: &[Row] = &[
    Row {
        name: "base",
        about: "a shell and the classic tools, certificates, time zones",
        debian: &["bash", "coreutils", "findutils", "grep", "sed", "ca-certificates", "tzdata"],
        nixpkgs: &["bashInteractive", "coreutils", "findutils", "gnugrep", "gnused", "cacert", "tzdata"],
        missing: &[],
    },
    Row {
        name: "vscodeCompat",
        about: "what the server part of VS Code and its extensions expect to find",
        debian: &[
            "libstdc++6",
            "libgcc-s1",
            "libatomic1",
            "zlib1g",
            "tar",
            "gzip",
            "xz-utils",
            "procps",
            "wget",
            "openssh-client",
        ],
        nixpkgs: &["nix-ld", "stdenv.cc.cc.lib", "zlib", "gnutar", "gzip", "xz", "procps", "wget", "openssh"],
        missing: &[],
    },
    Row {
        name: "devTools",
        about: "git and the tools to look around with",
        // The commands of fd-find and bat are called fdfind and batcat in Debian.
        debian: &["git", "curl", "jq", "ripgrep", "fd-find", "fzf", "bat", "passwd", "sudo"],
        nixpkgs: &["git", "curl", "jq", "ripgrep", "fd", "fzf", "bat", "shadow", "sudo"],
        missing: &[],
    },
    Row {
        name: "nixTools",
        about: "Nix itself and direnv",
        debian: &["nix-bin", "direnv"],
        nixpkgs: &["nix", "direnv", "nix-direnv"],
        missing: &[nowhere("nix-direnv", "Debian does not package it; from nixpkgs it is `nixpkgs:nix-direnv`")],
    },
    Row { name: "bash", about: "bash, to run scripts", debian: &["bash"], nixpkgs: &["bashInteractive"], missing: &[] },
    Row {
        name: "bashDev",
        about: "completion, a linter, a formatter and a test runner for bash",
        debian: &["bash-completion", "shellcheck", "shfmt", "bats"],
        nixpkgs: &["bash-completion", "shellcheck", "shfmt", "bats"],
        missing: &[],
    },
    Row {
        name: "python",
        about: "Python 3, to run programs",
        debian: &["python3"],
        nixpkgs: &["python312"],
        missing: &[],
    },
    Row {
        name: "pythonDev",
        about: "pip, virtual environments, and tools to check Python",
        debian: &["python3-pip", "python3-venv", "python3-virtualenv"],
        nixpkgs: &["python312Packages.pip", "python312Packages.virtualenv", "uv", "ruff", "pyright"],
        missing: &[
            nowhere("uv", "Debian does not package it; `pip install uv` in a virtual environment, or `nixpkgs:uv`"),
            nowhere(
                "ruff",
                "Debian does not package it; `pip install ruff` in a virtual environment, or `nixpkgs:ruff`",
            ),
            nowhere("pyright", "Debian does not package it; `mypy` is there, from nixpkgs it is `nixpkgs:pyright`"),
        ],
    },
    Row { name: "node", about: "Node.js, to run programs", debian: &["nodejs"], nixpkgs: &["nodejs_22"], missing: &[] },
    Row {
        name: "nodeDev",
        about: "npm, TypeScript and tools to check JavaScript",
        debian: &["npm", "node-typescript", "eslint"],
        nixpkgs: &["bun", "typescript", "prettier", "eslint"],
        missing: &[
            nowhere("bun", "Debian does not package it; from nixpkgs it is `nixpkgs:bun`"),
            nowhere("prettier", "Debian does not package it; `npm install prettier` in the project"),
        ],
    },
    Row { name: "go", about: "the Go compiler", debian: &["golang-go"], nixpkgs: &["go"], missing: &[] },
    Row {
        name: "goDev",
        about: "a language server and a linter for Go",
        debian: &["gopls"],
        nixpkgs: &["gopls", "golangci-lint"],
        missing: &[nowhere("golangci-lint", "Debian does not package it; from nixpkgs it is `nixpkgs:golangci-lint`")],
    },
    Row {
        name: "rust",
        about: "the Rust compiler and cargo",
        debian: &["rustc", "cargo"],
        // Debian's rustc depends on a C compiler to link with, the one of nixpkgs does not.
        nixpkgs: &["rustc", "cargo", "gcc"],
        missing: &[],
    },
    Row {
        name: "rustDev",
        about: "a language server, a linter and a formatter for Rust",
        debian: &["rust-clippy", "rustfmt"],
        nixpkgs: &["rust-analyzer", "clippy", "rustfmt"],
        missing: &[Missing {
            tool: "rust-analyzer",
            package: Some("rust-analyzer"),
            suites: &["buster", "bullseye", "bookworm", "oldstable", "oldoldstable"],
            why: "Debian packages it from trixie on; from nixpkgs it is `nixpkgs:rust-analyzer`",
        }],
    },
];

const NAMES: [&str; ROWS.len()] = {
    let mut names = [""; ROWS.len()];
    let mut i = 0;
    while i < ROWS.len() {
        names[i] = ROWS[i].name;
        i += 1;
    }
    names
};

fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// Names of all built-in sets, without `@`.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// Whether there is a built-in set of this name.
pub fn is_built_in(name: &str) -> bool {
    row(name).is_some()
}

/// One line on what a built-in set is for.
pub fn describe(name: &str) -> Option<&'static str> {
    row(name).map(|row| row.about)
}

/// A built-in set as a source has it; `suite` matters for Debian only, and one that is not known is taken for a new
/// one. `None` if there is no such set.
pub fn get(name: &str, kind: SourceKind, suite: &str) -> Option<BuiltIn> {
    let row = row(name)?;
    let mut set = match kind {
        SourceKind::Nixpkgs => return Some(BuiltIn { packages: row.nixpkgs.to_vec(), missing: Vec::new() }),
        SourceKind::Debian => BuiltIn { packages: row.debian.to_vec(), missing: Vec::new() },
    };
    for missing in row.missing {
        match missing.package {
            Some(package) if !missing.suites.contains(&suite) => set.packages.push(package),
            _ => set.missing.push((missing.tool, missing.why)),
        }
    }
    Some(set)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_missing_only_where_it_is() {
        let old = get("rustDev", SourceKind::Debian, "bookworm").unwrap();
        assert_eq!(old.packages, ["rust-clippy", "rustfmt"]);
        assert_eq!(old.missing[0].0, "rust-analyzer");
        let new = get("rustDev", SourceKind::Debian, "trixie").unwrap();
        assert_eq!(new.packages, ["rust-clippy", "rustfmt", "rust-analyzer"]);
        assert!(new.missing.is_empty());
        assert!(get("rustDev", SourceKind::Nixpkgs, "").unwrap().missing.is_empty());
        assert_eq!(get("nothing", SourceKind::Debian, "trixie"), None);
    }

    /// The flake has the same sets.
    #[test]
    fn nix_has_the_same_names() {
        let text = include_str!("../../../nix/package-sets.json");
        let of_nix: std::collections::BTreeMap<&str, Vec<&str>> = serde_json::from_str(text).unwrap();
        let ours = ROWS.iter().map(|row| (row.name, row.nixpkgs.to_vec())).collect();
        assert_eq!(of_nix, ours);
    }

    #[test]
    fn names_are_packages_and_come_once() {
        for row in ROWS {
            for packages in [row.debian, row.nixpkgs] {
                assert!(!packages.is_empty(), "{}", row.name);
                for (i, package) in packages.iter().enumerate() {
                    assert!(crate::words::spec(package).is_ok(), "{package}");
                    assert!(!packages[..i].contains(package), "{package} is twice in {}", row.name);
                }
            }
        }
    }
}
