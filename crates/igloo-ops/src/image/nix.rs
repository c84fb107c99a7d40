//! Nix's packages in images: each store path of a closure is a package to the plan of layers, and to the image's layers.
//! With `nix-db` Nix itself works in the image: a database in which the closure is valid, and a store of the user's.

use igloo_base::file::create_dirs;
use igloo_base::{At as _, System};
use igloo_formats::nix::StorePath;
use igloo_image::entry::Entry;
use igloo_image::plan::{FleetPackage, NIX};
use igloo_image::{Additions, Package, PackageKind};
use igloo_manifest::Lock;
use igloo_manifest::lock::LockedPath;
use igloo_store::{PathInfo, SCHEMA, Store, database_of};

use super::spec::OfNix;
use crate::builder::content as builder;
use crate::error::OpsError;
use crate::nix;

/// What a compressed archive takes of what it holds, about.
const COMPRESSED: u64 = 3;
/// Names of outputs that a store path's name may end with.
const OUTPUTS: [&str; 13] =
    ["bin", "dev", "doc", "debug", "devdoc", "info", "lib", "man", "out", "py", "static", "terminfo", "data"];

/// The paths that an environment needs of Nix's, sorted.
pub(super) fn closure<'l>(lock: &'l Lock, system: System, key: &str) -> Result<Vec<&'l LockedPath>, OpsError> {
    nix::closure_of(lock, system, key).ok_or(OpsError::LockStale)
}

/// As the plan of layers sees them.
pub(super) fn fleet(closure: &[&LockedPath], system: System) -> Vec<FleetPackage> {
    let one = |path: &&LockedPath| {
        let (name, version) = label(&path.path);
        let source = source(&name);
        FleetPackage {
            name: format!("{NIX}{name}"),
            version,
            architecture: system.deb_arch().to_owned(),
            source,
            size: path.nar_size / COMPRESSED,
            installed: path.nar_size,
        }
    };
    closure.iter().map(one).collect()
}

/// As an image takes them.
pub(super) fn packages(closure: &[&LockedPath], system: System, store: &Store) -> Vec<Package> {
    let one = |path: &&LockedPath| {
        let (name, version) = label(&path.path);
        Package {
            kind: PackageKind::Nix,
            physical: store.physical(&path.path),
            path: path.path.clone(),
            name: format!("{NIX}{name}"),
            version,
            architecture: system.deb_arch().to_owned(),
        }
    };
    closure.iter().map(one).collect()
}

/// What is built together with what has this name: all outputs of it.
pub(super) fn source(name: &str) -> String {
    let output = name.rsplit_once('.').filter(|(_, output)| OUTPUTS.contains(output));
    format!("{NIX}{}", output.map_or(name, |(rest, _)| rest))
}

/// Name and version of a store path for people, as Nix splits them: `libgreet.dev` and `1.2.0-vyh6bhkr`. The beginning
/// of the hash tells rebuilds apart.
pub(crate) fn label(path: &StorePath) -> (String, String) {
    let name = path.name();
    let version = name.match_indices('-').find(|(at, _)| {
        let next = name.as_bytes().get(at + 1);
        next.is_some_and(|byte| !byte.is_ascii_alphabetic())
    });
    let (stem, version) = version.map_or((name, ""), |(at, _)| (&name[..at], &name[at + 1..]));
    let (of, last) = match version {
        "" => (stem, stem.rsplit_once('-')),
        _ => (version, version.rsplit_once('-')),
    };
    let output = last.filter(|(_, output)| OUTPUTS.contains(output));
    let rest = output.map_or(of, |(rest, _)| rest);
    let (stem, version) = if version.is_empty() { (rest, "") } else { (stem, rest) };
    let hash = &path.hash_part()[..8];
    // `=` is between name and version where both are written.
    let mut name = stem.replace('=', "_");
    if let Some((_, output)) = output {
        name = format!("{name}.{output}");
    }
    (name, if version.is_empty() { hash.to_owned() } else { format!("{version}-{hash}") })
}

/// What a system needs besides packages, where none of Debian's is: somebody to be, and a place for temporary files.
pub(super) fn skeleton(additions: &mut Additions) {
    let directory = |path: &str, mode| Entry::dir(path).with(mode, 0, 0);
    additions.base = vec![
        directory("tmp", 0o1777),
        directory("var/tmp", 0o1777),
        directory("root", 0o700),
        directory("home", 0o755),
        Entry::bytes("etc/passwd", PASSWD),
        Entry::bytes("etc/group", GROUP),
    ];
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What Nix needs to work in an image without a daemon, as its user: a database that knows the closure, a store that the
/// user may write to, roots for what was asked for. The paths themselves are root's, as in every image.
pub(super) fn database(additions: &mut Additions, of_nix: &OfNix<'_>, (uid, gid): (u32, u32)) -> Result<(), OpsError> {
    let directories =
        ["nix", "nix/store", "nix/var", "nix/var/log", "nix/var/log/nix", "nix/var/log/nix/drvs", "nix/var/nix"];
    let of_state = ["db", "gcroots", "gcroots/igloo", "profiles", "temproots", "userpool"];
    let of_state = of_state.map(|name| format!("nix/var/nix/{name}"));
    let all = directories.iter().map(|d| (*d).to_owned()).chain(of_state);
    let mut entries: Vec<Entry> = all.map(|path| Entry::dir(path).with(0o755, uid, gid)).collect();
    create_dirs(of_nix.scratch)?;
    let scratch = tempfile::Builder::new().prefix(".db-").tempdir_in(of_nix.scratch);
    let scratch = scratch.at("create a directory in", of_nix.scratch)?;
    let infos: Vec<PathInfo> = of_nix.closure.iter().map(|path| info(path)).collect();
    let database = database_of(&infos, scratch.path())?;
    entries.push(Entry::bytes("nix/var/nix/db/db.sqlite", database).with(0o644, uid, gid));
    entries.push(Entry::bytes("nix/var/nix/db/schema", SCHEMA.to_string()).with(0o644, uid, gid));
    entries.extend(of_nix.roots.iter().map(|root| {
        Entry::link(format!("nix/var/nix/gcroots/igloo/{}", root.base_name()), root.full()).with(0o777, uid, gid)
    }));
    entries.push(Entry::bytes("etc/nix/nix.conf", CONF));
    // Before what the manifest puts there.
    additions.entries.splice(0..0, entries);
    Ok(())
}

/// What makes an image a builder. Its store is root's, and the group's whose members build.
pub(super) fn builder(additions: &mut Additions) {
    let store = Entry::dir("nix/store").with(0o1775, 0, builder::GROUP);
    let files = builder::files().into_iter().map(|(path, file)| match file {
        builder::File::Text(text, true) => Entry::bytes(path, text).with(0o755, 0, 0),
        builder::File::Text(text, false) => Entry::bytes(path, text),
        builder::File::Link(target) => Entry::link(path, target),
    });
    additions.entries.extend([store].into_iter().chain(files));
}

const CONF: &str = "\
# Nix as one user, without a daemon. Where a container's host allows no sandboxes, it builds without.
build-users-group =
experimental-features = nix-command flakes
sandbox = true
sandbox-fallback = true
";

fn info(path: &LockedPath) -> PathInfo {
    PathInfo {
        path: path.path.clone(),
        nar_hash: path.nar_hash,
        nar_size: path.nar_size,
        references: path.references.clone(),
        // Nobody's clock: the bytes must be the same everywhere.
        registered: 1,
        deriver: None,
        ultimate: false,
        signatures: path.signatures.clone(),
        content_address: path.content_address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_paths_have_names_for_people() {
        let check = |name: &str, wanted: (&str, &str)| {
            let path = StorePath::parse(&format!("{}-{name}", "a".repeat(32))).expect("a path");
            let (name, version) = label(&path);
            assert_eq!((name.as_str(), version.as_str()), wanted);
        };
        check("hello-2.12", ("hello", "2.12-aaaaaaaa"));
        check("libgreet-1.2.0-dev", ("libgreet.dev", "1.2.0-aaaaaaaa"));
        check("glibc-2.37-8-bin", ("glibc.bin", "2.37-8-aaaaaaaa"));
        check("python3.11-pip-23.0", ("python3.11-pip", "23.0-aaaaaaaa"));
        check("source", ("source", "aaaaaaaa"));
        check("builder.sh", ("builder.sh", "aaaaaaaa"));
        check("tools-lib", ("tools.lib", "aaaaaaaa"));
        check("a=b-1", ("a_b", "1-aaaaaaaa"));
        check("x-", ("x-", "aaaaaaaa"));
    }
}
