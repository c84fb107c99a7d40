//! A project whose units are host processes, supervised on a thread of the test.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use igloo_base::Sha256;
use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::logs::{Query, Reader};
use igloo_supervisor::{
    Client, ExecResult, MakeUnit, Project, Running, ServiceSpec, ServiceStatus, Settled, Unit, UnitError, UnitEvent,
    UnitIo,
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A host process as a unit: its payload is `["word", …]`. It dies with the supervisor's process.
struct ProcessUnit {
    args: Vec<String>,
}

pub(crate) fn make_unit() -> MakeUnit {
    Box::new(|payload| {
        let args: Vec<String> =
            serde_json::from_value(payload.clone()).map_err(|e| UnitError::because("a bad payload", e))?;
        Ok(Box::new(ProcessUnit { args }))
    })
}

impl Unit for ProcessUnit {
    fn start(&self, io: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError> {
        if self.args[0].starts_with('/') && !Path::new(&self.args[0]).exists() {
            return Err(UnitError::because(format!("cannot run `{}`", self.args[0]), io::Error::from_raw_os_error(2)));
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&self.args);
        command.stdin(Stdio::null()).stdout(io.stdout).stderr(io.stderr).process_group(0);
        let (send, receive) = mpsc::channel();
        // The death signal comes with the end of the thread that forked, so that thread stays to wait.
        std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(e) => return drop(send.send(Err(UnitError::because("cannot start a process", e)))),
            };
            // It holds our copies of the pipes.
            drop(command);
            on_event(UnitEvent::Started { pid: child.id() });
            send.send(Ok(child.id())).expect("send");
            let status = child.wait().expect("wait");
            on_event(UnitEvent::Exited { code: status.code(), signal: status.signal(), oom: false });
        });
        let pid = receive.recv().expect("an answer")?;
        Ok(Arc::new(Process { pid }))
    }
}

struct Process {
    pid: u32,
}

impl Process {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed()).expect("a pid")
    }
}

impl Running for Process {
    fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(Process::pid(self), signal)?)
    }

    fn kill(&self) -> io::Result<()> {
        Ok(kill_process_group(Process::pid(self), Signal::KILL)?)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address)
    }

    fn connect_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        Ok(socket)
    }

    fn exec(&self, args: &[String], _: Duration) -> io::Result<ExecResult> {
        let output = Command::new(&args[0]).args(&args[1..]).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(ExecResult { code: output.status.code().unwrap_or(128), output: text })
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

/// A supervised project in a directory of its own. Dropping it takes it down.
pub(crate) struct Igloo {
    pub(crate) dir: tempfile::TempDir,
    serving: Option<JoinHandle<()>>,
}

impl Igloo {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().expect("tempdir"))
    }

    pub(crate) fn at(dir: tempfile::TempDir) -> Self {
        let mut igloo = Self { dir, serving: None };
        igloo.serve();
        igloo
    }

    fn serve(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).expect("bind");
        let (logs, state) = (self.logs(), self.dir.path().join("state"));
        self.serving = Some(std::thread::spawn(move || {
            igloo_supervisor::serve(listener, make_unit(), &logs, &state).expect("serve");
        }));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).expect("connect")
    }

    /// Applies and waits.
    pub(crate) fn up(&self, services: Vec<ServiceSpec>) -> Settled {
        let options = ApplyOptions { remove_orphans: true, wait: true, timeout: Some(Duration::from_secs(30)) };
        self.client().apply(&project(services), options, &mut |_| {}).expect("apply")
    }

    pub(crate) fn status(&self, name: &str) -> ServiceStatus {
        let status = self.client().status().expect("status");
        status.services.into_iter().find(|s| s.name == name).expect("the service")
    }

    pub(crate) fn log(&self, service: &str) -> Vec<String> {
        let query = Query { services: vec![service.to_owned()], ..Query::default() };
        Reader::open(&self.logs(), &query).expect("logs").map(|r| r.expect("record").text).collect()
    }

    /// Takes everything down and waits for the supervisor's end.
    pub(crate) fn down(&mut self) -> Settled {
        let settled = self.client().down(None, &mut |_| {}).expect("down");
        self.join();
        settled
    }

    pub(crate) fn join(&mut self) {
        self.serving.take().expect("serving").join().expect("the supervisor");
    }

    /// A new supervisor in the same place.
    pub(crate) fn again(&mut self) {
        self.down();
        self.serve();
    }
}

impl Drop for Igloo {
    fn drop(&mut self) {
        if self.serving.is_some() && !std::thread::panicking() {
            self.client().down(Some(Duration::ZERO), &mut |_| {}).expect("down");
            self.join();
        }
    }
}

pub(crate) fn project(services: Vec<ServiceSpec>) -> Project {
    Project { name: "test".to_owned(), services, known: Vec::new() }
}

/// A service that runs a shell script; its digest is the script's.
pub(crate) fn sh(name: &str, script: &str) -> ServiceSpec {
    command(name, &["sh", "-c", script])
}

pub(crate) fn command(name: &str, args: &[&str]) -> ServiceSpec {
    ServiceSpec::new(name, Sha256::of(args.join("\0").as_bytes()), serde_json::json!(args))
}

/// A service that does nothing for long and ends when asked to.
pub(crate) fn sleeper(name: &str) -> ServiceSpec {
    command(name, &["sleep", "1000"])
}

/// Waits until something is true, which it soon is.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn problems(settled: &Settled) -> Vec<String> {
    settled.services.iter().filter_map(|s| s.problem.as_ref().map(|p| format!("{}: {p}", s.name))).collect()
}

/// True if a process of this number is there and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// A port that nobody has, for services that can't choose one themselves.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

pub(crate) fn read_all(stream: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
