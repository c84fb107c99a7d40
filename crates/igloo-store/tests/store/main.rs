//! The store, with archives made by hand, other processes, and real Nix.
#![allow(missing_docs)]

mod collect;
mod crash;
mod helpers;
mod hostile;
mod nix;
mod support;
mod unpack;
