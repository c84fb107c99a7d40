//! Package lists made into an index; and an index of anybody's, as the cache might hold one.
#![no_main]

use igloo_formats::deb::{Index, index};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) {
    let Ok(index) = Index::open(bytes) else { return };
    for name in index.names().take(100) {
        index.find(name).for_each(drop);
        let _ = index.rank(name);
        index.providers(name).for_each(drop);
    }
    index.essential().take(100).for_each(drop);
    index.records().take(100).for_each(drop);
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut built = Vec::new();
    if index::build(&mut &*data, &mut built).is_ok() {
        Index::open(&built[..]).expect("what was built can be opened");
        read(&built);
        // With a sound end and anything before it.
        if let Some((at, rest)) = data.split_first()
            && let Some(byte) = built.get_mut(usize::from(*at))
        {
            *byte = rest.first().copied().unwrap_or(0);
            read(&built);
        }
    }
});
