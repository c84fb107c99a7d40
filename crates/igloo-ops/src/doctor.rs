//! `igloo doctor`: what this machine allows.

use igloo_container::probe::{self, Places};
pub use igloo_container::probe::{Finding, Status};

use crate::context::Context;

/// Every finding, in the order a person should read them.
pub fn examine(ctx: &Context<'_>) -> Vec<Finding> {
    probe::findings(&Places { data: &ctx.dirs.data })
}
