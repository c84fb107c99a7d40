//! A tar writer of which the bytes are a function of the entries alone.
//!
//! POSIX.1-2001: ustar headers, and a pax header before an entry only where ustar has no room for it. Nothing of the
//! machine gets in: no names of owners, no device numbers, one time for all.

use std::io::{self, Read, Write};

use crate::store_path::STORE;

/// 1 January 1980. Zip knows no earlier time, and tools of several languages refuse files that seem older.
pub(crate) const MTIME: u64 = 315_532_800;
/// The time that Nix gives everything in its store; what Python compiled of its sources there says it, too.
const STORE_MTIME: u64 = 1;

const BLOCK: usize = 512;
/// Largest number that seven octal digits hold.
const MAX_ID: u32 = 0o7_777_777;
/// Largest number that eleven octal digits hold.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// What an entry is, with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type<'a> {
    Dir,
    File {
        size: u64,
    },
    /// A symlink to this.
    Link(&'a str),
    /// A second name of an earlier entry.
    Hard(&'a str),
}

/// Everything of an entry but its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Relative, without leading or trailing slash.
    pub(crate) path: &'a str,
    pub(crate) kind: Type<'a>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) xattrs: &'a [(String, Vec<u8>)],
}

pub(crate) struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, buffer: vec![0; 256 << 10] }
    }

    /// Writes an entry without content.
    pub(crate) fn entry(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.header(head)
    }

    /// Writes a file whose content is in memory.
    pub(crate) fn bytes(&mut self, head: &Head<'_>, content: &[u8]) -> io::Result<()> {
        self.header(head)?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// Writes a file of `size` bytes from a reader. `Ok(false)` if the reader has more or less than that; what was
    /// written is of no use then.
    pub(crate) fn file(&mut self, head: &Head<'_>, size: u64, content: &mut dyn Read) -> io::Result<bool> {
        self.header(head)?;
        let mut left = size;
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) if n as u64 > left => return Ok(false),
                Ok(n) => {
                    self.out.write_all(&self.buffer[..n])?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.pad(size)?;
        Ok(left == 0)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            self.out.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }

    fn header(&mut self, head: &Head<'_>) -> io::Result<()> {
        let directory = if head.kind == Type::Dir { "/" } else { "" };
        let path = format!("{}{directory}", head.path);
        let (flag, size, link) = match head.kind {
            Type::Dir => (b'5', 0, ""),
            Type::File { size } => (b'0', size, ""),
            Type::Link(to) => (b'2', 0, to),
            Type::Hard(to) => (b'1', 0, to),
        };
        let (prefix, name) = split(&path);
        let mut pax = Vec::new();
        if name.is_none() {
            record(&mut pax, "path", path.as_bytes());
        }
        if link.len() > 100 || !link.is_ascii() {
            record(&mut pax, "linkpath", link.as_bytes());
        }
        if size > MAX_SIZE {
            record(&mut pax, "size", size.to_string().as_bytes());
        }
        if head.uid > MAX_ID {
            record(&mut pax, "uid", head.uid.to_string().as_bytes());
        }
        if head.gid > MAX_ID {
            record(&mut pax, "gid", head.gid.to_string().as_bytes());
        }
        for (name, value) in head.xattrs {
            record(&mut pax, &format!("SCHILY.xattr.{name}"), value);
        }
        if !pax.is_empty() {
            let extended = Fields { flag: b'x', mode: 0o644, uid: 0, gid: 0, size: pax.len() as u64, time: MTIME };
            self.out.write_all(&block("", "pax", "", &extended))?;
            self.out.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        let fields = Fields {
            flag,
            mode: head.mode,
            uid: if head.uid > MAX_ID { 0 } else { head.uid },
            gid: if head.gid > MAX_ID { 0 } else { head.gid },
            size: if size > MAX_SIZE { 0 } else { size },
            time: if head.path.starts_with(STORE) { STORE_MTIME } else { MTIME },
        };
        let name = name.unwrap_or_else(|| truncated(&path, 100));
        let link = if link.is_ascii() { truncated(link, 100) } else { "" };
        self.out.write_all(&block(prefix, name, link, &fields))
    }
}

/// The numbers of a header.
struct Fields {
    flag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    time: u64,
}

/// Prefix and name of a path that fits ustar's two fields; no name if it does not, or is not ASCII.
fn split(path: &str) -> (&str, Option<&str>) {
    if !path.is_ascii() {
        return ("", None);
    }
    if path.len() <= 100 {
        return ("", Some(path));
    }
    // The cut is at a slash, with at most 155 bytes before and 1 to 100 after it.
    let first = path.len() - 101;
    let cut = path.as_bytes()[first..path.len() - 1].iter().position(|b| *b == b'/').map(|at| at + first);
    match cut {
        Some(at) if at > 0 && at <= 155 => (&path[..at], Some(&path[at + 1..])),
        _ => ("", None),
    }
}

fn truncated(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    for (i, byte) in field[..digits].iter_mut().enumerate() {
        *byte = b'0' + ((number >> (3 * (digits - 1 - i))) & 7) as u8;
    }
}

fn block(prefix: &str, name: &str, link: &str, fields: &Fields) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut block[100..108], u64::from(fields.mode & 0o7777));
    octal(&mut block[108..116], u64::from(fields.uid));
    octal(&mut block[116..124], u64::from(fields.gid));
    octal(&mut block[124..136], fields.size);
    octal(&mut block[136..148], fields.time);
    block[148..156].fill(b' ');
    block[156] = fields.flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], 0);
    octal(&mut block[337..345], 0);
    block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    octal(&mut block[148..155], u64::from(sum));
    block[155] = b' ';
    block
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} {key}=").as_bytes());
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(path: &'a str, kind: Type<'a>) -> Head<'a> {
        Head { path, kind, mode: 0o644, uid: 0, gid: 0, xattrs: &[] }
    }

    /// What another reader makes of it.
    fn read(bytes: &[u8]) -> Vec<(String, char, u64, u64, String, String)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("content");
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
            let link = entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).expect("UTF-8"));
            let header = entry.header();
            let kind = char::from(header.entry_type().as_byte());
            (
                path,
                kind,
                header.mtime().expect("a time"),
                header.uid().expect("an owner"),
                link.unwrap_or_default(),
                text,
            )
        });
        entries.collect()
    }

    #[test]
    fn others_read_what_is_written() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        let longer = format!("{}/{}", "d".repeat(200), "f".repeat(120));
        let target = "t".repeat(300);
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&Head { mode: 0o1777, ..head("tmp", Type::Dir) }).expect("dir");
        tar.bytes(&head(&long, Type::File { size: 2 }), b"ab").expect("file");
        tar.bytes(&Head { uid: 3_000_000, ..head(&longer, Type::File { size: 0 }) }, b"").expect("file");
        assert!(tar.file(&head("é", Type::File { size: 600 }), 600, &mut &[b'x'; 600][..]).expect("file"));
        tar.entry(&head("l", Type::Link(&target))).expect("link");
        tar.entry(&head("h", Type::Hard("é"))).expect("hard link");
        let bytes = tar.finish().expect("the end");
        assert_eq!(bytes.len() % BLOCK, 0);
        let entries = read(&bytes);
        let names: Vec<(&str, char, &str)> = entries.iter().map(|e| (e.0.as_str(), e.1, e.4.as_str())).collect();
        let expected = [
            ("tmp/", '5', ""),
            (&long, '0', ""),
            (&longer, '0', ""),
            ("é", '0', ""),
            ("l", '2', &target),
            ("h", '1', "é"),
        ];
        assert_eq!(names, expected);
        assert!(entries.iter().all(|e| e.2 == MTIME));
        assert_eq!((entries[1].5.as_str(), entries[3].5.len()), ("ab", 600));
    }

    #[test]
    fn what_lies_in_nixs_store_has_nixs_time() {
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&head("nix/store", Type::Dir)).expect("dir");
        tar.bytes(&head("nix/store/x/f", Type::File { size: 1 }), b"x").expect("file");
        let times: Vec<u64> = read(&tar.finish().expect("the end")).iter().map(|e| e.2).collect();
        assert_eq!(times, [MTIME, STORE_MTIME]);
    }

    #[test]
    fn every_length_of_a_path_survives() {
        for length in 1..330 {
            for slash in [0, length / 3, length / 2, length - 1] {
                let mut path = "a".repeat(length);
                if slash > 0 && slash < length - 1 {
                    path.replace_range(slash..=slash, "/");
                }
                let mut tar = TarWriter::new(Vec::new());
                tar.bytes(&head(&path, Type::File { size: 1 }), b"x").expect("file");
                assert_eq!(read(&tar.finish().expect("the end"))[0].0, path);
            }
        }
    }

    #[test]
    fn a_file_of_another_length_is_told() {
        for content in [&b"abc"[..], b"abcde"] {
            let mut tar = TarWriter::new(Vec::new());
            assert!(!tar.file(&head("f", Type::File { size: 4 }), 4, &mut &content[..]).expect("written"));
        }
    }
}
