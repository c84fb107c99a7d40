//! `igloo hook`: projects entered on `cd`. Nothing is activated before the user said `igloo allow` there, and
//! nothing is fetched from a prompt: what isn't assembled yet is only mentioned.
//!
//! The shell asks before each prompt. What it was told last it carries in two variables: [`SEEN`], a digest of
//! everything that the answer depended on, so that nothing is read when nothing changed, and [`UNDO`], what to put
//! back when the project is left.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use igloo_base::Sha256;
use igloo_base::dirs::ProjectId;
use igloo_base::file::{create_dirs, read_optional, remove_tree, write_atomic};
use igloo_manifest::Isolation;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::OpsError;
use crate::project::{self, Project};
use crate::shell;

/// What the last answer depended on: the project's id, a colon, a digest.
const SEEN: &str = "IGLOO_HOOK";
/// What to put back, [`Undo`] as JSON.
const UNDO: &str = "IGLOO_UNDO";

/// A shell that igloo has a hook for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
    /// direnv, which speaks bash.
    Direnv,
}

/// A word that names no such shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hook for `{0}`: bash, zsh, fish or direnv")]
pub struct UnknownShell(String);

impl FromStr for Shell {
    type Err = UnknownShell;

    fn from_str(text: &str) -> Result<Self, UnknownShell> {
        match text {
            "bash" => Ok(Shell::Bash),
            "zsh" => Ok(Shell::Zsh),
            "fish" => Ok(Shell::Fish),
            "direnv" => Ok(Shell::Direnv),
            _ => Err(UnknownShell(text.to_owned())),
        }
    }
}

/// What the shell evaluates at its start.
pub fn code(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => {
            r#"_igloo_hook() {
  local status=$?
  eval "$(command igloo __activate bash)"
  return $status
}
if [[ "${PROMPT_COMMAND[*]:-}" != *_igloo_hook* ]]; then
  PROMPT_COMMAND="_igloo_hook${PROMPT_COMMAND:+;$PROMPT_COMMAND}"
fi
"#
        }
        Shell::Zsh => {
            r#"_igloo_hook() { eval "$(command igloo __activate zsh)"; }
typeset -ag chpwd_functions precmd_functions
if (( ! ${precmd_functions[(I)_igloo_hook]} )); then
  chpwd_functions=(_igloo_hook $chpwd_functions)
  precmd_functions=(_igloo_hook $precmd_functions)
fi
"#
        }
        Shell::Fish => {
            r#"function _igloo_hook --on-variable PWD --on-event fish_prompt
    set -l before $status
    command igloo __activate fish | source
    return $before
end
_igloo_hook
"#
        }
        Shell::Direnv => {
            r#"# `use igloo` in .envrc; direnv's own `allow` is the permission.
use_igloo() {
  local status=0
  igloo fetch --quiet || status=$?
  # Afterwards, since `fetch` may write the lock.
  watch_file igloo.toml igloo.lock
  # A status that is returned would be dropped by an .envrc that goes on; `exit` makes direnv say that it failed.
  (( status == 0 )) || exit "$status"
  local code
  code=$(igloo __activate direnv) || exit
  eval "$code"
}
# `use flake` and `use nix` as they are, evaluated once and kept until something that Nix looked at changes.
_igloo_nix() {
  local code
  code=$(igloo __nix-env "$@") || exit
  eval "$code"
}
use_flake() {
  local reference="${1:-.}"
  shift || true
  _igloo_nix "$reference" -- "$@"
}
use_nix() {
  case "${1:-}" in
    "" | -*) _igloo_nix "$([ -f shell.nix ] && echo ./shell.nix || echo ./default.nix)" -- "$@" ;;
    *) local file="$1"; shift; _igloo_nix "$(realpath -- "$file")" -- "$@" ;;
  esac
}
"#
        }
    }
}

/// Lets hooks activate the project of a directory, or no longer.
pub fn allow(ctx: &Context<'_>, project: &Project, yes: bool) -> Result<(), OpsError> {
    let state = ctx.dirs.project_state(&project.id);
    create_dirs(&state)?;
    let mark = state.join("allowed");
    match yes {
        true => Ok(write_atomic(mark, b"")?),
        false => Ok(remove_tree(mark)?),
    }
}

/// What a shell is to evaluate, and what went wrong: told once, since the code says that it was.
#[derive(Debug)]
pub struct Activated {
    /// Code of the shell's language; empty if nothing changed.
    pub code: String,
    /// Why the project of this directory could not be activated.
    pub failure: Option<OpsError>,
}

/// What is put back when a project is left.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Undo {
    /// What was put first on PATH, with colons between directories.
    path: String,
    /// Variables as they were before; nothing for those that there were not.
    variables: BTreeMap<String, Option<String>>,
}

/// What a shell evaluates in this directory: variables of the project's default shell, or their removal.
pub fn activate(ctx: &Context<'_>, directory: &Path, shell: Shell) -> Activated {
    let mut text = String::new();
    if shell == Shell::Direnv {
        // It undoes by itself, and asks only when something changed.
        let failure = enter(ctx, directory, shell, &|name| variable(ctx, name), &mut text).err();
        return Activated { code: text, failure };
    }
    let found = project::find(directory).ok();
    let seen = variable(ctx, SEEN);
    match (&found, &seen) {
        (None, None) => return Activated { code: text, failure: None },
        (Some(found), Some(before)) => {
            let id = ProjectId(before.split(':').next().unwrap_or_default().to_owned());
            if seen_of(ctx, found, &id) == *before {
                return Activated { code: text, failure: None };
            }
        }
        _ => {}
    }
    // Left first, and then entered as from outside.
    let undo: Undo = variable(ctx, UNDO).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let mut outside = undo.variables.clone();
    if !undo.path.is_empty() {
        let path = variable(ctx, "PATH").unwrap_or_default();
        outside.entry("PATH".into()).or_insert_with(|| Some(without(&path, &undo.path)));
        outside.insert(UNDO.into(), None);
    }
    if found.is_none() {
        outside.insert(SEEN.into(), None);
    }
    for (name, value) in outside.iter().filter(|(name, _)| is_name(name)) {
        match value {
            Some(value) => set(&mut text, shell, name, value),
            None => unset(&mut text, shell, name),
        }
    }
    let Some(found) = found else { return Activated { code: text, failure: None } };
    let look = |name: &str| outside.get(name).cloned().unwrap_or_else(|| variable(ctx, name));
    let (id, failure) = match enter(ctx, directory, shell, &look, &mut text) {
        Ok(id) => (id, None),
        Err(e) => (ProjectId(String::new()), Some(e)),
    };
    set(&mut text, shell, SEEN, &seen_of(ctx, &found, &id));
    Activated { code: text, failure }
}

/// Adds what enters the project; `look` gives variables as they are outside of it.
fn enter(
    ctx: &Context<'_>,
    directory: &Path,
    shell: Shell,
    look: &dyn Fn(&str) -> Option<String>,
    text: &mut String,
) -> Result<ProjectId, OpsError> {
    let mut project = project::open(ctx, directory)?;
    let id = project.id.clone();
    let name = "default";
    if !project.manifest.shells.contains_key(name) {
        return Ok(id);
    }
    let allowed = read_optional(ctx.dirs.project_state(&id).join("allowed"))?.is_some();
    if !allowed && shell != Shell::Direnv {
        say(text, shell, "igloo: this project is not activated; `igloo allow` lets it be");
        return Ok(id);
    }
    let active = match shell::activation(ctx, &mut project, name, Isolation::Host) {
        Ok(Some(active)) => active,
        Ok(None) | Err(OpsError::LockStale) => {
            say(text, shell, "igloo: the environment is not assembled as igloo.toml has it; `igloo fetch` does that");
            return Ok(id);
        }
        Err(e) => return Err(e),
    };
    let mut variables = active.env;
    let path = variables.get("PATH").cloned().or_else(|| look("PATH")).unwrap_or_default();
    let mut undo = Undo { path: active.path, variables: BTreeMap::new() };
    if variables.contains_key("PATH") {
        undo.variables.insert("PATH".into(), look("PATH"));
    }
    variables.insert("PATH".into(), format!("{}:{path}", undo.path));
    variables.insert("IGLOO_SHELL".into(), format!("{}:{name}", project.manifest.project.name));
    for (name, value) in &variables {
        set(text, shell, name, value);
        if name != "PATH" {
            undo.variables.insert(name.clone(), look(name));
        }
    }
    if shell != Shell::Direnv {
        set(text, shell, UNDO, &serde_json::to_string(&undo).map_err(OpsError::Json)?);
    }
    Ok(id)
}

/// Names a project's state: changes with its manifest, its lock, the permission, and what is assembled of it.
fn seen_of(ctx: &Context<'_>, directory: &Path, id: &ProjectId) -> String {
    let mut text = directory.as_os_str().as_bytes().to_vec();
    let state = ctx.dirs.project_state(id);
    let roots = ctx.dirs.store_root().join("nix/var/nix/gcroots/igloo").join(&id.0);
    for file in [directory.join(project::MANIFEST), directory.join(project::LOCK), state.join("allowed"), roots] {
        let meta = std::fs::metadata(&file).ok();
        let meta = meta.map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
        text.extend(format!("\0{meta:?}").bytes());
    }
    format!("{}:{}", id.0, &Sha256::of(&text).to_string()[..16])
}

/// A PATH without some directories, wherever the shell has put them since.
fn without(path: &str, directories: &str) -> String {
    let stays = |entry: &&str| directories.split(':').all(|own| own != *entry);
    path.split(':').filter(stays).collect::<Vec<_>>().join(":")
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn variable(ctx: &Context<'_>, name: &str) -> Option<String> {
    ctx.caller.environment.iter().find(|(n, _)| n == name)?.1.to_str().map(str::to_owned)
}

fn set(text: &mut String, shell: Shell, name: &str, value: &str) {
    // Writing to a String can't fail.
    let _ = match (shell, name) {
        (Shell::Fish, "PATH") => writeln!(text, "set -gx PATH (string split : -- {});", quote_fish(value)),
        (Shell::Fish, _) => writeln!(text, "set -gx {name} {};", quote_fish(value)),
        _ => writeln!(text, "export {name}={};", quote(value)),
    };
}

fn unset(text: &mut String, shell: Shell, name: &str) {
    let _ = match shell {
        Shell::Fish => writeln!(text, "set -e {name};"),
        _ => writeln!(text, "unset {name};"),
    };
}

fn say(text: &mut String, shell: Shell, message: &str) {
    let _ = match shell {
        Shell::Fish => writeln!(text, "echo {} >&2;", quote_fish(message)),
        _ => writeln!(text, "echo {} >&2;", quote(message)),
    };
}

/// For bash and zsh: single quotes, which nothing in them ends but themselves.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For fish, where a backslash counts inside single quotes.
fn quote_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_against_hostile_values() {
        assert_eq!(quote("a'; rm -rf /; '"), r"'a'\''; rm -rf /; '\'''");
        assert_eq!(quote_fish(r"a\'b"), r"'a\\\'b'");
    }

    #[test]
    fn names_that_are_no_variables_are_not_unset() {
        assert!(is_name("FLASK_DEBUG"));
        assert!(!is_name("X; reboot"));
    }

    #[test]
    fn leaving_takes_its_own_directory_out_of_path_and_nothing_else() {
        assert_eq!(without("/own:/s/bin:/usr/bin:/bin", "/s/bin"), "/own:/usr/bin:/bin");
        assert_eq!(without("/s/bin:/own:/t/bin:/bin", "/s/bin:/t/bin"), "/own:/bin");
    }
}
