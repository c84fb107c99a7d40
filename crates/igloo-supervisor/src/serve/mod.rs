//! Carrying out what the machine says: the supervisor's process.
//!
//! [`core::Core`] owns all state and handles one [`Message`] at a time; whatever may block runs elsewhere (a blocking
//! thread, a task, a log thread) and reports back with a message. [`connection`] is one client each.

mod connection;
mod core;
mod live;
mod probe;
mod requests;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use igloo_base::file::create_dirs;
use tokio::sync::{mpsc, oneshot};

use crate::daemon::Ownership;
use crate::error::SupervisorError;
use crate::machine::{Event, Run};
use crate::unit::{Running, Unit, UnitError, UnitEvent};
use crate::wire::{Reply, Request};

/// Makes a unit of the payload in [`crate::ServiceSpec::unit`] or [`crate::Setup::unit`].
pub type MakeUnit = Box<dyn Fn(&serde_json::Value) -> Result<Box<dyn Unit>, UnitError> + Send + Sync>;

/// Clients that still read their last reply get this long when all is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whatever wakes the core.
enum Message {
    /// Something happened to a service.
    Event(String, Event),
    /// A unit, or a setup step's unit, tells something.
    Unit { service: String, run: Run, setup: bool, event: UnitEvent },
    /// A unit was started.
    Handle(String, Run, Arc<dyn Running>),
    /// Something to be told that changes nothing.
    Note(String, String),
    /// A client wants something.
    Request(Request, oneshot::Sender<Reply>),
    /// SIGTERM or SIGINT came.
    Terminate,
}

type Sender = mpsc::UnboundedSender<Message>;

/// Supervises until a client asks for [`crate::Request::Down`], or SIGTERM or SIGINT comes; then everything is stopped.
/// Logs go to `log_dir/<service>.log`; `state_dir` holds `events.jsonl` and the remembered ports. Blocks the calling
/// thread; raises the process's soft limit of open files to the hard one.
pub fn serve(
    listener: UnixListener,
    make_unit: MakeUnit,
    log_dir: &Path,
    state_dir: &Path,
) -> Result<(), SupervisorError> {
    serve_with(None, listener, make_unit, log_dir, state_dir)
}

/// [`serve`], making the socket anew when somebody deletes it; the project is given back when all is over.
pub fn serve_owned(
    ownership: Ownership,
    listener: UnixListener,
    make_unit: MakeUnit,
    log_dir: &Path,
    state_dir: &Path,
) -> Result<(), SupervisorError> {
    serve_with(Some(ownership), listener, make_unit, log_dir, state_dir)
}

fn serve_with(
    ownership: Option<Ownership>,
    listener: UnixListener,
    make_unit: MakeUnit,
    log_dir: &Path,
    state_dir: &Path,
) -> Result<(), SupervisorError> {
    create_dirs(log_dir)?;
    create_dirs(state_dir)?;
    raise_descriptor_limit();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("supervisor")
        .enable_all()
        .build()
        .map_err(SupervisorError::Runtime)?;
    let ownership = ownership.map(|o| Arc::new(Mutex::new(o)));
    let result = runtime.block_on(run(ownership.clone(), listener, make_unit, log_dir, state_dir));
    // A blocking call that hangs (a probe into nowhere) shall not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Each connection to a published port takes up to six descriptors, and the usual soft limit is 1024. The hard limit
/// stays, and not reaching it is no failure.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn run(
    ownership: Option<Arc<Mutex<Ownership>>>,
    listener: UnixListener,
    make_unit: MakeUnit,
    log_dir: &Path,
    state_dir: &Path,
) -> Result<(), SupervisorError> {
    listener.set_nonblocking(true).map_err(SupervisorError::Listen)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(SupervisorError::Listen)?;
    let (sender, inbox) = mpsc::unbounded_channel();
    await_signals(sender.clone())?;
    let core = core::Core::new(sender.clone(), make_unit, log_dir, state_dir);
    let clients = connection::accept(ownership, listener, sender, core.events());
    core.run(inbox).await;
    clients.finish(FAREWELL).await;
    Ok(())
}

fn await_signals(sender: Sender) -> Result<(), SupervisorError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(SupervisorError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SupervisorError::Runtime)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(Message::Terminate).is_err() {
                return;
            }
        }
    });
    Ok(())
}
