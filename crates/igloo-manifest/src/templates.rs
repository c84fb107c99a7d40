//! Manifests to start from, for `igloo init`.

/// A manifest to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// The text of `igloo.toml`; the project's name is `NAME_PLACEHOLDER`.
    pub text: &'static str,
}

/// What stands for the project's name in a template: `name = "my-project"`.
pub const NAME_PLACEHOLDER: &str = "my-project";

/// Every template, the simplest first.
pub fn all() -> &'static [Template] {
    &[]
}

/// The text of a template.
pub fn template(name: &str) -> Option<&'static str> {
    all().iter().find(|t| t.name == name).map(|t| t.text)
}
