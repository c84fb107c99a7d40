//! Counters, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a sum of sizes is good.
const FRESH: Duration = Duration::from_secs(30);

/// What is counted from the server's start on.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    /// Bytes of content that came.
    pub received: AtomicU64,
    /// Bytes of answers.
    pub sent: AtomicU64,
    /// Images that were built.
    pub builds: AtomicU64,
    /// Builds that failed.
    pub failures: AtomicU64,
    /// Milliseconds of builds.
    pub building: AtomicU64,
    /// Requests for a built image that was there.
    pub hits: AtomicU64,
    size: Mutex<Option<(Instant, u64)>>,
}

/// Methods that are told apart; others would let a client make counters.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

impl Metrics {
    pub(crate) fn count(&self, route: &'static str, method: &str, status: u16) {
        let method = METHODS.into_iter().find(|m| *m == method).unwrap_or("other");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, method, status)).or_default() += 1;
    }

    /// The size of the storage, if it is known and fresh.
    pub(crate) fn size(&self) -> Option<u64> {
        let size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.filter(|(at, _)| at.elapsed() < FRESH).map(|(_, bytes)| bytes)
    }

    pub(crate) fn set_size(&self, bytes: u64) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), bytes));
    }

    /// The text. `uploads` are under way, `size` is the storage's.
    pub(crate) fn render(&self, uploads: usize, size: u64) -> String {
        let mut text = String::from(
            "# HELP igloo_registry_requests_total Requests that were answered.\n\
             # TYPE igloo_registry_requests_total counter\n",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, method, status), count) in requests.iter() {
            // Writing to a String can't fail; so below.
            let _ = writeln!(
                text,
                "igloo_registry_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        let mut one = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        one("igloo_registry_received_bytes_total", "counter", "Bytes of content that came.", get(&self.received));
        one("igloo_registry_sent_bytes_total", "counter", "Bytes of answers.", get(&self.sent));
        one("igloo_registry_builds_total", "counter", "Images that were built on pull.", get(&self.builds));
        one("igloo_registry_build_failures_total", "counter", "Builds on pull that failed.", get(&self.failures));
        let seconds = self.building.load(Ordering::Relaxed) as f64 / 1000.0;
        one("igloo_registry_build_seconds_total", "counter", "Time of builds on pull.", format!("{seconds:.3}"));
        one("igloo_registry_build_hits_total", "counter", "Pulls of images that were built before.", get(&self.hits));
        one("igloo_registry_uploads", "gauge", "Uploads under way.", uploads.to_string());
        one("igloo_registry_store_bytes", "gauge", "Bytes on disk of what was pushed.", size.to_string());
        text
    }
}
