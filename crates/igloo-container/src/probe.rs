//! What this machine allows, and why not: the findings of `igloo doctor`.

pub(crate) fn user_namespace_obstacle() -> (String, String) {
    (String::new(), String::new())
}
