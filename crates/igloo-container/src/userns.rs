//! User namespaces: which ids there are inside.
