//! Other people's formats: Debian's, Nix's, the OCI's and ssh's, bytes to types and back.
//!
//! Takes bytes or a `Read`, gives typed values. Never opens a file, never talks to a network, never trusts a
//! length: every one of them is capped, since all that is read here was written by somebody else.

pub mod deb;
pub mod nix;
pub mod oci;
pub mod ssh;
