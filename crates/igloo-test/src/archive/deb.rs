//! Writers of the two archive formats that a `.deb` is made of, written by hand so that no reader under test
//! shares code with them.

use super::package::{Entry, Kind};

/// Time of every member; the reader under test must not depend on it.
const TIME: u64 = 1_700_000_000;

/// An `ar` archive.
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let header = format!("{name:<16}{TIME:<12}{0:<6}{0:<6}{1:<8}{2:<10}`\n", 0, "100644", content.len());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A `tar` archive in the GNU form of ustar that dpkg writes.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (flag, target, content): (u8, &str, &[u8]) = match &entry.kind {
            Kind::File(content) => (b'0', "", content),
            Kind::Directory => (b'5', "", &[]),
            Kind::Symlink(target) => (b'2', target, &[]),
            Kind::Hardlink(target) => (b'1', target, &[]),
            Kind::Other(flag) => (*flag, "", &[]),
        };
        for (long, flag) in [(target, b'K'), (&entry.path, b'L')] {
            if long.len() > 100 {
                let mut name = long.as_bytes().to_vec();
                name.push(0);
                header(&mut out, "././@LongLink", flag, "", name.len(), 0, &(0, String::new()), &(0, String::new()));
                body(&mut out, &name);
            }
        }
        header(&mut out, &entry.path, flag, target, content.len(), entry.mode, &entry.user, &entry.group);
        body(&mut out, content);
    }
    out.resize(out.len() + 1024, 0);
    // Blocks of 20 records, as tar pads.
    out.resize(out.len().next_multiple_of(10_240), 0);
    out
}

fn body(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

#[allow(clippy::too_many_arguments)] // they are the fields of the header
fn header(
    out: &mut Vec<u8>,
    path: &str,
    flag: u8,
    target: &str,
    size: usize,
    mode: u32,
    user: &(u64, String),
    group: &(u64, String),
) {
    let mut block = [0u8; 512];
    let mut put = |at: usize, longest: usize, text: &[u8]| {
        let text = &text[..text.len().min(longest)];
        block[at..at + text.len()].copy_from_slice(text);
    };
    put(0, 100, path.as_bytes());
    put(100, 8, format!("{mode:07o}\0").as_bytes());
    put(108, 8, format!("{:07o}\0", user.0).as_bytes());
    put(116, 8, format!("{:07o}\0", group.0).as_bytes());
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, format!("{TIME:011o}\0").as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[flag]);
    put(157, 100, target.as_bytes());
    put(257, 8, b"ustar  \0");
    put(265, 31, user.1.as_bytes());
    put(297, 31, group.1.as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}
