//! A container as the supervisor's unit: where the two rooms meet that don't know each other.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use igloo_base::file::{read_optional, write_atomic};
use igloo_container::{Container, ContainerEvent, ContainerSpec, Sandbox, SocketKind};
use igloo_supervisor::{ExecResult, Running, Unit, UnitError, UnitEvent, UnitIo};
use serde::{Deserialize, Serialize};

/// What travels in `ServiceSpec::unit` and `Setup::unit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The container.
    pub(crate) container: ContainerSpec,
    /// For a setup step: volumes that hold nothing but its own unfinished work if `begun` exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<SetupVolumes>,
}

/// How an interrupted setup step starts over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetupVolumes {
    /// Written before the step runs for the first time.
    pub(crate) begun: PathBuf,
    /// The service's writable volumes; the step is needed only while all are empty.
    pub(crate) volumes: Vec<PathBuf>,
    /// Those that no other service has: the ones to empty.
    pub(crate) own: Vec<PathBuf>,
}

/// A service's container, not running.
pub(crate) struct ContainerUnit {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) payload: Payload,
}

impl Unit for ContainerUnit {
    fn start(&self, io: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError> {
        if let Some(setup) = &self.payload.setup {
            self.start_over(setup)?;
        }
        let container = self
            .sandbox
            .spawn(&self.payload.container, io.stdout, io.stderr, Box::new(move |event| on_event(translate(event))))
            .map_err(|e| UnitError::because("cannot start the container", e))?;
        Ok(Arc::new(RunningContainer { container }))
    }
}

impl ContainerUnit {
    /// What an interrupted setup step left is removed, so that the step finds what it expects: empty volumes.
    fn start_over(&self, setup: &SetupVolumes) -> Result<(), UnitError> {
        let because = |e| UnitError::because("cannot prepare the setup step", e);
        if read_optional(&setup.begun).map_err(because)?.is_some() {
            for volume in &setup.own {
                self.sandbox
                    .remove_tree(volume)
                    .map_err(|e| UnitError::because(format!("cannot empty `{}`", volume.display()), e))?;
            }
        }
        write_atomic(&setup.begun, b"").map_err(because)
    }
}

fn translate(event: ContainerEvent) -> UnitEvent {
    match event {
        ContainerEvent::Started { pid } => UnitEvent::Started { pid },
        ContainerEvent::Failed { message } => UnitEvent::Failed { message },
        ContainerEvent::Exited { code, signal, oom } => UnitEvent::Exited { code, signal, oom },
    }
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
