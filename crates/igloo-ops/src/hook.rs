//! `igloo hook`: projects entered on `cd`. Nothing is activated before the user said `igloo allow` there, and
//! nothing is fetched from a prompt: what isn't assembled yet is only mentioned.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use igloo_base::file::{create_dirs, read_optional, remove_tree, write_atomic};
use igloo_manifest::Isolation;

use crate::context::Context;
use crate::error::OpsError;
use crate::project::{self, Project};
use crate::shell;

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
  if [[ "$PWD" != "${_IGLOO_PWD-}" ]]; then
    _IGLOO_PWD=$PWD
    eval "$(command igloo __activate bash)"
  fi
  return $status
}
if [[ ";${PROMPT_COMMAND[*]:-};" != *";_igloo_hook;"* ]]; then
  PROMPT_COMMAND="_igloo_hook${PROMPT_COMMAND:+;$PROMPT_COMMAND}"
fi
"#
        }
        Shell::Zsh => {
            r#"_igloo_hook() { eval "$(command igloo __activate zsh)"; }
typeset -ag chpwd_functions precmd_functions
if (( ! ${chpwd_functions[(I)_igloo_hook]} )); then
  chpwd_functions=(_igloo_hook $chpwd_functions)
  _igloo_hook
fi
"#
        }
        Shell::Fish => {
            r#"function _igloo_hook --on-variable PWD
    command igloo __activate fish | source
end
_igloo_hook
"#
        }
        Shell::Direnv => {
            r#"# `use igloo` in .envrc; direnv's own `allow` is the permission.
use_igloo() {
  watch_file igloo.toml igloo.lock
  igloo fetch --quiet || return
  eval "$(igloo __activate direnv)"
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

/// What a shell evaluates in this directory: variables of the project's default shell, or their removal.
pub fn activate(ctx: &Context<'_>, directory: &Path, shell: Shell) -> Result<String, OpsError> {
    let mut text = leave(ctx, shell);
    let mut project = match project::open(ctx, directory) {
        Ok(project) => project,
        Err(OpsError::NoProject { .. }) => return Ok(text),
        Err(e) => return Err(e),
    };
    let name = "default";
    if !project.manifest.shells.contains_key(name) {
        return Ok(text);
    }
    let allowed = read_optional(ctx.dirs.project_state(&project.id).join("allowed"))?.is_some();
    if !allowed && shell != Shell::Direnv {
        say(&mut text, "igloo: this project is not activated; `igloo allow` lets it be");
        return Ok(text);
    }
    let Some(active) = shell::activation(ctx, &mut project, name, Isolation::Host)? else {
        say(&mut text, "igloo: the environment is not assembled yet; `igloo fetch` does that");
        return Ok(text);
    };
    let path = variable(ctx, "IGLOO_OLD_PATH").or_else(|| variable(ctx, "PATH")).unwrap_or_default();
    if shell != Shell::Direnv {
        set(&mut text, shell, "IGLOO_OLD_PATH", &path);
        let names: Vec<&str> = active.env.iter().map(|(name, _)| name.as_str()).collect();
        set(&mut text, shell, "IGLOO_VARIABLES", &names.join(" "));
    }
    set(&mut text, shell, "PATH", &format!("{}:{path}", active.path.display()));
    for (name, value) in &active.env {
        set(&mut text, shell, name, value);
    }
    set(&mut text, shell, "IGLOO_SHELL", &format!("{}:{name}", project.manifest.project.name));
    Ok(text)
}

fn leave(ctx: &Context<'_>, shell: Shell) -> String {
    let mut text = String::new();
    if shell == Shell::Direnv {
        return text;
    }
    if let Some(path) = variable(ctx, "IGLOO_OLD_PATH") {
        set(&mut text, shell, "PATH", &path);
        let own = variable(ctx, "IGLOO_VARIABLES").unwrap_or_default();
        for name in own.split(' ').filter(|n| is_name(n)).chain(["IGLOO_OLD_PATH", "IGLOO_VARIABLES", "IGLOO_SHELL"]) {
            // Writing to a String can't fail.
            let _ = match shell {
                Shell::Fish => writeln!(text, "set -e {name};"),
                _ => writeln!(text, "unset {name};"),
            };
        }
    }
    text
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn variable(ctx: &Context<'_>, name: &str) -> Option<String> {
    ctx.caller.environment.iter().find(|(n, _)| n == name)?.1.to_str().map(str::to_owned)
}

fn set(text: &mut String, shell: Shell, name: &str, value: &str) {
    let _ = match (shell, name) {
        (Shell::Fish, "PATH") => writeln!(text, "set -gx PATH (string split : -- {});", quote_fish(value)),
        (Shell::Fish, _) => writeln!(text, "set -gx {name} {};", quote_fish(value)),
        _ => writeln!(text, "export {name}={};", quote(value)),
    };
}

fn say(text: &mut String, message: &str) {
    let _ = writeln!(text, "echo {} >&2;", quote(message));
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
}
