//! Network, control groups and joining a container, against the kernel.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use igloo_container::cgroup::{Cgroup, CgroupError, Hierarchy};
use igloo_container::exec::{ExecSpec, exec_by, exec_in, passed_on};
use igloo_container::network::{Attachment, Link, attach, create_bridge, subnet_for, veth_name};
use igloo_container::{Limits, User};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::fixture::{self, Fixture, Skip, show};

pub(crate) const CASES: &[crate::Case] = &[
    ("a bridge connects two containers", bridge),
    ("memory limit", memory),
    ("pids limit", pids),
    ("cpu limit", cpus),
    ("groups are removed, and replaced after a crash", groups),
    ("limits that the user can't have are refused", refused),
    ("a command in a running container", exec),
    ("findings about this machine", findings),
];

fn bridge(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let mut command = Command::new("setpriv");
        let id = user.uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "unshare", "-rn"]);
        let output = command.arg(&fixture.exe).args(["--act", "bridge"]).output().unwrap();
        assert!(output.status.success(), "{}: {}", user.name, show(&output));
        print!("  {}: {}", user.name, String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// In a network namespace of its own.
pub(crate) fn do_bridge() -> ExitCode {
    let net = subnet_for("test");
    let before = Instant::now();
    create_bridge("igloo0", net.gateway().unwrap()).unwrap();
    let made = before.elapsed();
    let outer = File::open("/proc/self/ns/net").unwrap();
    let mut bridge = Link::open().unwrap();
    let enter = |ns: &File| move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let mut inner = Vec::new();
    let mut times = Vec::new();
    for index in 0..8 {
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        let ns = File::open("/proc/self/ns/net").unwrap();
        let to = Attachment {
            name: veth_name(index),
            address: net.service(index).unwrap(),
            gateway: net.gateway().map(|g| g.address),
        };
        let before = Instant::now();
        // Both ways to a socket of the container's namespace.
        let mut own = if index % 2 == 0 {
            Link::open().unwrap()
        } else {
            enter(&outer);
            Link::open_in(ns.as_fd()).unwrap()
        };
        attach(&mut bridge, &mut own, ns.as_fd(), &to).unwrap();
        times.push(before.elapsed());
        enter(&outer);
        inner.push(ns);
    }
    let again = attach(
        &mut bridge,
        &mut Link::open_in(inner[0].as_fd()).unwrap(),
        inner[0].as_fd(),
        &Attachment { name: veth_name(0), address: net.service(0).unwrap(), gateway: None },
    );
    assert_eq!(again.unwrap_err().to_string(), "cannot create the network interface `veth0` on the bridge");

    let before = Instant::now();
    enter(&inner[0]);
    let address = net.service(0).unwrap().address;
    let listener = TcpListener::bind((address, 5432)).unwrap();
    enter(&inner[1]);
    let mut client = TcpStream::connect_timeout(&SocketAddr::from((address, 5432)), Duration::from_secs(5)).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let (mut server, peer) = listener.accept().unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), peer.ip()), ("hello", net.service(1).unwrap().address.into()));
    let first = before.elapsed();
    // The default route, and loopback.
    let away = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    away.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).unwrap();
    assert_eq!(away.local_addr().unwrap().ip(), net.service(1).unwrap().address);
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    TcpStream::connect(local.local_addr().unwrap()).unwrap();
    // From the bridge's own side.
    enter(&outer);
    TcpStream::connect_timeout(&SocketAddr::from((address, 5432)), Duration::from_secs(5)).unwrap();
    times.sort();
    println!("bridge {made:?}, attach {:?} to {:?}, first connection {first:?}", times[0], times[7]);
    ExitCode::SUCCESS
}

/// The groups of a case; needs root on a machine with control groups of version 1.
struct Lab {
    project: String,
    hierarchy: Hierarchy,
}

impl Lab {
    fn new(fixture: &Fixture, limits: &Limits) -> Result<(Self, Cgroup), Skip> {
        if fixture.users.iter().all(|u| u.uid != 0) {
            return Err(Skip("needs root".into()));
        }
        let lab = Self { project: format!("test-{}", std::process::id()), hierarchy: Hierarchy::detect().unwrap() };
        match lab.hierarchy.create(&lab.project, "service", limits) {
            Ok(group) => Ok((lab, group)),
            Err(e @ CgroupError::Unenforceable { .. }) => Err(Skip(e.to_string())),
            Err(e) => panic!("{e}"),
        }
    }
}

/// This program in a group, as a service would be: through descriptors opened before.
fn hogging(fixture: &Fixture, group: &Cgroup, what: &str) -> Output {
    hog_command(fixture, group, what).output().unwrap()
}

fn hog_command(fixture: &Fixture, group: &Cgroup, what: &str) -> Command {
    let fds = group.procs_fds().unwrap();
    let numbers: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }
    // The descriptors stay open, on purpose: the command starts later.
    std::mem::forget(fds);
    let mut command = Command::new(&fixture.exe);
    command.args(["--act", "hog", what]).args(numbers);
    command
}

pub(crate) fn hog(args: &[String]) -> ExitCode {
    for number in &args[1..] {
        fs::write(format!("/proc/self/fd/{number}"), "0").unwrap();
    }
    match args[0].as_str() {
        "memory" => {
            let mut all = Vec::new();
            for _ in 0..64 {
                all.push(vec![1u8; 4 << 20]);
            }
            println!("{}", all.len());
        }
        "pids" => {
            let mut all: Vec<Child> = Vec::new();
            while let Ok(child) = Command::new("sleep").arg("100").spawn() {
                all.push(child);
                assert!(all.len() < 100);
            }
            println!("{}", all.len());
            for mut child in all {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        "wait" => {
            println!("ready");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        _ => {
            let before = Instant::now();
            while before.elapsed() < Duration::from_secs(1) {}
            println!("{}", fs::read_to_string("/proc/self/schedstat").unwrap().split(' ').next().unwrap());
        }
    }
    ExitCode::SUCCESS
}

fn memory(fixture: &Fixture) -> Result<(), Skip> {
    let (_, group) = Lab::new(fixture, &Limits { memory: Some(32 << 20), ..Limits::default() })?;
    assert!(!group.oom_killed());
    let output = hogging(fixture, &group, "memory");
    assert_eq!(output.status.signal(), Some(9), "{}", show(&output));
    assert!(group.oom_killed());
    assert!(group.usage().memory.is_some_and(|m| m <= 32 << 20), "{:?}", group.usage());
    group.remove().unwrap();
    Ok(())
}

fn pids(fixture: &Fixture) -> Result<(), Skip> {
    let (_, group) = Lab::new(fixture, &Limits { pids: Some(6), ..Limits::default() })?;
    let output = hogging(fixture, &group, "pids");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5", "{}", show(&output));
    assert_eq!(group.usage().pids, Some(0));
    group.remove().unwrap();
    Ok(())
}

fn cpus(fixture: &Fixture) -> Result<(), Skip> {
    let (_, group) = Lab::new(fixture, &Limits { cpus: Some(0.2), ..Limits::default() })?;
    let output = hogging(fixture, &group, "cpus");
    let used: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(used < 400_000_000, "{used} ns in a second");
    group.remove().unwrap();
    Ok(())
}

fn groups(fixture: &Fixture) -> Result<(), Skip> {
    let limits = Limits { pids: Some(6), ..Limits::default() };
    let (lab, group) = Lab::new(fixture, &limits)?;
    // Left behind by somebody who was killed, with a group of the service's own in it.
    let places: Vec<_> = lab.hierarchy.v1.iter().map(|(_, place)| place.join("igloo").join(&lab.project)).collect();
    for place in &places {
        fs::create_dir(place.join("service/nested")).unwrap();
    }
    let before = Instant::now();
    let again = lab.hierarchy.create(&lab.project, "service", &Limits::default()).unwrap();
    println!("  create with all controllers {:?}", before.elapsed());
    assert_eq!(again, group, "the same directories");
    for place in places.iter().filter(|place| place.starts_with("/sys/fs/cgroup/pids")) {
        assert_eq!(fs::read_to_string(place.join("service/pids.max")).unwrap(), "max\n", "the old limit is gone");
    }
    // While somebody is in it: removing waits for nobody for ever, and tells.
    let mut command = hog_command(fixture, &again, "wait");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    assert_eq!(again.remove().unwrap_err().act, "remove the control group");
    child.kill().unwrap();
    child.wait().unwrap();
    again.remove().unwrap();
    assert!(places.iter().all(|place| !place.exists()));
    Ok(())
}

fn refused(fixture: &Fixture) -> Result<(), Skip> {
    let hierarchy = Hierarchy::detect().unwrap();
    let ordinary = fixture.users.iter().find(|u| u.uid != 0);
    let (Some(user), false) = (ordinary, hierarchy.v1.is_empty()) else {
        return Err(Skip("needs an ordinary user and control groups of version 1".into()));
    };
    let mut command = Command::new("setpriv");
    let id = user.uid.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&fixture.exe);
    let output = command.args(["--act", "refused"]).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    print!("  {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

pub(crate) fn do_refused() -> ExitCode {
    let hierarchy = Hierarchy::detect().unwrap();
    let error = hierarchy.create("p", "s", &Limits { memory: Some(1 << 30), ..Limits::default() }).unwrap_err();
    let CgroupError::Unenforceable { limit, remedy, .. } = &error else { panic!("{error}") };
    assert_eq!(*limit, "memory");
    println!("{error}; {remedy}");
    assert!(hierarchy.create("p", "s", &Limits::default()).unwrap().is_empty());
    ExitCode::SUCCESS
}

/// `exec PID UID WORKDIR -- WORDS`
pub(crate) fn do_exec(args: &[String]) -> ExitCode {
    let uid = args[1].parse().unwrap();
    let spec = ExecSpec {
        pid: args[0].parse().unwrap(),
        args: args[4..].iter().map(Into::into).collect(),
        env: vec![("PATH".into(), "/usr/bin".into()), ("INSIDE".into(), "yes".into())],
        workdir: args[2].clone().into(),
        user: User { uid, gid: uid, ..User::default() },
        locks: Default::default(),
        copy: None,
    };
    crate::acts::finish(Err(exec_by(&std::env::current_exe().unwrap(), &[], &spec)))
}

/// What `exec_by` starts: its own file can't be written through `/proc`.
pub(crate) fn do_exec_passed_on(args: &[String]) -> ExitCode {
    let spec = passed_on(args[0].parse().unwrap()).unwrap();
    let own = rustix::fs::statvfs("/proc/self/exe").unwrap();
    assert!(own.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    crate::acts::finish(exec_in(&spec))
}

fn exec(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let script = "echo ready; while :; do sleep 0.05; done";
        let mut command = fixture.enter(user, "container", &["--no-network"], &["sh", "-c", script]);
        let mut outer = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        outer.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.id())).unwrap();
        let pid = children.split_whitespace().last().unwrap().to_owned();
        let (id, project) = (user.uid.to_string(), user.project.to_str().unwrap().to_owned());
        let run = |words: &[&str]| {
            let mut args = vec!["exec", &pid, &id, &project, "--"];
            args.extend(words);
            fixture.command(user, &args).output().unwrap()
        };
        let script = "pwd; hostname; id -u; echo $INSIDE; grep -E '^(NoNewPrivs|Seccomp|CapInh):' /proc/self/status; \
                      ls /proc/self/fd | wc -l; ps | grep -c igloo; ip -o link | wc -l; busybox unshare -U true 2>&1";
        let output = run(&["sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() >= 10, "{}", show(&output));
        assert_eq!(lines[..4], [&project, "inside", &id, "yes"], "{}", show(&output));
        assert_eq!(lines[4..7], ["CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"], "{}", show(&output));
        assert_eq!(lines[7], "4");
        assert_eq!(lines[9], "1", "loopback alone: {}", show(&output));
        assert!(lines[10].contains("unshare"), "refused: {}", show(&output));
        for (words, code) in [(&["sh", "-c", "exit 9"][..], 9), (&["no-such"], 127), (&["/etc/passwd"], 126)] {
            assert_eq!(run(words).status.code(), Some(code), "{words:?}");
        }
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.signal(), Some(9));
        let times: Vec<Duration> = (0..9)
            .map(|_| {
                let before = Instant::now();
                run(&["true"]);
                before.elapsed()
            })
            .collect();
        println!("  {}: {:?} (best of 9)", user.name, times.iter().min().unwrap());
        outer.kill().unwrap();
        outer.wait().unwrap();
        // The kernel ends it a moment later.
        let end = Instant::now() + Duration::from_secs(20);
        let output = loop {
            let output = run(&["true"]);
            if output.status.code() == Some(125) || Instant::now() > end {
                break output;
            }
        };
        assert!(String::from_utf8_lossy(&output.stderr).contains("the container is gone"), "{}", show(&output));
    }
    Ok(())
}

fn findings(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let state = user.state.to_str().unwrap();
        let output = fixture.command(user, &["findings", state]).output().unwrap();
        assert!(output.status.success(), "{}: {}", user.name, fixture::show(&output));
        println!("  {}:\n{}", user.name, String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}
