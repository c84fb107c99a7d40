//! Store paths and base 32.
#![no_main]

use igloo_formats::nix::{StorePath, base32};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.base_name(), text);
        assert!(!path.name().contains('/'));
        assert_eq!(StorePath::parse(&path.to_string()).expect("again"), path);
        assert_eq!(base32::encode(&path.hash()), path.hash_part());
    }
    if let Some(bytes) = base32::decode::<32>(text) {
        assert_eq!(base32::encode(&bytes), text);
    }
});
