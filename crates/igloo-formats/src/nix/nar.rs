//! Nix archives (`nix-archive-1`), written at the speed of the hash that usually reads them.
//!
//! Foreign archives are parsed by the `nix-archive` crate, which is strict and bounded, in [`read`], with the limits
//! that Nix has since 2.34.7.

use std::io::{self, Read, Write};

/// Deepest tree that Nix reads (since 2.34.7): nodes below one another, the root included.
pub const MAX_DEPTH: usize = 64;

/// Longest name of a directory's entry: no file system that Nix runs on takes a longer one.
pub const MAX_NAME: usize = 255;
/// Longest target of a symlink, as the kernel has it.
pub const MAX_TARGET: usize = 4095;

/// What comes by when an archive is read; a directory's entries come between its `Dir` and its `EndDir`.
pub enum Node<'a> {
    /// A directory begins.
    Dir,
    /// The innermost open directory ends.
    EndDir,
    /// A file, whose content may be read now. What is left of it is skipped.
    File {
        /// May be run.
        executable: bool,
        /// How many bytes it says it has.
        size: u64,
        /// The bytes.
        content: &'a mut dyn Read,
    },
    /// A symlink and its target.
    Symlink(&'a [u8]),
}

/// An archive that is none, or a visitor that failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NarError(#[from] NarFault);

#[derive(Debug, thiserror::Error)]
enum NarFault {
    #[error("{0}")]
    Archive(nix_archive::nar::Error),
    #[error("a name of {0} bytes is longer than {MAX_NAME}")]
    LongName(usize),
    #[error("a symlink has a bad target of {0} bytes")]
    BadTarget(usize),
    #[error(transparent)]
    Io(io::Error),
}

impl NarError {
    /// The failure of the reader or of the visitor, if it was one.
    pub fn into_io(self) -> Result<io::Error, Self> {
        match self.0 {
            NarFault::Io(error) => Ok(error),
            fault => Err(Self(fault)),
        }
    }
}

/// Reads one archive, which must be all that the reader has. The root has no name. Names are unique, sorted, and no
/// `.`, `..` or path; targets are whatever they are. Give it a buffered reader: it asks for a few bytes at a time.
pub fn read<R: Read + ?Sized>(
    reader: &mut R,
    mut visit: impl FnMut(Option<&[u8]>, Node<'_>) -> io::Result<()>,
) -> Result<(), NarError> {
    use nix_archive::nar::{Error, Event};
    let mut fault = None;
    let result = nix_archive::nar::decode_events_reader(reader, |event| {
        let mut take = |name: Option<&[u8]>, node: Node<'_>| {
            if let Some(name) = name.filter(|n| n.len() > MAX_NAME) {
                fault = Some(NarFault::LongName(name.len()));
                return Err(Error::BadMagic);
            }
            Ok(visit(name, node)?)
        };
        match event {
            Event::DirectoryStart { name } => take(name, Node::Dir),
            Event::DirectoryEnd { .. } => take(None, Node::EndDir),
            Event::Regular { name, executable, mut contents } => {
                let size = contents.size();
                take(name, Node::File { executable, size, content: &mut contents })
            }
            Event::Symlink { name, target } => {
                if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
                    fault = Some(NarFault::BadTarget(target.len()));
                    return Err(Error::BadMagic);
                }
                take(name, Node::Symlink(target))
            }
        }
    });
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(fault
            .unwrap_or(match error {
                Error::Io(error) => NarFault::Io(error),
                error => NarFault::Archive(error),
            })
            .into()),
    }
}

/// Tokens are gathered up to this many bytes, so that the hash sees few and long updates.
const GATHER: usize = 32 << 10;
/// Content from this length on goes to the writer as it is.
const DIRECT: usize = 4 << 10;

/// Writes one archive, token by token; the caller knows the order.
pub struct Writer<W> {
    out: W,
    gathered: Vec<u8>,
    /// Content that the open file still lacks, and the zeros after it.
    left: u64,
    padding: u8,
}

impl<W: Write> Writer<W> {
    /// Begins an archive; exactly one node must follow.
    pub fn new(out: W) -> Self {
        let mut writer = Self { out, gathered: Vec::with_capacity(GATHER + 256), left: 0, padding: 0 };
        writer.token(b"nix-archive-1");
        writer
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.out)
    }

    /// Begins a regular file; `size` bytes of [`Writer::content`] must follow, then [`Writer::end_file`].
    pub fn begin_file(&mut self, executable: bool, size: u64) {
        self.token(b"(");
        self.token(b"type");
        self.token(b"regular");
        if executable {
            self.token(b"executable");
            self.token(b"");
        }
        self.token(b"contents");
        self.gathered.extend_from_slice(&size.to_le_bytes());
        self.left = size;
        self.padding = (size.wrapping_neg() % 8) as u8;
    }

    /// Some content of the open file.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| wrong_size("grew"))?;
        if bytes.len() >= DIRECT {
            self.flush()?;
            return self.out.write_all(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        self.flush_if_full()
    }

    /// Ends the open file.
    pub fn end_file(&mut self) -> io::Result<()> {
        if self.left != 0 {
            return Err(wrong_size("shrank"));
        }
        self.gathered.extend_from_slice(&[0; 8][..usize::from(self.padding)]);
        self.token(b")");
        self.flush_if_full()
    }

    /// A symlink.
    pub fn symlink(&mut self, target: &[u8]) -> io::Result<()> {
        for token in [b"(", &b"type"[..], b"symlink", b"target", target, b")"] {
            self.token(token);
        }
        self.flush_if_full()
    }

    /// Begins a directory; entries in increasing order of their names must follow, then [`Writer::end_dir`].
    pub fn begin_dir(&mut self) {
        for token in [b"(", &b"type"[..], b"directory"] {
            self.token(token);
        }
    }

    /// Begins an entry; exactly one node must follow, then [`Writer::end_entry`].
    pub fn begin_entry(&mut self, name: &[u8]) {
        for token in [&b"entry"[..], b"(", b"name", name, b"node"] {
            self.token(token);
        }
    }

    /// Ends an entry.
    pub fn end_entry(&mut self) -> io::Result<()> {
        self.token(b")");
        self.flush_if_full()
    }

    /// Ends a directory.
    pub fn end_dir(&mut self) {
        self.token(b")");
    }

    fn token(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.gathered.extend_from_slice(bytes);
        self.gathered.extend_from_slice(&[0; 8][..bytes.len().wrapping_neg() % 8]);
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.gathered.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

fn wrong_size(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a file {what} while it was read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use igloo_base::Sha256;

    /// An archive of a directory.
    fn directory(fill: impl FnOnce(&mut Writer<Vec<u8>>)) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.begin_dir();
        fill(&mut writer);
        writer.end_dir();
        writer.finish().expect("memory")
    }

    fn entry(writer: &mut Writer<Vec<u8>>, name: &str, fill: impl FnOnce(&mut Writer<Vec<u8>>)) {
        writer.begin_entry(name.as_bytes());
        fill(writer);
        writer.end_entry().expect("memory");
    }

    fn file(writer: &mut Writer<Vec<u8>>, name: &str, executable: bool, content: &[u8]) {
        entry(writer, name, |writer| {
            writer.begin_file(executable, content.len() as u64);
            writer.content(content).expect("memory");
            writer.end_file().expect("memory");
        });
    }

    fn link(writer: &mut Writer<Vec<u8>>, name: &str, target: &str) {
        entry(writer, name, |writer| writer.symlink(target.as_bytes()).expect("memory"));
    }

    fn below(writer: &mut Writer<Vec<u8>>, name: &str, fill: impl FnOnce(&mut Writer<Vec<u8>>)) {
        entry(writer, name, |writer| {
            writer.begin_dir();
            fill(writer);
            writer.end_dir();
        });
    }

    #[test]
    fn the_tree_of_the_manual_hashes_as_nix_says() {
        let nar = directory(|w| {
            file(w, "B", false, b"x");
            file(w, "a.txt", false, b"hello\n");
            link(w, "l", "a.txt");
            file(w, "run", true, b"#!/bin/sh\n");
            below(w, "sub", |w| file(w, "z", false, b""));
        });
        // nix-store --dump t | sha256sum
        assert_eq!(Sha256::of(&nar).to_string(), "b4c10ef90fc732f3568e43e113a727926f06a422300bb225f5700789abf1582e");
        let path = crate::nix::StorePath::fixed_recursive("t", Sha256::of(&nar), &[], false).expect("name");
        // nix store add-path t --name t --dry-run
        assert_eq!(path.full(), "/nix/store/wwkmkbhh3bariwn96wjkzybgzffq2bvg-t");
    }

    #[test]
    fn files_that_change_their_size_are_errors() {
        let mut writer = Writer::new(Vec::new());
        writer.begin_file(false, 3);
        assert!(writer.content(b"four").is_err());
        writer.content(b"ab").expect("less");
        assert!(writer.end_file().is_err());
    }

    /// An archive's tokens.
    fn tokens(all: &[&[u8]]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        all.iter().for_each(|t| writer.token(t));
        writer.finish().expect("memory")
    }

    fn paths(nar: &[u8]) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        let visit = |name: Option<&[u8]>, node: Node<'_>| {
            let name = name.map(|n| String::from_utf8_lossy(n).into_owned()).unwrap_or_default();
            out.push(match node {
                Node::Dir => format!("{name}/"),
                Node::EndDir => "..".to_owned(),
                Node::Symlink(target) => format!("{name} -> {}", String::from_utf8_lossy(target)),
                Node::File { executable, size, content } => {
                    let mut text = String::new();
                    content.read_to_string(&mut text)?;
                    format!("{name} {executable} {size} {text}")
                }
            });
            Ok(())
        };
        read(&mut &nar[..], visit).map_err(|e| e.to_string()).map(|()| out)
    }

    #[test]
    fn archives_are_read_node_by_node() {
        let nar = directory(|w| {
            below(w, "d", |w| file(w, "f", false, b"hi"));
            link(w, "l", "../../etc/passwd");
        });
        assert_eq!(paths(&nar).expect("read"), ["/", "d/", "f false 2 hi", "..", "l -> ../../etc/passwd", ".."]);
        for cut in 0..nar.len() {
            assert!(paths(&nar[..cut]).is_err(), "{cut}");
        }
        assert!(paths(&[&nar[..], b"x"].concat()).is_err(), "something follows");
    }

    #[test]
    fn hostile_archives_are_refused() {
        let entry = |name: &[u8]| {
            let mut writer = Writer::new(Vec::new());
            writer.begin_dir();
            writer.begin_entry(name);
            writer.symlink(b"t").expect("memory");
            writer.end_entry().expect("memory");
            writer.end_dir();
            writer.finish().expect("memory")
        };
        assert!(paths(&entry(b"a")).is_ok());
        assert!(paths(&entry(&[b'a'; 255])).is_ok());
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'a'; 256]] {
            assert!(paths(&entry(name)).is_err(), "{name:?}");
        }
        let link = |target: &[u8]| {
            let mut writer = Writer::new(Vec::new());
            writer.symlink(target).expect("memory");
            writer.finish().expect("memory")
        };
        assert!(paths(&link(&[b'a'; 4095])).is_ok());
        for target in [&b""[..], b"a\0b", &[b'a'; 4096]] {
            assert!(paths(&link(target)).is_err(), "{}", target.len());
        }
        let deep = |depth: usize| {
            let mut writer = Writer::new(Vec::new());
            for _ in 0..depth {
                writer.begin_dir();
                writer.begin_entry(b"d");
            }
            writer.symlink(b"t").expect("memory");
            for _ in 0..depth {
                writer.end_entry().expect("memory");
                writer.end_dir();
            }
            writer.finish().expect("memory")
        };
        assert!(paths(&deep(63)).is_ok());
        assert!(paths(&deep(64)).is_err());
        assert!(paths(&deep(1_000_000)).is_err(), "and not by running out of stack");
        let (a, b) = (
            [&b"entry"[..], b"(", b"name", b"a", b"node"],
            [&b"("[..], b"type", b"symlink", b"target", b"x", b")", b")"],
        );
        let twice: Vec<&[u8]> = [&b"("[..], b"type", b"directory"]
            .into_iter()
            .chain(a)
            .chain(b)
            .chain(a)
            .chain(b)
            .chain([&b")"[..]])
            .collect();
        assert!(paths(&tokens(&twice)).is_err(), "one name twice");
        let late = [&b"("[..], b"type", b"regular", b"contents", b"x", b"executable", b"", b")"];
        assert!(paths(&tokens(&late)).is_err(), "executable after the contents");
        let mut padded = tokens(&[b"(", b"type", b"regular", b"contents", b"x", b")"]);
        let at = padded.iter().rposition(|b| *b == b'x').expect("content");
        padded[at + 1] = 1;
        assert!(paths(&padded).is_err(), "padding that is not zero");
        let mut huge = tokens(&[b"(", b"type", b"regular", b"contents"]);
        huge.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(paths(&huge).is_err(), "more bytes than there are");
        let mut long = tokens(&[b"("]);
        long.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(paths(&long).is_err());
    }

    #[test]
    fn the_strict_parser_agrees() {
        let nar = directory(|w| {
            for i in 0..50_u8 {
                below(w, &format!("d{i:02}"), |w| file(w, "f", false, &vec![i; usize::from(i) * 997]));
            }
        });
        let entries = nix_archive::nar::decode(&nar).expect("well-formed");
        assert_eq!(entries.len(), 101, "50 files, 50 directories, the root");
    }
}
