//! Everything that can fail in the store.

use std::io;
use std::path::PathBuf;

use igloo_base::{PathError, Sha256};
use igloo_formats::deb::archive::ArchiveError;
use igloo_formats::nix::StorePath;
use igloo_formats::nix::nar::NarError;
use igloo_formats::nix::store_path::StorePathError;

/// What failed in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A question to the database, or a change of it.
    #[error("cannot {act} in the store database `{}`", path.display())]
    Database {
        /// What was tried: `register objects`.
        act: &'static str,
        /// The database.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The database has a shape that we do not know.
    #[error("the store database `{}` has schema `{found}`, known is {known}", path.display())]
    Schema {
        /// File that tells the schema.
        path: PathBuf,
        /// What it tells.
        found: String,
        /// What we know.
        known: u32,
    },
    /// There is no store to read.
    #[error("there is no store below `{}`", .0.display())]
    NoStore(PathBuf),
    /// The store was opened to read only.
    #[error("the store below `{}` was opened to read only", .0.display())]
    ReadOnly(PathBuf),
    /// The database names something that is no store path.
    #[error("the store database names a bad path")]
    BadPath(#[source] StorePathError),
    /// The database holds a digest that is none.
    #[error("the store database has a bad digest for `{0}`")]
    BadDigest(StorePath),
    /// A name that no object can have.
    #[error("no object can have this name")]
    BadName(#[source] StorePathError),
    /// An object refers to one that is not there.
    #[error("`{path}` refers to `{reference}`, which is not in the store")]
    MissingReference {
        /// The object.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// An object that has to be valid is not.
    #[error("`{0}` is not in the store")]
    NotValid(StorePath),
    /// A tree has something that no object can hold.
    #[error("`{}` can not be part of a store object: {why}", path.display())]
    BadFile {
        /// What it is.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A project or key with a slash, or nothing, or dots.
    #[error("`{0}` can not name a root")]
    BadRoot(String),
    /// A .deb is shorter or longer than its index says.
    #[error("`{}` has {found} bytes, expected are {expected}: it is truncated or not the same archive", path.display())]
    DebSize {
        /// The .deb.
        path: PathBuf,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A .deb is not what its index says.
    #[error("`{}` has sha256 {found}, expected is {expected}: it was changed or damaged", path.display())]
    DebDigest {
        /// The .deb.
        path: PathBuf,
        /// Digest it should have.
        expected: Sha256,
        /// Digest it has.
        found: Sha256,
    },
    /// A .deb that can't be unpacked.
    #[error("cannot unpack `{}`", path.display())]
    Deb {
        /// The .deb.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ArchiveError,
    },
    /// A .deb says that it is another package.
    #[error("`{}` says that its {field} is `{found}`, expected is `{expected}`", path.display())]
    DebIdentity {
        /// The .deb.
        path: PathBuf,
        /// `package`, `version` or `architecture`.
        field: &'static str,
        /// What it should say.
        expected: String,
        /// What it says.
        found: String,
    },
    /// An archive of an object that is none.
    #[error("the archive of `{path}` is bad")]
    Nar {
        /// The object.
        path: StorePath,
        /// What is wrong with it.
        #[source]
        source: NarError,
    },
    /// An archive that could not be read to its end.
    #[error("cannot read the archive of `{path}`")]
    NarRead {
        /// The object.
        path: StorePath,
        /// Why.
        source: io::Error,
    },
    /// An archive of another size.
    #[error("the archive of `{path}` has {}{found} bytes, expected are {expected}", if found > expected { "at least " } else { "" })]
    NarSize {
        /// The object.
        path: StorePath,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has, or that were read before this was clear.
        found: u64,
    },
    /// An archive with other content.
    #[error("the archive of `{path}` has sha256 {found}, expected is {expected}")]
    NarHash {
        /// The object.
        path: StorePath,
        /// Digest it should have.
        expected: Sha256,
        /// Digest it has.
        found: Sha256,
    },
    /// A content-addressed object with other content.
    #[error("the content of `{path}` is not what its content address says")]
    ContentAddress {
        /// The object.
        path: StorePath,
    },
    /// A thread that unpacked an archive died.
    #[error("a thread that unpacks archives died; this is a bug")]
    ThreadDied,
}
