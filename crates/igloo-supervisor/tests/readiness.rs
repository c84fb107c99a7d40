//! Ready is what a service shows, and it is seen soon.

use std::time::{Duration, Instant};

use igloo_supervisor::{Condition, Probe, Readiness, State};

use crate::harness::{Igloo, command, free_port, problems, sh, sleeper, text};

fn http_server(name: &str, port: u16) -> igloo_supervisor::ServiceSpec {
    command(
        name,
        &["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/proc/self", &port.to_string()],
    )
}

fn local(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn tcp_and_http_wait_for_a_real_server() {
    let igloo = Igloo::new();
    let (one, two) = (free_port(), free_port());
    let mut tcp = http_server("tcp", one);
    tcp.ready = Some(Readiness::new(Probe::Tcp { address: local(one) }));
    let mut http = http_server("http", two);
    let probe = Probe::Http {
        address: local(two),
        path: "/status".to_owned(),
        host: "localhost".to_owned(),
        headers: vec![],
        status: vec![],
    };
    http.ready = Some(Readiness::new(probe));
    let mut states = Vec::new();
    let options = igloo_supervisor::client::ApplyOptions { wait: true, ..Default::default() };
    let project = crate::harness::project(vec![tcp, http]);
    let settled = igloo.client().apply(&project, options, &mut |e| {
        if e.service == "http" {
            states.push(e.state.word());
        }
    });
    assert_eq!(problems(&settled.expect("apply")), [""; 0]);
    assert_eq!(states, ["waiting", "starting", "running", "ready"]);
    std::net::TcpStream::connect(local(one)).expect("it is really there");
    crate::harness::eventually("the probe's request is in its log", || {
        igloo.log("http").iter().any(|l| l.contains("GET /status"))
    });
}

#[test]
fn an_http_error_is_not_ready_and_the_reason_is_told() {
    let igloo = Igloo::new();
    let port = free_port();
    let mut http = http_server("http", port);
    let probe = Probe::Http {
        address: local(port),
        path: "/absent".to_owned(),
        host: "localhost".to_owned(),
        headers: vec![],
        status: vec![],
    };
    http.ready = Some(Readiness { timeout: Duration::from_millis(1500), ..Readiness::new(probe) });
    let settled = igloo.up(vec![http]);
    let expected = format!(
        "http: not ready after 1.5 s: waited for a good answer from http://127.0.0.1:{port}/absent; last: status 404"
    );
    assert_eq!(problems(&settled), [expected]);
    assert!(settled.services[0].tail.iter().any(|l| l.contains("404")), "{:?}", settled.services[0].tail);
    assert!(matches!(settled.services[0].state, State::Failed { .. }));
}

#[test]
fn exec_sees_success_soon_after_it_comes() {
    let igloo = Igloo::new();
    let file = igloo.path("file");
    let mut exec = sh("exec", &format!("sleep 0.2; date +%s%N > {}; exec sleep 1000", file.display()));
    let args = ["test", "-s", &file.display().to_string()].map(str::to_owned).to_vec();
    exec.ready = Some(Readiness::new(Probe::Exec { args }));
    igloo.up(vec![exec]);
    let written: u64 = text(&file).trim().parse().expect("nanoseconds");
    let ready = igloo.status("exec").ready_ms.expect("ready");
    // Pauses have grown to about 80 ms by then, and the machine may be busy.
    assert!(ready.saturating_sub(written / 1_000_000) < 1000, "{ready} after {written}");
}

#[test]
fn log_needs_the_right_line() {
    let igloo = Igloo::new();
    let mut log = sh("log", "echo starting; sleep 0.1; echo 'listening on :80' >&2; exec sleep 1000");
    log.ready = Some(Readiness::new(Probe::Log { pattern: r"listening on :\d+$".to_owned() }));
    assert_eq!(problems(&igloo.up(vec![log.clone()])), [""; 0]);
    let mut silent = log;
    silent.digest = igloo_base::Sha256::of(b"other");
    silent.ready = Some(Readiness {
        timeout: Duration::from_millis(300),
        ..Readiness::new(Probe::Log { pattern: "never".to_owned() })
    });
    let settled = igloo.up(vec![silent]);
    assert_eq!(problems(&settled), ["log: not ready after 300 ms: waited for a line that matches `never`"]);
    assert_eq!(settled.services[0].tail, ["starting", "listening on :80"]);
}

#[test]
fn a_short_message_is_not_slow() {
    let igloo = Igloo::new();
    let begin = Instant::now();
    let mut services = Vec::new();
    for i in 0..5 {
        let mut service = sleeper(&format!("s{i}"));
        if i > 0 {
            service.needs = vec![igloo_supervisor::Need::ready(format!("s{}", i - 1))];
        }
        service.ready = Some(Readiness::new(Probe::Exec { args: vec!["true".to_owned()] }));
        services.push(service);
    }
    igloo.up(services);
    // A chain of five, each with a probe: some milliseconds each, not some seconds.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn waiting_ends_when_it_is_in_vain_and_when_time_is_up() {
    let igloo = Igloo::new();
    let mut never = sleeper("never");
    never.ready = Some(Readiness::new(Probe::Notify));
    let options = igloo_supervisor::client::ApplyOptions::default();
    let project = crate::harness::project(vec![never, sh("bad", "exit 9"), sh("good", "exit 0")]);
    igloo.client().apply(&project, options, &mut |_| {}).expect("apply");
    let mut client = igloo.client();
    let mut wait = |name: &str, condition| {
        let names = [name.to_owned()];
        let settled = client.wait(&names, condition, Some(Duration::from_millis(300)), &mut |_| {}).expect("wait");
        (settled.timed_out, problems(&settled))
    };
    assert_eq!(wait("never", Condition::Started), (false, vec![]));
    assert_eq!(wait("never", Condition::Ready), (true, vec!["never: is still running".to_owned()]));
    assert_eq!(wait("good", Condition::Completed), (false, vec![]));
    let stopped = client_stop(&igloo, "never");
    assert_eq!(stopped, State::Stopped);
    let mut client = igloo.client();
    let names = ["never".to_owned()];
    let settled = client.wait(&names, Condition::Ready, None, &mut |_| {}).expect("wait");
    assert_eq!(problems(&settled), ["never: is stopped"]);
}

fn client_stop(igloo: &Igloo, name: &str) -> State {
    let settled = igloo.client().stop(&[name.to_owned()], None, &mut |_| {}).expect("stop");
    settled.services[0].state.clone()
}
