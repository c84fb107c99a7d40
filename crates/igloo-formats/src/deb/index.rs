//! A package index made for looking up single packages: built once per downloaded `Packages`, then mapped into
//! memory and searched in place.
//!
//! ```text
//! stanzas   the fields that a Record has, one line each, package after package
//! strings   all names, back to back
//! packages  24 bytes each, by name: name (offset, length), stanza (offset, length), rank, flags
//! provides  16 bytes each, by virtual name, then package: both names (offset, length)
//! footer    64 bytes: how long each part is, format, magic
//! ```
//! Numbers are little-endian 32-bit and count from the head of the file. Nothing of it is believed: every offset is
//! checked when it is followed, and what does not hold is an error or simply not found.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};

use super::record::{FIELDS, MAX_STANZA, Record, RecordError, fields};

/// Changes whenever the layout does, so that an old file is built again.
const FORMAT: u32 = 1;
const MAGIC: [u8; 16] = *b"igloo deb index\n";
const FOOTER: usize = 64;
const PACKAGE: usize = 24;
const PROVIDE: usize = 16;
const ESSENTIAL: u32 = 1;

/// More packages than this are refused; Debian has 70,000.
const MAX_PACKAGES: usize = 2_000_000;

/// More provided names than this are refused; Debian has some 40,000.
const MAX_PROVIDES: usize = 8_000_000;

/// What can be wrong with an index, or with the text it is made from.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading the `Packages` text.
    #[error("cannot read the package list")]
    Read(#[source] io::Error),
    /// Writing the index.
    #[error("cannot write the package index")]
    Write(#[source] io::Error),
    /// More than this format, or anybody, needs.
    #[error("the package list has {0}")]
    TooLarge(&'static str),
    /// A part of the list that is no text.
    #[error("the package list is not UTF-8 at byte {0}")]
    NotUtf8(u64),
    /// Bytes that are no index of this version.
    #[error("this is no package index that this igloo reads: {0}")]
    Malformed(&'static str),
    /// A stanza that cannot be used.
    #[error("cannot use a package of the index")]
    Record(#[from] RecordError),
}

/// Makes an index from the decompressed text of a `Packages` file. Stanzas are written as they come, names are kept
/// in memory until the end (some 10 MB for all of Debian).
pub fn build(packages: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), IndexError> {
    let mut builder = Builder { out, written: 0, names: Names::default(), packages: Vec::new(), provides: Vec::new() };
    let mut stanza = Vec::new();
    let mut read = 0u64;
    while let Some(length) = next_stanza(packages, &mut stanza)? {
        let text = std::str::from_utf8(&stanza).map_err(|_| IndexError::NotUtf8(read))?;
        builder.add(text)?;
        read += length;
    }
    builder.finish()
}

/// Reads up to the next empty line; tells how many bytes were read, `None` at the end.
fn next_stanza(packages: &mut dyn BufRead, stanza: &mut Vec<u8>) -> Result<Option<u64>, IndexError> {
    stanza.clear();
    let mut read = 0;
    loop {
        let start = stanza.len();
        let room = (MAX_STANZA + 1 - start) as u64;
        let n = Read::take(&mut *packages, room).read_until(b'\n', stanza).map_err(IndexError::Read)?;
        read += n as u64;
        if stanza.len() > MAX_STANZA {
            return Err(IndexError::TooLarge("a stanza of more than 1 MiB"));
        }
        let end = n == 0;
        if end || stanza[start..].iter().all(u8::is_ascii_whitespace) {
            stanza.truncate(start);
            if end || start > 0 {
                return Ok((!end || start > 0).then_some(read));
            }
        }
    }
}

/// Names and where they are in `strings`, each once, in order of their first mention: apt decides ties by that order.
#[derive(Default)]
struct Names {
    known: HashMap<Box<str>, u32>,
    spans: Vec<(u32, u32)>,
    text: Vec<u8>,
}

impl Names {
    fn id(&mut self, name: &str) -> Result<u32, IndexError> {
        if let Some(id) = self.known.get(name) {
            return Ok(*id);
        }
        let id = to_u32(self.spans.len())?;
        self.spans.push((to_u32(self.text.len())?, to_u32(name.len())?));
        self.text.extend_from_slice(name.as_bytes());
        self.known.insert(name.into(), id);
        Ok(id)
    }

    fn get(&self, id: u32) -> &[u8] {
        let (at, length) = self.spans[id as usize];
        &self.text[at as usize..][..length as usize]
    }
}

fn to_u32(number: usize) -> Result<u32, IndexError> {
    u32::try_from(number).map_err(|_| IndexError::TooLarge("more than 4 GiB"))
}

struct Builder<'a> {
    out: &'a mut dyn Write,
    written: usize,
    names: Names,
    /// Name, offset and length of the stanza, flags.
    packages: Vec<(u32, u32, u32, u32)>,
    /// Virtual name, package.
    provides: Vec<(u32, u32)>,
}

impl Builder<'_> {
    fn add(&mut self, text: &str) -> Result<(), IndexError> {
        let values = fields(text);
        let get = |field: &str| FIELDS.iter().position(|f| *f == field).and_then(|at| values[at].as_deref());
        // A stanza without a name is no package; what else may be missing is told when it is looked up.
        let Some(name) = get("Package").filter(|name| !name.is_empty()) else { return Ok(()) };
        if self.packages.len() == MAX_PACKAGES {
            return Err(IndexError::TooLarge("more than two million packages"));
        }
        let id = self.names.id(name)?;
        // apt's order: the fields as it reads them. `Suggests` and `Enhances` are mentions like the others.
        for field in ["Pre-Depends", "Depends", "Conflicts", "Breaks", "Recommends"] {
            self.mention(get(field).unwrap_or(""))?;
        }
        self.mention(raw_field(text, "Suggests"))?;
        self.mention(get("Replaces").unwrap_or(""))?;
        self.mention(raw_field(text, "Enhances"))?;
        for provided in names_in(get("Provides").unwrap_or("")) {
            if self.provides.len() == MAX_PROVIDES {
                return Err(IndexError::TooLarge("more than eight million provided names"));
            }
            let provided = self.names.id(provided.0)?;
            self.provides.push((provided, id));
        }
        let flags = if get("Essential").is_some_and(|v| v.eq_ignore_ascii_case("yes")) { ESSENTIAL } else { 0 };

        let mut kept = String::with_capacity(text.len());
        for (field, value) in FIELDS.iter().zip(&values) {
            if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
                kept.extend([field, ": ", value, "\n"]);
            }
        }
        self.packages.push((id, to_u32(self.written)?, to_u32(kept.len())?, flags));
        self.write(kept.as_bytes())
    }

    fn mention(&mut self, relations: &str) -> Result<(), IndexError> {
        for (name, qualifier) in names_in(relations) {
            // apt keeps `perl:any` apart from `perl`, so that it is no mention.
            if qualifier.is_none() {
                self.names.id(name)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.written += bytes.len();
        self.out.write_all(bytes).map_err(IndexError::Write)
    }

    fn finish(mut self) -> Result<(), IndexError> {
        let names = std::mem::take(&mut self.names);
        let strings_at = to_u32(self.written)?;
        self.write(&names.text)?;
        let span = |id: u32| (strings_at.saturating_add(names.spans[id as usize].0), names.spans[id as usize].1);

        let mut packages = std::mem::take(&mut self.packages);
        packages.sort_by(|a, b| names.get(a.0).cmp(names.get(b.0)));
        let packages_at = to_u32(self.written)?;
        for (id, at, length, flags) in &packages {
            let (name, name_length) = span(*id);
            self.write(&words([name, name_length, *at, *length, *id, *flags]))?;
        }

        let mut provides = std::mem::take(&mut self.provides);
        provides.sort_by(|a, b| (names.get(a.0), names.get(a.1)).cmp(&(names.get(b.0), names.get(b.1))));
        provides.dedup();
        let provides_at = to_u32(self.written)?;
        for (virtual_name, package) in &provides {
            let (a, b) = (span(*virtual_name), span(*package));
            self.write(&words([a.0, a.1, b.0, b.1]))?;
        }

        let end = to_u32(self.written)?;
        let mut footer = [0u8; FOOTER];
        footer[..20].copy_from_slice(&words([strings_at, packages_at, provides_at, end, FORMAT]));
        footer[FOOTER - MAGIC.len()..].copy_from_slice(&MAGIC);
        self.write(&footer)?;
        self.out.flush().map_err(IndexError::Write)
    }
}

/// Little-endian bytes of some numbers.
fn words<const N: usize>(numbers: [u32; N]) -> Vec<u8> {
    numbers.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The text of a field that a record does not keep; one line only, as Debian's archive software writes it.
fn raw_field<'a>(text: &'a str, field: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or("")
}

/// Names, and what follows their colons, in a relation field. Reads what is no relation as some names, too.
fn names_in(relations: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    relations.split([',', '|']).filter_map(|atom| {
        let atom = atom.trim_start();
        let head = &atom[..atom.find([' ', '(', '\t']).unwrap_or(atom.len())];
        let (name, qualifier) = head.split_once(':').map_or((head, None), |(name, q)| (name, Some(q)));
        (!name.is_empty()).then_some((name, qualifier))
    })
}

/// An index over bytes, usually a memory map. Opening reads a few bytes; looking up parses only what is found.
#[derive(Debug)]
pub struct Index<B: AsRef<[u8]>> {
    bytes: B,
    packages: Table<PACKAGE>,
    provides: Table<PROVIDE>,
}

/// Rows of `SIZE` bytes.
#[derive(Debug, Clone, Copy)]
struct Table<const SIZE: usize> {
    at: usize,
    rows: usize,
}

impl<const SIZE: usize> Table<SIZE> {
    /// The number in a column of a row; 0 where there is none.
    fn number(self, bytes: &[u8], row: usize, column: usize) -> u32 {
        let at = self.at + row * SIZE + column * 4;
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    /// The bytes that two columns, offset and length, point to; none where they point outside.
    fn bytes(self, bytes: &[u8], row: usize, column: usize) -> &[u8] {
        let at = self.number(bytes, row, column) as usize;
        let length = self.number(bytes, row, column + 1) as usize;
        at.checked_add(length).and_then(|end| bytes.get(at..end)).unwrap_or(&[])
    }

    /// The text that two columns point to.
    fn text(self, bytes: &[u8], row: usize, column: usize) -> &str {
        std::str::from_utf8(self.bytes(bytes, row, column)).unwrap_or("")
    }

    /// The rows whose name, pointed to by the first columns, is this one.
    fn equal_range(self, bytes: &[u8], name: &str) -> std::ops::Range<usize> {
        let start = self.partition(0, |row| self.bytes(bytes, row, 0) < name.as_bytes());
        let end = self.partition(start, |row| self.bytes(bytes, row, 0) <= name.as_bytes());
        start..end
    }

    fn partition(self, from: usize, before: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (from, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Checks that these bytes are an index.
    pub fn open(bytes: B) -> Result<Self, IndexError> {
        let all = bytes.as_ref();
        let body = all.len().checked_sub(FOOTER).ok_or(IndexError::Malformed("it is too short"))?;
        let footer = &all[body..];
        if !footer.ends_with(&MAGIC) {
            return Err(IndexError::Malformed("its end is missing"));
        }
        let number = |i: usize| Table::<FOOTER> { at: body, rows: 1 }.number(all, 0, i) as usize;
        let (strings, packages, provides, end, format) = (number(0), number(1), number(2), number(3), number(4));
        if format != FORMAT as usize {
            return Err(IndexError::Malformed("it has another format"));
        }
        if !(strings <= packages && packages <= provides && provides <= end && end == body) {
            return Err(IndexError::Malformed("its parts do not fit together"));
        }
        let packages = Table { at: packages, rows: (provides - packages) / PACKAGE };
        let provides = Table { at: provides, rows: (end - provides) / PROVIDE };
        Ok(Self { bytes, packages, provides })
    }

    /// All versions of a package, in the order of the package list.
    pub fn find(&self, name: &str) -> impl Iterator<Item = Result<Record, IndexError>> + '_ {
        let bytes = self.bytes.as_ref();
        let name = name.to_owned();
        self.packages.equal_range(bytes, &name).map(move |row| {
            let record = Record::parse(self.packages.bytes(bytes, row, 2))?;
            // Only in a damaged file, but callers rely on it.
            if record.name != name {
                return Err(IndexError::Malformed("a name leads to another package"));
            }
            Ok(record)
        })
    }

    /// Where a package is first mentioned, by itself or by another package: apt prefers the later one of two
    /// providers that are otherwise equal. `None` for a package that is not there.
    pub fn rank(&self, name: &str) -> Option<u32> {
        let bytes = self.bytes.as_ref();
        self.packages.equal_range(bytes, name).next().map(|row| self.packages.number(bytes, row, 4))
    }

    /// Names of the packages that provide a virtual package, in some version.
    pub fn providers(&self, virtual_name: &str) -> impl Iterator<Item = &str> + '_ {
        let bytes = self.bytes.as_ref();
        self.provides.equal_range(bytes, virtual_name).map(move |row| self.provides.text(bytes, row, 2))
    }

    /// Names of all packages, sorted, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.names_where(|_| true)
    }

    /// Names of the packages that are Essential, sorted, each once.
    pub fn essential(&self) -> impl Iterator<Item = &str> + '_ {
        self.names_where(|flags| flags & ESSENTIAL != 0)
    }

    fn names_where(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = &str> {
        let bytes = self.bytes.as_ref();
        let mut last = "";
        (0..self.packages.rows).filter(move |row| wanted(self.packages.number(bytes, *row, 5))).filter_map(move |row| {
            let name = self.packages.text(bytes, row, 0);
            let new = name != last;
            last = name;
            new.then_some(name)
        })
    }

    /// Every package, by name; parses all of them, one after another.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, IndexError>> + '_ {
        let bytes = self.bytes.as_ref();
        (0..self.packages.rows).map(move |row| Ok(Record::parse(self.packages.bytes(bytes, row, 2))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stanza(name: &str, version: &str, rest: &str) -> String {
        let digest = "0".repeat(64);
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{rest}Filename: pool/{name}.deb\nSize: 1\n\
             SHA256: {digest}\nMD5sum: ignored\n\n"
        )
    }

    fn index(packages: &str) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut packages.as_bytes(), &mut out).expect("build");
        out
    }

    fn sample() -> Vec<u8> {
        let text = [
            stanza("mawk", "1", "Provides: awk (= 1), unix-tool\nEssential: yes\n"),
            stanza("base", "2", "Depends: zlib, awk | gawk,\n libc6:any (>= 2)\nTag: much,\n more\n"),
            stanza("gawk", "1", "Provides: awk\n"),
            stanza("base", "1", ""),
            stanza("libc6", "2", ""),
            stanza("zlib", "1", "Essential: yes\n"),
        ];
        index(&text.concat())
    }

    #[test]
    fn packages_are_found_by_name_and_by_what_they_provide() {
        let index = Index::open(sample()).expect("open");
        let versions: Vec<_> = index.find("base").map(|r| r.expect("record").version.to_string()).collect();
        assert_eq!(versions, ["2", "1"]);
        let depends = index.find("base").next().expect("one").expect("record").depends;
        assert_eq!(depends.to_string(), "zlib, awk | gawk, libc6:any (>= 2)");
        assert_eq!(index.find("bas").count() + index.find("basee").count() + index.find("").count(), 0);
        assert_eq!(index.providers("awk").collect::<Vec<_>>(), ["gawk", "mawk"]);
        assert_eq!(index.providers("mawk").count(), 0);
        assert_eq!(index.names().collect::<Vec<_>>(), ["base", "gawk", "libc6", "mawk", "zlib"]);
        assert_eq!(index.essential().collect::<Vec<_>>(), ["mawk", "zlib"]);
        assert_eq!(index.records().filter(Result::is_ok).count(), 6);
    }

    #[test]
    fn ranks_follow_first_mention_and_qualified_names_are_none() {
        let index = Index::open(sample()).expect("open");
        let rank = |name| index.rank(name).expect("rank");
        assert!(rank("mawk") < rank("base") && rank("base") < rank("zlib") && rank("zlib") < rank("gawk"));
        assert!(rank("libc6") > rank("gawk"));
        assert_eq!(index.rank("awk"), None);
    }

    #[test]
    fn an_empty_list_makes_an_empty_index() {
        let index = Index::open(index("\n\n")).expect("open");
        assert_eq!(index.names().count(), 0);
        assert_eq!(index.find("a").count(), 0);
    }

    #[test]
    fn what_no_list_has_is_refused() {
        let long = format!("Package: a\nDescription: {}", "x".repeat(MAX_STANZA));
        let mut out = Vec::new();
        let error = build(&mut long.as_bytes(), &mut out).expect_err("too long");
        assert!(matches!(error, IndexError::TooLarge(_)), "{error}");
        let error = build(&mut &b"Package: a\nDescription: \xff\n\n"[..], &mut out).expect_err("no text");
        assert!(matches!(error, IndexError::NotUtf8(_)), "{error}");
    }

    /// Asks everything there is to ask; only must not panic.
    fn exercise(bytes: Vec<u8>) {
        let Ok(index) = Index::open(bytes) else { return };
        for name in ["base", "mawk", "zlib", "awk", ""] {
            index.find(name).for_each(drop);
            index.providers(name).for_each(drop);
            let _ = index.rank(name);
        }
        index.records().for_each(drop);
        let _ = index.names().count() + index.essential().count();
    }

    proptest! {
        #[test]
        fn damaged_indexes_are_survived(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
            let mut bytes = sample();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            exercise(bytes);
        }

        #[test]
        fn hostile_tables_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300), cuts in any::<[u16; 3]>()) {
            let mut cuts = cuts.map(|c| u32::from(c) % (body.len() as u32 + 1));
            cuts.sort_unstable();
            let mut bytes = body;
            let end = bytes.len() as u32;
            let mut footer = words([cuts[0], cuts[1], cuts[2], end, FORMAT]);
            footer.resize(FOOTER - MAGIC.len(), 0);
            bytes.extend(footer);
            bytes.extend(MAGIC);
            exercise(bytes);
        }

        #[test]
        fn cut_indexes_are_refused(keep in any::<prop::sample::Index>()) {
            let bytes = sample();
            let keep = keep.index(bytes.len());
            prop_assert!(Index::open(&bytes[..keep]).is_err());
        }

        #[test]
        fn any_list_is_survived(text in "(Package: [a-c]{1,2}|Depends: [a-c|,(:=1) ]{0,9}|Provides: [a-c, ]{0,5}|\\PC{0,9}|\n| x){0,30}") {
            let mut out = Vec::new();
            if build(&mut text.replace("Depends", "\nDepends").as_bytes(), &mut out).is_ok() {
                exercise(out);
            }
        }
    }
}
