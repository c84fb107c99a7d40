//! Layers that mean well, and layers that don't.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use igloo_base::event::Silent;
use igloo_formats::oci::{Config, Descriptor, Digest, ImageConfig, Manifest, RootFs, media};

use super::Trees;
use crate::ImageError;
use crate::content::Content;
use crate::tree::Image;

/// A layer under construction: the tar crate's own builder refuses the names that matter here.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, kind: u8, name: &str, link: &str, mode: u32, ids: (u64, u64), content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        gnu.typeflag = [kind];
        header.set_mode(mode);
        header.set_uid(ids.0);
        header.set_gid(ids.1);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name, "", 0o644, (0, 0), content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", 0o755, (0, 0), b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, (0, 0), b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, (0, 0), b"")
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Content in memory.
#[derive(Default)]
struct Memory(BTreeMap<Digest, Vec<u8>>);

impl Content for Memory {
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, ImageError> {
        Ok(self.0.get(digest).map(|b| Box::new(io::Cursor::new(b.clone())) as Box<dyn Read + Send>))
    }
}

/// An image of these tars, alternately plain, gzip and zstd.
fn image(tars: Vec<Vec<u8>>) -> (Memory, Image) {
    let mut memory = Memory::default();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (index, tar) in tars.into_iter().enumerate() {
        diff_ids.push(Digest::of(&tar));
        let (kind, blob) = match index % 3 {
            0 => (media::LAYER, tar),
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&tar).unwrap();
                (media::LAYER_GZIP, encoder.finish().unwrap())
            }
            _ => (media::LAYER_ZSTD, zstd::encode_all(&tar[..], 1).unwrap()),
        };
        let descriptor = Descriptor::of(kind, &blob);
        memory.0.insert(descriptor.digest, blob);
        layers.push(descriptor);
    }
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        variant: None,
        config: Config::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        history: Vec::new(),
    };
    let top = Descriptor::of(media::MANIFEST, b"any");
    let manifest = Manifest::new(Descriptor::of(media::CONFIG, b"any"), layers);
    (memory, Image { descriptor: top, manifest, config })
}

struct Place {
    directory: tempfile::TempDir,
    trees: Trees,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("outside"), "untouched").unwrap();
        let trees = Trees::new(directory.path().join("oci/trees"));
        Self { directory, trees }
    }

    fn unpack(&self, layers: Vec<Layer>) -> Result<super::Tree, ImageError> {
        let (memory, image) = image(layers.into_iter().map(Layer::bytes).collect());
        let tree = self.trees.unpack(&memory, &image, "test", &Silent);
        assert_eq!(fs::read(self.directory.path().join("outside")).unwrap(), b"untouched");
        let names = fs::read_dir(self.trees.directory()).unwrap().flatten().map(|e| e.file_name());
        assert!(!names.into_iter().any(|n| n.to_string_lossy().starts_with(super::PARTIAL)), "something is left");
        tree
    }

    /// Every path of the image with what it is.
    fn listing(&self, layers: Vec<Layer>) -> Vec<String> {
        let root = self.unpack(layers).unwrap().root;
        let mut lines = Vec::new();
        list(&root, &root, &mut lines);
        lines.sort();
        lines
    }

    fn refused(&self, layers: Vec<Layer>) -> String {
        let error = self.unpack(layers).unwrap_err();
        assert!(matches!(error, ImageError::HostileEntry { .. }), "{error:?}");
        error.to_string().split_once("refused: ").unwrap().1.to_owned()
    }
}

fn list(root: &Path, directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            lines.push(format!("{name}/"));
            list(root, &path, lines);
        } else if kind.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            lines.push(format!("{name} = {}", fs::read_to_string(&path).unwrap()));
        }
    }
}

fn layer() -> Layer {
    Layer::default()
}

#[test]
fn layers_are_laid_over_each_other() {
    let place = Place::new();
    let base = layer().dir("./").dir("etc/").file("etc/a", "1").file("etc/b", "1").file("usr/bin/sh", "sh");
    let change = layer().file("etc/a", "22").link("bin", "usr/bin").hard("usr/bin/bash", "usr/bin/sh");
    let top = layer().entry(b'0', "etc/.wh.b", "", 0, (0, 0), b"");
    assert_eq!(
        place.listing(vec![base, change, top]),
        ["bin -> usr/bin", "etc/", "etc/a = 22", "usr/", "usr/bin/", "usr/bin/bash = sh", "usr/bin/sh = sh"]
    );
}

#[test]
fn kinds_replace_each_other() {
    let place = Place::new();
    let base = layer().file("file", "f").dir("dir").file("dir/below/x", "x").link("link", "dir");
    let swapped = layer().dir("file").file("file/in", "1").link("dir", "file").dir("link").file("link/in", "2");
    let back = layer().link("file", "/nowhere").dir("dir").file("dir/new", "n").file("link", "l");
    assert_eq!(place.listing(vec![base, swapped, back]), ["dir/", "dir/new = n", "file -> /nowhere", "link = l"]);
}

#[test]
fn a_directory_stands_where_a_lower_layer_has_a_link() {
    let place = Place::new();
    let base = layer().dir("usr/bin").file("usr/bin/a", "a").link("bin", "usr/bin").link("out", "../../..");
    let top = layer().file("bin/b", "b").file("out/outside", "mine");
    assert_eq!(
        place.listing(vec![base, top]),
        ["bin/", "bin/b = b", "out/", "out/outside = mine", "usr/", "usr/bin/", "usr/bin/a = a"]
    );
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    let place = Place::new();
    let base = layer().file("d/old", "o").file("d/deep/old", "o").file("e/old", "o").file("f", "f").file("kept", "k");
    let top = layer()
        .file("d/new", "n")
        .entry(b'0', "d/.wh..wh..opq", "", 0, (0, 0), b"")
        .file("e/new", "n")
        .entry(b'0', ".wh.e", "", 0, (0, 0), b"")
        .entry(b'0', ".wh.f", "", 0, (0, 0), b"")
        .entry(b'0', ".wh.never-there", "", 0, (0, 0), b"");
    assert_eq!(place.listing(vec![base, top]), ["d/", "d/new = n", "e/", "e/new = n", "kept = k"]);
    let base = || layer().file("a/x", "x").file("b", "b");
    let all = layer().entry(b'0', ".wh..wh..opq", "", 0, (0, 0), b"").file("new", "n");
    assert_eq!(place.listing(vec![base(), all]), ["new = n"]);
}

#[test]
fn what_would_leave_the_tree_is_refused() {
    let place = Place::new();
    for name in ["../outside", "a/../../outside", "/../outside"] {
        assert_eq!(place.refused(vec![layer().file(name, "x")]), "its name is no path within the image", "{name}");
    }
    for name in [".wh...", "a/.wh...", ".wh."] {
        assert_eq!(place.refused(vec![layer().entry(b'0', name, "", 0, (0, 0), b"")]), "it is a whiteout of nothing");
    }
    assert_eq!(place.refused(vec![layer().hard("x", "../outside")]), "it is a hard link out of the image");
    let through = "what is above it is no directory in the same layer";
    for target in ["../../..", "/", "/etc", "."] {
        assert_eq!(place.refused(vec![layer().link("l", target).file("l/outside", "x")]), through, "{target}");
        assert_eq!(place.refused(vec![layer().link("l", target).dir("l/d")]), through);
        assert_eq!(place.refused(vec![layer().link("l", target).link("l/d", "x")]), through);
        assert_eq!(place.refused(vec![layer().file("f", "").link("l", target).hard("l/d", "f")]), through);
    }
    assert_eq!(place.refused(vec![layer().file("f", "x").file("f/g", "x")]), through);
}

#[test]
fn hard_links_join_only_what_was_unpacked() {
    let place = Place::new();
    let nothing = "it is a hard link to nothing that was unpacked";
    assert_eq!(place.refused(vec![layer().hard("x", "outside")]), nothing);
    assert_eq!(place.refused(vec![layer().hard("x", "/etc/passwd")]), nothing);
    // Not through a link either.
    assert_eq!(place.refused(vec![layer().link("l", "../../..").hard("x", "l/outside")]), nothing);
    assert_eq!(place.refused(vec![layer().dir("d").hard("x", "d")]), "it is a hard link to a directory");
    assert_eq!(place.refused(vec![layer().file("d", "").hard("d", "d")]), "it is a hard link to itself");
    // A link to a link is the link, and a write never reaches what it points to.
    let outside = place.directory.path().join("outside");
    let linked = layer().link("l", outside.to_str().unwrap()).hard("m", "l");
    let over = layer().file("m", "mine");
    let shown = place.listing(vec![linked, over]);
    assert_eq!(shown, [format!("l -> {}", outside.display()), "m = mine".to_owned()]);
    // A later change of one name is none of the other's.
    let shown = place.listing(vec![layer().file("a", "1").hard("b", "a"), layer().file("a", "2")]);
    assert_eq!(shown, ["a = 2", "b = 1"]);
}

#[test]
fn an_absolute_name_is_below_the_root() {
    let place = Place::new();
    assert_eq!(place.listing(vec![layer().file("/etc/x", "1").file("./y", "2")]), ["etc/", "etc/x = 1", "y = 2"]);
}

#[test]
fn devices_and_pipes_are_passed_over() {
    let place = Place::new();
    let odd = [b'3', b'4', b'6'].into_iter().fold(layer(), |l, kind| l.entry(kind, "dev/x", "", 0o666, (0, 0), b""));
    assert_eq!(place.listing(vec![odd.file("y", "2")]), ["y = 2"]);
}

#[test]
fn too_deep_a_tree_is_refused() {
    let place = Place::new();
    // Longer names than a header holds come from GNU's extension, an entry before the entry.
    let deep = "d/".repeat(100) + "f";
    let long = layer().entry(b'L', "././@LongLink", "", 0, (0, 0), deep.as_bytes()).file("cut", "x");
    assert_eq!(place.refused(vec![long]), "its name is no path within the image");
    let fine = "d/".repeat(60) + "f";
    let long = layer().entry(b'L', "././@LongLink", "", 0, (0, 0), fine.as_bytes()).file("cut", "x");
    assert!(place.unpack(vec![long]).unwrap().root.join(fine).exists());
}

#[test]
fn owners_and_modes_are_told_and_no_setuid_bit_lies_about() {
    let place = Place::new();
    let made = layer()
        .entry(b'5', "./", "", 0o755, (0, 0), b"")
        .entry(b'5', "tmp", "", 0o1777, (0, 0), b"")
        .entry(b'0', "su", "", 0o4755, (0, 0), b"x")
        .entry(b'0', "closed", "", 0o000, (0, 0), b"x")
        .entry(b'0', "plain", "", 0o640, (0, 0), b"x")
        .entry(b'5', "home", "", 0o550, (1000, 100), b"")
        .entry(b'0', "home/f", "", 0o600, (1000, 100), b"x")
        .entry(b'2', "home/l", "f", 0o777, (1000, 100), b"");
    let tree = place.unpack(vec![made]).unwrap();
    let mode = |path: &str| fs::metadata(tree.root.join(path)).unwrap().permissions().mode() & 0o7777;
    let modes = ["tmp", "su", "closed", "plain", "home", "home/f"].map(mode);
    assert_eq!(modes, [0o777, 0o755, 0o400, 0o640, 0o750, 0o600]);
    let own = fs::metadata(&tree.root).unwrap().uid();
    assert_eq!(fs::metadata(tree.root.join("home/f")).unwrap().uid(), own);
    let told: Vec<(String, bool, u32, u32, u32)> =
        tree.attributes.iter().map(|a| (a.path.clone(), a.dir, a.mode, a.uid, a.gid)).collect();
    assert_eq!(
        told,
        [
            ("/closed".to_owned(), false, 0, 0, 0),
            ("/home".to_owned(), true, 0o550, 1000, 100),
            ("/home/f".to_owned(), false, 0o600, 1000, 100),
            ("/su".to_owned(), false, 0o4755, 0, 0),
            ("/tmp".to_owned(), true, 0o1777, 0, 0),
        ]
    );
    // Nobody else may look in, whatever the modes.
    let trees = fs::metadata(place.trees.directory()).unwrap();
    assert_eq!(trees.permissions().mode() & 0o777, 0o700);
}

#[test]
fn every_digest_is_verified() {
    let place = Place::new();
    let tars = || vec![layer().file("a", "1").bytes(), layer().file("b", "2").bytes(), layer().file("c", "3").bytes()];
    for index in 0..3 {
        // Other bytes than promised: at the end, in the middle, more, fewer.
        let spoil: [fn(&mut Vec<u8>); 4] = [
            |b| *b.last_mut().unwrap() ^= 1,
            |b| {
                let middle = b.len() / 2;
                b[middle] ^= 1;
            },
            |b| b.push(0),
            |b| b.truncate(b.len() / 2),
        ];
        for spoil in spoil {
            let (mut memory, image) = image(tars());
            spoil(memory.0.get_mut(&image.manifest.layers[index].digest).unwrap());
            let error = place.trees.unpack(&memory, &image, "test", &Silent).unwrap_err();
            assert!(matches!(error, ImageError::WrongDigest { .. }), "{index}: {error:?}");
        }
        let (memory, mut wrong) = image(tars());
        wrong.config.rootfs.diff_ids[index] = Digest::of(b"another");
        let error = place.trees.unpack(&memory, &wrong, "test", &Silent).unwrap_err();
        assert!(matches!(error, ImageError::WrongDigest { .. }), "{error:?}");
        let (mut memory, gone) = image(tars());
        memory.0.remove(&gone.manifest.layers[index].digest);
        let error = place.trees.unpack(&memory, &gone, "test", &Silent).unwrap_err();
        assert!(matches!(error, ImageError::MissingBlob { .. }), "{error:?}");
    }
    // None of these left a tree.
    let (_, sound) = image(tars());
    assert_eq!(place.trees.find(&sound).unwrap(), None);
}

#[test]
fn a_tree_is_made_once_and_garbage_of_killed_ones_is_swept() {
    let place = Place::new();
    let tars = || vec![layer().file("a", "1").bytes()];
    let (memory, sound) = image(tars());
    let killed: PathBuf = place.trees.directory().join(".igloo-killed");
    fs::create_dir_all(killed.join("root/d")).unwrap();
    fs::set_permissions(killed.join("root/d"), fs::Permissions::from_mode(0o000)).unwrap();
    // As if killed between the removal of an older tree and the new name.
    fs::create_dir_all(place.trees.directory().join(Trees::name(&sound.config.rootfs.diff_ids)).join("root")).unwrap();
    let tree = place.trees.unpack(&memory, &sound, "test", &Silent).unwrap();
    assert!(!killed.exists());
    assert_eq!(fs::read_to_string(tree.root.join("a")).unwrap(), "1");
    // The second time no content is needed.
    let again = place.trees.unpack(&Memory::default(), &sound, "test", &Silent).unwrap();
    assert_eq!(again, tree);
}

#[test]
fn an_image_without_layers_is_an_empty_tree() {
    assert_eq!(Place::new().listing(Vec::new()), Vec::<String>::new());
}
