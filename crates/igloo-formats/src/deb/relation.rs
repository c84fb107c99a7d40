//! Relations between packages: `libc6 (>= 2.36), default-mta | mail-transport-agent`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::version::{Version, VersionError};

/// More clauses than this in one field are refused; the longest of Debian's has some 2,500 (a metapackage's Depends).
const MAX_CLAUSES: usize = 20_000;

/// More alternatives than this in one clause are refused; Debian's longest has some 60.
const MAX_ALTERNATIVES: usize = 1_000;

/// A comma list of clauses, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations(pub Vec<Clause>);

/// Alternatives, one of which must hold; never empty when parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause(pub Vec<Alternative>);

/// A package by name, maybe of some versions only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// Name of a real or virtual package.
    pub name: String,
    /// What follows a colon: `any`, `native` or an architecture.
    pub qualifier: Option<String>,
    /// The versions that will do.
    pub constraint: Option<(Op, Version)>,
}

/// How a version is to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierEq,
    /// `=`
    Equal,
    /// `>=`
    LaterEq,
    /// `>>`
    Later,
}

/// A text that is no relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// An alternative that does not read as `name[:qualifier] [(op version)]`.
    #[error("cannot read the relation `{text}`: {why}")]
    Syntax {
        /// The alternative, shortened.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An alternative with a bad version.
    #[error("cannot read the relation `{text}`")]
    Version {
        /// The alternative, shortened.
        text: String,
        /// What is wrong with the version.
        #[source]
        source: VersionError,
    },
    /// More than anybody writes.
    #[error("a relation field has more than {0} {1}")]
    TooMany(usize, &'static str),
}

impl Relations {
    /// Parses a field of a control file; folded lines are fine.
    pub fn parse(text: &str) -> Result<Self, RelationError> {
        let mut clauses = Vec::new();
        // Empty clauses are common in the wild (`a, , b` and a comma at the end) and mean nothing.
        for clause in text.split(',').map(str::trim).filter(|c| !c.is_empty()) {
            if clauses.len() == MAX_CLAUSES {
                return Err(RelationError::TooMany(MAX_CLAUSES, "clauses"));
            }
            clauses.push(Clause::parse(clause)?);
        }
        Ok(Self(clauses))
    }

    /// True if there is no clause.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The clauses.
    pub fn iter(&self) -> std::slice::Iter<'_, Clause> {
        self.0.iter()
    }
}

impl Clause {
    /// Parses `a | b`.
    pub fn parse(text: &str) -> Result<Self, RelationError> {
        let mut alternatives = Vec::with_capacity(1);
        for alternative in text.split('|') {
            if alternatives.len() == MAX_ALTERNATIVES {
                return Err(RelationError::TooMany(MAX_ALTERNATIVES, "alternatives in a clause"));
            }
            alternatives.push(Alternative::parse(alternative)?);
        }
        Ok(Self(alternatives))
    }
}

impl Alternative {
    /// Parses `name[:qualifier] [(op version)]`.
    pub fn parse(text: &str) -> Result<Self, RelationError> {
        let text = text.trim();
        let shortened = || text.chars().take(120).collect::<String>();
        let syntax = |why| RelationError::Syntax { text: shortened(), why };
        let (head, constraint) = match text.split_once('(') {
            None => (text, None),
            Some((head, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(|| syntax("the parenthesis is not closed"))?;
                (head.trim_end(), Some(inner.trim()))
            }
        };
        let (name, qualifier) = match head.split_once(':') {
            None => (head, None),
            Some((name, qualifier)) => (name, Some(qualifier)),
        };
        check_name(name).map_err(syntax)?;
        let good = |q: &str| !q.is_empty() && q.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !qualifier.is_none_or(good) {
            return Err(syntax("the qualifier after the colon is no word"));
        }
        let constraint = match constraint {
            None => None,
            Some(inner) => {
                let (op, version) = Op::take(inner).ok_or_else(|| syntax("no comparison follows the parenthesis"))?;
                let version = Version::parse(version.trim_start())
                    .map_err(|source| RelationError::Version { text: shortened(), source })?;
                Some((op, version))
            }
        };
        Ok(Self { name: name.to_owned(), qualifier: qualifier.map(str::to_owned), constraint })
    }

    /// True if this version will do.
    pub fn accepts(&self, version: &Version) -> bool {
        self.constraint.as_ref().is_none_or(|(op, bound)| op.holds(version, bound))
    }
}

/// Longest package name that is taken; Debian's longest has 75 bytes.
const MAX_NAME: usize = 200;

/// Says what is wrong with a package name, if anything. Capitals are not allowed by policy, but apt takes them.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("there is no package name");
    }
    if name.len() > MAX_NAME {
        return Err("the package name is too long");
    }
    let good = |c: u8| c.is_ascii_alphanumeric() || b"+-._".contains(&c);
    if !name.bytes().all(good) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("only letters, digits and `+-._` are allowed in a package name");
    }
    Ok(())
}

impl Op {
    /// The comparison at the head of a text, and what follows it. `<` and `>` are old spellings of `<=` and `>=`.
    fn take(text: &str) -> Option<(Op, &str)> {
        const OPS: [(&str, Op); 7] = [
            ("<<", Op::Earlier),
            ("<=", Op::EarlierEq),
            (">=", Op::LaterEq),
            (">>", Op::Later),
            ("=", Op::Equal),
            ("<", Op::EarlierEq),
            (">", Op::LaterEq),
        ];
        OPS.iter().find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?)))
    }

    /// `version <op> bound`
    pub fn holds(self, version: &Version, bound: &Version) -> bool {
        let order = version.cmp(bound);
        match self {
            Op::Earlier => order.is_lt(),
            Op::EarlierEq => order.is_le(),
            Op::Equal => order.is_eq(),
            Op::LaterEq => order.is_ge(),
            Op::Later => order.is_gt(),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Earlier => "<<",
            Op::EarlierEq => "<=",
            Op::Equal => "=",
            Op::LaterEq => ">=",
            Op::Later => ">>",
        })
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((op, version)) = &self.constraint {
            write!(f, " ({op} {version})")?;
        }
        Ok(())
    }
}

/// Writes items with a text between them.
fn join<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.0, " | ")
    }
}

impl fmt::Display for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.0, ", ")
    }
}

impl FromStr for Relations {
    type Err = RelationError;

    fn from_str(text: &str) -> Result<Self, RelationError> {
        Self::parse(text)
    }
}

impl<'a> IntoIterator for &'a Relations {
    type Item = &'a Clause;
    type IntoIter = std::slice::Iter<'a, Clause>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Relations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Relations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn relations_are_read_and_written() {
        for (text, expected) in [
            ("a", "a"),
            ("a,b|c", "a, b | c"),
            ("  a (>=1:2~) ,\n b:any|c( << 3 )  , ", "a (>= 1:2~), b:any | c (<< 3)"),
            ("python3:any (>= 3.9~), g++-12 (= 12.2.0-14)", "python3:any (>= 3.9~), g++-12 (= 12.2.0-14)"),
            ("a (< 1), b (> 2)", "a (<= 1), b (>= 2)"),
            ("a (>> 1), b (<= 2), libX11-6, 0ad", "a (>> 1), b (<= 2), libX11-6, 0ad"),
            ("", ""),
            (" , ,", ""),
        ] {
            let relations = Relations::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(relations.to_string(), expected);
            assert_eq!(Relations::parse(expected), Ok(relations));
        }
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for text in
            ["a b", "a (1)", "a (>= 1", "a (>=)", "a (>= x y)", "a |", "|", "a:", "a:any:any", "a [amd64]", "a/b", "-a"]
        {
            assert!(Relations::parse(text).is_err(), "{text}");
        }
        let many = vec!["a"; MAX_CLAUSES + 1].join(",");
        assert_eq!(Relations::parse(&many), Err(RelationError::TooMany(MAX_CLAUSES, "clauses")));
    }

    #[test]
    fn constraints_hold_or_not() {
        let accepts = |text: &str, version: &str| {
            let alternative = Alternative::parse(text).unwrap_or_else(|e| panic!("{e}"));
            alternative.accepts(&Version::parse(version).unwrap_or_else(|e| panic!("{e}")))
        };
        assert!(accepts("a", "0"));
        assert!(accepts("a (>= 1.0~)", "1.0~") && !accepts("a (>= 1.0)", "1.0~"));
        assert!(accepts("a (= 1)", "0:1-0") && !accepts("a (= 1)", "1-1"));
        assert!(accepts("a (<< 2)", "2~") && !accepts("a (<< 2)", "2"));
        assert!(accepts("a (>> 2)", "2-1") && !accepts("a (>> 2)", "2"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-c0-9:|,()<=> ~\n\\PC]{0,40}") {
            if let Ok(relations) = Relations::parse(&text) {
                prop_assert_eq!(Relations::parse(&relations.to_string()), Ok(relations));
            }
        }
    }
}
