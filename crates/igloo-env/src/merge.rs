//! Bundles: several packages as one layer, for environments with more packages than an overlay takes layers.

use std::path::Path;

use crate::{EnvError, Member};

/// The most layers igloo puts below the generated one; the kernel's limit is 500.
pub const MAX_LOWERS: usize = 400;

/// Which members to merge, by index, when there are more than [`MAX_LOWERS`]; empty if there are not. Each group with
/// more than one member becomes a store object by [`merge`]; members in no group stay layers of their own.
pub fn bundles(_members: &[Member]) -> Result<Vec<Vec<usize>>, EnvError> {
    todo!()
}

/// Copies the trees of `members` to `out/data`; the name of the object is `env-bundle-…`, it has no references.
pub fn merge(_members: &[&Member], _out: &Path) -> Result<(), EnvError> {
    todo!()
}
