//! Prints what a published port carries: `cargo run --release -p igloo-supervisor --example throughput`.
//!
//! The service is a listener in this process that sends (or takes) zeros; the client is another thread. So three
//! parties share the machine: what is printed is a lower bound, `direct` is the same without the supervisor.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use igloo_base::Sha256;
use igloo_supervisor::client::ApplyOptions;
use igloo_supervisor::{
    Client, ExecResult, Probe, Project, PublishedPort, Readiness, Running, ServiceSpec, Unit, UnitError, UnitEvent,
    UnitIo,
};

const TOTAL: u64 = 8 << 30;

/// A unit that is not there: its server is a thread of ours.
struct Here;

impl Unit for Here {
    fn start(&self, _: UnitIo, on_event: Box<dyn Fn(UnitEvent) + Send + Sync>) -> Result<Arc<dyn Running>, UnitError> {
        on_event(UnitEvent::Started { pid: std::process::id() });
        Ok(Arc::new(HereRunning { on_event }))
    }
}

struct HereRunning {
    on_event: Box<dyn Fn(UnitEvent) + Send + Sync>,
}

impl Running for HereRunning {
    fn signal(&self, signal: i32) -> io::Result<()> {
        (self.on_event)(UnitEvent::Exited { code: None, signal: Some(signal), oom: false });
        Ok(())
    }

    fn kill(&self) -> io::Result<()> {
        self.signal(9)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address)
    }

    fn exec(&self, _: &[String], _: Duration) -> io::Result<ExecResult> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

/// Serves: the first byte says whether to send zeros or to take them.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut what = [0];
                while stream.read_exact(&mut what).is_ok() {
                    match what[0] {
                        b'd' => drop(send(&mut stream)),
                        b'u' => {
                            take(&mut stream);
                            stream.write_all(b".").unwrap();
                        }
                        _ => stream.write_all(b".").unwrap(),
                    }
                }
            });
        }
    });
    address
}

fn send(stream: &mut TcpStream) -> io::Result<()> {
    let zeros = vec![0; 256 << 10];
    for _ in 0..TOTAL / zeros.len() as u64 {
        stream.write_all(&zeros)?;
    }
    Ok(())
}

fn take(stream: &mut TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    let mut left = TOTAL;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap());
        let n = stream.read(&mut buffer[..most]).unwrap();
        assert_ne!(n, 0, "the stream ended early");
        left -= n as u64;
    }
}

/// Processor time that the supervisor's threads have used; unlike rates, it does not depend on who else is busy.
fn cpu() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        // Exactly so: threads without a name of their own are called like the binary.
        if name.ends_with("(supervisor") {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn measure(name: &str, at: SocketAddr) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_nodelay(true).unwrap();
    let before = cpu();
    let rate = |time: Duration| TOTAL as f64 / time.as_secs_f64() / 1e9;
    let begin = Instant::now();
    stream.write_all(b"d").unwrap();
    take(&mut stream);
    let down = rate(begin.elapsed());
    let begin = Instant::now();
    stream.write_all(b"u").unwrap();
    send(&mut stream).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let up = rate(begin.elapsed());
    let cost = (cpu() - before).as_secs_f64() / (2.0 * TOTAL as f64 / 1e9);
    let begin = Instant::now();
    for _ in 0..10_000 {
        stream.write_all(b"p").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let ping = begin.elapsed() / 10_000;
    let begin = Instant::now();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"p").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let connect = begin.elapsed() / 1000;
    println!("{name}: down {down:.2} GB/s, up {up:.2} GB/s, {cost:.3} s of supervisor's CPU per GB");
    println!("           round trip {ping:?}, connect and ask {connect:?}");
}

fn main() {
    let inside = server();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (logs, state) = (dir.path().join("logs"), dir.path().join("state"));
    let serving = std::thread::spawn(move || {
        igloo_supervisor::serve(listener, Box::new(|_| Ok(Box::new(Here))), &logs, &state).unwrap();
    });
    let mut service = ServiceSpec::new("server", Sha256::of(b""), serde_json::Value::Null);
    service.ports = vec![PublishedPort::tcp(0, inside.port())];
    service.ready = Some(Readiness::new(Probe::Tcp { address: inside }));
    let project = Project { name: "throughput".to_owned(), services: vec![service], known: Vec::new() };
    let mut client = Client::connect(&socket).unwrap();
    let options = ApplyOptions { wait: true, ..ApplyOptions::default() };
    client.apply(&project, options, &mut |_| {}).unwrap();
    let outside = client.ports().unwrap()[0].host;
    measure("direct   ", inside);
    measure("published", outside);
    let begin = Instant::now();
    for _ in 0..200 {
        let settled = client.restart(&[], true, &mut |_| {}).unwrap();
        assert_eq!(settled.failures().count(), 0);
    }
    println!("restart until ready (tcp probe), without the service's own time: {:?}", begin.elapsed() / 200);
    client.down(None, &mut |_| {}).unwrap();
    serving.join().unwrap();
}
