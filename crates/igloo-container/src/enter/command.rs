//! Finding the command inside the environment, and becoming it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, AtFlags, CWD};

use super::EnterError;

/// What a shell uses if `PATH` is unset.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that a shell would run for these words.
pub(crate) fn find(args: &[OsString], env: &[(OsString, OsString)]) -> Result<PathBuf, EnterError> {
    let name = args.first().map_or(OsStr::new(""), OsString::as_os_str);
    let not_found = || EnterError::NotFound { command: name.to_string_lossy().into_owned() };
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        return usable(Path::new(name)).map(|()| name.into()).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => not_found(),
            _ => EnterError::NotExecutable { path: name.into(), source },
        });
    }
    let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or(OsStr::new(DEFAULT_PATH), |(_, v)| v.as_os_str());
    let mut failure = None;
    for dir in path.as_bytes().split(|b| *b == b':').filter(|dir| !dir.is_empty()) {
        let candidate = Path::new(OsStr::from_bytes(dir)).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            // One that may not be run is remembered, as shells do; a directory called so is no command.
            Err(source) if candidate.is_file() => {
                failure = failure.or(Some(EnterError::NotExecutable { path: candidate, source }));
            }
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(not_found))
}

fn usable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Replaces this process; returns only the failure. A script without `#!` is run by `/bin/sh`.
pub(crate) fn exec(program: &Path, args: &[OsString], env: &[(OsString, OsString)]) -> EnterError {
    let mut command = Command::new(program);
    command.args(args.get(1..).unwrap_or_default()).env_clear().envs(env.iter().map(|(key, value)| (key, value)));
    if let Some(name) = args.first() {
        command.arg0(name);
    }
    let source = command.exec();
    EnterError::NotExecutable { path: program.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn words(name: &str) -> Vec<OsString> {
        vec![name.into()]
    }

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for d in [&a, &b] {
            std::fs::create_dir(d).expect("mkdir");
        }
        for (path, mode) in [(a.join("x"), 0o644), (b.join("x"), 0o755), (a.join("y"), 0o644)] {
            std::fs::write(&path, "").expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        std::fs::create_dir(a.join("dir")).expect("mkdir");
        let env = vec![("PATH".into(), format!("{}::{}", a.display(), b.display()).into())];
        assert_eq!(find(&words("x"), &env).expect("found"), b.join("x"));
        assert_eq!(find(&words("y"), &env).expect_err("not executable").exit_code(), 126);
        assert_eq!(find(&words("dir"), &env).expect_err("a directory").exit_code(), 127);
        assert_eq!(find(&words("nothing"), &env).expect_err("missing").exit_code(), 127);
        assert_eq!(find(&words("/nothing/at/all"), &env).expect_err("missing").exit_code(), 127);
        assert_eq!(find(&words(a.to_str().expect("text")), &env).expect_err("a directory").exit_code(), 126);
        assert_eq!(find(&words(""), &env).expect_err("empty").exit_code(), 127);
    }
}
