//! The registry client: against Debian's `docker-registry`, and against registries that lie.

mod hostile;
mod real;
mod server;
mod tls;
mod uploads;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use igloo_formats::oci::{Config, Descriptor, Digest, ImageConfig, Index, Manifest, Platform, RootFs, media};
use igloo_remote::registry::{BlobSink, BlobSource, BlobWriter, Credentials, PushImage, Registry, RegistryConfig};

/// A client that does not wait long.
fn settings() -> RegistryConfig {
    let client = super::config(std::path::Path::new("/nonexistent"));
    RegistryConfig {
        client: igloo_remote::Config { retries: 3, ..client },
        patience: Duration::from_secs(3),
        longest_pause: Duration::from_secs(2),
        ..RegistryConfig::default()
    }
}

fn registry(host: &str) -> Registry {
    Registry::new(settings(), host).expect("registry")
}

fn with_login(host: &str, user: &str, password: &str) -> Registry {
    let credentials = Credentials::login(user, password);
    Registry::new(RegistryConfig { credentials, ..settings() }, host).expect("registry")
}

/// Bytes that do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A small tar with one file, so that real tools take it for a layer.
fn layer(seed: u64, length: usize) -> Vec<u8> {
    let content = noise(seed, length);
    let mut header = [0u8; 512];
    let name = format!("file-{seed}");
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{length:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// One image of layers, for one architecture: what is pushed, and its manifest.
fn image(arch: &str, layers: &[Vec<u8>]) -> PushImage {
    let diff_ids = layers.iter().map(|l| Digest::of(l)).collect();
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: arch.to_owned(),
        os: "linux".to_owned(),
        variant: None,
        config: Config::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        history: Vec::new(),
    };
    let config = serde_json::to_vec(&config).expect("config");
    let config_descriptor = Descriptor::of(media::CONFIG, &config);
    let mut blobs = vec![(config_descriptor.clone(), BlobSource::bytes(config))];
    let mut descriptors = Vec::new();
    for layer in layers {
        let descriptor = Descriptor::of(media::LAYER, layer);
        blobs.push((descriptor.clone(), BlobSource::bytes(layer.clone())));
        descriptors.push(descriptor);
    }
    let manifest = serde_json::to_vec(&Manifest::new(config_descriptor, descriptors)).expect("manifest");
    let top = (Descriptor::of(media::MANIFEST, &manifest), manifest);
    PushImage { blobs, manifests: Vec::new(), top, mount_from: Vec::new() }
}

/// An index of images.
fn index(images: Vec<(&str, PushImage)>) -> PushImage {
    let (mut blobs, mut manifests, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (arch, image) in images {
        let platform = Platform { architecture: arch.to_owned(), os: "linux".to_owned(), variant: None };
        entries.push(Descriptor { platform: Some(platform), ..image.top.0.clone() });
        blobs.extend(image.blobs);
        manifests.push(image.top);
    }
    let bytes = serde_json::to_vec(&Index::new(entries)).expect("index");
    let top = (Descriptor::of(media::INDEX, &bytes), bytes);
    PushImage { blobs, manifests, top, mount_from: Vec::new() }
}

/// Keeps what is pulled.
#[derive(Default)]
struct Memory {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    manifests: Mutex<Vec<Digest>>,
}

struct MemoryWriter<'a> {
    sink: &'a Memory,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Write for MemoryWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for MemoryWriter<'_> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        assert_eq!(Digest::of(&self.bytes), self.digest, "what a sink gets is verified");
        self.sink.blobs.lock().unwrap().insert(self.digest, self.bytes);
        Ok(())
    }
}

impl BlobSink for Memory {
    fn has(&self, descriptor: &Descriptor) -> io::Result<bool> {
        Ok(self.blobs.lock().unwrap().contains_key(&descriptor.digest))
    }

    fn writer<'a>(&'a self, descriptor: &Descriptor) -> io::Result<Box<dyn BlobWriter + 'a>> {
        Ok(Box::new(MemoryWriter { sink: self, digest: descriptor.digest, bytes: Vec::new() }))
    }

    fn manifest(&self, descriptor: &Descriptor, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(Digest::of(bytes), descriptor.digest);
        self.manifests.lock().unwrap().push(descriptor.digest);
        Ok(())
    }
}
