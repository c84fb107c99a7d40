//! Caches that lie, each in its own way; and always a good one behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use igloo_base::Sha256;
use igloo_base::event::Silent;
use igloo_formats::nix::nar::Writer;
use igloo_formats::nix::narinfo::Compression;
use igloo_formats::nix::signature::fingerprint;
use igloo_formats::nix::{CacheInfo, NarInfo, SecretKey, StorePath};
use igloo_ops::error::OpsError;
use igloo_ops::realise::LockedPath;

use crate::support::*;

fn key() -> SecretKey {
    SecretKey::from_seed("good-1", &[1; 32])
}

fn file_nar(content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.begin_dir();
    writer.begin_entry(b"f");
    writer.begin_file(false, content.len() as u64);
    writer.content(content).expect("memory");
    writer.end_file().expect("memory");
    writer.end_entry().expect("memory");
    writer.end_dir();
    writer.finish().expect("memory")
}

/// A path and its archive, as they should be.
struct Good {
    path: StorePath,
    nar: Vec<u8>,
    references: Vec<StorePath>,
}

impl Good {
    fn new(nar: Vec<u8>) -> Self {
        let path = StorePath::parse("7rjjw4hzx0n1sirn1ba9vm85ilyh0ysx-thing-1.0").expect("path");
        Self { path, nar, references: Vec::new() }
    }

    fn locked(&self) -> LockedPath {
        LockedPath {
            path: self.path.clone(),
            nar_hash: Sha256::of(&self.nar),
            nar_size: self.nar.len() as u64,
            references: self.references.clone(),
            content_address: None,
            deriver: None,
            signatures: Vec::new(),
        }
    }

    fn info(&self) -> NarInfo {
        let (hash, size) = (Sha256::of(&self.nar), self.nar.len() as u64);
        NarInfo {
            path: self.path.clone(),
            url: "nar/it.nar".into(),
            compression: Compression::None,
            file_hash: Some(hash),
            file_size: Some(size),
            nar_hash: hash,
            nar_size: size,
            references: self.references.clone(),
            deriver: None,
            signatures: vec![key().sign(&fingerprint(&self.path, &hash, size, &self.references))],
            content_address: None,
        }
    }
}

fn write_cache(dir: &Path, info: &str, path: &StorePath, file: &[u8]) {
    fs::create_dir_all(dir.join("nar")).expect("mkdir");
    fs::write(dir.join("nix-cache-info"), CacheInfo::default().to_text()).expect("write");
    fs::write(dir.join(format!("{}.narinfo", path.hash_part())), info).expect("write");
    fs::write(dir.join("nar/it.nar"), file).expect("write");
}

/// Asks a bad cache alone, then with a good one behind it; what was said of the bad one.
fn refused(good: &Good, info: &str, file: &[u8]) -> String {
    let world = World::new();
    let public = key().public().to_string();
    let (bad, fine): (PathBuf, PathBuf) = (world.path("bad"), world.path("fine"));
    write_cache(&bad, info, &good.path, file);
    let begin = Instant::now();
    let error = world.realise(&[good.locked()], &[file_url(&bad)], &[&public]).expect_err("refused");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(matches!(error, OpsError::NotInCaches { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&file_url(&bad)), "the cache is named: {text}");
    assert!(world.store().list().expect("list").is_empty());
    assert!(!world.store().exists(&good.path));
    let staging = world.path("data/nix/var/igloo/staging");
    assert_eq!(fs::read_dir(staging).map_or(0, Iterator::count), 0, "nothing is left");

    write_cache(&fine, &good.info().to_text(), &good.path, &good.nar);
    let realised = world.realise(&[good.locked()], &[file_url(&bad), file_url(&fine)], &[&public]);
    // An archive that no store takes is refused from wherever it comes.
    if let Ok(realised) = realised {
        assert_eq!(realised.fetched, std::slice::from_ref(&good.path));
        assert!(world.store().verify(true, &Silent).expect("verify").is_good());
        assert!(!world.ears.warnings.lock().expect("lock").is_empty(), "the bad one is told");
    }
    text
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn lies_about_content() {
    let good = Good::new(file_nar(b"good"));
    let info = good.info();
    let other = file_nar(b"evil");
    says(&refused(&good, &info.to_text(), &other), &["sha256"]);
    let honest_file = NarInfo { file_hash: Some(Sha256::of(&other)), ..info.clone() };
    says(&refused(&good, &honest_file.to_text(), &other), &["thing-1.0", "sha256"]);
    // Nothing is said of the file: the archive itself tells.
    let silent = NarInfo { file_hash: None, file_size: None, ..info.clone() };
    says(&refused(&good, &silent.to_text(), &other), &["sha256"]);
    says(&refused(&good, &silent.to_text(), &file_nar(b"much longer than it should be")), &["bytes"]);
    says(&refused(&good, &silent.to_text(), &good.nar[..good.nar.len() - 8]), &["bad archive"]);
    says(&refused(&good, &silent.to_text(), b""), &["bad archive"]);
    let shorter = NarInfo { file_size: Some(20), ..info.clone() };
    says(&refused(&good, &shorter.to_text(), &good.nar), &["promised 20"]);
    let longer = NarInfo { file_size: Some(info.nar_size + 1), ..info.clone() };
    says(&refused(&good, &longer.to_text(), &good.nar), &["promised"]);
    let trailing = [&good.nar[..], b"more"].concat();
    says(&refused(&good, &silent.to_text(), &trailing), &["bytes"]);
    let wrong_file_hash = NarInfo { file_hash: Some(Sha256::of(b"")), ..info };
    says(&refused(&good, &wrong_file_hash.to_text(), &good.nar), &["other bytes"]);
}

#[test]
fn bombs_stop_where_the_archive_should_end() {
    let good = Good::new(file_nar(b"good"));
    let mut bomb = zstd_of_zeros(1 << 30);
    bomb.extend(zstd_of_zeros(1 << 30));
    let info = NarInfo { file_hash: None, file_size: None, compression: Compression::Zstd, ..good.info() };
    says(&refused(&good, &info.to_text(), &bomb), &["archive"]);
    // One that begins as an archive with a file of 2^62 bytes.
    let mut endless = Writer::new(Vec::new());
    endless.begin_file(false, 1 << 62);
    endless.content(&[0; 64 << 10]).expect("memory");
    let start = endless.finish().expect("memory");
    let plain = NarInfo { file_hash: None, file_size: None, ..good.info() };
    says(&refused(&good, &plain.to_text(), &start), &["bytes"]);
    for compression in [Compression::Xz, Compression::Bzip2, Compression::Gzip, Compression::Brotli, Compression::Lz4] {
        let info = NarInfo { compression, ..good.info() };
        says(&refused(&good, &info.to_text(), &good.nar), &["file://"]);
    }
}

fn zstd_of_zeros(length: u64) -> Vec<u8> {
    use std::io::Read;
    zstd::stream::encode_all(std::io::repeat(0).take(length), 1).expect("zstd")
}

#[test]
fn lies_about_what_is_locked_and_signatures() {
    let good = Good::new(file_nar(b"good"));
    let info = good.info();
    let sign = |info: NarInfo| NarInfo { signatures: vec![key().sign(&info.fingerprint())], ..info };
    let other = StorePath::parse("2rphx1656hvq5ypvjx7ql5028l8xc0b8-zlib-1.3").expect("path");
    let hash = sign(NarInfo { nar_hash: Sha256::of(b""), ..info.clone() });
    says(&refused(&good, &hash.to_text(), &good.nar), &["lies", "NarHash"]);
    let size = sign(NarInfo { nar_size: 1 << 40, ..info.clone() });
    says(&refused(&good, &size.to_text(), &good.nar), &["lies", "NarSize"]);
    let references = sign(NarInfo { references: vec![other.clone()], ..info.clone() });
    says(&refused(&good, &references.to_text(), &good.nar), &["lies", "references", "zlib"]);
    let path = sign(NarInfo { path: other, ..info.clone() });
    says(&refused(&good, &path.to_text(), &good.nar), &["speaks of"]);
    let unsigned = NarInfo { signatures: Vec::new(), ..info.clone() };
    says(&refused(&good, &unsigned.to_text(), &good.nar), &["not signed"]);
    let imposter = SecretKey::from_seed("good-1", &[2; 32]);
    let forged = NarInfo { signatures: vec![imposter.sign(&info.fingerprint())], ..info.clone() };
    says(&refused(&good, &forged.to_text(), &good.nar), &["no good signature", "good-1"]);
    let of_another = NarInfo { signatures: vec![key().sign("1;/nix/store/x;y;1;")], ..info.clone() };
    says(&refused(&good, &of_another.to_text(), &good.nar), &["no good signature"]);
    // Says that it is content-addressed, and is not.
    let address = format!("fixed:r:{}", igloo_formats::nix::show_hash(&info.nar_hash));
    let claimed = NarInfo { signatures: Vec::new(), content_address: Some(address), ..info.clone() };
    says(&refused(&good, &claimed.to_text(), &good.nar), &["not signed"]);
    says(&refused(&good, "<html>no</html>", &good.nar), &["cannot understand"]);
    let long = format!("{}X: {}\n", info.to_text(), "x".repeat(2 << 20));
    says(&refused(&good, &long, &good.nar), &["longer"]);
    for url in ["../../../etc/passwd", "/etc/passwd", "nar/../../x", "file:///etc/passwd"] {
        let elsewhere = NarInfo { url: url.into(), ..info.clone() };
        refused(&good, &elsewhere.to_text(), &good.nar);
    }
    let rar = info.to_text().replace("Compression: none", "Compression: rar");
    says(&refused(&good, &rar, &good.nar), &["`rar` is unknown"]);
}

#[test]
fn archives_that_no_store_takes() {
    let entry = |names: &[&[u8]]| {
        let mut writer = Writer::new(Vec::new());
        writer.begin_dir();
        for name in names {
            writer.begin_entry(name);
            writer.symlink(b"/tmp").expect("memory");
            writer.end_entry().expect("memory");
        }
        writer.end_dir();
        writer.finish().expect("memory")
    };
    // A symlink, and then a directory of the same name, in which a file would end up elsewhere.
    let through = {
        let mut writer = Writer::new(Vec::new());
        writer.begin_dir();
        writer.begin_entry(b"a");
        writer.symlink(b"/tmp").expect("memory");
        writer.end_entry().expect("memory");
        writer.begin_entry(b"a");
        writer.begin_dir();
        writer.begin_entry(b"igloo-was-here");
        writer.begin_file(false, 0);
        writer.end_file().expect("memory");
        writer.end_entry().expect("memory");
        writer.end_dir();
        writer.end_entry().expect("memory");
        writer.end_dir();
        writer.finish().expect("memory")
    };
    let deep = {
        let mut writer = Writer::new(Vec::new());
        for _ in 0..100_000 {
            writer.begin_dir();
            writer.begin_entry(b"d");
        }
        writer.finish().expect("memory")
    };
    let long = [b'x'; 300];
    let all: [Vec<u8>; 8] = [
        entry(&[b"b", b"a"]),
        entry(&[b"a", b"a"]),
        entry(&[b".."]),
        entry(&[b"../x"]),
        entry(&[b"a/b"]),
        entry(&[&long[..]]),
        through,
        deep,
    ];
    for nar in all {
        let good = Good::new(nar);
        says(&refused(&good, &good.info().to_text(), &good.nar), &["archive"]);
    }
    assert!(!Path::new("/tmp/igloo-was-here").exists());
    // Names that only a file system without cases confuses are two files here, as for Nix on Linux.
    let cases = Good::new(entry(&[b"A", b"a", b"a~nix~case~hack~1"]));
    let world = World::new();
    write_cache(&world.path("c"), &cases.info().to_text(), &cases.path, &cases.nar);
    world.realise(&[cases.locked()], &[file_url(&world.path("c"))], &[&key().public().to_string()]).expect("cases");
    world.nix().check();
}

#[test]
fn caches_that_are_none_and_locks_that_are_not_whole() {
    let good = Good::new(file_nar(b"good"));
    let world = World::new();
    let public = key().public().to_string();
    let (none, other, fine) = (world.path("none"), world.path("other"), world.path("fine"));
    fs::create_dir(&none).expect("mkdir");
    write_cache(&other, &good.info().to_text(), &good.path, &good.nar);
    fs::write(other.join("nix-cache-info"), "StoreDir: /gnu/store\n").expect("write");
    write_cache(&fine, &good.info().to_text(), &good.path, &good.nar);
    let urls = [&none, &other, &fine].map(|p| file_url(p));
    world.realise(&[good.locked()], &urls, &[&public]).expect("the third");
    let said = world.ears.warnings.lock().expect("lock").join("\n");
    says(&said, &["no `nix-cache-info`", "/gnu/store"]);

    let mut loose = good.locked();
    loose.path = StorePath::parse("2rphx1656hvq5ypvjx7ql5028l8xc0b8-zlib-1.3").expect("path");
    loose.references = vec![good.path.clone(), StorePath::parse("hf8in4pnamgfmf1xyb4nglvn3194p9nk-n").expect("path")];
    let error = world.realise(&[good.locked(), loose], &urls, &[&public]).expect_err("not whole");
    assert!(matches!(error, OpsError::ReferenceNotLocked { .. }), "{error}");
}

#[test]
fn what_is_content_addressed_needs_no_signature_but_its_content() {
    let nar = file_nar(b"addressed");
    let path = StorePath::fixed_recursive("source", Sha256::of(&nar), &[], false).expect("path");
    let good = Good { path, nar, references: Vec::new() };
    let address = format!("fixed:r:{}", igloo_formats::nix::show_hash(&Sha256::of(&good.nar)));
    let info = NarInfo { signatures: Vec::new(), content_address: Some(address.clone()), ..good.info() };
    let world = World::new();
    write_cache(&world.path("c"), &info.to_text(), &good.path, &good.nar);
    let locked = LockedPath { content_address: Some(address), ..good.locked() };
    world.realise(&[locked], &[file_url(&world.path("c"))], &[]).expect("unsigned");
    world.nix().check();
}
