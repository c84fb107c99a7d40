//! Published ports: listens on the host, carries to the inside through [`Running::connect`].
//!
//! A port stays bound from the service's first start until it is stopped on request, so that no one else takes it
//! during a restart. While the service is down, connections are reset at once.

mod copy;
mod holder;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use igloo_base::file::{read_optional, write_atomic};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::spec::{Protocol, PublishedPort};
use crate::unit::Running;

/// What runs now, if anything does.
pub(crate) type Upstream = watch::Receiver<Option<Arc<dyn Running>>>;

/// A bound port; dropping it gives the port back. Connections that are open then go on until either side ends.
pub(crate) struct Published {
    pub(crate) spec: PublishedPort,
    pub(crate) host: SocketAddr,
    task: AbortHandle,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds a port of `service`. Must be called inside the runtime. The error is one line for a person.
pub(crate) fn publish(
    service: &str,
    spec: &PublishedPort,
    memory: &mut Memory,
    upstream: Upstream,
) -> Result<Published, String> {
    let inside = SocketAddr::new(spec.target, spec.container_port);
    let mut tried = bind(spec, if spec.port == 0 { memory.get(service, spec).unwrap_or(0) } else { spec.port });
    if spec.port == 0 && tried.is_err() {
        // Somebody took the port of last time.
        tried = bind(spec, 0);
    }
    let bound = tried.map_err(|e| explain(service, spec, &e))?;
    let (host, task) = match bound {
        Bound::Tcp(listener, host) => (host, tcp::serve(listener, inside, upstream)),
        Bound::Udp(socket, host) => (host, udp::serve(socket, inside, upstream)),
    };
    let task = task.map_err(|e| explain(service, spec, &e))?;
    if spec.port == 0 {
        memory.set(service, spec, host.port());
    }
    Ok(Published { spec: spec.clone(), host, task })
}

enum Bound {
    Tcp(TcpListener, SocketAddr),
    Udp(UdpSocket, SocketAddr),
}

fn bind(spec: &PublishedPort, port: u16) -> io::Result<Bound> {
    let address = SocketAddr::new(spec.address, port);
    match spec.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let host = listener.local_addr()?;
            Ok(Bound::Tcp(listener, host))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let host = socket.local_addr()?;
            Ok(Bound::Udp(socket, host))
        }
    }
}

fn explain(service: &str, spec: &PublishedPort, error: &io::Error) -> String {
    let what = format!("cannot publish {} port {} of `{service}` on {}", spec.protocol, spec.port, spec.address);
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder::of(spec.protocol, spec.port) {
            Some(holder) => format!("{what}: {holder} has it"),
            None => format!("{what}: another process has it"),
        },
        io::ErrorKind::PermissionDenied if spec.port < 1024 => {
            format!("{what}: ports below 1024 are not for ordinary users (see net.ipv4.ip_unprivileged_port_start)")
        }
        io::ErrorKind::AddrNotAvailable => format!("{what}: this machine does not have that address"),
        _ => format!("{what}: {error}"),
    }
}

/// The automatic ports of earlier runs: `ports.json` in the state directory, `{"<service>/<port>/<protocol>": 40123}`.
/// Losing it loses nothing but the constancy of these ports.
pub(crate) struct Memory {
    path: PathBuf,
    ports: BTreeMap<String, u16>,
}

impl Memory {
    pub(crate) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("ports.json");
        let bytes = read_optional(&path).ok().flatten().unwrap_or_default();
        let ports = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { path, ports }
    }

    fn key(service: &str, spec: &PublishedPort) -> String {
        format!("{service}/{}/{}", spec.container_port, spec.protocol)
    }

    pub(crate) fn get(&self, service: &str, spec: &PublishedPort) -> Option<u16> {
        self.ports.get(&Self::key(service, spec)).copied()
    }

    fn set(&mut self, service: &str, spec: &PublishedPort, port: u16) {
        if self.ports.insert(Self::key(service, spec), port) != Some(port)
            && let Ok(text) = serde_json::to_vec_pretty(&self.ports)
        {
            let _ = write_atomic(&self.path, &text);
        }
    }
}
