//! `tar` as it is inside a .deb, with check sums made right, so that the headers' fields are reached.
#![no_main]

use igloo_formats::deb::archive::{DebReader, Limits};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;

fn member(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes());
    out.extend(content);
    if content.len() % 2 == 1 {
        out.push(b'\n');
    }
}

fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    tar.resize(data.len().div_ceil(BLOCK) * BLOCK + 2 * BLOCK, 0);
    for block in tar.chunks_exact_mut(BLOCK) {
        if block.iter().any(|b| *b != 0) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let mut bytes = b"!<arch>\n".to_vec();
    member(&mut bytes, "debian-binary", b"2.0\n");
    member(&mut bytes, "data.tar", &tar);
    let limits = Limits { control: 1 << 20, data: 4 << 20, entries: 1000, memory: 8 << 20 };
    let Ok(mut deb) = DebReader::new(&bytes[..], limits) else { return };
    let Ok(mut tar) = deb.data() else { return };
    let mut total = 0;
    while let Ok(Some(_)) = tar.next() {
        while let Ok(chunk) = tar.chunk()
            && !chunk.is_empty()
        {
            total += chunk.len();
        }
    }
    assert!(total <= 4 << 20);
});
