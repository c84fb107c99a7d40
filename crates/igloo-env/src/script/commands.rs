//! Which command does what.

use igloo_formats::deb::Version;

use super::expand::Field;
use super::lists::{CACHES, FIRST_START, HARMLESS, TRIGGERS};
use super::walk::{Alternative, Flow, Status, Walker};
use crate::EnvError;

type Step = Result<(Status, Flow), EnvError>;

impl Walker<'_, '_> {
    /// A simple command, words expanded.
    pub(crate) fn command(&mut self, fields: &[Field]) -> Step {
        let Some(name) = fields[0].clone() else {
            self.refuse(fields);
            return go(Status::Maybe);
        };
        let args = &fields[1..];
        // Helpers of packages that are functions somewhere: what they are for is known better than how they do it.
        match name.as_str() {
            "php_invoke" => return self.php(&name, args, fields),
            "apache2_invoke" => return self.apache_invoke(args),
            _ => {}
        }
        if let Some(function) = self.functions.get(&name).cloned() {
            return self.call(function, args);
        }
        // A full path names the same program.
        let name = match name.rsplit_once('/') {
            Some((dir, base)) if ["/bin", "/sbin", "/usr/bin", "/usr/sbin"].contains(&dir) => base,
            _ => name.as_str(),
        };
        if let Some(step) = self.control(name, args)? {
            return Ok(step);
        }
        if let Some(status) = self.users_command(name, args)? {
            self.print(Some(String::new()));
            return go(status);
        }
        if let Some(status) = self.files_command(name, args)? {
            self.print(Some(String::new()));
            return go(status);
        }
        if let Some((_, trigger)) = TRIGGERS.iter().find(|t| t.0 == name) {
            self.covers.insert(trigger);
            return go(Status::Yes);
        }
        match name {
            "update-alternatives" => self.alternatives(args),
            "dpkg-divert" => self.divert(args),
            "dpkg" => self.dpkg(args),
            "dpkg-statoverride" => self.statoverride(args),
            "add-shell" => {
                self.findings.shells.extend(args.iter().flatten().cloned());
                self.covers.insert("shells");
                go(Status::Yes)
            }
            "remove-shell" => go(Status::Yes),
            "getent" => {
                let known = match (args.first(), args.get(1)) {
                    (Some(Some(db)), Some(Some(name))) if db == "passwd" => Status::of(self.registry.has_user(name)),
                    (Some(Some(db)), Some(Some(name))) if db == "group" => Status::of(self.registry.has_group(name)),
                    _ => Status::Maybe,
                };
                let entry = match (known, args.get(1)) {
                    (Status::Yes, Some(Some(name))) => {
                        self.registry.passwd(name).map(|fields| format!("{name}:x:{}\n", fields.join(":")))
                    }
                    (Status::No, _) => Some(String::new()),
                    _ => None,
                };
                self.print(entry);
                go(known)
            }
            "id" => {
                let who = args.iter().flatten().find(|a| !a.starts_with('-'));
                let known = who.map(|w| Status::of(self.registry.has_user(w))).unwrap_or(Status::Maybe);
                self.print(if known == Status::No { Some(String::new()) } else { None });
                go(known)
            }
            "sed" | "perl"
                if args.iter().flatten().any(|a| {
                    a.starts_with("-i") || a.starts_with("--in-place") || a == "-pi" || a.starts_with("-pi")
                }) =>
            {
                // Editing what is not there does nothing; anything else igloo cannot do.
                if !args.iter().flatten().any(|a| a.starts_with('/') && self.layer.exists(a)) && !args.contains(&None) {
                    return go(Status::Yes);
                }
                self.refuse(fields);
                go(Status::Maybe)
            }
            "sed" => {
                self.print(None);
                go(Status::Maybe)
            }
            "find"
                if args.iter().flatten().any(|a| a.starts_with("-exec") || a == "-delete" || a.starts_with("-ok")) =>
            {
                let empty = args.iter().flatten().any(|a| a == "-empty");
                let there = args.iter().flatten().take_while(|a| !a.starts_with('-')).any(|a| self.layer.exists(a));
                if !empty && (there || args.first().is_none_or(|a| a.is_none())) {
                    self.refuse(fields);
                }
                go(Status::Maybe)
            }
            "xargs"
                if !args
                    .iter()
                    .flatten()
                    .any(|a| ["echo", "grep", "ls", "cat", "rm", "kill", "dpkg"].contains(&a.as_str())) =>
            {
                self.refuse(fields);
                go(Status::Maybe)
            }
            "a2enmod" | "a2ensite" | "a2enconf" => self.apache_enable(&name[4..], args),
            "a2dismod" | "a2dissite" | "a2disconf" | "a2query" => go(Status::Maybe),
            "phpenmod" | "phpdismod" | "phpquery" => self.php(name, args, fields),
            "perl" if args == [Some("-e".into()), Some(String::new())] => {
                go(Status::of(self.find_program("perl").is_some()))
            }
            "cmp" => {
                let files: Vec<&String> = args.iter().flatten().filter(|a| !a.starts_with('-')).collect();
                go(match files.as_slice() {
                    [a, b] => match (self.layer.read(a)?, self.layer.read(b)?) {
                        (Some(a), Some(b)) => Status::of(a == b),
                        _ => Status::No,
                    },
                    _ => Status::Maybe,
                })
            }
            "seq" => {
                let numbers: Option<Vec<i64>> = args.iter().map(|a| a.as_deref()?.parse().ok()).collect();
                let text = match numbers.as_deref() {
                    Some([last]) => Some((1, 1, *last)),
                    Some([first, last]) => Some((*first, 1, *last)),
                    Some([first, step, last]) => Some((*first, *step, *last)),
                    _ => None,
                };
                let text = text.filter(|(_, step, _)| *step != 0).map(|(first, step, last)| {
                    let inside = |n: &i64| if step > 0 { *n <= last } else { *n >= last };
                    let numbers = std::iter::successors(Some(first), |n| n.checked_add(step)).take_while(inside);
                    numbers.take(1000).map(|n| format!("{n}\n")).collect::<String>()
                });
                self.print(text);
                go(Status::Yes)
            }
            // Runs what is in a directory: nothing, if that is empty.
            "run-parts" => {
                let dir = args.iter().rev().flatten().find(|a| a.starts_with('/')).cloned().unwrap_or_default();
                if !self.layer.list(&dir).is_empty() {
                    self.refuse(fields);
                }
                go(Status::Yes)
            }
            // Byte code, as with py3compile.
            _ if args.iter().flatten().any(|a| a.ends_with("/py_compile.py") || a.ends_with("/compileall.py")) => {
                go(Status::Maybe)
            }
            _ if name.starts_with("db_") || name.starts_with("dbc_") => self.debconf(name, args),
            _ if HARMLESS.contains(&base(name)) => {
                let name = base(name);
                let status = if [
                    "deb-systemd-helper",
                    "grep",
                    "egrep",
                    "fgrep",
                    "find",
                    "pidof",
                    "pgrep",
                    "cmp",
                    "diff",
                    "systemctl",
                    "expr",
                    "readlink",
                    "stat",
                    "ls",
                    "mountpoint",
                    "ischroot",
                    "dpkg-query",
                    "dpkg-vendor",
                    "selinuxenabled",
                    "xargs",
                    "kill",
                    "ucfq",
                    "getopts",
                    "tty",
                    "validlocale",
                ]
                .contains(&name)
                {
                    Status::Maybe
                } else {
                    Status::Yes
                };
                let printed = match name {
                    "mktemp" | "tempfile" => Some("/tmp/igloo-never-made\n".into()),
                    "readlink" | "realpath" => self.read_link(args),
                    "dpkg-architecture" => self.dpkg_architecture(args),
                    "dpkg-vendor" => None,
                    "set" | "trap" | "cd" | "deb-systemd-helper" => Some(String::new()),
                    _ => None,
                };
                if name == "set" {
                    self.set(args);
                }
                if let ("deb-systemd-helper", [Some(verb), units @ ..]) = (name, args)
                    && verb == "enable"
                {
                    self.findings.units.extend(units.iter().flatten().cloned());
                }
                if name == "getopts" {
                    self.vars.extend(args.get(1).cloned().flatten().map(|v| (v, None)));
                    self.vars.insert("OPTARG".into(), None);
                }
                self.print(printed);
                go(status)
            }
            _ if CACHES.contains(&base(name)) => {
                self.covers.insert("caches are left out");
                self.print(None);
                go(Status::Yes)
            }
            _ if FIRST_START.contains(&base(name)) => {
                self.covers.insert("made at first start");
                self.print(None);
                go(Status::Maybe)
            }
            _ if name.starts_with('/') && self.shell_script(name)?.is_some() => {
                let text = self.shell_script(name)?.unwrap_or_default();
                self.program(name, &text, args)
            }
            // A program that is not in the environment fails, on a real machine as well.
            _ if self.find_program(&fields[0].clone().unwrap_or_default()).is_none()
                && self.maybe == 0
                && name.contains('/') =>
            {
                self.print(Some(String::new()));
                go(Status::No)
            }
            _ => {
                self.refuse(fields);
                self.print(None);
                go(Status::Maybe)
            }
        }
    }

    /// Builtins that steer the walk.
    fn control(&mut self, name: &str, args: &[Field]) -> Result<Option<(Status, Flow)>, EnvError> {
        let status = |this: &Self| match args.first() {
            None => Status::Yes,
            Some(code) => code.as_deref().map_or(Status::Maybe, |c| {
                let _ = this;
                Status::of(c == "0")
            }),
        };
        let step = match name {
            ":" | "true" => (Status::Yes, Flow::Go),
            "false" => (Status::No, Flow::Go),
            "exit" => (status(self), Flow::Exit),
            "return" => (status(self), Flow::Return),
            "break" => (Status::Yes, Flow::Break),
            "continue" => (Status::Yes, Flow::Continue),
            "[" | "[[" | "test" => {
                let words = match args.split_last() {
                    Some((Some(last), rest)) if name != "test" && (last == "]" || last == "]]") => rest,
                    _ => args,
                };
                (self.test(words), Flow::Go)
            }
            "echo" | "printf" => {
                let text = self.printed(name, args);
                self.print(text);
                (Status::Yes, Flow::Go)
            }
            "cat" => {
                let text = match args {
                    [] => self.input.clone(),
                    [Some(dash)] if dash == "-" => self.input.clone(),
                    [Some(path)] => self.layer.read_text(path)?,
                    _ => None,
                };
                let status = if text.is_some() { Status::Yes } else { Status::Maybe };
                self.print(text);
                (status, Flow::Go)
            }
            "basename" | "dirname" => {
                let text = match args {
                    [Some(path), rest @ ..] => {
                        let trimmed = path.trim_end_matches('/');
                        let (dir, base) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
                        let suffix = rest.first().cloned().flatten().unwrap_or_default();
                        Some(
                            if name == "dirname" { dir } else { base.strip_suffix(suffix.as_str()).unwrap_or(base) }
                                .to_owned()
                                + "\n",
                        )
                    }
                    _ => None,
                };
                self.print(text);
                (Status::Yes, Flow::Go)
            }
            "export" | "local" | "readonly" | "declare" | "typeset" => {
                for arg in args {
                    match arg.as_deref().map(|a| a.split_once('=')) {
                        Some(Some((name, value))) => {
                            self.vars.insert(name.to_owned(), Some(value.to_owned()));
                        }
                        Some(None) if name == "local" => {
                            let name = arg.clone().unwrap_or_default();
                            self.vars.entry(name).or_insert_with(|| Some(String::new()));
                        }
                        _ => {}
                    }
                }
                (Status::Yes, Flow::Go)
            }
            "unset" => {
                for name in args.iter().flatten() {
                    self.vars.remove(name);
                }
                (Status::Yes, Flow::Go)
            }
            "shift" => {
                let by = args.first().cloned().flatten().and_then(|n| n.parse().ok()).unwrap_or(1usize);
                self.params.drain(..by.min(self.params.len()));
                (Status::Yes, Flow::Go)
            }
            "read" => {
                let line = self.read_line();
                let names: Vec<&String> = args.iter().flatten().filter(|a| !a.starts_with('-')).collect();
                let mut rest = line.clone().unwrap_or(Some(String::new()));
                for (i, name) in names.iter().enumerate() {
                    let value = match (&rest, i + 1 == names.len()) {
                        (None, _) => None,
                        (Some(text), true) => Some(text.trim().to_owned()),
                        (Some(text), false) => {
                            let text = text.trim_start();
                            let (word, tail) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                            let (word, tail) = (word.to_owned(), tail.to_owned());
                            rest = Some(tail);
                            Some(word)
                        }
                    };
                    self.vars.insert((*name).clone(), value);
                }
                let status = match line {
                    None => Status::No,
                    Some(None) => Status::Maybe,
                    Some(Some(_)) => Status::Yes,
                };
                (status, Flow::Go)
            }
            "command" | "which" | "type" => {
                let mut rest = args;
                let mut asks = name != "command";
                while let Some(Some(option)) = rest.first().filter(|a| a.as_deref().is_some_and(|a| a.starts_with('-')))
                {
                    asks |= option.contains(['v', 'V']);
                    rest = &rest[1..];
                }
                if !asks {
                    return if rest.is_empty() {
                        Ok(Some((Status::Yes, Flow::Go)))
                    } else {
                        self.command(rest).map(Some)
                    };
                }
                match rest.first() {
                    Some(Some(program)) => {
                        let found = self.find_program(program);
                        let status = Status::of(found.is_some());
                        self.print(Some(found.map(|f| f + "\n").unwrap_or_default()));
                        (status, Flow::Go)
                    }
                    _ => {
                        self.print(None);
                        (Status::Maybe, Flow::Go)
                    }
                }
            }
            "exec" | "env" | "nice" | "ionice" | "setsid" | "timeout" if args.is_empty() => (Status::Yes, Flow::Go),
            "exec" => {
                let (status, _) = self.command(args)?;
                (status, Flow::Exit)
            }
            "env" | "nohup" => {
                let skip = args
                    .iter()
                    .take_while(|a| a.as_deref().is_some_and(|a| a.contains('=') || a.starts_with('-')))
                    .count();
                return if skip == args.len() {
                    Ok(Some((Status::Yes, Flow::Go)))
                } else {
                    self.command(&args[skip..]).map(Some)
                };
            }
            "eval" => match args.iter().cloned().collect::<Option<Vec<_>>>() {
                Some(words) => return self.source(&words.join(" ")).map(Some),
                None => {
                    self.refuse(&[&[Some("eval".into())], args].concat());
                    (Status::Maybe, Flow::Go)
                }
            },
            "." | "source" => return self.dot(args).map(Some),
            _ => return Ok(None),
        };
        Ok(Some(step))
    }

    /// `. file`: debconf's protocol is known, any other file is walked if it is there.
    fn dot(&mut self, args: &[Field]) -> Step {
        let Some(Some(path)) = args.first() else {
            self.refuse(&[&[Some(".".into())], args].concat());
            return go(Status::Maybe);
        };
        match path.as_str() {
            "/usr/share/debconf/confmodule"
            | "/usr/share/dbconfig-common/dpkg/postinst"
            | "/etc/os-release"
            | "/usr/lib/os-release" => return go(Status::Yes),
            _ => {}
        }
        match self.layer.read_text(path)? {
            Some(text) => {
                let (status, flow) = self.source(&text)?;
                Ok((status, if flow == Flow::Return { Flow::Go } else { flow }))
            }
            None if path.starts_with("/etc/") || path.starts_with("/run/") => go(Status::No),
            None => {
                self.refuse(&[&[Some(".".into())], args].concat());
                go(Status::Maybe)
            }
        }
    }

    /// Where a program is in the environment, or that the shell knows it.
    pub(crate) fn find_program(&self, name: &str) -> Option<String> {
        if name.contains('/') {
            return self.layer.executable(name).then(|| name.to_owned());
        }
        if self.functions.contains_key(name) || ["[", "test", "echo", "true", "cd", "command"].contains(&name) {
            return Some(name.to_owned());
        }
        ["usr/sbin", "usr/bin"]
            .into_iter()
            .map(|d| format!("{d}/{name}"))
            .find(|p| self.layer.executable(p))
            .map(|p| format!("/{p}"))
    }

    /// Text of a shell script of the environment.
    fn shell_script(&self, path: &str) -> Result<Option<String>, EnvError> {
        if !self.layer.executable(path) {
            return Ok(None);
        }
        let text = self.layer.read(path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.filter(|t| ["#!/bin/sh", "#! /bin/sh", "#!/bin/bash", "#!/bin/dash"].iter().any(|s| t.starts_with(s))))
    }

    fn printed(&self, name: &str, args: &[Field]) -> Field {
        let words = args.iter().cloned().collect::<Option<Vec<_>>>()?;
        if name == "printf" {
            let (format, rest) = words.split_first()?;
            let format = format.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
            if format.matches('%').count() == 0 {
                return Some(format);
            }
            let each = |arg: &str| format.replacen("%s", arg, 1);
            return (format.matches('%').count() == 1 && format.contains("%s"))
                .then(|| if rest.is_empty() { each("") } else { rest.iter().map(|a| each(a)).collect() });
        }
        let (newline, words) = match words.split_first() {
            Some((first, rest)) if first == "-n" => (false, rest),
            Some((first, rest)) if first == "-e" => (true, rest),
            _ => (true, words.as_slice()),
        };
        Some(words.join(" ") + if newline { "\n" } else { "" })
    }

    fn read_link(&self, args: &[Field]) -> Field {
        let follow = args.iter().flatten().any(|a| a.starts_with('-') && a.contains(['f', 'e', 'm']));
        let path = args.iter().flatten().find(|a| a.starts_with('/'))?;
        if !follow || args.contains(&None) {
            return None;
        }
        self.layer.resolve(path, true).map(|p| format!("/{p}\n"))
    }

    fn dpkg_architecture(&self, args: &[Field]) -> Field {
        let question = args.iter().flatten().find_map(|a| a.strip_prefix("-q"))?;
        let name = match question {
            "DEB_HOST_MULTIARCH" | "DEB_BUILD_MULTIARCH" | "DEB_TARGET_MULTIARCH" => "DEB_HOST_MULTIARCH",
            "DEB_HOST_ARCH" | "DEB_BUILD_ARCH" => "DPKG_MAINTSCRIPT_ARCH",
            _ => return None,
        };
        self.variable(name).map(|v| v + "\n")
    }

    fn set(&mut self, args: &[Field]) {
        let start = match args.iter().position(|a| a.as_deref() == Some("--")) {
            Some(at) => at + 1,
            None => match args.first() {
                Some(Some(first)) if first.starts_with(['-', '+']) => return,
                None => return,
                _ => 0,
            },
        };
        self.params = args[start..].to_vec();
    }

    fn alternatives(&mut self, args: &[Field]) -> Step {
        let at = |name: &str| args.iter().position(|a| a.as_deref() == Some(name));
        let word = |i: usize| args.get(i).cloned().flatten();
        if let Some(i) = at("--install") {
            let (Some(link), Some(name), Some(path), Some(priority)) =
                (word(i + 1), word(i + 2), word(i + 3), word(i + 4).and_then(|p| p.parse().ok()))
            else {
                self.refuse(&[&[Some("update-alternatives".into())], args].concat());
                return go(Status::Maybe);
            };
            let mut slaves = Vec::new();
            for (i, _) in args.iter().enumerate().filter(|(_, a)| a.as_deref() == Some("--slave")) {
                if let (Some(link), Some(name), Some(path)) = (word(i + 1), word(i + 2), word(i + 3)) {
                    slaves.push((link, name, path));
                } else {
                    self.refuse(&[&[Some("update-alternatives".into())], args].concat());
                }
            }
            self.covers.insert("alternatives");
            self.findings.alternatives.push(Alternative { name, link, path, priority, slaves });
        } else if let Some(i) = at("--set") {
            if let (Some(name), Some(path)) = (word(i + 1), word(i + 2)) {
                self.findings.chosen.insert(name, path);
            }
        } else if args
            .iter()
            .flatten()
            .any(|a| ["--list", "--query", "--display", "--get-selections"].contains(&a.as_str()))
        {
            self.print(Some(String::new()));
            return go(Status::No);
        }
        go(Status::Yes)
    }

    fn divert(&mut self, args: &[Field]) -> Step {
        if args.iter().flatten().any(|a| ["--list", "--listpackage", "--truename", "--remove"].contains(&a.as_str())) {
            let path = args.iter().flatten().find(|a| a.starts_with('/'));
            let truename = args.iter().flatten().any(|a| a == "--truename");
            self.print(if truename { path.map(|p| p.clone() + "\n") } else { Some(String::new()) });
            return go(Status::Yes);
        }
        let (mut to, mut package, mut path) = (None, Some(self.package.clone()), None);
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(arg) = arg.as_deref() else { continue };
            match arg {
                "--divert" => to = rest.next().cloned().flatten(),
                "--package" => package = rest.next().cloned().flatten(),
                "--local" => package = None,
                _ if arg.starts_with('/') => path = Some(arg.to_owned()),
                _ => {}
            }
        }
        match path {
            Some(path) if !args.contains(&None) => {
                let to = to.unwrap_or_else(|| format!("{path}.distrib"));
                self.covers.insert("diversions");
                self.findings.diversions.push((path, to, package));
                go(Status::Yes)
            }
            _ => {
                self.refuse(&[&[Some("dpkg-divert".into())], args].concat());
                go(Status::Maybe)
            }
        }
    }

    fn dpkg(&mut self, args: &[Field]) -> Step {
        let words: Vec<Option<&str>> = args.iter().map(|a| a.as_deref()).collect();
        match words.as_slice() {
            [Some("--compare-versions"), a, Some(op), b, ..] => {
                self.print(Some(String::new()));
                go(match (a, b) {
                    (Some(a), Some(b)) => compare_versions(a, op, b),
                    _ => Status::Maybe,
                })
            }
            [Some("--print-architecture"), ..] => {
                let text = self.variable("DPKG_MAINTSCRIPT_ARCH").map(|a| a + "\n");
                self.print(text);
                go(Status::Yes)
            }
            [Some("-s" | "--status" | "-l" | "--list"), Some(name), ..] => {
                let there = self.layer.union.members.iter().any(|m| m.name == *name);
                self.print(None);
                go(Status::of(there))
            }
            _ => {
                self.print(None);
                go(Status::Maybe)
            }
        }
    }

    fn debconf(&mut self, name: &str, args: &[Field]) -> Step {
        let question = args.first().cloned().flatten();
        let answer = match name {
            "db_get" => question.map(|q| self.questions.get(&q).cloned().unwrap_or_default()),
            "db_set" => {
                if let (Some(q), Some(Some(value))) = (question, args.get(1)) {
                    self.questions.insert(q, value.clone());
                }
                Some(String::new())
            }
            "db_fget" => Some("false".into()),
            _ => Some(String::new()),
        };
        self.vars.insert("RET".into(), answer);
        go(Status::Yes)
    }
}

/// The name of a program without its directory.
fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn go(status: Status) -> Step {
    Ok((status, Flow::Go))
}

/// dpkg's rules, with its two ways to see a missing version: before any other, or with `-nl` after.
fn compare_versions(a: &str, op: &str, b: &str) -> Status {
    use std::cmp::Ordering;
    let order = match (a.is_empty(), b.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if op.ends_with("-nl") {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, true) => {
            if op.ends_with("-nl") {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, false) => match (Version::parse(a), Version::parse(b)) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => return Status::Maybe,
        },
    };
    Status::of(match op.trim_end_matches("-nl") {
        "lt" | "<<" => order.is_lt(),
        "le" | "<=" | "<" => order.is_le(),
        "eq" | "=" => order.is_eq(),
        "ne" => order.is_ne(),
        "ge" | ">=" | ">" => order.is_ge(),
        "gt" | ">>" => order.is_gt(),
        _ => return Status::Maybe,
    })
}
