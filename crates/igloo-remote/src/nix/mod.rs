//! Binary caches: where store paths come from, and go to, without Nix.
//!
//! Takes addresses, logins, trusted keys and what is wanted; gives archives whose provenance was checked before a byte
//! of them is read, and whose packed form is checked after the last one. What is in an archive is the store's matter.
//!
//! A cache is a directory of files, on this machine, behind HTTP or in a bucket: `nix-cache-info`,
//! `<digest part>.narinfo`, `nar/<file digest>.nar.<packing>`. Logins go to the cache's own origin and nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use igloo_base::Sha256;
use igloo_formats::nix::signature::signer;
use igloo_formats::nix::{CacheInfo, ContentAddress, NarInfo, PublicKey, STORE_DIR, Signature, StorePath, show_hash};

use crate::Client;

mod address;
mod decode;
mod error;
mod netrc;
mod packed;
mod s3;
mod transport;
mod write;

pub use error::CacheError;
pub use netrc::Netrc;
pub use packed::NarReader;
pub use s3::AwsKeys;
pub use write::{NarFile, PackedNar, Packing};

use address::Address;

/// Who we are to caches.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Names and passwords by host.
    pub netrc: Netrc,
    /// Bearer tokens by host (with its port, if it has one); they come before netrc.
    pub tokens: Vec<(String, String)>,
    /// Keys for S3 that hold for every bucket without a profile of its own.
    pub aws: Option<AwsKeys>,
    /// The text of a file like `~/.aws/credentials`, for profiles.
    pub aws_profiles: Option<String>,
}

/// A path as somebody who is believed says it is: a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The path.
    pub path: StorePath,
    /// Digest of its archive.
    pub nar_hash: Sha256,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Paths that it names, sorted.
    pub references: Vec<StorePath>,
}

/// A binary cache. Clones share what is known of it.
#[derive(Clone)]
pub struct BinaryCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    credentials: Arc<Credentials>,
    address: Address,
    keys: Option<AwsKeys>,
    info: OnceLock<CacheInfo>,
    /// What it said of paths, by digest part; also that it does not have one.
    known: Mutex<HashMap<String, Option<NarInfo>>>,
}

impl std::fmt::Debug for BinaryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BinaryCache").field(&self.inner.address.shown).finish()
    }
}

impl BinaryCache {
    /// A cache at an address as Nix takes it: `https://HOST/DIR?priority=30`, `file:///DIR`,
    /// `s3://BUCKET?region=REGION&endpoint=HOST&profile=NAME`. Asks nobody anything.
    pub fn new(client: &Client, credentials: &Arc<Credentials>, url: &str) -> Result<Self, CacheError> {
        let address = Address::parse(url)?;
        let keys = match &address.place {
            address::Place::S3 { profile: Some(profile), .. } => {
                let text = credentials.aws_profiles.as_deref().unwrap_or_default();
                let why = "there are no keys for its profile";
                let missing = || CacheError::Address { url: address.shown.clone(), why };
                Some(AwsKeys::from_credentials(text, profile).ok_or_else(missing)?)
            }
            address::Place::S3 { .. } => credentials.aws.clone().or_else(|| {
                AwsKeys::from_credentials(credentials.aws_profiles.as_deref().unwrap_or_default(), "default")
            }),
            _ => None,
        };
        let inner = Inner {
            client: client.clone(),
            credentials: Arc::clone(credentials),
            address,
            keys,
            info: OnceLock::new(),
            known: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it is called: its address without parameters and secrets.
    pub fn name(&self) -> &str {
        &self.inner.address.shown
    }

    /// Whether it is a directory of this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.inner.address.place, address::Place::Dir(_))
    }

    /// Whether its address says that signatures need not be checked (`?trusted=1`).
    pub fn is_trusted(&self) -> bool {
        self.inner.address.trusted
    }

    /// What it says of itself; asked once. It must be for the store directory that we have.
    pub fn info(&self) -> Result<&CacheInfo, CacheError> {
        if let Some(info) = self.inner.info.get() {
            return Ok(info);
        }
        let most = igloo_formats::nix::cache_info::MAX_LENGTH;
        let bytes =
            self.document("nix-cache-info", most)?.ok_or_else(|| CacheError::NoCache { cache: self.named() })?;
        let info = CacheInfo::parse(&bytes).map_err(|source| CacheError::Info { cache: self.named(), source })?;
        if info.store_dir != STORE_DIR {
            let found = info.store_dir.chars().take(200).collect();
            return Err(CacheError::StoreDir { cache: self.named(), found });
        }
        Ok(self.inner.info.get_or_init(|| info))
    }

    /// Lower ones are asked first; what the address says counts more than what the cache says.
    pub fn priority(&self) -> Result<u32, CacheError> {
        let own = self.info()?.priority;
        Ok(self.inner.address.priority.unwrap_or(own))
    }

    /// What it says of a path, unchecked; `None` if it does not have it. Asked once.
    pub fn narinfo(&self, path: &StorePath) -> Result<Option<NarInfo>, CacheError> {
        if let Some(known) = self.known().get(path.hash_part()) {
            return Ok(known.clone());
        }
        let name = format!("{}.narinfo", path.hash_part());
        let found = match self.document(&name, igloo_formats::nix::narinfo::MAX_LENGTH)? {
            None => None,
            Some(bytes) => {
                let failed = |source| CacheError::NarInfo { cache: self.named(), path: path.clone(), source };
                let info = NarInfo::parse(&bytes).map_err(failed)?;
                if info.path != *path {
                    return Err(CacheError::OtherPath { cache: self.named(), path: path.clone(), found: info.path });
                }
                Some(info)
            }
        };
        self.known().insert(path.hash_part().to_owned(), found.clone());
        Ok(found)
    }

    /// Like [`BinaryCache::narinfo`], and vouched for: signed by one of `keys`, content-addressed, or of a cache that
    /// is trusted as such. `also` are signatures from elsewhere, which count if they fit.
    pub fn vouched(
        &self,
        path: &StorePath,
        keys: &[PublicKey],
        also: &[Signature],
    ) -> Result<Option<NarInfo>, CacheError> {
        let Some(info) = self.narinfo(path)? else { return Ok(None) };
        if self.is_trusted() || is_content_addressed(&info) {
            return Ok(Some(info));
        }
        let text = info.fingerprint();
        if signer(keys, &text, &info.signatures).or_else(|| signer(keys, &text, also)).is_some() {
            return Ok(Some(info));
        }
        let by = info.signatures.iter().map(|s| s.name.clone()).collect();
        Err(CacheError::Untrusted { cache: self.named(), path: path.clone(), by })
    }

    /// What it offers for a path that is wanted: vouched for, and exactly what is wanted.
    pub fn offer(
        &self,
        wanted: &Wanted,
        keys: &[PublicKey],
        also: &[Signature],
    ) -> Result<Option<NarInfo>, CacheError> {
        let Some(info) = self.narinfo(&wanted.path)? else { return Ok(None) };
        let differs = |what, expected: String, found: String| {
            let (cache, path) = (self.named(), wanted.path.clone());
            Err(CacheError::Differs { cache, path, what, expected, found })
        };
        if info.nar_hash != wanted.nar_hash {
            return differs("NarHash", show_hash(&wanted.nar_hash), show_hash(&info.nar_hash));
        }
        if info.nar_size != wanted.nar_size {
            return differs("NarSize", wanted.nar_size.to_string(), info.nar_size.to_string());
        }
        if info.references != wanted.references {
            let text = |paths: &[StorePath]| {
                let odd = paths.iter().filter(|p| !(info.references.contains(p) && wanted.references.contains(p)));
                odd.map(StorePath::base_name).collect::<Vec<_>>().join(" ")
            };
            return differs("references", text(&wanted.references), text(&info.references));
        }
        self.vouched(&wanted.path, keys, also)
    }

    fn named(&self) -> String {
        self.name().to_owned()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Option<NarInfo>>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the path follows from the content, so that nobody needs to vouch for it: the store checks the content.
pub fn is_content_addressed(info: &NarInfo) -> bool {
    let address = info.content_address.as_ref().and_then(|a| a.parse::<ContentAddress>().ok());
    address.is_some_and(|address| address.makes(&info.path, &info.references))
}
