//! Secrets and variables of services: where they are, and where they are not.

use std::fs;
use std::path::Path;

use crate::guestbook::find;
use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "secrets"

[sources.debian]
suite = "bookworm"

[services.app]
packages = ["busybox-static"]
user = "www-data"
env-file = ["app.env"]
env = { PLACE = "${PLACE:-nowhere}", KEY = "key:${APP_KEY:?it opens things}", PRICE = "$$5", HOME = "/tmp" }
secrets = { file = { file = "secret.txt" }, variable = { env = "APP_SECRET" }, said = { command = ["cat", "said.txt"] } }
read-only = true
run = ["/bin/busybox", "sleep", "1000"]

[images.app]
of = "services.app"
"#;

/// Files below a directory that hold a text.
fn with_text(directory: &Path, text: &str) -> Vec<String> {
    let output = std::process::Command::new("grep").args(["-rlaF", text]).arg(directory).output().expect("grep");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn secrets_are_in_memory_alone() {
    for person in people() {
        let project = person.project("secrets", MANIFEST);
        fs::write(project.join("app.env"), "FROM_FILE=hush-file-variable\nPLACE=lost\n").expect("write");
        fs::write(project.join("secret.txt"), "hush-in-file\n").expect("write");
        fs::write(project.join("said.txt"), "hush-said\n").expect("write");
        person.own(&project);
        let up = |key: Option<&str>| {
            let mut command = person.igloo_command(&project, &["up", "--wait"]);
            command.env("APP_SECRET", "hush-variable");
            command.envs(key.map(|key| ("APP_KEY", key)));
            command.output().expect("run")
        };
        let refused = String::from_utf8_lossy(&up(None).stderr).into_owned();
        assert!(refused.contains("`APP_KEY`") && refused.contains("it opens things"), "{refused}");
        let output = up(Some("hush-key"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let script = "cd /run/secrets; for f in *; do stat -c '%n %a %U' $f; cat $f; echo; done; stat -f -c %T .; \
                      echo x > file; echo x > /etc/x; echo $FROM_FILE $PLACE $KEY $PRICE";
        let run = person.igloo(&project, &["exec", "app", "/bin/busybox", "sh", "-c", script]);
        let text = run.stdout();
        for wanted in [
            "file 400 www-data\nhush-in-file\n",
            "variable 400 www-data\nhush-variable",
            "said 400 www-data\nhush-said\n",
            "tmpfs",
            "hush-file-variable nowhere key:hush-key $5",
        ] {
            assert!(text.contains(wanted), "{}: no {wanted:?} in {text} {}", person.name, run.stderr());
        }
        assert!(run.stderr().matches("Read-only file system").count() == 2, "{}", run.stderr());
        // Another user of the same container can't read them, nor list them.
        let other = person.igloo(&project, &["exec", "-u", "games", "app", "/bin/busybox", "cat", "/run/secrets/file"]);
        if person.name != "igloo-single" {
            assert!(other.fails().contains("ermission denied"));
        }
        // The project's own files have them, nothing of igloo's does.
        for place in [person.state(), person.state().with_file_name("run"), person.cache()] {
            assert_eq!(with_text(&place, "hush-"), Vec::<String>::new(), "{}", person.name);
        }
        for words in [&["config", "--json"][..], &["ps", "--json"], &["logs"], &["ps", "--security"]] {
            let run = person.igloo(&project, words);
            assert!(!run.stdout().contains("hush-") && !run.stderr().contains("hush-"), "{run:?}");
        }
        let audited = person.igloo(&project, &["audit", "--json"]).json();
        for check in [15, 40] {
            let found = audited[0]["checks"].as_array().expect("checks").iter().find(|c| c["check"] == check);
            assert_eq!(found.expect("check")["result"], "pass", "{}: {found:?}", person.name);
        }
        // Unchanged, nothing is restarted; a changed secret restarts who has it.
        let pid = || find(&person.igloo(&project, &["ps", "--json"]).json(), "app")["pid"].as_u64();
        let before = pid();
        assert!(up(Some("hush-key")).status.success());
        assert_eq!(pid(), before);
        fs::write(project.join("secret.txt"), "hush-again").expect("write");
        assert!(up(Some("hush-key")).status.success());
        assert_ne!(pid(), before);
        // An image is for other machines: defaults only.
        let mut build = person.igloo_command(&project, &["image", "build", "app"]);
        let built = build.env("APP_KEY", "hush-key").env("PLACE", "hush-place").output().expect("build");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        assert_eq!(with_text(&person.cache().join("oci"), "hush-"), Vec::<String>::new());
        assert!(!with_text(&person.cache().join("oci"), "PLACE=nowhere").is_empty());
        person.igloo(&project, &["down"]).ok();
    }
}
