//! Environments of small hand-made packages: no network, no root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use igloo_env::{AttrKind, Cover, EnvError, Environment, Identities, Member, Settings, assemble, bundles, merge, plan};
use igloo_formats::deb::Version;
use igloo_formats::deb::meta::{Entry, Kind, META_FORMAT, Meta};
use igloo_formats::nix::StorePath;
use igloo_manifest::ScriptDecision;

/// A store of hand-made packages.
struct World {
    dir: tempfile::TempDir,
    members: Vec<Member>,
}

/// A package under construction.
struct Package<'w> {
    world: &'w mut World,
    object: PathBuf,
    meta: Meta,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("tempdir"), members: Vec::new() }
    }

    fn package(&mut self, name: &str) -> Package<'_> {
        let number = self.members.len();
        let object = self.dir.path().join(format!("{number:032}-deb-{name}-1-amd64"));
        fs::create_dir_all(object.join("data")).expect("mkdir");
        fs::create_dir_all(object.join("control")).expect("mkdir");
        let meta = Meta {
            format: META_FORMAT,
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            conffiles: Vec::new(),
            entries: Vec::new(),
        };
        Package { world: self, object, meta }.control("control", &format!("Package: {name}\nVersion: 1\n"))
    }

    fn assemble(&self, out: &str) -> Result<PathBuf, EnvError> {
        let identities = plan(&self.members, &Identities::default(), &BTreeMap::new())?.identities;
        let out = self.dir.path().join(format!("{:032}-env-{out}", 7));
        fs::create_dir(&out).expect("mkdir");
        assemble("test", &self.members, &identities, &Settings::default(), &out)?;
        Ok(out)
    }

    fn load(&self, out: &Path) -> Environment {
        let dir = self.dir.path().to_owned();
        Environment::load(out, &|p: &StorePath| dir.join(p.base_name())).expect("load")
    }
}

impl Package<'_> {
    fn entry(mut self, path: &str, kind: Kind, mode: u32, target: Option<&str>, size: u64) -> Self {
        let mut at = 0;
        while let Some(next) = path[at..].find('/') {
            at += next;
            if !self.meta.entries.iter().any(|e| e.path == path[..at]) {
                let parent = path[..at].to_owned();
                self = self.raw(&parent, Kind::Dir, 0o755, None, 0);
            }
            at += 1;
        }
        self.raw(path, kind, mode, target, size)
    }

    fn raw(mut self, path: &str, kind: Kind, mode: u32, target: Option<&str>, size: u64) -> Self {
        self.meta.entries.push(Entry {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            uname: String::new(),
            gname: String::new(),
            size,
            target: target.map(str::to_owned),
            xattrs: Vec::new(),
        });
        self
    }

    fn file(self, path: &str, text: &str, mode: u32) -> Self {
        let to = self.object.join("data").join(path);
        fs::create_dir_all(to.parent().expect("parent")).expect("mkdir");
        fs::write(&to, text).expect("write");
        self.entry(path, Kind::File, mode, None, text.len() as u64)
    }

    fn link(self, path: &str, target: &str) -> Self {
        let to = self.object.join("data").join(path);
        fs::create_dir_all(to.parent().expect("parent")).expect("mkdir");
        symlink(target, &to).expect("symlink");
        self.entry(path, Kind::Link, 0o777, Some(target), 0)
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        fs::create_dir_all(self.object.join("data").join(path)).expect("mkdir");
        self.entry(path, Kind::Dir, mode, None, 0)
    }

    fn control(self, name: &str, text: &str) -> Self {
        fs::write(self.object.join("control").join(name), text).expect("write");
        self
    }

    fn postinst(self, body: &str) -> Self {
        self.control("postinst", &format!("#!/bin/sh\nset -e\n{body}\n"))
    }

    fn add(mut self) {
        self.meta.entries.sort_by(|a, b| a.path.cmp(&b.path));
        fs::write(self.object.join("meta.json"), serde_json::to_vec(&self.meta).expect("json")).expect("write");
        let name = self.object.file_name().and_then(|n| n.to_str()).expect("name").to_owned();
        self.world.members.push(Member {
            path: StorePath::parse(&name).expect("store path"),
            physical: self.object.clone(),
            name: self.meta.name,
            version: Version::parse("1").expect("version"),
            architecture: "amd64".into(),
        });
    }
}

fn read(out: &Path, path: &str) -> String {
    fs::read_to_string(out.join("root").join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn target(out: &Path, path: &str) -> String {
    fs::read_link(out.join("root").join(path)).unwrap_or_else(|e| panic!("{path}: {e}")).display().to_string()
}

/// Every path of a tree with what is there.
fn listing(root: &Path) -> Vec<String> {
    let (mut out, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("entry").path();
            let shown = path.strip_prefix(root).expect("prefix").display().to_string();
            let kind = fs::symlink_metadata(&path).expect("stat").file_type();
            if kind.is_symlink() {
                out.push(format!("{shown} -> {}", fs::read_link(&path).expect("link").display()));
            } else if kind.is_dir() {
                out.push(format!("{shown}/"));
                todo.push(path);
            } else {
                out.push(format!("{shown} {:?}", fs::read(&path).expect("read")));
            }
        }
    }
    out.sort();
    out
}

fn service() -> World {
    let mut w = World::new();
    w.package("server")
        .file("usr/sbin/serverd", "x", 0o755)
        .file("usr/bin/raise", "x", 0o4755)
        .file("usr/lib/tmpfiles.d/server.conf", "d /run/server 2770 server adm -\nL /etc/server.link - - - - ../x\n", 0o644)
        .file("usr/lib/systemd/system/server.service", "[Service]\nUser=server\nLogsDirectory=server\n", 0o644)
        .file("usr/share/server/default.conf", "port 1\n", 0o644)
        .postinst(
            "if [ \"$1\" = configure ]; then\n adduser --system --group --home /var/lib/server --gecos 'A server' server\n \
             adduser server tty\n ucf /usr/share/server/default.conf /etc/server.conf\n chown server:adm /etc/server.conf\n \
             chmod 0640 /etc/server.conf\n update-alternatives --install /usr/bin/srv srv /usr/sbin/serverd 50 \\\n \
             --slave /usr/bin/srv-raise srv-raise /usr/bin/raise\n deb-systemd-helper enable server.service || true\nfi\n",
        )
        .add();
    w.package("users")
        .file("usr/lib/sysusers.d/u.conf", "u _daemon 300 \"D\" /var/d /bin/sh\ng extra -\nm server extra\n", 0o644)
        .add();
    w
}

#[test]
fn a_service_gets_its_users_directories_files_and_alternatives() {
    let w = service();
    let p = plan(&w.members, &Identities::default(), &BTreeMap::new()).expect("plan");
    assert_eq!(p.unhandled, []);
    assert!(matches!(&p.scripts[0].cover, Cover::Triggers(t) if t.contains(&"users") && t.contains(&"alternatives")));
    let out = w.assemble("a").expect("assemble");

    assert!(read(&out, "etc/passwd").contains("server:x:102:102:A server:/var/lib/server:/usr/sbin/nologin\n"));
    assert!(read(&out, "etc/passwd").contains("_daemon:x:300:300:D:/var/d:/bin/sh\n"));
    assert!(read(&out, "etc/group").contains("extra:x:101:\n"), "{}", read(&out, "etc/group"));
    assert_eq!(read(&out, "etc/server.conf"), "port 1\n");
    assert_eq!(target(&out, "etc/alternatives/srv"), "/usr/sbin/serverd");
    assert_eq!(target(&out, "usr/bin/srv-raise"), "/etc/alternatives/srv-raise");
    assert_eq!(target(&out, "etc/server.link"), "../x");
    assert_eq!(target(&out, "bin"), "usr/bin");
    assert!(read(&out, "var/lib/dpkg/status").contains("Package: server\nStatus: install ok installed\n"));

    let env = w.load(&out);
    let attr = |path: &str| {
        let a = env.attrs.iter().find(|a| a.path == path).unwrap_or_else(|| panic!("no attr for {path}"));
        (a.kind, a.mode, a.uid, a.gid)
    };
    assert_eq!(attr("etc/server.conf"), (AttrKind::File, 0o640, 102, 4));
    assert_eq!(attr("run/server"), (AttrKind::Dir, 0o2770, 102, 4));
    assert_eq!(attr("var/log/server"), (AttrKind::Dir, 0o755, 102, 102));
    assert_eq!(attr("var/lib/server"), (AttrKind::Dir, 0o755, 102, 102));
    assert_eq!(attr("usr/bin/raise"), (AttrKind::File, 0o4755, 0, 0));
    assert_eq!(attr("etc/shadow"), (AttrKind::File, 0o640, 0, 42));
    assert_eq!(attr("tmp"), (AttrKind::Dir, 0o1777, 0, 0));
    assert_eq!(env.lowers().len(), 3);
    let user = env.lookup_user("server").expect("user");
    assert_eq!((user.uid, user.gid, user.home.as_str()), (102, 102, "/var/lib/server"));
    assert_eq!(env.lookup_user("server:root").map(|u| (u.uid, u.gid)), Some((102, 0)));
    assert_eq!(env.lookup_user("1234:5").map(|u| (u.uid, u.gid)), Some((1234, 5)));
    assert_eq!(env.lookup_user("nobody-such"), None);
    assert_eq!(igloo_env::explain(&env).expect("explain")[0].name, "server");
}

#[test]
fn two_assemblies_are_equal_whatever_the_order_of_members() {
    let mut w = service();
    let a = w.assemble("a").expect("assemble");
    w.members.reverse();
    let b = w.assemble("b").expect("assemble");
    assert_eq!(listing(&a), listing(&b));
}

#[test]
fn scripts_that_are_not_understood_are_reported_with_their_lines_and_can_be_ignored() {
    let mut w = World::new();
    w.package("odd")
        .file("usr/bin/odd", "", 0o755)
        .postinst("if [ \"$1\" = configure ] && [ -z \"$2\" ]; then\n  odd --make-it-so /etc/odd\nfi\n[ -e /nowhere ] && odd-two\nexit 0\nodd-three")
        .add();
    w.package("snake").control("postinst", "#!/usr/bin/python3\nprint(1)\n").add();
    let p = plan(&w.members, &Identities::default(), &BTreeMap::new()).expect("plan");
    let lines: Vec<_> = p.unhandled.iter().map(|u| (u.package.as_str(), u.script, u.lines.clone())).collect();
    assert_eq!(lines[0], ("odd", "postinst", vec![(4, "odd --make-it-so /etc/odd".to_owned())]));
    assert_eq!(lines[1].0, "snake");
    let decide = |d| BTreeMap::from([("odd".to_owned(), d)]);
    let p = plan(&w.members, &Identities::default(), &decide(ScriptDecision::Ignore)).expect("plan");
    assert_eq!(p.scripts.iter().find(|s| s.package == "odd").map(|s| &s.cover), Some(&Cover::Ignored));
    let sandbox = plan(&w.members, &Identities::default(), &decide(ScriptDecision::Sandbox));
    assert!(matches!(sandbox, Err(EnvError::Sandbox(_))));
    let recipe = plan(&w.members, &Identities::default(), &decide(ScriptDecision::Recipe));
    assert!(matches!(recipe, Err(EnvError::NoRecipe(_))));
}

#[test]
fn one_path_in_two_packages() {
    let mut w = World::new();
    w.package("one").file("usr/bin/x", "1", 0o755).file("usr/share/same", "=", 0o644).add();
    w.package("two").file("usr/bin/x", "2", 0o755).file("usr/share/same", "=", 0o644).add();
    let error = w.assemble("a").expect_err("collision").to_string();
    assert!(error.contains("`/usr/bin/x`") && error.contains("`one`") && error.contains("`two`"), "{error}");

    let mut w = World::new();
    w.package("one").file("usr/bin/x", "1", 0o755).add();
    w.package("two").file("usr/bin/x", "2", 0o755).control("control", "Package: two\nReplaces: one (<< 2)\n").add();
    let out = w.assemble("a").expect("assemble");
    assert_eq!(read(&out, "usr/bin/x"), "2");

    let mut w = World::new();
    w.package("one").file("usr/bin/x", "1", 0o755).add();
    w.package("two")
        .file("usr/bin/x", "2", 0o755)
        .control("preinst", "#!/bin/sh\ndpkg-divert --package two --add --rename --divert /usr/bin/x.one /usr/bin/x\n")
        .add();
    let out = w.assemble("a").expect("assemble");
    assert_eq!((read(&out, "usr/bin/x"), read(&out, "usr/bin/x.one")), ("2".into(), "1".into()));
}

#[test]
fn links_of_packages_lead_nowhere_outside() {
    let outside = tempfile::tempdir().expect("tempdir");
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").expect("write");
    let out_dir = outside.path().display();
    let mut w = World::new();
    w.package("evil")
        .link("etc/evil", &outside.path().display().to_string())
        .link("etc/up", "../../../../../../../../../../..")
        .link("etc/passwd", &secret.display().to_string())
        .link("loop", "loop")
        .postinst(&format!(
            "mkdir -p /etc/evil/made /etc/up{out_dir}/made2 /loop/x\necho text > /etc/evil/written\n\
             cp /etc/evil/secret /stolen\ninstall -d /a/../../../b\nln -s x /etc/up/../link\ntouch '/c/../../d'\n"
        ))
        .add();
    let out = w.assemble("a").expect("assemble");
    let names: Vec<_> = fs::read_dir(outside.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["secret"], "nothing was made outside");
    assert_eq!(fs::read_to_string(&secret).expect("read"), "secret");
    let made = listing(&out);
    assert!(!made.iter().any(|line| line.contains("stolen")), "{made:?}");
    assert!(fs::symlink_metadata(out.join("root/b")).expect("b").is_dir());
}

#[test]
fn a_record_that_lies_is_refused() {
    for path in ["../x", "/etc/x", "a/../b", "a//b", ""] {
        let mut w = World::new();
        w.package("evil").raw(path, Kind::File, 0o644, None, 0).add();
        assert!(matches!(w.assemble("a"), Err(EnvError::BadPath { .. })), "{path}");
    }
    // The record says file, the tree has a link to a file outside.
    let mut w = World::new();
    w.package("evil").entry("usr/lib/sysusers.d/a.conf", Kind::File, 0o644, None, 1).add();
    let at = w.members[0].physical.join("data/usr/lib/sysusers.d");
    fs::create_dir_all(&at).expect("mkdir");
    symlink("/etc/passwd", at.join("a.conf")).expect("symlink");
    assert!(matches!(w.assemble("a"), Err(EnvError::Path(_))));
}

#[test]
fn a_hostile_script_ends() {
    let mut w = World::new();
    let deep = "( ".repeat(500);
    w.package("deep").postinst(&deep).add();
    w.package("endless")
        .postinst("f() { f; f; }\nf\nwhile :; do x=$x$x$x; for i in 1 2 3 4 5 6 7 8 9; do f; done; done")
        .add();
    w.package("words")
        .postinst("x='a a a a a a a a a a'\nfor i in 1 2 3 4 5 6 7 8 9; do x=\"$x $x $x\"; done\nmkdir $x")
        .add();
    let p = plan(&w.members, &Identities::default(), &BTreeMap::new()).expect("plan");
    let reported: Vec<&str> = p.unhandled.iter().map(|u| u.package.as_str()).collect();
    assert!(reported.contains(&"deep") && reported.contains(&"endless"), "{reported:?}");
}

#[test]
fn more_members_than_layers_are_bundled() {
    let mut w = World::new();
    for i in 0..460 {
        w.package(&format!("p{i:03}"))
            .file(&format!("usr/share/p/{i}"), &"x".repeat(i), 0o644)
            .dir("usr/share/q", 0o755)
            .add();
    }
    let groups = bundles(&w.members).expect("bundles");
    let merged: usize = groups.iter().map(Vec::len).sum();
    assert!(460 - merged + groups.len() <= igloo_env::MAX_LOWERS, "{} in {}", merged, groups.len());
    let out = w.dir.path().join("bundle");
    fs::create_dir(&out).expect("mkdir");
    let group: Vec<Member> = groups[0].iter().map(|&m| w.members[m].clone()).collect();
    merge(&group, &out).expect("merge");
    assert_eq!(fs::read_dir(out.join("data/usr/share/p")).expect("list").count(), group.len());
    assert_eq!(bundles(&w.members[..400]).expect("bundles"), Vec::<Vec<usize>>::new());
}
