//! Looking whether a service is ready: at once, then after pauses that grow from 5 ms to the interval. There is no
//! fixed sleep, so a service that is ready after 12 ms is known to be soon after.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::{Event, Run};
use crate::spec::{Probe, Readiness};
use crate::unit::Running;

use super::{Message, Sender};

const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// An answer or a command that takes longer counts as a failed look; the next may do better.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the rest of an answer may pause.
const LEAVE: Duration = Duration::from_millis(50);

/// Looks until it sees what it looks for, or is aborted.
pub(super) async fn watch(service: String, run: Run, readiness: Readiness, running: Arc<dyn Running>, sender: Sender) {
    let mut pause = FIRST_PAUSE.min(readiness.interval);
    let mut saw = String::new();
    let probe = Arc::new(readiness.probe);
    loop {
        let (probe, running) = (Arc::clone(&probe), Arc::clone(&running));
        let looked = tokio::task::spawn_blocking(move || look(&probe, running.as_ref())).await;
        match looked.unwrap_or_else(|_| Err("the probe panicked".to_owned())) {
            Ok(()) => {
                let _ = sender.send(Message::Event(service, Event::Probed(run)));
                return;
            }
            Err(why) if why != saw => {
                saw.clone_from(&why);
                let _ = sender.send(Message::Event(service.clone(), Event::ProbeSaw(run, why)));
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(readiness.interval).max(Duration::from_millis(1));
    }
}

/// One look; the error is one line for a person.
fn look(probe: &Probe, running: &dyn Running) -> Result<(), String> {
    match probe {
        Probe::Tcp { address } => running.connect(*address).map(drop).map_err(|e| e.to_string()),
        Probe::Http { address, path, host } => match get(running, *address, path, host) {
            Ok(status) if (200..400).contains(&status) => Ok(()),
            Ok(status) => Err(format!("status {status}")),
            Err(e) => Err(e.to_string()),
        },
        Probe::Exec { args } => match running.exec(args, PATIENCE) {
            Ok(result) if result.code == 0 => Ok(()),
            Ok(result) => {
                let last = result.output.lines().rev().find(|l| !l.trim().is_empty());
                let last = last.map(|l| format!(": {}", l.chars().take(200).collect::<String>())).unwrap_or_default();
                Err(format!("exit code {}{last}", result.code))
            }
            Err(e) => Err(e.to_string()),
        },
        // These come by themselves.
        Probe::Notify | Probe::Log { .. } => Err("not yet".to_owned()),
    }
}

/// The status of a GET request.
fn get(running: &dyn Running, address: SocketAddr, path: &str, host: &str) -> io::Result<u16> {
    let mut stream = running.connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: igloo\r\nConnection: close\r\n\r\n");
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
