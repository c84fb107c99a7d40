//! Objects that running processes use: their programs, open files, mappings, variables and mounts.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use igloo_formats::nix::{STORE_DIR, StorePath};

/// Longest file of one process that is read. Overlays of hundreds of layers make long mount tables.
const MAX_FILE: u64 = 16 << 20;

/// Those of `known` that a process of ours (root: any process) uses, with its number.
pub(crate) fn in_use(known: impl Iterator<Item = StorePath>) -> BTreeSet<(u32, StorePath)> {
    let known: HashMap<Vec<u8>, StorePath> = known.map(|p| (p.hash_part().as_bytes().to_vec(), p)).collect();
    let mut found = BTreeSet::new();
    if known.is_empty() {
        return found;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let mut scan = |bytes: &[u8]| {
            for path in mentioned(bytes, &known) {
                found.insert((pid, path.clone()));
            }
        };
        // A process may end, or belong to somebody else, at every step: then it has nothing to say.
        let dir = process.path();
        let fds = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        for link in ["exe", "cwd", "root"].map(|l| dir.join(l)).into_iter().chain(fds) {
            if let Ok(target) = fs::read_link(link) {
                scan(target.as_os_str().as_bytes());
            }
        }
        for file in ["maps", "environ", "mountinfo"] {
            if let Some(bytes) = read_some(&dir.join(file)) {
                scan(&bytes);
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

/// Objects whose path, logical or below any root, is in `bytes`.
fn mentioned<'a>(bytes: &[u8], known: &'a HashMap<Vec<u8>, StorePath>) -> Vec<&'a StorePath> {
    let mut out = Vec::new();
    let needle = [STORE_DIR.as_bytes(), b"/"].concat();
    let mut rest = bytes;
    while let Some(at) = find(rest, &needle) {
        rest = &rest[at + needle.len()..];
        if let Some(path) = rest.get(..32).and_then(|hash| known.get(hash)) {
            out.push(path);
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
        let object = dir.path().join("nix/store").join(path.base_name());
        fs::create_dir_all(&object).expect("mkdir");
        fs::copy("/bin/sleep", object.join("sleep")).expect("copy");
        let mut child = std::process::Command::new(object.join("sleep")).arg("60").spawn().expect("spawn");
        let found = in_use([path.clone(), other].into_iter());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(child.id(), path)]);
    }
}
