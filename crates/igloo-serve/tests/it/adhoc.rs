//! Images that are built on pull, by a builder that makes what a test needs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use igloo_formats::oci::{Descriptor, Manifest, media};
use igloo_image::Blobs;
use igloo_serve::registry::{AdHoc, BuildError, Builder, Request};

use crate::world::{Running, config};

/// Makes images whose layer says what was asked for, and which version of it.
struct Fake {
    blobs: Blobs,
    version: AtomicUsize,
    builds: AtomicUsize,
    refreshes: AtomicUsize,
    broken: AtomicBool,
    asked: Mutex<Vec<Request>>,
}

impl Builder for Fake {
    fn build(&self, request: &Request, directory: &Path, refresh: bool) -> Result<Vec<Descriptor>, BuildError> {
        self.builds.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().expect("lock").push(request.clone());
        let fault = || igloo_serve::ServeError::Random(std::io::Error::other("the archive is away"));
        if self.broken.load(Ordering::SeqCst) {
            return Err(BuildError::Fault(fault()));
        }
        for package in &request.packages {
            match package.as_str() {
                "missing" => return Err(BuildError::Request("there is no package `missing`".to_owned())),
                "panics" => panic!("as asked"),
                "slow" => std::thread::sleep(Duration::from_millis(500)),
                _ => {}
            }
        }
        // The lock: the version of the first time, until it is refreshed.
        let lock = directory.join("igloo.lock");
        if refresh || !lock.exists() {
            self.refreshes.fetch_add(usize::from(refresh), Ordering::SeqCst);
            std::fs::write(&lock, self.version.load(Ordering::SeqCst).to_string()).expect("lock");
        }
        let version = std::fs::read_to_string(&lock).expect("lock");
        let text = format!("{request:?} {version}");
        let put = |media_type: &str, bytes: &[u8]| self.blobs.put(media_type, bytes).expect("put");
        let layer = put(media::LAYER, text.as_bytes());
        let config = put(media::CONFIG, config(&text).as_bytes());
        let manifest = Manifest::new(config.clone(), vec![layer.clone()]);
        let top = put(media::MANIFEST, &serde_json::to_vec(&manifest).expect("JSON"));
        Ok(vec![top, config, layer])
    }

    fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }
}

struct World {
    server: Option<Running>,
    fake: Arc<Fake>,
    directory: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let fake = Arc::new(Fake {
            blobs: Blobs::new(directory.path().join("oci")),
            version: AtomicUsize::new(1),
            builds: AtomicUsize::new(0),
            refreshes: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let mut world = World { server: None, fake, directory };
        world.restart(Duration::from_secs(3600));
        world
    }

    fn restart(&mut self, refresh: Duration) {
        self.server = None;
        let adhoc = AdHoc {
            builder: Arc::clone(&self.fake) as Arc<dyn Builder>,
            directory: self.directory.path().join("locks"),
            suites: vec!["bookworm".to_owned(), "trixie".to_owned()],
            refresh,
        };
        self.server = Some(Running::start_in(self.directory.path(), |options| options.adhoc = Some(adhoc)));
    }

    fn server(&self) -> &Running {
        self.server.as_ref().expect("started")
    }

    fn builds(&self) -> usize {
        self.fake.builds.load(Ordering::SeqCst)
    }

    /// The digest that a name and tag stand for now; everything of the image is there.
    fn pull(&self, name: &str, tag: &str) -> String {
        let client = &self.server().client;
        let got = client.get(&format!("/v2/{name}/manifests/{tag}")).is(200);
        let digest = got.header("docker-content-digest").expect("digest").to_owned();
        let again = client.get(&format!("/v2/{name}/manifests/{digest}")).is(200);
        assert_eq!(again.body, got.body);
        let parsed = got.json();
        for part in [&parsed["config"], &parsed["layers"][0]] {
            let path = format!("/v2/{name}/blobs/{}", part["digest"].as_str().expect("digest"));
            assert_eq!(client.get(&path).is(200).body.len() as u64, part["size"].as_u64().expect("size"));
            client.head_of(&path).is(200);
            client.send("GET", &path, &[("Range", "bytes=1-2")], b"").is(206);
        }
        digest
    }
}

#[test]
fn a_name_is_built_once_and_stays_what_it_is() {
    let mut world = World::start();
    let first = world.pull("shell/git", "latest");
    assert_eq!(world.builds(), 1);
    world.fake.version.store(2, Ordering::SeqCst);
    assert_eq!(world.pull("shell/git", "latest"), first);
    assert_eq!(world.pull("shell/git", "bookworm"), first, "the first suite is `latest`");
    assert_eq!(world.builds(), 1);
    assert_ne!(world.pull("shell/git", "trixie"), first);
    // After a restart as well, and when the content was lost.
    world.restart(Duration::from_secs(3600));
    assert_eq!(world.pull("shell/git", "latest"), first);
    assert_eq!(world.builds(), 2);
    std::fs::remove_dir_all(world.fake.blobs.root()).expect("remove");
    assert_eq!(world.pull("shell/git", "latest"), first);
    assert_eq!(world.builds(), 3);
    let metrics = String::from_utf8(world.server().client.get("/metrics").body).expect("text");
    assert!(metrics.contains("igloo_registry_builds_total 1\n"), "{metrics}");
    assert!(metrics.contains("igloo_registry_build_hits_total 1\n"), "{metrics}");
}

#[test]
fn clients_that_know_no_zstd_get_gzip() {
    let world = World::start();
    let client = &world.server().client;
    let asked = |agent: &str| {
        let got = client.send("GET", "/v2/git/manifests/latest", &[("User-Agent", agent)], b"").is(200);
        let layer = got.json()["layers"][0]["digest"].as_str().expect("digest").to_owned();
        client.get(&format!("/v2/git/blobs/{layer}")).is(200);
        layer
    };
    let old = asked("docker/20.10.24+dfsg1 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24)");
    let new = asked("docker/24.0.5 go/go1.20");
    assert_ne!(old, new);
    assert_eq!(asked("containers/5.24 (github.com/containers/image)"), new);
    assert_eq!(asked("docker/19.03.1"), old);
    let asked = world.fake.asked.lock().expect("lock");
    assert_eq!(
        asked.iter().map(|r| (r.gzip, r.suite.as_str())).collect::<Vec<_>>(),
        [(true, "bookworm"), (false, "bookworm")]
    );
}

#[test]
fn versions_move_after_the_refresh() {
    let mut world = World::start();
    let first = world.pull("git", "latest");
    world.fake.version.store(2, Ordering::SeqCst);
    world.restart(Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1100));
    let second = world.pull("git", "latest");
    assert_ne!(first, second);
    assert!(world.fake.refreshes.load(Ordering::SeqCst) >= 1);
    // Who began to pull the first one can go on.
    world.server().client.get(&format!("/v2/git/manifests/{first}")).is(200);
    // An archive that is away does not take away what there is.
    world.fake.broken.store(true, Ordering::SeqCst);
    let gone = world.server().client.get("/v2/git/manifests/latest");
    assert!(matches!(gone.status, 200 | 500));
    world.fake.broken.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(world.pull("git", "latest"), second);
}

#[test]
fn many_who_ask_at_once_wait_for_one_build() {
    let world = World::start();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(|| world.pull("slow", "latest"))).collect();
        asking.into_iter().map(|a| a.join().expect("pull")).collect()
    });
    assert!(answers.iter().all(|a| *a == answers[0]));
    assert_eq!(world.builds(), 1);
}

#[test]
fn a_client_that_leaves_does_not_stop_the_build() {
    use std::io::Write;
    let world = World::start();
    let client = &world.server().client;
    let mut stream = client.connect();
    stream.write_all(client.head("GET", "/v2/slow/manifests/latest", &[]).as_bytes()).expect("send");
    while world.builds() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(stream);
    world.pull("slow", "latest");
    assert_eq!(world.builds(), 1);
}

#[test]
fn what_can_not_be_built_says_why() {
    let world = World::start();
    let client = &world.server().client;
    let said = |path: &str| {
        let answer = client.get(path).refuses(404, "MANIFEST_UNKNOWN");
        answer.json()["errors"][0]["message"].as_str().expect("text").to_owned()
    };
    assert_eq!(said("/v2/git/missing/manifests/latest"), "there is no package `missing`");
    assert_eq!(said("/v2/git/missing/manifests/latest"), "there is no package `missing`");
    assert_eq!(world.builds(), 1, "it is not tried again at once");
    let left = std::fs::read_dir(world.directory.path().join("locks")).expect("list").count();
    assert_eq!(left, 0, "nothing is left of a name that means nothing");
    assert!(said("/v2/git/manifests/v1").contains("`v1` is no suite"));
    assert!(said("/v2/arm64/manifests/latest").contains("no package"));
    assert!(said("/v2/a_b/manifests/latest").contains("`a_b`"));
    client.get(&format!("/v2/git/manifests/{}", igloo_formats::oci::Digest::of(b"x"))).refuses(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/git/blobs/{}", igloo_formats::oci::Digest::of(b"x"))).refuses(404, "BLOB_UNKNOWN");
}

#[test]
fn builders_that_fail_or_panic_do_not_end_the_server() {
    let world = World::start();
    let client = &world.server().client;
    client.get("/v2/panics/manifests/latest").refuses(500, "UNKNOWN");
    client.get("/v2/panics/manifests/latest").refuses(500, "UNKNOWN");
    world.fake.broken.store(true, Ordering::SeqCst);
    let answer = client.get("/v2/git/manifests/latest").refuses(500, "UNKNOWN");
    assert!(!String::from_utf8_lossy(&answer.body).contains("archive"), "faults are for the log");
    assert!(world.server().log.text().contains("the archive is away"));
    world.fake.broken.store(false, Ordering::SeqCst);
    world.pull("git", "latest");
}

#[test]
fn what_was_pushed_wins() {
    let world = World::start();
    let built = world.pull("git", "latest");
    let pushed = world.server().client.image("git", "v1", "layer");
    let client = &world.server().client;
    client.get("/v2/git/manifests/v1").is(200);
    client.get("/v2/git/manifests/latest").refuses(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/git/manifests/{built}")).refuses(404, "MANIFEST_UNKNOWN");
    client.delete(&format!("/v2/git/manifests/{}", pushed.digest)).is(202);
    assert_eq!(world.pull("git", "latest"), built);
}

#[test]
fn names_ask_for_what_they_say() {
    let world = World::start();
    world.pull("arm64/shell/git/g_plus_plus", "trixie");
    let asked = world.fake.asked.lock().expect("lock").clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].packages, ["git", "g++"]);
    assert!(asked[0].shell);
    assert_eq!((asked[0].system.deb_arch(), asked[0].suite.as_str()), ("arm64", "trixie"));
}
