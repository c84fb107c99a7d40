//! A published TCP port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{Upstream, copy};

pub(super) fn serve(
    listener: std::net::TcpListener,
    inside: SocketAddr,
    upstream: Upstream,
) -> io::Result<AbortHandle> {
    let listener = TcpListener::from_std(listener)?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    let upstream = upstream.clone();
                    tokio::spawn(async move { carry(client, inside, &upstream).await });
                }
                // Out of descriptors, most likely: some will come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    Ok(task.abort_handle())
}

async fn carry(client: TcpStream, inside: SocketAddr, upstream: &Upstream) {
    let Some(server) = connect(inside, upstream).await else { return reset(&client) };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if copy::both_ways(&client, &server).await.is_err() {
        // What happened to one side is what the other side shall see.
        reset(&client);
        reset(&server);
    }
}

async fn connect(inside: SocketAddr, upstream: &Upstream) -> Option<TcpStream> {
    let running = upstream.borrow().clone()?;
    let server = tokio::task::spawn_blocking(move || {
        let server = running.connect(inside)?;
        server.set_nonblocking(true)?;
        Ok::<_, io::Error>(server)
    });
    TcpStream::from_std(server.await.ok()?.ok()?).ok()
}

/// Makes the close that follows a reset, so that the peer doesn't take it for an orderly end.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
