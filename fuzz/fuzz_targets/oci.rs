//! Documents of OCI images, and their references.
#![no_main]

use igloo_formats::oci::{Config, Digest, Document, Reference, media};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for kind in [media::MANIFEST, media::INDEX, "", "text/plain"] {
        let _ = Document::parse(kind, data);
    }
    let _ = serde_json::from_slice::<Config>(data);
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(reference) = text.parse::<Reference>() {
            assert_eq!(reference.to_string().parse::<Reference>().expect("again"), reference);
        }
        if let Ok(digest) = text.parse::<Digest>() {
            assert_eq!(digest.to_string(), text);
        }
    }
});
