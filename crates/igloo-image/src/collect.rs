//! What of this machine's images nobody needs: for `igloo gc`.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use igloo_base::At as _;
use igloo_formats::oci::Digest;

use crate::blobs::Blobs;
use crate::layer::Layer;
use crate::{BuiltImage, ImageError, Trees};

/// Longest record that is looked into.
const MAX_RECORD: u64 = 16 << 20;

/// What stays whatever its age.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// Content by digest.
    pub blobs: BTreeSet<Digest>,
    /// Trees by name.
    pub trees: BTreeSet<String>,
}

/// Paths that can go, with what they take on disk: what is not needed and was last used before `since`, what killed
/// processes left, and what is remembered of blobs that go. Only while nobody else uses images.
pub fn unused(
    blobs: &Blobs,
    trees: &Trees,
    needed: &Needed,
    since: SystemTime,
) -> Result<Vec<(PathBuf, u64)>, ImageError> {
    let mut gone = Vec::new();
    let is_old = |meta: &Metadata| meta.modified().is_ok_and(|used| used < since);
    let mut left = BTreeSet::new();
    for (path, name, meta) in entries(&blobs.directory())? {
        match name.parse().map(Digest) {
            Ok(digest) if needed.blobs.contains(&digest) || !is_old(&meta) => drop(left.insert(digest)),
            // What is called otherwise was to become a blob.
            _ => gone.push((path, on_disk(&meta))),
        }
    }
    for kind in ["layers", "images"] {
        for (path, _, meta) in entries(&blobs.root().join(kind))? {
            if !digests(&path, kind, &meta).is_some_and(|all| all.iter().all(|d| left.contains(d))) {
                gone.push((path, on_disk(&meta)));
            }
        }
    }
    for (path, name, meta) in entries(trees.directory())? {
        let is_whole = !name.starts_with('.');
        if meta.is_dir() && !(is_whole && (needed.trees.contains(&name) || !is_old(&meta))) {
            let bytes = tree_on_disk(&path)?;
            gone.push((path, bytes));
        }
    }
    // Of builds that were to be compared with others.
    for (path, name, meta) in entries(blobs.root())? {
        if meta.is_dir() && name.starts_with('.') {
            let bytes = tree_on_disk(&path)?;
            gone.push((path, bytes));
        }
    }
    Ok(gone)
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, String, Metadata)>, ImageError> {
    let listing = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("list", directory)?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.at("list", directory)?;
        let path = entry.path();
        let meta = entry.metadata().at("look at", &path)?;
        found.push((path, entry.file_name().to_string_lossy().into_owned(), meta));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The blobs that a record is about; none of what is no record.
fn digests(path: &Path, kind: &str, meta: &Metadata) -> Option<Vec<Digest>> {
    if !meta.is_file() || meta.len() > MAX_RECORD {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    match kind {
        "layers" => serde_json::from_slice::<Layer>(&bytes).ok().map(|layer| vec![layer.blob.digest]),
        _ => {
            let image: BuiltImage = serde_json::from_slice(&bytes).ok()?;
            Some(image.blobs().into_iter().map(|blob| blob.digest).collect())
        }
    }
}

/// A file that has another name elsewhere takes its bytes there.
fn on_disk(meta: &Metadata) -> u64 {
    if meta.is_file() && meta.nlink() > 1 { 0 } else { meta.blocks() * 512 }
}

fn tree_on_disk(path: &Path) -> Result<u64, ImageError> {
    let mut total = 0;
    let mut waiting = vec![path.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(directory) = waiting.pop() {
        for (path, _, meta) in entries(&directory)? {
            if meta.is_dir() {
                waiting.push(path);
            }
            if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                total += meta.blocks() * 512;
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use igloo_base::Sha256;
    use igloo_formats::oci::{Descriptor, media};

    use super::*;

    #[test]
    fn what_is_old_and_not_needed_goes_with_what_is_known_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(directory.path());
        let trees = Trees::new(directory.path().join("trees"));
        assert_eq!(unused(&blobs, &trees, &Needed::default(), SystemTime::now()).unwrap(), []);
        let put = |text: &str| blobs.put(media::LAYER, text.as_bytes()).unwrap();
        let (old, needed, fresh) = (put("old"), put("needed"), put("fresh"));
        let day = Duration::from_secs(24 * 3600);
        let age = |path: &Path| {
            fs::File::open(path).unwrap().set_modified(SystemTime::now() - 20 * day).unwrap();
        };
        [&old, &needed].iter().for_each(|d| age(&blobs.path(&d.digest)));
        for descriptor in [&old, &needed, &fresh] {
            let layer = Layer { diff_id: descriptor.digest, unpacked: 1, blob: Descriptor::clone(descriptor) };
            blobs.remember("layers", &Sha256::of(descriptor.digest.to_string().as_bytes()), &layer).unwrap();
        }
        fs::create_dir(blobs.root().join("images")).unwrap();
        fs::write(blobs.root().join("images/damaged"), "{").unwrap();
        fs::write(blobs.directory().join(".igloo-killed"), "half").unwrap();
        fs::create_dir_all(blobs.root().join(".check-killed/blobs")).unwrap();
        for tree in ["old-1", "needed-1", "fresh-1", ".igloo-killed"] {
            fs::create_dir_all(trees.directory().join(tree).join("root")).unwrap();
            fs::write(trees.directory().join(tree).join("root/f"), "x").unwrap();
        }
        ["old-1", "needed-1"].iter().for_each(|tree| age(&trees.directory().join(tree)));
        fs::write(trees.directory().join(".lock"), "").unwrap();
        let keep = Needed { blobs: [needed.digest].into(), trees: ["needed-1".to_owned()].into() };
        let since = SystemTime::now() - 14 * day;
        let gone = unused(&blobs, &trees, &keep, since).unwrap();
        let names: Vec<String> =
            gone.iter().map(|(p, _)| p.strip_prefix(directory.path()).unwrap().display().to_string()).collect();
        let record = Sha256::of(old.digest.to_string().as_bytes());
        assert_eq!(
            names,
            [
                "blobs/sha256/.igloo-killed".to_owned(),
                format!("blobs/sha256/{}", old.digest.0),
                format!("layers/{record}"),
                "images/damaged".to_owned(),
                "trees/.igloo-killed".to_owned(),
                "trees/old-1".to_owned(),
                ".check-killed".to_owned(),
            ]
        );
        assert!(gone.iter().all(|(path, bytes)| *bytes > 0 || path.ends_with("images/damaged")), "{gone:?}");
        // A use makes it young again.
        assert!(blobs.has(&old.digest, old.size));
        let gone = unused(&blobs, &trees, &keep, since).unwrap();
        assert!(!gone.iter().any(|(p, _)| *p == blobs.path(&old.digest)), "{gone:?}");
    }
}
