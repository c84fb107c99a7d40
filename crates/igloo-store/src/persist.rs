//! One switch of SQLite that its safe interface does not offer.
#![allow(unsafe_code)] // `sqlite3_file_control` has no safe wrapper

use rusqlite::{Connection, ffi};

/// Keeps the write-ahead log and its shared memory when the last connection closes, as Nix does, so that others who
/// may not write to the directory can still open the database. If SQLite refuses, nothing but that is lost.
pub(crate) fn keep_log(connection: &Connection) {
    let mut on: std::ffi::c_int = 1;
    // SAFETY: the handle lives as long as `connection`, which is borrowed; for this operation SQLite reads and writes
    // one int behind the pointer, during the call only; the name is a constant string that ends in a zero.
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_PERSIST_WAL,
            (&raw mut on).cast(),
        );
    }
}
