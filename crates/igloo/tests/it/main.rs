//! Tests of the whole: the ladder of rooms, and the binary as a person uses it, on real packages from the
//! machine's own archive, as root and as ordinary users.

#![allow(missing_docs)]

mod guestbook;
mod ladder;
mod lock;
mod shell;
mod store;
mod world;
