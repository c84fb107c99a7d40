//! What some packages need that neither triggers nor the walk through their scripts give. One small entry a package.

use crate::EnvError;
use crate::identity::Registry;
use crate::layer::Layer;

/// A package's entry.
struct Recipe {
    package: &'static str,
    /// Beginnings of the reported command lines that it stands in for; an empty text stands for all.
    lines: &'static [&'static str],
    /// What it makes.
    steps: &'static [Step],
}

/// Something made, unless it is there.
enum Step {
    /// Path, mode, user, group.
    Dir(&'static str, u32, &'static str, &'static str),
    /// From, to.
    Copy(&'static str, &'static str),
    /// Target, path.
    Link(&'static str, &'static str),
    /// Path, content.
    File(&'static str, &'static str),
}

use Step::{Copy, Dir, File, Link};

const RECIPES: &[Recipe] = &[
    Recipe {
        package: "redis-server",
        lines: &[],
        steps: &[
            Dir("var/lib/redis", 0o750, "redis", "redis"),
            Dir("var/log/redis", 0o750, "redis", "adm"),
            Dir("run/redis", 0o755, "redis", "redis"),
        ],
    },
    Recipe {
        package: "nginx-common",
        lines: &[],
        steps: &[
            Dir("var/log/nginx", 0o755, "root", "adm"),
            Dir("var/lib/nginx", 0o755, "root", "root"),
            Link("/etc/nginx/sites-available/default", "etc/nginx/sites-enabled/default"),
        ],
    },
    Recipe {
        package: "postgresql-common",
        lines: &[],
        steps: &[
            Dir("var/lib/postgresql", 0o755, "postgres", "postgres"),
            Dir("var/log/postgresql", 0o1775, "root", "postgres"),
            Dir("run/postgresql", 0o2775, "postgres", "postgres"),
        ],
    },
    Recipe {
        package: "openssh-server",
        lines: &[],
        steps: &[Copy("usr/share/openssh/sshd_config", "etc/ssh/sshd_config"), Dir("run/sshd", 0o755, "root", "root")],
    },
    Recipe {
        package: "mariadb-server",
        lines: &[],
        steps: &[
            Dir("var/lib/mysql", 0o755, "mysql", "mysql"),
            Dir("var/log/mysql", 0o2750, "mysql", "adm"),
            Dir("run/mysqld", 0o755, "mysql", "root"),
        ],
    },
    Recipe { package: "ca-certificates-java", lines: &[""], steps: &[] },
    Recipe { package: "locales", lines: &[], steps: &[File("etc/default/locale", "LANG=C.UTF-8\n")] },
];

/// Whether a package has an entry.
pub(crate) fn exists(package: &str) -> bool {
    RECIPES.iter().any(|r| r.package == package)
}

/// Whether the recipe of a package stands in for a command line of its scripts.
pub(crate) fn covers(package: &str, line: &str) -> bool {
    let recipes = RECIPES.iter().filter(|r| r.package == package);
    recipes.flat_map(|r| r.lines).any(|beginning| line.starts_with(beginning))
}

/// Does the steps of every member's entry.
pub(crate) fn run(layer: &mut Layer<'_>, registry: &Registry) -> Result<(), EnvError> {
    let union = layer.union;
    for recipe in RECIPES.iter().filter(|r| union.members.iter().any(|m| m.name == r.package)) {
        for step in recipe.steps {
            match step {
                Dir(path, mode, user, group) => {
                    let uid = registry.user(user).map_or(0, |u| u.0);
                    layer.directory(path, *mode, uid, registry.group(group).unwrap_or(0), false);
                }
                Copy(from, to) => {
                    layer.copy(from, to);
                }
                Link(target, path) => {
                    layer.link(target, path);
                }
                File(path, text) => {
                    layer.put(path, *text);
                }
            }
        }
    }
    Ok(())
}
