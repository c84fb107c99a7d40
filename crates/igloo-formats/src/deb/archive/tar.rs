//! Tar as packages use it: ustar, GNU long names, pax headers. Read by hand, since content should go from the
//! decompressor's buffer straight into files, and since refusing is the larger half of the work.

use std::io::Read;

use super::{ArchiveError, Part, shown};

const BLOCK: usize = 512;
/// How much is decompressed at once: content is written from here, so it should stay in the core's own cache.
const OUTPUT: usize = 256 << 10;
/// Longest name in a GNU long-name entry: a path that Linux takes, and some.
const MAX_LONG_NAME: u64 = 8 << 10;
/// Longest pax header of one entry: names and extended attributes, which Linux caps at 64 KiB each.
const MAX_PAX: u64 = 256 << 10;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file with content.
    File,
    /// A second name of an earlier entry, named by [`TarEntry::link`].
    Hard,
    /// A symlink to [`TarEntry::link`].
    Symlink,
    /// A directory.
    Dir,
    /// A device, a pipe or something unheard of.
    Special,
}

/// Header of one entry, names as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Name, unchecked.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarKind,
    /// Target of a link, unchecked.
    pub link: Vec<u8>,
    /// The lower twelve bits of the mode.
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
    /// Owner by name, may be empty.
    pub uname: String,
    /// Group by name, may be empty.
    pub gname: String,
    /// Bytes of content; zero unless it is a file.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What pax and GNU headers say about the entry that follows them.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    uname: Option<String>,
    gname: Option<String>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Reads a tar archive front to back.
pub struct TarReader<R> {
    input: R,
    part: Part,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that may still be decompressed.
    budget: u64,
    cap: u64,
    entries: u64,
    max_entries: u64,
    /// Content and padding of the open entry that nobody has read yet.
    left: u64,
    padding: u64,
    done: bool,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R, part: Part, cap: u64, max_entries: u64) -> Self {
        Self {
            input,
            part,
            buffer: vec![0; OUTPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            budget: cap,
            cap,
            entries: 0,
            max_entries,
            left: 0,
            padding: 0,
            done: false,
        }
    }

    /// The next entry; what is left of the last one is skipped. `None` at the end mark.
    #[allow(clippy::should_implement_trait)] // its items would borrow nothing, but its errors end it
    pub fn next(&mut self) -> Result<Option<TarEntry>, ArchiveError> {
        let mut extra = Extra::default();
        while !self.done {
            self.skip()?;
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(self.too_large(self.max_entries, "entries"));
            }
            let mut header = [0u8; BLOCK];
            self.fill_block(&mut header)?;
            if header.iter().all(|b| *b == 0) {
                self.done = true;
                break;
            }
            self.check_sum(&header)?;
            let size = self.number(&header[124..136])?;
            match header[156] {
                b'L' => extra.path = Some(self.long_name(size)?),
                b'K' => extra.link = Some(self.long_name(size)?),
                b'x' => {
                    let content = self.whole(size, MAX_PAX)?;
                    self.pax(&content, &mut extra)?;
                }
                // Comments for the whole archive, as `git archive` writes them.
                b'g' => drop(self.whole(size, MAX_PAX)?),
                flag => return self.entry(&header, flag, size, extra).map(Some),
            }
        }
        Ok(None)
    }

    /// Some more content of the open entry, as it lies in the buffer; empty at its end.
    pub fn chunk(&mut self) -> Result<&[u8], ArchiveError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        if self.start == self.end {
            self.refill()?;
        }
        let n = usize::try_from(self.left).map_or(self.end - self.start, |left| left.min(self.end - self.start));
        let from = self.start;
        self.start += n;
        self.left -= n as u64;
        Ok(&self.buffer[from..from + n])
    }

    fn entry(&mut self, header: &[u8; BLOCK], flag: u8, size: u64, extra: Extra) -> Result<TarEntry, ArchiveError> {
        let path = extra.path.unwrap_or_else(|| header_name(header));
        let kind = match flag {
            // Before ustar, a directory was a file whose name ends in a slash.
            b'0' | 0 if path.ends_with(b"/") => TarKind::Dir,
            b'0' | b'7' | 0 => TarKind::File,
            b'1' => TarKind::Hard,
            b'2' => TarKind::Symlink,
            b'5' => TarKind::Dir,
            _ => TarKind::Special,
        };
        let size = extra.size.unwrap_or(size);
        if kind == TarKind::File {
            self.expect_content(size);
        } else if size != 0 {
            // Writers disagree on whether content follows, so nobody should write this.
            return Err(self.broken("an entry without content has a size"));
        }
        let id = |own: Option<u64>, field: &[u8]| {
            let id = own.map_or_else(|| self.number(field), Ok)?;
            u32::try_from(id).map_err(|_| self.broken("an owner's number is too large"))
        };
        Ok(TarEntry {
            kind,
            link: extra.link.unwrap_or_else(|| until_zero(&header[157..257]).to_vec()),
            mode: (self.number(&header[100..108])? & 0o7777) as u32,
            uid: id(extra.uid, &header[108..116])?,
            gid: id(extra.gid, &header[116..124])?,
            uname: extra.uname.unwrap_or_else(|| shown(until_zero(&header[265..297]))),
            gname: extra.gname.unwrap_or_else(|| shown(until_zero(&header[297..329]))),
            size,
            path,
            xattrs: extra.xattrs,
        })
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        while !self.chunk()?.is_empty() {}
        self.left = std::mem::take(&mut self.padding);
        while !self.chunk()?.is_empty() {}
        Ok(())
    }

    fn fill_block(&mut self, block: &mut [u8; BLOCK]) -> Result<(), ArchiveError> {
        self.left = BLOCK as u64;
        let mut have = 0;
        while have < BLOCK {
            let chunk = self.chunk()?;
            block[have..have + chunk.len()].copy_from_slice(chunk);
            have += chunk.len();
        }
        Ok(())
    }

    /// Content of a header entry, padding skipped.
    fn whole(&mut self, size: u64, max: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > max {
            return Err(self.broken("an extended header is too long"));
        }
        self.expect_content(size);
        let mut content = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(chunk);
        }
        Ok(content)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let content = self.whole(size, MAX_LONG_NAME)?;
        Ok(until_zero(&content).to_vec())
    }

    /// `<length> <key>=<value>\n`, repeated.
    fn pax(&self, mut content: &[u8], extra: &mut Extra) -> Result<(), ArchiveError> {
        let broken = || self.broken("an extended header makes no sense");
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).map_err(|_| broken());
        while !content.is_empty() {
            let space = content.iter().take(20).position(|b| *b == b' ').ok_or_else(broken)?;
            let length = decimal(&content[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
            let record = content.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || decimal(value).ok_or_else(broken);
            match key {
                b"path" => extra.path = Some(value.to_vec()),
                b"linkpath" => extra.link = Some(value.to_vec()),
                b"size" => extra.size = Some(number()?),
                b"uid" => extra.uid = Some(number()?),
                b"gid" => extra.gid = Some(number()?),
                b"uname" => extra.uname = Some(text(value)?),
                b"gname" => extra.gname = Some(text(value)?),
                _ if key.starts_with(b"GNU.sparse.") => return Err(self.broken("a file is sparse")),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        extra.xattrs.push((text(name)?, value.to_vec()));
                    }
                }
            }
            content = &content[length..];
        }
        Ok(())
    }

    fn check_sum(&self, header: &[u8; BLOCK]) -> Result<(), ArchiveError> {
        let stored = self.number(&header[148..156])?;
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        let blanks: u64 = header[148..156].iter().map(|b| u64::from(*b)).sum();
        if stored == sum - blanks + 8 * u64::from(b' ') { Ok(()) } else { Err(self.broken("a header is damaged")) }
    }

    /// A number in octal, or in GNU's way of writing large ones: the top bit, then big endian.
    fn number(&self, field: &[u8]) -> Result<u64, ArchiveError> {
        let value = if field[0] & 0x80 != 0 {
            field[1..].iter().try_fold(u64::from(field[0] & 0x7f), |n, b| n.checked_mul(256).map(|n| n | u64::from(*b)))
        } else {
            let digits = until_zero(field).trim_ascii();
            digits.iter().try_fold(0u64, |n, b| match b {
                b'0'..=b'7' => n.checked_mul(8).map(|n| n + u64::from(b - b'0')),
                _ => None,
            })
        };
        value.filter(|n| *n <= i64::MAX as u64).ok_or_else(|| self.broken("a header has a bad number"))
    }

    fn refill(&mut self) -> Result<(), ArchiveError> {
        let (mut want, mut got) = (self.buffer.len(), 0);
        if self.budget < want as u64 {
            // One byte more than allowed tells a whole archive from a larger one.
            want = self.budget as usize + 1;
        }
        while got < want {
            match self.input.read(&mut self.buffer[got..want]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArchiveError::Decompress { part: self.part, source }),
            }
        }
        self.budget = match self.budget.checked_sub(got as u64) {
            Some(rest) => rest,
            None => return Err(self.too_large(self.cap, "bytes")),
        };
        if got == 0 {
            return Err(ArchiveError::Truncated);
        }
        (self.start, self.end) = (0, got);
        Ok(())
    }

    fn broken(&self, why: &'static str) -> ArchiveError {
        ArchiveError::Tar { part: self.part, why }
    }

    fn too_large(&self, limit: u64, what: &'static str) -> ArchiveError {
        ArchiveError::TooLarge { part: self.part, limit, what }
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Name in the header itself; POSIX splits long ones, GNU uses the second field for other things.
fn header_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    let prefix = until_zero(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|n| *n <= i64::MAX as u64)
}
