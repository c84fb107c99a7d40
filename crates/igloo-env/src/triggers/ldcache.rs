//! Trigger 12: `/etc/ld.so.cache`, written here and not by the image's `ldconfig`, so that any architecture can be
//! assembled on any other.
//!
//! Format `glibc-ld.so.cache1.1`, little endian: header, entries of 24 bytes in the descending order in which the
//! loader searches, strings. Variants for better processors (`glibc-hwcaps`) are left to the baseline ones.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;

use igloo_formats::deb::meta::Kind;

use crate::EnvError;
use crate::layer::{Content, Layer, Node, What, join};

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// Deepest `include` of `ld.so.conf`.
const MAX_INCLUDES: u32 = 8;

struct Library {
    soname: String,
    path: String,
    flags: u32,
}

pub(crate) fn run(layer: &mut Layer<'_>) -> Result<(), EnvError> {
    let mut dirs = Vec::new();
    configured(layer, "etc/ld.so.conf", &mut dirs, 0)?;
    dirs.extend(["/lib", "/usr/lib"].map(str::to_owned));
    let (mut seen, mut libraries) = (BTreeSet::new(), Vec::new());
    for dir in dirs {
        let Some(resolved) = layer.resolve(&dir, true) else { continue };
        if layer.is_dir(&resolved) && seen.insert(resolved.clone()) {
            scan(layer, &dir, &resolved, &mut libraries)?;
        }
    }
    if libraries.is_empty() {
        return Ok(());
    }
    libraries.sort_by(|a: &Library, b: &Library| {
        compare(b.soname.as_bytes(), a.soname.as_bytes()).then_with(|| b.flags.cmp(&a.flags))
    });
    layer.replace("etc/ld.so.cache", encode(&libraries));
    Ok(())
}

/// Directories of a configuration file, in its order.
fn configured(layer: &Layer<'_>, path: &str, dirs: &mut Vec<String>, depth: u32) -> Result<(), EnvError> {
    if depth > MAX_INCLUDES {
        return Ok(());
    }
    for line in layer.read_text(path)?.unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|r| r.starts_with([' ', '\t'])) {
            let (dir, name) = crate::layer::split(pattern.trim());
            for path in layer.list(dir).into_iter().filter(|n| crate::script::matches(name, n)) {
                configured(layer, &join(dir, &path), dirs, depth + 1)?;
            }
        } else if line.starts_with('/') {
            dirs.push(line.trim_end_matches('/').to_owned());
        }
    }
    Ok(())
}

fn scan(layer: &mut Layer<'_>, dir: &str, resolved: &str, out: &mut Vec<Library>) -> Result<(), EnvError> {
    let mut found: Vec<Library> = Vec::new();
    for name in layer.list(resolved) {
        let library = name.starts_with("lib") || name.starts_with("ld-") || name.starts_with("ld.so");
        if !library || !name.contains(".so") || !name.is_ascii() {
            continue;
        }
        let path = join(resolved, &name);
        let Some((soname, flags)) = shared_object(layer, &path)? else { continue };
        let soname = soname.unwrap_or_else(|| name.clone());
        // A link named like the library, or like it without the version, is a name of its own.
        let link = layer.lstat(&path) == Some(What::Link);
        let own = link && (name == soname || (name.ends_with(".so") && soname.starts_with(&name)));
        let key = if own { name.clone() } else { soname };
        if key.contains('/') || key.is_empty() || found.iter().any(|l| l.soname == key) {
            continue;
        }
        // As ldconfig does: a library can be found by the name it gives itself.
        layer.link(&name, &join(resolved, &key));
        found.push(Library { path: format!("{dir}/{key}"), soname: key, flags });
    }
    out.append(&mut found);
    Ok(())
}

/// Soname and flags of the cache, if the path is a shared object of an architecture that igloo makes environments for.
fn shared_object(layer: &Layer<'_>, path: &str) -> Result<Option<(Option<String>, u32)>, EnvError> {
    let Some(path) = layer.resolve(path, true) else { return Ok(None) };
    let (member, path) = match layer.nodes.get(&path) {
        Some(Node::File(Content::Member { member, path })) => (*member, path.clone()),
        Some(_) => return Ok(None),
        None => match layer.union.get(&path) {
            Some(o) if matches!(o.entry.kind, Kind::File | Kind::Hard) => (o.member, path),
            _ => return Ok(None),
        },
    };
    let Ok(file) = layer.union.open_entry(member, &path) else { return Ok(None) };
    Ok(elf(&|at, buffer| file.read_exact_at(buffer, at).is_ok()))
}

/// Reads what the cache needs of an ELF file; anything odd is no library.
fn elf(read: &dyn Fn(u64, &mut [u8]) -> bool) -> Option<(Option<String>, u32)> {
    let mut head = [0u8; 64];
    if !read(0, &mut head[..52]) || &head[..4] != b"\x7fELF" || head[5] != 1 {
        return None;
    }
    let wide = match head[4] {
        1 => false,
        2 => true,
        _ => return None,
    };
    if wide && !read(0, &mut head) {
        return None;
    }
    let u16_at = |b: &[u8], at: usize| Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |b: &[u8], at: usize| Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |b: &[u8], at: usize| Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?));
    let word = |b: &[u8], at: usize| if wide { u64_at(b, at) } else { u32_at(b, at).map(u64::from) };
    const SHARED: u16 = 3;
    let flags = match (u16_at(&head, 16)?, u16_at(&head, 18)?, wide) {
        (SHARED, 62, true) => 0x0303,
        (SHARED, 183, true) => 0x0a03,
        (SHARED, 3, false) => 0x0003,
        _ => return None,
    };
    let (offset, size, count) = if wide {
        (word(&head, 32)?, u16_at(&head, 54)?, u16_at(&head, 56)?)
    } else {
        (word(&head, 28)?, u16_at(&head, 42)?, u16_at(&head, 44)?)
    };
    if usize::from(size) < if wide { 56 } else { 32 } || size > 256 || count > 128 {
        return None;
    }
    let mut table = vec![0u8; usize::from(size) * usize::from(count)];
    if !read(offset, &mut table) {
        return None;
    }
    let (mut dynamic, mut loads) = (None, Vec::new());
    for header in table.chunks_exact(usize::from(size)) {
        let at = if wide { [8, 16, 32] } else { [4, 8, 16] };
        let [offset, address, length] = [word(header, at[0])?, word(header, at[1])?, word(header, at[2])?];
        match u32_at(header, 0)? {
            1 => loads.push((offset, address, length)),
            2 => dynamic = Some((offset, length)),
            _ => {}
        }
    }
    let (offset, length) = dynamic?;
    // 4,000 entries; real ones have 30.
    let mut table = vec![0u8; usize::try_from(length).ok()?.min(64 << 10)];
    if !read(offset, &mut table) {
        return None;
    }
    let (mut soname, mut strings) = (None, None);
    let width = if wide { 8 } else { 4 };
    for entry in table.chunks_exact(2 * width) {
        let value = word(entry, width)?;
        match word(entry, 0)? {
            0 => break,
            5 => strings = Some(value),
            14 => soname = Some(value),
            _ => {}
        }
    }
    let (Some(name), Some(strings)) = (soname, strings) else { return Some((None, flags)) };
    let (offset, address, _) = *loads.iter().find(|(_, a, l)| strings >= *a && strings - a < *l)?;
    let at = strings.checked_sub(address)?.checked_add(offset)?.checked_add(name)?;
    // Near the end of the file less can be read at once.
    let mut text = Vec::new();
    for length in [128, 32, 8] {
        let mut chunk = vec![0u8; length];
        if read(at, &mut chunk) && chunk.contains(&0) {
            text = chunk;
            break;
        }
    }
    let end = text.iter().position(|c| *c == 0)?;
    text.truncate(end);
    Some((Some(String::from_utf8(text).ok()?), flags))
}

/// The loader's own order of names: runs of digits compare as numbers and come after every other sign.
fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    fn number(text: &mut &[u8]) -> i32 {
        let mut value = 0i32;
        while let [digit @ b'0'..=b'9', rest @ ..] = *text {
            value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
            *text = rest;
        }
        value
    }
    loop {
        let digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), _) if digit(a) && digit(b) => {
                let order = number(&mut a).cmp(&number(&mut b));
                if order.is_ne() {
                    return order;
                }
            }
            (Some(_), _) if digit(a) => return Ordering::Greater,
            (Some(_), _) if digit(b) => return Ordering::Less,
            (Some(x), y) => {
                let order = Some(x).cmp(&y);
                if order.is_ne() {
                    return order;
                }
                (a, b) = (&a[1..], &b[1..]);
            }
        }
    }
}

fn encode(libraries: &[Library]) -> Vec<u8> {
    let start = HEADER + ENTRY * libraries.len();
    let (mut entries, mut strings) = (Vec::new(), Vec::new());
    for library in libraries {
        // The name is the tail of the path.
        let value = start + strings.len();
        let key = value + library.path.len() - library.soname.len();
        strings.extend_from_slice(library.path.as_bytes());
        strings.push(0);
        for word in [library.flags, key as u32, value as u32, 0, 0, 0] {
            entries.extend_from_slice(&word.to_le_bytes());
        }
    }
    let mut out = MAGIC.to_vec();
    for word in [libraries.len() as u32, strings.len() as u32, 2 /* little endian */, 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend(entries);
    out.extend(strings);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_the_loader() {
        assert_eq!(compare(b"libc.so.6", b"libc.so.6"), Ordering::Equal);
        assert_eq!(compare(b"libx.so.10", b"libx.so.9"), Ordering::Greater);
        assert_eq!(compare(b"libx.so", b"libx.so.1"), Ordering::Less);
        assert_eq!(compare(b"lib1.so", b"liba.so"), Ordering::Greater);
        assert_eq!(compare(b"liba.so", b"libb.so"), Ordering::Less);
    }

    #[test]
    fn cache_has_the_documented_shape() {
        let library = Library { soname: "liba.so.1".into(), path: "/lib/liba.so.1".into(), flags: 0x303 };
        let bytes = encode(&[library]);
        assert_eq!(&bytes[..20], MAGIC);
        assert_eq!(bytes.len(), HEADER + ENTRY + "/lib/liba.so.1\0".len());
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        assert_eq!((word(20), word(24), bytes[28]), (1, 15, 2));
        assert_eq!(&bytes[word(HEADER + 4)..], b"liba.so.1\0");
        assert_eq!(&bytes[word(HEADER + 8)..], b"/lib/liba.so.1\0");
    }

    #[test]
    fn hostile_elf_is_no_library() {
        for bytes in [&b""[..], b"\x7fELF", &[0x7f; 64], b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0"]
        {
            let mut file = bytes.to_vec();
            file.resize(200, 0xff);
            let read = |at: u64, buffer: &mut [u8]| {
                let Ok(at) = usize::try_from(at) else { return false };
                match at.checked_add(buffer.len()).and_then(|end| file.get(at..end)) {
                    Some(part) => {
                        buffer.copy_from_slice(part);
                        true
                    }
                    None => false,
                }
            };
            assert_eq!(elf(&read), None);
        }
    }
}
