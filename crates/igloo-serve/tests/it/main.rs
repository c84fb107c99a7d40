//! The registry over HTTP on loopback: the rules of the distribution specification, clients that mean harm, a server
//! that is killed.

#![allow(missing_docs)]
// A test that is skipped says so.
#![allow(clippy::print_stdout)]

mod adhoc;
mod auth;
mod gc;
mod hostile;
mod interop;
mod killed;
mod lists;
mod manage;
mod pull;
mod push;
mod world;
