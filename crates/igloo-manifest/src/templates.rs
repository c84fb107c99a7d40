//! Manifests to start from, for `igloo init`.

/// A manifest to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// The text of `igloo.toml`; the project's name is [`NAME_PLACEHOLDER`].
    pub text: &'static str,
}

/// What stands for the project's name in a template: `name = "my-project"`.
pub const NAME_PLACEHOLDER: &str = "my-project";

const ALL: [Template; 6] = [
    Template {
        name: "minimal",
        description: "a shell with the classic tools",
        text: include_str!("../templates/minimal.toml"),
    },
    Template {
        name: "python",
        description: "Python with pip and virtual environments",
        text: include_str!("../templates/python.toml"),
    },
    Template {
        name: "node",
        description: "Node.js with npm and TypeScript",
        text: include_str!("../templates/node.toml"),
    },
    Template { name: "go", description: "Go with its language server", text: include_str!("../templates/go.toml") },
    Template {
        name: "rust",
        description: "Rust with cargo, clippy and rustfmt",
        text: include_str!("../templates/rust.toml"),
    },
    Template {
        name: "web",
        description: "nginx, a Python web application, PostgreSQL and Redis",
        text: include_str!("../templates/web.toml"),
    },
];

/// Every template, the simplest first.
pub fn all() -> &'static [Template] {
    &ALL
}

/// The text of a template.
pub fn template(name: &str) -> Option<&'static str> {
    all().iter().find(|t| t.name == name).map(|t| t.text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_manifest_with_a_shell() {
        for template in all() {
            let manifest = crate::parse(template.text, "igloo.toml".as_ref()).unwrap();
            assert_eq!(manifest.project.name, NAME_PLACEHOLDER, "{}", template.name);
            assert_eq!(template.text.matches(NAME_PLACEHOLDER).count(), 1, "{}", template.name);
            assert!(manifest.shells.contains_key("default"), "{}", template.name);
            assert_eq!(super::template(template.name), Some(template.text));
        }
        assert_eq!(template("nothing"), None);
    }
}
