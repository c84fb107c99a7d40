//! igloo.toml.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match igloo_manifest::parse(text, Path::new("igloo.toml")) {
        Ok(manifest) => drop(igloo_manifest::request_digest(&manifest)),
        // What is drawn must lie inside of the text, between characters.
        Err(error) => {
            for diagnostic in &error.diagnostics {
                let end = diagnostic.span.end.min(error.text.len());
                assert!(error.text.get(diagnostic.span.start.min(end)..end).is_some(), "{:?}", diagnostic.span);
            }
        }
    }
});
