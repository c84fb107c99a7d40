//! `igloo store`.

use std::path::{Path, PathBuf};

use igloo_base::Sha256;
use igloo_formats::nix::StorePath;
use igloo_store::{Holder, ListedKind, Store};
use serde::Serialize;

use crate::context::Context;
use crate::error::OpsError;

/// What the database knows of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The store path.
    pub path: String,
    /// `sha256:<nix32>`.
    pub nar_hash: String,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Store paths it names.
    pub references: Vec<String>,
    /// Seconds since 1970.
    pub registration_time: i64,
    /// How the path follows from the content.
    pub ca: Option<String>,
    /// The store's own directory of it.
    pub physical: PathBuf,
}

/// One file of an object.
#[derive(Debug, Serialize)]
pub struct ListedFile {
    /// Below the object.
    pub path: String,
    /// As `ls -l` writes it.
    pub mode: &'static str,
    /// Bytes.
    pub size: u64,
    /// Of a symlink.
    pub target: Option<String>,
}

/// What `verify` found.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Objects looked at.
    pub checked: usize,
    /// One line each.
    pub problems: Vec<String>,
}

/// What keeps an object.
#[derive(Debug, Serialize)]
pub struct RootLine {
    /// Who holds it.
    pub root: String,
    /// What is held.
    pub path: String,
}

/// The store's root directory, `local?root=` of real Nix.
pub fn root(ctx: &Context<'_>) -> PathBuf {
    ctx.dirs.store_root().to_owned()
}

fn open(ctx: &Context<'_>) -> Result<Store, OpsError> {
    Ok(Store::open(ctx.dirs.store_root())?)
}

fn parse(store: &Store, text: &str) -> Result<StorePath, OpsError> {
    let inside = Path::new(text).strip_prefix(store.root()).map_or(text.to_owned(), |p| format!("/{}", p.display()));
    StorePath::parse(&inside).map_err(|_| OpsError::NoStorePath { text: text.to_owned() })
}

/// What is known of some objects; of all if none is named.
pub fn path_info(ctx: &Context<'_>, paths: &[String], recursive: bool) -> Result<Vec<Info>, OpsError> {
    let store = open(ctx)?;
    let wanted = paths.iter().map(|p| parse(&store, p)).collect::<Result<Vec<_>, _>>()?;
    let infos = if wanted.is_empty() {
        store.list()?
    } else if recursive {
        store.closure(&wanted)?
    } else {
        let mut infos = Vec::new();
        for path in &wanted {
            infos.push(store.path_info(path)?.ok_or_else(|| OpsError::NotInStore { path: path.full() })?);
        }
        infos
    };
    Ok(infos
        .into_iter()
        .map(|info| Info {
            physical: store.physical(&info.path),
            path: info.path.full(),
            nar_hash: nix_hash(&info.nar_hash),
            nar_size: info.nar_size,
            references: info.references.iter().map(StorePath::full).collect(),
            registration_time: info.registered,
            ca: info.content_address,
        })
        .collect())
}

fn nix_hash(digest: &Sha256) -> String {
    format!("sha256:{}", igloo_formats::nix::base32::encode(&digest.0))
}

/// The files of an object.
pub fn ls(ctx: &Context<'_>, path: &str) -> Result<Vec<ListedFile>, OpsError> {
    let store = open(ctx)?;
    let path = parse(&store, path)?;
    if !store.is_valid(&path)? {
        return Err(OpsError::NotInStore { path: path.full() });
    }
    Ok(store
        .ls(&path, Path::new(""))?
        .into_iter()
        .map(|listed| {
            let (mode, size, target) = match listed.kind {
                ListedKind::File { size, executable: true } => ("-r-xr-xr-x", size, None),
                ListedKind::File { size, executable: false } => ("-r--r--r--", size, None),
                ListedKind::Dir => ("dr-xr-xr-x", 0, None),
                ListedKind::Link(target) => ("lrwxrwxrwx", 0, Some(target.display().to_string())),
            };
            ListedFile { path: listed.path.display().to_string(), mode, size, target }
        })
        .collect())
}

/// Checks every object.
pub fn verify(ctx: &Context<'_>, contents: bool) -> Result<Verified, OpsError> {
    let store = open(ctx)?;
    let report = store.verify(contents, ctx.reporter)?;
    let missing = report.missing.iter().map(|p| format!("{} is registered, but not there", p.full()));
    let modified = report.modified.iter().map(|(p, expected, found)| {
        format!("{} was modified: {} instead of {}", p.full(), nix_hash(found), nix_hash(expected))
    });
    let unreadable = report.unreadable.iter().map(|(p, why)| format!("{} can't be read: {why}", p.full()));
    Ok(Verified { checked: report.checked, problems: missing.chain(modified).chain(unreadable).collect() })
}

/// What keeps objects from being collected.
pub fn roots(ctx: &Context<'_>) -> Result<Vec<RootLine>, OpsError> {
    let store = open(ctx)?;
    Ok(store
        .roots()?
        .into_iter()
        .map(|root| RootLine { root: holder(&root.holder), path: root.target.full() })
        .collect())
}

/// Who holds a root, in words.
pub(crate) fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Project { project, key } => format!("{project}: {}", key.split('@').next().unwrap_or(key)),
        Holder::Link(path) => path.display().to_string(),
        Holder::Temporary(pid) => format!("process {pid}, which is adding it"),
        Holder::Caller => "a container that runs".to_owned(),
        Holder::Process(pid) => format!("process {pid}"),
    }
}
