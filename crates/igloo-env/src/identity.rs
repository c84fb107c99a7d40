//! Users and groups that packages ask for, and their ids.

use igloo_manifest::lock::{LockedGroup, LockedUser};

/// The ids of one project: the lock holds them, [`crate::plan`] only ever adds to them.
///
/// Ids that Debian fixes for everybody (`root`, `www-data`, `shadow`, …) are not in here; they come from
/// base-passwd's masters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Users, by name.
    pub users: Vec<LockedUser>,
    /// Groups, by name.
    pub groups: Vec<LockedGroup>,
}
