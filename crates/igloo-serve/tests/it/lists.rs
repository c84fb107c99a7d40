//! Content discovery: tags, repositories, referrers.

use igloo_formats::oci::{Descriptor, Digest, Index, Manifest, media};

use crate::world::{Client, Pushed, Running};

fn tags(server: &Running, query: &str) -> (Vec<String>, Option<String>) {
    let answer = server.client.get(&format!("/v2/a/tags/list{query}")).is(200);
    assert_eq!(answer.json()["name"], "a");
    let tags = answer.json()["tags"].as_array().expect("tags").clone();
    let tags = tags.iter().map(|t| t.as_str().expect("text").to_owned()).collect();
    (tags, answer.header("link").map(str::to_owned))
}

#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let server = Running::start(|_| {});
    server.client.get("/v2/a/tags/list").refuses(404, "NAME_UNKNOWN");
    let pushed = server.client.image("a", "v10", "layer");
    for tag in ["B", "a", "v9", "C", "b"] {
        server.client.put_manifest("a", tag, media::MANIFEST, &pushed.bytes).is(201);
    }
    let all = ["a", "B", "b", "C", "v10", "v9"];
    assert_eq!(tags(&server, ""), (all.map(str::to_owned).to_vec(), None));
    let (first, link) = tags(&server, "?n=2");
    assert_eq!(first, all[..2]);
    assert_eq!(link.as_deref(), Some("</v2/a/tags/list?n=2&last=B>; rel=\"next\""));
    // Every page is where the one before says.
    let (mut seen, mut next) = (Vec::new(), Some("/v2/a/tags/list?n=4".to_owned()));
    while let Some(path) = next {
        let (page, link) = tags(&server, path.strip_prefix("/v2/a/tags/list").expect("of the list"));
        seen.extend(page);
        next = link.map(|l| l.split(['<', '>']).nth(1).expect("an address").to_owned());
    }
    assert_eq!(seen, all);
    assert_eq!(tags(&server, "?n=0"), (Vec::new(), None));
    assert_eq!(tags(&server, "?last=C").0, ["v10", "v9"]);
    assert_eq!(tags(&server, "?n=1&last=CC").0, ["v10"]);
    assert_eq!(tags(&server, "?n=99999999999999").0.len(), 6);
    server.client.get("/v2/a/tags/list?n=-1").refuses(400, "PAGINATION_NUMBER_INVALID");
    server.client.get("/v2/a/tags/list?n=x").refuses(400, "PAGINATION_NUMBER_INVALID");
}

#[test]
fn repositories_are_listed() {
    let server = Running::start(|_| {});
    assert_eq!(server.client.get("/v2/_catalog").is(200).json()["repositories"], serde_json::json!([]));
    for name in ["b", "a/tags", "a", "a/b/c"] {
        server.client.image(name, "v1", "layer");
    }
    let all = ["a", "a/b/c", "a/tags", "b"];
    assert_eq!(server.client.get("/v2/_catalog").is(200).json()["repositories"], serde_json::json!(all));
    let page = server.client.get("/v2/_catalog?n=2&last=a").is(200);
    assert_eq!(page.json()["repositories"], serde_json::json!(["a/b/c", "a/tags"]));
    assert_eq!(page.header("link"), Some("</v2/_catalog?n=2&last=a/tags>; rel=\"next\""));
    // A repository in the place of another one's tags is not one of its tags.
    assert_eq!(tags(&server, "").0, ["v1"]);
}

/// An artifact that says something about an image.
fn artifact(client: &Client, about: &Pushed, kind: &str, text: &str) -> Digest {
    let (config, layer) = (client.blob("a", b"{}"), client.blob("a", text.as_bytes()));
    let mut artifact =
        Manifest::new(Descriptor::new(kind, config, 2), vec![Descriptor::new("text/plain", layer, text.len() as u64)]);
    artifact.subject = Some(Descriptor::new(media::MANIFEST, about.digest, about.bytes.len() as u64));
    artifact.annotations.insert("about".to_owned(), text.to_owned());
    let bytes = serde_json::to_vec(&artifact).expect("JSON");
    let digest = Digest::of(&bytes);
    let answer = client.put_manifest("a", &digest.to_string(), media::MANIFEST, &bytes).is(201);
    assert_eq!(answer.header("oci-subject"), Some(about.digest.to_string().as_str()));
    digest
}

#[test]
fn referrers_are_found_and_filtered() {
    let server = Running::start(|_| {});
    let client = &server.client;
    let nobody = Digest::of(b"x");
    for path in [format!("/v2/a/referrers/{nobody}"), format!("/v2/never/pushed/referrers/{nobody}")] {
        let none = client.get(&path).is(200);
        assert_eq!(none.header("content-type"), Some(media::INDEX));
        assert_eq!(none.json()["manifests"], serde_json::json!([]));
        assert_eq!(none.json()["schemaVersion"], 2);
    }
    client.get("/v2/a/referrers/sha256:1").refuses(400, "DIGEST_INVALID");
    let image = client.image("a", "v1", "layer");
    let sbom = artifact(client, &image, "application/sbom", "packages");
    let signature = artifact(client, &image, "application/signature", "signed");
    let path = format!("/v2/a/referrers/{}", image.digest);
    let all = client.get(&path).is(200).json();
    let mut digests: Vec<String> =
        all["manifests"].as_array().expect("list").iter().map(|m| m["digest"].as_str().expect("text").into()).collect();
    digests.sort();
    let mut expected = [sbom.to_string(), signature.to_string()];
    expected.sort();
    assert_eq!(digests, expected);
    let some = client.get(&format!("{path}?artifactType=application%2Fsbom")).is(200);
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    let found = &some.json()["manifests"];
    assert_eq!(found.as_array().expect("list").len(), 1);
    assert_eq!(found[0]["digest"], sbom.to_string());
    assert_eq!(found[0]["artifactType"], "application/sbom");
    assert_eq!(found[0]["annotations"]["about"], "packages");
    assert_eq!(found[0]["mediaType"], media::MANIFEST);
    client.delete(&format!("/v2/a/manifests/{sbom}")).is(202);
    assert_eq!(client.get(&path).json()["manifests"].as_array().expect("list").len(), 1);
}

#[test]
fn something_may_be_said_about_an_image_that_is_not_there_yet() {
    let server = Running::start(|_| {});
    let elsewhere = Running::start(|_| {});
    let image = elsewhere.client.image("a", "v1", "layer");
    let sbom = artifact(&server.client, &image, "application/sbom", "packages");
    let found = server.client.get(&format!("/v2/a/referrers/{}", image.digest)).is(200).json();
    assert_eq!(found["manifests"][0]["digest"], sbom.to_string());
    // An index says something as well.
    let mut index = Index::new(Vec::new());
    index.subject = Some(Descriptor::new(media::MANIFEST, image.digest, 1));
    let bytes = serde_json::to_vec(&index).expect("JSON");
    server.client.put_manifest("a", "index", media::INDEX, &bytes).is(201);
    let found = server.client.get(&format!("/v2/a/referrers/{}", image.digest)).is(200).json();
    assert_eq!(found["manifests"].as_array().expect("list").len(), 2);
}
