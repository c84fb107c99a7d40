//! `igloo init --from`: a compose file of real services, carried over and run by each kind of person.

use std::fs;

use crate::world::people;

const COMPOSE: &str = r#"
x-quiet: &quiet { restart: unless-stopped }
services:
  db:
    <<: *quiet
    image: postgres:16-alpine
    environment:
      POSTGRES_USER: shop
      POSTGRES_PASSWORD: ${DB_PASSWORD}
      POSTGRES_DB: shop
    volumes: ["pg:/var/lib/postgresql/data"]
    healthcheck: { test: ["CMD-SHELL", "pg_isready -U shop"], interval: 5s, retries: 5 }
  cache:
    image: redis:7
    command: redis-server --appendonly yes
    depends_on: { db: { condition: service_healthy } }
  web:
    image: ./web.tar
    command: ["httpd", "-f", "-p", "8000", "-h", "/srv"]
    volumes: ["./site:/srv:ro"]
    depends_on: [db, cache]
    privileged: true
volumes: { pg: }
"#;

#[test]
fn a_compose_file_is_carried_over_and_runs() {
    for person in people().into_iter().take(2) {
        let image = person.project(
            "image",
            "[project]\nname = \"image\"\n[sources.debian]\nsuite = \"bookworm\"\n[images.web]\npackages = [\"busybox-static\"]\nentrypoint = [\"busybox\"]\n",
        );
        person.igloo(&image, &["image", "build", "--oci-archive", "web.tar"]).ok();
        let directory = person.directory("compose");
        fs::rename(image.join("web.tar"), directory.join("web.tar")).expect("move");
        fs::create_dir(directory.join("site")).expect("mkdir");
        fs::write(directory.join("site/index.html"), "the site").expect("write");
        fs::write(directory.join("compose.yaml"), COMPOSE).expect("write");
        fs::write(directory.join(".env"), "DB_PASSWORD='s3cret'\n").expect("write");
        person.own(&directory);
        let made = person.igloo(&directory, &["init", "--from", "compose.yaml"]);
        assert!(made.stderr().contains("`postgres:16-alpine` is Debian's postgresql here"), "{}", made.stderr());
        assert!(made.stderr().contains("compose.yaml:22: `privileged` is left out"), "{}", made.stderr());
        let text = fs::read_to_string(directory.join("igloo.toml")).expect("read");
        assert!(!text.contains("s3cret"), "{text}");
        // An image of a file is meant as it is written.
        person.igloo(&directory, &["up", "--wait"]).ok();
        let exec = |service: &str, words: &[&str]| {
            person.igloo(&directory, &[&["exec", service, "--"], words].concat()).stdout().trim().to_owned()
        };
        let sql = "PGPASSWORD=s3cret psql -h db -U shop shop -Atc 'create table t as select 42 as x; select x from t'";
        assert!(exec("db", &["sh", "-c", sql]).ends_with("42"), "{}", person.name);
        assert_eq!(exec("cache", &["redis-cli", "config", "get", "appendonly"]), "appendonly\nyes");
        assert_eq!(exec("web", &["busybox", "wget", "-qO-", "http://web:8000/"]), "the site");
        // A wrong password is one.
        let wrong = person
            .igloo(&directory, &["exec", "db", "--", "sh", "-c", "PGPASSWORD=no psql -h db -U shop -c 'select 1'"]);
        assert!(wrong.stderr().contains("password authentication failed"), "{}", wrong.stderr());
        person.igloo(&directory, &["down"]).ok();
        person.igloo(&directory, &["up", "--wait", "db"]).ok();
        assert_eq!(exec("db", &["sh", "-c", "PGPASSWORD=s3cret psql -h db -U shop -Atc 'select x from t'"]), "42");
        person.igloo(&directory, &["down"]).ok();
        // A manifest that is there stays.
        assert!(person.igloo(&directory, &["init", "--from", "compose.yaml"]).stderr().contains("igloo.toml"));
    }
}
