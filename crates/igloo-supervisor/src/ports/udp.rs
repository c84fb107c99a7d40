//! A published UDP port: one socket inside for each peer outside, forgotten when it has been silent for a while.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Upstream;

/// A peer that is silent this long, in both directions, is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// More peers at once are not served: each costs a descriptor, and their addresses are easily forged.
const PEERS: usize = 1024;

/// Datagrams that wait for one peer's socket; more are dropped, as UDP does.
const QUEUE: usize = 64;

pub(super) fn serve(socket: std::net::UdpSocket, inside: SocketAddr, upstream: Upstream) -> io::Result<AbortHandle> {
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let task = tokio::spawn(async move {
        let mut peers: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let Ok((n, peer)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; there is nothing to do about it.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            if peers.get(&peer).is_none_or(mpsc::Sender::is_closed) {
                if peers.len() >= PEERS {
                    peers.retain(|_, queue| !queue.is_closed());
                }
                if peers.len() >= PEERS || upstream.borrow().is_none() {
                    continue;
                }
                let (queue, datagrams) = mpsc::channel(QUEUE);
                tokio::spawn(session(Arc::clone(&socket), peer, inside, upstream.clone(), datagrams));
                peers.insert(peer, queue);
            }
            if let Some(queue) = peers.get(&peer) {
                let _ = queue.try_send(buffer[..n].to_vec());
            }
        }
    });
    Ok(task.abort_handle())
}

async fn session(
    outside: Arc<UdpSocket>,
    peer: SocketAddr,
    inside: SocketAddr,
    mut upstream: Upstream,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) {
    let Some(running) = upstream.borrow_and_update().clone() else { return };
    let connected = tokio::task::spawn_blocking(move || {
        let socket = running.connect_udp(inside)?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    });
    let Ok(Ok(socket)) = connected.await else { return };
    let Ok(socket) = UdpSocket::from_std(socket) else { return };
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        tokio::select! {
            datagram = datagrams.recv() => match datagram {
                // Refused now may be taken later: the peer will repeat it.
                Some(datagram) => drop(socket.send(&datagram).await),
                None => return,
            },
            answer = socket.recv(&mut buffer) => if let Ok(n) = answer {
                let _ = outside.send_to(&buffer[..n], peer).await;
            },
            // The service ended: this socket leads nowhere any more.
            _ = upstream.changed() => return,
            () = tokio::time::sleep(IDLE) => return,
        }
    }
}
