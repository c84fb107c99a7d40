//! `igloo audit`: the checks of isolation, in people's own containers.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "audited"

[sources.debian]
suite = "bookworm"

[services.quiet]
packages = ["busybox-static"]
run = ["/bin/busybox", "sleep", "1000"]
volumes = ["data:/data", "./conf:/conf:ro", "tmpfs:/cache:size=1M"]

[services.user]
packages = ["busybox-static"]
user = "www-data"
run = ["/bin/busybox", "sleep", "1000"]
limits = { pids = 64, shm = "16M", nofile = 1073741816 }

[services.builder]
packages = ["busybox-static"]
loosen = ["sandboxes"]
run = ["/bin/busybox", "sleep", "1000"]
"#;

#[test]
fn nothing_that_must_not_work_works() {
    for person in people() {
        // Limits are root's to set where control groups are of version 1.
        let limited = person.name == "root";
        let manifest = if limited { MANIFEST.to_owned() } else { MANIFEST.replace("pids = 64, ", "") };
        let project = person.project("audited", &manifest);
        fs::create_dir(project.join("conf")).expect("mkdir");
        person.own(&project);
        assert!(person.igloo(&project, &["audit"]).fails().contains("igloo up"));
        let up = person.igloo(&project, &["up", "--wait"]);
        // No system lets anybody have so many files.
        assert!(up.stderr().contains("not 1073741816"), "{up:?}");
        up.ok();
        let shm = person.igloo(&project, &["exec", "user", "/bin/busybox", "df", "-k", "/dev/shm"]).ok();
        assert!(shm.contains(" 16384 "), "{shm}");
        let text = person.igloo(&project, &["audit", "--brief"]);
        println!("{}\n{}", person.name, text.stdout());
        let audited = person.igloo(&project, &["audit", "--json"]).json();
        assert_eq!(audited.as_array().expect("services").len(), 3);
        for service in audited.as_array().expect("services") {
            let checks = service["checks"].as_array().expect("checks");
            assert!(checks.len() >= 44, "{}", checks.len());
            let failed: Vec<&Value> = checks.iter().filter(|c| c["result"] == "fail").collect();
            assert!(failed.is_empty(), "{}: {failed:?}", person.name);
        }
        let given_up = |service: &Value| {
            let checks = service["checks"].as_array().expect("checks");
            checks.iter().filter(|c| c["detail"].as_str().is_some_and(|d| d.contains("given up"))).count()
        };
        assert!(given_up(&audited[0]) > 0 && given_up(&audited[1]) == 0, "{audited}");
        let security = person.igloo(&project, &["ps", "--security", "--json"]).json();
        assert_eq!(security[0]["loosened"][0], "loosen = [\"sandboxes\"]");
        assert_eq!(security[1]["loosened"].as_array().expect("list").len(), 0);
        if limited {
            let pids = fs::read_to_string("/proc/self/cgroup").expect("read").contains(":pids:");
            let checks = audited[2]["checks"].as_array().expect("checks");
            let limits = checks.iter().find(|c| c["check"] == 22).expect("limits");
            assert!(!pids || limits["detail"].as_str().expect("text").contains("pids 64"), "{limits}");
        }
        // A command that enters has the same locks, and its own file is out of reach.
        let script = "grep -E '^(NoNewPrivs|Seccomp|CapInh):' /proc/self/status | tr -d '\\n\\t '";
        let locks = person.igloo(&project, &["exec", "user", "/bin/busybox", "sh", "-c", script]).ok();
        assert_eq!(locks, "CapInh:0000000000000000NoNewPrivs:1Seccomp:2");
        person.igloo(&project, &["down", "--volumes"]).ok();
        let config = person.igloo(&project, &["config", "--json"]).json();
        let pattern = format!("*igloo/{}*", config["project"]["id"].as_str().expect("id"));
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-path", &pattern]).output().expect("find");
        assert_eq!(String::from_utf8_lossy(&groups.stdout), "");
    }
}
