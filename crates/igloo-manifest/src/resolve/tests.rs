use expect_test::{Expect, expect};
use igloo_base::System;
use igloo_formats::deb::{Index, Version, index};

use super::*;
use crate::manifest::Base;
use crate::request::Root;

mod random;

/// Suites with their indexes: a line `[suite]` or `[suite, not automatic]`, then a line for each package:
/// `name version; Field: value; Field: value`. An asterisk before the name: the lock has it.
struct World {
    suites: Vec<(String, bool, Index<Vec<u8>>)>,
    locked: Vec<(String, Version)>,
}

impl World {
    fn new(text: &str) -> Self {
        let mut suites: Vec<(String, bool, String)> = Vec::new();
        let mut locked = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(suite) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let name = suite.split(',').next().unwrap_or_default();
                suites.push((name.to_owned(), suite.contains("not automatic"), String::new()));
                continue;
            }
            if suites.is_empty() {
                suites.push(("stable".to_owned(), false, String::new()));
            }
            let mut parts = line.split(';').map(str::trim);
            let (name, version) = parts.next().and_then(|head| head.split_once(' ')).expect("name and version");
            let (name, is_locked) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
            if is_locked {
                locked.push((name.to_owned(), Version::parse(version).expect("version")));
            }
            let fields: String = parts.map(|field| format!("{field}\n")).collect();
            let architecture = if fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
            suites.last_mut().expect("suite").2.push_str(&format!(
                "Package: {name}\nVersion: {version}\n{architecture}{fields}Filename: pool/{name}_{version}.deb\n\
                 Size: 1\nSHA256: {}\n\n",
                igloo_base::Sha256::of(line.as_bytes())
            ));
        }
        let suites = suites.into_iter().map(|(name, not_automatic, list)| {
            let mut bytes = Vec::new();
            index::build(&mut list.as_bytes(), &mut bytes).expect("build");
            (name, not_automatic, Index::open(bytes).expect("open"))
        });
        Self { suites: suites.collect(), locked }
    }

    fn universe(&self) -> Indexes<'_, Vec<u8>> {
        let mut universe = Indexes::new();
        for (name, not_automatic, index) in &self.suites {
            universe.add(name, *not_automatic, index);
        }
        for (name, version) in &self.locked {
            let all = universe.candidates(name);
            let candidate = all.iter().find(|c| c.record.version == *version).expect("locked");
            universe.lock(Candidate::clone(candidate));
        }
        universe
    }
}

/// `a b=2 c/suite !d`, and `base=minimal`, `+recommends`.
fn request(text: &str) -> EnvironmentRequest {
    let mut request = EnvironmentRequest {
        key: "shells.default".to_owned(),
        source: "debian".to_owned(),
        roots: Vec::new(),
        excludes: Vec::new(),
        base: Base::None,
        recommends: false,
    };
    for word in text.split_whitespace() {
        match word {
            "base=minimal" => request.base = Base::Minimal,
            "base=essential" => request.base = Base::Essential,
            "+recommends" => request.recommends = true,
            _ => {
                if let Some(name) = word.strip_prefix('!') {
                    request.excludes.push(name.to_owned());
                    continue;
                }
                let (word, suite) = word.split_once('/').map_or((word, None), |(w, s)| (w, Some(s.to_owned())));
                let (name, version) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
                let version = version.map(|v| Version::parse(v).expect("version"));
                request.roots.push(Root { name: name.to_owned(), version, suite, span: 0..0 });
            }
        }
    }
    request
}

fn render(result: Result<Resolution, Box<Conflict>>) -> String {
    match result {
        Ok(resolution) => {
            let line = |c: &Arc<Candidate>| {
                format!("{} {} <- {}\n", c.record.name, c.record.version, resolution.why[&c.record.name])
            };
            resolution.packages.iter().map(line).collect()
        }
        Err(conflict) => {
            let help = conflict.help.as_ref().map_or_else(String::new, |help| format!("help: {help}\n"));
            format!("error: {conflict}\n{}{help}", conflict.details())
        }
    }
}

fn check(world: &str, asked: &str, expected: Expect) {
    let world = World::new(world);
    let universe = world.universe();
    expected.assert_eq(&render(resolve(&universe, &request(asked), System::X86_64Linux)));
}

#[test]
fn a_chain_and_a_cycle() {
    check(
        "a 1; Depends: b
         b 1; Pre-Depends: c (>= 2)
         c 2; Depends: b, d
         d 1",
        "a",
        expect![[r#"
            a 1 <- root
            b 1 <- a
            c 2 <- b
            d 1 <- c
        "#]],
    );
}

#[test]
fn the_first_alternative_that_can_be_had() {
    let world = "a 1; Depends: gone | old (>= 2) | b | c
         old 1
         b 1
         c 1
         needs-c 1; Depends: c
         picky 1; Depends: a, c";
    check(
        world,
        "a",
        expect![[r#"
        a 1 <- root
        b 1 <- a
    "#]],
    );
    // What is there already serves.
    check(
        world,
        "a c",
        expect![[r#"
        a 1 <- root
        c 1 <- root
    "#]],
    );
    // A clause is followed before the next one is looked at, as in apt.
    check(
        world,
        "picky",
        expect![[r#"
        a 1 <- picky
        b 1 <- a
        c 1 <- picky
        picky 1 <- root
    "#]],
    );
}

#[test]
fn providers_go_by_essential_then_priority_then_the_later_one() {
    let world = |extra: &str| {
        format!(
            "a 1; Depends: awk
             gawk 1; Provides: awk; Priority: optional
             mawk 1; Provides: awk; Priority: required
             {extra}"
        )
    };
    check(
        &world(""),
        "a",
        expect![[r#"
        a 1 <- root
        mawk 1 <- a
    "#]],
    );
    check(
        &world("goawk 1; Provides: awk; Priority: extra; Essential: yes"),
        "a",
        expect![[r#"
        a 1 <- root
        goawk 1 <- a
    "#]],
    );
    check(
        &world("zawk 1; Provides: awk; Priority: required"),
        "a",
        expect![[r#"
        a 1 <- root
        zawk 1 <- a
    "#]],
    );
    // A package of that name goes first.
    check(
        &world("awk 1; Priority: extra"),
        "a",
        expect![[r#"
        a 1 <- root
        awk 1 <- a
    "#]],
    );
}

#[test]
fn versioned_provides() {
    let world = "a 1; Depends: api (>= 2)
         none 1; Provides: api; Priority: required
         range 1; Provides: api (>= 3); Priority: required
         low 1; Provides: api (= 1); Priority: required
         good 1; Provides: api (= 2.1)";
    check(
        world,
        "a",
        expect![[r#"
        a 1 <- root
        good 1 <- a
    "#]],
    );
    check(
        world,
        "a !good",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `a 1` depends on `api (>= 2)`, which cannot be had
        a 1 depends on api (>= 2)
          good 1 (stable): excluded
          low 1 (stable): does not provide api (>= 2)
          none 1 (stable): does not provide api (>= 2)
          range 1 (stable): does not provide api (>= 2)
        help: remove `!good`, or what needs it
    "#]],
    );
}

#[test]
fn virtual_roots() {
    let world = "postfix 1; Provides: mta
         exim 1; Provides: mta, only-exim";
    check(
        world,
        "only-exim",
        expect![[r#"
        exim 1 <- root
    "#]],
    );
    check(
        world,
        "mta",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `mta` is not a package but a name that several packages provide
        help: ask for one of `exim` or `postfix`
    "#]],
    );
}

#[test]
fn a_conflict_is_avoided_by_another_alternative() {
    // The alternative itself conflicts with what is there.
    check(
        "a 1; Depends: b | c
         b 1; Conflicts: r
         c 1
         r 1",
        "r a",
        expect![[r#"
            a 1 <- root
            c 1 <- a
            r 1 <- root
        "#]],
    );
    // Something deep below it does; what was chosen on the way is taken back.
    check(
        "a 1; Depends: b | c
         b 1; Depends: b1, b2
         b1 1
         b2 1; Breaks: r (<< 2)
         c 1
         r 1",
        "a r",
        expect![[r#"
            a 1 <- root
            c 1 <- a
            r 1 <- root
        "#]],
    );
}

#[test]
fn an_earlier_choice_is_changed_for_a_later_conflict() {
    check(
        "a 1; Depends: b | c
         b 1; Depends: b1 | b2
         b1 1
         b2 1
         c 1
         z 1; Depends: y
         y 1; Conflicts: b1, b2",
        "a z",
        expect![[r#"
            a 1 <- root
            c 1 <- a
            y 1 <- z
            z 1 <- root
        "#]],
    );
    // An older version, when the newest does not go with what is asked for.
    check(
        "a 1; Depends: lib
         lib 2; Breaks: old
         lib 1
         z 1; Depends: old
         old 1",
        "a z",
        expect![[r#"
            a 1 <- root
            lib 1 <- a
            old 1 <- z
            z 1 <- root
        "#]],
    );
    // A version chosen without need, when a later clause needs another.
    check(
        "a 1; Depends: lib
         lib 2
         lib 1
         z 1; Depends: lib (= 1)",
        "a z",
        expect![[r#"
            a 1 <- root
            lib 1 <- a
            z 1 <- root
        "#]],
    );
}

#[test]
fn what_cannot_be_is_explained() {
    check(
        "web 1; Depends: server
         server 2; Depends: ssl (>= 3), log
         log 1
         ssl 1
         [stable-security]
         ssl 1.1",
        "web",
        expect![[r#"
            error: cannot choose the packages of `shells.default`: `server 2` depends on `ssl (>= 3)`, which cannot be had
            web 1 depends on server
              server 2 depends on ssl (>= 3)
                ssl 1.1 (stable-security): not ssl (>= 3)
                ssl 1 (stable): not ssl (>= 3)
        "#]],
    );
    check(
        "exim 1; Conflicts: mta; Provides: mta
         postfix 1; Conflicts: mta; Provides: mta
         mail 1; Depends: postfix",
        "exim mail",
        expect![[r#"
            error: cannot choose the packages of `shells.default`: `mail 1` depends on `postfix`, which cannot be had
            mail 1 depends on postfix
              postfix 1 (stable): postfix 1 cannot be together with mta, but exim 1 is already needed (asked for)
            help: do without postfix 1 or without exim 1: ask for another alternative, or exclude one with `!name`
        "#]],
    );
    check(
        "exim 1; Conflicts: mail\nmail 1",
        "exim mail",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `mail` cannot be had
        mail: exim 1, which is already needed (asked for), cannot be together with mail
        help: do without exim 1 or without mail 1: ask for another alternative, or exclude one with `!name`
    "#]],
    );
    check(
        "a 1; Depends: gone",
        "a",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `a 1` depends on `gone`, which cannot be had
        a 1 depends on gone
          gone: there is no such package
    "#]],
    );
}

#[test]
fn unknown_names_get_a_suggestion() {
    let world = "postgresql-15 1\npostgresql-common 1\npython3 1\nredis-server 1\nzsh 1\nbad 1; Depends: (";
    check(
        world,
        "pyhton3",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no package `pyhton3`
        help: did you mean `python3`?
    "#]],
    );
    check(
        world,
        "postgresql-16",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no package `postgresql-16`
        help: did you mean `postgresql-15`?
    "#]],
    );
    check(
        world,
        "postgresql",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no package `postgresql`
        help: did you mean `postgresql-15` or `postgresql-common`?
    "#]],
    );
    check(
        world,
        "quux",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no package `quux`
    "#]],
    );
    check(
        world,
        "bad",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: the package `bad` cannot be used: cannot use a package of the index: the package index has a bad `Depends` for `bad`: cannot read the relation `(`: the parenthesis is not closed
    "#]],
    );
}

#[test]
fn excludes() {
    let world = "a 1; Depends: b | c; Recommends: d
         b 1
         c 1
         d 1
         e 1; Depends: b";
    check(
        world,
        "a !b",
        expect![[r#"
        a 1 <- root
        c 1 <- a
    "#]],
    );
    check(
        world,
        "a +recommends !d",
        expect![[r#"
        a 1 <- root
        b 1 <- a
    "#]],
    );
    check(
        world,
        "e !b",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `e 1` depends on `b`, which cannot be had
        e 1 depends on b
          b 1 (stable): excluded
        help: remove `!b`, or what needs it
    "#]],
    );
    check(
        world,
        "a b !b",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `b` is asked for and excluded
        help: remove `b` or `!b`
    "#]],
    );
}

#[test]
fn recommends_are_wishes() {
    let world = "a 1; Depends: b; Recommends: gone, enemy, x | y
         b 1; Conflicts: enemy; Recommends: z
         enemy 1
         x 1; Depends: gone
         y 1
         z 1";
    check(
        world,
        "a",
        expect![[r#"
        a 1 <- root
        b 1 <- a
    "#]],
    );
    check(
        world,
        "a +recommends",
        expect![[r#"
        a 1 <- root
        b 1 <- a
        y 1 <- a
        z 1 <- b
    "#]],
    );
}

const SUITES: &str = "
    [bookworm]
    app 1; Depends: lib
    lib 1
    tool 1
    [bookworm-security]
    lib 1.1
    [bookworm-backports, not automatic]
    app 2; Depends: lib (>= 2), tool
    lib 2
    tool 2
    fresh 1";

#[test]
fn suites_by_version_and_backports_on_request() {
    check(
        SUITES,
        "app tool",
        expect![[r#"
        app 1 <- root
        lib 1.1 <- app
        tool 1 <- root
    "#]],
    );
    // Only what the package cannot do without comes from there, too.
    check(
        SUITES,
        "app/bookworm-backports",
        expect![[r#"
        app 2 <- root
        lib 2 <- app
        tool 1 <- app
    "#]],
    );
    check(
        SUITES,
        "fresh",
        expect![[r#"
        fresh 1 <- root
    "#]],
    );
    check(
        SUITES,
        "lib=1",
        expect![[r#"
        lib 1 <- root
    "#]],
    );
    check(
        SUITES,
        "lib lib=1 app",
        expect![[r#"
            app 1 <- root
            lib 1 <- root
        "#]],
    );
    check(
        SUITES,
        "lib=1 lib=2",
        expect![[r#"
            error: cannot choose the packages of `shells.default`: `lib` cannot be had
            lib: lib 1 is already needed (asked for)
            help: ask for another version than lib 1
        "#]],
    );
    check(
        SUITES,
        "tool/bookworm-security lib",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no `tool` from suite bookworm-security
        tool 1 (bookworm): not what was asked for
        tool 2 (bookworm-backports): not what was asked for
        help: ask for `tool`, or for one of the versions above
    "#]],
    );
    check(
        SUITES,
        "lib=3",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: there is no `lib` in version 3
        lib 1.1 (bookworm-security): not what was asked for
        lib 1 (bookworm): not what was asked for
        lib 2 (bookworm-backports): not what was asked for
        help: ask for `lib`, or for one of the versions above
    "#]],
    );
}

#[test]
fn what_is_locked_stays_unless_it_cannot() {
    let world = "a 1; Depends: lib, tool
         *lib 1
         lib 2
         tool 1
         *tool 2
         tool 3
         b 1; Depends: lib (>= 2)";
    check(
        world,
        "a",
        expect![[r#"
        a 1 <- root
        lib 1 <- a
        tool 2 <- a
    "#]],
    );
    check(
        world,
        "a b",
        expect![[r#"
        a 1 <- root
        b 1 <- root
        lib 2 <- a
        tool 2 <- a
    "#]],
    );
    check(
        world,
        "tool=3",
        expect![[r#"
        tool 3 <- root
    "#]],
    );
}

#[test]
fn qualifiers_and_architectures() {
    check(
        "a 1; Depends: perl:any, py:native, sh:amd64
         perl 1; Multi-Arch: allowed
         py 1
         sh 1; Architecture: all",
        "a",
        expect![[r#"
            a 1 <- root
            perl 1 <- a
            py 1 <- a
            sh 1 <- a
        "#]],
    );
    check(
        "a 1; Depends: perl:any\nperl 1",
        "a",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `a 1` depends on `perl:any`, which cannot be had
        a 1 depends on perl:any
          perl 1 (stable): not perl:any
    "#]],
    );
    check(
        "a 1; Depends: b:arm64 | c\nb 1\nc 1; Architecture: arm64",
        "a",
        expect![[r#"
        error: cannot choose the packages of `shells.default`: `a 1` depends on `b:arm64 | c`, which cannot be had
        a 1 depends on b:arm64 | c
          b 1 (stable): not b:arm64
          c 1 (stable): it is for arm64
    "#]],
    );
}

#[test]
fn bases() {
    let world = "bash 5; Essential: yes; Depends: libc6
         dash 1; Essential: yes
         login 1; Essential: yes
         libc6 2
         usrmerge 1; Depends: perl
         perl 1
         usr-is-merged 1
         init 1; Depends: usrmerge | usr-is-merged";
    check(
        world,
        "init",
        expect![[r#"
        init 1 <- root
        usr-is-merged 1 <- init
    "#]],
    );
    check(
        world,
        "init bash base=minimal !dash",
        expect![[r#"
        bash 5 <- root
        init 1 <- root
        libc6 2 <- bash
        usr-is-merged 1 <- base
    "#]],
    );
    check(
        world,
        "base=essential",
        expect![[r#"
        bash 5 <- base
        dash 1 <- base
        libc6 2 <- bash
        login 1 <- base
        usr-is-merged 1 <- base
    "#]],
    );
}

#[test]
fn a_package_may_conflict_with_what_it_provides() {
    check(
        "a 1; Provides: mta; Conflicts: mta; Depends: mta
         b 1; Replaces: a; Breaks: a (<< 1)",
        "a b",
        expect![[r#"
            a 1 <- root
            b 1 <- root
        "#]],
    );
}

#[test]
fn a_deep_chain_needs_no_deep_stack() {
    let deep = || {
        let text: String = (0..3_000).map(|i| format!("p{i} 1; Depends: p{}\n", i + 1)).collect();
        let world = World::new(&format!("{text}p3000 1"));
        let resolution = resolve(&world.universe(), &request("p0"), System::X86_64Linux).expect("resolve");
        assert_eq!(resolution.packages.len(), 3_001);
        let cut = World::new(&text);
        assert!(resolve(&cut.universe(), &request("p0"), System::X86_64Linux).is_err());
    };
    let thread = std::thread::Builder::new().stack_size(160 << 10).spawn(deep).expect("thread");
    thread.join().expect("no overflow");
}

#[test]
fn verify_finds_what_is_wrong() {
    let world = World::new(
        "a 1; Depends: b (>= 2), c | virtual
         b 1
         b 2
         c 1; Conflicts: d
         d 1
         e 1; Provides: virtual; Architecture: arm64",
    );
    let universe = world.universe();
    let all = |names: &[&str]| -> Vec<_> { names.iter().flat_map(|n| universe.candidates(n)).collect() };
    let violations = |candidates: &[Arc<Candidate>]| -> Vec<String> {
        let members: Vec<_> = candidates.iter().map(|c| Member::from(&c.record)).collect();
        verify(&members, System::X86_64Linux).iter().map(ToString::to_string).collect()
    };
    let mut good = all(&["a", "b", "c"]);
    good.retain(|c| c.record.name != "b" || c.record.version.as_str() == "2");
    assert_eq!(violations(&good), Vec::<String>::new());
    assert_eq!(violations(&all(&["b"])), ["`b 1` is there in another version, too"]);
    assert_eq!(
        violations(&all(&["a", "d", "c"])),
        [
            "`a 1` depends on `b (>= 2)`, which no package satisfies",
            "`c 1` cannot be together with `d 1`: it conflicts with or breaks `d`"
        ]
    );
    assert_eq!(violations(&all(&["e"])), ["`e 1` is for arm64"]);
}
