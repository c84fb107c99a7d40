//! What binary caches say of themselves and of paths; signatures and content addresses in it.
#![no_main]

use igloo_formats::nix::{CacheInfo, ContentAddress, NarInfo, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = NarInfo::parse(bytes) {
        let text = info.to_text();
        assert_eq!(NarInfo::parse(text.as_bytes()).expect("again"), info);
        if let Some(Ok(address)) = info.content_address.as_ref().map(|a| a.parse::<ContentAddress>()) {
            address.makes(&info.path, &info.references);
        }
        let key: PublicKey = "test-1:EUT5HCikA/HB/dOtG4UjxPlbdH7XniDdbymofq3Zd64=".parse().expect("key");
        for signature in &info.signatures {
            let _ = key.verify(&info.fingerprint(), signature);
        }
    }
    if let Ok(info) = CacheInfo::parse(bytes) {
        assert_eq!(CacheInfo::parse(info.to_text().as_bytes()).expect("again"), info);
    }
});
