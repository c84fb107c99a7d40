//! What some packages need that neither triggers nor the walk through their scripts give. One small entry a package.

use crate::EnvError;
use crate::identity::Registry;
use crate::layer::Layer;
use crate::script::matches;

/// A package's entry.
struct Recipe {
    /// Name of the package, or a pattern for versioned names.
    package: &'static str,
    /// Beginnings of the reported command lines that it stands in for; an empty text stands for all.
    lines: &'static [&'static str],
    /// What it makes.
    steps: &'static [Step],
}

/// Something made; a directory that is there gets this owner and mode, anything else is left as it is.
enum Step {
    /// Path, mode, user, group.
    Dir(&'static str, u32, &'static str, &'static str),
    /// From, to.
    Copy(&'static str, &'static str),
    /// Target, path.
    Link(&'static str, &'static str),
    /// Path, content.
    File(&'static str, &'static str),
    /// nginx's modules of the package are enabled, in the order that its script gives them.
    NginxModules,
}

use Step::{Copy, Dir, File, Link, NginxModules};

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
    Recipe { package: "libnginx-mod-*", lines: &["ln -sf"], steps: &[NginxModules] },
    Recipe {
        package: "postgresql-common",
        lines: &["su ", "ucf ", "/usr/share/postgresql-common/", "pg_updatedicts", "pg_"],
        steps: &[
            Copy("usr/share/postgresql-common/createcluster.conf", "etc/postgresql-common/createcluster.conf"),
            Dir("var/lib/postgresql", 0o755, "postgres", "postgres"),
            Dir("var/log/postgresql", 0o1775, "root", "postgres"),
            Dir("run/postgresql", 0o2775, "postgres", "postgres"),
        ],
    },
    // Clusters are made at first start; the alternatives are manual pages only.
    Recipe {
        package: "postgresql-[0-9]*",
        lines: &["pg_", "/usr/lib/postgresql/", "/usr/share/postgresql-common/", "update-alternatives"],
        steps: &[],
    },
    Recipe { package: "postgresql-client-[0-9]*", lines: &["update-alternatives"], steps: &[] },
    Recipe {
        package: "openssh-server",
        lines: &["ucf "],
        steps: &[Copy("usr/share/openssh/sshd_config", "etc/ssh/sshd_config"), Dir("run/sshd", 0o755, "root", "root")],
    },
    Recipe {
        package: "mariadb-server",
        lines: &["mv -f /var/lib/mysql", "mv -f /etc/mysql", "xargs", "bash /usr/bin/m", "… > /etc/mysql/debian.cnf"],
        steps: &[
            Dir("var/lib/mysql", 0o755, "mysql", "mysql"),
            Dir("var/log/mysql", 0o2750, "mysql", "adm"),
            Dir("run/mysqld", 0o755, "mysql", "root"),
        ],
    },
    Recipe {
        package: "samba-common",
        lines: &["sed -i"],
        steps: &[Copy("usr/share/samba/smb.conf", "etc/samba/smb.conf")],
    },
    Recipe {
        package: "lighttpd",
        lines: &["lighty-enable-mod"],
        steps: &[Link("../conf-available/99-unconfigured.conf", "etc/lighttpd/conf-enabled/99-unconfigured.conf")],
    },
    Recipe { package: "locales", lines: &[""], steps: &[File("etc/default/locale", "LANG=C.UTF-8\n")] },
    // The secret of the control port is made at first start.
    Recipe { package: "varnish", lines: &["dd if=", "install -", "… > /etc/varnish/secret"], steps: &[] },
    // Done by triggers as a whole.
    Recipe { package: "ca-certificates", lines: &[""], steps: &[] },
    Recipe { package: "ca-certificates-java", lines: &[""], steps: &[] },
    Recipe { package: "usr-is-merged", lines: &[""], steps: &[] },
    Recipe { package: "usrmerge", lines: &[""], steps: &[] },
    // `/bin/sh` is in the package; the script deals with diversions of older versions.
    Recipe { package: "dash", lines: &[""], steps: &[] },
    // Its own record of files, which starts empty.
    Recipe { package: "ucf", lines: &["cp -f"], steps: &[] },
    Recipe { package: "openvpn", lines: &["ln -sf"], steps: &[] },
    Recipe {
        package: "squid",
        lines: &["squid -k", "chown"],
        steps: &[Dir("var/log/squid", 0o750, "proxy", "proxy"), Dir("var/spool/squid", 0o750, "proxy", "proxy")],
    },
    Recipe { package: "libpaper1", lines: &[""], steps: &[File("etc/papersize", "a4\n")] },
    // They only look at their configuration.
    Recipe { package: "chrony", lines: &["chronyd -p"], steps: &[] },
    Recipe { package: "bind9", lines: &["named-checkconf"], steps: &[] },
    // Moves what versions before 1.20 left.
    Recipe { package: "dpkg", lines: &["mv "], steps: &[] },
    // An index of manual pages.
    Recipe { package: "man-db", lines: &["setpriv "], steps: &[] },
    // It takes a shipped link away, which a layer cannot; fonts are drawn in grey then, as without the choice.
    Recipe { package: "fontconfig-config", lines: &["rm /etc/fonts/conf.d/"], steps: &[] },
    // A list for byte code.
    Recipe { package: "python3.[0-9]*-minimal", lines: &["…"], steps: &[] },
    // A cache: the common image formats are built in.
    Recipe { package: "libgdk-pixbuf-2.0-0", lines: &["… > /usr/lib/"], steps: &[] },
    // Starts the port mapper.
    Recipe { package: "erlang-base", lines: &["… start"], steps: &[] },
];

/// Whether a package has an entry.
pub(crate) fn exists(package: &str) -> bool {
    RECIPES.iter().any(|r| matches(r.package, package))
}

/// Whether the recipe of a package stands in for a command line of its scripts.
pub(crate) fn covers(package: &str, line: &str) -> bool {
    let recipes = RECIPES.iter().filter(|r| matches(r.package, package));
    recipes.flat_map(|r| r.lines).any(|beginning| line.starts_with(beginning))
}

/// Does the steps of every member's entry.
pub(crate) fn run(layer: &mut Layer<'_>, registry: &Registry) -> Result<(), EnvError> {
    let union = layer.union;
    for recipe in RECIPES.iter().filter(|r| union.members.iter().any(|m| matches(r.package, &m.name))) {
        for step in recipe.steps {
            match step {
                NginxModules => {
                    for (index, member) in union.members.iter().enumerate() {
                        if matches(recipe.package, &member.name)
                            && let Some(script) = union.control(index, "postinst")?
                        {
                            nginx_modules(layer, &String::from_utf8_lossy(&script));
                        }
                    }
                }
                Dir(path, mode, user, group) => {
                    let uid = registry.user(user).map_or(0, |u| u.0);
                    layer.directory(path, *mode, uid, registry.group(group).unwrap_or(0), true);
                }
                Copy(from, to) => {
                    layer.copy(from, to);
                }
                Link(target, path) => {
                    layer.link(target, path);
                }
                // Through a link that a package ships for it.
                File(path, text) if !layer.exists(path) => {
                    layer.replace(path, *text);
                }
                File(..) => {}
            }
        }
    }
    Ok(())
}

/// Every `NAME.conf:NUMBER-NAME.conf` of the loop that dh_nginx writes into a module's script.
fn nginx_modules(layer: &mut Layer<'_>, script: &str) {
    let pairs = script.lines().filter_map(|line| line.trim().strip_prefix("for confpair in ")?.split(';').next());
    for (from, to) in pairs.flat_map(str::split_whitespace).filter_map(|pair| pair.split_once(':')) {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '$', '`']);
        if plain(from) && plain(to) {
            layer.link(
                &format!("/usr/share/nginx/modules-available/{from}"),
                &format!("etc/nginx/modules-enabled/{to}"),
            );
        }
    }
}
