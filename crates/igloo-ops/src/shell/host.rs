//! Isolation `host`: your own shell and files, with the environment's commands first on PATH.
//!
//! Debian's programs find their libraries and data below `/usr`, so each command is a shim that enters a view of the
//! machine in which `/usr` is the environment's. Shims are made for what was asked for and what that needs, not for
//! the base: your own `ls` stays your own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use igloo_base::file::{At, create_dirs, remove_tree, write_atomic};
use igloo_container::enter::{self, Home, ShellSpec};
use igloo_env::Environment;
use igloo_manifest::resolve::WHY_BASE;

use super::{Kept, Kind};
use crate::context::Context;
use crate::environment::{Realised, locked_environment};
use crate::error::OpsError;
use crate::project::Project;

/// Where commands are, relative to the root.
const BINS: [&str; 4] = ["usr/bin", "usr/sbin", "usr/games", "usr/local/bin"];

/// Makes the directory of shims of a shell, and the description that they enter with.
pub(super) fn shims(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    kept: &Kept,
    realised: &Realised,
) -> Result<PathBuf, OpsError> {
    let base = ctx.dirs.project_state(&project.id).join("shims");
    let directory = base.join(format!("{name}-{}", &kept.key[..12]));
    if directory.join("spec.json").exists() {
        return Ok(directory.join("bin"));
    }
    create_dirs(&base)?;
    let temporary = base.join(format!(".{name}-{}", std::process::id()));
    remove_tree(&temporary)?;
    let bin = temporary.join("bin");
    create_dirs(&bin)?;
    let spec = directory.join("spec.json");
    let mut commands = commands(project, name, &realised.environment)?;
    // Nix's, if they are not at their own paths on this machine.
    if let Some(profile) = realised.profile.as_ref().filter(|_| kept.bins.is_empty()) {
        commands.extend(["usr/local/bin", "usr/local/sbin"].iter().flat_map(|bin| list(&profile.data.join(bin))));
    }
    for command in commands {
        let shim = bin.join(&command);
        let text = format!(
            "#!/bin/sh\nexec {} __enter {} {} \"$@\"\n",
            quote(&ctx.exe.to_string_lossy()),
            quote(&spec.to_string_lossy()),
            quote(&command)
        );
        fs::write(&shim, text).at("write", &shim)?;
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).at("change the mode of", &shim)?;
    }
    let json = serde_json::to_vec(kept).map_err(OpsError::Json)?;
    write_atomic(temporary.join("spec.json"), &json)?;
    match fs::rename(&temporary, &directory) {
        // Another igloo made the same.
        Err(_) if directory.join("spec.json").exists() => remove_tree(&temporary)?,
        other => other.at("rename", &temporary)?,
    }
    for old in fs::read_dir(&base).at("list", &base)?.flatten() {
        let is_old = old.file_name().to_string_lossy().starts_with(&format!("{name}-")) && old.path() != directory;
        if is_old {
            remove_tree(old.path())?;
        }
    }
    Ok(directory.join("bin"))
}

/// Directories of the commands of Nix's packages, if this machine has the packages at their own paths and its Nix promises to
/// keep them; else none, and they are entered like Debian's.
pub(super) fn bins(
    ctx: &Context<'_>,
    project: &Project,
    name: &str,
    profile: &crate::nix::Profile,
) -> Result<Vec<PathBuf>, OpsError> {
    let on_host = ctx.nix.host_store.as_deref() == Some(Path::new("/"));
    if !on_host || !profile.outputs.iter().all(|path| Path::new(&path.full()).exists()) {
        return Ok(Vec::new());
    }
    let roots = ctx.dirs.project_state(&project.id).join("nix-roots");
    create_dirs(&roots)?;
    let full: Vec<String> = profile.outputs.iter().map(|path| path.full()).collect();
    let kept = igloo_remote::Nix::find(&ctx.caller.environment)
        .and_then(|nix| nix.keep(&project.directory, &full, &roots.join(name)));
    match kept {
        Ok(()) => Ok(profile.bins.iter().map(PathBuf::from).collect()),
        Err(_) => Ok(Vec::new()),
    }
}

/// Names of the commands of every package that isn't there only because of the base.
fn commands(project: &Project, name: &str, environment: &Environment) -> Result<BTreeSet<String>, OpsError> {
    let Some(lock) = project.lock()? else { return Err(OpsError::LockStale) };
    let locked = locked_environment(lock, &format!("shells.{name}"))?;
    let wanted: BTreeSet<&str> = locked
        .packages
        .iter()
        .map(|(package, _)| package.as_str())
        .filter(|package| !is_base(package, &locked.why))
        .collect();
    let by_path: BTreeMap<_, _> = lock
        .packages
        .iter()
        .filter(|p| wanted.contains(p.name.as_str()))
        .filter_map(|p| Some((p.store.as_ref()?, ())))
        .collect();
    let mut names = BTreeSet::new();
    let mut of_wanted = BTreeSet::new();
    for (path, physical) in &environment.members {
        if by_path.contains_key(path) {
            of_wanted.insert(physical.join("data"));
        }
    }
    for tree in &of_wanted {
        for bin in BINS {
            names.extend(list(&tree.join(bin)));
        }
    }
    // Alternatives are links of the generated layer; one counts if what it leads to does.
    for bin in BINS {
        let directory = environment.root.join(bin);
        for command in list(&directory) {
            if let Some(target) = follow(&environment.root, &directory.join(&command))
                && of_wanted.iter().any(|tree| tree.join(&target).symlink_metadata().is_ok())
            {
                names.insert(command);
            }
        }
    }
    Ok(names)
}

fn list(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}

/// Where a link of the generated layer leads, through `/etc/alternatives`, relative to the root.
fn follow(root: &Path, link: &Path) -> Option<PathBuf> {
    let mut target = fs::read_link(link).ok()?;
    for _ in 0..2 {
        let inside = target.strip_prefix("/").ok()?.to_owned();
        match fs::read_link(root.join(&inside)) {
            Ok(next) => target = next,
            Err(_) => return Some(inside),
        }
    }
    target.strip_prefix("/").ok().map(Path::to_owned)
}

/// True if a package came along only for the base.
fn is_base(package: &str, why: &BTreeMap<String, String>) -> bool {
    let mut at = package;
    for _ in 0..why.len() + 1 {
        match why.get(at).map(String::as_str) {
            Some(WHY_BASE) => return true,
            Some(parent) if why.contains_key(parent) => at = parent,
            _ => return false,
        }
    }
    false
}

pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command of the environment enters it; anything else, and the interactive shell, are the machine's own with
/// the shims first on PATH.
pub(super) fn kind(ctx: &Context<'_>, kept: &Kept, command: &[String], directory: &Path) -> Result<Kind, OpsError> {
    let shims = kept.shims.clone().unwrap_or_default();
    if let Some(program) = command.first()
        && (program.contains('/') || shims.join(program).exists())
    {
        return Ok(Kind::Enter(Box::new(spec(ctx, kept, command.iter().map(Into::into).collect(), directory))));
    }
    let path = variable(ctx, "PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let path = format!("{}:{path}", kept.path());
    let mut process = match command {
        [] => {
            let shell = ctx.caller.shell.clone().unwrap_or_else(|| "/bin/sh".into());
            match &kept.hook {
                None => Command::new(shell),
                Some(hook) => {
                    let mut process = Command::new("/bin/sh");
                    process.arg("-c").arg(format!("{hook}\nexec {}", quote(&shell.to_string_lossy())));
                    process
                }
            }
        }
        [program, arguments @ ..] => {
            let found = find(program, &path).ok_or_else(|| OpsError::NoCommand { program: program.clone() })?;
            let mut process = Command::new(found);
            process.args(arguments);
            process
        }
    };
    process.env("PATH", path).env("IGLOO_SHELL", &kept.name).current_dir(directory);
    process.envs(&kept.env);
    Ok(Kind::Host(Box::new(process)))
}

pub(super) fn find(program: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| fs::metadata(candidate).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

fn variable(ctx: &Context<'_>, name: &str) -> Option<String> {
    ctx.caller.environment.iter().find(|(n, _)| n == name)?.1.to_str().map(str::to_owned)
}

/// The view in which `/usr` is the environment's and the rest the machine's.
pub(super) fn spec(ctx: &Context<'_>, kept: &Kept, args: Vec<OsString>, directory: &Path) -> ShellSpec {
    super::spec(ctx, kept, enter::Isolation::Host, &kept.declared, Home::Host, args, directory)
}

/// A PATH without our own directories of shims.
pub(super) fn without_shims(path: &OsStr) -> OsString {
    let is_shims = |entry: &[u8]| {
        let entry = Path::new(OsStr::from_bytes(entry));
        entry.ends_with("bin") && entry.parent().is_some_and(|d| d.join("spec.json").exists())
    };
    let rest: Vec<&[u8]> = path.as_bytes().split(|b| *b == b':').filter(|entry| !is_shims(entry)).collect();
    OsString::from_vec(rest.join(&b':'))
}
