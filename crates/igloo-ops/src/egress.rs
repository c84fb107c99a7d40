//! The supervisor's end of a container's way out: connects on behalf of its programs, and passes on questions for names.
//!
//! Threads, since each does nothing but wait; the kernel moves the bytes. All of it ends with the container.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use igloo_container::Egress;
use igloo_container::egress::meant_for;
use rustix::event::{PollFd, PollFlags, Timespec};

/// Connections of one service at a time; more are refused.
const MOST: usize = 1024;
/// Questions for names of one service at a time; more are lost, as on a busy network.
const MOST_QUESTIONS: usize = 64;
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(3);
/// What moves bytes needs little.
const STACK: usize = 128 << 10;
const MAX_MESSAGE: usize = 4096;

/// Serves until `ended` is closed.
pub(crate) fn serve(sockets: Vec<OwnedFd>, egress: &Egress, ended: &OwnedFd) -> io::Result<()> {
    let mut sockets = sockets.into_iter();
    let egress = Arc::new(egress.clone());
    if let Some(connections) = sockets.next() {
        let egress = Arc::clone(&egress);
        accept(connections.into(), ended.try_clone()?, move |from| pass_out(&from, &egress))?;
    }
    if let Some(questions) = sockets.next() {
        answer(questions.into(), ended.try_clone()?)?;
    }
    if let Some(questions) = sockets.next() {
        accept(questions.into(), ended.try_clone()?, |from| {
            let server = *servers().first().ok_or(io::ErrorKind::NotFound)?;
            both_ways(&from, &TcpStream::connect_timeout(&server, CONNECT)?)
        })?;
    }
    Ok(())
}

fn thread(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("igloo-egress".to_owned()).stack_size(STACK).spawn(body).map(drop)
}

/// False when the container has ended.
fn wait(socket: impl AsFd, ended: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, None::<&Timespec>) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Counts as long as it lives.
struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let turn = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(
    listener: TcpListener,
    ended: OwnedFd,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (serve, count) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
    thread(move || {
        while wait(&listener, &ended) {
            let Ok((from, _)) = listener.accept() else { continue };
            let Some(turn) = Turn::take(&count, MOST) else { continue };
            let serve = Arc::clone(&serve);
            let one = move || {
                let _turn = turn;
                let reset = from.try_clone();
                if from.set_nonblocking(false).and_then(|()| serve(from)).is_err() {
                    // As if nobody had been there: an error, and no end of a conversation.
                    let _ = reset.map(|from| rustix::net::sockopt::set_socket_linger(&from, Some(Duration::ZERO)));
                }
            };
            let _ = thread(one);
        }
    })
}

fn pass_out(from: &TcpStream, egress: &Egress) -> io::Result<()> {
    let meant = meant_for(from)?;
    both_ways(from, &TcpStream::connect_timeout(&allowed(meant, from, egress)?, CONNECT)?)
}

/// Where to connect to, if that may be. What is the machine's own is reached by name of the port only.
fn allowed(meant: SocketAddr, from: &TcpStream, egress: &Egress) -> io::Result<SocketAddr> {
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let IpAddr::V4(address) = meant.ip() else { return Err(refused()) };
    // A connection straight to our socket was meant for nobody.
    if from.local_addr()? == meant {
        return Err(refused());
    }
    let is_gateway = is_private_bridge(address, from);
    if is_gateway {
        return match egress.host.contains(&meant.port()) {
            true => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), meant.port())),
            false => Err(refused()),
        };
    }
    let odd = address.is_loopback() || address.is_unspecified() || address.is_link_local() || address.is_multicast();
    if !egress.open || odd || address.is_broadcast() || is_own(address)? {
        return Err(refused());
    }
    Ok(meant)
}

/// The project's own network is never passed out: what was redirected to it is meant for the host.
fn is_private_bridge(address: Ipv4Addr, from: &TcpStream) -> bool {
    match from.peer_addr() {
        // Our bridges are /24, with the host's place at 1.
        Ok(SocketAddr::V4(peer)) => {
            let (peer, address) = (peer.ip().octets(), address.octets());
            peer[..3] == address[..3] && address[3] == 1
        }
        _ => false,
    }
}

/// Whether an address is one of this machine's: a datagram to it would come from it.
fn is_own(address: Ipv4Addr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    match socket.connect((address, 9)) {
        Ok(()) => Ok(socket.local_addr()?.ip() == address),
        // No way there at all: the connection will say so.
        Err(_) => Ok(false),
    }
}

fn both_ways(a: &TcpStream, b: &TcpStream) -> io::Result<()> {
    let one_way = |from: &TcpStream, to: &TcpStream| {
        let copied = io::copy(&mut &*from, &mut &*to);
        let end = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
        let _ = to.shutdown(end);
        copied.map(drop)
    };
    let (a2, b2) = (a.try_clone()?, b.try_clone()?);
    let (done, back) = std::sync::mpsc::channel();
    thread(move || drop(done.send(one_way(&b2, &a2))))?;
    let there = one_way(a, b);
    let back = back.recv().unwrap_or(Ok(()));
    there.and(back)
}

/// The machine's name servers; read anew, since they change with networks.
fn servers() -> Vec<SocketAddr> {
    let mut text = String::new();
    let read = std::fs::File::open("/etc/resolv.conf").map(|f| f.take(64 << 10).read_to_string(&mut text));
    drop(read);
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).take(3);
    let mut servers: Vec<_> = servers.map(|server| SocketAddr::new(server, 53)).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}

fn answer(socket: UdpSocket, ended: OwnedFd) -> io::Result<()> {
    let (socket, count) = (Arc::new(socket), Arc::new(AtomicUsize::new(0)));
    thread(move || {
        let mut buffer = [0; MAX_MESSAGE];
        while wait(&*socket, &ended) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let Some(turn) = Turn::take(&count, MOST_QUESTIONS) else { continue };
            let (question, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
            let one = move || {
                let _turn = turn;
                if let Some(answer) = servers().into_iter().find_map(|server| ask(server, &question).ok()) {
                    let _ = socket.send_to(&answer, from);
                }
            };
            let _ = thread(one);
        }
    })
}

fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own for each question, and only this server is heard.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send(question)?;
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer)?;
        if buffer[..length].first_chunk::<2>() == question.first_chunk::<2>() {
            return Ok(buffer[..length].to_vec());
        }
    }
}
