//! Release files, after their signature.
#![no_main]

use igloo_formats::deb::release::{Release, format_date, parse_date};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Release::parse(text);
    if let Some(time) = parse_date(text) {
        // Five digits of a year would be no date of Debian's.
        assert_eq!(format_date(time).len(), "2026-11-20 00:12:41 UTC".len());
    }
});
