//! The text of a lock: keys in a fixed order, lists sorted, what is usual left out.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use igloo_formats::deb::{MultiArch, Priority, Relations};

use super::{Lock, LockedEnvironment, LockedFlake, LockedOutput, LockedPackage, LockedPath, LockedSuite};

const HEAD: &str = "\
# Written by igloo; keep it under version control. To change it, edit igloo.toml and run `igloo lock`.
";

pub(super) fn render(lock: &Lock) -> String {
    let mut sorted;
    let lock = if lock.is_sorted() {
        lock
    } else {
        sorted = lock.clone();
        sorted.sort();
        &sorted
    };
    let mut out = Out(String::with_capacity(1024 + lock.packages.len() * 1024));
    out.0.push_str(HEAD);
    out.number("version", lock.version);
    out.text("request", lock.request);
    out.number("triggers", lock.triggers);
    out.number("unpack", lock.unpack);
    for (name, source) in &lock.sources {
        out.header(format_args!("[source.{name}]"));
        for suite in &source.suites {
            out.header(format_args!("[[source.{name}.suite]]"));
            self::suite(&mut out, suite);
        }
        for flake in &source.flakes {
            out.header(format_args!("[[source.{name}.flake]]"));
            self::flake(&mut out, flake);
        }
    }
    for environment in &lock.environments {
        out.header("[[environment]]");
        self::environment(&mut out, environment);
    }
    for package in &lock.packages {
        out.header("[[package]]");
        self::package(&mut out, package);
    }
    for output in &lock.outputs {
        out.header("[[output]]");
        self::output(&mut out, output);
    }
    for path in &lock.paths {
        out.header("[[path]]");
        self::path(&mut out, path);
    }
    out.map("[images]", &lock.images);
    for user in &lock.users {
        out.header("[[user]]");
        out.text("name", &user.name);
        out.number("uid", user.uid);
        out.number("gid", user.gid);
        out.text("home", &user.home);
        out.text("shell", &user.shell);
        out.text("gecos", &user.gecos);
        out.text("package", &user.package);
    }
    for group in &lock.groups {
        out.header("[[group]]");
        out.text("name", &group.name);
        out.number("gid", group.gid);
        out.text("package", &group.package);
        if !group.members.is_empty() {
            out.texts("members", &group.members);
        }
    }
    out.map("[scripts]", &lock.scripts);
    out.0
}

fn suite(out: &mut Out, suite: &LockedSuite) {
    out.text("name", &suite.name);
    out.text("codename", &suite.codename);
    out.text("date", &suite.date);
    out.text("release", suite.release);
    out.texts("signers", &suite.signers);
    out.texts("components", &suite.components);
}

fn flake(out: &mut Out, flake: &LockedFlake) {
    out.text("asked", &flake.asked);
    out.text("locked", &flake.locked);
    if !flake.revision.is_empty() {
        out.text("revision", &flake.revision);
    }
    if !flake.nar_hash.is_empty() {
        out.text("nar-hash", &flake.nar_hash);
    }
    if let Some(files) = flake.files {
        out.text("files", files);
    }
    out.texts("caches", &flake.caches);
    out.texts("keys", &flake.keys);
}

fn output(out: &mut Out, output: &LockedOutput) {
    out.text("name", &output.name);
    out.text("version", &output.version);
    out.text("source", &output.source);
    out.text("system", output.system);
    out.text("output", &output.output);
    out.number("priority", output.priority);
    out.text("path", &output.path);
    out.text("deriver", &output.deriver);
}

fn path(out: &mut Out, path: &LockedPath) {
    out.text("path", &path.path);
    out.text("nar-hash", path.nar_hash);
    out.number("nar-size", path.nar_size);
    out.texts("references", &path.references.iter().map(ToString::to_string).collect::<Vec<_>>());
    if let Some(content_address) = &path.content_address {
        out.text("content-address", content_address);
    }
    if !path.signatures.is_empty() {
        out.texts("signatures", &path.signatures);
    }
}

fn environment(out: &mut Out, environment: &LockedEnvironment) {
    out.text("key", &environment.key);
    out.text("system", environment.system);
    out.text("source", &environment.source);
    out.texts("roots", &environment.roots);
    out.0.push_str("packages = [\n");
    for (name, version) in &environment.packages {
        out.0.push_str("  \"");
        out.escaped(name);
        out.0.push(' ');
        out.escaped(version);
        if let Some(why) = environment.why.get(name) {
            out.0.push(' ');
            out.escaped(why);
        }
        out.0.push_str("\",\n");
    }
    out.0.push_str("]\n");
}

fn package(out: &mut Out, package: &LockedPackage) {
    out.text("name", &package.name);
    out.text("version", &package.version);
    out.text("source", &package.source);
    out.text("system", package.system);
    out.text("architecture", &package.architecture);
    out.text("suite", &package.suite);
    out.text("file", &package.file);
    out.number("size", package.size);
    out.text("sha256", package.sha256);
    out.number("installed-size", package.installed_size);
    if package.essential {
        out.0.push_str("essential = true\n");
    }
    match package.multi_arch {
        MultiArch::No => {}
        MultiArch::Same => out.text("multi-arch", "same"),
        MultiArch::Foreign => out.text("multi-arch", "foreign"),
        MultiArch::Allowed => out.text("multi-arch", "allowed"),
    }
    if package.priority != Priority::default() {
        out.text("priority", package.priority);
    }
    if !package.section.is_empty() {
        out.text("section", &package.section);
    }
    out.relations("depends", &package.depends);
    out.relations("recommends", &package.recommends);
    out.relations("conflicts", &package.conflicts);
    out.relations("replaces", &package.replaces);
    out.relations("provides", &package.provides);
    if let Some(store) = &package.store {
        out.text("store", store);
    }
}

/// The text so far. Writing to a string cannot fail, so the results of `write!` are dropped.
struct Out(String);

impl Out {
    /// A table of names and texts, if there is one.
    fn map(&mut self, header: &str, texts: &BTreeMap<String, String>) {
        if !texts.is_empty() {
            self.header(header);
        }
        for (name, text) in texts {
            self.quoted(name);
            self.0.push_str(" = ");
            self.quoted(text);
            self.0.push('\n');
        }
    }

    fn header(&mut self, header: impl Display) {
        let _ = writeln!(self.0, "\n{header}");
    }

    fn number(&mut self, key: &str, number: impl Display) {
        let _ = writeln!(self.0, "{key} = {number}");
    }

    fn text(&mut self, key: &str, text: impl Display) {
        self.0.push_str(key);
        self.0.push_str(" = ");
        self.quoted(text);
        self.0.push('\n');
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.0.push_str(key);
        self.0.push_str(" = [");
        for (i, text) in texts.iter().enumerate() {
            if i > 0 {
                self.0.push_str(", ");
            }
            self.quoted(text);
        }
        self.0.push_str("]\n");
    }

    fn relations(&mut self, key: &str, relations: &Relations) {
        if !relations.is_empty() {
            self.text(key, relations);
        }
    }

    fn quoted(&mut self, text: impl Display) {
        self.0.push('"');
        self.escaped(text);
        self.0.push('"');
    }

    fn escaped(&mut self, text: impl Display) {
        let start = self.0.len();
        let _ = write!(self.0, "{text}");
        let special = |c: char| matches!(c, '"' | '\\') || c.is_control();
        if !self.0[start..].contains(special) {
            return;
        }
        let text = self.0.split_off(start);
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                '\n' => self.0.push_str("\\n"),
                '\t' => self.0.push_str("\\t"),
                // All control characters are below U+00A0.
                c if c.is_control() => drop(write!(self.0, "\\u{:04x}", u32::from(c))),
                c => self.0.push(c),
            }
        }
    }
}
