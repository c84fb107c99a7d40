//! Starting the supervisor as a process of its own, and owning a project while it lives.
//!
//! Runtime directory of a project: `lock` is held by the supervisor for life, so the kernel releases it however that
//! life ends; `control.sock` is replaced only by who holds the lock. Both are made anew when somebody deletes them; in
//! between, the lock on the directory of the data keeps others away.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use igloo_base::At;
use igloo_base::file::{FileLock, create_dirs, create_private_dir};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::error::SupervisorError;

/// What the new process says, once, as a line of JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Ready,
    Failed(String),
}

/// No honest word is longer.
const MAX_WORD: u64 = 64 << 10;

/// The control socket in a project's runtime directory.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

fn lock_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("lock")
}

/// Starts `exe args…` detached from the terminal and waits until it calls [`Startup::ready`] or [`Startup::failed`].
/// What it writes besides is appended to `log`. Gives its process id. A process that is silent for `timeout` is
/// killed.
pub fn spawn_detached(exe: &Path, args: &[OsString], log: &Path, timeout: Duration) -> Result<u32, SupervisorError> {
    if let Some(parent) = log.parent() {
        create_dirs(parent)?;
    }
    let log_file = OpenOptions::new().create(true).append(true).mode(0o600).open(log).at("open", log)?;
    let log_start = log_file.metadata().at("read", log)?.len();
    let spawn = |source| SupervisorError::Spawn { exe: exe.to_owned(), source };
    let (reader, writer) = io::pipe().map_err(spawn)?;
    // The command holds our copy of the write end; it must go, or we would never see the pipe's end.
    let child = Command::new(exe).args(args).stdin(Stdio::null()).stdout(writer).stderr(log_file).spawn();
    let mut child = child.map_err(spawn)?;
    match hear(OwnedFd::from(reader), timeout) {
        Ok(Some(Word::Ready)) => Ok(child.id()),
        Ok(Some(Word::Failed(message))) => {
            reap(&mut child);
            Err(SupervisorError::Start { message })
        }
        Ok(None) => {
            let status = reap(&mut child);
            let last = last_line(log, log_start).map(|l| format!(": {l}")).unwrap_or_default();
            Err(SupervisorError::Silent { what: format!("ended ({status}){last}"), log: log.to_owned() })
        }
        Err(error) => {
            let _ = child.kill();
            reap(&mut child);
            let what = match error.kind() {
                io::ErrorKind::TimedOut => format!("was not ready after {} s", timeout.as_secs()),
                _ => format!("said something unexpected ({error})"),
            };
            Err(SupervisorError::Silent { what, log: log.to_owned() })
        }
    }
}

/// The one word, or `None` if the pipe ends before.
fn hear(pipe: OwnedFd, timeout: Duration) -> io::Result<Option<Word>> {
    let end = Instant::now() + timeout;
    let mut pipe = File::from(pipe);
    let mut heard = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let n = pipe.read(&mut chunk)?;
        heard.extend_from_slice(&chunk[..n]);
        if let Some(line) = heard.split(|b| *b == b'\n').next().filter(|_| heard.contains(&b'\n')) {
            return Ok(Some(serde_json::from_slice(line)?));
        }
        if n == 0 || heard.len() as u64 > MAX_WORD {
            return Ok(None);
        }
    }
}

/// Waits a little for the end of a process that is about to end.
fn reap(child: &mut Child) -> String {
    for _ in 0..200 {
        if let Ok(Some(status)) = child.try_wait() {
            return status.to_string();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "without a word, still running".to_owned()
}

fn last_line(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_WORD).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned)
}

/// The other side of [`spawn_detached`], in the new process. Dropped unused, the starter learns that the process
/// ended.
#[derive(Debug)]
pub struct Startup {
    pipe: File,
}

impl Startup {
    /// Leaves the terminal and the directory of the caller. Call it first thing in the new process, while it has one
    /// thread. From here on standard output is the same as standard error.
    pub fn begin() -> Result<Startup, SupervisorError> {
        let detach = |act| move |e: rustix::io::Errno| SupervisorError::Detach { act, source: e.into() };
        // Nobody else may hold the pipe, above all no service that outlives this start.
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(detach("take the pipe"))?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(detach("redirect the output"))?;
        match rustix::process::setsid() {
            // Leader of its own group already, when started by hand.
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(e) => return Err(detach("leave the terminal")(e)),
        }
        rustix::process::chdir("/").map_err(detach("leave the directory"))?;
        Ok(Startup { pipe: File::from(pipe) })
    }

    /// Tells the starter that all is well.
    pub fn ready(self) {
        self.say(&Word::Ready);
    }

    /// Tells the starter why it is not.
    pub fn failed(self, message: &str) {
        self.say(&Word::Failed(message.chars().take(8192).collect()));
    }

    fn say(mut self, word: &Word) {
        let Ok(mut line) = serde_json::to_vec(word) else { return };
        line.push(b'\n');
        // A starter that is gone has nothing to be told.
        let _ = self.pipe.write_all(&line);
    }
}

/// A project that is ours to supervise, as long as this value lives or until the process dies in whatever way.
#[derive(Debug)]
pub struct Ownership {
    runtime_dir: PathBuf,
    socket: PathBuf,
    _lock: FileLock,
    /// The directory of the data: whoever deletes the runtime directory does not make room for a second supervisor.
    _data: OwnedFd,
}

impl Ownership {
    /// Takes the project's locks and listens on its socket; `None` if another supervisor lives. `data_dir` holds what two
    /// must never write to.
    pub fn acquire(runtime_dir: &Path, data_dir: &Path) -> Result<Option<(Ownership, UnixListener)>, SupervisorError> {
        create_private_dir(runtime_dir)?;
        create_dirs(data_dir)?;
        let socket = socket_path(runtime_dir);
        let Some(lock) = take_lock(&socket, || Ok(FileLock::try_exclusive(lock_path(runtime_dir))?))? else {
            return Ok(None);
        };
        let Some(data) = take_lock(&socket, || lock_dir(data_dir))? else { return Ok(None) };
        let listener = listen(&socket)?;
        let runtime_dir = runtime_dir.to_owned();
        Ok(Some((Ownership { runtime_dir, socket, _lock: lock, _data: data }, listener)))
    }

    /// Where the socket is.
    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// Makes socket and lock anew if somebody deleted them; `None` if they are as they were.
    pub(crate) fn renew(&mut self) -> Result<Option<UnixListener>, SupervisorError> {
        let ours = self._lock.file().metadata().at("look at", lock_path(&self.runtime_dir))?;
        let named = std::fs::metadata(lock_path(&self.runtime_dir));
        let same = named.is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()));
        if same && self.socket.symlink_metadata().is_ok() {
            return Ok(None);
        }
        create_private_dir(&self.runtime_dir)?;
        if !same {
            // One that is starting holds it for a moment, until it finds that the data are ours.
            self._lock = FileLock::exclusive(lock_path(&self.runtime_dir))?;
        }
        listen(&self.socket).map(Some)
    }
}

fn listen(socket: &Path) -> Result<UnixListener, SupervisorError> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at("replace", socket)?,
        _ => {}
    }
    let listener = UnixListener::bind(socket).at("listen on", socket)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600)).at("protect", socket)?;
    Ok(listener)
}

fn lock_dir(dir: &Path) -> Result<Option<OwnedFd>, SupervisorError> {
    let file = File::open(dir).at("open", dir)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e).at("lock", dir)?,
    }
}

/// [`is_running`] holds the lock for a moment, and a supervisor that ends for a little longer: a lock that nobody
/// listens behind is tried again.
fn take_lock<T>(
    socket: &Path,
    take: impl Fn() -> Result<Option<T>, SupervisorError>,
) -> Result<Option<T>, SupervisorError> {
    for _ in 0..50 {
        if let Some(lock) = take()? {
            return Ok(Some(lock));
        }
        if UnixStream::connect(socket).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // The lock is still held; a socket that stays is replaced by the next owner.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// True if a supervisor of this project lives; the truth, since it is the kernel that holds the locks.
pub fn is_running(runtime_dir: &Path, data_dir: &Path) -> Result<bool, SupervisorError> {
    Ok(is_locked(&lock_path(runtime_dir))? || is_locked(data_dir)?)
}

fn is_locked(path: &Path) -> Result<bool, SupervisorError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).at("open", path)?,
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(e).at("lock", path)?,
    }
}
