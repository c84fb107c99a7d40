//! What a service is told by whoever brings it up: variables and secrets. Read at each `up`, kept in the memory of the
//! supervisor and of the container alone.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use igloo_base::At;
use igloo_container::Secret as Content;
use igloo_manifest::{Secret, Service, template, words};

use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;

/// Where secrets are in a container.
pub(super) const PLACE: &str = "/run/secrets";
/// Name of the file of variables that is read without being named.
pub(crate) const DOT_ENV: &str = ".env";
/// Larger things are data, not secrets; all of a project's travel in one message.
const MAX_SECRET: u64 = 256 << 10;
/// Longest file of variables.
const MAX_ENV_FILE: u64 = 1 << 20;

/// The variables of `env-file` and `env`, and the names of those whose values are not in igloo.toml.
pub(super) fn variables(
    ctx: &Context<'_>,
    project: &Project,
    service: &str,
    declared: &Service,
) -> Result<(BTreeMap<String, String>, Vec<String>), OpsError> {
    let mut variables = BTreeMap::new();
    for file in &declared.env_files {
        variables.extend(env_file(&project.directory.join(file))?);
    }
    let mut hidden: Vec<String> = variables.keys().cloned().collect();
    let asks = declared.content.env.values().any(|value| template::asks(value));
    let beside = if asks { beside(project)? } else { BTreeMap::new() };
    for (name, value) in &declared.content.env {
        let value =
            template::expand(value, &|name| own(ctx, name).or_else(|| beside.get(name).cloned())).map_err(|unset| {
                OpsError::Unset {
                    service: service.to_owned(),
                    name: name.clone(),
                    variable: unset.name,
                    why: unset.why,
                }
            })?;
        variables.insert(name.clone(), value);
    }
    hidden.retain(|name| !declared.content.env.contains_key(name));
    hidden.extend(declared.content.env.iter().filter(|(_, v)| template::asks(v)).map(|(name, _)| name.clone()));
    Ok((variables, hidden))
}

/// A variable of the caller's; what is no text is as good as unset.
fn own(ctx: &Context<'_>, name: &str) -> Option<String> {
    let found = ctx.caller.environment.iter().find(|(key, _)| key == OsStr::new(name))?;
    found.1.to_str().map(str::to_owned)
}

/// The variables of the project's `.env`, for what the caller's environment lacks. It is a file that nobody shares, so that
/// what is secret needn't be in igloo.toml.
fn beside(project: &Project) -> Result<BTreeMap<String, String>, OpsError> {
    let file = project.directory.join(DOT_ENV);
    if file.is_file() { Ok(env_file(&file)?.into_iter().collect()) } else { Ok(BTreeMap::new()) }
}

/// The variables of a file: `NAME=value`, `export NAME=value`; `'…'` is taken as it is, in `"…"` a backslash means what
/// it does in a shell. Nothing is interpolated.
pub(crate) fn env_file(path: &Path) -> Result<Vec<(String, String)>, OpsError> {
    let text = read(path, MAX_ENV_FILE)?;
    let text = String::from_utf8(text).map_err(|_| OpsError::EnvFile {
        path: path.to_owned(),
        line: 1,
        why: "it is no text in UTF-8".to_owned(),
    })?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Never the line itself, which may hold what nobody is to see.
        let bad = |why: String| OpsError::EnvFile { path: path.to_owned(), line: index + 1, why };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| bad("there is no `=`".to_owned()))?;
        let name = name.trim();
        words::check_variable(name).map_err(|e| bad(e.message))?;
        let value = unquote(value.trim()).ok_or_else(|| bad("a quote is not closed".to_owned()))?;
        if value.contains('\0') {
            return Err(bad("there is a zero byte in it".to_owned()));
        }
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn unquote(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('\'') {
        return rest.find('\'').map(|end| rest[..end].to_owned());
    }
    let Some(rest) = text.strip_prefix('"') else {
        // A comment begins after a space.
        return Some(text.split(" #").next().unwrap_or(text).trim_end().to_owned());
    };
    let mut value = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next()? {
            '"' => return Some(value),
            '\\' => match letters.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                other @ ('"' | '\\' | '$' | '`') => value.push(other),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
}

/// The secrets, if there are any.
pub(super) fn secrets(
    ctx: &Context<'_>,
    project: &Project,
    service: &str,
    declared: &Service,
) -> Result<Option<Vec<(String, Content)>>, OpsError> {
    let mut files = Vec::new();
    for (name, source) in &declared.secrets {
        let bad = |why: String| OpsError::Secret { service: service.to_owned(), secret: name.clone(), why };
        let content = match source {
            Secret::File(path) => {
                let path = project.directory.join(path);
                read(&path, MAX_SECRET).map_err(|e| bad(crate::error::chain(&e)))?
            }
            Secret::Env(variable) => match own(ctx, variable) {
                Some(value) => value.into_bytes(),
                None => {
                    let value = beside(project)?.remove(variable);
                    value.ok_or_else(|| bad(format!("the variable `{variable}` is not set")))?.into_bytes()
                }
            },
            Secret::Command(words) => said(ctx, project, words).map_err(bad)?,
        };
        files.push((name.clone(), Content(content)));
    }
    Ok((!files.is_empty()).then_some(files))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, OpsError> {
    let file = fs::File::open(path).at("open", path)?;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).at("read", path)?;
    if content.len() as u64 > most {
        Err(std::io::Error::other(format!("it is larger than {} KiB", most >> 10))).at("read", path)?;
    }
    Ok(content)
}

/// What a command prints; it may ask the person for a password meanwhile.
fn said(ctx: &Context<'_>, project: &Project, words: &[String]) -> Result<Vec<u8>, String> {
    let Some((program, args)) = words.split_first() else { return Err("the command has no words".to_owned()) };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(ctx.caller.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(&project.directory).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot run `{program}`: {e}"))?;
    let mut content = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_SECRET + 1).read_to_end(&mut content).map_err(|e| format!("cannot hear `{program}`: {e}"))?;
    }
    if content.len() as u64 > MAX_SECRET {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("`{program}` says more than {} KiB", MAX_SECRET >> 10));
    }
    let status = child.wait().map_err(|e| format!("cannot wait for `{program}`: {e}"))?;
    if !status.success() {
        return Err(format!("`{program}` ended with {status}"));
    }
    if content.last() == Some(&b'\n') {
        content.pop();
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("env");
        let text = "# comment\n\nA=1\nexport B = two words # said\nC='a $b #'\nD=\"x\\ny \\\"z\\\"\"\nE=\nF=a=b#c\n";
        fs::write(&path, text).expect("write");
        let read = env_file(&path).expect("read");
        let wanted = [("A", "1"), ("B", "two words"), ("C", "a $b #"), ("D", "x\ny \"z\""), ("E", ""), ("F", "a=b#c")];
        assert_eq!(read, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
        for (text, line) in [("A=1\nnonsense hush", 2), ("1A=x", 1), ("A='x", 1), ("A=\"x\\", 1)] {
            fs::write(&path, text).expect("write");
            match env_file(&path).expect_err(text) {
                OpsError::EnvFile { line: at, why, .. } => assert!(at == line && !why.contains("hush"), "{why}"),
                other => panic!("{other}"),
            }
        }
    }
}
