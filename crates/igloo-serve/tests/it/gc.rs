//! Garbage collection: what goes, what stays, and pushes beside it.

use std::time::Duration;

use igloo_formats::oci::{Descriptor, Digest, Index, Manifest, media};
use igloo_serve::registry::gc::{Collected, Options, collect};
use igloo_serve::registry::{Storage, list};

use crate::world::Running;

fn gc(server: &Running, grace: u64, untagged: bool) -> Collected {
    let storage = Storage::open(&server.directory).expect("open");
    collect(&storage, &Options { grace: Duration::from_secs(grace), untagged, dry_run: false }).expect("collect")
}

/// Makes everything look as if it had been there for an hour.
fn age(server: &Running) {
    for file in server.files() {
        let file = std::fs::File::options().write(true).open(server.directory.join(file)).expect("open");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).expect("touch");
    }
}

#[test]
fn only_what_nobody_needs_and_is_old_goes() {
    let server = Running::start(|_| {});
    let image = server.client.image("a", "v1", "layer");
    let shared = server.client.image("b", "v1", "layer");
    let orphan = server.client.blob("a", b"orphan");
    let collected = gc(&server, 60, false);
    assert!(collected.blobs.is_empty(), "all is young: {collected:?}");
    age(&server);
    let collected = gc(&server, 60, false);
    assert_eq!(collected.blobs, [(orphan.to_string(), 6)]);
    assert_eq!((collected.freed, collected.kept), (6, 3));
    server.client.get(&format!("/v2/a/blobs/{orphan}")).refuses(404, "BLOB_UNKNOWN");
    server.client.delete(&format!("/v2/a/manifests/{}", image.digest)).is(202);
    age(&server);
    assert!(gc(&server, 60, false).blobs.is_empty(), "`b` needs it");
    server.client.get(&format!("/v2/a/blobs/{}", image.layer)).refuses(404, "BLOB_UNKNOWN");
    server.client.get(&format!("/v2/b/blobs/{}", shared.layer)).is(200);
    server.client.delete(&format!("/v2/b/manifests/{}", shared.digest)).is(202);
    age(&server);
    assert_eq!(gc(&server, 60, false).blobs.len(), 3);
    assert_eq!(server.files(), Vec::<String>::new());
    assert!(list(&Storage::open(&server.directory).expect("open")).expect("list").is_empty());
    server.client.image("a", "v1", "layer");
}

#[test]
fn untagged_manifests_go_when_that_is_asked_for() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let old = client.image("a", "latest", "old");
    let child = client.image("a", "child", "child");
    let index = serde_json::to_vec(&Index::new(vec![Descriptor::of(media::MANIFEST, &child.bytes)])).expect("JSON");
    client.put_manifest("a", "all", media::INDEX, &index).is(201);
    client.delete("/v2/a/manifests/child").is(202);
    let new = client.image("a", "latest", "new");
    // Something about an image stays with it.
    let mut about = Manifest::new(Descriptor::new("text/plain", client.blob("a", b"{}"), 2), Vec::new());
    about.subject = Some(Descriptor::new(media::MANIFEST, new.digest, new.bytes.len() as u64));
    let about = serde_json::to_vec(&about).expect("JSON");
    let signature = Digest::of(&about);
    client.put_manifest("a", &signature.to_string(), media::MANIFEST, &about).is(201);
    age(&server);
    assert!(gc(&server, 60, false).manifests.is_empty());
    age(&server);
    let collected = gc(&server, 60, true);
    assert_eq!(collected.manifests, [format!("a@{}", old.digest)]);
    assert_eq!(collected.blobs.len(), 3, "{collected:?}");
    for digest in [new.digest, child.digest, signature, Digest::of(&index)] {
        client.get(&format!("/v2/a/manifests/{digest}")).is(200);
    }
    client.get(&format!("/v2/a/blobs/{}", new.layer)).is(200);
    client.get(&format!("/v2/a/blobs/{}", child.layer)).is(200);
}

#[test]
fn who_asks_for_old_content_may_rely_on_it() {
    let server = Running::start(|_| {});
    let orphan = server.client.blob("a", b"layer");
    let config = server.client.blob("a", crate::world::config("layer").as_bytes());
    age(&server);
    for digest in [orphan, config] {
        server.client.head_of(&format!("/v2/a/blobs/{digest}")).is(200);
    }
    assert!(gc(&server, 600, false).blobs.is_empty());
    let bytes = crate::world::manifest(&crate::world::config("layer"), "layer");
    server.client.put_manifest("a", "v1", media::MANIFEST, &bytes).is(201);
}

#[test]
fn a_dry_run_deletes_nothing() {
    let server = Running::start(|_| {});
    server.client.blob("a", b"orphan");
    age(&server);
    let before = server.files();
    let storage = Storage::open(&server.directory).expect("open");
    let options = Options { grace: Duration::from_secs(60), untagged: true, dry_run: true };
    assert_eq!(collect(&storage, &options).expect("collect").blobs.len(), 1);
    assert_eq!(server.files(), before);
}

#[test]
fn pushes_beside_a_collection_lose_nothing() {
    let server = Running::start(|_| {});
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pushing: Vec<_> = (0..4)
            .map(|thread| {
                let client = server.client.clone();
                scope.spawn(move || {
                    for n in 0..15 {
                        // The same layers again and again, whose manifests come and go.
                        let name = format!("r{}", thread % 2);
                        let pushed = client.image(&name, &format!("t{thread}"), &format!("layer {}", n % 3));
                        client.get(&format!("/v2/{name}/blobs/{}", pushed.layer)).is(200);
                        client.get(&format!("/v2/{name}/manifests/{}", pushed.digest)).is(200);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                gc(&server, 30, false);
            }
        });
        for thread in pushing {
            thread.join().expect("push");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for repository in list(&Storage::open(&server.directory).expect("open")).expect("list") {
        for digest in repository.tags.values() {
            server.client.get(&format!("/v2/{}/manifests/{digest}", repository.name)).is(200);
        }
    }
}

#[test]
fn the_server_collects_by_itself() {
    let keep = tempfile::tempdir().expect("tempdir");
    let orphan = {
        let server = Running::start_in(keep.path(), |_| {});
        let orphan = server.client.blob("a", b"orphan");
        server.client.post("/v2/a/blobs/uploads/").is(202);
        age(&server);
        orphan
    };
    let server = Running::start_in(keep.path(), |options| {
        options.collect = Some(Duration::from_secs(3600));
        options.grace = Duration::from_secs(60);
        options.upload_expiry = Duration::from_secs(60);
    });
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        server.files().is_empty()
    });
    assert!(gone, "{orphan} is still there: {:?}", server.files());
}
