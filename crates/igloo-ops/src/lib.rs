//! One file per verb: wires the rooms below, returns data, prints nothing.
//!
//! The way of a project: [`project`] finds and reads it, [`lock`] decides on versions, [`fetch`] brings packages into
//! the store, [`environment`] assembles them, and then [`shell`] enters or [`services`] starts what was declared.

pub mod builder;
pub mod caches;
pub mod config;
pub mod context;
pub mod copy;
pub mod doctor;
pub mod edit;
mod egress;
pub mod environment;
pub mod error;
pub mod fetch;
pub mod gc;
pub mod hook;
pub mod image;
pub mod init;
pub mod lock;
pub mod logs;
mod nix;
pub mod project;
pub mod realise;
pub mod runtime;
pub mod services;
pub mod shell;
pub mod store;
pub mod supervise;
mod unit;
