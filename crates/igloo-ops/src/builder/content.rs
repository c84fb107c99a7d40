//! What a builder is, as a service and as an image: packages, and a few files that are the same everywhere.

use igloo_manifest::image::BUILDER;

/// Where the files lie.
pub(crate) const OWN: &str = "usr/lib/igloo-builder";
/// Where the keys are given: `host_key` and `authorized_key`.
pub(super) const GIVEN: &str = "/etc/igloo-builder";
/// Who Nix logs in as.
pub(super) const USER: &str = "builder";
/// What is kept between starts: the store, and the host's key if none was given.
pub(crate) const VOLUMES: [&str; 2] = ["/nix", "/var/lib/igloo-builder"];
/// How many builds run at most, each as a user of its own. Nix's installers make as many.
const BUILDERS: u32 = 32;
/// Ids as Nix's installers choose them.
const FIRST_UID: u32 = 30_001;
/// The group that Nix takes builders from.
pub(crate) const GROUP: u32 = 30_000;

/// What is run.
pub(crate) const COMMAND: [&str; 3] = ["/usr/bin/busybox", "sh", "/usr/lib/igloo-builder/start"];

/// A file, executable or not, or a link.
pub(crate) enum File {
    Text(String, bool),
    Link(&'static str),
}

/// Every file, by its path relative to the root.
pub(crate) fn files() -> Vec<(String, File)> {
    let own = |name: &str, text: &str, executable| (format!("{OWN}/{name}"), File::Text(text.to_owned(), executable));
    vec![
        ("etc/passwd".to_owned(), File::Text(passwd(), false)),
        ("etc/group".to_owned(), File::Text(group(), false)),
        ("etc/nix/nix.conf".to_owned(), File::Link("/usr/lib/igloo-builder/nix.conf")),
        own("nix.conf", include_str!("files/nix.conf"), false),
        own("sshd_config", include_str!("files/sshd_config"), false),
        own("start", include_str!("files/start"), true),
        // What sshd gives the forced command to.
        (format!("{OWN}/sh"), File::Link("/usr/bin/busybox")),
    ]
}

/// `*` is no password, and unlike `!` doesn't lock an account.
fn passwd() -> String {
    let nobody = "/usr/sbin/nologin";
    let mut text = format!(
        "root:*:0:0:root:/root:{nobody}\n{USER}:*:1000:1000:who Nix logs in as:/var/lib/igloo-builder:/{OWN}/sh\n\
         sshd:*:100:65534:sshd:/run/sshd:{nobody}\nnobody:*:65534:65534:nobody:/nonexistent:{nobody}\n"
    );
    for n in 0..BUILDERS {
        let (name, uid) = (n + 1, FIRST_UID + n);
        text += &format!("nixbld{name}:*:{uid}:{GROUP}:Nix build user {name}:/var/empty:{nobody}\n");
    }
    text
}

fn group() -> String {
    let members: Vec<String> = (1..=BUILDERS).map(|n| format!("nixbld{n}")).collect();
    format!("root:x:0:\n{USER}:x:1000:\nnogroup:x:65534:\nnixbld:x:{GROUP}:{}\n", members.join(","))
}

/// The manifest of the project whose one service is the builder.
pub(super) fn manifest(suite: &str, single: bool) -> String {
    let packages: Vec<String> = BUILDER.iter().map(|name| format!("{name:?}")).collect();
    let command = COMMAND.map(|word| format!("{word:?}")).join(", ");
    // Where only one id is to be had, sshd can't become others, and Nix builds as one user.
    let user = if single { "1000" } else { "root" };
    format!(
        r#"# Written by `igloo builder up`.
[project]
name = "nix-builder"

[sources.debian]
suite = {suite:?}
base = "none"

[services.builder]
packages = [{packages}]
copy = [{{ from = "files", to = "/" }}]
user = "{user}"
# There is no way out of a service's network: what is needed comes from who asks for the build.
env = {{ NIX_CONFIG = "substituters =" }}
run = [{command}]
volumes = ["nix:/nix", "kept:/var/lib/igloo-builder", "./keys:{GIVEN}:ro", "tmpfs:/run/igloo-builder"]
ports = ["auto:22"]
ready = {{ log = "Server listening on" }}
restart = "on-failure"
loosen = ["sandboxes"]
"#,
        packages = packages.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_one() {
        for single in [false, true] {
            let text = manifest("bookworm", single);
            let parsed = igloo_manifest::parse(&text, std::path::Path::new("igloo.toml")).expect("a manifest");
            let service = &parsed.services["builder"];
            assert!(service.sandboxes && service.run == COMMAND, "{text}");
            assert_eq!(service.content.user.as_deref() == Some("1000"), single);
        }
    }

    #[test]
    fn build_users_are_members_of_their_group() {
        let (passwd, group) = (passwd(), group());
        let members = group.lines().find_map(|line| line.strip_prefix("nixbld:x:30000:")).expect("the group");
        assert_eq!(members.split(',').count(), 32);
        for member in members.split(',') {
            assert!(passwd.contains(&format!("\n{member}:*:300")), "{passwd}");
        }
    }
}
