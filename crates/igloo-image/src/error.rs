//! What goes wrong with images.

use std::path::PathBuf;

use igloo_base::PathError;
use igloo_formats::oci::Digest;

/// An act on images that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file system said no.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The environment's own records are damaged.
    #[error(transparent)]
    Environment(#[from] igloo_env::EnvError),
    /// A file of a store object is not what its record says.
    #[error(
        "`{path}` is not what the record of its package says; `igloo store verify --contents` finds all that is damaged"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A name or the target of a link that layers can't carry so that every reader has the same.
    #[error("`{path}` has a name or a target that is no UTF-8 text, which images can't have")]
    NotText {
        /// The file or link.
        path: PathBuf,
    },
    /// A layer could not be written.
    #[error("cannot write layer `{layer}`")]
    WriteLayer {
        /// The layer's name in the plan.
        layer: String,
        /// Why.
        source: std::io::Error,
    },
    /// A record of this room's own is no JSON of the expected shape.
    #[error("cannot read `{path}`")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A document of an image is not one.
    #[error("{what} of `{image}` is damaged or was never an image")]
    Document {
        /// `the index`, `the manifest` or `the configuration`.
        what: &'static str,
        /// Which image.
        image: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Content that is named is not there.
    #[error("`{image}` names {digest}, which is not in it")]
    MissingBlob {
        /// Which image.
        image: String,
        /// What is missing.
        digest: Digest,
    },
    /// Content does not have the digest that names it.
    #[error("{digest} of `{image}` has other content than its digest says")]
    WrongDigest {
        /// Which image.
        image: String,
        /// What was promised.
        digest: Digest,
    },
    /// A name in a layer that no layer should have.
    #[error("layer {digest} has an entry `{entry}` that is refused: {why}")]
    HostileEntry {
        /// The layer.
        digest: Digest,
        /// The entry's name.
        entry: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A layer that can't be read as a tar.
    #[error("layer {digest} cannot be read")]
    ReadLayer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// A kind of layer, index or image that igloo does not read.
    #[error("`{image}`: {what}")]
    Unsupported {
        /// Which image.
        image: String,
        /// What it has.
        what: String,
    },
    /// No image for this machine in an index.
    #[error("`{image}` has no image for {wanted}; it has: {}", .found.join(", "))]
    NoPlatform {
        /// Which image.
        image: String,
        /// `linux/amd64`.
        wanted: String,
        /// What it has.
        found: Vec<String>,
    },
    /// A user that the image does not have.
    #[error("image `{image}` has no user or group `{name}`; name one of its packages' users, or a number")]
    NoUser {
        /// The image.
        image: String,
        /// As it was written.
        name: String,
    },
    /// A path that is already something else.
    #[error("`{path}` is {found} in the image and cannot become {wanted}")]
    InTheWay {
        /// Path in the image.
        path: String,
        /// What is there.
        found: &'static str,
        /// What was to be put there.
        wanted: &'static str,
    },
}
