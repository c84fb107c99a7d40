//! What an environment consists of, for people.

use igloo_formats::deb::meta::Kind;

use crate::union::read_meta_at;
use crate::{EnvError, Environment};

/// One package of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSize {
    /// Package name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Number of files, links included.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// Names and sizes of the packages, from their `meta.json`, in the order of the environment.
pub fn explain(environment: &Environment) -> Result<Vec<MemberSize>, EnvError> {
    let mut sizes = Vec::with_capacity(environment.members.len());
    for (_, physical) in &environment.members {
        let meta = read_meta_at(physical)?;
        let files = meta.entries.iter().filter(|e| e.kind != Kind::Dir);
        let bytes = meta.entries.iter().filter(|e| e.kind == Kind::File).map(|e| e.size).sum();
        sizes.push(MemberSize { files: files.count() as u64, bytes, name: meta.name, version: meta.version });
    }
    Ok(sizes)
}
