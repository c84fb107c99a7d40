//! The store, with archives made by hand, other processes, and real Nix.
#![allow(missing_docs)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // helpers answer, and what is skipped is said

mod collect;
mod crash;
mod helpers;
mod hostile;
mod nix;
mod support;
mod unpack;
