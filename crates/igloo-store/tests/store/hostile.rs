//! Archives that mean harm. Each is refused by name, and nothing outside its object changes.

use std::error::Error;
use std::fs;

use igloo_base::event::Silent;
use igloo_store::{Store, StoreError};

use crate::support::*;

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Adds one package to a fresh store; what was said, less the path of the archive.
fn refused(tar: Tar) -> String {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    fs::write(dir.join("victim"), "unharmed").expect("write");
    let store = Store::open(&root).expect("open");
    let deb = write_deb(&dir, "evil", tar);
    let error = store.add_debs(std::slice::from_ref(&deb), &Silent, 1).expect_err("refused");
    assert!(matches!(error, StoreError::Deb { .. }), "{error:?}");
    drop(store);
    assert_eq!(object_count(&root), 0);
    assert!(staging_is_empty(&root));
    assert_eq!(fs::read_to_string(dir.join("victim")).expect("read"), "unharmed");
    chain(&error).replace(&format!("cannot unpack `{}`: data.tar has ", deb.path.display()), "")
}

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn names_that_leave_their_place() {
    for name in ["../x", "./a/../../x", "..", "./.."] {
        assert!(refused(tar().file(name, b"x")).contains("climbs"), "{name}");
    }
    assert!(refused(tar().file("/etc/cron.d/x", b"x")).contains("absolute"));
    assert!(refused(tar().file(".", b"x")).contains("is no directory"));
    assert!(refused(tar().hard("./x", "/etc/shadow")).contains("absolute"));
    assert!(refused(tar().hard("./x", "../../../../etc/shadow")).contains("climbs"));
    let mut not_text = tar();
    not_text.header(b'0', b"./\xff\xfe", b"", 0o644, 0);
    assert!(refused(not_text).contains("is not text"));
    let deep = "d/".repeat(45);
    assert!(
        refused(tar().entry(b'L', "x", "", 0, deep.repeat(2).as_bytes()).dir("x")).contains("too long or too deep")
    );
}

#[test]
fn symlinks_that_are_to_be_followed() {
    let behind = "which lies behind a symlink of the same archive";
    assert!(refused(tar().link("./d", "/").file("./d/victim", b"x")).contains(behind));
    assert!(refused(tar().link("./d", "../../..").file("./d/e/victim", b"x")).contains(behind));
    assert!(refused(tar().dir("./e/").link("./e/d", ".").file("./e/d/x", b"x")).contains(behind));
    assert!(refused(tar().link("./d", "/").dir("./d/")).contains("which was there before"));
    assert!(refused(tar().link("./f", "../../../victim").file("./f", b"x")).contains("which was there before"));
    assert!(
        refused(tar().link("./f", "/etc/shadow").hard("./g", "./f")).contains("hard link to something that is no file")
    );
    assert!(
        refused(tar().link("./d", "/etc").hard("./g", "./d/shadow")).contains("hard link to something that is no file")
    );
    // On a merged system both are one path.
    assert!(refused(tar().link("./usr/lib", "/").file("./lib/victim", b"x")).contains(behind));
}

#[test]
fn names_that_come_twice() {
    let twice = "which was there before";
    assert!(refused(tar().file("./a", b"1").file("./a", b"2")).contains(twice));
    assert!(refused(tar().file("./a", b"1").file(".//a", b"2")).contains(twice));
    assert!(refused(tar().dir("./a/").file("./a", b"2")).contains(twice));
    assert!(refused(tar().file("./a", b"1").dir("./a/")).contains(twice));
    assert!(refused(tar().file("./a", b"1").hard("./a", "./a")).contains(twice));
    assert!(refused(tar().file("./a", b"1").file("./a/b", b"2")).contains("which lies below a file"));
    assert!(refused(tar().hard("./a", "./a")).contains("hard link to something that is no file"));
    assert!(refused(tar().dir("./a/").hard("./b", "./a")).contains("hard link to something that is no file"));
}

#[test]
fn things_that_are_no_files() {
    for flag in [b'3', b'4', b'6', b'S', b'V', b'Z'] {
        assert!(refused(tar().entry(flag, "./dev", "", 0o666, b"")).contains("a device, a pipe, or unknown"), "{flag}");
    }
    assert!(refused(tar().link("./l", "")).contains("a symlink with a bad target"));
}

#[test]
fn sizes_that_lie() {
    let mut huge = tar();
    huge.header(b'0', b"./huge", b"", 0o644, (8 << 30) - 1);
    assert!(refused(huge).contains("truncated"));
    let mut grown = tar();
    grown.header(b'2', b"./l", b"target", 0o777, 512);
    assert!(refused(grown).contains("has a size"));
}

#[test]
fn control_archives_with_more_than_files() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let good = deb("evil", "1.0-1", tar());
    for (name, what) in [("./../x\0\0\0", "climbs"), ("./a/b\0\0\0\0", "no file at the top")] {
        // The name of `postinst` in the control archive is replaced, and the header's sum made right.
        let mut bytes = good.clone();
        let at = bytes.windows(10).position(|w| w == b"./postinst").expect("postinst");
        bytes[at..at + 10].fill(0);
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        bytes[at + 148..at + 156].fill(b' ');
        let sum: u32 = bytes[at..at + 512].iter().map(|b| u32::from(*b)).sum();
        bytes[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let deb = write_bytes(&dir, "evil", "1.0-1", &bytes);
        let error = store.add_debs(&[deb], &Silent, 1).expect_err("refused");
        assert!(chain(&error).contains(what), "{}", chain(&error));
    }
}

#[test]
fn a_package_that_says_it_is_another() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let bytes = deb("other", "1.0-1", tar().file("./x", b"x"));
    let error = store.add_debs(&[write_bytes(&dir, "x", "1.0-1", &bytes)], &Silent, 1).expect_err("refused");
    assert!(matches!(&error, StoreError::DebIdentity { field: "package", found, .. } if found == "other"), "{error:?}");
    let error = store.add_debs(&[write_bytes(&dir, "other", "1.0-2", &bytes)], &Silent, 1).expect_err("refused");
    assert!(matches!(&error, StoreError::DebIdentity { field: "version", .. }), "{error:?}");
    let name = format!("x{}", "y".repeat(300));
    let bytes = deb(&name, "1.0-1", tar());
    let error = store.add_debs(&[write_bytes(&dir, &name[..200], "1.0-1", &bytes)], &Silent, 1).expect_err("refused");
    assert!(matches!(&error, StoreError::DebIdentity { .. }), "{error:?}");
}
