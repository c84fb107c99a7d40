//! Commands that make files, done in the generated layer.

use super::expand::Field;
use super::walk::{Flow, Status, Walker};
use crate::EnvError;
use crate::layer::{Owner, What, join};

/// Directories that are empty when a machine starts; what is done there is for a running one.
const PASSING: &[&str] = &["/tmp/", "/dev/", "/proc/", "/sys/"];

/// Options and operands of a command line.
struct Args {
    /// Letters of short options.
    flags: String,
    /// Options with a value: letter or long name, value.
    values: Vec<(String, Field)>,
    operands: Vec<Field>,
}

fn split(args: &[Field], with_value: &[&str]) -> Args {
    let mut out = Args { flags: String::new(), values: Vec::new(), operands: Vec::new() };
    let mut rest = args.iter();
    let mut only_operands = false;
    while let Some(arg) = rest.next() {
        match arg.as_deref() {
            Some("--") if !only_operands => only_operands = true,
            Some(text) if text.len() > 1 && text.starts_with('-') && !only_operands => {
                if let Some((name, value)) = text.strip_prefix("--").and_then(|t| t.split_once('=')) {
                    out.values.push((name.to_owned(), Some(value.to_owned())));
                } else if with_value.contains(&text.trim_start_matches('-')) {
                    out.values.push((text.trim_start_matches('-').to_owned(), rest.next().cloned().flatten()));
                } else if let Some(name) = text.strip_prefix("--") {
                    match name {
                        "purge" => out.flags.push('p'),
                        "recursive" | "archive" => out.flags.push('R'),
                        "parents" => out.flags.push('p'),
                        "directory" => out.flags.push('d'),
                        "symbolic" => out.flags.push('s'),
                        _ => {}
                    }
                } else if with_value.contains(&&text[1..2]) && text.is_ascii() {
                    out.values.push((text[1..2].to_owned(), Some(text[2..].to_owned())));
                } else if let Some(last) = text.chars().last().filter(|l| with_value.contains(&l.to_string().as_str()))
                {
                    out.flags.push_str(&text[1..text.len() - 1]);
                    out.values.push((last.to_string(), rest.next().cloned().flatten()));
                } else {
                    out.flags.push_str(&text[1..]);
                }
            }
            _ => out.operands.push(arg.clone()),
        }
    }
    out
}

impl Args {
    fn value(&self, names: &[&str]) -> Option<&Field> {
        self.values.iter().find(|(n, _)| names.contains(&n.as_str())).map(|(_, v)| v)
    }
}

impl Walker<'_, '_> {
    /// `None` if the command is none of these.
    pub(crate) fn files_command(&mut self, name: &str, args: &[Field]) -> Result<Option<Status>, EnvError> {
        let done = match name {
            "mkdir" => self.mkdir(args),
            "install" => self.install(args),
            "chown" | "chgrp" => self.chown(name, args),
            "chmod" => self.chmod(args),
            "ln" => self.ln(args),
            "cp" => self.cp(args),
            "mv" => self.mv(args),
            "rm" | "unlink" | "rmdir" => self.rm(name, args),
            "touch" => self.touch(args),
            "ucf" => self.ucf(args),
            "tee" => args.iter().flatten().all(|a| a.starts_with('-') || a == "/dev/null"),
            _ => return Ok(None),
        };
        if !done {
            let mut line = vec![Some(name.to_owned())];
            line.extend_from_slice(args);
            self.refuse(&line);
            return Ok(Some(Status::Maybe));
        }
        Ok(Some(Status::Yes))
    }

    fn passing(path: &str) -> bool {
        PASSING.iter().any(|p| path.starts_with(p))
    }

    /// Writes what a redirection says: a new file, or one that is generated anyway.
    pub(crate) fn write_file(&mut self, path: &str, text: &str, append: bool) {
        if Self::passing(path) {
            return;
        }
        let old = match self.layer.read(path) {
            Ok(old) => old,
            Err(_) => return self.refuse(&[Some(format!("… > {path}"))]),
        };
        let owned = self.layer.resolve(path, true).is_some_and(|p| self.layer.union.get(&p).is_some());
        if owned || (old.is_some() && !append && self.maybe > 0) {
            if old.as_deref() != Some(text.as_bytes()) {
                self.refuse(&[Some(format!("… > {path}"))]);
            }
            return;
        }
        let mut bytes = old.filter(|_| append).unwrap_or_default();
        bytes.extend_from_slice(text.as_bytes());
        self.layer.replace(path, bytes);
        self.covers.insert("files");
    }

    fn mkdir(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["m", "mode"]);
        let mode = match args.value(&["m", "mode"]) {
            None => 0o755,
            Some(Some(text)) => match change_mode(text, 0o755, true) {
                Some(mode) => mode,
                None => return false,
            },
            Some(None) => return false,
        };
        args.operands.iter().all(|path| self.make_dir(path, mode, 0, 0, false))
    }

    fn make_dir(&mut self, path: &Field, mode: u32, uid: u32, gid: u32, force: bool) -> bool {
        match path {
            Some(path) if Self::passing(path) => true,
            Some(path) if path.starts_with('/') => {
                self.layer.directory(path, mode, uid, gid, force);
                self.covers.insert("directories");
                true
            }
            _ => false,
        }
    }

    fn install(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["m", "mode", "o", "owner", "g", "group", "S", "suffix"]);
        let text = |names: &[&str]| args.value(names).cloned();
        let mode = match text(&["m", "mode"]) {
            None => 0o755,
            Some(mode) => match mode.and_then(|m| change_mode(&m, 0, false)) {
                Some(mode) => mode,
                None => return false,
            },
        };
        let uid = match text(&["o", "owner"]) {
            None => 0,
            Some(owner) => match owner.and_then(|o| self.registry.user(&o)) {
                Some((uid, _)) => uid,
                None => return false,
            },
        };
        let gid = match text(&["g", "group"]) {
            None => 0,
            Some(group) => match group.and_then(|g| self.registry.group(&g)) {
                Some(gid) => gid,
                None => return false,
            },
        };
        if args.flags.contains('d') {
            return args.operands.iter().all(|path| self.make_dir(path, mode, uid, gid, true));
        }
        let [Some(from), Some(to)] = args.operands.as_slice() else { return false };
        if Self::passing(to) || (Self::passing(from) && from != "/dev/null") {
            return Self::passing(to);
        }
        let to = self.target(from, to);
        if from == "/dev/null" {
            if self.layer.put(&to, "") {
                self.layer.set_owner(&to, Owner { mode: Some(mode), uid: Some(uid), gid: Some(gid) });
            }
            self.covers.insert("files");
            return true;
        }
        if !self.layer.copy(from, &to) {
            return self.layer.exists(&to);
        }
        self.layer.set_owner(&to, Owner { mode: Some(mode), uid: Some(uid), gid: Some(gid) });
        self.covers.insert("files");
        true
    }

    /// Where a copy of `from` lands if `to` may be a directory.
    fn target(&self, from: &str, to: &str) -> String {
        if self.layer.is_dir(to) { join(to, from.rsplit('/').next().unwrap_or_default()) } else { to.to_owned() }
    }

    /// `user`, `user:group`, `user.group`, `:group` to ids.
    fn owner(&self, text: &str, group_only: bool) -> Option<(Option<u32>, Option<u32>)> {
        if group_only {
            return Some((None, Some(self.registry.group(text)?)));
        }
        let (user, group) = match text
            .split_once(':')
            .or_else(|| text.split_once('.').filter(|_| self.registry.user(text).is_none()))
        {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let ids = if user.is_empty() { None } else { Some(self.registry.user(user)?) };
        let gid = match group {
            Some("") => ids.map(|i| i.1),
            Some(group) => Some(self.registry.group(group)?),
            None => None,
        };
        Some((ids.map(|i| i.0), gid))
    }

    fn chown(&mut self, name: &str, args: &[Field]) -> bool {
        let args = split(args, &["from", "reference"]);
        let Some((Some(owner), paths)) = args.operands.split_first() else { return false };
        let Some((uid, gid)) = self.owner(owner, name == "chgrp") else { return false };
        let recursive = args.flags.contains('R');
        self.each(paths, recursive, |this, path| {
            this.layer.set_owner(path, Owner { mode: None, uid, gid });
            true
        })
    }

    fn chmod(&mut self, args: &[Field]) -> bool {
        // `-x` and its like are modes here, not options.
        let options = args.iter().take_while(|a| {
            a.as_deref().is_some_and(|a| {
                a.starts_with("--") || (a.starts_with('-') && a[1..].chars().all(|c| "Rvcf".contains(c)))
            })
        });
        let options = options.count();
        let recursive = args[..options].iter().flatten().any(|a| a.contains('R') || a == "--recursive");
        let Some((Some(mode), paths)) = args[options..].split_first() else { return false };
        let mode = mode.clone();
        self.each(paths, recursive, |this, path| {
            let Some(at) = this.layer.resolve(path, true) else { return true };
            let dir = this.layer.is_dir(path);
            match change_mode(&mode, this.layer.attributes(&at).0, dir) {
                Some(mode) => {
                    this.layer.set_owner(path, Owner { mode: Some(mode), ..Owner::default() });
                    true
                }
                None => false,
            }
        })
    }

    fn each(&mut self, paths: &[Field], recursive: bool, act: impl Fn(&mut Self, &str) -> bool) -> bool {
        for path in paths {
            match path {
                Some(path) if Self::passing(path) => {}
                Some(path) if path.starts_with('/') => {
                    // What is not there is made at run time, if at all.
                    let all = if recursive { self.layer.tree(path) } else { vec![path.clone()] };
                    for path in all {
                        if self.layer.exists(&path) {
                            self.covers.insert("owners and modes");
                            if !act(self, &path) {
                                return false;
                            }
                        }
                    }
                }
                _ => return false,
            }
        }
        true
    }

    fn ln(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["t", "target-directory"]);
        let [Some(target), Some(path)] = args.operands.as_slice() else { return false };
        if Self::passing(path) {
            return true;
        }
        if !path.starts_with('/') {
            return false;
        }
        self.covers.insert("files");
        if !args.flags.contains('s') {
            return self.layer.exists(path) || self.layer.copy(target, path);
        }
        let path = if args.flags.contains(['n', 'T']) { path.clone() } else { self.target(target, path) };
        if args.flags.contains('f') && self.layer.lstat(&path) != Some(What::Dir) && self.maybe == 0 {
            return self.layer.relink(target, &path);
        }
        self.layer.link(target, &path) || self.layer.lstat(&path).is_some()
    }

    fn cp(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["S", "suffix"]);
        let Some((Some(to), from)) = args.operands.split_last() else { return false };
        from.iter().all(|from| match from {
            Some(_) if Self::passing(to) => true,
            Some(from) if !Self::passing(from) => {
                let to = self.target(from, to);
                match self.layer.stat(from) {
                    // Copying what is not there fails on a real machine as well.
                    None => true,
                    Some(_) if self.layer.exists(&to) => {
                        let same = matches!((self.layer.read(from), self.layer.read(&to)), (Ok(Some(a)), Ok(Some(b))) if a == b);
                        same || self.maybe > 0 || args.flags.contains(['n', 'u'])
                    }
                    Some(_) => {
                        self.covers.insert("files");
                        self.layer.copy(from, &to)
                    }
                }
            }
            _ => false,
        })
    }

    fn mv(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["S", "suffix"]);
        match args.operands.as_slice() {
            [Some(from), Some(to)] if Self::passing(from) => Self::passing(to),
            // Moving what only an older version left behind.
            [Some(from), Some(_)] if from.starts_with('/') && self.layer.lstat(from).is_none() => true,
            [Some(from), Some(to)] => {
                let to = self.target(from, to);
                self.layer.rename(from, &to)
            }
            _ => false,
        }
    }

    fn rm(&mut self, name: &str, args: &[Field]) -> bool {
        let args = split(args, &[]);
        args.operands.iter().all(|path| match path {
            Some(path) if Self::passing(path) => true,
            // Only empty directories, and only if they are: leaving them does no harm.
            _ if name == "rmdir" => true,
            Some(path) if path.starts_with('/') => {
                // On a way that may not be taken, what was made stays: one of the two outcomes.
                let owned = self.layer.resolve(path, false).is_some_and(|p| self.layer.union.get(&p).is_some());
                self.layer.lstat(path).is_none() || (!owned && (self.maybe > 0 || self.layer.remove(path)))
            }
            // Not known, and so no file that a package ships, which no script may remove: left by an older version.
            None => true,
            _ => false,
        })
    }

    fn touch(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["r", "reference", "d", "date", "t"]);
        args.operands.iter().all(|path| match path {
            Some(path) if Self::passing(path) => true,
            Some(path) if path.starts_with('/') => {
                self.covers.insert("files");
                self.layer.put(path, "") || self.layer.lstat(path).is_some()
            }
            _ => false,
        })
    }

    /// `ucf new target`: takes the new file where there is none.
    fn ucf(&mut self, args: &[Field]) -> bool {
        let args = split(args, &["src-dir", "state-dir", "debug", "sum-file"]);
        if args.flags.contains('p') {
            return true;
        }
        match args.operands.as_slice() {
            [Some(from), Some(to)] => {
                let to = self.target(from, to);
                let Some(from) = self.layer.resolve(from, true) else { return false };
                self.covers.insert("files");
                self.layer.lstat(&to).is_some() || self.layer.copy(&from, &to)
            }
            _ => false,
        }
    }

    pub(crate) fn statoverride(&mut self, args: &[Field]) -> Result<(Status, Flow), EnvError> {
        let words: Vec<&str> = args.iter().flatten().map(String::as_str).collect();
        if words.contains(&"--list") {
            self.print(Some(String::new()));
            return Ok((Status::No, Flow::Go));
        }
        if words.contains(&"--remove") {
            return Ok((Status::Yes, Flow::Go));
        }
        let operands: Vec<&str> = words.into_iter().filter(|w| !w.starts_with("--")).collect();
        if let ([user, group, mode, path], false) = (operands.as_slice(), args.contains(&None)) {
            let clean = |id: &str| id.trim_start_matches('#').to_owned();
            let ids = self.registry.user(&clean(user)).zip(self.registry.group(&clean(group)));
            if let (Some(((uid, _), gid)), Ok(mode)) = (ids, u32::from_str_radix(mode, 8)) {
                self.layer.set_owner(path, Owner { mode: Some(mode), uid: Some(uid), gid: Some(gid) });
                self.covers.insert("owners and modes");
                return Ok((Status::Yes, Flow::Go));
            }
        }
        self.refuse(&[&[Some("dpkg-statoverride".into())], args].concat());
        Ok((Status::Maybe, Flow::Go))
    }

    /// `apache2_invoke enmod x` of apache2's helper for packages.
    pub(crate) fn apache_invoke(&mut self, args: &[Field]) -> Result<(Status, Flow), EnvError> {
        match args {
            [Some(verb), rest @ ..] if verb.starts_with("en") => self.apache_enable(&verb[2..], rest),
            _ => Ok((Status::Yes, Flow::Go)),
        }
    }

    /// `a2enmod`, `a2ensite`, `a2enconf`: links from what is available to what is enabled.
    pub(crate) fn apache_enable(&mut self, kind: &str, args: &[Field]) -> Result<(Status, Flow), EnvError> {
        let (dir, suffixes): (_, &[&str]) = match kind {
            "mod" => ("mods", &[".load", ".conf"]),
            "site" => ("sites", &[".conf"]),
            _ => ("conf", &[".conf"]),
        };
        for name in args.iter().flatten().flat_map(|a| a.split_whitespace()).filter(|a| !a.starts_with('-')) {
            let mut found = false;
            for suffix in suffixes {
                let file = format!("{name}{suffix}");
                if self.layer.exists(&format!("etc/apache2/{dir}-available/{file}")) {
                    found = true;
                    self.layer
                        .link(&format!("../{dir}-available/{file}"), &format!("etc/apache2/{dir}-enabled/{file}"));
                    if *suffix == ".load" {
                        self.depends(&format!("etc/apache2/mods-available/{file}"))?;
                    }
                }
            }
            if found {
                self.covers.insert("files");
            }
        }
        Ok((Status::Yes, Flow::Go))
    }

    /// Modules that an apache module names in `# Depends:`.
    fn depends(&mut self, path: &str) -> Result<(), EnvError> {
        let text = self.layer.read_text(path)?.unwrap_or_default();
        for line in text.lines().filter_map(|l| l.strip_prefix("# Depends:")) {
            for name in line.split_whitespace() {
                if self.layer.lstat(&format!("etc/apache2/mods-enabled/{name}.load")).is_none() {
                    self.apache_enable("mod", &[Some(name.to_owned())])?;
                }
            }
        }
        Ok(())
    }

    /// `php_invoke enmod <version> <sapi> <module>` and `phpenmod`: a link in the `conf.d` of every interface.
    pub(crate) fn php(&mut self, name: &str, args: &[Field], line: &[Field]) -> Result<(Status, Flow), EnvError> {
        let words: Vec<&str> = args.iter().flatten().map(String::as_str).collect();
        let (version, module) = match (name, words.as_slice()) {
            ("php_invoke", ["enmod", version, _, module]) if !args.contains(&None) => (*version, *module),
            ("phpdismod" | "phpquery", _) | ("php_invoke", ["dismod" | "purge" | "query", ..]) => {
                return Ok((Status::Maybe, Flow::Go));
            }
            _ => {
                self.refuse(line);
                return Ok((Status::Maybe, Flow::Go));
            }
        };
        let ini = format!("etc/php/{version}/mods-available/{module}.ini");
        let Some(text) = self.layer.read_text(&ini)? else { return Ok((Status::No, Flow::Go)) };
        let priority = text.lines().find_map(|l| l.trim_start_matches(';').trim().strip_prefix("priority="));
        let priority: u32 = priority.and_then(|p| p.trim().parse().ok()).unwrap_or(20);
        let interfaces = self.layer.list(&format!("etc/php/{version}"));
        for interface in interfaces.iter().filter(|i| *i != "mods-available") {
            let link = format!("etc/php/{version}/{interface}/conf.d/{priority}-{module}.ini");
            self.layer.link(&format!("/{ini}"), &link);
        }
        self.covers.insert("files");
        Ok((Status::Yes, Flow::Go))
    }
}

/// Applies a mode, octal or symbolic, to an old one. `None` if it is not understood.
pub(crate) fn change_mode(text: &str, old: u32, dir: bool) -> Option<u32> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    }
    let mut mode = old;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let who = &clause[..at];
        let mut rest = &clause[at..];
        let (mut mask, all) = (0u32, who.is_empty() || who.contains('a'));
        for (letter, bits) in [('u', 0o4700), ('g', 0o2070), ('o', 0o1007)] {
            if all || who.contains(letter) {
                mask |= bits;
            }
        }
        if !who.chars().all(|c| "ugoa".contains(c)) {
            return None;
        }
        while let Some(op) = rest.chars().next() {
            let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |e| e + 1);
            let mut bits = 0;
            for letter in rest[1..end].chars() {
                bits |= match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if dir || mode & 0o111 != 0 => 0o111,
                    'X' => 0,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => return None,
                };
            }
            let sticky = bits & 0o1000;
            let bits = (bits & mask) | if all { sticky } else { 0 };
            mode = match op {
                '+' => mode | bits,
                '-' => mode & !bits,
                // On a directory `=` keeps setuid and setgid, as in coreutils.
                _ => (mode & !(mask & 0o777)) | bits,
            };
            rest = &rest[end..];
        }
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::change_mode;

    #[test]
    fn modes() {
        for (text, old, new) in [
            ("2775", 0o755, 0o2775),
            ("u=rwX,g=rX,o=", 0o644, 0o640),
            ("g+s", 0o755, 0o2755),
            ("o-rwx", 0o755, 0o750),
            ("a+x", 0o644, 0o755),
            ("+t", 0o777, 0o1777),
            ("go-w,u+s", 0o775, 0o4755),
        ] {
            assert_eq!(change_mode(text, old, false), Some(new), "{text}");
        }
        for text in ["", "x", "88", "u+q", "z+x", "77777"] {
            assert_eq!(change_mode(text, 0o644, false), None, "{text}");
        }
    }
}
