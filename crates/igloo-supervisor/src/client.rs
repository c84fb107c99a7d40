//! The blocking client of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ClientError;
use crate::spec::{Condition, Project};
use crate::wire::{Hello, Plan, PortStatus, ProjectStatus, Reply, Request, ServiceEvent, Settled, VERSION, Welcome};

/// A supervisor answers a greeting at once, however busy its services are.
const GREETING: Duration = Duration::from_secs(10);

/// A reply is shorter than this; the status of a project of thousands of services still is.
const MAX_REPLY: u64 = 64 << 20;

/// A connection to a supervisor. One request at a time.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    pid: u32,
    /// A request was not answered to the end, so this connection can't be used for another.
    busy: bool,
}

/// How to apply a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Stop and forget services that are not in the project.
    pub remove_orphans: bool,
    /// Return when every service is ready, has ended well or has failed.
    pub wait: bool,
    /// Return after this long at the latest.
    pub timeout: Option<Duration>,
}

type OnEvent<'a> = &'a mut dyn FnMut(&ServiceEvent);

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let failed = |act| move |source| ClientError::Socket { act, socket: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket: socket.to_owned() }
            }
            _ => failed("connect to")(e),
        })?;
        stream.set_read_timeout(Some(GREETING)).map_err(failed("connect to"))?;
        let mut client = Client { socket: socket.to_owned(), stream: BufReader::new(stream), pid: 0, busy: false };
        // Who is refused may be hung up on before it has greeted, and wants to know why all the same.
        let sent = client.send(&Hello { igloo_client: VERSION });
        wake(client.stream.get_ref());
        let welcome: Welcome = client.receive().map_err(|e| sent.err().unwrap_or(e))?;
        if welcome.igloo_supervisor != VERSION {
            return Err(ClientError::Version { ours: VERSION, theirs: welcome.igloo_supervisor, pid: welcome.pid });
        }
        if let Some(message) = welcome.refused {
            return Err(ClientError::Refused { message });
        }
        client.pid = welcome.pid;
        client.stream.get_ref().set_read_timeout(None).map_err(failed("connect to"))?;
        Ok(client)
    }

    /// Process id of the supervisor.
    pub fn supervisor_pid(&self) -> u32 {
        self.pid
    }

    fn send(&mut self, value: &impl serde::Serialize) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(value).map_err(ClientError::Nonsense)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Gone,
            _ => ClientError::Socket { act: "write to", socket: self.socket.clone(), source },
        })
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(MAX_REPLY).read_until(b'\n', &mut line);
        match read {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Gone),
            Err(source) => Err(ClientError::Socket { act: "read from", socket: self.socket.clone(), source }),
            Ok(_) if !line.ends_with(b"\n") => Err(ClientError::Gone),
            Ok(_) => serde_json::from_slice(&line).map_err(ClientError::Nonsense),
        }
    }

    /// Sends a request; the iterator ends after the final reply.
    pub fn request(&mut self, request: &Request) -> Result<Replies<'_>, ClientError> {
        if self.busy {
            *self = Client::connect(&self.socket)?;
        }
        self.busy = true;
        self.send(request)?;
        Ok(Replies { client: self, done: false })
    }

    /// Sends a request and gives its final reply.
    fn ask(&mut self, request: &Request, on_event: OnEvent<'_>) -> Result<Reply, ClientError> {
        for reply in self.request(request)? {
            match reply? {
                Reply::Event(event) => on_event(&event),
                Reply::Lagged { .. } => {}
                Reply::Error { message } => return Err(ClientError::Refused { message }),
                reply => return Ok(reply),
            }
        }
        Err(ClientError::Gone)
    }

    fn settle(&mut self, request: &Request, on_event: OnEvent<'_>) -> Result<Settled, ClientError> {
        match self.ask(request, on_event)? {
            Reply::Settled(settled) => Ok(settled),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Apply`], telling events as they come.
    pub fn apply(
        &mut self,
        project: &Project,
        options: ApplyOptions,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let request = Request::Apply {
            project: project.clone(),
            remove_orphans: options.remove_orphans,
            wait: options.wait,
            timeout_ms: options.timeout.map(ms),
        };
        self.settle(&request, on_event)
    }

    /// [`Request::Plan`].
    pub fn plan(&mut self, project: &Project, remove_orphans: bool) -> Result<Plan, ClientError> {
        match self.ask(&Request::Plan { project: project.clone(), remove_orphans }, &mut |_| {})? {
            Reply::Plan(plan) => Ok(plan),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Down`], telling events as they come.
    pub fn down(
        &mut self,
        grace: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        self.settle(&Request::Down { grace_ms: grace.map(ms) }, on_event)
    }

    /// [`Request::Stop`].
    pub fn stop(
        &mut self,
        services: &[String],
        grace: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        self.settle(&Request::Stop { services: services.to_vec(), grace_ms: grace.map(ms) }, on_event)
    }

    /// [`Request::Start`].
    pub fn start(
        &mut self,
        services: &[String],
        wait: bool,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        self.settle(&Request::Start { services: services.to_vec(), wait }, on_event)
    }

    /// [`Request::Restart`].
    pub fn restart(
        &mut self,
        services: &[String],
        wait: bool,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        self.settle(&Request::Restart { services: services.to_vec(), wait }, on_event)
    }

    /// [`Request::Status`].
    pub fn status(&mut self) -> Result<ProjectStatus, ClientError> {
        match self.ask(&Request::Status, &mut |_| {})? {
            Reply::Status(status) => Ok(status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Unit`].
    pub fn unit(&mut self, service: &str) -> Result<serde_json::Value, ClientError> {
        match self.ask(&Request::Unit { service: service.to_owned() }, &mut |_| {})? {
            Reply::Unit(unit) => Ok(unit),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Wait`], telling events as they come.
    pub fn wait(
        &mut self,
        services: &[String],
        condition: Condition,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(&ServiceEvent),
    ) -> Result<Settled, ClientError> {
        let request = Request::Wait { services: services.to_vec(), condition, timeout_ms: timeout.map(ms) };
        self.settle(&request, on_event)
    }

    /// [`Request::Signal`].
    pub fn signal(&mut self, services: &[String], signal: i32) -> Result<(), ClientError> {
        match self.ask(&Request::Signal { services: services.to_vec(), signal }, &mut |_| {})? {
            Reply::Done | Reply::Settled(_) => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Pause`].
    pub fn pause(&mut self, services: &[String], on: bool) -> Result<(), ClientError> {
        self.done(&Request::Pause { services: services.to_vec(), on })
    }

    /// [`Request::Reload`].
    pub fn reload(&mut self, services: &[String]) -> Result<(), ClientError> {
        self.done(&Request::Reload { services: services.to_vec() })
    }

    fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request, &mut |_| {})? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// [`Request::Ports`].
    pub fn ports(&mut self) -> Result<Vec<PortStatus>, ClientError> {
        match self.ask(&Request::Ports, &mut |_| {})? {
            Reply::Ports(ports) => Ok(ports),
            _ => Err(ClientError::Unexpected),
        }
    }
}

/// Waits for the answer to the greeting. A supervisor that somebody stopped (SIGSTOP, a debugger's leftover) answers nobody:
/// it is told to go on.
fn wake(stream: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else { return };
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let began = std::time::Instant::now();
    while began.elapsed() < GREETING {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", peer.pid.as_raw_nonzero())).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')) {
            let _ = rustix::process::kill_process(peer.pid, rustix::process::Signal::CONT);
        }
        if !matches!(poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&tick)), Ok(0)) {
            return;
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut Client,
    done: bool,
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let reply: Result<Reply, _> = self.client.receive();
        match &reply {
            Ok(reply) if !reply.is_final() => {}
            Ok(_) => (self.client.busy, self.done) = (false, true),
            // The connection is of no use any more and stays `busy`, so that the next request makes a new one.
            Err(_) => self.done = true,
        }
        Some(reply)
    }
}
