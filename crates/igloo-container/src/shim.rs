//! Body of `igloo __shim`: one per container.
#![allow(clippy::todo)]
use std::process::ExitCode;

/// Body of `igloo __shim`: run it before any thread exists.
pub fn shim_main() -> ExitCode { todo!() }
