//! What a container can't do, proved from inside it.
//!
//! Half of the checks look at the running service from outside (`outside`); the other half are tried by a process that
//! enters the container, takes on the very locks of a service, and then attempts what must not work (`inside`). That
//! process runs no program, so it needs nothing in the container: no shell, no C library.
//!
//! The numbers up to 44 are those of the list of checks in the documentation; they never change their meaning.

mod attempts;
mod inside;
mod outside;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use igloo_base::At;
use serde::{Deserialize, Serialize};

use crate::enter::{Act as _, EnterError};
use crate::spec::ContainerSpec;
use crate::{ContainerError, exec, sys};

/// Command word of the process that does it.
pub const WORD: &str = "__audit";
/// More than all checks of a container ever say.
const MAX_REPORT: u64 = 1 << 20;

/// What is to be looked at, and bait that must not be reached from inside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditSpec {
    /// The container's program, as this process sees its id; 0 if the process that looks is in the container already.
    pub pid: u32,
    /// What it was started with.
    pub container: ContainerSpec,
    /// Addresses that its ports are published on.
    pub published: Vec<std::net::SocketAddr>,
    /// Files of the host that it must not see: sockets of daemons, and one that was made for this.
    pub hidden: Vec<PathBuf>,
    /// Port of the host's 127.0.0.1 that somebody listens on.
    pub port: u16,
    /// Name of an abstract socket of the host that somebody listens on.
    pub socket: String,
    /// A process of the host.
    pub process: u32,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its number.
    pub check: u32,
    /// What it is about: `files`, `process`, `kernel`, `devices`, `network`, `identity`.
    pub area: String,
    /// What must hold.
    pub name: String,
    /// Whether it does.
    pub result: Verdict,
    /// Why not, or why it was not looked at; of those that pass, what was seen.
    pub detail: String,
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It does.
    Pass,
    /// It does not.
    Fail,
    /// It was given up by name, or there is nothing to look at.
    Skip,
}

impl Verdict {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "skip",
        }
    }
}

/// The result of one check before it has a name.
enum Found {
    Pass(String),
    Fail(String),
    Skip(String),
}

impl Found {
    /// All is well unless something is wrong.
    fn unless(wrong: Vec<String>) -> Self {
        if wrong.is_empty() { Found::Pass(String::new()) } else { Found::Fail(wrong.join(", ")) }
    }

    fn called(self, check: u32, name: &str) -> Check {
        let (result, detail) = match self {
            Found::Pass(detail) => (Verdict::Pass, detail),
            Found::Fail(detail) => (Verdict::Fail, detail),
            Found::Skip(detail) => (Verdict::Skip, detail),
        };
        let area = match check {
            1..=15 => "files",
            16..=23 | 45 | 46 => "process",
            24..=30 | 47 | 48 => "kernel",
            31..=32 => "devices",
            33..=37 => "network",
            _ => "identity",
        };
        Check { check, area: area.to_owned(), name: name.to_owned(), result, detail }
    }
}

/// Audits a running container by way of a process of `exe`, which answers to [`WORD`].
pub fn audit(exe: &Path, spec: &AuditSpec) -> Result<Vec<Check>, EnterError> {
    let failed = |what: &str| ContainerError::Remote { peer: "audit", message: what.to_owned() };
    // As for `exec`: what enters a container can't be written to by it.
    let binary = exec::read_only(exe)?;
    let path = exec::name_of(&binary);
    let mut child = Command::new(&path)
        .arg(WORD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .at("run", exe)?;
    let text = serde_json::to_vec(spec).map_err(|e| failed(&e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended by now says why.
        drop(stdin.write_all(&text));
    }
    let output = child.wait_with_output().act("wait for the audit")?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout).map_err(|e| failed(&format!("unreadable report: {e}")))?)
}

/// Body of `igloo __audit`: a spec on standard input, a report on standard output. Run it before any thread exists.
pub fn audit_main() -> std::process::ExitCode {
    match read().and_then(|spec| report(&spec)) {
        Ok(text) => match io::stdout().write_all(&text) {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(_) => std::process::ExitCode::FAILURE,
        },
        Err(e) => {
            sys::write_raw(2, crate::error::chain(&e).as_bytes());
            std::process::ExitCode::FAILURE
        }
    }
}

fn read() -> Result<AuditSpec, EnterError> {
    let mut text = Vec::new();
    io::stdin().take(MAX_REPORT * 16).read_to_end(&mut text).act("read what to audit")?;
    serde_json::from_slice(&text).map_err(|source| ContainerError::Message { peer: "igloo", source }.into())
}

fn report(spec: &AuditSpec) -> Result<Vec<u8>, EnterError> {
    let mut checks = Vec::new();
    if spec.pid == 0 {
        checks.extend(inside::look(spec));
    } else {
        checks.extend(outside::look(spec)?);
        checks.extend(join(spec)?);
    }
    checks.sort_by_key(|c| c.check);
    serde_json::to_vec(&checks).map_err(|source| ContainerError::Message { peer: "ourselves", source }.into())
}

/// Lets a child enter the container and look around there.
fn join(spec: &AuditSpec) -> Result<Vec<Check>, EnterError> {
    let container = exec::Container::open(spec.pid)?;
    container.enter(spec.pid)?;
    let (heard, tell) = io::pipe().act("make a pipe")?;
    // Only children are in the process id namespace.
    let child = match sys::fork(rustix::thread::UnshareFlags::empty(), false).act("start a process")? {
        sys::Fork::Child => {
            drop(heard);
            let told = exec::lock_up(&spec.container.user, spec.container.locks()).map(|()| inside::look(spec));
            let text = match told {
                Ok(checks) => serde_json::to_vec(&Ok::<_, String>(checks)),
                Err(e) => serde_json::to_vec(&Err::<Vec<Check>, _>(crate::error::chain(&e))),
            };
            drop((&tell).write_all(&text.unwrap_or_default()));
            sys::exit_now(0)
        }
        sys::Fork::Parent(pid) => pid,
    };
    drop(tell);
    let mut text = Vec::new();
    heard.take(MAX_REPORT).read_to_end(&mut text).act("hear what was found")?;
    let status = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
    let refused = |message: String| EnterError::from(ContainerError::Remote { peer: "audit", message });
    match serde_json::from_slice::<Result<Vec<Check>, String>>(&text) {
        Ok(Ok(checks)) => Ok(checks),
        Ok(Err(message)) => Err(refused(message)),
        Err(_) => Err(refused(format!("what looked around inside was stopped ({status:?})"))),
    }
}
