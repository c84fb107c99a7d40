//! Well-formed archives against the `tar` crate, and every kind of broken one.

use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

/// One `ar` member.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", content.len()).into_bytes();
    out.extend_from_slice(content);
    if content.len() % 2 == 1 {
        out.push(b'\n');
    }
    out
}

fn deb(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        out.extend(member(name, content));
    }
    out
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).expect("append");
    }
    builder.into_inner().expect("finish")
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(content).expect("compress");
    encoder.finish().expect("compress")
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("compress");
    encoder.finish().expect("compress")
}

type Read1 = Result<Vec<(TarEntry, Vec<u8>)>, ArchiveError>;

fn read_tar<R: Read>(mut tar: TarReader<R>) -> Read1 {
    let mut out = Vec::new();
    while let Some(entry) = tar.next()? {
        let mut content = Vec::new();
        loop {
            let chunk = tar.chunk()?;
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(chunk);
        }
        out.push((entry, content));
    }
    Ok(out)
}

type Entries = Vec<(TarEntry, Vec<u8>)>;

fn read_deb(bytes: &[u8], limits: Limits) -> Result<[Entries; 2], ArchiveError> {
    let mut deb = DebReader::new(Cursor::new(bytes), limits)?;
    let control = read_tar(deb.control()?)?;
    Ok([control, read_tar(deb.data()?)?])
}

fn read_raw_tar(bytes: &[u8]) -> Read1 {
    read_tar(TarReader::new(Cursor::new(bytes), Part::Data, 1 << 30, 1000))
}

const SMALL: Limits = Limits { control: 1 << 20, data: 1 << 20, entries: 100, memory: 64 << 20 };

#[test]
fn every_compression_gives_the_same_entries() {
    let control = tar_of(&[("control", b"Package: a\n")]);
    let data = tar_of(&[("usr/bin/x", &[7; 70_000]), ("empty", b"")]);
    let zst = |c: &[u8]| zstd::encode_all(c, 1).expect("compress");
    let variants = [
        ("control.tar", control.clone(), "data.tar", data.clone()),
        ("control.tar.gz", gz(&control), "data.tar.xz", xz(&data)),
        ("control.tar.xz", xz(&control), "data.tar.gz", gz(&data)),
        ("control.tar.zst/", zst(&control), "data.tar.zst", zst(&data)),
    ];
    for (cname, control, dname, data) in &variants {
        let mut bytes =
            deb(&[("debian-binary", b"2.0\n"), ("_note", b"odd"), (*cname, control), (*dname, data), ("_gpg", b"x")]);
        bytes.extend_from_slice(b"trailing garbage");
        let [control, data] = read_deb(&bytes, SMALL).expect(dname);
        assert_eq!(control[0].1, b"Package: a\n");
        assert_eq!(data.iter().map(|(e, _)| e.path.as_slice()).collect::<Vec<_>>(), [&b"usr/bin/x"[..], b"empty"]);
        assert_eq!(data[0].1, vec![7; 70_000]);
    }
}

#[test]
fn members_out_of_place_are_refused() {
    let (control, data) = (tar_of(&[("control", b"")]), tar_of(&[]));
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("data.tar", &data), ("control.tar", &control)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::Missing(Part::Control))));
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::Missing(Part::Data))));
    let bytes = deb(&[("control.tar", &control), ("data.tar", &data)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::NotADeb)));
    let bytes = deb(&[("debian-binary", b"3.0\n"), ("control.tar", &control), ("data.tar", &data)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::Format(v)) if v == "3.0"));
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar.bz2", &control), ("data.tar", &data)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::Compression(_))));
    assert!(matches!(read_deb(b"<html>404</html>", SMALL), Err(ArchiveError::NotADeb)));
}

#[test]
fn no_prefix_of_an_archive_is_an_archive() {
    let (control, data) = (tar_of(&[("control", b"x")]), tar_of(&[("a", &[1; 3000])]));
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gz(&control)), ("data.tar.xz", &xz(&data))]);
    read_deb(&bytes, SMALL).expect("whole");
    // The last bytes of an xz stream are an index of what was read before; the digest of the .deb covers them.
    for end in 0..bytes.len() - 64 {
        assert!(read_deb(&bytes[..end], SMALL).is_err(), "{end} of {}", bytes.len());
    }
}

#[test]
fn bombs_end_at_the_limit() {
    let data = xz(&tar_of(&[("zeros", &vec![0; 3 << 20])]));
    assert!(data.len() < 4096, "a bomb indeed");
    let control = tar_of(&[("control", b"")]);
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &data)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::TooLarge { part: Part::Data, what: "bytes", .. })));
    let limits = Limits { data: (3 << 20) + 1536, ..SMALL };
    read_deb(&bytes, limits).expect("exactly what is allowed");

    let many: Vec<(String, &[u8])> = (0..200).map(|i| (format!("f{i}"), &b""[..])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let data = tar_of(&many);
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &data)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::TooLarge { what: "entries", .. })));
}

#[test]
fn a_decompressor_that_wants_too_much_memory_is_refused() {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).expect("options");
    options.dict_size(512 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).expect("stream");
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(&tar_of(&[("control", b"")])).expect("compress");
    let control = encoder.finish().expect("compress");
    let bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control)]);
    assert!(matches!(read_deb(&bytes, SMALL), Err(ArchiveError::Decompress { part: Part::Control, .. })));
}

#[test]
fn sizes_of_all_kinds_are_survived() {
    let with_size = |field: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_path("a").expect("path");
        header.as_mut_bytes()[124..136].copy_from_slice(field);
        header.set_cksum();
        read_raw_tar(&[header.as_bytes().as_slice(), &[0; 1024]].concat())
    };
    for field in [
        b"77777777777\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(with_size(field).is_err());
    }
    assert!(with_size(b"-1         \0").is_err());
    assert_eq!(with_size(b"00000000000\0").expect("empty").len(), 1);
}

#[test]
fn long_names_links_and_pax_headers_are_understood() {
    let long = format!("{}/x", "d".repeat(200));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o4755);
    header.set_uid(1 << 30);
    builder.append_data(&mut header, &long, &b"hi"[..]).expect("append");
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "l", &long).expect("append");
    let pax: [(&str, &[u8]); 3] = [
        ("path", b"./from/pax"),
        ("SCHILY.xattr.security.capability", b"\x01\0=\n\x02"),
        ("gname", "gr\u{fc}n".as_bytes()),
    ];
    builder.append_pax_extensions(pax).expect("append");
    let mut header = ::tar::Header::new_ustar();
    header.set_size(0);
    builder.append_data(&mut header, "short", &b""[..]).expect("append");
    let entries = read_raw_tar(&builder.into_inner().expect("finish")).expect("read");
    let (file, content) = &entries[0];
    assert_eq!((file.path.as_slice(), content.as_slice()), (long.as_bytes(), &b"hi"[..]));
    assert_eq!((file.mode, file.uid, file.kind), (0o4755, 1 << 30, TarKind::File));
    let (link, _) = &entries[1];
    assert_eq!((link.kind, link.link.as_slice()), (TarKind::Symlink, long.as_bytes()));
    let (pax, _) = &entries[2];
    assert_eq!((pax.path.as_slice(), pax.gname.as_str()), (&b"./from/pax"[..], "grün"));
    assert_eq!(pax.xattrs, [("security.capability".to_owned(), b"\x01\0=\n\x02".to_vec())]);
}

#[test]
fn a_damaged_header_is_refused() {
    let mut bytes = tar_of(&[("a", b"content")]);
    bytes[0] = b'b';
    assert!(matches!(read_raw_tar(&bytes), Err(ArchiveError::Tar { why: "a header is damaged", .. })));
}

proptest! {
    #[test]
    fn what_the_tar_crate_writes_is_read(files in prop::collection::vec(("[a-z]{1,150}", prop::collection::vec(any::<u8>(), 0..2000)), 0..20)) {
        let refs: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
        let entries = read_raw_tar(&tar_of(&refs)).expect("read");
        prop_assert_eq!(entries.len(), files.len());
        for ((entry, content), (name, expected)) in entries.iter().zip(&files) {
            prop_assert_eq!(&entry.path, name.as_bytes());
            prop_assert_eq!(content, expected);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_raw_tar(&bytes);
        let _ = read_deb(&bytes, SMALL);
        let mut begun = deb(&[("debian-binary", b"2.0\n")]);
        begun.extend_from_slice(&bytes);
        let _ = read_deb(&begun, SMALL);
    }

    #[test]
    fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let (control, data) = (tar_of(&[("control", b"x")]), tar_of(&[("a", &[1; 3000]), ("b", b"")]));
        for (name, packed) in [("data.tar", data.clone()), ("data.tar.xz", xz(&data)), ("data.tar.gz", gz(&data))] {
            let mut bytes = deb(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (name, &packed)]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = read_deb(&bytes, SMALL);
        }
    }
}
