//! `adduser` and its family.

use super::expand::Field;
use super::walk::{Status, Walker};
use crate::EnvError;
use crate::identity::{PrimaryGroup, UserRequest, good_name};

/// Options that take a value, of all these commands.
const WITH_VALUE: &[&str] = &[
    "--home",
    "--shell",
    "--gecos",
    "--comment",
    "--ingroup",
    "--gid",
    "--uid",
    "--conf",
    "--firstuid",
    "--lastuid",
    "--firstgid",
    "--lastgid",
    "--base-dir",
    "--home-dir",
    "--groups",
    "--expiredate",
    "--inactive",
    "--key",
    "--password",
    "--login",
    "--members",
    "--add",
    "--delete",
    "--root",
    "--prefix",
    "--system-uid",
];

impl Walker<'_, '_> {
    /// `None` if the command is none of these.
    pub(crate) fn users_command(&mut self, name: &str, args: &[Field]) -> Result<Option<Status>, EnvError> {
        let known: Option<Vec<String>> = args.iter().cloned().collect();
        let done = match (name, known) {
            ("adduser" | "useradd" | "addgroup" | "groupadd" | "usermod" | "gpasswd", None) => false,
            ("adduser", Some(args)) => self.adduser(&args)?,
            ("addgroup", Some(args)) if args.iter().all(|a| a.starts_with('-')) => false,
            ("addgroup", Some(args)) => self.addgroup(&args)?,
            ("groupadd", Some(args)) => self.addgroup(&args)?,
            ("useradd", Some(args)) => self.useradd(&args)?,
            ("usermod" | "gpasswd" | "groupmod", Some(args)) => self.usermod(&args),
            ("deluser" | "delgroup" | "userdel" | "groupdel" | "chage" | "passwd" | "chsh" | "chfn", _) => true,
            _ => return Ok(None),
        };
        if !done {
            let mut line = vec![Some(name.to_owned())];
            line.extend_from_slice(args);
            self.refuse(&line);
            return Ok(Some(Status::Maybe));
        }
        self.covers.insert("users");
        Ok(Some(Status::Yes))
    }

    fn adduser(&mut self, args: &[String]) -> Result<bool, EnvError> {
        let o = Options::read(args, &[]);
        match o.operands.as_slice() {
            [user, group] => {
                self.registry.add_member(user, group);
                Ok(true)
            }
            [group] if o.has("--group") && !o.has("--system") => self.group(group, o.number("--gid")),
            // adduser takes `--system --group name` as "with a group of its own".
            [user] if o.has("--system") => {
                let group = match (o.value("--ingroup"), o.value("--gid")) {
                    (Some(name), _) | (_, Some(name)) => PrimaryGroup::Named(name.to_owned()),
                    _ if o.has("--group") => PrimaryGroup::Own,
                    _ => PrimaryGroup::Id(65534),
                };
                let home = o.value("--home").unwrap_or("/nonexistent");
                self.user(user, &o, group, home, !o.has("--no-create-home"))
            }
            _ => Ok(false),
        }
    }

    fn addgroup(&mut self, args: &[String]) -> Result<bool, EnvError> {
        let o = Options::read(args, &[('g', "--gid"), ('K', "--key"), ('p', "--password")]);
        match o.operands.as_slice() {
            [group] => self.group(group, o.number("--gid")),
            _ => Ok(false),
        }
    }

    fn useradd(&mut self, args: &[String]) -> Result<bool, EnvError> {
        let short = [
            ('g', "--gid"),
            ('d', "--home-dir"),
            ('s', "--shell"),
            ('c', "--comment"),
            ('u', "--uid"),
            ('G', "--groups"),
            ('b', "--base-dir"),
            ('K', "--key"),
            ('p', "--password"),
            ('e', "--expiredate"),
            ('f', "--inactive"),
            ('R', "--root"),
        ];
        let o = Options::read(args, &short);
        let [user] = o.operands.as_slice() else { return Ok(false) };
        let group = match o.value("--gid") {
            Some(name) => PrimaryGroup::Named(name.to_owned()),
            None if o.has("--no-user-group") || o.short.contains('N') => PrimaryGroup::Named("users".to_owned()),
            None => PrimaryGroup::Own,
        };
        let home =
            o.value("--home-dir").or_else(|| o.value("--home")).map_or_else(|| format!("/home/{user}"), str::to_owned);
        let create = o.has("--create-home") || o.short.contains('m');
        let done = self.user(user, &o, group, &home, create)?;
        for group in o.value("--groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
            self.registry.add_member(user, group);
        }
        Ok(done)
    }

    fn usermod(&mut self, args: &[String]) -> bool {
        let short = [('G', "--groups"), ('a', "--add"), ('s', "--shell"), ('d', "--home"), ('c', "--comment")];
        // `usermod -a -G group user` takes no value for `-a`, `gpasswd -a user group` does.
        let gpasswd =
            args.iter().any(|a| a == "-a" || a == "--add") && !args.iter().any(|a| a.contains('G') || a == "--groups");
        let o = Options::read(args, if gpasswd { &short[1..2] } else { &short[..1] });
        match (gpasswd, o.operands.as_slice()) {
            (true, [group]) => {
                if let Some(user) = o.value("--add") {
                    self.registry.add_member(user, group);
                }
                true
            }
            (false, [user]) if o.value("--groups").is_some() => {
                for group in o.value("--groups").unwrap_or_default().split(',') {
                    self.registry.add_member(user, group);
                }
                true
            }
            // Other changes are for accounts of older versions.
            _ => args.iter().any(|a| {
                ["-L", "-U", "-d", "-s", "-c", "--home", "--shell", "--comment", "--lock", "--expiredate", "-e", "-p"]
                    .contains(&a.as_str())
            }),
        }
    }

    fn group(&mut self, name: &str, gid: Option<u32>) -> Result<bool, EnvError> {
        if !good_name(name) {
            return Ok(false);
        }
        let package = self.package.clone();
        self.registry.add_group(name, gid, &package)?;
        Ok(true)
    }

    fn user(
        &mut self,
        name: &str,
        o: &Options,
        group: PrimaryGroup,
        home: &str,
        create: bool,
    ) -> Result<bool, EnvError> {
        if !good_name(name) || matches!(&group, PrimaryGroup::Named(g) if !good_name(g)) {
            return Ok(false);
        }
        let request = UserRequest {
            name: name.to_owned(),
            uid: o.number("--uid"),
            group,
            home: home.to_owned(),
            shell: o.value("--shell").unwrap_or("/usr/sbin/nologin").to_owned(),
            gecos: o.value("--gecos").or_else(|| o.value("--comment")).unwrap_or_default().to_owned(),
        };
        let package = self.package.clone();
        let request = match &request.group {
            PrimaryGroup::Named(group) if *group == request.name => UserRequest { group: PrimaryGroup::Own, ..request },
            _ => request,
        };
        self.registry.add_user(&request, &package)?;
        if create
            && home.starts_with('/')
            && home != "/nonexistent"
            && home != "/"
            && let Some((uid, gid)) = self.registry.user(name)
        {
            self.layer.directory(home, 0o755, uid, gid, false);
            self.covers.insert("directories");
        }
        Ok(true)
    }
}

struct Options {
    values: Vec<(String, String)>,
    flags: Vec<String>,
    short: String,
    operands: Vec<String>,
}

impl Options {
    fn read(args: &[String], short: &[(char, &str)]) -> Self {
        let mut o = Self { values: Vec::new(), flags: Vec::new(), short: String::new(), operands: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if let Some((name, value)) = arg.split_once('=').filter(|_| arg.starts_with("--")) {
                o.values.push((name.to_owned(), value.to_owned()));
            } else if WITH_VALUE.contains(&arg.as_str()) && !(arg == "--add" && short.iter().all(|s| s.1 != "--add")) {
                o.values.push((arg.clone(), rest.next().cloned().unwrap_or_default()));
            } else if arg.starts_with("--") {
                o.flags.push(arg.clone());
            } else if let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) {
                let letters = letters.char_indices();
                for (at, letter) in letters {
                    match short.iter().find(|s| s.0 == letter) {
                        Some((_, long)) => {
                            let tail = &arg[1 + at + letter.len_utf8()..];
                            let value = if tail.is_empty() {
                                rest.next().cloned().unwrap_or_default()
                            } else {
                                tail.to_owned()
                            };
                            o.values.push(((*long).to_owned(), value));
                            break;
                        }
                        None => o.short.push(letter),
                    }
                }
            } else {
                o.operands.push(arg.clone());
            }
        }
        o
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.value(name).and_then(|v| v.parse().ok())
    }

    fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }
}
