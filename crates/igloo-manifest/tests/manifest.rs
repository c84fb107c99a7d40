//! The manifest as its users see it: what parses, what is asked of a resolver, and what errors say.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use expect_test::{Expect, expect};
use igloo_manifest::{
    Base, Isolation, Manifest, ManifestError, Position, Probe, Restart, SourceKind, parse, request_digest, sets,
};
use proptest::prelude::*;

const HEAD: &str = "[project]\nname = \"x\"\n[sources.debian]\nsuite = \"bookworm\"\n";
const GUESTBOOK: &str = include_str!("data/guestbook.toml");
const EVERYTHING: &str = include_str!("data/everything.toml");

fn read(text: &str) -> Result<Manifest, ManifestError> {
    parse(text, Path::new("igloo.toml"))
}

fn good(text: &str) -> Manifest {
    read(text).unwrap_or_else(|e| panic!("{}", shown(&e)))
}

/// The findings as a list: place, the text pointed at, message, label, help.
fn shown(error: &ManifestError) -> String {
    let mut out = String::new();
    for d in &error.diagnostics {
        let end = Position::of(&error.text, d.span.end);
        writeln!(out, "{}-{end} `{}`: {}", error.position(d), &error.text[d.span.clone()], d.message).unwrap();
        if !d.label.is_empty() {
            writeln!(out, "  | {}", d.label).unwrap();
        }
        if let Some(help) = &d.help {
            writeln!(out, "  = {help}").unwrap();
        }
    }
    out
}

fn check(body: &str, expect: Expect) {
    check_whole(&format!("{HEAD}{body}"), expect);
}

fn check_whole(text: &str, expect: Expect) {
    match read(text) {
        Ok(_) => panic!("it is good: {text}"),
        Err(e) => expect.assert_eq(&shown(&e)),
    }
}

#[test]
fn not_toml() {
    check(
        "[shells.default]\npackages = [\"git\" \"jq\"]\n",
        expect![[r#"
        6:19-6:19 ``: missing comma between array elements, expected `,`
          | not TOML
    "#]],
    );
    check(
        "[shells.default]\n[shells.default]\n",
        expect![[r#"
        6:9-6:16 `default`: duplicate key
          | not TOML
    "#]],
    );
    check_whole(
        "",
        expect![[r#"
            1:1-1:1 ``: the manifest needs `project`
              | `project` is missing
              = `[project]` with the project's name
        "#]],
    );
}

#[test]
fn unknown_keys() {
    check(
        "[shell.default]\n",
        expect![[r#"
            5:2-5:7 `shell`: the manifest has no key `shell`
              | unknown key
              = did you mean `shells`? environments to work in
        "#]],
    );
    check(
        "[shells.default]\npackges = []\nfoo = 1\n",
        expect![[r#"
            6:1-6:8 `packges`: a shell has no key `packges`
              | unknown key
              = did you mean `packages`? the packages in it
            7:1-7:4 `foo`: a shell has no key `foo`
              | unknown key
              = its keys are `packages`, `env`, `user`, `workdir`, `copy`, `recommends`, `base`, `isolation`, `hook`
        "#]],
    );
    check(
        "[services.db]\nimage = \"x\"\ncommand = [\"x\"]\ndepends_on = []\n",
        expect![[r#"
            5:11-5:13 `db`: service `db` has nothing to run
              = add `run = ["program", "argument"]`, or an `image`
            6:10-6:11 `x`: `x` names neither a registry nor a file
              = write `HOST/NAME:TAG`, or a path: `./image.tar`, `oci:DIR`
            7:1-7:8 `command`: a service has no key `command`
              | unknown key
              = did you mean `run`? the command, as a list of words; no shell is involved. An image has one of its own
            8:1-8:11 `depends_on`: a service has no key `depends_on`
              | unknown key
              = did you mean `needs`? what must be ready first
        "#]],
    );
    check(
        "[services.db]\nrun = [\"x\"]\nstop_grace = \"1s\"\n",
        expect![[r#"
        7:1-7:11 `stop_grace`: a service has no key `stop_grace`
          | unknown key
          = did you mean `stop-grace`? how long it has before it is killed, `10s` unless said
    "#]],
    );
}

#[test]
fn missing_keys() {
    check_whole(
        "[shells.default]\npackages = []\n",
        expect![[r#"
            1:1-1:1 ``: the manifest needs `project`
              | `project` is missing
              = `[project]` with the project's name
        "#]],
    );
    check(
        "[services.db]\ncopy = [{ from = \"x\" }]\n",
        expect![[r#"
            5:11-5:13 `db`: service `db` has nothing to run
              = add `run = ["program", "argument"]`, or an `image`
            6:9-6:23 `{ from = "x" }`: a copy needs `to`
              | `to` is missing
              = an absolute path in the environment
        "#]],
    );
    check_whole(
        "[project]\nname = \"x\"\n[sources.debian]\n",
        expect![[r#"
        3:10-3:16 `debian`: `[sources.debian]` needs `suite`
          | `suite` is missing
          = the main suite, `bookworm`
    "#]],
    );
}

#[test]
fn wrong_types() {
    check(
        "[shells.default]\npackages = \"git\"\nenv = { PORT = 5000 }\nrecommends = \"yes\"\n[vm]\ncpus = 0\nmemory = 8\n",
        expect![[r#"
            6:12-6:17 `"git"`: `packages` must be a list, not a text
              | expected a list
              = put it in brackets: `["git"]`
            7:16-7:20 `5000`: `env.PORT` must be a text, not a whole number
              | expected a text
              = put it in quotes: `"5000"`
            8:14-8:19 `"yes"`: `recommends` must be true or false, not a text
              | expected true or false
            10:8-10:9 `0`: `cpus` must be from 1 to 1024
              | 0 is out of range
            11:10-11:11 `8`: `memory` must be a text, not a whole number
              | expected a text
              = write `8M`, or `8B` for bytes
        "#]],
    );
    check(
        "[services.db]\nrun = \"postgres -D /data\"\n",
        expect![[r#"
        6:7-6:26 `"postgres -D /data"`: `run` must be a list of words, not a text
          | expected a list of words
          = write `run = ["postgres", "-D", "/data"]`
    "#]],
    );
    check(
        "[services.db]\nrun = \"a | b\"\nsetup = []\n",
        expect![[r#"
        6:7-6:14 `"a | b"`: `run` must be a list of words, not a text
          | expected a list of words
          = commands are lists of words; for a shell: `run = ["sh", "-c", "..."]`
        7:9-7:11 `[]`: `setup` has no words
          | a command has at least one word
    "#]],
    );
}

#[test]
fn unknown_words() {
    check(
        "[shells.default]\nisolation = \"contaner\"\nbase = \"full\"\n",
        expect![[r#"
            6:14-6:22 `contaner`: `contaner` is no value of `isolation`
              | unknown value
              = did you mean `container`? the values are `host`, `pure`, `container`, `vm`
            7:9-7:13 `full`: `full` is no value of `base`
              | unknown value
              = one of `none`, `minimal`, `essential`
        "#]],
    );
    check_whole(
        "[project]\nname = \"x\"\nsystems = [\"sparc\"]\nsource = \"apt\"\n",
        expect![[r#"
        3:13-3:18 `sparc`: `sparc` is no system that igloo knows (x86_64-linux or amd64, aarch64-linux or arm64)
          | unknown system
        4:11-4:14 `apt`: `apt` is no value of `source`
          | unknown value
          = one of `debian`, `nixpkgs`
    "#]],
    );
}

#[test]
fn bad_names_and_packages() {
    check(
        "[services.\"Web App\"]\nrun = [\"x\"]\n",
        expect![[r#"
        5:11-5:20 `"Web App"`: `Web App` cannot be the name of a service
          = a letter or digit first, then letters a to z, digits, `-` and `_`, 64 at most
    "#]],
    );
    check(
        "[shells.default]\npackages = [\"libc6:arm64\", \"@base \", \"@devtools\", \"pypi:flask\", \"git\", \"git\"]\n",
        expect![[r#"
        6:14-6:25 `libc6:arm64`: `libc6:arm64` names an architecture
          = write `libc6`; its architecture follows from `systems`
        6:29-6:35 `@base `: a package name with blanks around it
        6:39-6:48 `@devtools`: there is no set `@devtools`
          | not a set
          = did you mean `@devTools`?
        6:52-6:62 `pypi:flask`: `pypi` in `pypi:flask` is no source
          = sources are `debian:` and `nixpkgs:`; an output of a flake is `flake:REF#NAME`
        6:73-6:76 `git`: `git` is listed twice
          | the second time
          = remove one
    "#]],
    );
    check(
        "[shells.default]\npackages = [\"nixpkgs:jq\", \"flake:.#x\", \"git/sid\", \"jq\", \"!jq\"]\n",
        expect![[r#"
        6:14-6:24 `nixpkgs:jq`: `nixpkgs` is not among the sources
          | not declared
          = declare it: `[sources.nixpkgs]`
        6:28-6:37 `flake:.#x`: `flake:.#x` needs the source nixpkgs
          | not declared
          = declare `[sources.nixpkgs]` with the `flake` of nixpkgs
        6:41-6:48 `git/sid`: the suite `sid` is not read
          = in `[sources.debian]`: `suites = ["bookworm", "bookworm-updates", "bookworm-security", "sid"]`
        6:58-6:61 `!jq`: `jq` is asked for and left out in the same list
          | left out here
          = remove one of the two
    "#]],
    );
    check_whole(
        "[project]\nname = \"x\"\n[shells.default]\npackages = [\"git\"]\n",
        expect![[r#"
        4:14-4:17 `git`: no source is declared to take packages from
          | from where?
          = add `[sources.debian]` with `suite = "bookworm"`
    "#]],
    );
}

#[test]
fn ports_and_volumes() {
    let body = "[services.a]\nrun = [\"a\"]\nports = [\"80:99999\", \"8080:80\", 0]\nvolumes = [\"data\", \"x:/a\", \"y:/a\"]\n\
                [services.b]\nrun = [\"b\"]\nports = [\"0.0.0.0:8080:80\", \"8080:80/udp\"]\n";
    check(
        body,
        expect![[r#"
            7:11-7:19 `80:99999`: `99999` in `80:99999` is no port from 1 to 65535
              = `5432`, `8080:5000`, `127.0.0.1:8080:5000`, `53:53/udp`; `auto:5000` takes a free port
            7:33-7:34 `0`: `0` is no port from 1 to 65535
              = `5432`, `8080:5000`, `127.0.0.1:8080:5000`, `53:53/udp`; `auto:5000` takes a free port
            8:13-8:17 `data`: `data` does not say where to mount it
              = `name:/target`, `./path:/target:ro` or `tmpfs:/target:size=64M`
            8:29-8:33 `y:/a`: two volumes are mounted at `/a`
              | the second one
            11:11-11:26 `0.0.0.0:8080:80`: port 8080 is published by `a` and by `b`
              | already taken
              = take another port, or a free one: `auto:80`
        "#]],
    );
}

#[test]
fn needs() {
    let service = |name: &str, needs: &str| format!("[services.{name}]\nrun = [\"x\"]\nneeds = [{needs}]\n");
    let web = [service("db", ""), service("web", "\"dbb\", \"web\"")].concat();
    check(
        &web,
        expect![[r#"
            10:11-10:14 `dbb`: there is no service `dbb`
              | not a service
              = did you mean `db`?
            10:18-10:21 `web`: `web` needs itself
              | the service itself
              = remove it
        "#]],
    );
    let circle = [service("a", "\"b\""), service("b", "\"c\""), service("c", "\"a\"")].concat();
    check(
        &circle,
        expect![[r#"
        13:11-13:12 `a`: services need each other: a -> b -> c -> a
          | closes the circle
          = a service starts once all that it needs are ready, so none of these ever would
    "#]],
    );
}

#[test]
fn sets_in_circles() {
    check(
        "[sets]\na = [\"@b\"]\nb = [\"@a\", \"@nothing\"]\nc = [\"@c\"]\n",
        expect![[r#"
        7:7-7:9 `@a`: sets contain each other: @a -> @b -> @a
          | closes the circle
        7:13-7:21 `@nothing`: there is no set `@nothing`
          | not a set
          = there are `@a`, `@b`, `@c`, `@base`, `@vscodeCompat`, `@devTools`, `@nixTools`, `@bash`, `@bashDev`, `@python`, `@pythonDev`, `@node`, `@nodeDev`, `@go`, `@goDev`, `@rust`, `@rustDev`
        8:7-8:9 `@c`: sets contain each other: @c -> @c
          | closes the circle
    "#]],
    );
    good(&format!("{HEAD}[sets]\nbase = [\"@base\", \"less\"]\n"));
}

#[test]
fn readiness() {
    let ready = |ready: &str| format!("[services.db]\nrun = [\"x\"]\nready = {ready}\n");
    check(
        &ready("{ tcp = \"x\", timeout = \"30\" }"),
        expect![[r#"
        7:18-7:19 `x`: `x` is no port
          = `5432` or `host:5432`
        7:33-7:35 `30`: the duration `30` has no unit
          = write `30s` or `30ms`
    "#]],
    );
    check(
        &ready("{}"),
        expect![[r#"
        7:1-7:6 `ready`: `ready` does not say what to try
          | no probe
          = exactly one of `exec`, `tcp`, `http`, `notify` and `log`
    "#]],
    );
    check(
        &ready("{ tcp = 1, http = \"http://x\" }"),
        expect![[r#"
        7:1-7:6 `ready`: `ready` has 2 probes
          | more than one probe
          = exactly one of `exec`, `tcp`, `http`, `notify` and `log`
    "#]],
    );
    check(
        &ready("{ http = \"/healthz\" }"),
        expect![[r#"
        7:19-7:27 `/healthz`: `/healthz` needs a port, and the service has no `ports`
          = write the whole address: `http://localhost:PORT/healthz`
    "#]],
    );
    check(
        &ready("{ http = \"https://localhost/\" }"),
        expect![[r#"
        7:19-7:37 `https://localhost/`: `https://localhost/` is no address to ask
          = readiness is asked from inside the service, without TLS: `http://localhost:PORT/`, or use `tcp`
    "#]],
    );
    check(
        &ready("{ log = \"a(b\" }"),
        expect![[r#"
        7:18-7:21 `a(b`: `log` is no regular expression: unclosed group
    "#]],
    );
}

#[test]
fn images_and_copies() {
    check(
        "[services.web]\nrun = [\"x\"]\n[images.a]\nof = \"services.wbe\"\n[images.b]\nof = \"services.web\"\npackages = [\"git\"]\n\
         [images.c]\n[images.d]\npackages = [\"git\"]\nname = \"Acme/x:1\"\n",
        expect![[r#"
            8:7-8:19 `services.wbe`: there is no `services.wbe` to make an image of
              | not in this file
              = did you mean `services.web`?
            12:9-12:10 `c`: image `c` has nothing in it
              = say `of = "services.NAME"`, or list `packages`
            15:9-15:17 `Acme/x:1`: `Acme/x:1` is no name of an image
              = without a tag, which is given when the image is pushed
        "#]],
    );
    check(
        "[shells.default]\nworkdir = \"srv\"\nuser = \"a b\"\ncopy = [{ from = \"../x\", to = \"srv\", mode = \"rwx\" }]\n\
         [services.x]\nrun = [\"x\"]\nvolumes = [\"~/x:/y\"]\nstop-signal = \"SIGTREM\"\nlimits = { memory = \"512m\", cpus = 0 }\n",
        expect![[r#"
            6:12-6:15 `srv`: `srv` is not an absolute path
              = write `/srv`
            7:9-7:12 `a b`: `a b` is no user
              = `name`, `name:group`, `uid` or `uid:gid`
            8:19-8:23 `../x`: `../x` is outside of the project
              = only the project's own files can be part of it; mount others with `volumes`
            8:32-8:35 `srv`: `srv` is not an absolute path
              = write `/srv`
            8:46-8:49 `rwx`: `rwx` is no file mode
              = three octal digits: `0755`
            11:13-11:19 `~/x:/y`: `~` and `$` are not expanded in `~/x`
              = write a path relative to this file, or an absolute one
            12:16-12:23 `SIGTREM`: `SIGTREM` is no signal to stop with
              = one of SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH, SIGPWR
            13:22-13:26 `512m`: `512m` is no size
              = units are capitals: `512M`
            13:36-13:37 `0`: `cpus` must be from 0.01 to 4096
        "#]],
    );
}

#[test]
fn builders() {
    check(
        "[images.a]\nkind = \"builder\"\nuser = \"root\"\n[images.b]\nkind = \"builder\"\npackages = [\"jq\"]\n",
        expect![[r#"
            5:9-5:10 `a`: image `a` is a builder, which has its own command and user
              = leave out `of`, `run`, `entrypoint` and `user`
        "#]],
    );
    check_whole(
        "[project]\nname = \"x\"\n[sources.nixpkgs]\nflake = \"nixpkgs\"\n[images.a]\nkind = \"builder\"\n",
        expect![[r#"
            5:9-5:10 `a`: image `a` is a builder, whose Nix and ssh are Debian's
              = declare `[sources.debian]` with a `suite`
        "#]],
    );
}

#[test]
fn suites() {
    check_whole(
        "[project]\nname = \"x\"\n[sources.debian]\nsuite = \"bookworm\"\nsuites = [\"bookworm-backports\"]\nurl = \"deb.example.org\"\nsnapshot = \"yesterday\"\n",
        expect![[r#"
        5:10-5:32 `["bookworm-backports"]`: `suites` does not have `bookworm`
          = the list is complete, nothing is added to it: `suites = ["bookworm", "bookworm-updates", "bookworm-security", "bookworm-backports"]`
        6:8-6:23 `deb.example.org`: `deb.example.org` is no address of an archive
          = it begins with `http://`, `https://` or `file://`
        7:13-7:22 `yesterday`: `yesterday` is no moment
          = write `20250520T000000Z` or `2025-05-20`
    "#]],
    );
}

#[test]
fn the_error_in_one_line() {
    let error = read(&format!("{HEAD}[shells.default]\npackges = []\nisolaton = \"pure\"\n")).unwrap_err();
    assert_eq!(error.to_string(), "igloo.toml:6:1: a shell has no key `packges` (and one more error)");
}

#[test]
fn columns_count_characters() {
    let error = read(&format!("{HEAD}[shells.default]\nenv = {{ A = \"é\", B = 1 }}\n")).unwrap_err();
    assert_eq!(error.position(&error.diagnostics[0]), Position { line: 6, column: 22 });
}

#[test]
fn the_guestbook_means_what_it_says() {
    let manifest = good(GUESTBOOK);
    assert_eq!(manifest.default_source(), Some("debian"));
    let db = &manifest.services["db"];
    assert_eq!(db.run, ["postgres", "-D", "/var/lib/postgresql/data"]);
    assert_eq!(db.restart, Restart::OnFailure);
    assert_eq!((db.limits.memory, db.limits.cpus, db.limits.pids), (Some(512 << 20), Some(1.5), Some(256)));
    assert_eq!((db.stop_signal, db.stop_grace), (15, Duration::from_secs(10)));
    assert_eq!(db.isolation, Isolation::Container);
    let ready = db.ready.as_ref().unwrap();
    assert_eq!(ready.probe, Probe::Exec(vec!["pg_isready".into()]));
    assert_eq!((ready.timeout, ready.interval), (Duration::from_secs(60), Duration::from_millis(200)));
    assert_eq!(db.ports[0].host, Some(5432));
    assert!(db.ports[0].address.is_loopback());
    assert_eq!(
        manifest.services["web"].needs,
        [igloo_manifest::Need { service: "db".into(), condition: igloo_manifest::Condition::Ready }]
    );
    assert_eq!(manifest.image_environment("web").as_deref(), Some("services.web"));

    let keys: Vec<String> = manifest.environments().into_iter().map(|e| format!("{} {}", e.key, e.source)).collect();
    assert_eq!(keys, ["shells.default debian", "services.db debian", "services.web debian"]);
    let web = &manifest.environments()[2];
    assert_eq!(web.base, Base::Minimal);
    let names: Vec<&str> = web.roots.iter().map(|r| r.name.as_str()).collect();
    let base = ["bash", "ca-certificates", "coreutils", "findutils", "grep"];
    assert_eq!(names[..5], base);
    assert_eq!(names[5..], ["python3", "python3-flask", "sed", "tzdata"]);
    // A package of a set points at where the service asks for the set.
    assert!(web.roots.iter().all(|r| &GUESTBOOK[r.span.clone()] == "@web"));

    let missing: Vec<String> = manifest.missing_tools().into_iter().map(|m| format!("@{} {}", m.set, m.tool)).collect();
    assert_eq!(missing, ["@pythonDev pyright", "@pythonDev ruff", "@pythonDev uv"]);
}

#[test]
fn the_examples_of_the_repository_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for example in std::fs::read_dir(examples).unwrap() {
        let path = example.unwrap().path().join("igloo.toml");
        if path.exists() {
            good(&std::fs::read_to_string(path).unwrap());
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn two_sources_are_two_requests() {
    let manifest = good(EVERYTHING);
    let requests = manifest.environments();
    let of_a: Vec<String> = requests
        .iter()
        .filter(|e| e.key == "shells.a")
        .map(|e| {
            format!("{} {:?}: {:?}", e.source, e.base, e.roots.iter().map(|r| r.name.as_str()).collect::<Vec<_>>())
        })
        .collect();
    expect![[r#"
        debian None: ["bash", "ca-certificates", "coreutils", "findutils", "git", "grep", "jq", "less", "sed", "tzdata"]
        flake None: [".#app"]
        nixpkgs None: ["fd"]"#]]
    .assert_eq(&of_a.join("\n"));
    let service = requests.iter().find(|e| e.key == "services.a").unwrap();
    assert_eq!(service.excludes, ["tzdata"]);
    assert!(service.roots.iter().all(|r| r.name != "tzdata"));
    assert!(service.roots.iter().any(|r| r.name == "less"), "the user's own @base");
    let image = requests.iter().find(|e| e.key == "images.a").unwrap();
    assert!(image.roots.iter().any(|r| r.name == "sudo"), "what every devcontainer has");
    assert!(image.roots.iter().any(|r| r.name == "less"), "what the service has that it is of");
    assert!(requests.iter().any(|e| e.key == "images.b"));
}

#[test]
fn suites_come_with_updates_and_security() {
    let suites = |suite: &str| {
        let manifest = good(&format!("[project]\nname = \"x\"\n[sources.debian]\nsuite = {suite:?}\n"));
        match &manifest.sources["debian"] {
            igloo_manifest::Source::Debian(debian) => debian.suites.join(" "),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(suites("trixie"), "trixie trixie-updates trixie-security");
    assert_eq!(suites("sid"), "sid");
}

#[test]
fn the_request_digest_covers_what_resolution_depends_on() {
    let body =
        "[shells.default]\npackages = [\"git\", \"@python\"]\n[services.db]\npackages = [\"jq\"]\nrun = [\"x\"]\n";
    let digest = |text: &str| request_digest(&good(text));
    let text = format!("{HEAD}{body}");
    let first = digest(&text);
    for (from, to) in [
        ("run = [\"x\"]", "run = [\"y\"]\nports = [5000]\nenv = { A = \"1\" }\nvolumes = [\"a:/a\"]"),
        ("[\"git\", \"@python\"]", "[\"@python\", \"python3\", \"git\"]"),
        ("name = \"x\"", "name = \"y\""),
        ("suite = \"bookworm\"", "suite = \"bookworm\"\nurl = \"http://mirror.example.org/debian\""),
    ] {
        assert!(text.contains(from));
        assert_eq!(digest(&text.replace(from, to)), first, "{to}");
    }
    for (from, to) in [
        ("\"git\"", "\"git=1:2.39.5-0+deb12u3\""),
        ("\"git\"", "\"git\", \"!perl\""),
        ("@python", "@node"),
        ("\"bookworm\"", "\"trixie\""),
        ("run = [\"x\"]", "run = [\"x\"]\nbase = \"none\""),
        ("run = [\"x\"]", "run = [\"x\"]\nrecommends = true"),
        ("services.db", "services.dc"),
        ("name = \"x\"", "name = \"x\"\nsystems = [\"x86_64-linux\", \"aarch64-linux\"]"),
        ("suite = \"bookworm\"", "suite = \"bookworm\"\ncomponents = [\"main\", \"contrib\"]"),
        ("suite = \"bookworm\"", "suite = \"bookworm\"\nsnapshot = \"2026-09-01\""),
        ("[shells", "[sets]\npython = [\"python3-minimal\"]\n[shells"),
    ] {
        assert!(text.contains(from));
        assert_ne!(digest(&text.replace(from, to)), first, "{to}");
    }
}

#[test]
fn every_set_is_there_for_every_source() {
    for name in sets::names() {
        assert!(sets::describe(name).is_some());
        for (kind, suite) in
            [(SourceKind::Debian, "bookworm"), (SourceKind::Debian, "trixie"), (SourceKind::Nixpkgs, "")]
        {
            assert!(!sets::get(name, kind, suite).unwrap().packages.is_empty(), "{name}");
        }
    }
    assert_eq!(sets::names().len(), 14);
}

/// A manifest with a part replaced by something that means something in TOML or here.
fn mangled() -> impl Strategy<Value = String> {
    let pieces = [
        "",
        "\"",
        "\n",
        "[",
        "]",
        "=",
        ",",
        "#",
        "{",
        "}",
        ".",
        "1",
        "true",
        "é",
        "@",
        ":",
        "/",
        "!",
        "[services.a]\n",
        "\u{0}",
        "1979-05-27",
    ];
    let piece = prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), ".{0,4}"];
    let start = prop::sample::select(vec![EVERYTHING, GUESTBOOK]);
    (start, any::<prop::sample::Index>(), 0usize..20, piece).prop_map(|(text, at, length, piece)| {
        let mut text = text.to_owned();
        let floor = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(&text, at.index(text.len()));
        let end = floor(&text, (start + length).min(text.len())).max(start);
        text.replace_range(start..end, &piece);
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_panics(text in prop_oneof![mangled(), any::<String>(), "[a-z\\[\\]=\"'#.,\\\\ \n0-9é{}@!:/]{0,100}"]) {
        match read(&text) {
            Ok(manifest) => {
                request_digest(&manifest);
                manifest.missing_tools();
            }
            Err(e) => {
                prop_assert!(!e.diagnostics.is_empty());
                // Every span is one that can be drawn.
                for d in &e.diagnostics {
                    prop_assert!(text.get(d.span.clone()).is_some(), "{:?}", d);
                }
                shown(&e);
            }
        }
        let _ = igloo_manifest::edit::add(&text, "shells.default", "git");
        let _ = igloo_manifest::edit::remove(&text, "shells.a", "git");
    }
}

#[test]
fn patterns_of_what_stays_out_are_checked() {
    let copy = |exclude: &str| {
        let text = format!(
            "[project]\nname = \"x\"\n[sources.debian]\nsuite = \"bookworm\"\n[shells.default]\ncopy = [{{ from = \"app\", to = \"/srv\", exclude = [{exclude}] }}]\n"
        );
        igloo_manifest::parse(&text, std::path::Path::new("igloo.toml"))
    };
    let good = copy(r#""*.pyc", "docs/build""#).expect("good");
    let globs: Vec<&str> = good.shells["default"].content.copy[0].exclude.iter().map(|g| g.as_str()).collect();
    assert_eq!(globs, ["*.pyc", "docs/build"]);
    let error = copy(r#""target/""#).expect_err("a slash");
    assert_eq!(error.diagnostics[0].message, "`target/` must not begin or end with a slash");
    assert_eq!(error.diagnostics[0].help.as_deref(), Some("write `target`"));
}

#[test]
fn lifecycles_are_read_and_their_faults_pointed_at() {
    let head = "[project]\nname = \"p\"\n[sources.debian]\nsuite = \"bookworm\"\n";
    let read = |text: &str| igloo_manifest::parse(&format!("{head}{text}"), "igloo.toml".as_ref());
    let manifest = read(
        "[services.web]\nrun = [\"a\"]\nenv = { A = \"1\", B = \"1\" }\nvolumes = [\"data:/data\"]\nrestart = \"on-failure:3\"\n\
         [tasks.job]\nof = \"web\"\nrun = [\"b\"]\nenv = { B = \"2\" }\nevery = \"5m\"\n",
    )
    .expect("parse");
    let job = &manifest.services["job"];
    assert_eq!(job.content.env.values().map(String::as_str).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(job.volumes.len(), 1);
    assert_eq!(manifest.environment_key("job"), "services.web");
    assert_eq!(manifest.services["web"].backoff.tries, Some(4));
    let messages = |text: &str| -> Vec<String> {
        read(text).expect_err("a fault").diagnostics.into_iter().map(|d| d.message).collect()
    };
    let service = |rest: &str| messages(&format!("[services.web]\nrun = [\"a\"]\n{rest}\n"));
    assert_eq!(service("health = { interval = \"1s\" }"), ["`health` does not say what to try"]);
    assert_eq!(service("health = { tcp = 1, status = 200 }"), ["`status` is for `http`"]);
    assert_eq!(service("health = { tcp = 1, interval = \"0s\" }"), ["`interval` cannot be zero"]);
    assert_eq!(service("ready = { http = \"http://x/\", status = 99 }"), ["that is no status of HTTP"]);
    assert_eq!(
        service("ready = { http = \"http://x/\", headers = { \"a b\" = \"\" } }"),
        ["`a b` can't be sent as a header"]
    );
    assert_eq!(service("restart = \"on-failure:x\""), ["`on-failure:x` does not say how often"]);
    assert_eq!(service("restart = \"sometimes\""), ["`sometimes` is no value of `restart`"]);
    assert_eq!(service("needs = [{ service = \"nobody\" }]"), ["there is no service `nobody`"]);
    assert_eq!(
        service("watch = [{ path = \"src\", action = \"sync\" }]"),
        ["that watch does not say what is copied where"]
    );
    assert_eq!(service("ports = [\"80:80\"]\nreplicas = 2"), ["replicas can't all have one port"]);
    assert_eq!(service("[tasks.web]\nrun = [\"b\"]"), ["there is a service `web`, too"]);
    assert_eq!(service("[tasks.job]\nof = \"wep\"\nrun = [\"b\"]"), ["there is no service `wep`"]);
    assert_eq!(service("[tasks.job]\nrun = [\"b\"]\nneeds = [\"job\"]"), ["`job` needs itself"]);
}
