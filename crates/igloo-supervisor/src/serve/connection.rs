//! One client: greeting, requests, replies. Nothing a client does or leaves undone reaches further than its own task.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;

use super::{Message, Sender};
use crate::daemon::Ownership;
use crate::wire::{Hello, MAX_LINE, MAX_PROJECT_LINE, Reply, Request, ServiceEvent, VERSION, Welcome};

/// More clients at once are refused; each may make us hold one long line.
const CLIENTS: usize = 64;

/// Whoever deletes the socket faster than this can make it anew wins, until something else is deleted.
const RENEWALS: usize = 1000;

/// A client greets at once, or is none.
const GREETING: Duration = Duration::from_secs(5);

type Events = broadcast::WeakSender<Arc<ServiceEvent>>;

/// All clients.
pub(super) struct Clients {
    accepting: JoinHandle<()>,
    /// Each client's task holds a receiver.
    closing: watch::Sender<bool>,
}

/// Takes clients until [`Clients::finish`].
pub(super) fn accept(
    ownership: Option<Arc<Mutex<Ownership>>>,
    mut listener: UnixListener,
    sender: Sender,
    events: Events,
) -> Clients {
    let (closing, closed) = watch::channel(false);
    let ours = rustix::process::geteuid().as_raw();
    let count = closing.clone();
    let accepting = tokio::spawn(async move {
        // What was deleted before anybody watched is made anew first.
        let mut watch = None;
        if let Some(ownership) = &ownership {
            settle(ownership, &mut watch, &mut listener).await;
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = changed(&watch) => {
                    if let Some(ownership) = &ownership {
                        settle(ownership, &mut watch, &mut listener).await;
                    }
                    continue;
                }
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // The socket is 0600, but its directory may have been opened up: ask the kernel who it is.
            let refused = match stream.peer_cred() {
                Ok(peer) if peer.uid() != ours && peer.uid() != 0 => Some("this project is another user's"),
                Ok(_) if count.receiver_count() > CLIENTS => Some("too many clients at once"),
                Ok(_) => None,
                Err(_) => Some("cannot tell who you are"),
            };
            let client = Client { sender: sender.clone(), events: events.clone(), closed: closed.clone() };
            // A client that goes away is no error of ours.
            tokio::spawn(async move { drop(client.serve(stream, refused).await) });
        }
    });
    Clients { accepting, closing }
}

/// Tells when something is deleted where the socket is.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// `None` where nothing can be watched; deleting the socket then makes the project unreachable, as ever.
    fn new(ownership: &Mutex<Ownership>) -> Option<Self> {
        let owner = ownership.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let what = inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        let fd = inotify::init(flags).ok()?;
        inotify::add_watch(&fd, owner.runtime_dir(), what).ok()?;
        // Its successor is `unsafe`, for types that might give up their descriptor; this one does not.
        #[allow(deprecated)]
        AsyncFd::new(fd).ok().map(Self)
    }
}

async fn changed(watch: &Option<Watch>) {
    match watch {
        // A descriptor that can't be waited for is as good as none. What happened is found by looking.
        Some(Watch(fd)) if fd.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Makes socket and lock anew until they are there and watched. Watched first and looked at then, so that what is deleted
/// meanwhile is not missed.
async fn settle(ownership: &Arc<Mutex<Ownership>>, watch: &mut Option<Watch>, listener: &mut UnixListener) {
    for _ in 0..RENEWALS {
        *watch = Watch::new(ownership);
        match renew(ownership).await {
            Some(renewed) => *listener = renewed,
            None if watch.is_some() => return,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Makes the socket anew if it is gone, and keeps trying: there may be no room, or no parent directory, for a while.
async fn renew(ownership: &Arc<Mutex<Ownership>>) -> Option<UnixListener> {
    let mut pause = Duration::from_millis(1);
    loop {
        let ownership = Arc::clone(ownership);
        let renewed =
            tokio::task::spawn_blocking(move || ownership.lock().unwrap_or_else(PoisonError::into_inner).renew());
        match renewed.await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(listener))) => {
                if listener.set_nonblocking(true).is_ok()
                    && let Ok(listener) = UnixListener::from_std(listener)
                {
                    return Some(listener);
                }
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

impl Clients {
    /// Lets everybody read the last reply, `patience` at most.
    pub(super) async fn finish(self, patience: Duration) {
        self.accepting.abort();
        let _ = self.accepting.await;
        self.closing.send_replace(true);
        let _ = tokio::time::timeout(patience, self.closing.closed()).await;
    }
}

struct Client {
    sender: Sender,
    events: Events,
    closed: watch::Receiver<bool>,
}

impl Client {
    async fn serve(mut self, stream: UnixStream, refused: Option<&str>) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut welcome =
            Welcome { igloo_supervisor: VERSION, pid: std::process::id(), refused: refused.map(str::to_owned) };
        if refused.is_none() {
            let line = tokio::time::timeout(GREETING, read_line(&mut reader)).await??;
            let hello = line.as_deref().map(serde_json::from_slice::<Hello>);
            welcome.refused = match hello {
                Some(Ok(hello)) if hello.igloo_client == VERSION => None,
                Some(Ok(hello)) => Some(format!("this supervisor speaks {VERSION}, not {}", hello.igloo_client)),
                Some(Err(_)) => Some("that was no greeting".to_owned()),
                None => return Ok(()),
            };
        }
        send(&mut writer, &welcome).await?;
        if welcome.refused.is_some() {
            return Ok(());
        }
        loop {
            let line = tokio::select! {
                line = read_line(&mut reader) => line,
                () = over(&mut self.closed) => return Ok(()),
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    // Where the next request begins can't be known.
                    return send(&mut writer, &Reply::Error { message: e.to_string() }).await;
                }
                Err(e) => return Err(e),
            };
            match serde_json::from_slice(&line) {
                Ok(Request::Subscribe) => return self.subscribe(&mut reader, &mut writer).await,
                Ok(request) => self.request(request, &mut reader, &mut writer).await?,
                Err(e) => {
                    let message = format!("that is no request: {e}");
                    send(&mut writer, &Reply::Error { message }).await?;
                }
            }
        }
    }

    /// Has a request answered, telling meanwhile what happens.
    async fn request(
        &mut self,
        request: Request,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut events = self.events.upgrade().map(|events| events.subscribe());
        let (reply, mut answer) = oneshot::channel();
        let follows = !matches!(request, Request::Status | Request::Plan { .. } | Request::Ports);
        if self.sender.send(Message::Request(request, reply)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut listening = true;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                event = next(&mut events), if follows => send(writer, &event).await?,
                // A client that goes away while it waits.
                more = reader.fill_buf(), if listening => match more {
                    Ok([]) | Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // It is ahead of us; that can wait.
                    Ok(_) => listening = false,
                },
            }
        };
        // What happened before the answer is told before it.
        while let Some(events) = events.as_mut().filter(|_| follows) {
            match events.try_recv() {
                Ok(event) => send(writer, &Reply::Event(event.as_ref().clone())).await?,
                Err(broadcast::error::TryRecvError::Lagged(missed)) => send(writer, &Reply::Lagged { missed }).await?,
                Err(_) => break,
            }
        }
        let answer = answer.unwrap_or_else(|_| Reply::Error { message: "the supervisor is ending".to_owned() });
        send(writer, &answer).await
    }

    async fn subscribe(
        &mut self,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut events = self.events.upgrade().map(|events| events.subscribe());
        let mut listening = true;
        loop {
            tokio::select! {
                biased;
                event = next(&mut events) => send(writer, &event).await?,
                () = over(&mut self.closed) => return Ok(()),
                more = reader.fill_buf(), if listening => match more {
                    Ok([]) | Err(_) => return Ok(()),
                    Ok(_) => listening = false,
                },
            }
        }
    }
}

/// Ends when everything does.
async fn over(closed: &mut watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// The next event; never, when there are no more.
async fn next(events: &mut Option<broadcast::Receiver<Arc<ServiceEvent>>>) -> Reply {
    if let Some(receiver) = events {
        match receiver.recv().await {
            Ok(event) => return Reply::Event(event.as_ref().clone()),
            Err(broadcast::error::RecvError::Lagged(missed)) => return Reply::Lagged { missed },
            Err(broadcast::error::RecvError::Closed) => *events = None,
        }
    }
    std::future::pending().await
}

async fn send(writer: &mut OwnedWriteHalf, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// One line without its newline; `None` at the end. Only a request that carries a project may be long. Safe to cancel
/// only if the connection is given up then.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let part = reader.fill_buf().await?;
        if part.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', part);
        let taken = end.map_or(part.len(), |at| at + 1);
        line.extend_from_slice(&part[..end.unwrap_or(part.len())]);
        reader.consume(taken);
        let carries_project = line.starts_with(br#"{"apply""#) || line.starts_with(br#"{"plan""#);
        let limit = if carries_project { MAX_PROJECT_LINE } else { MAX_LINE };
        if line.len() > limit {
            let message = format!("a request of more than {} MiB", limit >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
