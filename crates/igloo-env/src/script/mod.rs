//! Maintainer scripts, read instead of run.
//!
//! A script is parsed and walked as `postinst configure` on a fresh root would go: what is known (arguments, variables,
//! the files of the environment, the users so far) decides tests; what is not known takes both ways. Commands that
//! igloo understands are done natively, in the generated layer; those that matter nothing on a fresh root are passed
//! over; every other one is reported with its line. Nothing is executed.

pub mod ast;
pub mod parse;

mod commands;
mod expand;
mod files;
mod lists;
mod test;
mod users;
pub(crate) mod walk;

pub(crate) use expand::matches;
pub(crate) use walk::{Alternative, Findings, Walker};
