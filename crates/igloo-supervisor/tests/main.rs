//! The supervisor over real processes. See `harness.rs` for what a unit is here.

mod control;
mod harness;
mod hostile;
mod lifecycle;
mod owner;
mod ports;
mod readiness;
