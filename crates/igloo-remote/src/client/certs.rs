//! Certificates of single hosts, in the directories that docker and podman have: `HOST[:PORT]/`, therein `*.crt` for
//! authorities, `NAME.cert` and `NAME.key` for who we are.

use std::path::{Path, PathBuf};

use igloo_base::At;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, parse_pem};

use crate::RemoteError;

/// Largest certificate file that is read: bundles of all authorities are a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// The directory of an address' host, if there is one.
pub(super) fn directory(certs: &Path, uri: &Uri) -> Option<PathBuf> {
    let authority = uri.authority()?.as_str();
    // What parses as an authority has no `/`, but could be `..`.
    let name = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!name.starts_with('.')).then(|| certs.join(name)).filter(|path| path.is_dir())
}

/// The authorities of a directory beside the machine's, and the first identity in it.
pub(super) fn read(directory: &Path, roots: RootCerts) -> Result<(RootCerts, Option<ClientCert>), RemoteError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).at("list", directory)? {
        names.push(entry.at("list", directory)?.path());
    }
    names.sort();
    let with = |extension: &str| {
        let extension = extension.to_owned();
        names.iter().filter(move |path| path.extension().is_some_and(|e| *e == *extension))
    };
    let mut authorities = Vec::new();
    for path in with("crt") {
        let (found, _) = parse(path)?;
        if found.is_empty() {
            return Err(RemoteError::Certificate { path: path.clone(), why: "there is no certificate in it" });
        }
        authorities.extend(found);
    }
    let mut identity = None;
    for path in with("cert") {
        let (chain, _) = parse(path)?;
        let key_path = path.with_extension("key");
        let (_, key) = parse(&key_path)?;
        let key = key.ok_or(RemoteError::Certificate { path: key_path, why: "there is no private key in it" })?;
        if chain.is_empty() {
            return Err(RemoteError::Certificate { path: path.clone(), why: "there is no certificate in it" });
        }
        identity.get_or_insert_with(|| ClientCert::new_with_certs(&chain, key));
    }
    let roots = match roots {
        roots if authorities.is_empty() => roots,
        RootCerts::Specific(known) => known.iter().cloned().chain(authorities).into(),
        // The built-in ones cannot be added to; a host with an authority of its own hardly needs them.
        _ => authorities.into_iter().into(),
    };
    Ok((roots, identity))
}

/// Certificates and the first private key of a file in PEM.
fn parse(path: &Path) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>), RemoteError> {
    let length = std::fs::metadata(path).at("look at", path)?.len();
    if length > MAX_FILE {
        return Err(RemoteError::Certificate { path: path.to_owned(), why: "it is larger than 1 MiB" });
    }
    let pem = std::fs::read(path).at("read", path)?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(PemItem::PrivateKey(found)) => key = key.or(Some(found)),
            Ok(_) => {}
            Err(_) => return Err(RemoteError::Certificate { path: path.to_owned(), why: "it is not PEM" }),
        }
    }
    Ok((certificates, key))
}
