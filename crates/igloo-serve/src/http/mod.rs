//! Connections: who is let in, how long is waited for them, how they end.

mod body;
mod io;
mod tls;

pub(crate) use body::{Body, Broken, FileBody, Frames, Span, span};
pub(crate) use tls::acceptor;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// A head of a request that takes longer is given up; also how long an idle connection is kept.
const HEAD: Duration = Duration::from_secs(30);
/// A TLS handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Buffer of a connection, which caps the head of a request as well: names and tokens fit a hundred times.
const BUFFER: usize = 128 << 10;
/// Most header fields of a request.
const MAX_HEADERS: usize = 100;

/// Answers requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// One request of a peer.
    fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;
}

/// What holds for all connections.
pub(crate) struct Listening {
    /// TLS, if it is spoken.
    pub tls: Option<TlsAcceptor>,
    /// One permit a connection.
    pub connections: Arc<Semaphore>,
    /// True once no more requests are taken.
    pub stop: watch::Receiver<bool>,
    /// Held while a connection lives.
    pub alive: mpsc::Sender<()>,
    /// How long a peer may take nothing of what is sent.
    pub idle: Duration,
}

/// Takes connections until `stop`.
pub(crate) async fn accept<S: Service>(listener: TcpListener, listening: Arc<Listening>, service: Arc<S>) {
    let mut stop = listening.stop.clone();
    loop {
        // Who comes when all places are taken waits in the kernel's queue.
        let Ok(permit) = Arc::clone(&listening.connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, say: those that are busy will end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (listening, service) = (Arc::clone(&listening), Arc::clone(&service));
        tokio::spawn(async move {
            connection(stream, peer, &listening, service).await;
            drop(permit);
        });
    }
}

async fn connection<S: Service>(stream: TcpStream, peer: SocketAddr, listening: &Listening, service: Arc<S>) {
    let _alive = listening.alive.clone();
    // Answers are small and awaited; large ones fill their packets anyway.
    let _ = stream.set_nodelay(true);
    let stream = io::Timed::new(stream, listening.idle);
    match &listening.tls {
        None => serve(stream, peer, listening, service).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                serve(stream, peer, listening, service).await;
            }
        }
    }
}

async fn serve<S: Service, T>(stream: T, peer: SocketAddr, listening: &Listening, service: Arc<S>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = peer.ip().to_canonical();
    let call = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.call(request, peer).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER).max_headers(MAX_HEADERS);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), call));
    let mut stop = listening.stop.clone();
    let mut stopping = false;
    loop {
        tokio::select! {
            // A connection that broke is the peer's business.
            _ = connection.as_mut() => return,
            _ = stop.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
