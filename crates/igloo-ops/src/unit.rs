//! A container, or a process of this machine, as the supervisor's unit: where the two rooms meet that don't know each
//! other.

pub(crate) mod host;

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use igloo_base::file::{read_optional, write_atomic};
use igloo_container::{
    Container, ContainerError, ContainerEvent, ContainerSpec, MountKind, Sandbox, SandboxConfig, SocketKind,
};
use igloo_supervisor::{ExecResult, Notice, Running, Unit, UnitError, UnitEvent, UnitIo};
use serde::{Deserialize, Serialize};

use host::HostSpec;

/// What travels in `ServiceSpec::unit` and `Setup::unit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The container.
    pub(crate) container: ContainerSpec,
    /// Or a process of this machine; the container then says no more than what it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostSpec>,
    /// For a setup step: volumes that hold nothing but its own unfinished work if `begun` exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<SetupVolumes>,
    /// Variables whose values are not to be written to a disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hidden: Vec<String>,
}

impl Payload {
    /// Without what is not to be written to a disk.
    pub(crate) fn for_disk(mut self) -> Self {
        if let Some(host) = &mut self.host {
            host.env.retain(|(name, _)| !self.hidden.contains(name));
        }
        self.container.env.retain(|(name, _)| !self.hidden.contains(name));
        for mount in &mut self.container.mounts {
            if let MountKind::Secrets { files } = &mut mount.kind {
                files.iter_mut().for_each(|(_, content)| content.0.clear());
            }
        }
        self
    }
}

/// How an interrupted setup step starts over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetupVolumes {
    /// Written before the step runs for the first time.
    pub(crate) begun: PathBuf,
    /// The service's writable volumes; the step is needed only while all are empty.
    pub(crate) volumes: Vec<PathBuf>,
    /// Those that no other service has: the ones whose content is put aside.
    pub(crate) own: Vec<PathBuf>,
}

/// A service's container, not running.
pub(crate) struct ContainerUnit {
    pub(crate) sandbox: Arc<Sandboxes>,
    pub(crate) payload: Payload,
}

/// The project's sandbox; a new one takes the place of one that was killed.
pub(crate) struct Sandboxes {
    config: SandboxConfig,
    current: Mutex<Option<Arc<Sandbox>>>,
}

impl Sandboxes {
    /// Begins with one. Without, those who need one are told why, and services of isolation `host` don't.
    pub(crate) fn start(config: SandboxConfig) -> Self {
        let current = Mutex::new(Sandbox::start(&config).ok().map(Arc::new));
        Self { config, current }
    }

    /// One that lives.
    fn get(&self) -> Result<Arc<Sandbox>, ContainerError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(sandbox) if !sandbox.is_gone() => Ok(Arc::clone(sandbox)),
            _ => {
                let sandbox = Arc::new(Sandbox::start(&self.config)?);
                *current = Some(Arc::clone(&sandbox));
                Ok(sandbox)
            }
        }
    }
}

impl Unit for ContainerUnit {
    fn start(&self, io: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError> {
        if let Some(setup) = &self.payload.setup {
            for (volume, trash) in start_over(setup)? {
                let told = format!("igloo: {}\n", put_aside(&volume, &trash));
                // Best effort: `up` tells, too.
                let _ = rustix::io::write(&io.stderr, told.as_bytes());
            }
        }
        let console = self.payload.container.init.then(|| io.stdout.try_clone());
        let console = console.transpose().map_err(|e| UnitError::because("cannot pass on the console", e))?;
        let init = self.payload.container.init;
        let (started, when_started) = std::sync::mpsc::channel();
        let (ended, end) = io::pipe().map_err(|e| UnitError::because("cannot make a pipe", e))?;
        let end = std::sync::Mutex::new(Some(end));
        let on_event = move |event: ContainerEvent| {
            match event {
                ContainerEvent::Started { .. } => drop(started.send(())),
                ContainerEvent::Failed { .. } | ContainerEvent::Exited { .. } => {
                    drop(end.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
                }
                ContainerEvent::Notified(_) => {}
            }
            translate(if init { halted(event) } else { event }).into_iter().for_each(&on_event);
        };
        let container = self
            .sandbox
            .get()
            .map_err(|e| UnitError::because("cannot start the project's sandbox", e))?
            .spawn(&self.payload.container, io.stdout, io.stderr, Box::new(on_event))
            .map_err(|e| UnitError::because("cannot start the container", e))?;
        let running = Arc::new(RunningContainer { container });
        let egress = self.payload.container.egress.clone();
        if console.is_some() || egress.is_some() {
            let running = Arc::clone(&running);
            let ended = OwnedFd::from(ended);
            let attend = move || {
                // The end of the channel without a word: it has failed, and nothing was said.
                if when_started.recv().is_err() {
                    return;
                }
                let (sockets, terminal) = (running.container.egress(), running.container.terminal());
                drop(running);
                if let Some(egress) = &egress {
                    // Without threads nothing works any more; the container's connections just find no answer.
                    let _ = crate::egress::serve(sockets, egress, &ended);
                }
                if let (Some(terminal), Some(console)) = (terminal, console) {
                    igloo_container::console::pass_on(&terminal, &ended, &console);
                }
            };
            let thread = std::thread::Builder::new().name("igloo-attend".to_owned());
            thread.spawn(attend).map_err(|e| UnitError::because("cannot start a thread", e))?;
        }
        Ok(running)
    }
}

/// `SIGINT`
const INTERRUPT: i32 = 2;

/// How the kernel tells that a system has switched itself off: its init is killed by SIGINT.
fn halted(event: ContainerEvent) -> ContainerEvent {
    match event {
        ContainerEvent::Exited { signal: Some(INTERRUPT), .. } => {
            ContainerEvent::Exited { code: Some(0), signal: None, oom: false }
        }
        other => other,
    }
}

/// What an interrupted setup step left is put aside, so that the step finds what it expects: empty volumes. It is not
/// deleted, since somebody may have filled the volume by hand since. Gives each volume with where its content is now.
fn start_over(setup: &SetupVolumes) -> Result<Vec<(PathBuf, PathBuf)>, UnitError> {
    let because = |e| UnitError::because("cannot prepare the setup step", e);
    let mut moved = Vec::new();
    if read_optional(&setup.begun).map_err(because)?.is_some() {
        for volume in &setup.own {
            if !is_filled(volume) {
                continue;
            }
            let trash = free_name(volume);
            fs::rename(volume, &trash)
                .map_err(|e| UnitError::because(format!("cannot put `{}` aside", volume.display()), e))?;
            moved.push((volume.clone(), trash));
        }
    }
    write_atomic(&setup.begun, b"").map_err(because)?;
    Ok(moved)
}

/// True if there is something in a directory, or may be: one that we may not look into belongs to a service's user.
pub(crate) fn is_filled(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// A sentence for people.
pub(crate) fn put_aside(volume: &Path, trash: &Path) -> String {
    format!(
        "the setup step that fills `{}` did not finish last time; what was there is now in `{}`",
        volume.display(),
        trash.display()
    )
}

/// Begins the name of what was put aside: hidden, and beside the volume, since a directory of somebody else's can
/// be renamed only within its parent.
pub(crate) const TRASH: &str = ".trash-";

/// `.trash-data-2026-11-21T150405Z`, and a number if that is taken.
pub(crate) fn free_name(volume: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = igloo_supervisor::time::format_ns(u64::try_from(now.as_nanos()).unwrap_or_default());
    let time: String = time.chars().take_while(|c| *c != '.').filter(|c| *c != ':').collect();
    let name = volume.file_name().unwrap_or_default().to_string_lossy();
    let candidate = |n: u32| {
        let number = if n == 0 { String::new() } else { format!("-{n}") };
        volume.with_file_name(format!("{TRASH}{name}-{time}Z{number}"))
    };
    let mut n = 0;
    while candidate(n).symlink_metadata().is_ok() {
        n += 1;
    }
    candidate(n)
}

/// What the supervisor is told; one message of a program's may say several things.
fn translate(event: ContainerEvent) -> Vec<UnitEvent> {
    vec![match event {
        ContainerEvent::Started { pid } => UnitEvent::Started { pid },
        ContainerEvent::Failed { message, .. } => UnitEvent::Failed { message },
        ContainerEvent::Exited { code, signal, oom } => UnitEvent::Exited { code, signal, oom },
        ContainerEvent::Notified(said) => {
            let mut events: Vec<_> = said.status.map(|s| UnitEvent::Notice(Notice::Status(s))).into_iter().collect();
            for (told, event) in [
                (said.watchdog, UnitEvent::Notice(Notice::Watchdog)),
                (said.reloading, UnitEvent::Notice(Notice::Reloading)),
                (said.ready, UnitEvent::Ready),
                (said.stopping, UnitEvent::Notice(Notice::Stopping)),
            ] {
                events.extend(told.then_some(event));
            }
            return events;
        }
    }]
}

struct RunningContainer {
    container: Container,
}

impl Running for RunningContainer {
    fn signal(&self, signal: i32) -> io::Result<()> {
        self.container.signal(signal)
    }

    fn kill(&self) -> io::Result<()> {
        self.container.kill()
    }

    fn pause(&self, on: bool) -> io::Result<()> {
        self.container.pause(on)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let kind = if address.is_ipv4() { SocketKind::Tcp4 } else { SocketKind::Tcp6 };
        let socket = self.container.socket(kind)?;
        connect(&socket, address)?;
        Ok(socket.into())
    }

    fn connect_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let kind = if address.is_ipv4() { SocketKind::Udp4 } else { SocketKind::Udp6 };
        let socket = self.container.socket(kind)?;
        connect(&socket, address)?;
        Ok(socket.into())
    }

    fn exec(&self, args: &[String], timeout: Duration) -> io::Result<ExecResult> {
        let (reader, writer) = io::pipe()?;
        let writer = OwnedFd::from(writer);
        let handle = self.container.exec(args, writer.try_clone()?, writer)?;
        let tail = std::thread::spawn(move || last_of(reader));
        let code = handle.wait(timeout)?;
        match code {
            Some(code) => Ok(ExecResult { code, output: tail.join().unwrap_or_default() }),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn pid(&self) -> Option<u32> {
        self.container.pid()
    }
}

fn connect(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    loop {
        match rustix::net::connect(socket, &address) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// The last 4 KiB of what a command writes.
fn last_of(mut reader: impl Read) -> String {
    const KEPT: usize = 4096;
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = reader.read(&mut buffer) {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..n]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_setup_left_is_put_aside_and_never_deleted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (data, shared) = (dir.path().join("data"), dir.path().join("shared"));
        for volume in [&data, &shared] {
            fs::create_dir(volume).expect("mkdir");
            fs::write(volume.join("precious"), "x").expect("write");
        }
        let setup = SetupVolumes {
            begun: dir.path().join(".setup-db.begun"),
            volumes: vec![data.clone(), shared.clone()],
            own: vec![data.clone()],
        };
        // The first time nothing is touched.
        assert_eq!(start_over(&setup).expect("first"), vec![]);
        assert!(data.join("precious").exists());
        let moved = start_over(&setup).expect("second");
        assert_eq!(moved.len(), 1);
        let (volume, trash) = &moved[0];
        assert_eq!(volume, &data);
        assert!(!data.exists());
        assert!(trash.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".trash-data-2")), "{trash:?}");
        assert_eq!(fs::read(trash.join("precious")).expect("read"), b"x");
        assert!(shared.join("precious").exists());
        // Within the same second, another name.
        fs::create_dir(&data).expect("mkdir");
        fs::write(data.join("more"), "x").expect("write");
        let again = start_over(&setup).expect("third");
        assert_ne!(&again[0].1, trash);
        // Empty volumes leave nothing.
        fs::create_dir(&data).expect("mkdir");
        assert_eq!(start_over(&setup).expect("fourth"), vec![]);
    }
}
