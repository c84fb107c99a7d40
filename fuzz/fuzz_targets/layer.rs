//! Layers of images, plain and compressed, and plans of layers.
#![no_main]

use std::io::{Cursor, Read};
use std::path::Path;

use igloo_formats::oci::{Descriptor, Digest, media};
use igloo_image::ImageError;
use igloo_image::content::Content;
use igloo_image::plan::Plan;
use igloo_image::reader::walk;
use libfuzzer_sys::fuzz_target;

struct One(Vec<u8>);

impl Content for One {
    fn open(&self, _: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        Ok(Some(Box::new(Cursor::new(self.0.clone()))))
    }
}

fuzz_target!(|data: &[u8]| {
    let one = One(data.to_vec());
    for kind in [media::LAYER, media::LAYER_GZIP, media::LAYER_ZSTD] {
        let _ = walk(&one, &Descriptor::new(kind, Digest::of(b""), 0), "fuzz", &mut |entry, _| {
            // What a layer may name never leaves the image.
            assert!(!entry.path.starts_with('/') && entry.path.split('/').all(|c| c != ".." && c != "."));
            Ok(())
        });
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(plan) = Plan::parse(text, Path::new("igloo.plan"))
    {
        assert_eq!(Plan::parse(&plan.render(), Path::new("igloo.plan")).expect("again").render(), plan.render());
    }
});
