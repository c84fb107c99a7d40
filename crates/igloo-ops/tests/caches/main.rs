//! Store paths from binary caches, good and bad, and to them, with real Nix on the other side.

mod good;
mod hostile;
mod http;
mod support;
mod written;
