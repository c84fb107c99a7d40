//! The examples that run services, as everybody, through everything that can happen to them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{Person, http, people};

/// The guestbook on a free port.
fn guestbook(person: &Person) -> std::path::PathBuf {
    let project = person.example("guestbook");
    let manifest = project.join("igloo.toml");
    let text = fs::read_to_string(&manifest).expect("read").replace("\"8080:8080\"", "\"auto:8080\"");
    fs::write(&manifest, text).expect("write");
    project
}

fn port(person: &Person, project: &Path, service: &str) -> u16 {
    let services = person.igloo(project, &["ps", "--json"]).json();
    let service = find(&services, service).clone();
    let url = service["urls"][0].as_str().unwrap_or_else(|| panic!("no port: {services}")).to_owned();
    let digits: String = url.rsplit(':').next().expect("port").chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no port in {url}"))
}

pub(crate) fn find<'v>(services: &'v Value, name: &str) -> &'v Value {
    services
        .as_array()
        .and_then(|all| all.iter().find(|s| s["name"] == name))
        .unwrap_or_else(|| panic!("no {name} in {services}"))
}

fn pid(person: &Person, project: &Path, service: &str) -> u64 {
    let services = person.igloo(project, &["ps", "--json"]).json();
    find(&services, service)["pid"].as_u64().unwrap_or_else(|| panic!("{service} has no pid: {services}"))
}

/// Mounts and network interfaces of the host that are igloo's; there should never be one.
pub(crate) fn mounts_and_links() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mounts = mounts.lines().filter(|line| line.contains("igloo-it-")).map(str::to_owned);
    let links = fs::read_dir("/sys/class/net").expect("links");
    let links = links.map(|e| e.expect("link").file_name().to_string_lossy().into_owned());
    mounts.chain(links.filter(|name| name.starts_with("igloo") || name.starts_with("veth"))).collect()
}

#[test]
fn the_guestbook_keeps_its_entries() {
    for person in people() {
        let project = guestbook(&person);
        person.igloo(&project, &["up", "--wait"]).ok();
        let services = person.igloo(&project, &["ps", "--json"]).json();
        for name in ["cache", "db", "front", "web"] {
            assert_eq!(find(&services, name)["state"], "ready", "{}: {services}", person.name);
        }
        let at = port(&person, &project, "front");
        let entry = format!("greetings from {}", person.name);
        assert_eq!(http(at, "POST /", &format!("text={}", entry.replace(' ', "+"))).0, 303);
        assert!(http(at, "GET /", "").1.contains(&entry));

        // Nothing changed, nothing is restarted.
        let db = pid(&person, &project, "db");
        person.igloo(&project, &["up", "--wait"]).ok();
        assert_eq!(pid(&person, &project, "db"), db);

        // Commands run inside, as the service's user, with its exit code.
        assert_eq!(person.igloo(&project, &["exec", "db", "whoami"]).ok().trim(), "postgres");
        assert_eq!(person.igloo(&project, &["exec", "db", "sh", "-c", "exit 7"]).code(), Some(7));
        assert!(person.igloo(&project, &["logs", "db"]).ok().contains("ready to accept connections"));
        person.igloo(&project, &["restart", "web"]).ok();
        assert!(http(at, "GET /", "").1.contains(&entry), "{}", person.name);

        // Every process of ours is killed; the next `up` converges.
        let services = person.igloo(&project, &["ps", "--json"]).json();
        let supervisor = supervisors(&person, &project);
        assert_eq!(supervisor.len(), 1, "{}", person.name);
        kill(supervisor[0]);
        let dead = find(&services, "db")["pid"].as_u64().expect("pid");
        wait_until("the kernel ends the containers", || !is_alive(dead));
        let stopped = person.igloo(&project, &["ps", "--json"]).json();
        assert_eq!(find(&stopped, "db")["state"], "stopped");
        person.igloo(&project, &["up", "--wait"]).ok();
        let at = port(&person, &project, "front");
        assert!(http(at, "GET /", "").1.contains(&entry));

        // Down leaves nothing but the volume; up finds it again.
        person.igloo(&project, &["down"]).ok();
        assert_eq!(supervisors(&person, &project), Vec::<u32>::new());
        assert_eq!(mounts_and_links(), Vec::<String>::new(), "{}", person.name);
        person.igloo(&project, &["up", "--wait"]).ok();
        let at = port(&person, &project, "front");
        assert!(http(at, "GET /", "").1.contains(&entry));
        person.igloo(&project, &["down", "--volumes"]).ok();
        person.igloo(&project, &["down"]).ok();
        assert!(std::net::TcpStream::connect(("127.0.0.1", at)).is_err());
    }
}

#[test]
fn the_node_service_answers() {
    for person in people() {
        let project = person.example("node-service");
        person.igloo(&project, &["up", "--wait"]).ok();
        let at = port(&person, &project, "api");
        let (status, body) = http(at, "GET /hello", "");
        assert_eq!(status, 200);
        assert!(body.contains("\"path\":\"/hello\""), "{body}");
        // Own code changed: only then is it restarted.
        let before = pid(&person, &project, "api");
        let file = project.join("app/server.js");
        let text = fs::read_to_string(&file).expect("read").replace("path:", "where:");
        fs::write(&file, text).expect("write");
        person.igloo(&project, &["up", "--wait"]).ok();
        assert_ne!(pid(&person, &project, "api"), before);
        assert!(http(port(&person, &project, "api"), "GET /", "").1.contains("\"where\":\"/\""));
        person.igloo(&project, &["down", "--volumes"]).ok();
    }
}

#[test]
fn two_at_once_agree() {
    for person in people() {
        let project = person.example("node-service");
        std::thread::scope(|scope| {
            let ups: Vec<_> = (0..3).map(|_| scope.spawn(|| person.igloo(&project, &["up", "--wait"]))).collect();
            for up in ups {
                up.join().expect("up").ok();
            }
        });
        assert_eq!(supervisors(&person, &project).len(), 1, "{}", person.name);
        assert_eq!(http(port(&person, &project, "api"), "GET /", "").0, 200);
        std::thread::scope(|scope| {
            let downs: Vec<_> = (0..2).map(|_| scope.spawn(|| person.igloo(&project, &["down"]))).collect();
            for down in downs {
                down.join().expect("down").ok();
            }
        });
        assert_eq!(supervisors(&person, &project), Vec::<u32>::new(), "{}", person.name);
    }
}

#[test]
fn limits_hold_or_are_refused() {
    for person in people() {
        let project = person.project(
            "limited",
            r#"
[project]
name = "limited"
[sources.debian]
suite = "bookworm"
[services.box]
packages = ["bash", "coreutils"]
run = ["sleep", "1000"]
limits = { memory = "64M", pids = 20 }
restart = "no"
"#,
        );
        let up = person.igloo(&project, &["up", "--wait"]);
        if up.code() == Some(0) {
            let hog = person.igloo(&project, &["exec", "box", "bash", "-c", "a=x; while :; do a=$a$a; done"]);
            assert_ne!(hog.code(), Some(0), "{hog:?}");
            let forks =
                person.igloo(&project, &["exec", "box", "bash", "-c", "for i in {1..40}; do sleep 5 & done; wait"]);
            assert!(forks.stderr().contains("fork"), "{forks:?}");
        } else {
            assert_ne!(person.name, "root", "{up:?}");
            let said = up.fails();
            assert!(said.contains("memory") && said.contains("control group"), "{said}");
        }
        person.igloo(&project, &["down"]).ok();
    }
}

#[test]
fn containers_are_isolated() {
    for person in people() {
        let project = person.project(
            "isolation",
            r#"
[project]
name = "isolation"
[sources.debian]
suite = "bookworm"
[services.box]
packages = ["bash", "coreutils", "grep"]
run = ["sleep", "1000"]
"#,
        );
        person.igloo(&project, &["up", "--wait"]).ok();
        let inside = |script: &str| person.igloo(&project, &["exec", "box", "sh", "-c", script]);
        let status = inside("grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status").ok();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert!(status.contains("CapBnd:\t00000000800405fb"), "{status}");
        assert_eq!(inside("ls /proc | grep -c '^[0-9]'").ok().trim().parse::<u32>().map(|n| n < 10), Ok(true));
        assert_eq!(inside("cat /proc/kcore | head -c 1 | wc -c").ok().trim(), "0");
        for denied in ["echo 1 > /proc/sysrq-trigger", "echo x > /proc/sys/kernel/hostname", "touch /sys/x"] {
            inside(denied).fails();
        }
        assert_eq!(inside(&format!("test -e {}", project.display())).code(), Some(1));
        person.igloo(&project, &["down"]).ok();
    }
}

#[test]
fn a_service_that_fails_is_told_with_its_last_words() {
    let person = &people()[0];
    let project = person.project(
        "failing",
        r#"
[project]
name = "failing"
[sources.debian]
suite = "bookworm"
[services.bad]
packages = ["bash"]
run = ["bash", "-c", "echo the reason >&2; exit 3"]
restart = "no"
[services.slow]
packages = ["bash", "coreutils"]
run = ["sleep", "1000"]
ready = { tcp = 9, timeout = "1s" }
"#,
    );
    let run = person.igloo(&project, &["up", "--wait"]);
    assert_eq!(run.code(), Some(1), "{run:?}");
    let said = run.stderr();
    assert!(said.contains("`bad`") && said.contains("the reason") && said.contains("code 3"), "{said}");
    assert!(said.contains("`slow`") && said.contains(":9"), "{said}");
    person.igloo(&project, &["down"]).ok();
}

pub(crate) fn supervisors(person: &Person, project: &Path) -> Vec<u32> {
    let id = person.igloo(project, &["config", "--json"]).json()["project"]["id"].as_str().expect("id").to_owned();
    let listed = fs::read_dir("/proc").expect("list /proc");
    listed
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            words.contains(&b"__supervise".as_slice()) && words.contains(&id.as_bytes())
        })
        .collect()
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("pid")).expect("pid");
    rustix::process::kill_process(pid, signal).expect("kill");
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("pid")).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

pub(crate) fn is_alive(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !matches!(stat.rsplit(')').next().map(|s| s.trim_start().chars().next()), Some(Some('Z' | 'X')))
    })
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not after 10 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
