//! The archive client against an archive on loopback that can be made to misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod download;
mod proxy;
mod real;
mod refresh;
mod registry;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use igloo_base::{Event, Reporter};
use igloo_remote::{Client, Config, SuiteRequest};
use igloo_test::archive::Served;

/// A client that knows nothing of this machine and does not wait long.
fn client() -> Client {
    Client::new(config(Path::new("/nonexistent"))).expect("client")
}

fn config(etc_apt: &Path) -> Config {
    Config {
        etc_apt: etc_apt.to_owned(),
        keyrings: "/nonexistent".into(),
        retries: 2,
        pause: Duration::from_millis(5),
        ..Config::default()
    }
}

fn request(served: &Served, suite: &str) -> SuiteRequest {
    SuiteRequest {
        suite: suite.to_owned(),
        components: vec!["main".to_owned()],
        url: Some(served.url.clone()),
        keyring: Some(served.keyring.clone()),
        ..SuiteRequest::default()
    }
}

/// An error and its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}

/// Keeps what it is told.
#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Reporter for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let text = |e: &Event| if let Event::Warning { text, .. } = e { Some(text.clone()) } else { None };
        events.iter().filter_map(text).collect()
    }

    fn advanced(&self) -> u64 {
        self.0.lock().unwrap().iter().map(|e| if let Event::Advanced { by, .. } = e { *by } else { 0 }).sum()
    }
}
