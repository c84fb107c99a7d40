//! The keys of every table.
