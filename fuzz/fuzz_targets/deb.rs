//! Whole .debs: `ar`, the decompressors, `tar`.
#![no_main]

use igloo_formats::deb::archive::{DebReader, Limits, TarReader};
use libfuzzer_sys::fuzz_target;

fn drain<R: std::io::Read>(mut tar: TarReader<R>) {
    while let Ok(Some(_)) = tar.next() {
        while tar.chunk().is_ok_and(|chunk| !chunk.is_empty()) {}
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits { control: 1 << 20, data: 4 << 20, entries: 1000, memory: 8 << 20 };
    let Ok(mut deb) = DebReader::new(data, limits) else { return };
    if let Ok(tar) = deb.control() {
        drain(tar);
    }
    if let Ok(tar) = deb.data() {
        drain(tar);
    }
});
