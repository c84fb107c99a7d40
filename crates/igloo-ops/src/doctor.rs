//! `igloo doctor`: what this machine allows.

pub use igloo_container::probe::{Finding, Status};

use crate::context::Context;

/// Every finding, in the order a person should read them.
pub fn examine(ctx: &Context<'_>) -> Vec<Finding> {
    igloo_container::probe::examine(&ctx.dirs.data)
}
