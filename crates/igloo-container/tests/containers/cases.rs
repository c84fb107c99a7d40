//! What must hold in every identity mode.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use igloo_container::audit::Verdict;
use igloo_container::{
    Attr, AttrKind, ContainerEvent, ContainerSpec, Identity, Limits, Mount, MountKind, Secret, SocketKind, User,
};

use crate::lab::{Lab, Running};

type Case = (&'static str, fn(&Lab));

pub const ALL: &[Case] = &[
    ("hello", hello),
    ("exit_codes", exit_codes),
    ("programs_that_cannot_run", programs_that_cannot_run),
    ("identity", identity),
    ("locks", locks),
    ("system_calls", system_calls),
    ("masked_and_read_only", masked_and_read_only),
    ("sandboxes_of_its_own", sandboxes_of_its_own),
    ("audited", audited),
    ("audit_of_podman", audit_of_podman),
    ("what_is_seen", what_is_seen),
    ("generated_files", generated_files),
    ("attrs", attrs),
    ("network", network),
    ("sockets", sockets),
    ("exec", exec),
    ("signals", signals),
    ("end_of_the_handle", end_of_the_handle),
    ("tmpfs", tmpfs),
    ("volumes", volumes),
    ("binds", binds),
    ("escapes", escapes),
    ("read_only_root", read_only_root),
    ("many_layers", many_layers),
    ("limits", limits),
    ("at_once", at_once),
    ("foreign_files_are_removed", foreign_files_are_removed),
    ("killed_supervisor", killed_supervisor),
];

const SERVICE: User = User { uid: 999, gid: 998, groups: Vec::new(), home: String::new() };

fn exited(code: i32) -> ContainerEvent {
    ContainerEvent::Exited { code: Some(code), signal: None, oom: false }
}

fn mount(kind: MountKind, target: &str, read_only: bool) -> Mount {
    Mount { kind, target: target.into(), read_only }
}

fn hello(lab: &Lab) {
    let outcome = lab.run(&lab.sh("hello", "echo $GREETING; echo oops >&2; pwd; echo $#"));
    // Its pid, or 0 if it has ended before that could be looked up.
    assert!(matches!(outcome.events[0], ContainerEvent::Started { pid } if pid != 1), "{:?}", outcome.events);
    assert_eq!(outcome.ok(), "hello there\noops\n/\n0\n");
}

fn exit_codes(lab: &Lab) {
    for code in [1, 7, 255] {
        assert_eq!(*lab.run(&lab.sh("exit", &format!("exit {code}"))).end(), exited(code));
    }
}

fn programs_that_cannot_run(lab: &Lab) {
    let failure = |args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let outcome = lab.run(&ContainerSpec { args, ..lab.sh("nothing", "") });
        match outcome.events.as_slice() {
            [ContainerEvent::Failed { message, .. }] => message.clone(),
            other => panic!("{other:?}"),
        }
    };
    let message = failure(&["no-such-program"]);
    assert!(message.contains("cannot run `no-such-program`") && message.contains("not found"), "{message}");
    let message = failure(&["/srv/data/readme"]);
    assert!(message.contains("cannot run `/srv/data/readme`") && message.contains("ermission denied"), "{message}");
    let missing = ContainerSpec { lowers: vec!["/no/such/layer".into()], ..lab.sh("nothing", "true") };
    let message = match lab.mode {
        // Told at once: the path has to be opened with root's rights.
        Identity::Root => match lab.try_spawn(&missing) {
            Err(message) => message,
            Ok(_) => panic!("a container without its layer"),
        },
        _ => match lab.run(&missing).end() {
            ContainerEvent::Failed { message, .. } => message.clone(),
            other => panic!("{other:?}"),
        },
    };
    assert!(message.contains("/no/such/layer"), "{message}");
}

fn identity(lab: &Lab) {
    assert_eq!(lab.out("id", "id -u; id -g"), "0\n0\n");
    let service =
        ContainerSpec { user: SERVICE, ..lab.sh("id", "id -u; id -g; touch /tmp/mine && stat -c %u:%g /tmp/mine") };
    let service = ContainerSpec { attrs: vec![dir("/tmp", 0o1777, 0, 0)], ..service };
    assert_eq!(lab.run(&service).ok(), "999\n998\n999:998\n");
    let prints = ContainerSpec { user: SERVICE, ..lab.sh("id", "echo out > /dev/stdout; echo err > /dev/stderr") };
    assert_eq!(lab.run(&prints).ok(), "out\nerr\n");
    if lab.mode != Identity::SingleUid {
        let user = User { groups: vec![50, 60], ..SERVICE };
        assert_eq!(lab.run(&ContainerSpec { user, ..lab.sh("id", "id -G") }).ok(), "998 50 60\n");
    }
    let root = lab.start(&lab.sh("id", "sleep 100"));
    let status = fs::read_to_string(format!("/proc/{}/status", root.started())).unwrap();
    let uid: u32 = field(&status, "Uid").split_whitespace().next().unwrap().parse().unwrap();
    match lab.mode {
        Identity::Root => assert!(uid >= 524_288 && uid.is_multiple_of(65_536), "{uid}"),
        _ => assert_eq!(uid, rustix::process::geteuid().as_raw()),
    }
    root.container.kill().unwrap();
    root.finish();
}

fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).expect(name);
    line.split_once(':').unwrap().1.trim()
}

const ELEVEN: &str = "00000000800405fb";
const NONE: &str = "0000000000000000";

fn check_locks(status: &str, effective: &str) {
    for (name, value) in [
        ("CapEff", effective),
        ("CapPrm", effective),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("CapBnd", ELEVEN),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("SigBlk", NONE),
        ("SigIgn", NONE),
    ] {
        assert_eq!(field(status, name), value, "{name} in\n{status}");
    }
}

fn locks(lab: &Lab) {
    let spec = lab.sh("locks", "");
    let spec = ContainerSpec { args: vec!["cat".into(), "/proc/self/status".into()], ..spec };
    check_locks(&lab.run(&spec).ok(), ELEVEN);
    check_locks(&lab.run(&ContainerSpec { user: SERVICE, ..spec }).ok(), NONE);
}

fn system_calls(lab: &Lab) {
    let output = lab.run(&lab.probe("calls", &["calls"])).ok();
    let results: BTreeMap<&str, i32> =
        output.lines().map(|line| line.split_once(' ').map(|(n, e)| (n, e.parse().unwrap())).unwrap()).collect();
    let expect = |names: &str, errno: i32| {
        for name in names.split(' ') {
            assert_eq!(results[name], errno, "{name}");
        }
    };
    expect("unshare_user clone_user setns mount fsopen bpf perf userfaultfd io_uring keyctl add_key", libc::EPERM);
    expect("init_module kexec reboot open_by_handle raw raw6 tiocsti tiocsti_high tioclinux sethostname", libc::EPERM);
    // By Landlock where there is such a thing, else by the user namespace.
    assert!([libc::EPERM, libc::EACCES].contains(&results["mknod"]), "{}", results["mknod"]);
    expect("clone3 unknown personality", libc::ENOSYS);
    expect("alg vsock packet", libc::EAFNOSUPPORT);
    expect("tcp udp6 netlink fork thread personality_query", 0);
}

fn masked_and_read_only(lab: &Lab) {
    let script = "
        for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/kallsyms; do
            [ -e $f ] && [ $(head -c 10 $f | wc -c) != 0 ] && echo readable $f
        done
        for d in /sys/firmware /proc/scsi /proc/acpi /sys/dev/block; do
            [ -d $d ] && [ -n \"$(ls -A $d)\" ] && echo listed $d
        done
        for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /sys/kernel/mm/ksm/run; do
            echo x 2>/dev/null >$f && echo written $f
        done
        for m in / /proc /proc/sys /sys; do mount -o remount,rw $m 2>/dev/null && echo remounted $m; done
        mkdir -p /tmp/p; mount -t proc p /tmp/p 2>/dev/null && echo mounted
        mknod /tmp/null c 1 3 2>/dev/null && cat /tmp/null && echo made a device
        ls /sys/class/net";
    assert_eq!(lab.out("masked", script), "lo\n");
}

/// What Nix's builder does, where that was asked for: and nothing of the machine comes into reach by it.
fn sandboxes_of_its_own(lab: &Lab) {
    let script = "
        unshare -m -p -i -u -n -f sh -c 'hostname inner; mount -t proc p /proc; mount -t tmpfs t /tmp; echo $$; hostname' 2>&1
        hostname
        unshare -U -r -m -p -f sh -c 'mount -t proc p /proc && echo $$' 2>&1
        ls /tmp
        for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches; do
            echo x 2>/dev/null >$f && echo written $f
        done
        mknod /tmp/null c 1 3 2>/dev/null && cat /tmp/null && echo made a device
        for f in /proc/kcore /proc/kmsg; do head -c 1 $f >/dev/null 2>&1 && echo readable $f; done
        true";
    let mut spec = lab.sh("sandboxes", script);
    spec.sandboxes = true;
    assert_eq!(lab.run(&spec).ok(), "1\ninner\nsandboxes-host\n1\n");
    // Nobody else than root of the container gets anything by it.
    let mut spec =
        lab.sh("sandboxes-user", "unshare -m true 2>/dev/null && echo a namespace; grep CapEff /proc/self/status");
    spec.sandboxes = true;
    spec.user = User { uid: 1000, gid: 1000, home: "/".into(), ..User::default() };
    assert_eq!(lab.run(&spec).ok(), "CapEff:\t0000000000000000\n");
}

/// Every check of `igloo audit`, on a service with volumes and one without rights.
fn audited(lab: &Lab) {
    let bait = lab.path("bait");
    fs::write(&bait, "secret").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("igloo-audit-test-{}-{:?}", std::process::id(), lab.mode);
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
    let _socket = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
    fs::create_dir_all(lab.path("shared/deep")).unwrap();
    for (id, user) in [("audited", User::default()), ("audited-user", SERVICE)] {
        let spec = ContainerSpec {
            user,
            read_only: true,
            address: Some(Ipv4Addr::new(10, 99, 7, 60)),
            mounts: vec![
                mount(MountKind::Tmpfs { size: Some(1 << 20) }, "/tmp", false),
                mount(MountKind::Volume { source: lab.path(&format!("volumes-{id}/data")) }, "/srv/data", false),
                mount(MountKind::Bind { source: lab.path("shared") }, "/shared", true),
                mount(
                    MountKind::Secrets { files: vec![("key".into(), Secret(b"hush".to_vec()))] },
                    "/run/secrets",
                    true,
                ),
            ],
            ..lab.sh(id, "trap 'exit 0' TERM; while :; do sleep 1; done")
        };
        let running = lab.start(&spec);
        let audit = igloo_container::audit::AuditSpec {
            pid: running.started(),
            container: spec,
            published: vec![],
            hidden: vec![bait.clone()],
            port: listener.local_addr().unwrap().port(),
            socket: name.clone(),
            process: std::process::id(),
        };
        let checks = igloo_container::audit::audit(&std::env::current_exe().unwrap(), &audit).unwrap();
        print_checks(&format!("{:?} {id}", lab.mode), &checks);
        let failed: Vec<_> = checks.iter().filter(|c| c.result == Verdict::Fail).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let numbers: std::collections::BTreeSet<u32> = checks.iter().map(|c| c.check).collect();
        assert!((1..=44).all(|n| numbers.contains(&n)), "{numbers:?}");
        running.container.kill().unwrap();
        running.finish();
    }
}

/// The same attempts in podman, to look at side by side; that they run is all that is asserted.
fn audit_of_podman(lab: &Lab) {
    if lab.mode != Identity::Root || Command::new("podman").arg("--version").output().is_err() {
        println!("Skipped: no podman, or not root");
        return;
    }
    let config = lab.path("containers.conf");
    let text = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\",\"nproc=20000:20000\"]\n[engine]\nruntime = \"runc\"\n\
                cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
    fs::write(&config, text).unwrap();
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", &config);
    command.args([
        "--root",
        lab.path("podman").to_str().unwrap(),
        "--runroot",
        lab.path("podman-run").to_str().unwrap(),
    ]);
    command.args(["run", "--rm", "-i", "--net=none"]);
    let exe = std::env::current_exe().unwrap();
    command.arg("-v").arg(format!("{}:/audit:ro", exe.display()));
    for directory in ["/usr/lib", "/lib", "/lib64"].into_iter().filter(|d| Path::new(d).exists()) {
        command.arg("-v").arg(format!("{directory}:{directory}:ro"));
    }
    command.arg("--rootfs").arg(&lab.image).args(["/audit", igloo_container::audit::WORD]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let spec = igloo_container::audit::AuditSpec { process: std::process::id(), ..Default::default() };
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&spec).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    match serde_json::from_slice::<Vec<igloo_container::audit::Check>>(&output.stdout) {
        Ok(checks) => print_checks("podman", &checks),
        // As where its runtime is missing.
        Err(_) => println!("Skipped: podman does not run here: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn print_checks(who: &str, checks: &[igloo_container::audit::Check]) {
    let count = |verdict| checks.iter().filter(|c| c.result == verdict).count();
    println!("{who}: {} pass, {} fail, {} skip", count(Verdict::Pass), count(Verdict::Fail), count(Verdict::Skip));
    for check in checks.iter().filter(|c| c.result != Verdict::Pass) {
        println!("  {} {} {}: {}", check.check, check.result.word(), check.name, check.detail);
    }
}

fn what_is_seen(lab: &Lab) {
    let seen = lab.out(
        "seen",
        "ls /proc | grep -c '^[0-9]'; hostname; echo /proc/self/fd/*; cat /proc/self/cgroup | cut -d: -f3 | sort -u",
    );
    let mut lines = seen.lines();
    // The shell, ls and grep.
    assert_eq!(lines.next(), Some("3"));
    assert_eq!(lines.next(), Some("seen-host"));
    assert_eq!(
        lines.next(),
        Some("/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"),
        "the last is the glob's own"
    );
    assert_eq!(lines.next(), Some("/"));
    let devices =
        lab.out("seen", "cd /dev; rm -f core; echo *; [ -c null ] && echo x > null && head -c 4 urandom | wc -c");
    assert_eq!(devices, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n4\n");
    let mounts = lab.out("seen", "cat /proc/self/mountinfo");
    let foreign = mounts.lines().filter(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        !matches!(fields[4].split('/').nth(1), Some("" | "proc" | "sys" | "dev"))
    });
    assert_eq!(foreign.count(), 0, "{mounts}");
    let refused = ContainerSpec { workdir: "/proc/self/fd/7".into(), ..lab.sh("seen", "pwd") };
    assert!(matches!(lab.run(&refused).end(), ContainerEvent::Failed { .. }));
}

fn generated_files(lab: &Lab) {
    let spec = ContainerSpec {
        address: Some(Ipv4Addr::new(10, 99, 7, 3)),
        hosts: vec![("db".into(), Ipv4Addr::new(10, 99, 7, 2))],
        nameservers: vec!["192.0.2.1".into()],
        ..lab.sh("web", "cat /etc/hosts /etc/hostname /etc/resolv.conf; stat -c '%a %u' /etc/hosts; nslookup -h 2>/dev/null; hostname -i")
    };
    let expected = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.99.7.3 web-host\n10.99.7.2 db\n\
        web-host\nnameserver 192.0.2.1\n644 0\n10.99.7.3\n";
    assert_eq!(lab.run(&spec).ok(), expected);
    assert_eq!(fs::read_to_string(lab.image.join("etc/hostname")).unwrap(), "image\n", "the image is as it was");
}

fn dir(path: &str, mode: u32, uid: u32, gid: u32) -> Attr {
    Attr { path: path.into(), kind: AttrKind::Dir, mode: Some(mode), uid, gid }
}

fn attrs(lab: &Lab) {
    let file = |path: &str, mode| Attr { path: path.into(), kind: AttrKind::File, mode: Some(mode), uid: 0, gid: 42 };
    let spec = ContainerSpec {
        attrs: vec![
            dir("run/service/deep", 0o2775, 999, 998),
            file("/srv/data/readme", 0o2755),
            file("/not/there", 0o600),
            // Through a link, and into the root however far it points.
            dir("/srv/data/up", 0o711, 0, 0),
        ],
        workdir: "/srv/here".into(),
        user: User { uid: 999, gid: 998, ..User::default() },
        ..lab.sh(
            "attrs",
            "stat -c '%n %a %u %g' /run/service/deep /srv/data/readme .; ls /not 2>&1; cat /srv/data/readme; touch x",
        )
    };
    let output = lab.run(&spec).ok();
    if lab.mode == Identity::SingleUid {
        assert!(
            output.starts_with("/run/service/deep 2775 999 998\n/srv/data/readme 2755 999 998\n. 755 999 998\n"),
            "{output}"
        );
    } else {
        assert!(
            output.starts_with("/run/service/deep 2775 999 998\n/srv/data/readme 2755 0 42\n. 755 999 998\n"),
            "{output}"
        );
    }
    assert!(output.contains("No such file") && output.ends_with("from the image\n"), "{output}");
}

fn network(lab: &Lab) {
    let server = Ipv4Addr::new(10, 99, 7, 20);
    let hosts = vec![("server".to_owned(), server)];
    let serve = lab.probe("server", &["serve", "0.0.0.0:80", "served"]);
    let serve = ContainerSpec { address: Some(server), user: SERVICE, ..serve };
    let at = |last: u8| Some(Ipv4Addr::new(10, 99, 7, last));
    let client = lab.probe("client", &["fetch", "server:80"]);
    let client = ContainerSpec { address: at(21), hosts: hosts.clone(), ..client };
    // One that sees the server come back with a new interface: it must not remember the old one.
    let witness = ContainerSpec { args: vec!["sleep".into(), "1000".into()], address: at(22), hosts, ..client.clone() };
    let witness = lab.start(&ContainerSpec { id: "witness".into(), ..witness });
    witness.started();
    for _ in 0..3 {
        let running = lab.start(&serve);
        running.started();
        assert_eq!(lab.run(&client).ok(), "served\n");
        let begun = Instant::now();
        assert_eq!(exec_in(&witness, &["/probe", "probe", "fetch", "server:80"]), (Some(0), "served\n".into()));
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
        running.container.kill().unwrap();
        running.finish();
    }
    witness.container.kill().unwrap();
    witness.finish();
    let seen = ContainerSpec {
        address: at(23),
        ..lab.sh("outside", "grep -c . /proc/net/unix; ls /sys/class/net; grep -c eth0 /proc/net/route")
    };
    assert_eq!(lab.run(&seen).ok(), "1\neth0\nlo\n2\n", "no abstract sockets but the header line, two routes");
}

fn sockets(lab: &Lab) {
    let running = lab.start(&lab.probe("sockets", &["serve", "127.0.0.1:7000", "hi from inside"]));
    running.started();
    let deadline = Instant::now() + Duration::from_secs(5);
    let text = loop {
        let socket = running.container.socket(SocketKind::Tcp4).unwrap();
        let address: std::net::SocketAddr = "127.0.0.1:7000".parse().unwrap();
        if rustix::net::connect(&socket, &address).is_ok() {
            let mut stream = TcpStream::from(socket);
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            break text;
        }
        assert!(Instant::now() < deadline, "nobody listens");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(text, "hi from inside");
    for kind in [SocketKind::Tcp6, SocketKind::Udp4, SocketKind::Udp6] {
        running.container.socket(kind).unwrap();
    }
    running.container.kill().unwrap();
    running.finish();
}

fn exec_in(running: &Running, args: &[&str]) -> (Option<i32>, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let handle = running.container.exec(&args, writer.try_clone().unwrap().into(), writer.into()).unwrap();
    let code = handle.wait(Duration::from_secs(10)).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (code, text)
}

fn exec(lab: &Lab) {
    for user in [User::default(), SERVICE] {
        let effective = if user.uid == 0 { ELEVEN } else { NONE };
        let uid = user.uid;
        let running = lab.start(&ContainerSpec { user, workdir: "/srv".into(), ..lab.sh("exec", "sleep 1000") });
        running.started();
        let sh = |script: &str| exec_in(&running, &["sh", "-c", script]);
        assert_eq!(sh("echo $GREETING; pwd; id -u; exit 3"), (Some(3), format!("hello there\n/srv\n{uid}\n")));
        assert_eq!(sh("kill -9 $$").0, Some(137));
        check_locks(&exec_in(&running, &["cat", "/proc/self/status"]).1, effective);
        assert_eq!(sh("echo /proc/self/fd/*").1, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n");
        assert!(sh("ps").1.contains("sleep 1000"), "it is in the same pid namespace");
        let (code, output) = exec_in(&running, &["no-such-program"]);
        assert_eq!(code, Some(127));
        assert!(output.contains("igloo: cannot run `no-such-program`"), "{output}");
        // One that takes too long is killed.
        let null = || fs::File::options().write(true).open("/dev/null").unwrap().into();
        let handle = running.container.exec(&["sleep".into(), "777".into()], null(), null()).unwrap();
        assert_eq!(handle.wait(Duration::from_millis(200)).unwrap(), None);
        let deadline = Instant::now() + Duration::from_secs(5);
        while sh("ps").1.contains("sleep 777") {
            assert!(Instant::now() < deadline, "still there");
            std::thread::sleep(Duration::from_millis(10));
        }
        running.container.kill().unwrap();
        let outcome = running.finish();
        assert_eq!(*outcome.end(), ContainerEvent::Exited { code: None, signal: Some(9), oom: false });
    }
}

fn signals(lab: &Lab) {
    let running =
        lab.start(&lab.sh("signals", "trap 'echo got it; exit 42' TERM; echo ready; while :; do usleep 20000; done"));
    running.started();
    std::thread::sleep(Duration::from_millis(200));
    running.container.signal(libc::SIGTERM).unwrap();
    let outcome = running.finish();
    assert_eq!(*outcome.end(), exited(42), "{}", outcome.output);
    assert_eq!(outcome.output, "ready\ngot it\n");
    // Not handled, so it does what it does by default, even to PID 1; ignored, it does nothing.
    let ended = |script: &str, signals: &[i32]| {
        let running = lab.start(&lab.sh("signals", script));
        running.started();
        std::thread::sleep(Duration::from_millis(100));
        signals.iter().for_each(|signal| running.container.signal(*signal).unwrap());
        running.finish().end().clone()
    };
    let by = |signal| ContainerEvent::Exited { code: None, signal: Some(signal), oom: false };
    assert_eq!(ended("sleep 1000", &[libc::SIGCHLD, libc::SIGTERM]), by(libc::SIGTERM));
    assert_eq!(ended("trap '' TERM; sleep 1000", &[libc::SIGTERM, libc::SIGHUP]), by(libc::SIGHUP));
    assert_eq!(ended("sleep 1000", &[libc::SIGKILL]), by(libc::SIGKILL));
}

fn end_of_the_handle(lab: &Lab) {
    let running = lab.start(&lab.sh("dropped", "sleep 1000 & sleep 1001"));
    let pid = running.started();
    let (container, rest) = running.split();
    assert_eq!(container.pid(), Some(pid));
    drop(container);
    let outcome = rest.finish();
    assert_eq!(outcome, [ContainerEvent::Exited { code: None, signal: Some(9), oom: false }]);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

fn tmpfs(lab: &Lab) {
    let spec = ContainerSpec {
        mounts: vec![
            mount(MountKind::Tmpfs { size: Some(1 << 20) }, "/run/service", false),
            mount(MountKind::Tmpfs { size: None }, "/tmp", false),
            mount(MountKind::Tmpfs { size: None }, "/empty", true),
        ],
        attrs: vec![dir("/tmp", 0o1777, 0, 0)],
        user: SERVICE,
        ..lab.sh(
            "tmpfs",
            "
            df -k /run/service | tail -1 | awk '{print $2}'
            stat -c '%a %u %g' /run/service; stat -c %a /tmp
            touch /run/service/x /tmp/x && dd if=/dev/zero of=/run/service/big bs=1M count=2 2>/dev/null || echo full
            touch /empty/x 2>/dev/null || echo read-only
            grep ' /run/service ' /proc/mounts | grep -c nosuid,nodev",
        )
    };
    assert_eq!(lab.run(&spec).ok(), "1024\n755 999 998\n1777\nfull\nread-only\n1\n");
}

fn volumes(lab: &Lab) {
    let data = lab.path("volumes/data");
    let volume = |target: &str, read_only| mount(MountKind::Volume { source: data.clone() }, target, read_only);
    let first = ContainerSpec {
        mounts: vec![volume("/var/lib/service", false)],
        user: SERVICE,
        ..lab.sh("vol", "stat -c '%a %u %g' /var/lib/service; echo kept > /var/lib/service/file")
    };
    assert_eq!(lab.run(&first).ok(), "755 999 998\n");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "kept\n");
    if lab.mode == Identity::Root {
        assert_eq!(fs::metadata(data.join("file")).unwrap().uid(), 999, "on disk, ids are as inside");
    }
    let again = ContainerSpec {
        mounts: vec![volume("/srv/data", true)],
        ..lab.sh("vol", "cat /srv/data/file; ls /srv/data; touch /srv/data/x 2>&1 || true")
    };
    assert!(
        lab.run(&again).ok().starts_with("kept\nfile\ntouch: /srv/data/x: Read-only"),
        "what is there stays, and nothing is copied"
    );
    // An empty one gets what the image has there, as often as it was cut short before.
    let fresh = lab.path("volumes/fresh");
    fs::create_dir_all(fresh.join(".igloo-filling/half")).unwrap();
    fs::write(fresh.join("half"), "").unwrap();
    let filled = ContainerSpec {
        mounts: vec![mount(MountKind::Volume { source: fresh }, "/srv/data", false)],
        user: SERVICE,
        ..lab.sh("vol", "cd /srv/data; ls -A; cat link deep/file; stat -c %u deep/file; echo changed > readme")
    };
    // What is root's in the image is the service's in its volume.
    assert_eq!(lab.run(&filled).ok(), "deep\nlink\nreadme\nfrom the image\ndeep\n999\n");
    assert_eq!(fs::read_to_string(lab.image.join("srv/data/readme")).unwrap(), "from the image\n");
}

fn binds(lab: &Lab) {
    let source = lab.path("bound");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("file"), "host\n").unwrap();
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o4755)).unwrap();
    let bind = |source: &Path, target: &str, ro| mount(MountKind::Bind { source: source.to_owned() }, target, ro);
    let spec = ContainerSpec {
        mounts: vec![
            bind(&source, "/mnt/rw", false),
            bind(&source, "/mnt/ro", true),
            bind(&source.join("file"), "/etc/one-file", true),
        ],
        ..lab.sh("binds", "
            cat /mnt/ro/file /etc/one-file; stat -c %u /mnt/ro/file
            echo x 2>/dev/null > /mnt/ro/new || echo ro; echo x 2>/dev/null > /etc/one-file || echo ro
            echo written > /mnt/rw/new; grep -c 'nosuid,nodev' /proc/mounts > /dev/null && grep /mnt/rw /proc/mounts | grep -c nosuid,nodev")
    };
    assert_eq!(lab.run(&spec).ok(), "host\nhost\n0\nro\nro\n1\n");
    let new = source.join("new");
    assert_eq!(fs::read_to_string(&new).unwrap(), "written\n");
    assert_eq!(fs::metadata(&new).unwrap().uid(), rustix::process::geteuid().as_raw(), "it is the caller's");
}

fn escapes(lab: &Lab) {
    // A layer and a volume full of links that lead out.
    let evil = lab.path("store/nix/store/1111-evil/data");
    let outside = lab.path("outside");
    fs::create_dir_all(evil.join("etc")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, evil.join("absolute")).unwrap();
    symlink(format!("../../../../../../../../..{}", outside.display()), evil.join("relative")).unwrap();
    symlink(outside.join("hosts"), evil.join("etc/hosts")).unwrap();
    symlink(outside.join("dangling"), evil.join("dangling")).unwrap();
    let volume = lab.path("volumes/evil");
    fs::create_dir_all(&volume).unwrap();
    symlink(&outside, volume.join("out")).unwrap();
    let tmpfs = |target: &str| mount(MountKind::Tmpfs { size: None }, target, false);
    let spec = ContainerSpec {
        lowers: vec![evil.clone(), lab.image.clone()],
        attrs: vec![dir("/absolute/made", 0o700, 0, 0)],
        mounts: vec![
            tmpfs("/absolute/here"),
            tmpfs("/relative/there"),
            mount(MountKind::Volume { source: volume }, "/vol", false),
            tmpfs("/vol/out/further"),
        ],
        ..lab.sh("escapes", "cat /etc/hosts | head -1; touch /absolute/here/x /relative/there/y /vol/out/further/z; ls -d /absolute/made")
    };
    match lab.run(&spec).end() {
        // The links dangle inside: refused is as good as created inside.
        ContainerEvent::Failed { .. } => {}
        other => assert_eq!(*other, exited(0)),
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    // With a target inside, it is that one.
    let inside = lab.path("store/nix/store/2222-inside/data");
    fs::create_dir_all(inside.join(outside.strip_prefix("/").unwrap())).unwrap();
    let lowers = vec![evil, inside, lab.image.clone()];
    let spec = ContainerSpec { lowers, ..spec };
    let shown = lab.run(&spec).ok();
    assert_eq!(shown, "127.0.0.1 localhost\n/absolute/made\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

fn read_only_root(lab: &Lab) {
    let spec = ContainerSpec {
        read_only: true,
        mounts: vec![mount(MountKind::Tmpfs { size: None }, "/tmp", false)],
        ..lab.sh("ro", "touch /x 2>/dev/null; echo $?; touch /tmp/x; echo $?")
    };
    assert_eq!(lab.run(&spec).ok(), "1\n0\n");
}

fn many_layers(lab: &Lab) {
    let store = lab.path("store/nix/store");
    let long = format!("3333-{}", "long".repeat(40));
    let mut lowers = Vec::new();
    for n in 0..600 {
        let layer = store.join(format!("4444-layer-{n}/{}", if n % 100 == 0 { &long } else { "data" }));
        let layer = if n % 100 == 0 { layer.join(&long) } else { layer };
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join(format!("layers/{n}")), "").unwrap();
        fs::write(layer.join("which"), format!("{n}\n")).unwrap();
        lowers.push(layer);
    }
    assert!(lowers[0].as_os_str().len() > 300);
    lowers.push(lab.image.clone());
    let spec = ContainerSpec {
        lowers,
        ..lab.sh("layers", "ls /layers | wc -l; cat /which; rm /which; ls /which 2>/dev/null; echo x > /layers/7")
    };
    assert_eq!(lab.run(&spec).ok(), "600\n0\n");
}

fn limits(lab: &Lab) {
    if lab.mode != Identity::Root {
        let spec = ContainerSpec { limits: Limits { pids: Some(10), ..Limits::default() }, ..lab.sh("limits", "true") };
        match lab.try_spawn(&spec) {
            Ok(running) => drop(running.finish()),
            Err(message) => assert!(message.contains("cannot set the limits of `limits`"), "{message}"),
        }
        return;
    }
    let memory = Limits { memory: Some(32 << 20), ..Limits::default() };
    let hog = ContainerSpec { limits: memory, ..lab.sh("hog", "") };
    let hog = ContainerSpec { args: vec!["tail".into(), "/dev/zero".into()], ..hog };
    let outcome = lab.run(&hog);
    assert_eq!(*outcome.end(), ContainerEvent::Exited { code: None, signal: Some(9), oom: true });
    assert_eq!(*lab.run(&ContainerSpec { args: vec!["true".into()], ..hog }).end(), exited(0), "not the next one");
    let pids = Limits { pids: Some(10), ..Limits::default() };
    let bomb = ContainerSpec { limits: pids, ..lab.sh("bomb", "for i in $(seq 20); do sleep 1 & done; wait") };
    assert!(lab.run(&bomb).output.contains("can't fork"), "twenty processes of ten");
}

fn at_once(lab: &Lab) {
    let start = |n: usize| {
        let address = Some(Ipv4Addr::new(10, 99, 7, 100 + u8::try_from(n).unwrap()));
        lab.start(&ContainerSpec { address, ..lab.sh(&format!("many-{n}"), &format!("exit {n}")) })
    };
    let running: Vec<_> = (0..12).map(start).collect();
    for (n, one) in running.into_iter().enumerate() {
        assert_eq!(*one.finish().end(), exited(i32::try_from(n).unwrap()));
    }
}

fn foreign_files_are_removed(lab: &Lab) {
    let volume = lab.path("volumes/foreign");
    let spec = ContainerSpec {
        mounts: vec![mount(MountKind::Volume { source: volume.clone() }, "/data", false)],
        user: SERVICE,
        ..lab.sh("foreign", "mkdir -p /data/a/b; echo x > /data/a/b/c; chmod 700 /data/a /data/a/b")
    };
    lab.run(&spec).ok();
    assert!(volume.join("a").exists());
    lab.sandbox.remove_tree(&volume).unwrap();
    assert!(!volume.exists());
    lab.run(&spec).ok();
    if lab.mode != Identity::SingleUid {
        igloo_container::userns::remove_tree(&std::env::current_exe().unwrap(), "test", &volume).unwrap();
        assert!(!volume.exists());
    }
}

fn killed_supervisor(lab: &Lab) {
    let dir = lab.path("killed");
    crate::lab::make_image(&dir.join("store/nix/store/0000-busybox/data"));
    let mode = serde_json::to_string(&lab.mode).unwrap();
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["supervise-until-killed", &dir.to_string_lossy(), &mode])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(supervisor.stdout.take().unwrap()), &mut line).unwrap();
    let pid = line.trim().parse::<u32>();
    if pid.is_err() {
        supervisor.kill().unwrap();
    }
    let pid = pid.expect(&line);
    let net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
    let mnt = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap_or_default();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let members = || {
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let of = |path: &Path, ns: &str| fs::read_link(path.join("ns").join(ns)).unwrap_or_default();
        let hit = |path: &Path| {
            (!net.as_os_str().is_empty() && of(path, "net") == net)
                || (!mnt.as_os_str().is_empty() && of(path, "mnt") == mnt)
        };
        let dead = |path: &Path| fs::read_to_string(path.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        let commands = |path: &Path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("sleep\x001001")
        };
        entries.map(|e| e.path()).filter(|path| (hit(path) || commands(path)) && !dead(path)).count()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while members() > 0 {
        assert!(Instant::now() < deadline, "{} processes are left", members());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*dir.to_string_lossy()), "a mount is left");
    drop(std::io::stdout().flush());
}
