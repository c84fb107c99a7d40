//! The plan of projects that have none.

use super::Plan;

impl Plan {
    /// What is used when a project has no plan file. Packages are cut by source, size and how often they change, and
    /// not by what the image is, so that projects that never met have layers in common.
    pub fn builtin() -> Plan {
        Plan::default()
    }
}
