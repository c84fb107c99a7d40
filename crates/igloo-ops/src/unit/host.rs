//! Isolation `host`: a process of this machine as the supervisor's unit, kept by `igloo __keep`.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use igloo_base::file::create_private_dir;
use igloo_container::cgroup::{Cgroup, Hierarchy};
use igloo_container::keep::{self, orders};
use igloo_container::{ContainerEvent, Limits, Notified};
use igloo_supervisor::{ExecResult, Running, Unit, UnitError, UnitEvent, UnitIo};
use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    /// The binary that answers to `__keep` and `__enter`.
    pub(crate) exe: PathBuf,
    /// The view of the machine in which `/usr` is the environment's.
    pub(crate) view: PathBuf,
    /// Program and arguments.
    pub(crate) args: Vec<String>,
    /// All variables.
    pub(crate) env: Vec<(String, String)>,
    /// Where it runs.
    pub(crate) workdir: PathBuf,
    /// `PROJECT/SERVICE`.
    pub(crate) mark: String,
    /// What it may use.
    pub(crate) limits: Limits,
    /// Where it tells about itself, if it does.
    pub(crate) notify: Option<PathBuf>,
}

impl HostSpec {
    /// A command in its view, with its variables.
    pub(crate) fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("__enter").arg(&self.view).args(args);
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        command.env_clear().envs(self.env.iter().map(|(n, v)| (n, v))).env(keep::MARK, &self.mark);
        command.current_dir(&self.workdir);
    }
}

/// A service's process, not running.
pub(crate) struct HostUnit {
    pub(crate) spec: HostSpec,
}

impl Unit for HostUnit {
    fn start(&self, io: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError> {
        let spec = &self.spec;
        let because = |what: &'static str| move |e: io::Error| UnitError::because(what, e);
        // What a killed supervisor and its keeper left.
        keep::sweep(&spec.mark);
        let on_event: Arc<dyn Fn(UnitEvent) + Send + Sync> = Arc::from(on_event);
        let over = Arc::new(AtomicBool::new(false));
        if let Some(path) = &spec.notify {
            listen(path, Arc::clone(&on_event), Arc::clone(&over)).map_err(because("cannot listen to the program"))?;
        }
        let cgroup = limit(spec)?;
        let (control, theirs) = UnixStream::pair().map_err(because("cannot make a socket pair"))?;
        let mut command = Command::new(&spec.exe);
        command.arg("__keep").arg(&spec.exe).arg("__enter").arg(&spec.view).args(&spec.args);
        spec.dress(&mut command);
        command.stdin(OwnedFd::from(theirs)).stdout(io.stdout).stderr(io.stderr).process_group(0);
        let mut keeper = command.spawn().map_err(because("cannot start a process"))?;
        // It holds our copies of the pipes.
        drop(command);
        if let Some(cgroup) = &cgroup {
            let id = keeper.id().to_string();
            let joined = cgroup.procs_fds().map_err(|e| UnitError::because("cannot limit the process", e))?;
            for group in joined {
                rustix::io::write(&group, id.as_bytes())
                    .map_err(|e| UnitError::because("cannot limit the process", io::Error::from(e)))?;
            }
        }
        keep::order(&control, &[orders::GO]).map_err(because("cannot start the program"))?;
        let reader = control.try_clone().map_err(because("cannot listen to the program"))?;
        let process = Arc::new(Process { spec: spec.clone(), control: Mutex::new(control), pid: AtomicU32::new(0) });
        let shared = Arc::clone(&process);
        std::thread::Builder::new()
            .name("igloo-host".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let mut last = None;
                for line in BufReader::new(reader).lines().map_while(Result::ok) {
                    match line.split_once(' ') {
                        Some(("pid", pid)) => {
                            let pid = pid.parse().unwrap_or(0);
                            shared.pid.store(pid, Ordering::Release);
                            on_event(UnitEvent::Started { pid });
                        }
                        Some(("exit", code)) => last = Some((code.parse().ok(), None)),
                        Some(("signal", signal)) => last = Some((None, signal.parse().ok())),
                        Some(("failed", why)) => {
                            let _ = keeper.wait();
                            return on_event(UnitEvent::Failed { message: format!("cannot run it: {why}") });
                        }
                        _ => {}
                    }
                }
                let kept = keeper.wait();
                if last.is_none() {
                    // The keeper itself was killed.
                    keep::sweep(&shared.spec.mark);
                }
                over.store(true, Ordering::Release);
                shared.pid.store(0, Ordering::Release);
                let oom = cgroup.as_ref().is_some_and(Cgroup::oom_killed);
                if let Some(cgroup) = cgroup {
                    drop(cgroup.remove());
                }
                let (code, signal) = last.unwrap_or((None, kept.ok().and_then(|s| s.signal())));
                on_event(UnitEvent::Exited { code, signal, oom });
            })
            .map_err(because("cannot start a thread"))?;
        Ok(process)
    }
}

fn limit(spec: &HostSpec) -> Result<Option<Cgroup>, UnitError> {
    if spec.limits == Limits::default() {
        return Ok(None);
    }
    let (project, service) = spec.mark.split_once('/').unwrap_or((&spec.mark, "service"));
    let made = Hierarchy::detect().and_then(|h| h.create(project, service, &spec.limits));
    let cgroup = made.map_err(|e| UnitError::because("cannot limit the process", e))?;
    Ok((!cgroup.is_empty()).then_some(cgroup))
}

/// Takes what the program tells; its directory is for our user only.
fn listen(path: &Path, on_event: Arc<dyn Fn(UnitEvent) + Send + Sync>, over: Arc<AtomicBool>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        create_private_dir(parent).map_err(io::Error::other)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    std::thread::Builder::new().name("igloo-notify".to_owned()).stack_size(128 << 10).spawn(move || {
        let mut bytes = [0; 4096];
        while !over.load(Ordering::Acquire) {
            if let Ok(n) = socket.recv(&mut bytes) {
                let said = ContainerEvent::Notified(Notified::parse(&bytes[..n]));
                super::translate(said).into_iter().for_each(&*on_event);
                // Who talks without end is heard as often as this.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    })?;
    Ok(())
}

struct Process {
    spec: HostSpec,
    control: Mutex<UnixStream>,
    pid: AtomicU32,
}

impl Process {
    fn order(&self, order: &[u8]) -> io::Result<()> {
        keep::order(&*self.control.lock().unwrap_or_else(PoisonError::into_inner), order)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The keeper sees the end of its orders and kills what is left.
        let _ = self.control.lock().unwrap_or_else(PoisonError::into_inner).shutdown(std::net::Shutdown::Write);
    }
}

impl Running for Process {
    fn signal(&self, signal: i32) -> io::Result<()> {
        let number = u8::try_from(signal).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.order(&[orders::SIGNAL, number])
    }

    fn kill(&self) -> io::Result<()> {
        self.order(&[orders::KILL])
    }

    fn pause(&self, on: bool) -> io::Result<()> {
        self.order(&[if on { orders::FREEZE } else { orders::THAW }])
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
    }

    fn connect_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        Ok(socket)
    }

    fn exec(&self, args: &[String], timeout: Duration) -> io::Result<ExecResult> {
        let (mut reader, writer) = io::pipe()?;
        let mut command = self.spec.command(args);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let mut child = command.spawn()?;
        drop(command);
        let tail = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = reader.by_ref().take(64 << 10).read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim_end().chars().rev().take(4096).collect::<Vec<_>>()
        });
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(status) = child.try_wait()? {
                let code = status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(1);
                let output = tail.join().unwrap_or_default().into_iter().rev().collect();
                return Ok(ExecResult { code, output });
            }
            if Instant::now() > deadline {
                let group = rustix::process::Pid::from_child(&child);
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }
}
