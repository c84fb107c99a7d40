//! `igloo cp`: files into running services and out of them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use igloo_container::copy::{Copying, Place, receive, send};
use igloo_container::exec::{ExecSpec, exec_by};

use super::{check_name, running};
use crate::context::Context;
use crate::error::OpsError;
use crate::project::Project;
use crate::unit::Payload;

/// One side of a copy as it is written: `SERVICE:PATH`, or a path here (with a `/` before any colon).
fn side<'t>(project: &Project, text: &'t str) -> Result<(Option<&'t str>, PathBuf), OpsError> {
    match text.split_once(':') {
        Some((service, path)) if !service.contains('/') => {
            check_name(project, service)?;
            Ok((Some(service), Path::new("/").join(path)))
        }
        _ => Ok((None, PathBuf::from(text))),
    }
}

/// The name that a source has where it arrives, and whether only its content does.
fn name(source: &str) -> (String, bool) {
    let path = source.split_once(':').filter(|(s, _)| !s.contains('/')).map_or(source, |(_, path)| path);
    let contents = path == "." || path.ends_with("/.");
    let name = Path::new(path).file_name().unwrap_or(OsStr::new("root"));
    (name.to_string_lossy().into_owned(), contents)
}

/// Copies between this machine and a service, or between services. `arguments` run igloo in the same place again; relative
/// paths begin in `directory`.
pub fn copy(ctx: &Context<'_>, project: &Project, directory: &Path, from: &str, to: &str) -> Result<(), OpsError> {
    let ((source, source_path), (target, target_path)) = (side(project, from)?, side(project, to)?);
    let (name, contents) = name(from);
    let inside = |service: &str, what: &Copying| -> Result<Command, OpsError> {
        let mut command = Command::new(&ctx.exe);
        command.arg("-C").arg(&project.directory).arg("__copy").arg(service);
        command.arg(serde_json::to_string(what).map_err(OpsError::Json)?);
        Ok(command)
    };
    let failed = |source| OpsError::Command { program: "igloo".to_owned(), source };
    let copied = |source| OpsError::Copy { from: from.to_owned(), to: to.to_owned(), source };
    let place = |path: PathBuf| Place { path, name: name.clone(), contents };
    let sending = source.map(|service| inside(service, &Copying::Out { path: source_path.clone() })).transpose()?;
    let receiving = |path| Copying::In { to: place(path), owner: (0, 0) };
    let (ended, result) = match (sending, target) {
        (None, None) => return Err(OpsError::NoCopySide { text: format!("{from} {to}") }),
        (Some(mut sending), None) => {
            let mut child = sending.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
            let output = child.stdout.take();
            let result = output.map(|o| receive(o, &place(directory.join(&target_path)), None)).transpose();
            (vec![child.wait().map_err(failed)?], result.map(drop))
        }
        (None, Some(service)) => {
            let mut command = inside(service, &receiving(target_path))?;
            let mut child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
            let input = child.stdin.take();
            let result = input.map(|i| send(&directory.join(&source_path), i)).transpose();
            (vec![child.wait().map_err(failed)?], result.map(drop))
        }
        (Some(mut sending), Some(service)) => {
            let mut first = sending.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
            let mut second = inside(service, &receiving(target_path))?;
            if let Some(output) = first.stdout.take() {
                second.stdin(output);
            }
            let second = second.status().map_err(failed)?;
            (vec![first.wait().map_err(failed)?, second], Ok(()))
        }
    };
    // The end inside has told why, and what went wrong here then follows from it.
    if ended.iter().any(|status| !status.success()) {
        return Err(OpsError::CopyInside { from: from.to_owned(), to: to.to_owned() });
    }
    result.map_err(copied)
}

/// The end inside: becomes a process of the container; returns only the failure.
pub fn inside(ctx: &Context<'_>, project: &Project, service: &str, what: &str) -> Result<(), OpsError> {
    let mut copying: Copying = serde_json::from_str(what).map_err(OpsError::Json)?;
    let mut client = running(ctx, project)?;
    let status = client.status()?;
    let not_running = || OpsError::ServiceNotRunning { service: service.to_owned() };
    let pid = status.services.iter().find(|s| s.name == service).and_then(|s| s.pid).ok_or_else(not_running)?;
    let payload: Payload = serde_json::from_value(client.unit(service)?).map_err(OpsError::Json)?;
    if payload.host.is_some() {
        let what = "`cp`, and runs on this machine, whose files are yours to copy";
        return Err(OpsError::NotYet { service: service.to_owned(), what });
    }
    let container = payload.container;
    let locks = container.locks();
    if let Copying::In { owner, .. } = &mut copying {
        *owner = (container.user.uid, container.user.gid);
    }
    let spec = ExecSpec {
        pid,
        args: Vec::new(),
        env: Vec::new(),
        workdir: PathBuf::new(),
        user: container.user,
        locks,
        copy: Some(copying),
    };
    drop(client);
    Err(exec_by(&ctx.exe, &ctx.caller.environment, &spec).into())
}
