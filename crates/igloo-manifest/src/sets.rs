//! The built-in package sets, by source and suite.

use crate::manifest::SourceKind;

/// A built-in set as one source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltIn {
    /// The packages, by the source's names.
    pub packages: Vec<&'static str>,
    /// Tools the source lacks, and why.
    pub missing: Vec<(&'static str, &'static str)>,
}

/// Names of all built-in sets, without `@`.
pub fn names() -> &'static [&'static str] {
    &[]
}

/// A built-in set as a source has it; `suite` matters for Debian only. `None` if there is no such set.
pub fn get(_name: &str, _kind: SourceKind, _suite: &str) -> Option<BuiltIn> {
    todo!()
}

/// One line on what a built-in set is for.
pub fn describe(_name: &str) -> Option<&'static str> {
    todo!()
}
