//! Edits of a manifest's text that keep its comments and its shape.

use crate::error::ManifestError;

/// What an edit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The text changed.
    Changed(String),
    /// It already was as asked; nothing to write.
    Unchanged,
}

/// Why an edit is not possible.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is no manifest to begin with.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The table is not one that lists packages.
    #[error("`{0}` is not a table with packages (try `shells.default`, `services.NAME`, `images.NAME` or `sets.NAME`)")]
    BadTable(String),
    /// There is no such table to remove from.
    #[error("there is no `[{0}]` in the manifest")]
    NoTable(String),
    /// The table does not list the package itself, but a set that it uses may.
    #[error("`{spec}` is not listed in `[{table}]`")]
    NotListed {
        /// The table.
        table: String,
        /// The package.
        spec: String,
    },
    /// The words are not a package.
    #[error("`{spec}` is not a package: {why}")]
    BadSpec {
        /// What was asked for.
        spec: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Adds a package to `[shells.X]`, `[services.X]`, `[images.X]` or a set of `[sets]` (`sets.X`), making the table if
/// there is none; a different version or suite of the same package is replaced.
pub fn add(_text: &str, _table: &str, _spec: &str) -> Result<Edit, EditError> {
    todo!()
}

/// Removes a package (by its spec as written, or its name) from a table.
pub fn remove(_text: &str, _table: &str, _spec: &str) -> Result<Edit, EditError> {
    todo!()
}
