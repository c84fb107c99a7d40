//! From a manifest to what a resolver is asked: sets expanded, names assigned to sources.

use std::ops::Range;

use igloo_base::Sha256;
use igloo_formats::deb::Version;

use crate::manifest::{Base, Manifest};

/// What is to be resolved for one environment from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRequest {
    /// The environment, `shells.default`.
    pub key: String,
    /// The source's name; an environment of two sources has one request for each.
    pub source: String,
    /// The packages asked for, sets expanded, in the order written, each once.
    pub roots: Vec<Root>,
    /// The packages that must not come along.
    pub excludes: Vec<String>,
    /// What the environment starts from.
    pub base: Base,
    /// Whether recommended packages come along.
    pub recommends: bool,
}

/// A package asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Exactly this version.
    pub version: Option<Version>,
    /// From this suite.
    pub suite: Option<String>,
    /// Where the manifest asks for it: the name itself, or the set it is part of.
    pub span: Range<usize>,
}

/// A tool of a built-in set that the source does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingTool {
    /// The environment, `shells.default`.
    pub key: String,
    /// The set, without `@`.
    pub set: String,
    /// The tool.
    pub tool: String,
    /// Why it is missing, and what to do instead.
    pub why: String,
}

impl Manifest {
    /// One request for each environment and source; sets expanded.
    pub fn environments(&self) -> Vec<EnvironmentRequest> {
        todo!()
    }

    /// Tools that the built-in sets in use cannot give.
    pub fn missing_tools(&self) -> Vec<MissingTool> {
        todo!()
    }

    /// The source that names without a prefix belong to.
    pub fn default_source(&self) -> Option<&str> {
        todo!()
    }
}

/// Digest of everything in the manifest that resolution depends on, and of nothing else.
pub fn request_digest(_manifest: &Manifest) -> Sha256 {
    todo!()
}
