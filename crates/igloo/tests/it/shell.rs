//! `igloo shell` and `igloo run`.

use std::fs;

use crate::world::people;

#[test]
fn the_python_example_greets() {
    for person in people() {
        let project = person.example("python-cli");
        let said = person.igloo(&project, &["shell", "--", "./greet", "World"]).ok();
        assert!(said.contains("Hello, World!"), "{said}");
        // From below, too, and the second time as the first.
        fs::create_dir(project.join("below")).expect("mkdir");
        let said = person.igloo(&project.join("below"), &["shell", "--", "../greet", "again"]).ok();
        assert!(said.contains("Hello, again!"), "{said}");
    }
}

const TOOLS: &str = r#"
[project]
name = "tools"
[sources.debian]
suite = "bookworm"
[shells.default]
packages = ["jq", "bash", "coreutils"]
env = { GREETING = "hello there" }
"#;

#[test]
fn every_isolation_passes_exit_codes_environment_and_directory() {
    for person in people() {
        let project = person.project("tools", TOOLS);
        fs::write(project.join("data.json"), r#"{"answer": 42}"#).expect("write");
        for isolation in ["host", "pure", "container"] {
            let shell = |words: &[&str]| {
                let mut all = vec!["shell", "--isolation", isolation, "--"];
                all.extend(words);
                person.igloo(&project, &all)
            };
            assert_eq!(shell(&["jq", ".answer", "data.json"]).ok().trim(), "42", "{} {isolation}", person.name);
            assert_eq!(shell(&["bash", "-c", "exit 5"]).code(), Some(5), "{} {isolation}", person.name);
            assert_eq!(shell(&["bash", "-c", "echo $GREETING"]).ok().trim(), "hello there");
            assert_eq!(shell(&["pwd"]).ok().trim(), project.to_string_lossy());
            assert_eq!(
                shell(&["id", "-u"]).ok(),
                person
                    .command("id")
                    .arg("-u")
                    .output()
                    .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
                    .expect("id")
            );
            let missing = shell(&["no-such-command"]);
            assert_eq!(missing.code(), Some(127), "{missing:?}");
            assert!(missing.stderr().contains("no-such-command"), "{missing:?}");
        }
        // Only `host` sees the rest of the machine.
        let secret = project.parent().expect("home").join("secret");
        fs::write(&secret, "x").expect("write");
        let look = |isolation| {
            person
                .igloo(
                    &project,
                    &["shell", "--isolation", isolation, "--", "test", "-e", secret.to_str().expect("path")],
                )
                .code()
        };
        assert_eq!((look("host"), look("pure"), look("container")), (Some(0), Some(1), Some(1)));
    }
}

#[test]
fn ad_hoc_packages_run_without_a_manifest() {
    for person in people() {
        let directory = person.directory("adhoc");
        let said = person.igloo(&directory, &["run", "-p", "jq", "--", "jq", "-n", "1+1"]).ok();
        assert_eq!(said.trim(), "2");
        assert!(!directory.join("igloo.lock").exists());
    }
}
