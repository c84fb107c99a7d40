//! `igloo shell --nix`: the shells of other people's `flake.nix` and `shell.nix`, as they are.
//!
//! Real Nix evaluates and builds them once. Meanwhile the kernel tells which files are looked at; as long as these are the
//! same, the environment that came of it is used again without Nix. What is kept of a shell, in `state/nix-shells/<digest>/`:
//!
//! ```text
//! kept.json          what was looked at, and the exported variables
//! env.bash           all of the environment, for a bash: variables, functions, the shell's own hook
//! rc.bash            the same for an interactive bash
//! profile            a profile of Nix's, which roots all of it
//! directory          where the shell's files are; gc forgets a shell whose directory is gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use igloo_base::file::{FileLock, create_private_dir, read_optional, remove_tree, write_atomic};
use igloo_base::{At, Sha256, Task, Unit};
use igloo_remote::Nix;
use igloo_remote::evaluate::reads::Reads;
use serde::{Deserialize, Serialize};

use super::{Kind, Prepared, host};
use crate::context::Context;
use crate::error::OpsError;

/// Version of what is kept. Raised by every change.
const KEPT: u32 = 2;
/// The clock that files get their times from may be so much behind.
const CLOCK: Duration = Duration::from_millis(10);
/// Variables that are the caller's, not the shell's: those of `nix develop`, and what bash sets for itself.
const CALLERS: &[&str] = &[
    "BASHOPTS",
    "EUID",
    "HOME",
    "NIX_BUILD_TOP",
    "NIX_ENFORCE_PURITY",
    "NIX_LOG_FD",
    "NIX_REMOTE",
    "OLDPWD",
    "PPID",
    "PWD",
    "SHELL",
    "SHELLOPTS",
    "SHLVL",
    "SSL_CERT_FILE",
    "TEMP",
    "TEMPDIR",
    "TERM",
    "TMP",
    "TMPDIR",
    "TZ",
    "UID",
];
/// Variables that the caller's value is appended to.
const JOINED: &[&str] = &["PATH", "XDG_DATA_DIRS"];
/// What stays of the caller's environment in a pure shell, as with `nix develop --ignore-environment` for people.
const PURE: &[&str] =
    &["HOME", "USER", "LOGNAME", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "LANG", "TZ"];
/// Variables that say which Nix is meant and what it finds.
const OF_NIX: &[&str] = &["NIX_", "NIXPKGS_"];
/// Where an evaluation looks at things that aren't part of it.
const ELSEWHERE: &[&str] = &["/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/run", "/build"];

/// How to enter a shell of Nix's.
#[derive(Debug)]
pub struct NixShell<'o> {
    /// A flake reference or a file; what the directory has if nothing is said.
    pub reference: Option<&'o str>,
    /// Words for `nix print-dev-env`.
    pub arguments: &'o [String],
    /// Ask Nix again.
    pub refresh: bool,
    /// Without the caller's environment.
    pub pure: bool,
    /// The command; an interactive shell if empty.
    pub command: &'o [String],
    /// Where to look, and where the command starts.
    pub directory: &'o Path,
}

/// Where a shell comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Flake { reference: String, local: Option<PathBuf> },
    File { path: PathBuf, attribute: String },
}

/// What is kept of a shell.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// Variables of the caller's that name a Nix, and which one it was.
    nix: String,
    watched: Vec<Watched>,
    /// Without those that are joined with the caller's.
    exported: BTreeMap<String, String>,
    joined: BTreeMap<String, String>,
    /// It has a `shellHook`, which only bash can run.
    hook: bool,
    /// The shell's own bash.
    bash: Option<PathBuf>,
}

/// A path that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    path: PathBuf,
    /// It was opened: what counts is what it leads to, and not just what it is.
    opened: bool,
    seen: Seen,
    /// Inode, size, and times of content and inode when it was so; as long as these are the same, it is.
    stamp: Option<(u64, u64, i64, i64)>,
}

/// What was to be seen there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Seen {
    Missing,
    Link(PathBuf),
    File(String),
    Directory(String),
    /// Something, of which no more than its kind was asked.
    Kind(u32),
}

/// Prepares a shell that Nix describes.
pub fn prepare_nix(ctx: &Context<'_>, shell: &NixShell<'_>) -> Result<Prepared, OpsError> {
    let (place, kept) = realise(ctx, shell)?;
    let variable = |name: &str| ctx.caller.environment.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let own = |name: &str| match name {
        "PATH" => variable(name).map(|path| host::without_shims(path)),
        _ => variable(name).cloned(),
    };
    let users = ctx.caller.shell.clone().unwrap_or_else(|| "/bin/bash".into());
    let bash = kept.bash.clone().filter(|bash| bash.exists()).unwrap_or_else(|| "bash".into());
    let is_bash = users.file_name().is_some_and(|name| name == "bash");
    let mut process = match shell.command {
        [] if is_bash => {
            let mut process = Command::new(&users);
            process.arg("--rcfile").arg(place.join("rc.bash")).arg("-i");
            process
        }
        words => {
            let interactive = [users.to_string_lossy().into_owned()];
            let words = if words.is_empty() { &interactive[..] } else { words };
            if kept.hook {
                let mut process = Command::new(&bash);
                process.args(["--norc", "-c", ". \"$0\" && exec \"$@\""]).arg(place.join("env.bash")).args(words);
                process
            } else {
                let path = join(&kept, "PATH", if shell.pure { None } else { own("PATH") });
                let found = host::find(&words[0], &String::from_utf8_lossy(&path));
                let found = found.ok_or_else(|| OpsError::NoCommand { program: words[0].clone() })?;
                let mut process = Command::new(found);
                process.args(&words[1..]);
                process
            }
        }
    };
    process.env_clear();
    let stays = |name: &str| !shell.pure || PURE.contains(&name) || name.starts_with("LC_");
    let inherited = ctx.caller.environment.iter().filter(|(name, _)| name.to_str().is_some_and(stays));
    process.envs(inherited.map(|(name, value)| (name, value)));
    // A script of bash's joins these itself.
    let scripted = kept.hook || shell.command.is_empty() && is_bash;
    for name in JOINED {
        let outside = if shell.pure { None } else { own(name) };
        match (scripted, outside) {
            (true, Some(value)) => drop(process.env(name, value)),
            (true, None) => drop(process.env_remove(name)),
            (false, outside) if kept.joined.contains_key(*name) => {
                process.env(name, std::ffi::OsString::from_vec(join(&kept, name, outside)));
            }
            (false, _) => {}
        }
    }
    process.envs(&kept.exported).env("IGLOO_SHELL", "nix").current_dir(shell.directory);
    Ok(Prepared { kind: Kind::Host(Box::new(process)) })
}

/// What direnv is to evaluate for such a shell: its environment, and which files to watch.
pub fn direnv_code(ctx: &Context<'_>, shell: &NixShell<'_>) -> Result<String, OpsError> {
    let (place, kept) = realise(ctx, shell)?;
    let mut text = format!(". {}\n", quote(&place.join("env.bash")));
    for watched in &kept.watched {
        if !matches!(watched.seen, Seen::Kind(_) | Seen::Directory(_)) {
            // Writing to a String can't fail.
            let _ = writeln!(text, "watch_file {}", quote(&watched.path));
        }
    }
    Ok(text)
}

fn quote(path: &Path) -> String {
    host::quote(&path.to_string_lossy())
}

fn join(kept: &Kept, name: &str, outside: Option<std::ffi::OsString>) -> Vec<u8> {
    let own = kept.joined.get(name).map(String::as_bytes).unwrap_or_default();
    let outside = outside.unwrap_or_default();
    let parts: Vec<&[u8]> = [own, outside.as_bytes()].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(&b':')
}

/// The shell, from what is kept or from Nix.
fn realise(ctx: &Context<'_>, shell: &NixShell<'_>) -> Result<(PathBuf, Kept), OpsError> {
    let origin = origin(shell.directory, shell.reference)?;
    let digest = Sha256::of(format!("{origin:?} {:?}", shell.arguments).as_bytes()).to_string();
    let place = ctx.dirs.state.join("nix-shells").join(&digest[..20]);
    let of_nix = of_nix(ctx);
    if !shell.refresh
        && let Some(kept) = find(&place, &of_nix)?
    {
        return Ok((place, kept));
    }
    create_private_dir(&place)?;
    let _turn = FileLock::exclusive(place.join("lock"))?;
    // Whoever had the lock before us may have asked for the same.
    if !shell.refresh
        && let Some(kept) = find(&place, &of_nix)?
    {
        return Ok((place, kept));
    }
    let kept = evaluate(ctx, shell, &origin, &place, of_nix)?;
    Ok((place, kept))
}

/// What is kept, if all that was looked at is as it was.
fn find(place: &Path, of_nix: &str) -> Result<Option<Kept>, OpsError> {
    let file = place.join("kept.json");
    let Some(bytes) = read_optional(&file)? else { return Ok(None) };
    let Ok(mut kept) = serde_json::from_slice::<Kept>(&bytes) else { return Ok(None) };
    // The profile's last link leads into the store: what is not there any more was collected.
    if kept.version != KEPT || kept.nix != of_nix || !place.join("profile").exists() {
        return Ok(None);
    }
    let mut touched = false;
    for watched in &mut kept.watched {
        let stamp = stamp(&watched.path);
        if watched.stamp.is_some() && watched.stamp == stamp {
            continue;
        }
        if look(&watched.path, watched.opened) != watched.seen {
            return Ok(None);
        }
        if watched.opened && watched.stamp != stamp {
            (watched.stamp, touched) = (stamp, true);
        }
    }
    if touched {
        // Only time is lost if this fails.
        drop(serde_json::to_vec(&kept).map(|bytes| write_atomic(&file, &bytes)));
    }
    Ok(Some(kept))
}

fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let meta = fs::metadata(path).ok()?;
    let ns = |s: i64, n: i64| s.wrapping_mul(1_000_000_000).wrapping_add(n);
    Some((meta.ino(), meta.size(), ns(meta.mtime(), meta.mtime_nsec()), ns(meta.ctime(), meta.ctime_nsec())))
}

fn look(path: &Path, content: bool) -> Seen {
    let Ok(meta) = fs::symlink_metadata(path) else { return Seen::Missing };
    if meta.is_symlink() {
        let target = fs::read_link(path).unwrap_or_default();
        // Where it leads is looked at by its own name, unless it was opened through the link.
        if !content {
            return Seen::Link(target);
        }
    }
    if !content {
        return Seen::Kind(meta.mode() & 0o170_000);
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let names = fs::read_dir(path).map(|all| all.flatten().map(|e| e.file_name()).collect::<BTreeSet<_>>());
            Seen::Directory(Sha256::of(format!("{:?}", names.unwrap_or_default()).as_bytes()).to_string())
        }
        // A pipe would be waited for.
        Ok(meta) if !meta.is_file() => Seen::Kind(meta.mode() & 0o170_000),
        Ok(_) => fs::read(path).map_or(Seen::Missing, |bytes| Seen::File(Sha256::of(&bytes).to_string())),
        Err(_) => Seen::Missing,
    }
}

/// Which Nix is meant, by the caller's variables.
fn of_nix(ctx: &Context<'_>) -> String {
    let is_of_nix = |name: &str| OF_NIX.iter().any(|prefix| name.starts_with(prefix));
    let set = ctx.caller.environment.iter().filter(|(name, _)| name.to_str().is_some_and(is_of_nix));
    let all: BTreeMap<_, _> = set.map(|(name, value)| (name, value)).collect();
    Sha256::of(format!("{all:?}").as_bytes()).to_string()
}

fn origin(directory: &Path, reference: Option<&str>) -> Result<Origin, OpsError> {
    let Some(text) = reference else {
        for above in directory.ancestors() {
            if above.join("flake.nix").is_file() {
                return Ok(Origin::Flake { reference: above.display().to_string(), local: Some(above.to_owned()) });
            }
            let here = if above == directory { &["shell.nix", "default.nix"][..] } else { &["shell.nix"] };
            if let Some(name) = here.iter().find(|name| above.join(name).is_file()) {
                return Ok(Origin::File { path: above.join(name), attribute: String::new() });
            }
        }
        return Err(OpsError::NoNixShell { directory: directory.to_owned() });
    };
    let (base, attribute) = text.split_once('#').unwrap_or((text, ""));
    // `nixpkgs` is one of the registry, as with nix itself; a path begins with a dot or a slash.
    let is_path = base.is_empty() || base.starts_with(['.', '/']) || base.ends_with(".nix");
    if !is_path {
        return Ok(Origin::Flake { reference: text.to_owned(), local: None });
    }
    let path = match base.split_once('?') {
        Some(_) => return Ok(Origin::Flake { reference: text.to_owned(), local: None }),
        None => directory.join(base),
    };
    let path = fs::canonicalize(&path).at("find", &path)?;
    if path.is_file() {
        return Ok(Origin::File { path, attribute: attribute.to_owned() });
    }
    if path.join("flake.nix").is_file() {
        let attribute = if attribute.is_empty() { String::new() } else { format!("#{attribute}") };
        return Ok(Origin::Flake { reference: format!("{}{attribute}", path.display()), local: Some(path) });
    }
    match ["shell.nix", "default.nix"].iter().find(|name| path.join(name).is_file()) {
        Some(name) => Ok(Origin::File { path: path.join(name), attribute: attribute.to_owned() }),
        None => Err(OpsError::NoNixShell { directory: path }),
    }
}

/// What `nix print-dev-env --json` prints.
#[derive(Debug, Deserialize)]
struct DevEnv {
    #[serde(default, rename = "bashFunctions")]
    functions: BTreeMap<String, String>,
    variables: BTreeMap<String, Variable>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
enum Variable {
    Exported(String),
    Var(String),
    Array(Vec<String>),
    Associative(BTreeMap<String, String>),
    #[serde(other)]
    Unknown,
}

fn evaluate(
    ctx: &Context<'_>,
    shell: &NixShell<'_>,
    origin: &Origin,
    place: &Path,
    of_nix: String,
) -> Result<Kept, OpsError> {
    let directory = match origin {
        Origin::Flake { local: Some(path), .. } | Origin::File { path, .. } => path.clone(),
        Origin::Flake { local: None, .. } => PathBuf::from("/"),
    };
    // First of all: `gc` takes what has none for a shell whose files are gone.
    write_atomic(place.join("directory"), directory.as_os_str().as_bytes())?;
    let mut nix = Nix::find(&ctx.caller.environment)?;
    let profile = place.join("profile").to_string_lossy().into_owned();
    let mut words = vec!["print-dev-env", "--json", "--profile", &profile];
    let (name, file);
    match origin {
        Origin::Flake { reference, .. } => {
            words.push(reference);
            name = reference.clone();
        }
        Origin::File { path, attribute } => {
            // As nix-shell says it, for `lib.inNixShell`.
            nix = nix.with("IN_NIX_SHELL", "impure");
            file = path.to_string_lossy().into_owned();
            words.extend(["--impure", "--file", &file]);
            if !attribute.is_empty() {
                words.push(attribute);
            }
            name = file.clone();
        }
    }
    words.extend(shell.arguments.iter().map(String::as_str));
    if ctx.offline {
        words.push("--offline");
    }
    let task = Task::start(ctx.reporter, format!("nix evaluates and builds {name}"), None, Unit::Items);
    let begun = SystemTime::now();
    let caches = ctx.caller.home.join(".cache");
    let own = [ctx.dirs.state.clone(), ctx.dirs.cache.clone(), caches, ctx.caller.home.join(".local/state/nix")];
    let wanted = move |path: &Path| is_part(path) && !own.iter().any(|own| path.starts_with(own));
    let (env, reads): (DevEnv, Reads) = nix.json_watched(shell.directory, &words, wanted)?;
    drop(task);
    let watched = watched(&reads, origin);
    // What changed while it was looked at was seen before or after: nobody knows.
    let is_unsure = reads.incomplete || watched.iter().any(|w| changed_since(w, begun, origin));
    let exported = env.variables.iter().filter_map(|(name, value)| match value {
        Variable::Exported(text) if !CALLERS.contains(&name.as_str()) => Some((name.clone(), text.clone())),
        _ => None,
    });
    let (joined, exported): (BTreeMap<_, _>, _) = exported.partition(|(name, _)| JOINED.contains(&name.as_str()));
    let text_of = |name: &str| match env.variables.get(name) {
        Some(Variable::Exported(text) | Variable::Var(text)) => Some(text.as_str()),
        _ => None,
    };
    let kept = Kept {
        version: KEPT,
        nix: of_nix,
        watched,
        exported,
        joined,
        hook: text_of("shellHook").is_some_and(|hook| !hook.trim().is_empty()),
        bash: text_of("SHELL").filter(|path| path.starts_with("/nix/") && path.ends_with("bash")).map(PathBuf::from),
    };
    let script = script(&env);
    // Killed between here and the end, Nix is asked again: a script must never stand beside another's record.
    remove_tree(place.join("kept.json"))?;
    write_atomic(place.join("env.bash"), script.as_bytes())?;
    let rc = format!("[ -n \"$PS1\" ] && [ -e ~/.bashrc ] && . ~/.bashrc\n. {}\n", quote(&place.join("env.bash")));
    write_atomic(place.join("rc.bash"), rc.as_bytes())?;
    if !is_unsure {
        write_atomic(place.join("kept.json"), &serde_json::to_vec(&kept).map_err(OpsError::Json)?)?;
    }
    Ok(kept)
}

/// Whether a path can be part of an evaluation: of the store only the sources are, since the rest is what it says.
fn is_part(path: &Path) -> bool {
    if path.components().any(|c| c.as_os_str() == ".git") {
        return false;
    }
    if let Some((_, inside)) = in_store(path) {
        return inside.components().next().is_some();
    }
    if path.starts_with("/nix") {
        return false;
    }
    let of_nix = path.starts_with("/etc/nix") || !path.starts_with("/etc");
    of_nix && !ELSEWHERE.iter().any(|e| path.starts_with(e) || path.as_os_str().as_bytes().starts_with(b"/tmp/nix"))
}

/// A path of a source in a store, and what of it lies inside of that.
fn in_store(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let text = path.to_str()?;
    let at = text.find("/nix/store/")? + "/nix/store/".len();
    let end = text[at..].find('/').map_or(text.len(), |n| at + n);
    let inside = text[end..].trim_start_matches('/');
    let is_source = text[..end].ends_with("-source");
    Some((PathBuf::from(&text[..end]), if is_source { PathBuf::from(inside) } else { PathBuf::new() }))
}

/// What there was to see. Nix copies a local flake as a whole before it reads it: what counts is what it reads of the copy.
fn watched(reads: &Reads, origin: &Origin) -> Vec<Watched> {
    let mut copies = BTreeSet::new();
    let local = match origin {
        Origin::Flake { local, .. } => local.as_deref(),
        Origin::File { .. } => None,
    };
    if let Some(local) = local {
        let own = fs::read(local.join("flake.nix")).ok();
        for path in reads.opened.iter().filter(|p| p.ends_with("flake.nix")) {
            if let Some((source, inside)) = in_store(path)
                && inside == Path::new("flake.nix")
                && fs::read(path).ok() == own
            {
                copies.insert(source);
            }
        }
    }
    let map = |path: &PathBuf| -> Option<PathBuf> {
        if let Some((source, inside)) = in_store(path) {
            return copies.contains(&source).then(|| local.map(|local| local.join(inside)))?;
        }
        let is_copied = !copies.is_empty() && local.is_some_and(|local| path.starts_with(local));
        (!is_copied).then(|| path.clone())
    };
    let mut opened: BTreeSet<PathBuf> = reads.opened.iter().filter_map(map).collect();
    opened.extend(local.into_iter().flat_map(|local| [local.join("flake.nix"), local.join("flake.lock")]));
    let asked: BTreeSet<PathBuf> = reads.asked.iter().filter_map(map).filter(|path| !opened.contains(path)).collect();
    let watch = |path: PathBuf, opened| {
        let stamp = if opened { stamp(&path) } else { None };
        Watched { seen: look(&path, opened), opened, stamp, path }
    };
    let all = opened.into_iter().map(|p| watch(p, true)).chain(asked.into_iter().map(|p| watch(p, false)));
    all.collect()
}

fn changed_since(watched: &Watched, begun: SystemTime, origin: &Origin) -> bool {
    // Nix itself writes that one.
    if let Origin::Flake { local: Some(local), .. } = origin
        && watched.path == local.join("flake.lock")
    {
        return false;
    }
    let modified = fs::metadata(&watched.path).and_then(|meta| meta.modified());
    matches!(watched.seen, Seen::File(_)) && modified.is_ok_and(|at| at + CLOCK >= begun)
}

/// All of the environment as bash reads it, in the order of `nix print-dev-env`.
fn script(env: &DevEnv) -> String {
    let mut text = String::from("unset shellHook\n");
    for name in JOINED {
        let _ = writeln!(text, "{name}=${{{name}:-}}\nigloo_saved_{name}=\"${name}\"");
    }
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    for (name, value) in env.variables.iter().filter(|(n, _)| is_name(n) && !CALLERS.contains(&n.as_str())) {
        let _ = match value {
            Variable::Exported(value) => writeln!(text, "{name}={}\nexport {name}", host::quote(value)),
            Variable::Var(value) => writeln!(text, "{name}={}", host::quote(value)),
            Variable::Array(values) => {
                let values: Vec<String> = values.iter().map(|value| host::quote(value)).collect();
                writeln!(text, "declare -a {name}=({})", values.join(" "))
            }
            Variable::Associative(values) => {
                let values = values.iter().map(|(key, value)| format!("[{}]={}", host::quote(key), host::quote(value)));
                writeln!(text, "declare -A {name}=({})", values.collect::<Vec<_>>().join(" "))
            }
            Variable::Unknown => Ok(()),
        };
    }
    for name in JOINED {
        let saved = format!("igloo_saved_{name}");
        let _ = match env.variables.contains_key(*name) {
            true => writeln!(text, "{name}=\"${name}${{{saved}:+:${saved}}}\"\nunset {saved}"),
            false => writeln!(text, "[ -n \"${name}\" ] || unset {name}\nunset {saved}"),
        };
    }
    for (name, body) in &env.functions {
        let _ = writeln!(text, "{name} ()\n{{\n{body}}}");
    }
    text.push_str("eval \"${shellHook:-}\"\n");
    text
}

/// Forgets shells whose files are gone; Nix may then collect what they rooted.
pub(crate) fn sweep(ctx: &Context<'_>) -> Result<(), OpsError> {
    let all = ctx.dirs.state.join("nix-shells");
    let Ok(entries) = fs::read_dir(&all) else { return Ok(()) };
    for entry in entries.flatten() {
        // Without one it is being made, or was when its maker was killed, and is next to nothing.
        let Some(directory) = read_optional(entry.path().join("directory"))? else { continue };
        if !Path::new(std::ffi::OsStr::from_bytes(&directory)).exists() {
            remove_tree(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_description_is_meant_unless_one_is_named() {
        let base = tempfile::tempdir().expect("tempdir");
        let base = fs::canonicalize(base.path()).expect("path");
        let sub = base.join("a/b");
        fs::create_dir_all(&sub).expect("mkdir");
        assert!(matches!(origin(&sub, Some("./missing")), Err(OpsError::Path(_))));
        fs::write(base.join("shell.nix"), "").expect("write");
        let file = |path: PathBuf, attribute: &str| Origin::File { path, attribute: attribute.to_owned() };
        let flake = |reference: &str, local| Origin::Flake { reference: reference.to_owned(), local };
        assert_eq!(origin(&sub, None).expect("origin"), file(base.join("shell.nix"), ""));
        fs::write(base.join("a/flake.nix"), "").expect("write");
        let text = base.join("a").display().to_string();
        assert_eq!(origin(&sub, None).expect("origin"), flake(&text, Some(base.join("a"))));
        assert_eq!(origin(&sub, Some("..")).expect("origin"), flake(&text, Some(base.join("a"))));
        assert_eq!(origin(&sub, Some("..#x")).expect("origin"), flake(&format!("{text}#x"), Some(base.join("a"))));
        assert_eq!(origin(&sub, Some("../..#y")).expect("origin"), file(base.join("shell.nix"), "y"));
        assert_eq!(origin(&sub, Some("nixpkgs#hello")).expect("origin"), flake("nixpkgs#hello", None));
        assert_eq!(origin(&sub, Some("path:.?dir=x")).expect("origin"), flake("path:.?dir=x", None));
    }

    #[test]
    fn sources_in_stores_are_told_from_the_rest() {
        let path = |text: &str| in_store(Path::new(text));
        assert_eq!(
            path("/x/nix/store/0-source/sub/a.nix"),
            Some((PathBuf::from("/x/nix/store/0-source"), PathBuf::from("sub/a.nix")))
        );
        assert_eq!(path("/home/x"), None);
        assert!(is_part(Path::new("/nix/store/0-source/flake.nix")));
        assert!(!is_part(Path::new("/nix/store/0-bash-5/bin/bash")));
        assert!(!is_part(Path::new("/home/x/.git/index")));
        assert!(is_part(Path::new("/etc/nix/nix.conf")) && !is_part(Path::new("/etc/passwd")));
    }

    #[test]
    fn what_is_seen_changes_with_content_and_not_with_time() {
        let base = tempfile::tempdir().expect("tempdir");
        let file = base.path().join("f");
        assert_eq!(look(&file, true), Seen::Missing);
        fs::write(&file, "x").expect("write");
        let (before, kind) = (look(&file, true), look(&file, false));
        let listing = look(base.path(), true);
        fs::write(&file, "x").expect("write");
        assert_eq!(look(&file, true), before);
        fs::write(&file, "y").expect("write");
        assert_ne!(look(&file, true), before);
        assert_eq!(look(&file, false), kind);
        assert_eq!(look(base.path(), true), listing);
        let link = base.path().join("l");
        std::os::unix::fs::symlink("f", &link).expect("link");
        assert_eq!(look(&link, true), look(&file, true), "opened, it is what it leads to");
        assert_eq!(look(&link, false), Seen::Link("f".into()), "asked for, it is itself");
        fs::write(base.path().join("g"), "").expect("write");
        assert_ne!(look(base.path(), true), listing);
    }
}
