//! Maintainer scripts.
#![no_main]

use igloo_env::script::parse::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse(text);
});
