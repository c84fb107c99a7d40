//! Packages by name, from nixpkgs and flakes: one evaluation says which store paths they come to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use super::{Nix, NixError};

/// The expression, called with a [`Question`] as JSON.
const EXPRESSION: &str = include_str!("packages.nix");

/// What is to be evaluated.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The package set's files: a directory that `import` takes.
    pub source: Option<PathBuf>,
    /// Nix's names of systems.
    pub systems: Vec<String>,
    /// Packages.
    pub names: Vec<Name>,
    /// Outputs of flakes.
    pub outputs: Vec<FlakeOutput>,
    /// Files of overlays, in their order.
    pub overlays: Vec<PathBuf>,
    /// `config.allowUnfree`.
    pub allow_unfree: bool,
    /// `config.permittedInsecurePackages`.
    pub permitted_insecure: Vec<String>,
    /// An error ends the evaluation, and says why.
    pub strict: bool,
}

/// A package asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// As the manifest has it.
    pub asked: String,
    /// The attribute path.
    pub path: Vec<String>,
}

/// An output of a flake asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FlakeOutput {
    /// As the manifest has it.
    pub asked: String,
    /// The flake, locked.
    pub reference: String,
    /// The attribute path below `packages.<system>`; empty for `default`.
    pub path: Vec<String>,
}

/// What became of one name on one system.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// There it is.
    Package(Package),
    /// No such attribute, or it is no package.
    Missing {
        /// As the manifest has it.
        asked: String,
        /// What begins alike.
        missing: Vec<String>,
        /// `set` if there is one of the name that is no package.
        kind: Option<String>,
    },
    /// Its evaluation failed.
    Failed {
        /// As the manifest has it.
        asked: String,
        /// Always.
        #[serde(rename = "failed")]
        _failed: bool,
    },
}

/// A package, evaluated.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// As the manifest has it.
    pub asked: String,
    /// Its version, empty if it has none.
    pub version: String,
    /// Its name, `jq-1.7`.
    pub name: String,
    /// `meta.priority`.
    pub priority: i64,
    /// Full path of its derivation.
    pub drv: String,
    /// The outputs to install, or the one that was asked for.
    pub outputs: Vec<Output>,
}

/// An output of a package.
#[derive(Debug, Clone, Deserialize)]
pub struct Output {
    /// `out`, `bin`.
    pub name: String,
    /// Full store path.
    pub path: String,
}

/// What `nix flake metadata --json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The store path of its files.
    pub path: PathBuf,
    /// Where exactly it is: a reference with revision or hash.
    #[serde(default, alias = "lockedUrl")]
    pub url: String,
    /// Revision, if it has one.
    #[serde(default)]
    pub revision: String,
    /// How it is locked.
    #[serde(default)]
    pub locked: BTreeMap<String, serde_json::Value>,
}

/// What Nix is configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// Binary caches.
    pub caches: Vec<String>,
    /// Public keys that are trusted.
    pub keys: Vec<String>,
}

#[derive(Deserialize)]
struct Setting {
    value: serde_json::Value,
}

/// A path as `nix path-info --json` tells of it, of any version.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathInfo {
    /// Full path; the key of the object in newer versions.
    #[serde(default)]
    pub path: String,
    /// `sha256:` and nix32, or `sha256-` and base64.
    pub nar_hash: String,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Full paths.
    #[serde(default)]
    pub references: Vec<String>,
    /// How it follows from its content.
    #[serde(default)]
    pub ca: Option<String>,
    /// `name:base64`.
    #[serde(default)]
    pub signatures: Vec<String>,
}

impl Nix {
    /// Where a flake's files are, and where exactly it is.
    pub fn flake(&self, directory: &Path, reference: &str) -> Result<Metadata, NixError> {
        self.json(directory, &["flake", "metadata", "--json", reference])
    }

    /// Evaluates all that is asked, once; by system, in the order of names and then outputs.
    pub fn packages(&self, directory: &Path, question: &Question) -> Result<BTreeMap<String, Vec<Answer>>, NixError> {
        let expression = Self::expression(question);
        self.json(directory, &["eval", "--impure", "--json", "--expr", &expression])
    }

    /// What Nix says of one that can't be evaluated: number `index` of the names and outputs, on the first system.
    pub fn why_not(&self, directory: &Path, question: &Question, index: usize) -> String {
        let mut one = Question { strict: true, ..question.clone() };
        one.systems.truncate(1);
        match index.checked_sub(question.names.len()) {
            None => (one.names, one.outputs) = (vec![question.names[index].clone()], Vec::new()),
            Some(index) => (one.names, one.outputs) = (Vec::new(), vec![question.outputs[index].clone()]),
        }
        match self.packages(directory, &one) {
            Ok(_) => "it evaluates by itself, and not beside the others".to_owned(),
            Err(NixError::Failed { said, .. }) => said,
            Err(other) => other.to_string(),
        }
    }

    fn expression(question: &Question) -> String {
        let json = serde_json::to_string(question).unwrap_or_default();
        format!("({EXPRESSION}) (builtins.fromJSON {})", string(&json))
    }

    /// Roots these paths at a link below ours, so that Nix's collector keeps them.
    pub fn keep(&self, directory: &Path, paths: &[String], link: &Path) -> Result<(), NixError> {
        let link = link.to_string_lossy();
        let words: Vec<&str> =
            ["--add-root", &link, "--indirect"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.realise(directory, &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    /// Caches and keys of Nix's configuration.
    pub fn configured(&self, directory: &Path) -> Result<Configured, NixError> {
        // Its name since 2.20 is `config show`; the old one still works.
        let all: BTreeMap<String, Setting> = self.json(directory, &["show-config", "--json"])?;
        let words = |name: &str| match all.get(name).map(|s| &s.value) {
            Some(serde_json::Value::Array(list)) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            Some(serde_json::Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        // Whoever wants nothing from caches wants nothing from them here.
        let substitutes = all.get("substitute").is_none_or(|s| s.value != serde_json::Value::Bool(false));
        let caches = if substitutes { words("substituters") } else { Vec::new() };
        Ok(Configured { caches, keys: words("trusted-public-keys") })
    }

    /// Builds or substitutes all outputs of these derivations. By `nix-store`, which all versions take alike.
    pub fn realise(&self, directory: &Path, derivations: &[String]) -> Result<(), NixError> {
        let mut command = self.tool("nix-store");
        command.arg("--realise").args(derivations);
        let output = command.current_dir(directory).stdin(Stdio::null()).output();
        let output = output.map_err(|source| NixError::Start { program: self.program.clone(), source })?;
        self.failed(&["store", "--realise"], &output).map_or(Ok(()), Err)
    }

    /// What Nix's store knows of the closure of these paths.
    pub fn closure(&self, directory: &Path, paths: &[String]) -> Result<Vec<PathInfo>, NixError> {
        let mut words = vec!["path-info", "--recursive", "--json"];
        words.extend(paths.iter().map(String::as_str));
        let answer: serde_json::Value = self.json(directory, &words)?;
        let infos = match answer {
            // Since 2.19 an object by path.
            serde_json::Value::Object(by_path) => by_path
                .into_iter()
                .map(|(path, info)| serde_json::from_value(info).map(|info: PathInfo| PathInfo { path, ..info }))
                .collect(),
            list => serde_json::from_value(list),
        };
        infos.map_err(|source| NixError::Answer { what: "path-info".to_owned(), source })
    }
}

/// A string of Nix's language.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '$' => quoted.push_str("\\$"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
