//! TLS, with the one crypto provider that igloo's clients use.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::error::ServeError;

/// From a chain of certificates and its key, both PEM.
pub(crate) fn acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificates).and_then(|found| found.collect()).map_err(pem(certificates))?;
    if chain.is_empty() {
        return Err(ServeError::NoCertificate { path: certificates.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let tls = |source| ServeError::Tls { path: certificates.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(tls)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
