//! Patterns of `exclude`.
#![no_main]

use igloo_manifest::Glob;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    if let Ok(glob) = Glob::parse(input.0) {
        let path: Vec<&[u8]> = input.1.split(|b| *b == b'/').collect();
        let _ = glob.matches(&path);
    }
});
