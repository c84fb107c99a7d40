//! Against Debian's `docker-registry`, cross-checked with `skopeo`.

use std::io::{self, Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use igloo_base::event::Silent;
use igloo_formats::oci::{Descriptor, Digest, Platform, Reference, media};
use igloo_remote::registry::{
    BlobSource, Choice, PlainHttp, PushImage, Registry, RegistryConfig, RegistryError, Sent, pull, push,
};

use super::{Memory, image, index, layer, noise, registry, settings, with_login};

/// A `docker-registry` on loopback. Ends with the test.
pub(super) struct Real {
    pub(super) host: String,
    pub(super) dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::print_stderr)]
pub(super) fn has(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|d| d.join(program).exists());
    if !found {
        eprintln!("skipped: there is no `{program}`; tests/run installs it");
    }
    found
}

/// Starts one with more lines for its configuration's `http` and at its end.
pub(super) fn start(http: &str, more: &str, prepare: impl Fn(&Path)) -> Option<Real> {
    if !has("docker-registry") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    // A port that is free now may be taken a moment later, so that it is tried again.
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = dir.path().display();
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {root}/data\n  delete:\n    enabled: true\nhttp:\n  addr: {host}\n{http}{more}",
        )
        .replace("@DIR@", &root.to_string());
        let config = dir.path().join("config.yml");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(&host).is_ok() {
                return Some(Real { host, dir, child });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("docker-registry does not start");
}

fn plain() -> Option<Real> {
    start("", "", |_| {})
}

/// `igloo` may log in with `secret word`.
const HTPASSWD: &str = "igloo:$2y$05$dD.08.lWXaAkHxuU7UBnkO61K7YDJq.weTO6d6aAdcMkagG./qIJi\n";

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|t| (*t).to_owned()).collect()
}

pub(super) fn push_to(registry: &Registry, name: &str, tag: &str, image: &PushImage) -> igloo_remote::registry::Pushed {
    push(registry, name, &tags(&[tag]), image, &Silent).expect("push")
}

fn skopeo(args: &[&str]) -> String {
    let out = Command::new("skopeo").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn there_and_back() {
    let Some(real) = plain() else { return };
    let registry = registry(&real.host);
    registry.ping().unwrap();
    // The same by a name that stands for two addresses, one of which nobody listens at.
    let by_name = real.host.replace("127.0.0.1", "localhost");
    super::registry(&by_name).ping().unwrap();
    let image = image("amd64", &[layer(1, 100_000), layer(2, 10), layer(3, 20 << 20)]);
    let pushed = push_to(&registry, "acme/web", "v1", &image);
    assert_eq!((pushed.uploaded, pushed.skipped, pushed.mounted, pushed.manifests), (4, 0, 0, 1));
    let again = push_to(&registry, "acme/web", "v1", &image);
    assert!(again.is_unchanged() && again.bytes == 0 && again.skipped == 4, "{again:?}");
    // The same below other tags costs the tags.
    let moved = push(&registry, "acme/web", &tags(&["v2", "v1", "latest"]), &image, &Silent).unwrap();
    assert_eq!((moved.uploaded, moved.manifests, moved.skipped), (0, 2, 4));
    let mut all = registry.tags("acme/web").unwrap();
    all.sort();
    assert_eq!(all, ["latest", "v1", "v2"]);

    let sink = Memory::default();
    let wanted = Choice::Platform(Platform { architecture: "amd64".into(), os: "linux".into(), variant: None });
    let pulled = pull(&registry, &reference(&real.host, "acme/web:v2"), &wanted, &sink, &Silent).unwrap();
    assert_eq!((pulled.fetched, pulled.skipped), (4, 0));
    assert_eq!(pulled.images, std::slice::from_ref(&image.top.0));
    let blobs = sink.blobs.lock().unwrap();
    assert_eq!(blobs.len(), 4);
    for (descriptor, _) in &image.blobs {
        assert_eq!(Digest::of(&blobs[&descriptor.digest]), descriptor.digest);
    }
    drop(blobs);
    let again = pull(&registry, &reference(&real.host, "acme/web:v2"), &Choice::All, &sink, &Silent).unwrap();
    assert_eq!((again.fetched, again.skipped, again.bytes), (0, 4, 0));

    let arm = Choice::Platform(Platform { architecture: "arm64".into(), os: "linux".into(), variant: None });
    let error = pull(&registry, &reference(&real.host, "acme/web:v2"), &arm, &Memory::default(), &Silent).unwrap_err();
    assert!(matches!(&error, RegistryError::Platform { available, .. } if *available == ["linux/amd64"]), "{error}");
    let error = registry.manifest(&reference(&real.host, "acme/web:nope")).unwrap_err().to_string();
    assert!(
        error.contains(&real.host) && error.contains("`acme/web:nope`") && error.contains("MANIFEST_UNKNOWN"),
        "{error}"
    );
}

#[test]
fn what_changed_is_all_that_is_sent() {
    let Some(real) = plain() else { return };
    let registry = registry(&real.host);
    let base = layer(1, 300_000);
    push_to(&registry, "a", "x", &image("amd64", &[base.clone(), layer(2, 5000)]));
    let next = image("amd64", &[base, layer(3, 6000)]);
    let pushed = push_to(&registry, "a", "x", &next);
    assert_eq!((pushed.uploaded, pushed.skipped), (2, 1), "configuration and top layer go, the base stays");
    // Another repository has them all.
    let mounting = PushImage { mount_from: tags(&["a"]), ..next };
    let pushed = push_to(&registry, "b", "x", &mounting);
    assert_eq!((pushed.uploaded, pushed.mounted, pushed.skipped), (0, 3, 0));
    // Of several, the one that has a blob is found; one that nobody has is sent.
    let mixed = image("amd64", &[layer(3, 6000), layer(4, 100)]);
    let mixed = PushImage { mount_from: tags(&["nowhere", "b", "c"]), ..mixed };
    let pushed = push_to(&registry, "d", "x", &mixed);
    assert_eq!((pushed.uploaded, pushed.mounted), (2, 1));
    let found = registry.has_blobs("d", &[Digest::of(&layer(4, 100)), Digest::of(b"nobody has this")]).unwrap();
    assert_eq!(found, [true, false]);
}

#[test]
fn an_index_is_pushed_and_pulled() {
    let Some(real) = plain() else { return };
    let registry = registry(&real.host);
    let shared = layer(1, 1000);
    let both = || {
        let of = |arch, seed| (arch, image(arch, &[shared.clone(), layer(seed, 2000)]));
        index(vec![of("amd64", 2), of("arm64", 3)])
    };
    let pushed = push_to(&registry, "multi", "x", &both());
    assert_eq!((pushed.uploaded, pushed.manifests), (5, 3));
    assert!(push_to(&registry, "multi", "x", &both()).is_unchanged());
    let changed = index(vec![
        ("amd64", image("amd64", &[shared.clone(), layer(2, 2000)])),
        ("arm64", image("arm64", &[shared.clone(), layer(4, 2000)])),
    ]);
    let pushed = push_to(&registry, "multi", "x", &changed);
    assert_eq!((pushed.uploaded, pushed.skipped, pushed.manifests), (2, 3, 2));
    let sink = Memory::default();
    let pulled = pull(&registry, &reference(&real.host, "multi:x"), &Choice::All, &sink, &Silent).unwrap();
    assert_eq!((pulled.images.len(), pulled.fetched), (2, 5));
    assert_eq!(sink.manifests.lock().unwrap().last(), Some(&changed.top.0.digest), "the index comes last");
    let one = Memory::default();
    let arm = Platform { architecture: "arm64".into(), os: "linux".into(), variant: Some("v8".into()) };
    let pulled = pull(&registry, &reference(&real.host, "multi:x"), &Choice::Platform(arm), &one, &Silent).unwrap();
    assert_eq!(pulled.images, [changed.manifests[1].0.clone()]);
    assert_eq!(one.blobs.lock().unwrap().len(), 3);
    if has("skopeo") {
        let source = format!("docker://{}/multi:x", real.host);
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
        assert_eq!(Digest::of(raw.as_bytes()), changed.top.0.digest);
    }
}

#[test]
fn skopeo_reads_what_we_wrote_and_we_what_it_wrote() {
    let Some(real) = plain() else { return };
    if !has("skopeo") {
        return;
    }
    let registry = registry(&real.host);
    let image = image("amd64", &[layer(1, 40_000), layer(2, 9 << 20)]);
    push_to(&registry, "a/b", "x", &image);
    let source = format!("docker://{}/a/b:x", real.host);
    let shown = skopeo(&["inspect", "--tls-verify=false", &source]);
    assert!(shown.contains(&image.top.0.digest.to_string()), "{shown}");
    let layout = format!("oci:{}:x", real.dir.path().join("layout").display());
    let copy = format!("docker://{}/copied:y", real.host);
    let insecure = "--src-tls-verify=false";
    skopeo(&["--insecure-policy", "copy", "-q", insecure, &source, &layout]);
    skopeo(&["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &layout, &copy]);
    let sink = Memory::default();
    let pulled = pull(&registry, &reference(&real.host, "copied:y"), &Choice::All, &sink, &Silent).unwrap();
    assert_eq!((pulled.top.digest, pulled.fetched), (image.top.0.digest, 3));
    // docker's own kinds of manifest and layer.
    let docker = format!("docker://{}/docker:y", real.host);
    let to = ["--insecure-policy", "copy", "-q", "--format", "v2s2", insecure, "--dest-tls-verify=false"];
    skopeo(&[&to[..], &[&source, &docker]].concat());
    let pulled =
        pull(&registry, &reference(&real.host, "docker:y"), &Choice::All, &Memory::default(), &Silent).unwrap();
    assert_eq!((pulled.top.media_type.as_str(), pulled.fetched), (media::DOCKER_MANIFEST, 3));
}

#[test]
fn logins() {
    let auth = "auth:\n  htpasswd:\n    realm: igloo\n    path: @DIR@/htpasswd\n";
    let Some(real) = start("", auth, |dir| std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap()) else { return };
    let image = image("amd64", &[layer(1, 1000)]);
    let error = push(&registry(&real.host), "a", &tags(&["x"]), &image, &Silent).unwrap_err().to_string();
    assert!(error.contains("wants a login") && error.contains("log in first"), "{error}");
    let wrong = with_login(&real.host, "igloo", "guess");
    let error = push(&wrong, "a", &tags(&["x"]), &image, &Silent).unwrap_err().to_string();
    assert!(error.contains("log in again") && !error.contains("guess"), "{error}");
    let right = with_login(&real.host, "igloo", "secret word");
    assert_eq!(push_to(&right, "a", "x", &image).uploaded, 2);

    // The same from docker's file, and from a helper that it names.
    let config = real.dir.path().join("config.json");
    let host = &real.host;
    std::fs::write(&config, format!(r#"{{"auths": {{"http://{host}": {{"auth": "aWdsb286c2VjcmV0IHdvcmQ="}}}}}}"#))
        .unwrap();
    let credentials = igloo_remote::registry::Credentials::from_files([&config]).unwrap();
    let known = Registry::new(RegistryConfig { credentials, ..settings() }, host).unwrap();
    assert!(push_to(&known, "a", "x", &image).is_unchanged());
}

/// Hands connections on to a registry; the first `cuts` of them that carry more than `most` bytes there are cut.
fn cutting(to: &str, cuts: usize, most: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, to) = (listener.local_addr().unwrap().to_string(), to.to_owned());
    let (left, carried) = (Arc::new(AtomicUsize::new(cuts)), Arc::new(AtomicU64::new(0)));
    let total = Arc::clone(&carried);
    // Ends with the process; the registry behind it ends with the test.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { return };
            let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut from, &mut back));
            let (left, total) = (Arc::clone(&left), Arc::clone(&total));
            std::thread::spawn(move || {
                let (mut client, mut server, mut there) = (client, server, 0);
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    if server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                    there += count as u64;
                    total.fetch_add(count as u64, Ordering::Relaxed);
                    let take = |n: usize| n.checked_sub(1);
                    if there > most && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (host, carried)
}

/// This registry (2.8) gives up an upload whose connection broke within a piece: it answers 404 from then on. So the
/// blob starts over; that those who keep what they have are sent the rest alone is for [`super::uploads`].
#[test]
fn uploads_that_are_cut_succeed() {
    let Some(real) = plain() else { return };
    let (host, carried) = cutting(&real.host, 3, 6 << 20);
    let content = noise(5, 32 << 20);
    let descriptor = Descriptor::of(media::LAYER, &content);
    let source = BlobSource::bytes(content.clone());
    registry(&host).upload_blob("a", &descriptor, &|o| source.open(o), &[]).unwrap();
    assert!(carried.load(Ordering::Relaxed) > 50 << 20, "three connections were cut, each after 6 MiB");
    let mut back = Vec::new();
    registry(&real.host).blob("a", &descriptor, &mut back).unwrap();
    assert!(back == content);
}

#[test]
fn uploads_that_cannot_succeed() {
    let Some(real) = plain() else { return };
    let registry = registry(&real.host);
    let content = noise(7, 12 << 20);
    let descriptor = Descriptor::of(media::LAYER, &content);
    // A source that fails is reported as such and not tried again.
    let opened = AtomicUsize::new(0);
    let broken = |_: u64| -> io::Result<Box<dyn Read + Send>> {
        opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Cursor::new(vec![0; 100])))
    };
    let error = registry.upload_blob("a", &descriptor, &broken, &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Source { digest, .. } if digest == descriptor.digest), "{error}");
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    // Content that is not what its descriptor says is the registry's to refuse.
    let other = noise(8, 12 << 20);
    let lying = BlobSource::bytes(other);
    let error = registry.upload_blob("a", &descriptor, &|o| lying.open(o), &[]).unwrap_err().to_string();
    assert!(error.contains("DIGEST_INVALID"), "{error}");
    let source = BlobSource::bytes(content.clone());
    let sent = registry.upload_blob("a", &descriptor, &|o| source.open(o), &[]).unwrap();
    assert_eq!(sent, Sent::Uploaded);
    let mut back = Vec::new();
    registry.blob("a", &descriptor, &mut back).unwrap();
    assert!(back == content);
}

#[test]
fn plain_http_only_where_it_is_allowed() {
    let Some(real) = plain() else { return };
    let never = Registry::new(RegistryConfig { plain_http: PlainHttp::Never, ..settings() }, &real.host).unwrap();
    let error = never.ping().unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error}");
}

/// `cargo test --release -p igloo-remote -- --ignored --nocapture registry::real::figures`
#[test]
#[ignore = "measures, for whoever asks"]
#[allow(clippy::print_stderr)]
fn figures() {
    let Some(real) = plain() else { return };
    let layers: Vec<Vec<u8>> = (0..20).map(|seed| layer(seed, 3 << 20)).collect();
    let mut first = image("amd64", &layers);
    push_to(&registry(&real.host), "figures", "x", &first);
    for round in 0..5 {
        let began = Instant::now();
        assert!(push_to(&registry(&real.host), "figures", "x", &first).is_unchanged());
        let unchanged = began.elapsed();
        let mut next = layers.clone();
        next.push(layer(100 + round, 20_000));
        let next = image("amd64", &next);
        let began = Instant::now();
        let pushed = push_to(&registry(&real.host), "figures", "x", &next);
        assert_eq!(pushed.uploaded, 2);
        eprintln!("unchanged {unchanged:?}, one small layer changed {:?}", began.elapsed());
        first = next;
    }
    drop((first, layers));
    // Larger than memory is to be: from a file, and into nothing.
    let path = real.dir.path().join("large");
    let mut file = std::fs::File::create(&path).unwrap();
    for part in 0..20 {
        file.write_all(&noise(part, 32 << 20)).unwrap();
    }
    let (digest, size) = igloo_base::Sha256::of_reader(&mut std::fs::File::open(&path).unwrap()).unwrap();
    let descriptor = Descriptor::new(media::LAYER, Digest(digest), size);
    let source = BlobSource::file(&path);
    let registry = registry(&real.host);
    peak();
    let before = peak();
    let began = Instant::now();
    registry.upload_blob("figures", &descriptor, &|o| source.open(o), &[]).unwrap();
    eprintln!("640 MiB pushed in {:?}", began.elapsed());
    let began = Instant::now();
    registry.blob("figures", &descriptor, &mut io::sink()).unwrap();
    eprintln!("640 MiB pulled in {:?}; peak of memory rose by {} kB", began.elapsed(), peak() - before);
}

/// The most memory that this process had, in kB, since this was asked last.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    // 5 resets the mark.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
