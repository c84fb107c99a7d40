use super::*;

fn options() -> Options {
    Options {
        name: "My Shop".into(),
        suite: Some("bookworm".into()),
        registry: Some("registry.example".into()),
        variables: BTreeMap::from([("TAG".into(), "7".into()), ("DB_PASSWORD".into(), "s3cret".into())]),
    }
}

fn imported(text: &str) -> (Imported, crate::Manifest) {
    let imported = import(text, &options()).unwrap();
    let manifest = crate::parse(&imported.text, "igloo.toml".as_ref())
        .unwrap_or_else(|e| panic!("{}\n{:#?}", imported.text, e.diagnostics));
    (imported, manifest)
}

const SHOP: &str = r#"
version: "3.8"
x-common: &common
  restart: unless-stopped
  environment: &env
    LOG: info
    SECRET: ${SECRET_KEY:?needed}
services:
  web:
    <<: *common
    image: acme/web:${TAG:-1}
    command: serve --name "the shop" --port $PORT
    environment:
      <<: *env
      DATABASE_URL: postgres://shop:${DB_PASSWORD}@db/shop
      PRICE: 5$$
      NESTED: ${A:-$B} $${C}
      HOME_PAGE:
    ports:
      - "8080:80"
      - "127.0.0.1:9000-9002:9000-9002"
      - "53/udp"
      - { target: 443, published: 8443, host_ip: 0.0.0.0 }
    volumes:
      - ./site:/srv/site:ro
      - data:/data
      - /cache
      - { type: bind, source: conf, target: /etc/shop, read_only: true }
      - { type: tmpfs, target: /scratch }
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
    healthcheck:
      test: ["CMD", "wget", "-q", "http://localhost/"]
      interval: 1m30s
      timeout: 500ms
      retries: 5
      start_period: 10s
    deploy: { replicas: 1, resources: { limits: { memory: 512M, cpus: "1.5" } } }
    secrets: [token]
    networks: [front]
    privileged: true
    stop_grace_period: 1m
  db:
    image: postgres:16-alpine
    environment: [POSTGRES_PASSWORD, POSTGRES_DB=shop]
    volumes: ["pg:/var/lib/postgresql/data"]
  migrate:
    build: ./migrate
    depends_on: [db]
    profiles: [tools]
secrets:
  token: { file: ./token.txt }
networks: { front: }
volumes: { data:, pg: }
"#;

#[test]
fn a_compose_file_becomes_a_manifest() {
    let (imported, manifest) = imported(SHOP);
    let text = &imported.text;
    assert_eq!(manifest.project.name, "my-shop");
    let web = &manifest.services["web"];
    assert_eq!(web.image.as_deref(), Some("registry.example/acme/web:7"));
    assert_eq!(web.run, ["serve", "--name", "the shop", "--port"], "{text}");
    assert_eq!(web.content.env["DATABASE_URL"], "postgres://shop:${DB_PASSWORD:-}@db/shop");
    assert_eq!(web.content.env["SECRET"], "${SECRET_KEY:?needed}");
    assert_eq!((web.content.env["PRICE"].as_str(), web.content.env["HOME_PAGE"].as_str()), ("5$$", "${HOME_PAGE:-}"));
    // What `.env` has is for whoever brings it up, and stays there.
    assert!(!text.contains("s3cret"), "{text}");
    assert_eq!(web.content.env["NESTED"], "${A:-${B:-}} $${C}");
    assert_eq!(web.ports.len(), 6);
    assert_eq!(web.volumes.len(), 5);
    assert_eq!(web.needs.len(), 2);
    assert_eq!((web.limits.memory, web.limits.cpus), (Some(512 << 20), Some(1.5)));
    assert_eq!(web.restart, crate::Restart::UnlessStopped);
    assert_eq!(web.stop_grace.as_secs(), 60);
    assert_eq!(web.ready.as_ref().unwrap().timeout.as_millis(), 10_000 + (90_000 + 500) * 5);
    assert!(web.secrets.contains_key("token"));
    let db = &manifest.services["db"];
    assert_eq!(db.content.packages.last().unwrap().text, "postgresql");
    assert!(db.setup.is_some() && db.ready.is_some() && db.image.is_none());
    assert_eq!(db.restart, crate::Restart::No);
    assert_eq!(manifest.services["migrate"].profiles, ["tools"]);
    let notes: Vec<&str> = imported.notes.iter().map(|n| n.text.as_str()).collect();
    for said in ["`privileged` is left out", "built by a Dockerfile", "127.0.0.1", "all services of a project"] {
        assert!(notes.iter().any(|n| n.contains(said)), "{said}: {notes:#?}");
    }
    let privileged = imported.notes.iter().find(|n| n.text.contains("privileged")).unwrap();
    assert!(SHOP.lines().nth(privileged.line - 1).unwrap().contains("privileged"));
}

#[test]
fn what_can_not_be_read_is_told_with_its_line() {
    for (text, line, said) in [
        ("services:\n  a: [", 2, ""),
        ("volumes: {}\n", 1, "no `services`"),
        ("services:\n  a:\n    image: a\n    command: \"it's\"\n", 4, "quote"),
        ("services:\n  a:\n    image: a\n    volumes: ['a:b:c:d']\n", 4, "no volume"),
    ] {
        let error = import(text, &options()).unwrap_err();
        assert!(error.line >= line && error.text.contains(said), "{text}: {error}");
    }
    let none = Options { registry: None, suite: None, ..options() };
    let error = import("services:\n  a:\n    image: redis\n", &none).unwrap_err();
    assert!(error.text.contains("--registry"), "{error}");
}

#[test]
fn official_images_only() {
    for (image, is) in [
        ("postgres", true),
        ("postgres:16", true),
        ("registry.example/library/redis:7-alpine", true),
        ("acme/postgres", false),
        ("registry.example/acme/redis", false),
        ("postgresql", false),
    ] {
        assert_eq!(known::known(image).is_some(), is, "{image}");
    }
}
