//! The manifest's JSON Schema, for editors.

/// JSON Schema (2020-12) of `igloo.toml`.
pub fn schema() -> serde_json::Value {
    todo!()
}
