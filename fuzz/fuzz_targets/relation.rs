//! Relations between packages, and versions.
#![no_main]

use std::cmp::Ordering;

use igloo_formats::deb::{Relations, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(relations) = Relations::parse(text) {
        assert_eq!(Relations::parse(&relations.to_string()).expect("again"), relations);
    }
    let mut parts = text.splitn(3, ' ').filter_map(|part| Version::parse(part).ok());
    if let (Some(a), Some(b)) = (parts.next(), parts.next()) {
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        assert_eq!(a.cmp(&a), Ordering::Equal);
        if let Some(c) = parts.next()
            && a <= b
            && b <= c
        {
            assert!(a <= c);
        }
    }
});
