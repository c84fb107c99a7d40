//! Looking whether a service is ready: at once, then after pauses that grow from 5 ms to [`SHORT`], and only when the start
//! takes long to the interval: what is ready is known to be within 20 ms. And, from then on, whether it is still well.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::machine::{Event, Run};
use crate::spec::{Health, Probe, Readiness};
use crate::unit::Running;

use super::{Message, Sender};

const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause while the start is young, and always between looks that cost nothing (nobody listens yet).
const SHORT: Duration = Duration::from_millis(15);

/// How long a start is young.
const YOUNG: Duration = Duration::from_secs(5);

/// An answer or a command that takes longer counts as a failed look; the next may do better.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the rest of an answer may pause.
const LEAVE: Duration = Duration::from_millis(50);

/// Why a look was in vain: one line for a person, and whether the service noticed anything of it.
struct Vain {
    why: String,
    free: bool,
}

/// Looks until it sees what it looks for, or is aborted.
pub(super) async fn watch(service: String, run: Run, readiness: Readiness, running: Arc<dyn Running>, sender: Sender) {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut saw = String::new();
    let probe = Arc::new(readiness.probe);
    loop {
        let (probe, running) = (Arc::clone(&probe), Arc::clone(&running));
        let look = tokio::task::spawn_blocking(move || look(&probe, running.as_ref(), PATIENCE)).await;
        match look.unwrap_or_else(|_| Err(Vain { why: "the probe panicked".to_owned(), free: false })) {
            Ok(()) => {
                let _ = sender.send(Message::Event(service, Event::Probed(run)));
                return;
            }
            Err(vain) => {
                let long = if vain.free || began.elapsed() < YOUNG { SHORT } else { began.elapsed() / 300 };
                pause = (pause * 3 / 2).min(long.max(SHORT)).min(readiness.interval).max(Duration::from_millis(1));
                if vain.why != saw {
                    saw.clone_from(&vain.why);
                    let _ = sender.send(Message::Event(service.clone(), Event::ProbeSaw(run, vain.why)));
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Looks in intervals whether a service is still well, until aborted.
pub(super) async fn care(service: String, run: Run, health: Health, running: Arc<dyn Running>, sender: Sender) {
    let probe = Arc::new(health.probe);
    loop {
        tokio::time::sleep(health.interval).await;
        let (probe, running, patience) = (Arc::clone(&probe), Arc::clone(&running), health.timeout);
        let look = tokio::task::spawn_blocking(move || look(&probe, running.as_ref(), patience));
        let seen = match tokio::time::timeout(patience + Duration::from_secs(1), look).await {
            Ok(Ok(seen)) => seen.map_err(|vain| vain.why),
            Ok(Err(_)) => Err("the probe panicked".to_owned()),
            Err(_) => Err(format!("no answer in {} ms", patience.as_millis())),
        };
        if sender.send(Message::Event(service.clone(), Event::Health(run, seen))).is_err() {
            return;
        }
    }
}

/// One look.
fn look(probe: &Probe, running: &dyn Running, patience: Duration) -> Result<(), Vain> {
    let noticed = |why: String| Vain { why, free: false };
    let refused = |e: io::Error| Vain { free: e.kind() == io::ErrorKind::ConnectionRefused, why: e.to_string() };
    match probe {
        Probe::Tcp { address } => running.connect(*address).map(drop).map_err(refused),
        Probe::Http { status, .. } => match get(running, probe, patience) {
            Ok(code) if is_good(code, status) => Ok(()),
            Ok(code) => Err(noticed(format!("status {code}"))),
            Err(e) if is_timeout(&e) => Err(noticed(format!("no answer in {} ms", patience.as_millis()))),
            Err(e) => Err(refused(e)),
        },
        Probe::Exec { args } => match running.exec(args, patience) {
            Ok(result) if result.code == 0 => Ok(()),
            Ok(result) => {
                let last = result.output.lines().rev().find(|l| !l.trim().is_empty());
                let last = last.map(|l| format!(": {}", l.chars().take(200).collect::<String>())).unwrap_or_default();
                Err(noticed(format!("exit code {}{last}", result.code)))
            }
            Err(e) if is_timeout(&e) => {
                Err(noticed(format!("`{}` took longer than {} ms", args.join(" "), patience.as_millis())))
            }
            Err(e) => Err(noticed(e.to_string())),
        },
        // These come by themselves.
        Probe::Notify | Probe::Log { .. } => Err(noticed("not yet".to_owned())),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn is_good(code: u16, ranges: &[(u16, u16)]) -> bool {
    match ranges {
        [] => (200..400).contains(&code),
        ranges => ranges.iter().any(|(from, to)| (*from..=*to).contains(&code)),
    }
}

/// The status of a GET request.
fn get(running: &dyn Running, probe: &Probe, patience: Duration) -> io::Result<u16> {
    let Probe::Http { address, path, host, headers, .. } = probe else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut stream = running.connect(*address)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: igloo\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    // `HTTP/1.1 200`: what follows does not matter.
    let mut head = Vec::new();
    Read::by_ref(&mut stream).take(12).read_to_end(&mut head)?;
    // Hanging up before the server has said all would fill its log with complaints; but some never end.
    stream.set_read_timeout(Some(LEAVE))?;
    let _ = io::copy(&mut stream.take(64 << 10), &mut io::sink());
    let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|s| std::str::from_utf8(s).ok()).and_then(|s| s.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
