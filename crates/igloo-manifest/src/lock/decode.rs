//! From the nodes of a lock to its values, strictly.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use igloo_base::{Sha256, System};
use igloo_formats::deb::{MultiArch, Priority, Relations, Version};
use igloo_formats::nix::StorePath;

use super::{
    Lock, LockError, LockedEnvironment, LockedFlake, LockedGroup, LockedOutput, LockedPackage, LockedPath,
    LockedSource, LockedSuite, LockedUser, VERSION, scan,
};
use crate::error::Position;
use crate::node::{Entry, Node, Value};

/// What is wrong, and where.
struct Bad {
    message: String,
    span: Range<usize>,
}

type Result<T> = std::result::Result<T, Bad>;

fn bad<T>(span: &Range<usize>, message: impl Into<String>) -> Result<T> {
    Err(Bad { message: message.into(), span: span.clone() })
}

pub(super) fn parse(text: &str, path: &Path) -> std::result::Result<Lock, LockError> {
    let syntax = |message: String, span: Range<usize>| {
        let Position { line, column } = Position::of(text, span.start);
        LockError::Syntax { path: path.to_owned(), line, column, message }
    };
    let root = match scan::scan(text) {
        Some(root) => root,
        None => Node::parse(text).map_err(|e| match merge_conflict(text) {
            Some(at) => {
                syntax("an unresolved merge conflict: take either side, then run `igloo lock`".to_owned(), at..at)
            }
            None => syntax(e.message, e.span),
        })?,
    };
    let found = version(&root).map_err(|e| syntax(e.message, e.span))?;
    if found > VERSION {
        return Err(LockError::Newer { path: path.to_owned(), found });
    }
    let mut lock = lock(&root).map_err(|e| syntax(e.message, e.span))?;
    lock.sort();
    Ok(lock)
}

fn merge_conflict(text: &str) -> Option<usize> {
    if text.starts_with("<<<<<<< ") { Some(0) } else { text.find("\n<<<<<<< ").map(|at| at + 1) }
}

fn version(root: &Node) -> Result<u32> {
    match entries(root)?.iter().find(|e| e.key == "version") {
        None => bad(&(0..0), "there is no `version`: this is no lock of igloo's"),
        Some(entry) => match u32::try_from(integer(entry)?) {
            Ok(version) if version > 0 => Ok(version),
            _ => bad(&entry.node.span, "there is no such version of locks"),
        },
    }
}

fn lock(root: &Node) -> Result<Lock> {
    let mut request = None;
    let mut lock = Lock::new(Sha256([0; 32]));
    for entry in entries(root)? {
        match &*entry.key {
            "version" => lock.version = number(entry)?,
            "request" => request = Some(parsed(entry)?),
            "triggers" => lock.triggers = number(entry)?,
            "unpack" => lock.unpack = number(entry)?,
            "source" => {
                for source in entries(&entry.node)? {
                    lock.sources.insert(source.key.to_string(), self::source(&source.node)?);
                }
            }
            "environment" => lock.environments = each(entry, environment)?,
            "package" => lock.packages = each(entry, package)?,
            "output" => lock.outputs = each(entry, output)?,
            "path" => lock.paths = each(entry, path)?,
            "images" => {
                for image in entries(&entry.node)? {
                    lock.images.insert(image.key.to_string(), text(image)?.to_owned());
                }
            }
            "user" => lock.users = each(entry, user)?,
            "group" => lock.groups = each(entry, group)?,
            "scripts" => {
                for script in entries(&entry.node)? {
                    lock.scripts.insert(script.key.to_string(), text(script)?.to_owned());
                }
            }
            _ => return unknown(entry),
        }
    }
    lock.request = needed(request, "request", &(0..0))?;
    Ok(lock)
}

fn source(node: &Node) -> Result<LockedSource> {
    let mut source = LockedSource::default();
    for entry in entries(node)? {
        match &*entry.key {
            "suite" => source.suites = each(entry, suite)?,
            "flake" => source.flakes = each(entry, flake)?,
            _ => return unknown(entry),
        }
    }
    Ok(source)
}

fn flake(node: &Node) -> Result<LockedFlake> {
    let (mut asked, mut locked) = (None, None);
    let mut flake = LockedFlake::default();
    for entry in entries(node)? {
        match &*entry.key {
            "asked" => asked = Some(text(entry)?.to_owned()),
            "locked" => locked = Some(text(entry)?.to_owned()),
            "revision" => flake.revision = text(entry)?.to_owned(),
            "nar-hash" => flake.nar_hash = text(entry)?.to_owned(),
            "files" => flake.files = Some(parsed(entry)?),
            "caches" => flake.caches = texts(entry)?,
            "keys" => flake.keys = texts(entry)?,
            _ => return unknown(entry),
        }
    }
    Ok(LockedFlake {
        asked: needed(asked, "asked", &node.span)?,
        locked: needed(locked, "locked", &node.span)?,
        ..flake
    })
}

fn output(node: &Node) -> Result<LockedOutput> {
    let (mut source, mut name, mut system, mut path, mut deriver) = (None, None, None, None, None);
    let (mut version, mut output, mut priority) = (String::new(), None, 5);
    for entry in entries(node)? {
        match &*entry.key {
            "name" => name = Some(text(entry)?.to_owned()),
            "version" => version = text(entry)?.to_owned(),
            "source" => source = Some(text(entry)?.to_owned()),
            "system" => system = Some(parsed(entry)?),
            "output" => output = Some(text(entry)?.to_owned()),
            "priority" => priority = integer(entry)?,
            "path" => path = Some(store_path(entry)?),
            "deriver" => deriver = Some(store_path(entry)?),
            _ => return unknown(entry),
        }
    }
    Ok(LockedOutput {
        source: needed(source, "source", &node.span)?,
        name: needed(name, "name", &node.span)?,
        system: needed(system, "system", &node.span)?,
        version,
        output: needed(output, "output", &node.span)?,
        priority,
        path: needed(path, "path", &node.span)?,
        deriver: needed(deriver, "deriver", &node.span)?,
    })
}

fn path(node: &Node) -> Result<LockedPath> {
    let (mut path, mut nar_hash, mut nar_size) = (None, None, None);
    let (mut references, mut content_address, mut signatures) = (Vec::new(), None, Vec::new());
    for entry in entries(node)? {
        match &*entry.key {
            "path" => path = Some(store_path(entry)?),
            "nar-hash" => nar_hash = Some(parsed(entry)?),
            "nar-size" => nar_size = Some(unsigned(entry)?),
            "references" => {
                references = list(entry)?
                    .iter()
                    .map(|node| match &node.value {
                        Value::Text(text) => StorePath::parse(text).or_else(|e| bad(&node.span, e.to_string())),
                        _ => bad(&node.span, "a reference must be a text"),
                    })
                    .collect::<Result<_>>()?;
            }
            "content-address" => content_address = Some(text(entry)?.to_owned()),
            "signatures" => signatures = texts(entry)?,
            _ => return unknown(entry),
        }
    }
    Ok(LockedPath {
        path: needed(path, "path", &node.span)?,
        nar_hash: needed(nar_hash, "nar-hash", &node.span)?,
        nar_size: needed(nar_size, "nar-size", &node.span)?,
        references,
        content_address,
        signatures,
    })
}

fn suite(node: &Node) -> Result<LockedSuite> {
    let (mut name, mut codename, mut date, mut release) = (None, None, None, None);
    let (mut signers, mut components) = (Vec::new(), Vec::new());
    for entry in entries(node)? {
        match &*entry.key {
            "name" => name = Some(text(entry)?.to_owned()),
            "codename" => codename = Some(text(entry)?.to_owned()),
            "date" => date = Some(text(entry)?.to_owned()),
            "release" => release = Some(parsed(entry)?),
            "signers" => signers = texts(entry)?,
            "components" => components = texts(entry)?,
            _ => return unknown(entry),
        }
    }
    Ok(LockedSuite {
        name: needed(name, "name", &node.span)?,
        codename: needed(codename, "codename", &node.span)?,
        date: needed(date, "date", &node.span)?,
        release: needed(release, "release", &node.span)?,
        signers,
        components,
    })
}

fn package(node: &Node) -> Result<LockedPackage> {
    let (mut source, mut name, mut version, mut architecture, mut system) = (None, None, None, None, None);
    let (mut suite, mut file, mut size, mut sha256, mut store) = (None, None, None, None, None);
    let (mut installed_size, mut essential, mut section) = (0, false, String::new());
    let (mut multi_arch, mut priority) = (MultiArch::default(), Priority::default());
    let (mut depends, mut recommends) = (Relations::default(), Relations::default());
    let (mut conflicts, mut replaces, mut provides) = <(Relations, Relations, Relations)>::default();
    for entry in entries(node)? {
        match &*entry.key {
            "source" => source = Some(text(entry)?.to_owned()),
            "name" => name = Some(text(entry)?.to_owned()),
            "version" => version = Some(parsed::<Version>(entry)?),
            "architecture" => architecture = Some(text(entry)?.to_owned()),
            "system" => system = Some(parsed::<System>(entry)?),
            "suite" => suite = Some(text(entry)?.to_owned()),
            "file" => file = Some(pool_path(entry)?),
            "size" => size = Some(unsigned(entry)?),
            "sha256" => sha256 = Some(parsed::<Sha256>(entry)?),
            "installed-size" => installed_size = unsigned(entry)?,
            "essential" => essential = flag(entry)?,
            "multi-arch" => multi_arch = multi_arch_of(entry)?,
            "priority" => priority = priority_of(entry)?,
            "section" => section = text(entry)?.to_owned(),
            "depends" => depends = parsed(entry)?,
            "recommends" => recommends = parsed(entry)?,
            "conflicts" => conflicts = parsed(entry)?,
            "replaces" => replaces = parsed(entry)?,
            "provides" => provides = parsed(entry)?,
            "store" => store = Some(store_path(entry)?),
            _ => return unknown(entry),
        }
    }
    Ok(LockedPackage {
        source: needed(source, "source", &node.span)?,
        name: needed(name, "name", &node.span)?,
        version: needed(version, "version", &node.span)?,
        architecture: needed(architecture, "architecture", &node.span)?,
        system: needed(system, "system", &node.span)?,
        suite: needed(suite, "suite", &node.span)?,
        file: needed(file, "file", &node.span)?,
        size: needed(size, "size", &node.span)?,
        sha256: needed(sha256, "sha256", &node.span)?,
        installed_size,
        essential,
        multi_arch,
        depends,
        recommends,
        conflicts,
        replaces,
        provides,
        priority,
        section,
        store,
    })
}

fn environment(node: &Node) -> Result<LockedEnvironment> {
    let (mut key, mut system, mut source) = (None, None, None);
    let mut roots = Vec::new();
    let mut members: Option<&Entry> = None;
    for entry in entries(node)? {
        match &*entry.key {
            "key" => key = Some(text(entry)?.to_owned()),
            "system" => system = Some(parsed(entry)?),
            "source" => source = Some(text(entry)?.to_owned()),
            "roots" => roots = texts(entry)?,
            "packages" => members = Some(entry),
            _ => return unknown(entry),
        }
    }
    let mut environment = LockedEnvironment {
        key: needed(key, "key", &node.span)?,
        system: needed(system, "system", &node.span)?,
        source: needed(source, "source", &node.span)?,
        roots,
        packages: Vec::new(),
        why: Default::default(),
    };
    for member in members.map(list).transpose()?.unwrap_or_default() {
        let Value::Text(words) = &member.value else { return bad(&member.span, "a package must be a text") };
        let mut words = words.split(' ');
        let (Some(name), Some(version), why, None) = (words.next(), words.next(), words.next(), words.next()) else {
            return bad(&member.span, "a package must be `name version` or `name version why`");
        };
        let version = Version::parse(version).or_else(|e| bad(&member.span, e.to_string()))?;
        if let Some(why) = why {
            environment.why.insert(name.to_owned(), why.to_owned());
        }
        environment.packages.push((name.to_owned(), version));
    }
    Ok(environment)
}

fn user(node: &Node) -> Result<LockedUser> {
    let (mut name, mut uid, mut gid) = (None, None, None);
    let (mut home, mut shell, mut gecos, mut package) = <(String, String, String, String)>::default();
    for entry in entries(node)? {
        match &*entry.key {
            "name" => name = Some(text(entry)?.to_owned()),
            "uid" => uid = Some(number(entry)?),
            "gid" => gid = Some(number(entry)?),
            "home" => home = text(entry)?.to_owned(),
            "shell" => shell = text(entry)?.to_owned(),
            "gecos" => gecos = text(entry)?.to_owned(),
            "package" => package = text(entry)?.to_owned(),
            _ => return unknown(entry),
        }
    }
    Ok(LockedUser {
        name: needed(name, "name", &node.span)?,
        uid: needed(uid, "uid", &node.span)?,
        gid: needed(gid, "gid", &node.span)?,
        home,
        shell,
        gecos,
        package,
    })
}

fn group(node: &Node) -> Result<LockedGroup> {
    let (mut name, mut gid) = (None, None);
    let (mut package, mut members) = (String::new(), Vec::new());
    for entry in entries(node)? {
        match &*entry.key {
            "name" => name = Some(text(entry)?.to_owned()),
            "gid" => gid = Some(number(entry)?),
            "package" => package = text(entry)?.to_owned(),
            "members" => members = texts(entry)?,
            _ => return unknown(entry),
        }
    }
    Ok(LockedGroup { name: needed(name, "name", &node.span)?, gid: needed(gid, "gid", &node.span)?, package, members })
}

fn unknown<T>(entry: &Entry) -> Result<T> {
    bad(&entry.key_span, format!("`{}` is no key of a lock", entry.key))
}

fn needed<T>(value: Option<T>, name: &str, span: &Range<usize>) -> Result<T> {
    value.map_or_else(|| bad(span, format!("`{name}` is missing")), Ok)
}

fn entries<'n, 'a>(node: &'n Node<'a>) -> Result<&'n [Entry<'a>]> {
    match &node.value {
        Value::Table(entries) => Ok(entries),
        _ => bad(&node.span, format!("a table is expected here, not {}", node.what())),
    }
}

fn list<'n, 'a>(entry: &'n Entry<'a>) -> Result<&'n [Node<'a>]> {
    match &entry.node.value {
        Value::List(list) => Ok(list),
        _ => bad(&entry.node.span, format!("`{}` must be a list, not {}", entry.key, entry.node.what())),
    }
}

fn each<T>(entry: &Entry, read: impl Fn(&Node) -> Result<T>) -> Result<Vec<T>> {
    list(entry)?.iter().map(read).collect()
}

fn text<'n>(entry: &'n Entry) -> Result<&'n str> {
    match &entry.node.value {
        Value::Text(text) => Ok(text),
        _ => bad(&entry.node.span, format!("`{}` must be a text, not {}", entry.key, entry.node.what())),
    }
}

fn texts(entry: &Entry) -> Result<Vec<String>> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Ok(text.to_string()),
        _ => bad(&node.span, format!("`{}` must be a list of texts", entry.key)),
    };
    list(entry)?.iter().map(text).collect()
}

fn flag(entry: &Entry) -> Result<bool> {
    match entry.node.value {
        Value::Flag(flag) => Ok(flag),
        _ => bad(&entry.node.span, format!("`{}` must be true or false", entry.key)),
    }
}

fn integer(entry: &Entry) -> Result<i64> {
    match entry.node.value {
        Value::Integer(number) => Ok(number),
        _ => bad(&entry.node.span, format!("`{}` must be a whole number, not {}", entry.key, entry.node.what())),
    }
}

fn unsigned(entry: &Entry) -> Result<u64> {
    let number = integer(entry)?;
    u64::try_from(number).or_else(|_| bad(&entry.node.span, format!("`{}` cannot be negative", entry.key)))
}

fn number(entry: &Entry) -> Result<u32> {
    let number = integer(entry)?;
    u32::try_from(number).or_else(|_| bad(&entry.node.span, format!("`{}` is out of range", entry.key)))
}

fn parsed<T: FromStr<Err: Display>>(entry: &Entry) -> Result<T> {
    text(entry)?.parse().or_else(|e: T::Err| bad(&entry.node.span, e.to_string()))
}

/// A path below the archive's root, and not one that leads anywhere else.
fn pool_path(entry: &Entry) -> Result<String> {
    let path = text(entry)?;
    let good = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good { Ok(path.to_owned()) } else { bad(&entry.node.span, "`file` must be a path below the archive's root") }
}

fn store_path(entry: &Entry) -> Result<StorePath> {
    StorePath::parse(text(entry)?).or_else(|e| bad(&entry.node.span, e.to_string()))
}

fn multi_arch_of(entry: &Entry) -> Result<MultiArch> {
    match text(entry)? {
        "no" => Ok(MultiArch::No),
        "same" => Ok(MultiArch::Same),
        "foreign" => Ok(MultiArch::Foreign),
        "allowed" => Ok(MultiArch::Allowed),
        other => bad(&entry.node.span, format!("`{other}` is no value of `multi-arch`")),
    }
}

fn priority_of(entry: &Entry) -> Result<Priority> {
    match text(entry)? {
        "required" => Ok(Priority::Required),
        "important" => Ok(Priority::Important),
        "standard" => Ok(Priority::Standard),
        "optional" => Ok(Priority::Optional),
        "extra" => Ok(Priority::Extra),
        other => bad(&entry.node.span, format!("`{other}` is no value of `priority`")),
    }
}
