//! What can go wrong between here and an archive.

/// An act of this room that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A path of the cache or of the machine's configuration.
    #[error(transparent)]
    Path(#[from] igloo_base::PathError),
    /// The archive no longer has a file that the lock names.
    #[error("`{label}` is no longer at `{url}`")]
    Gone {
        /// What a person calls the file.
        label: String,
        /// Where it was looked for.
        url: String,
    },
}
