//! The files of `/etc` that depend on who calls and on the host: accounts, names, time zone.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Caller, EnterError, Isolation, ShellSpec};

/// A file of the skeleton.
pub(super) struct File {
    /// Absolute path inside.
    pub(super) path: &'static str,
    pub(super) content: Content,
}

pub(super) enum Content {
    Bytes(Vec<u8>),
    /// A symlink to this path inside.
    Link(PathBuf),
}

impl File {
    fn new(path: &'static str, content: impl Into<Vec<u8>>) -> Self {
        Self { path, content: Content::Bytes(content.into()) }
    }
}

/// Reads what is needed of environment and host and makes the files.
pub(super) fn generate(spec: &ShellSpec) -> Result<Vec<File>, EnterError> {
    // The environment's own accounts are in its generated layer, the topmost one.
    let declared = |name: &str| spec.lowers.first().and_then(|top| fs::read_to_string(top.join(name)).ok());
    let host = |path: &str| fs::read_to_string(path).ok();
    // Names of others who own files that are seen; nobody else is seen at the other levels.
    let others = |path: &str| if spec.isolation == Isolation::Host { host(path) } else { None };
    let mut files = vec![
        File::new("/etc/passwd", passwd(declared("etc/passwd"), others("/etc/passwd"), &spec.caller)),
        File::new("/etc/group", group(declared("etc/group"), others("/etc/group"), &spec.caller)),
    ];
    let container = spec.isolation == Isolation::Container;
    let shared = !container || spec.network;
    let hostname = if container { Some(spec.hostname.clone()) } else { host("/proc/sys/kernel/hostname") };
    if let Some(name) = hostname.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()) {
        files.push(File::new("/etc/hostname", format!("{name}\n")));
    }
    let loopback = || "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    let mut hosts = host("/etc/hosts").filter(|_| shared).unwrap_or_else(loopback);
    if container && !spec.hostname.is_empty() {
        hosts.push_str(&format!("127.0.0.1 {}\n", spec.hostname));
    }
    files.push(File::new("/etc/hosts", hosts));
    if shared {
        files.extend(name_servers(spec.isolation));
    }
    if let Ok(zone) = fs::read("/etc/localtime") {
        files.push(File::new("/etc/localtime", zone));
        if let Some(name) = fs::read_link("/etc/localtime").ok().as_deref().and_then(zone_name) {
            files.push(File::new("/etc/timezone", format!("{name}\n")));
        }
    }
    Ok(files)
}

/// Where the host's `/run` is seen, a resolver's file there is linked to, so that it stays true when the machine moves
/// to another network.
fn name_servers(isolation: Isolation) -> Option<File> {
    const PATH: &str = "/etc/resolv.conf";
    match fs::canonicalize(PATH) {
        Ok(real) if isolation == Isolation::Host && real.starts_with("/run") => {
            Some(File { path: PATH, content: Content::Link(real) })
        }
        _ => fs::read(PATH).ok().map(|bytes| File::new(PATH, bytes)),
    }
}

/// `Europe/Berlin`, from where `/etc/localtime` points to.
fn zone_name(target: &Path) -> Option<&str> {
    target.to_str()?.split_once("zoneinfo/").map(|(_, name)| name)
}

const MINIMAL_PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const MINIMAL_GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The caller first, so that the number is shown as the caller's name; then the declared accounts, then those of
/// the host whose name and number are still free.
fn passwd(declared: Option<String>, host: Option<String>, caller: &Caller) -> String {
    let Caller { name, uid, gid, home, shell } = caller;
    let entry = format!("{}:x:{uid}:{gid}::{}:{}", field(name), field(&home.to_string_lossy()), field(shell));
    merge(&entry, declared.as_deref().unwrap_or(MINIMAL_PASSWD), host.as_deref().unwrap_or(""))
}

fn group(declared: Option<String>, host: Option<String>, caller: &Caller) -> String {
    let declared = declared.as_deref().unwrap_or(MINIMAL_GROUP);
    let gid = caller.gid.to_string();
    let name_of = |text: &str| text.lines().find(|l| l.split(':').nth(2) == Some(&gid)).map(str::to_owned);
    // The group's number may have a name already; the caller's own name is the usual one for it.
    let own = name_of(declared)
        .or_else(|| host.as_deref().and_then(name_of))
        .unwrap_or_else(|| format!("{}:x:{gid}:", field(&caller.name)));
    merge(&own, declared, host.as_deref().unwrap_or(""))
}

/// `first`, all lines of `declared` but those with the same name, and of `host` those with new names and numbers.
fn merge(first: &str, declared: &str, host: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or("").to_owned();
    let id = |line: &str| line.split(':').nth(2).unwrap_or("").to_owned();
    let mut text = format!("{first}\n");
    let mut known: Vec<(String, String)> = vec![(name(first), id(first))];
    for line in declared.lines().filter(|l| l.contains(':')) {
        if name(line) != known[0].0 {
            known.push((name(line), id(line)));
            text.push_str(line);
            text.push('\n');
        }
    }
    let accounts = |l: &&str| l.contains(':') && !l.starts_with(['+', '-', '#']);
    for line in host.lines().filter(accounts) {
        if !known.iter().any(|(n, i)| *n == name(line) || *i == id(line)) {
            known.push((name(line), id(line)));
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// A colon or a line break would make another entry of it.
fn field(text: &str) -> String {
    text.replace([':', '\n'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eve() -> Caller {
        Caller { name: "eve".into(), uid: 1000, gid: 100, home: "/home/eve".into(), shell: "/bin/bash".into() }
    }

    #[test]
    fn the_caller_is_added_and_comes_first() {
        let declared =
            "root:x:0:0::/root:/bin/sh\npostgres:x:1000:120::/var/lib/postgresql:/bin/sh\neve:x:5:5::/x:/y\n";
        let host = "root:x:0:0:other:/root:/bin/zsh\nbob:x:1001:1001::/home/bob:/bin/sh\nsame:x:1000:1::/:/\n+::::::\n";
        assert_eq!(
            passwd(Some(declared.into()), Some(host.into()), &eve()),
            "eve:x:1000:100::/home/eve:/bin/bash\nroot:x:0:0::/root:/bin/sh\n\
             postgres:x:1000:120::/var/lib/postgresql:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n"
        );
        assert!(passwd(None, None, &eve()).contains("\nnobody:x:65534:"));
    }

    #[test]
    fn the_callers_group_keeps_its_name() {
        assert_eq!(group(Some("root:x:0:\nusers:x:100:\n".into()), None, &eve()), "users:x:100:\nroot:x:0:\n");
        assert_eq!(group(Some("root:x:0:\n".into()), None, &eve()), "eve:x:100:\nroot:x:0:\n");
        assert_eq!(group(Some("".into()), Some("staff:x:100:bob\n".into()), &eve()), "staff:x:100:bob\n");
    }

    #[test]
    fn hostile_names_stay_one_field() {
        let caller = Caller { name: "a:b\nroot:x:0:0".into(), ..eve() };
        assert!(passwd(None, None, &caller).starts_with("a_b_root_x_0_0:x:1000:"));
    }

    #[test]
    fn zone_names() {
        assert_eq!(zone_name(Path::new("/usr/share/zoneinfo/Europe/Berlin")), Some("Europe/Berlin"));
        assert_eq!(zone_name(Path::new("/etc/somewhere")), None);
    }
}
