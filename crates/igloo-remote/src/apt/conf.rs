//! `apt.conf`: the few settings that concern us, from the grammar that apt itself uses.

use std::collections::BTreeMap;
use std::path::Path;

use igloo_base::{At, PathError};

/// Longest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Settings of the machine's apt, by lower-case name: `acquire::http::proxy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AptConfig {
    values: BTreeMap<String, String>,
}

impl AptConfig {
    /// Reads `apt.conf.d` and `apt.conf` below a directory that stands for `/etc/apt`, later ones winning.
    pub(crate) fn read(etc_apt: &Path) -> Result<Self, PathError> {
        let mut config = Self::default();
        let mut files = super::machine::list(&etc_apt.join("apt.conf.d"), &["conf", ""])?;
        files.push(etc_apt.join("apt.conf"));
        for file in files {
            if let Some(text) = super::machine::read_text(&file, MAX_FILE).at("read", &file)? {
                config.parse(&text);
            }
        }
        Ok(config)
    }

    /// Takes the settings of one file. What is malformed is skipped to the next `;`: apt will tell about it.
    fn parse(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => scopes.push(std::mem::take(&mut words).into_iter().next().unwrap_or_default()),
                Token::Close => {
                    scopes.pop();
                    words.clear();
                }
                Token::End => {
                    if let [name, value] = &words[..] {
                        let mut path: Vec<&str> = scopes.iter().map(String::as_str).collect();
                        path.push(name);
                        self.values.insert(path.join("::").to_ascii_lowercase(), value.clone());
                    }
                    words.clear();
                }
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The proxy for a host: `DIRECT` when there is to be none although others have one.
    pub(crate) fn proxy(&self, scheme: &str, host: &str) -> Option<&str> {
        let host = host.to_ascii_lowercase();
        let of = |scheme: &str| {
            self.get(&format!("acquire::{scheme}::proxy::{host}"))
                .or_else(|| self.get(&format!("acquire::{scheme}::proxy")))
        };
        // apt's https method falls back to what is set for http.
        of(scheme).or_else(|| if scheme == "https" { of("http") } else { None })
    }

    /// False if `Acquire::Check-Valid-Until` says so: a machine with a frozen archive.
    pub(crate) fn checks_valid_until(&self) -> bool {
        !self.get("acquire::check-valid-until").is_some_and(|v| matches!(v, "false" | "no" | "0" | "off" | "without"))
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Words, quoted or not, and the three punctuation marks; comments are `//`, `#` and `/* */`.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = |rest: &mut &str, to: Option<usize>| *rest = to.map_or("", |i| &rest[i..]);
        if first.is_whitespace() {
            rest = rest.trim_start();
        } else if rest.starts_with("//") || first == '#' {
            let end = rest.find('\n');
            skip(&mut rest, end);
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map(|i| i + 2);
            skip(&mut rest, end);
        } else if first == '"' {
            let inner = &rest[1..];
            let end = inner.find('"').unwrap_or(inner.len());
            tokens.push(Token::Word(inner[..end].to_owned()));
            rest = inner.get(end + 1..).unwrap_or_default();
        } else if let Some(token) = match first {
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' => Some(Token::End),
            _ => None,
        } {
            tokens.push(token);
            rest = &rest[1..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_apt_conf() {
        let mut config = AptConfig::default();
        config.parse(
            r#"// a comment with "quotes"; and {braces}
            Acquire::http::Proxy "http://proxy:3142/"; # another
            /* Acquire::https::Proxy "no"; */
            Acquire {
              HTTP { Proxy { Local.Example "DIRECT"; }; Timeout "5"; };
              Check-Valid-Until "false";
              Languages { "none"; };
            };
            malformed { ;
            "#,
        );
        assert_eq!(config.proxy("http", "host"), Some("http://proxy:3142/"));
        assert_eq!(config.proxy("http", "LOCAL.example"), Some("DIRECT"));
        assert_eq!(config.proxy("https", "host"), Some("http://proxy:3142/"));
        assert!(!config.checks_valid_until());
        assert!(AptConfig::default().checks_valid_until());
        assert_eq!(AptConfig::default().proxy("http", "host"), None);
    }

    #[test]
    fn files_are_read_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        let parts = dir.path().join("apt.conf.d");
        std::fs::create_dir(&parts).expect("mkdir");
        for (name, proxy) in [("10a", "a"), ("20b.conf", "b"), ("30c.bak", "c"), ("40d~", "d")] {
            std::fs::write(parts.join(name), format!("Acquire::http::Proxy \"{proxy}\";")).expect("write");
        }
        let read = || AptConfig::read(dir.path()).expect("read");
        assert_eq!(read().proxy("http", "h"), Some("b"));
        std::fs::write(dir.path().join("apt.conf"), "Acquire::http::Proxy e;").expect("write");
        assert_eq!(read().proxy("http", "h"), Some("e"));
        assert_eq!(AptConfig::read(Path::new("/nonexistent")).expect("read"), AptConfig::default());
    }
}
