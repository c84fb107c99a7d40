//! Stanzas of package lists and control files.
#![no_main]

use igloo_formats::deb::{Record, meta};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Record::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = meta::control_field(text, "Depends");
        let _ = meta::parse_conffiles(text);
    }
    if let Ok(Some(path)) = meta::relative_path(data) {
        assert!(!path.starts_with('/') && !path.split('/').any(|p| p == ".."), "{path}");
        let _ = meta::usrmerge(path);
    }
});
