//! What can go wrong around a server. What goes wrong with a request is told to the client.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use igloo_base::PathError;

/// A server that can't be started, or an act on its storage that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A file.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An address that can't be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The event loop.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    /// Two servers on one directory would not know of each other's uploads.
    #[error("another server uses `{}`; stop it first, or use another data directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A line of the file of tokens.
    #[error("`{}`, line {line}: {why}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that should hold certificates or a key.
    #[error("cannot read a certificate or key from `{}`", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("there is no certificate in `{}`; it should be PEM", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that doesn't go with its key.
    #[error("cannot serve TLS with `{}`", path.display())]
    Tls {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// A stored manifest that is none: nothing is deleted while it is not known what it needs.
    #[error("the manifest {digest} of `{repository}` can't be understood; delete it or restore its file")]
    BadManifest {
        /// The repository.
        repository: String,
        /// Its digest.
        digest: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Our own JSON.
    #[error("cannot write or read a record of igloo's own")]
    Json(#[source] serde_json::Error),
    /// An image that can't be built.
    #[error(transparent)]
    Ops(#[from] Box<igloo_ops::error::OpsError>),
    /// Content of a built image.
    #[error(transparent)]
    Image(#[from] igloo_image::ImageError),
    /// No randomness for a token.
    #[error("the kernel gives no random bytes")]
    Random(#[source] io::Error),
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}
