//! Published ports.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use igloo_supervisor::{Probe, Protocol, PublishedPort, Readiness, ServiceSpec};

use crate::harness::{Igloo, command, eventually, free_port, problems, read_all, sleeper};

/// A server that answers each connection with the upper-case of all it got, after the client's half-close.
fn echo(name: &str, inside: u16) -> ServiceSpec {
    let script = "import socketserver,sys\n\
        class H(socketserver.StreamRequestHandler):\n\
        \x20 def handle(self): self.wfile.write(self.rfile.read().upper())\n\
        class S(socketserver.ThreadingTCPServer): allow_reuse_address=True; daemon_threads=True\n\
        S(('127.0.0.1', int(sys.argv[1])), H).serve_forever()";
    let mut service = command(name, &["python3", "-c", script, &inside.to_string()]);
    service.ready = Some(Readiness::new(Probe::Tcp { address: ([127, 0, 0, 1], inside).into() }));
    service
}

fn host(igloo: &Igloo, name: &str) -> SocketAddr {
    igloo.status(name).ports[0].host
}

fn ask(at: SocketAddr, text: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(text)?;
    stream.shutdown(Shutdown::Write)?;
    read_all(&mut stream)
}

#[test]
fn half_close_both_ways_and_many_at_once() {
    let igloo = Igloo::new();
    let inside = free_port();
    let mut service = echo("echo", inside);
    service.ports = vec![PublishedPort::tcp(0, inside)];
    assert_eq!(problems(&igloo.up(vec![service])), [""; 0]);
    let at = host(&igloo, "echo");
    assert_ne!(at.port(), 0);
    assert_eq!(ask(at, b"hello").expect("ask"), "HELLO");
    // Long enough that it goes the way of pipes.
    let long = vec![b'a'; 3 << 20];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answer = ask(at, &long).expect("ask");
                assert_eq!(answer.len(), long.len());
                assert!(answer.bytes().all(|b| b == b'A'));
            });
        }
    });
}

#[test]
fn a_service_that_is_down_resets_and_comes_back_on_the_same_port() {
    let mut igloo = Igloo::new();
    let inside = free_port();
    let mut service = echo("echo", inside);
    service.ports = vec![PublishedPort::tcp(0, inside)];
    service.restart.backoff.initial = Duration::from_secs(2);
    igloo.up(vec![service.clone()]);
    let at = host(&igloo, "echo");
    igloo.client().signal(&["echo".to_owned()], 1).expect("signal");
    eventually("down", || igloo.status("echo").state.word() == "backoff");
    let refused = ask(at, b"hello").expect_err("down").kind();
    assert!(
        matches!(
            refused,
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::NotConnected
        ),
        "{refused}"
    );
    eventually("back", || ask(at, b"hello").is_ok_and(|a| a == "HELLO"));
    igloo.client().restart(&[], true, &mut |_| {}).expect("restart");
    assert_eq!(host(&igloo, "echo"), at);
    // Stopped on request, it gives the port back, and remembers it.
    igloo.client().stop(&[], None, &mut |_| {}).expect("stop");
    assert!(!igloo.status("echo").ports[0].bound);
    assert_eq!(host(&igloo, "echo"), at);
    drop(std::net::TcpListener::bind(at).expect("the port is free"));
    igloo.again();
    igloo.up(vec![service]);
    assert_eq!(host(&igloo, "echo"), at, "an automatic port is the same for the next supervisor");
    assert_eq!(ask(at, b"x").expect("ask"), "X");
}

#[test]
fn a_conflict_names_port_service_and_holder() {
    let igloo = Igloo::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    let mut service = sleeper("web");
    service.ports = vec![PublishedPort::tcp(port, 80)];
    let settled = igloo.up(vec![service.clone()]);
    let problem = &problems(&settled)[0];
    let start = format!("web: cannot publish tcp port {port} of `web` on 127.0.0.1: `");
    let end = format!("(pid {}) has it", std::process::id());
    assert!(problem.starts_with(&start) && problem.ends_with(&end), "{problem}");
    // Freed, the next `up` succeeds.
    drop(taken);
    assert_eq!(problems(&igloo.up(vec![service])), [""; 0]);
}

#[test]
fn a_changed_port_moves_and_gives_the_old_one_back() {
    let igloo = Igloo::new();
    let (inside, one, two) = (free_port(), free_port(), free_port());
    let mut service = echo("echo", inside);
    service.ports = vec![PublishedPort::tcp(one, inside)];
    igloo.up(vec![service.clone()]);
    service.ports = vec![PublishedPort::tcp(two, inside)];
    service.digest = igloo_base::Sha256::of(b"moved");
    igloo.up(vec![service]);
    assert_eq!(ask(([127, 0, 0, 1], two).into(), b"hi").expect("ask"), "HI");
    drop(std::net::TcpListener::bind(("127.0.0.1", one)).expect("the old port is free"));
}

#[test]
fn nothing_leaks_over_many_connections() {
    let igloo = Igloo::new();
    let inside = free_port();
    let mut service = echo("echo", inside);
    service.ports = vec![PublishedPort::tcp(0, inside)];
    igloo.up(vec![service]);
    let at = host(&igloo, "echo");
    // Counted by what they are, since other tests of this process open files meanwhile.
    let connections = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("table");
        let ports = [at.port(), inside].map(|p| format!(":{p:04X} "));
        // Established or half closed; what waits out its time is the kernel's.
        let open = |l: &&str| {
            ports.iter().any(|p| l.contains(p)) && [" 01 ", " 08 ", " 05 ", " 04 "].iter().any(|s| l.contains(s))
        };
        table.lines().filter(open).count()
    };
    for _ in 0..50 {
        assert_eq!(ask(at, b"x").expect("ask"), "X");
    }
    // Those that hang up without a word.
    for _ in 0..20 {
        drop(TcpStream::connect(at).expect("connect"));
    }
    eventually("all closed", || connections() == 0);
}

#[test]
fn an_abort_is_seen_on_the_other_side() {
    let igloo = Igloo::new();
    let inside = free_port();
    let mut service = echo("echo", inside);
    service.ports = vec![PublishedPort::tcp(0, inside)];
    igloo.up(vec![service]);
    let mut stream = TcpStream::connect(host(&igloo, "echo")).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream.write_all(b"half a question").expect("write");
    igloo.client().stop(&[], Some(Duration::ZERO), &mut |_| {}).expect("stop");
    // Ended or reset, but not left hanging.
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn udp_peers_have_sessions_of_their_own() {
    let igloo = Igloo::new();
    let inside = UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let script = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
        s.bind(('127.0.0.1',int(sys.argv[1])))\nprint('bound',flush=True)\n\
        while True:\n d,a=s.recvfrom(65536); s.sendto(str(a[1]).encode()+b' '+d,a)";
    let mut service = command("udp", &["python3", "-c", script, &inside.to_string()]);
    service.ready = Some(Readiness::new(Probe::Log { pattern: "bound".to_owned() }));
    service.ports = vec![PublishedPort { protocol: Protocol::Udp, ..PublishedPort::tcp(0, inside) }];
    assert_eq!(problems(&igloo.up(vec![service])), [""; 0]);
    let at = host(&igloo, "udp");
    let ask = |socket: &UdpSocket, text: &str| {
        socket.send_to(text.as_bytes(), at).expect("send");
        let mut buffer = [0; 2000];
        let (n, from) = socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from, at);
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let peers = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind"));
    for peer in &peers {
        peer.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    }
    let (a1, b1, a2) = (ask(&peers[0], "one"), ask(&peers[1], "two"), ask(&peers[0], "three"));
    let session = |answer: &str| {
        answer.split_once(' ').map(|(port, text)| (port.to_owned(), text.to_owned())).expect("two words")
    };
    assert_eq!(session(&a1).0, session(&a2).0, "one peer, one session");
    assert_ne!(session(&a1).0, session(&b1).0);
    assert_eq!((session(&a2).1.as_str(), session(&b1).1.as_str()), ("three", "two"));
}
