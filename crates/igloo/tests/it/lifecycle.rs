//! What becomes of services: needs, tasks, health, watchdogs, signals, history, replicas; as everybody.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::guestbook::{find, is_alive, wait_until};
use crate::world::{Person, people};

const MANIFEST: &str = r#"
[project]
name = "life"
[sources.debian]
suite = "bookworm"

[services.db]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "busybox sleep 0.2; exec busybox nc -ll -p 5000 -e busybox cat"]
ready = { tcp = 5000 }
health = { tcp = 5000, interval = "100ms" }
ports = ["auto:5000"]

[services.web]
packages = ["busybox-static"]
needs = ["db", { service = "migrate", condition = "completed" }]
run = ["busybox", "sh", "-c", "trap 'echo reloaded' HUP; echo up; while :; do busybox sleep 0.05; done"]
ready = { log = "^up" }
reload = "SIGHUP"
replicas = 2

[services.debug]
packages = ["busybox-static"]
profiles = ["debug"]
run = ["busybox", "sleep", "1000"]

[tasks.migrate]
packages = ["busybox-static"]
needs = ["db"]
run = ["busybox", "sh", "-c", "echo migrated; echo hello | busybox nc -w1 db 5000"]

[tasks.job]
of = "web"
run = ["busybox", "sh", "-c", "echo job in $HOSTNAME; echo aside >&2; exit 4"]
"#;

fn services(person: &Person, project: &Path) -> Value {
    person.igloo(project, &["ps", "--json"]).json()
}

fn state(person: &Person, project: &Path, service: &str) -> String {
    find(&services(person, project), service)["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn needs_tasks_replicas_profiles_and_the_verbs() {
    for person in people() {
        let project = person.project("life", MANIFEST);
        let igloo = |words: &[&str]| person.igloo(&project, words);
        igloo(&["up", "--wait"]).ok();
        let all = services(&person, &project);
        for name in ["db", "web", "web.2"] {
            assert_eq!(find(&all, name)["state"], "ready", "{} {all}", person.name);
        }
        assert_eq!(find(&all, "migrate")["state"], "exited");
        assert_eq!(find(&all, "debug")["state"], "stopped");
        assert_eq!(find(&all, "db")["health"], "healthy");
        assert_eq!(igloo(&["logs", "migrate"]).ok(), "migrated\nhello\n");

        // A task that was done is not done again, one that is asked for is.
        igloo(&["up", "--wait"]).ok();
        assert_eq!(igloo(&["logs", "migrate"]).ok(), "migrated\nhello\n");
        assert_eq!(igloo(&["task", "migrate"]).ok(), "migrated\nhello\n");
        let job = igloo(&["task", "job"]);
        assert_eq!((job.code(), job.stdout().as_str()), (Some(4), "job in job\n"), "{job:?}");
        assert!(job.stderr().contains("aside"));

        // Once, in the service's environment and network, beside it.
        let words =
            ["run", "web", "-e", "WHO=me", "--", "busybox", "sh", "-c", "echo $WHO | busybox nc -w1 db 5000; exit 9"];
        let run = igloo(&words);
        assert_eq!((run.code(), run.stdout().as_str()), (Some(9), "me\n"), "{} {run:?}", person.name);
        assert!(!services(&person, &project).to_string().contains("web.run"), "{}", person.name);

        // Files in and out, to the service's user and to ours.
        std::fs::create_dir_all(project.join("tree/sub")).expect("mkdir");
        std::fs::write(project.join("tree/sub/file"), "content").expect("write");
        person.own(&project);
        igloo(&["cp", "tree", "web:/srv"]).ok();
        igloo(&["cp", "tree/.", "web:/srv/new"]).ok();
        let seen = ["exec", "web", "--", "busybox", "cat", "/srv/tree/sub/file", "/srv/new/sub/file"];
        assert_eq!(igloo(&seen).ok(), "contentcontent", "{}", person.name);
        igloo(&["cp", "web:/srv/tree/sub/file", "db:/tmp/file"]).ok();
        igloo(&["cp", "db:/tmp/file", "back"]).ok();
        igloo(&["cp", "web:/srv/tree", "."]).ok();
        assert_eq!(std::fs::read_to_string(project.join("back")).expect("back"), "content");
        let absent = igloo(&["cp", "web:/absent", "."]).fails();
        assert!(absent.contains("No such file"), "{absent}");
        igloo(&["cp", "one", "two"]).fails();

        // Ports, signals, freezing.
        let at = igloo(&["port", "db", "5000"]).ok();
        assert!(at.starts_with("127.0.0.1:"), "{at}");
        igloo(&["port", "db", "5001"]).fails();
        igloo(&["reload", "web"]).ok();
        for name in ["web", "web.2"] {
            wait_until("it reloads", || igloo(&["logs", name]).ok().contains("reloaded"));
        }
        igloo(&["kill", "-s", "NOTHING", "web"]).fails();
        igloo(&["pause", "web"]).ok();
        let pid = find(&services(&person, &project), "web")["pid"].as_u64().expect("pid");
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        assert!(stat().contains(") T "), "{} {}", person.name, stat());
        assert_eq!(find(&services(&person, &project), "web")["health"], "paused");
        igloo(&["unpause", "web"]).ok();
        assert!(!stat().contains(") T "));
        igloo(&["kill", "web.2"]).ok();
        assert_eq!(state(&person, &project, "web.2"), "stopped");
        assert_eq!(state(&person, &project, "web"), "ready");

        // What is up by name stays up when the rest is brought up.
        igloo(&["up", "--wait", "--profile", "debug", "--scale", "web=1"]).ok();
        assert_eq!(state(&person, &project, "debug"), "ready");
        igloo(&["up", "--wait"]).ok();
        assert_eq!(state(&person, &project, "debug"), "ready");
        assert_eq!(state(&person, &project, "web.2"), "ready");

        let top = igloo(&["top", "--json"]).json();
        let web = top.as_array().and_then(|t| t.iter().find(|u| u["service"] == "web")).expect("web");
        assert!(web["memory"].as_u64().is_some_and(|m| m > 10_000), "{top}");

        igloo(&["stop", "web"]).ok();
        assert_eq!(state(&person, &project, "web.2"), "stopped");
        igloo(&["start", "web.2"]).ok();
        igloo(&["wait", "web.2"]).ok();
        igloo(&["wait", "--for", "completed", "migrate"]).ok();

        igloo(&["down"]).ok();
        igloo(&["down"]).ok();
        igloo(&["stop"]).ok();

        // The history outlives the supervisor.
        let why = igloo(&["why", "web"]).ok();
        for part in [
            "web does not run: the project is not up",
            "waits for db, migrate",
            "is ready: wrote a line",
            "asked for by `down`",
        ] {
            assert!(why.contains(part), "{part} in {why}");
        }
        assert!(igloo(&["why", "web.2", "--json"]).ok().contains("asked for by `kill` (signal 9)"));
        let events = igloo(&["events", "db", "--json"]).ok();
        let states: Vec<String> = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["state"].as_str().expect("state").to_owned())
            .collect();
        assert_eq!(states, ["waiting", "starting", "running", "ready", "stopping", "stopped"], "{events}");

        // With nothing else up, nothing is afterwards.
        let alone = igloo(&["run", "db", "--", "busybox", "echo", "alone"]);
        assert_eq!(alone.stdout(), "alone\n", "{alone:?}");
        assert_eq!(crate::guestbook::supervisors(&person, &project), Vec::<u32>::new());
    }
}

const SICK: &str = r#"
[project]
name = "sick"
[sources.debian]
suite = "bookworm"

[services.sick]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "busybox touch /ok; busybox sleep 0.3; busybox rm /ok; exec busybox sleep 1000"]
health = { exec = ["busybox", "test", "-e", "/ok"], interval = "50ms", retries = 2 }
stop-grace = "100ms"

[services.told]
packages = ["busybox-static"]
run = ["busybox", "sleep", "1000"]
health = { exec = ["busybox", "test", "-e", "/ok"], interval = "50ms", retries = 2, on-unhealthy = "ignore" }

[services.notify]
packages = ["perl-base"]
run = ["perl", "-MSocket", "-e", '''
    $| = 1; socket(S, PF_UNIX, SOCK_DGRAM, 0) or die; my $n = $ENV{NOTIFY_SOCKET}; $n =~ s/^@/\0/;
    sub tell_it { send(S, $_[0], 0, pack_sockaddr_un($n)) or die "send: $!" }
    tell_it("STATUS=warming up"); select(undef, undef, undef, 0.2); tell_it("READY=1\nSTATUS=serving");
    for (1..5) { select(undef, undef, undef, 0.1); tell_it("WATCHDOG=1") } print "silent from here\n"; sleep 1000''']
ready = { notify = true }
health = { notify = true, interval = "1s" }

[services.slow]
profiles = ["slow"]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "echo still at it; exec busybox sleep 1000"]
ready = { tcp = 1, timeout = "300ms" }
stop-grace = "100ms"

[services.crash]
profiles = ["crash"]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "echo dying; exit 3"]
restart = { policy = "on-failure", tries = 2, first = "10ms" }
"#;

#[test]
fn health_watchdog_timeouts_and_failures_are_acted_on_and_told() {
    for person in people() {
        let project = person.project("sick", SICK);
        let igloo = |words: &[&str]| person.igloo(&project, words);
        // Not waiting for all: one that is ill time and again is a reason to fail.
        igloo(&["up", "-d"]).ok();
        igloo(&["wait", "notify", "told"]).ok();
        let why = |service: &str| igloo(&["why", service]).ok();
        wait_until("what is not well is started again", || {
            find(&services(&person, &project), "sick")["restarts"].as_u64() > Some(0)
        });
        let told = why("sick");
        assert!(told.contains("unhealthy: exit code 1, 2 times in a row"), "{told}");
        wait_until("what is only told stays", || find(&services(&person, &project), "told")["health"] == "unhealthy");
        assert_eq!(state(&person, &project, "told"), "ready");

        let told = why("notify");
        assert!(told.contains("is ready: says so (sd_notify)"), "{} {told}", person.name);
        wait_until("the watchdog bites", || why("notify").contains("no word from it (WATCHDOG=1) in 1 s"));
        let log = igloo(&["logs", "notify"]).ok();
        assert!(log.contains("silent from here"), "it was well before: {log}");

        let slow = igloo(&["up", "--wait", "slow"]).fails();
        assert!(
            slow.contains("not ready after 300 ms: waited for a connection to") && slow.contains("still at it"),
            "{slow}"
        );
        let crash = igloo(&["up", "--wait", "crash"]).fails();
        assert!(crash.contains("exited with code 3, 2 times in a row") && crash.contains("dying"), "{crash}");
        igloo(&["down"]).ok();
    }
}

const HOST: &str = r#"
[project]
name = "native"
[sources.debian]
suite = "bookworm"

[services.app]
isolation = "host"
packages = ["perl-base", "busybox-static"]
env = { GREETING = "hello" }
setup = ["busybox", "sh", "-c", "echo set up; test \"$GREETING\" = hello"]
run = ["perl", "-MSocket", "-e", '''
    $| = 1; unlink "daemon.pid"; socket(S, PF_UNIX, SOCK_DGRAM, 0) or die;
    if (fork == 0) { exec "busybox", "setsid", "busybox", "sh", "-c", "echo \$\$ > daemon.pid; exec busybox sleep 1000" }
    select(undef, undef, undef, 0.05) until -s "daemon.pid";
    print "$ENV{GREETING} from $ENV{PWD}\n"; send(S, "READY=1\nSTATUS=serving", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die;
    sleep 1000''']
ready = { notify = true }

[services.web]
isolation = "host"
packages = ["busybox-static"]
needs = ["app"]
run = ["busybox", "nc", "-ll", "-p", "PORT", "-e", "busybox", "cat"]
ports = ["PORT:PORT"]
ready = { tcp = PORT }
health = { exec = ["busybox", "true"], interval = "100ms" }
"#;

#[test]
fn services_of_this_machine_live_and_end_as_those_in_containers() {
    for person in people() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        let project = person.project("native", &HOST.replace("PORT", &port.to_string()));
        let igloo = |words: &[&str]| person.igloo(&project, words);
        igloo(&["up", "--wait"]).ok();
        let daemon = || -> u64 {
            let text = std::fs::read_to_string(project.join("daemon.pid")).expect("the daemon's number");
            text.trim().parse().expect("a number")
        };
        let first = daemon();
        assert!(is_alive(first), "{}", person.name);
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens on the machine's own network");
        let log = igloo(&["logs", "app"]).ok();
        assert!(log.contains("set up") && log.contains("hello from"), "{} {log}", person.name);
        assert_eq!(find(&services(&person, &project), "app")["detail"], "serving");
        let said = igloo(&["exec", "app", "--", "busybox", "sh", "-c", "echo $GREETING; exit 3"]);
        assert_eq!((said.code(), said.stdout().as_str()), (Some(3), "hello\n"), "{said:?}");

        igloo(&["pause", "app"]).ok();
        let stat = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        wait_until("all of it is frozen", || stat(first).contains(") T "));
        igloo(&["unpause", "app"]).ok();

        // Killed, it is started again, and nothing of the first run is left.
        let pid = find(&services(&person, &project), "app")["pid"].as_u64().expect("pid");
        crate::guestbook::kill(u32::try_from(pid).expect("pid"));
        wait_until("it is started again", || {
            let now = services(&person, &project);
            find(&now, "app")["state"] == "ready" && find(&now, "app")["pid"] != pid
        });
        assert!(!is_alive(first));

        // The supervisor's death is theirs; so is the keeper's.
        let second = daemon();
        assert!(is_alive(second));
        crate::guestbook::kill(crate::guestbook::supervisors(&person, &project)[0]);
        wait_until("all ends with the supervisor", || !is_alive(second));
        igloo(&["up", "--wait"]).ok();
        let third = daemon();
        let pid = find(&services(&person, &project), "app")["pid"].as_u64().expect("pid");
        let keeper: u32 =
            stat(pid).rsplit_once(") ").and_then(|(_, r)| r.split(' ').nth(1)?.parse().ok()).expect("its parent");
        crate::guestbook::kill(keeper);
        wait_until("what was kept ends, too", || !is_alive(third));
        igloo(&["up", "--wait"]).ok();
        igloo(&["down"]).ok();
        assert!(!is_alive(daemon()));
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}

const WATCH: &str = r#"
[project]
name = "watch"
[sources.debian]
suite = "bookworm"

[services.app]
packages = ["busybox-static"]
copy = [{ from = "app", to = "/srv/app" }]
run = ["busybox", "sh", "-c", "busybox cat /srv/app/text; exec busybox sleep 1000"]
watch = [{ path = "app", ignore = ["*.tmp"] }]
stop-grace = "100ms"

[services.conf]
packages = ["busybox-static"]
run = ["busybox", "sh", "-c", "trap 'echo reloaded' HUP; while :; do busybox sleep 0.05; done"]
reload = "SIGHUP"
watch = [{ path = "conf/file", action = "reload" }]
stop-grace = "100ms"
"#;

#[test]
fn files_that_change_bring_services_up_to_date() {
    let person = &people()[0];
    let project = person.project("watch", WATCH);
    for (path, text) in [("app/text", "one\n"), ("conf/file", "1")] {
        let path = project.join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }
    person.own(&project);
    person.igloo(&project, &["fetch"]).ok();
    let mut command = person.igloo_command(&project, &["up", "--watch"]);
    let mut up = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("up");
    let logs = |service: &str| person.igloo(&project, &["logs", service]).stdout();
    wait_until("it is up", || logs("app") == "one\n" && state(person, &project, "conf") == "ready");
    let pid = || find(&services(person, &project), "app")["pid"].as_u64();
    let first = pid();
    // Watching begins a little later than this can see, so the change is made again until it is seen.
    let mut n = 0;
    wait_until("it has the new text", || {
        n += 1;
        std::fs::write(project.join("app/text"), format!("two {n}\n")).expect("write");
        std::thread::sleep(Duration::from_millis(400));
        logs("app").contains("two")
    });
    assert_ne!(pid(), first);
    wait_until("it reloads", || {
        n += 1;
        std::fs::write(project.join("conf/file"), format!("{n}")).expect("write");
        std::thread::sleep(Duration::from_millis(400));
        logs("conf").contains("reloaded")
    });
    let settled = pid();
    std::fs::write(project.join("app/x.tmp"), "").expect("write");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(pid(), settled, "what is ignored changes nothing");
    crate::guestbook::signal(up.id(), rustix::process::Signal::INT);
    assert!(up.wait().expect("wait").success());
    assert_eq!(crate::guestbook::supervisors(person, &project), Vec::<u32>::new());
}
