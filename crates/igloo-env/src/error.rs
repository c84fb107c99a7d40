//! What can go wrong between packages and an environment.

use std::path::PathBuf;

use igloo_base::PathError;

/// Why an environment could not be planned, assembled or loaded.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A file could not be read or written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The record of a package's metadata is not readable.
    #[error("`{}` is no metadata of a package that igloo wrote", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// `env.json` is not readable.
    #[error("`{}` is no environment that this igloo can read", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// `env.json` was written by a newer igloo.
    #[error("`{}` has format {found}, this igloo knows format {known}: update igloo", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// Two packages own one path.
    #[error("`/{path}` is in both `{first}` and `{second}`: leave one of the packages out")]
    Collision {
        /// The path, relative to the root.
        path: String,
        /// The one package.
        first: String,
        /// The other package.
        second: String,
    },
    /// A package's file name or link is not acceptable.
    #[error("`{package}` holds a bad path: `{path}`")]
    BadPath {
        /// The package.
        package: String,
        /// The path.
        path: String,
    },
    /// A path goes through more symlinks than the kernel would follow.
    #[error("too many symlinks on the way to `/{path}`")]
    LinkLoop {
        /// The path asked for.
        path: String,
    },
    /// A file that a trigger reads is larger than any such file can be.
    #[error("`{}` has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// An identity that the members need is not in the lock.
    #[error("no id is locked for the {kind} `{name}` of package `{package}`: run `igloo lock`")]
    NoIdentity {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Who asks for it.
        package: String,
    },
    /// The ids from 100 to 999 are used up.
    #[error("no free id from 100 to 999 is left for the {kind} `{name}` of package `{package}`")]
    NoFreeId {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Who asks for it.
        package: String,
    },
    /// `scripts.<package> = "sandbox"`, which igloo cannot do yet.
    #[error(
        "running the scripts of `{0}` in a sandbox is not supported yet: set `scripts.{0}` to \"ignore\" or \"recipe\""
    )]
    Sandbox(String),
    /// `scripts.<package> = "recipe"` without there being a recipe.
    #[error("igloo has no recipe for `{0}`: set `scripts.{0}` to \"ignore\"")]
    NoRecipe(String),
    /// The name of the object is no store path.
    #[error("`{}` is not named as a store object", path.display())]
    NotAnObject {
        /// The directory.
        path: PathBuf,
    },
}
