//! What an environment consists of, for people.

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
pub fn explain(_environment: &Environment) -> Result<Vec<MemberSize>, EnvError> {
    todo!()
}
