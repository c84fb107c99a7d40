//! Clients that do what clients shouldn't. After each, the supervisor serves the next one as if nothing had been.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use igloo_supervisor::{Client, ClientError};

use crate::harness::{Igloo, sleeper};

fn raw(igloo: &Igloo) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(igloo.socket()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    // A reset after the reply is no less an end.
    let _ = stream.read_line(&mut line);
    line
}

fn greeted(igloo: &Igloo) -> BufReader<UnixStream> {
    let mut stream = raw(igloo);
    stream.get_mut().write_all(b"{\"igloo_client\":2}\n").expect("write");
    assert!(line(&mut stream).starts_with("{\"igloo_supervisor\":2"));
    stream
}

fn is_well(igloo: &Igloo) {
    assert_eq!(igloo.client().status().expect("status").services.len(), 1);
}

#[test]
fn garbage_is_refused() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    for garbage in ["\n", "GET / HTTP/1.1\r\n\r\n", "{}\n", "\u{0}\u{1}\n", "[[[[[[[[\n"] {
        let mut stream = raw(&igloo);
        stream.get_mut().write_all(garbage.as_bytes()).expect("write");
        let answer = line(&mut stream);
        assert!(answer.contains("that was no greeting"), "{garbage:?}: {answer}");
        is_well(&igloo);
    }
    let mut stream = greeted(&igloo);
    for garbage in ["{\"no\":1}\n", "{\"stop\":{}}\n", "\"statu\"\n"] {
        stream.get_mut().write_all(garbage.as_bytes()).expect("write");
        assert!(line(&mut stream).contains("that is no request"));
    }
    // The same connection is still good for a real one.
    stream.get_mut().write_all(b"\"status\"\n").expect("write");
    assert!(line(&mut stream).starts_with("{\"status\":{\"name\":\"test\""));
}

#[test]
fn deep_nesting_does_not_overflow() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    let mut stream = greeted(&igloo);
    let deep = format!("{{\"apply\":{{\"project\":{}\n", "[".repeat(500_000));
    stream.get_mut().write_all(deep.as_bytes()).expect("write");
    assert!(line(&mut stream).contains("that is no request"));
    is_well(&igloo);
}

#[test]
fn huge_lines_are_cut_off() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    for (start, mib) in [("{\"stop\":\"", 2), ("{\"apply\":\"", 20)] {
        let mut stream = greeted(&igloo);
        let _ = stream.get_mut().write_all(start.as_bytes());
        let chunk = vec![b'x'; 1 << 20];
        // The supervisor hangs up in the middle.
        let sent = (0..mib).take_while(|_| stream.get_mut().write_all(&chunk).is_ok()).count();
        let answer = line(&mut stream);
        assert!(answer.contains("a request of more than") || sent < mib, "{answer}");
        is_well(&igloo);
    }
}

#[test]
fn slow_and_silent_clients_hinder_nobody() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    // Half a line, half a greeting, and one who never reads what it asks for.
    let mut slow = greeted(&igloo);
    slow.get_mut().write_all(b"\"sta").expect("write");
    let mut half = raw(&igloo);
    half.get_mut().write_all(b"{\"igloo").expect("write");
    let mut deaf = greeted(&igloo);
    deaf.get_ref().set_write_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let flood = b"\"status\"\n".repeat(100_000);
    let _ = deaf.get_mut().write_all(&flood);
    let mut subscriber = greeted(&igloo);
    subscriber.get_mut().write_all(b"\"subscribe\"\n").expect("write");
    for _ in 0..20 {
        igloo.client().restart(&[], true, &mut |_| {}).expect("restart");
    }
    slow.get_mut().write_all(b"tus\"\n").expect("write");
    assert!(line(&mut slow).starts_with("{\"status\""));
    // Who does not greet is hung up on after five seconds.
    assert_eq!(line(&mut half), "");
}

#[test]
fn too_many_clients_are_refused_and_others_go_on() {
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    let mut first = igloo.client();
    let mut clients = Vec::new();
    let refused = loop {
        match Client::connect(&igloo.socket()) {
            Ok(client) => clients.push(client),
            Err(e) => break e,
        }
        assert!(clients.len() < 200);
    };
    assert!(matches!(&refused, ClientError::Refused { message } if message == "too many clients at once"), "{refused}");
    assert_eq!(first.status().expect("status").services.len(), 1);
    clients.clear();
    crate::harness::eventually("there is room again", || Client::connect(&igloo.socket()).is_ok());
}

#[test]
fn another_version_is_told_so_on_both_sides() {
    let igloo = Igloo::new();
    let mut old = raw(&igloo);
    old.get_mut().write_all(b"{\"igloo_client\":77}\n").expect("write");
    assert!(line(&mut old).contains("this supervisor speaks 2, not 77"));

    // A supervisor of the future.
    let dir = tempfile::tempdir().expect("tempdir");
    let socket = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.write_all(b"{\"igloo_supervisor\":3,\"pid\":42,\"refused\":\"too old\",\"more\":[]}\n").expect("write");
    });
    let error = Client::connect(&socket).expect_err("another version").to_string();
    assert!(error.contains("(protocol 3, this one speaks 2)") && error.contains("kill 42"), "{error}");
    server.join().expect("server");
}

#[test]
fn another_user_is_turned_away() {
    use std::os::unix::fs::PermissionsExt;
    let nobody = 65534;
    // Another Python may lie where nobody may go.
    let python = "/usr/bin/python3";
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(python).exists() {
        return skipped("needs root to be somebody else, and the system's python3");
    }
    let igloo = Igloo::new();
    igloo.up(vec![sleeper("a")]);
    // Open every door that file modes can close.
    for path in [igloo.dir.path().to_owned(), igloo.socket()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  try: s.sendall(b'{\"igloo_client\":2}\\n\"status\"\\n')\n\
                  except OSError: pass\n\
                  print(s.recv(4096).decode())";
    let output = std::process::Command::new("setpriv")
        .args([&format!("--reuid={nobody}"), "--clear-groups", python, "-c", script])
        .arg(igloo.socket())
        .output()
        .expect("python3");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("this project is another user's"), "{answer} {output:?}");
    assert!(!answer.contains("services"));
}

#[allow(clippy::print_stderr)]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
