//! Logins as curl and Nix keep them: `machine HOST login NAME password SECRET`, or `default` for all others.

/// The logins of a netrc file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Netrc {
    /// By host; `None` for those that are not named.
    entries: Vec<(Option<String>, String, String)>,
}

impl std::fmt::Debug for Netrc {
    /// Never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netrc({})", self.entries.len())
    }
}

/// Longest file whose entries are read: there are a few.
const MAX_LENGTH: usize = 1 << 20;

impl Netrc {
    /// Reads a netrc file; words that are not understood are passed over, as curl does. Macros end with an empty line.
    pub fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let mut in_macro = false;
        for line in text.get(..MAX_LENGTH).unwrap_or(text).lines() {
            in_macro &= !line.trim().is_empty();
            if in_macro || line.trim_start().starts_with('#') {
                continue;
            }
            for word in line.split_whitespace() {
                in_macro |= word == "macdef";
                words.push(word.trim_matches('"'));
            }
        }
        let mut entries: Vec<(Option<String>, String, String)> = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word {
                "machine" => entries.push((words.next().map(str::to_ascii_lowercase), String::new(), String::new())),
                "default" => entries.push((None, String::new(), String::new())),
                "login" | "password" => {
                    let value = words.next().unwrap_or_default().to_owned();
                    if let Some(entry) = entries.last_mut() {
                        *(if word == "login" { &mut entry.1 } else { &mut entry.2 }) = value;
                    }
                }
                "account" | "macdef" => drop(words.next()),
                _ => {}
            }
        }
        Self { entries }
    }

    /// Name and password for a host.
    pub fn login(&self, host: &str) -> Option<(&str, &str)> {
        let host = host.to_ascii_lowercase();
        let found = self.entries.iter().find(|(machine, ..)| machine.as_ref().is_none_or(|m| *m == host));
        found.map(|(_, name, password)| (name.as_str(), password.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_by_host() {
        let netrc = Netrc::parse(
            "# comment\nmachine a.example login me password s3cret\nmacdef x\nmachine evil login no password no\n\n\
             machine B.example\n  login you\n  password \"quoted\"\n",
        );
        assert_eq!(netrc.login("a.example"), Some(("me", "s3cret")));
        assert_eq!(netrc.login("b.EXAMPLE"), Some(("you", "quoted")));
        assert_eq!(netrc.login("evil"), None);
        assert_eq!(netrc.login("example"), None);
        assert_eq!(Netrc::parse("default login x password y").login("any"), Some(("x", "y")));
        assert_eq!(format!("{netrc:?}"), "Netrc(2)");
    }
}
