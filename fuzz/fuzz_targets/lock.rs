//! igloo.lock.
#![no_main]

use std::path::Path;

use igloo_manifest::Lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse(text, Path::new("igloo.lock")) {
        let _ = lock.verify();
        let mut sorted = lock.clone();
        sorted.sort();
        let again = Lock::parse(&sorted.render(), Path::new("igloo.lock")).expect("what was written can be read");
        assert_eq!(again.render(), sorted.render());
    }
});
