//! Times as text: RFC 3339 in UTC, written and read without a time-zone database.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, now.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970, now.
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// `2026-11-21T10:04:05.000000001Z`, always 30 bytes.
pub fn format_ns(ns: u64) -> String {
    let _ = ns;
    todo!()
}

/// The inverse of [`format_ns`].
pub fn parse_ns(text: &str) -> Option<u64> {
    let _ = text;
    todo!()
}
