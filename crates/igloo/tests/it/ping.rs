//! Programs that Debian gives file capabilities: they have no effect here, and are not needed in services.

use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "ping"
[sources.debian]
suite = "bookworm"
[services.one]
packages = ["iputils-ping", "busybox-static"]
user = "nobody"
run = ["busybox", "sleep", "1000"]
[services.two]
packages = ["busybox-static"]
run = ["busybox", "sleep", "1000"]
"#;

#[test]
fn services_ping_themselves_and_each_other_without_capabilities() {
    for person in people() {
        let project = person.project("ping", MANIFEST);
        person.igloo(&project, &["up", "--wait"]).ok();
        for host in ["127.0.0.1", "two"] {
            let said = person.igloo(&project, &["exec", "one", "--", "ping", "-c1", "-W5", host]).ok();
            assert!(said.contains(" 1 received"), "{} {host}: {said}", person.name);
        }
        // A port below 1024, as nobody.
        let bind = ["exec", "one", "--", "busybox", "timeout", "1", "busybox", "nc", "-l", "-p", "80"];
        let bound = person.igloo(&project, &bind);
        assert!(!bound.stderr().contains("denied"), "{bound:?}");
        person.igloo(&project, &["down"]).ok();
    }
}
