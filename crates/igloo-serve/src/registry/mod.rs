//! An image registry: the OCI distribution specification 1.1, over HTTP.
//!
//! [`storage`] is what was pushed, [`upload`] what is on its way in, [`adhoc`] what is built when it is pulled;
//! [`route`] reads requests, `serve` answers them, [`tokens`] says who may ask for what.

mod adhoc;
mod build;
mod document;
pub mod gc;
mod list;
mod metrics;
mod name;
mod refusal;
mod route;
mod serve;
mod storage;
pub mod tokens;
mod upload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use igloo_base::file::FileLock;
use igloo_base::{Event, Reporter};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

pub use adhoc::{AdHoc, BuildError, Builder, Request};
pub use build::OpsBuilder;
pub use list::{Listed, list};
pub use name::{BadName, Repository};
pub use storage::Storage;

use crate::error::{ServeError, chain};
use crate::http::{self, Listening};

/// How long requests may go on after the server was asked to stop.
const FAREWELL: Duration = Duration::from_secs(30);
/// How often uploads are looked through for those that nobody goes on with.
const EXPIRE: Duration = Duration::from_secs(60);

/// How a registry serves.
#[derive(Clone)]
pub struct Options {
    /// Where it listens. Port 0 is any that is free.
    pub listen: Vec<SocketAddr>,
    /// Where what is pushed is kept, [`igloo_base::Dirs::registry`].
    pub directory: PathBuf,
    /// Certificates and key, PEM. Without them, plain HTTP is spoken.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A file of [`tokens`]. Without one, everybody on this machine may push, everybody else may pull.
    pub tokens: Option<PathBuf>,
    /// Images that are built on pull.
    pub adhoc: Option<AdHoc>,
    /// Whether manifests, tags and blobs may be deleted.
    pub allow_delete: bool,
    /// The largest blob that is taken, bytes.
    pub max_upload: u64,
    /// Most uploads at the same time.
    pub max_uploads: usize,
    /// Most connections at the same time.
    pub max_connections: usize,
    /// The longest silence that is waited through, in both directions.
    pub idle: Duration,
    /// Uploads to which nothing came for so long are deleted.
    pub upload_expiry: Duration,
    /// Garbage younger than this stays.
    pub grace: Duration,
    /// How often garbage is collected, the first time at the start; `None`: never.
    pub collect: Option<Duration>,
    /// Whether SIGTERM and SIGINT stop the server.
    pub signals: bool,
}

impl Options {
    /// The usual ones, for a directory: `127.0.0.1:5000`, no tokens, nothing built on pull.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000)],
            directory: directory.into(),
            tls: None,
            tokens: None,
            adhoc: None,
            allow_delete: false,
            max_upload: 16 << 30,
            max_uploads: 256,
            max_connections: 512,
            idle: Duration::from_secs(30),
            upload_expiry: Duration::from_secs(3600),
            grace: Duration::from_secs(24 * 3600),
            collect: Some(Duration::from_secs(6 * 3600)),
            signals: false,
        }
    }
}

/// A registry that listens, and answers as soon as it [runs](Server::run).
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listeners: Vec<std::net::TcpListener>,
    addresses: Vec<SocketAddr>,
    options: Options,
    tls: Option<tokio_rustls::TlsAcceptor>,
    app: Arc<serve::App>,
    stop: watch::Sender<bool>,
    /// Nobody else serves this directory.
    _serving: FileLock,
}

/// Stops a server.
#[derive(Clone)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// No more requests are taken; those under way may end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Opens the storage and listens.
    pub fn bind(options: Options, reporter: Arc<dyn Reporter>) -> Result<Self, ServeError> {
        let storage = Storage::open(&options.directory)?;
        let serving = storage.serving()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
        let tls = match &options.tls {
            Some((certificates, key)) => Some(http::acceptor(certificates, key)?),
            None => None,
        };
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &options.listen {
            let listen = |source| ServeError::Listen { address: *address, source };
            let listener = std::net::TcpListener::bind(address).map_err(listen)?;
            listener.set_nonblocking(true).map_err(listen)?;
            addresses.push(listener.local_addr().map_err(listen)?);
            listeners.push(listener);
        }
        let app = Arc::new(serve::App::new(&options, storage, reporter)?);
        let stop = watch::Sender::new(false);
        Ok(Self { runtime, listeners, addresses, options, tls, app, stop, _serving: serving })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What stops it.
    pub fn stop(&self) -> Stop {
        Stop(self.stop.clone())
    }

    /// Serves until it is stopped.
    pub fn run(self) -> Result<(), ServeError> {
        let Self { runtime, listeners, options, tls, app, stop, .. } = self;
        let reporter = Arc::clone(&app.reporter);
        if options.tokens.is_some() && tls.is_none() && !options.listen.iter().all(|a| a.ip().is_loopback()) {
            reporter.event(Event::Warning {
                text: "tokens travel unencrypted".to_owned(),
                hint: Some("give a certificate, or put a proxy that speaks TLS before this server".to_owned()),
            });
        }
        let result = runtime.block_on(async {
            let (alive, mut gone) = mpsc::channel(1);
            let connections = Arc::new(Semaphore::new(options.max_connections));
            let listening = Arc::new(Listening { tls, connections, stop: stop.subscribe(), alive, idle: options.idle });
            for (listener, address) in listeners.into_iter().zip(&self.addresses) {
                let listen = |source| ServeError::Listen { address: *address, source };
                let listener = TcpListener::from_std(listener).map_err(listen)?;
                tokio::spawn(http::accept(listener, Arc::clone(&listening), Arc::clone(&app)));
            }
            drop(listening);
            tokio::spawn(expire(Arc::clone(&app)));
            if let Some(every) = options.collect {
                tokio::spawn(collect(Arc::clone(&app), every, options.grace));
            }
            let mut stopped = stop.subscribe();
            match options.signals {
                false => drop(stopped.wait_for(|stopped| *stopped).await),
                true => {
                    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
                    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
                    tokio::select! {
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    reporter.event(Event::Note { text: "stopping; a second signal stops at once".to_owned() });
                    let again = stop.clone();
                    tokio::spawn(async move {
                        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                        // Nobody to listen means that it has ended.
                        again.send_modify(|stopped| *stopped = false);
                    });
                }
            }
            stop.send_replace(true);
            let mut at_once = stop.subscribe();
            tokio::select! {
                // Comes when the last connection has ended.
                _ = gone.recv() => {}
                _ = tokio::time::sleep(FAREWELL) => {}
                _ = at_once.wait_for(|stopped| !*stopped) => {}
            }
            Ok(())
        });
        // What is still being built or written may be killed at any moment anyway.
        runtime.shutdown_background();
        result
    }
}

async fn expire(app: Arc<serve::App>) {
    loop {
        tokio::time::sleep(EXPIRE).await;
        let ended = app.uploads.expire();
        if ended > 0 {
            let text = format!("gave up {ended} uploads with which nobody went on");
            app.reporter.event(Event::Note { text });
        }
    }
}

async fn collect(app: Arc<serve::App>, every: Duration, grace: Duration) {
    loop {
        let storage = app.storage.clone();
        let options = gc::Options { grace, untagged: false, dry_run: false };
        let collected = tokio::task::spawn_blocking(move || gc::collect(&storage, &options)).await;
        match collected {
            Ok(Ok(collected)) if collected.freed > 0 => {
                let text = format!("garbage: {} blobs, {} bytes deleted", collected.blobs.len(), collected.freed);
                app.reporter.event(Event::Note { text });
            }
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                let text = format!("cannot collect garbage: {}", chain(&e));
                app.reporter.event(Event::Warning { text, hint: None });
            }
            Err(e) => app.reporter.event(Event::Warning { text: format!("cannot collect garbage: {e}"), hint: None }),
        }
        tokio::time::sleep(every).await;
    }
}
