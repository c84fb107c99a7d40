//! `[ … ]`, `test` and `[[ … ]]`.

use super::expand::{Field, matches};
use super::walk::{Status, Walker};
use crate::layer::What;

impl Walker<'_, '_> {
    /// Evaluates the words between the brackets.
    pub(crate) fn test(&self, words: &[Field]) -> Status {
        let mut at = 0;
        let status = self.or(words, &mut at, 0);
        if at == words.len() { status } else { Status::Maybe }
    }

    fn or(&self, w: &[Field], at: &mut usize, depth: u32) -> Status {
        let mut status = self.and(w, at, depth);
        while matches!(w.get(*at), Some(Some(op)) if op == "-o" || op == "||") {
            *at += 1;
            status = match (status, self.and(w, at, depth)) {
                (Status::Yes, _) | (_, Status::Yes) => Status::Yes,
                (Status::No, Status::No) => Status::No,
                _ => Status::Maybe,
            };
        }
        status
    }

    fn and(&self, w: &[Field], at: &mut usize, depth: u32) -> Status {
        let mut status = self.primary(w, at, depth);
        while matches!(w.get(*at), Some(Some(op)) if op == "-a" || op == "&&") {
            *at += 1;
            status = match (status, self.primary(w, at, depth)) {
                (Status::No, _) | (_, Status::No) => Status::No,
                (Status::Yes, Status::Yes) => Status::Yes,
                _ => Status::Maybe,
            };
        }
        status
    }

    fn primary(&self, w: &[Field], at: &mut usize, depth: u32) -> Status {
        let rest = &w[(*at).min(w.len())..];
        if depth > 20 {
            *at = w.len();
            return Status::Maybe;
        }
        let word = |i: usize| rest.get(i).and_then(|f| f.as_deref());
        // A comparison comes first, since `[ "$1" = x ]` with `-f` in `$1` is one.
        if rest.len() >= 3
            && let Some(op) = word(1).filter(|op| BINARY.contains(op))
        {
            *at += 3;
            return compare(&rest[0], op, &rest[2]);
        }
        match word(0) {
            None if rest.is_empty() => Status::No,
            Some("!") => {
                *at += 1;
                self.primary(w, at, depth + 1).not()
            }
            Some("(") => {
                *at += 1;
                let status = self.or(w, at, depth + 1);
                *at += 1;
                status
            }
            Some(op) if op.len() == 2 && op.starts_with('-') && rest.len() >= 2 => {
                *at += 2;
                self.unary(op, &rest[1])
            }
            _ => {
                *at += 1;
                rest[0].as_ref().map_or(Status::Maybe, |text| Status::of(!text.is_empty()))
            }
        }
    }

    fn unary(&self, op: &str, arg: &Field) -> Status {
        let Some(arg) = arg.as_deref() else { return Status::Maybe };
        match op {
            "-n" => return Status::of(!arg.is_empty()),
            "-z" => return Status::of(arg.is_empty()),
            "-t" => return Status::No,
            _ => {}
        }
        // Units are enabled by igloo, with or without this program.
        if arg == "/usr/bin/deb-systemd-helper" && matches!(op, "-x" | "-e" | "-f") {
            return Status::Yes;
        }
        // What the machine provides is not in the environment.
        let outside = ["/proc", "/sys", "/dev"].iter().any(|d| arg == *d || arg.starts_with(&format!("{d}/")));
        if outside || !(arg.starts_with('/') || arg.is_empty()) {
            return Status::Maybe;
        }
        let what = if arg.is_empty() { None } else { self.layer.stat(arg) };
        match op {
            "-e" | "-r" | "-a" | "-w" => Status::of(what.is_some()),
            "-f" => Status::of(what == Some(What::File)),
            "-d" => Status::of(what == Some(What::Dir)),
            "-x" => Status::of(what.is_some() && self.layer.executable(arg)),
            "-L" | "-h" => Status::of(self.layer.lstat(arg) == Some(What::Link)),
            "-s" => match what {
                Some(What::File) => match self.layer.read(arg) {
                    Ok(Some(bytes)) => Status::of(!bytes.is_empty()),
                    _ => Status::Maybe,
                },
                Some(_) => Status::Yes,
                None => Status::No,
            },
            "-S" | "-p" | "-b" | "-c" => Status::No,
            _ if what.is_none() => Status::No,
            _ => Status::Maybe,
        }
    }
}

const BINARY: &[&str] =
    &["=", "==", "!=", "=~", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef", "<", ">"];

fn compare(a: &Field, op: &str, b: &Field) -> Status {
    let (Some(a), Some(b)) = (a, b) else { return Status::Maybe };
    let number = |text: &str| text.trim().parse::<i64>().ok();
    match (op, number(a), number(b)) {
        ("=", ..) => Status::of(a == b),
        // Only `[[` has `==`, where the right side is a pattern.
        ("==", ..) => Status::of(a == b || matches(b, a)),
        ("!=", ..) => Status::of(a != b && !(b.contains('*') && matches(b, a))),
        ("-eq", Some(a), Some(b)) => Status::of(a == b),
        ("-ne", Some(a), Some(b)) => Status::of(a != b),
        ("-lt", Some(a), Some(b)) => Status::of(a < b),
        ("-le", Some(a), Some(b)) => Status::of(a <= b),
        ("-gt", Some(a), Some(b)) => Status::of(a > b),
        ("-ge", Some(a), Some(b)) => Status::of(a >= b),
        _ => Status::Maybe,
    }
}
