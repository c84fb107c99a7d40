//! Edits of a manifest's text that keep its comments and its shape.

use std::path::Path;

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use crate::error::ManifestError;
use crate::manifest::SpecKind;
use crate::parse;
use crate::words;

/// What an edit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The text changed.
    Changed(String),
    /// It already was as asked; nothing to write.
    Unchanged,
}

/// Why an edit is not possible.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is no manifest to begin with, or would not be one afterwards.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The table is not one that lists packages.
    #[error("`{0}` is not a table with packages (try `shells.default`, `services.NAME`, `images.NAME` or `sets.NAME`)")]
    BadTable(String),
    /// There is no such table.
    #[error("there is no `[{0}]` in the manifest")]
    NoTable(String),
    /// The table does not list the package itself, but a set that it uses may.
    #[error("`{spec}` is not listed in `[{table}]`")]
    NotListed {
        /// The table.
        table: String,
        /// The package.
        spec: String,
    },
    /// Something else has the name.
    #[error("there is a `[{0}]` already, and it is no devcontainer")]
    Taken(String),
    /// The words are not a package.
    #[error("`{spec}` cannot be added")]
    BadSpec {
        /// What was asked for.
        spec: String,
        /// What is wrong with it.
        source: words::BadText,
    },
}

/// Adds a package to a table: `shells.X`, `services.X`, `images.X`, or `sets.X`. The same package in another version
/// or suite is replaced. A shell or a set that is not there is made; a service or an image cannot be.
///
/// # Errors
/// When the text is no manifest, or the result would be none; when there is no such table, or no such package.
pub fn add(text: &str, table: &str, spec: &str) -> Result<Edit, EditError> {
    let kind = words::spec(spec).map_err(|source| EditError::BadSpec { spec: spec.to_owned(), source })?;
    let mut document = open(text)?;
    let array = array(&mut document, table, true)?.ok_or_else(|| EditError::NoTable(table.to_owned()))?;
    let words: Vec<&str> = array.iter().map(|v| v.as_str().unwrap_or_default()).collect();
    if words.contains(&spec) {
        return Ok(Edit::Unchanged);
    }
    let same = |word: &&str| words::spec(word).is_ok_and(|other| is_same(&kind, &other));
    match words.iter().position(same) {
        Some(at) => {
            let decor = array.get(at).map(|v| v.decor().clone()).unwrap_or_default();
            let mut value = Value::from(spec);
            *value.decor_mut() = decor;
            array.replace_formatted(at, value);
        }
        None => push(array, spec),
    }
    finish(text, &document)
}

/// Adds `[images.dev]`, a devcontainer of the default shell's packages; of another shell's if there is no default, of its
/// own if there is none. An image of that name is an error.
///
/// # Errors
/// When the text is no manifest, or the result would be none.
pub fn add_devcontainer(text: &str) -> Result<Edit, EditError> {
    const NAME: &str = "dev";
    let manifest = parse(text, Path::new("igloo.toml"))?;
    if manifest.images.contains_key(NAME) {
        return Err(EditError::Taken(format!("images.{NAME}")));
    }
    let mut document = open(text)?;
    let shells = &manifest.shells;
    let shell = shells.get_key_value("default").or_else(|| shells.iter().next()).map(|(name, _)| name);
    let mut table = Table::new();
    table.insert("kind", toml_edit::value("devcontainer"));
    match shell {
        Some(shell) => table.insert("of", toml_edit::value(format!("shells.{shell}"))),
        None => table.insert("packages", toml_edit::value(Array::new())),
    };
    if !document.contains_key("images") {
        make_parent(&mut document, "images", NAME);
    }
    let images = document.get_mut("images").and_then(Item::as_table_like_mut);
    let images = images.ok_or_else(|| EditError::NoTable("images".to_owned()))?;
    match images.get_mut(NAME).and_then(Item::as_table_mut) {
        // Where it was put has the right blank lines.
        Some(made) => table.into_iter().for_each(|(key, item)| drop(made.insert(&key, item))),
        None => drop(images.insert(NAME, Item::Table(table))),
    }
    finish(text, &document)
}

/// Removes a package from a table, by its spec as written or by its name.
///
/// # Errors
/// When the text is no manifest; when there is no such table, or the package is not in it.
pub fn remove(text: &str, table: &str, spec: &str) -> Result<Edit, EditError> {
    let mut document = open(text)?;
    let not_listed = || EditError::NotListed { table: table.to_owned(), spec: spec.to_owned() };
    let array = array(&mut document, table, false)?.ok_or_else(not_listed)?;
    let words: Vec<&str> = array.iter().map(|v| v.as_str().unwrap_or_default()).collect();
    let by_name = |word: &&str| match (words::spec(word), words::spec(spec)) {
        (Ok(listed), Ok(wanted)) => is_same(&listed, &wanted) || is_named(&listed, &wanted),
        _ => false,
    };
    let at = words.iter().position(|w| *w == spec).or_else(|| words.iter().position(by_name));
    take_out(array, at.ok_or_else(not_listed)?);
    finish(text, &document)
}

/// The same package of the same source, in whatever version; the same set.
fn is_same(a: &SpecKind, b: &SpecKind) -> bool {
    match (a, b) {
        (SpecKind::Package { source: a, name: x, .. }, SpecKind::Package { source: b, name: y, .. }) => {
            a == b && x == y
        }
        _ => a == b,
    }
}

/// Whether a listed package is the one that a bare name means, whatever its source.
fn is_named(listed: &SpecKind, wanted: &SpecKind) -> bool {
    match (listed, wanted) {
        (
            SpecKind::Package { name: listed, .. },
            SpecKind::Package { source: None, name, version: None, suite: None },
        ) => listed == name,
        _ => false,
    }
}

fn open(text: &str) -> Result<DocumentMut, EditError> {
    parse(text, Path::new("igloo.toml"))?;
    // What was parsed strictly is TOML; should the two parsers ever disagree, the strict one's error is the better.
    text.parse::<DocumentMut>().map_err(|e| {
        let message = e.message().to_owned();
        let diagnostics = vec![crate::error::Diagnostic {
            message,
            span: e.span().unwrap_or(0..0),
            label: String::new(),
            help: None,
        }];
        let (path, text) = (Path::new("igloo.toml").to_owned(), text.to_owned());
        EditError::Manifest(ManifestError { path, text, diagnostics })
    })
}

/// The new text, once it is known to be a manifest.
fn finish(before: &str, document: &DocumentMut) -> Result<Edit, EditError> {
    let text = document.to_string();
    if text == before {
        return Ok(Edit::Unchanged);
    }
    parse(&text, Path::new("igloo.toml"))?;
    Ok(Edit::Changed(text))
}

/// The array that lists a table's packages; made if `make` and it can be.
fn array<'d>(document: &'d mut DocumentMut, table: &str, make: bool) -> Result<Option<&'d mut Array>, EditError> {
    let bad = || EditError::BadTable(table.to_owned());
    let missing = || EditError::NoTable(table.to_owned());
    let (kind, name) = table.split_once('.').ok_or_else(bad)?;
    let make_table = match kind {
        "shells" | "sets" => make,
        "services" | "images" => false,
        _ => return Err(bad()),
    };
    if words::set_name(name).is_err() || (kind != "sets" && words::name(name, "a table").is_err()) {
        return Err(bad());
    }
    if make_table && !document.contains_key(kind) {
        make_parent(document, kind, name);
    }
    let parent = document.get_mut(kind).and_then(Item::as_table_like_mut).ok_or_else(missing)?;
    if kind == "sets" {
        return list_of(parent, name, make_table);
    }
    if make_table && !parent.contains_key(name) {
        parent.insert(name, Item::Table(Table::new()));
    }
    let table = parent.get_mut(name).and_then(Item::as_table_like_mut).ok_or_else(missing)?;
    list_of(table, "packages", make)
}

/// `[shells.NAME]` or `[sets]`, at the end of the file.
fn make_parent(document: &mut DocumentMut, kind: &str, name: &str) {
    // What stands at the end of the file, comments mostly, stays before what comes after it.
    let end = document.trailing().as_str().unwrap_or_default().to_owned();
    document.set_trailing("");
    let blank = if end.is_empty() || end.contains('#') { "\n" } else { "" };
    let mut table = Table::new();
    table.decor_mut().set_prefix(format!("{end}{blank}"));
    if kind != "sets" {
        // `[shells]` alone says nothing.
        let mut parent = Table::new();
        parent.set_implicit(true);
        parent.insert(name, Item::Table(table));
        table = parent;
    }
    document.insert(kind, Item::Table(table));
}

fn list_of<'d>(table: &'d mut dyn TableLike, key: &str, make: bool) -> Result<Option<&'d mut Array>, EditError> {
    if make && !table.contains_key(key) {
        table.insert(key, Item::Value(Value::Array(Array::new())));
    }
    Ok(table.get_mut(key).and_then(Item::as_array_mut))
}

/// A text before an element, or after the last one.
fn prefix(value: &Value) -> &str {
    value.decor().prefix().and_then(|p| p.as_str()).unwrap_or_default()
}

/// The blanks that begin the line of an element, from the last line break on; `None` on a line with others.
fn indent(prefix: &str) -> Option<&str> {
    prefix.rfind('\n').map(|at| &prefix[at..])
}

/// Adds an element at the end, on a line of its own if the others have one.
fn push(array: &mut Array, word: &str) {
    let mut value = Value::from(word);
    let indent = array.iter().last().and_then(|last| indent(prefix(last))).map(str::to_owned);
    match indent {
        Some(indent) => {
            // A comment after the last element stays on its line.
            let after = match array.trailing_comma() {
                true => array.trailing().as_str().unwrap_or_default().to_owned(),
                false => last_suffix(array),
            };
            let comment = after.trim_end().to_owned();
            value.decor_mut().set_prefix(format!("{comment}{indent}"));
            let outer = if after.contains('\n') { &after[after.rfind('\n').unwrap_or(0)..] } else { "\n" };
            let outer = outer.to_owned();
            array.push_formatted(value);
            array.set_trailing(outer);
            array.set_trailing_comma(true);
        }
        None => {
            let first = array.is_empty();
            value.decor_mut().set_prefix(if first { "" } else { " " });
            let suffix = last_suffix(array);
            value.decor_mut().set_suffix(suffix);
            array.push_formatted(value);
        }
    }
}

/// Takes what follows the last element before the bracket, which belongs after the new last one.
fn last_suffix(array: &mut Array) -> String {
    let Some(last) = array.iter_mut().last() else { return String::new() };
    let suffix = last.decor().suffix().and_then(|s| s.as_str()).unwrap_or_default().to_owned();
    last.decor_mut().set_suffix("");
    suffix
}

/// Removes an element; comments on lines of their own stay, the one behind it goes.
fn take_out(array: &mut Array, at: usize) {
    let Some(old) = array.get(at).map(|v| (prefix(v).to_owned(), suffix_of(v))) else { return };
    let is_last = at + 1 == array.len();
    array.remove(at);
    if is_last {
        let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
        let kept = comment_lines(&old.0);
        // `# about it` between the comma and the line's end was about the element.
        let rest = trailing.find('\n').map_or("", |end| &trailing[end..]);
        let rest = if old.0.contains('\n') && array.trailing_comma() { rest } else { trailing.as_str() };
        let end = if array.trailing_comma() { String::new() } else { old.1 };
        array.set_trailing(format!("{kept}{rest}{end}"));
        if array.is_empty() {
            array.set_trailing_comma(false);
            if !array.trailing().as_str().unwrap_or_default().contains('#') {
                array.set_trailing("");
            }
        }
        return;
    }
    if let Some(next) = array.get_mut(at) {
        // The first line of the next one's prefix is what stood behind the removed element.
        let own = prefix(next).to_owned();
        let new = match (old.0.contains('\n'), own.find('\n')) {
            (true, Some(end)) => format!("{}{}", comment_lines(&old.0), &own[end..]),
            _ => old.0,
        };
        next.decor_mut().set_prefix(new);
    }
}

fn suffix_of(value: &Value) -> String {
    value.decor().suffix().and_then(|s| s.as_str()).unwrap_or_default().to_owned()
}

/// The part of a prefix with comments: all up to the last line that has one.
fn comment_lines(prefix: &str) -> &str {
    match prefix.rfind('#') {
        Some(at) => &prefix[..prefix[at..].find('\n').map_or(prefix.len(), |n| at + n)],
        None => "",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const HEAD: &str = "[project]\nname = \"x\"\n\n[sources.debian]\nsuite = \"bookworm\"\n\n";

    fn check(act: impl Fn(&str) -> Result<Edit, EditError>, body: &str, expect: Expect) {
        let shown = match act(&format!("{HEAD}{body}")) {
            Ok(Edit::Changed(text)) => text.strip_prefix(HEAD).unwrap_or(&text).to_owned(),
            Ok(Edit::Unchanged) => "unchanged".to_owned(),
            Err(e) => e.to_string(),
        };
        expect.assert_eq(&shown);
    }

    #[test]
    fn add_on_one_line() {
        let git = |text: &str| add(text, "shells.default", "git");
        check(
            git,
            "[shells.default]\npackages = [\"@base\", \"jq\"] # tools\n",
            expect![[r#"
            [shells.default]
            packages = ["@base", "jq", "git"] # tools
        "#]],
        );
        check(
            git,
            "[shells.default]\npackages = [ \"jq\" ]\n",
            expect![[r#"
            [shells.default]
            packages = [ "jq", "git" ]
        "#]],
        );
        check(
            git,
            "[shells]\ndefault = { packages = [] } # short\n",
            expect![[r#"
            [shells]
            default = { packages = ["git"] } # short
        "#]],
        );
        check(git, "[shells.default]\npackages = [\"jq\", \"git\"]\n", expect!["unchanged"]);
        check(
            git,
            "[shells.default]\npackages = [\"git=1:2.39\", \"jq\"]\n",
            expect![[r#"
            [shells.default]
            packages = ["git", "jq"]
        "#]],
        );
    }

    #[test]
    fn add_on_several_lines() {
        let git = |text: &str| add(text, "shells.default", "git");
        check(
            git,
            "[shells.default]\npackages = [\n    \"@base\", # the base\n    # to read JSON\n    \"jq\", # 1.6\n    # the end\n]\n",
            expect![[r#"
            [shells.default]
            packages = [
                "@base", # the base
                # to read JSON
                "jq", # 1.6
                # the end
                "git",
            ]
        "#]],
        );
        check(
            git,
            "[shells.default]\npackages = [\n  \"@base\",\n  \"jq\"\n]\nenv = { A = \"1\" }\n",
            expect![[r#"
            [shells.default]
            packages = [
              "@base",
              "jq",
              "git",
            ]
            env = { A = "1" }
        "#]],
        );
        check(
            git,
            "[shells.default]\npackages = [\n  \"@base\",\n  \"jq\" # no comma\n]\n",
            expect![[r#"
            [shells.default]
            packages = [
              "@base",
              "jq", # no comma
              "git",
            ]
        "#]],
        );
    }

    #[test]
    fn a_devcontainer_is_made_of_the_shell_there_is() {
        check(
            add_devcontainer,
            "[shells.default]\npackages = [\"jq\"]\n# the end\n",
            expect![[r#"
            [shells.default]
            packages = ["jq"]
            # the end

            [images.dev]
            kind = "devcontainer"
            of = "shells.default"
        "#]],
        );
        check(
            add_devcontainer,
            "[shells.ci]\npackages = []\n\n[images.web]\npackages = [\"jq\"]\n\n[vm]\ncpus = 2\n",
            expect![[r#"
            [shells.ci]
            packages = []

            [images.web]
            packages = ["jq"]

            [images.dev]
            kind = "devcontainer"
            of = "shells.ci"

            [vm]
            cpus = 2
        "#]],
        );
        check(
            add_devcontainer,
            "[services.a]\nrun = [\"true\"]\npackages = [\"jq\"]\n",
            expect![[r#"
            [services.a]
            run = ["true"]
            packages = ["jq"]

            [images.dev]
            kind = "devcontainer"
            packages = []
        "#]],
        );
        check(
            add_devcontainer,
            "[images.dev]\npackages = [\"jq\"]\n",
            expect!["there is a `[images.dev]` already, and it is no devcontainer"],
        );
    }

    #[test]
    fn add_makes_what_is_missing() {
        let git = |text: &str| add(text, "shells.default", "git");
        check(
            git,
            "",
            expect![[r#"
            [shells.default]
            packages = ["git"]
        "#]],
        );
        check(
            git,
            "[shells.default]\nhook = \"true\"\n\n[vm]\ncpus = 2\n",
            expect![[r#"
            [shells.default]
            hook = "true"
            packages = ["git"]

            [vm]
            cpus = 2
        "#]],
        );
        check(
            |text| add(text, "sets.web", "@base"),
            "[sets]\n# more to come\nother = [\"jq\"]\n",
            expect![[r#"
            [sets]
            # more to come
            other = ["jq"]
            web = ["@base"]
        "#]],
        );
        check(
            |text| add(text, "sets.web", "git"),
            "# the end\n",
            expect![[r#"
            # the end

            [sets]
            web = ["git"]
        "#]],
        );
        check(
            git,
            "[shells.other]\n\n[vm]\ncpus = 2\n",
            expect![[r#"
            [shells.other]

            [shells.default]
            packages = ["git"]

            [vm]
            cpus = 2
        "#]],
        );
    }

    #[test]
    fn what_cannot_be_added() {
        check(|text| add(text, "services.db", "git"), "", expect!["there is no `[services.db]` in the manifest"]);
        check(
            |text| add(text, "vm", "git"),
            "",
            expect![
                "`vm` is not a table with packages (try `shells.default`, `services.NAME`, `images.NAME` or `sets.NAME`)"
            ],
        );
        check(|text| add(text, "shells.default", "a b"), "", expect!["`a b` cannot be added"]);
        check(
            |text| add(text, "shells.default", "@nothing"),
            "",
            expect!["igloo.toml:8:14: there is no set `@nothing`"],
        );
        check(
            |text| add(text, "shells.default", "git"),
            "[shells.default]\npakages = []\n",
            expect!["igloo.toml:8:1: a shell has no key `pakages`"],
        );
    }

    #[test]
    fn remove_keeps_the_rest() {
        let jq = |text: &str| remove(text, "shells.default", "jq");
        check(
            jq,
            "[shells.default]\npackages = [\"@base\", \"jq\", \"git\"] # tools\n",
            expect![[r#"
            [shells.default]
            packages = ["@base", "git"] # tools
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\"jq\", \"git\"]\n",
            expect![[r#"
            [shells.default]
            packages = ["git"]
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [ \"git\", \"debian:jq=1.6\" ]\n",
            expect![[r#"
            [shells.default]
            packages = [ "git" ]
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\"jq\"]\n",
            expect![[r#"
            [shells.default]
            packages = []
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\n  \"@base\", # the base\n  # to read JSON\n  \"jq\", # 1.6\n  \"git\", # later\n]\n",
            expect![[r#"
            [shells.default]
            packages = [
              "@base", # the base
              # to read JSON
              "git", # later
            ]
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\n  \"@base\", # the base\n  \"jq\", # 1.6\n]\n",
            expect![[r#"
            [shells.default]
            packages = [
              "@base", # the base
            ]
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\n  \"jq\",\n]\n",
            expect![[r#"
            [shells.default]
            packages = []
        "#]],
        );
        check(
            jq,
            "[shells.default]\npackages = [\"@devTools\"]\n",
            expect!["`jq` is not listed in `[shells.default]`"],
        );
    }

    #[test]
    fn adding_and_removing_leads_back() {
        for body in [
            "[shells.default]\npackages = [\"@base\", \"jq\"] # tools\n",
            "[shells.default]\npackages = [\n  \"@base\", # the base\n  \"jq\", # last\n]\n",
        ] {
            let text = format!("{HEAD}{body}");
            let Ok(Edit::Changed(added)) = add(&text, "shells.default", "git") else { panic!("{text}") };
            assert_eq!(add(&added, "shells.default", "git").unwrap(), Edit::Unchanged);
            assert_eq!(remove(&added, "shells.default", "git").unwrap(), Edit::Changed(text));
        }
    }
}
