//! Tests of the whole: the ladder of rooms, and the binary as a person uses it, on real packages from the
//! machine's own archive, as root and as ordinary users.

#![allow(missing_docs)]
// A test that is skipped says so.
#![allow(clippy::print_stdout)]

mod audit;
mod builder;
mod chaos;
mod compose;
mod copy;
mod flake;
mod guestbook;
mod hook;
mod image;
mod init;
mod ladder;
mod lifecycle;
mod lock;
mod network;
mod newer;
mod nix_image;
mod nix_shell;
mod nixpkgs;
mod ping;
mod podman;
mod recovery;
mod registry;
mod secrets;
mod shell;
mod store;
mod system;
mod volume;
mod world;
