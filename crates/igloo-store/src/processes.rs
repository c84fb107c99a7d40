//! Objects that running processes use: their programs, open files, mappings, variables and mounts.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use igloo_formats::nix::{STORE_DIR, StorePath};

/// Longest file of one process that is read. Overlays of hundreds of layers make long mount tables.
const MAX_FILE: u64 = 16 << 20;

/// Those of `known`, which lie in `store`, that a process of ours (root: any process) uses, with its number.
pub(crate) fn in_use(store: &Path, known: impl Iterator<Item = StorePath>) -> BTreeSet<(u32, StorePath)> {
    let known: HashMap<Vec<u8>, StorePath> = known.map(|p| (p.hash_part().as_bytes().to_vec(), p)).collect();
    let mut found = BTreeSet::new();
    if known.is_empty() {
        return found;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let mut scan = |bytes: &[u8], whole: bool| {
            for path in mentioned(bytes, &known, if whole { Some(store) } else { None }) {
                found.insert((pid, path.clone()));
            }
        };
        // A process may end, or belong to somebody else, at every step: then it has nothing to say.
        let dir = process.path();
        let fds = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        for link in ["exe", "cwd", "root"].map(|l| dir.join(l)).into_iter().chain(fds) {
            if let Ok(target) = fs::read_link(link) {
                scan(target.as_os_str().as_bytes(), true);
            }
        }
        for file in ["maps", "environ", "mountinfo"] {
            if let Some(bytes) = read_some(&dir.join(file)) {
                // The mount table tells what is mounted by its path in its file system, which may lack the first part.
                scan(&bytes, file != "mountinfo");
            }
        }
    }
    found
}

fn read_some(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE), &mut bytes).ok()?;
    Some(bytes)
}

/// Objects whose path is in `bytes`: with `store`, a path into it or a logical one; without, one below any root.
fn mentioned<'a>(bytes: &[u8], known: &'a HashMap<Vec<u8>, StorePath>, store: Option<&Path>) -> Vec<&'a StorePath> {
    let mut out = Vec::new();
    let needle = [STORE_DIR.as_bytes(), b"/"].concat();
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], &needle) {
        let (begin, end) = (from + at, from + at + needle.len());
        from = end;
        let part_of_path = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+~@".contains(b);
        let logical = !bytes[..begin].last().is_some_and(part_of_path);
        let ours = |store: &Path| bytes[..end - 1].ends_with(store.as_os_str().as_bytes());
        if logical || store.is_none_or(ours) {
            out.extend(bytes.get(end..end + 32).and_then(|hash| known.get(hash)));
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // `/` is rare enough, and the second byte of the needle settles most of them.
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|b| *b == needle[0]) {
        let at = from + at;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_an_object_is_seen_while_it_runs() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = StorePath::parse("yyr7r82l08607461bjnaqxw54fiafnqw-sleep").expect("path");
        let other = StorePath::parse("00000000000000000000000000000000-other").expect("path");
        let store = dir.path().join("nix/store");
        let object = store.join(path.base_name());
        fs::create_dir_all(&object).expect("mkdir");
        fs::copy("/bin/sleep", object.join("sleep")).expect("copy");
        let mut child = std::process::Command::new(object.join("sleep")).arg("60").spawn().expect("spawn");
        let found = in_use(&store, [path.clone(), other].into_iter());
        let elsewhere = in_use(Path::new("/other/nix/store"), [path.clone()].into_iter());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(elsewhere.is_empty(), "the same object of another store");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(child.id(), path)]);
    }
}
