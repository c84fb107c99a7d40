use super::*;

const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 /a /mnt/with\\040space rw,relatime shared:7 master:1 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn places_of_a_hybrid_machine() {
    let cgroup = "8:pids:/a/b\n4:memory:/job/x\n1:cpu:/\n0::/\n";
    let found = Hierarchy::from_proc(V1, cgroup);
    let mut v1: Vec<(&str, &str)> = found.v1.iter().map(|(c, p)| (c.name(), p.to_str().expect("text"))).collect();
    v1.sort_unstable();
    assert_eq!(
        v1,
        [("cpu", "/sys/fs/cgroup/cpu"), ("memory", "/sys/fs/cgroup/memory/job/x"), ("pids", "/mnt/with space/b")]
    );
    assert_eq!(found.v2.map(|v| v.current), Some("/sys/fs/cgroup/unified".into()));
}

#[test]
fn place_on_a_unified_machine() {
    let info = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    let found = Hierarchy::from_proc(info, "0::/user.slice/user-1000.slice/session-1.scope\n");
    assert!(found.v1.is_empty());
    let v2 = found.v2.expect("v2");
    assert_eq!(v2.current, Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/session-1.scope"));
    // A mount that does not show the caller's own group is of no use.
    assert_eq!(Hierarchy::from_proc(info, "0::/../other\n").v2, None);
}

#[test]
fn the_nearest_place_that_hands_down_is_taken() {
    let mount = tempfile::tempdir().expect("tempdir");
    let slice = mount.path().join("app.slice");
    let current = slice.join("igloo.scope");
    fs::create_dir_all(&current).expect("mkdir");
    for (dir, handed) in [(mount.path(), "memory pids cpu"), (&slice, "memory pids"), (&current, "")] {
        fs::write(dir.join("cgroup.subtree_control"), handed).expect("write");
        fs::write(dir.join("cgroup.procs"), "").expect("write");
    }
    let v2 = Unified { mount: mount.path().to_owned(), current };
    assert_eq!(place_v2(&v2, &[Controller::Memory, Controller::Pids]).as_deref(), Some(&*slice));
    assert_eq!(place_v2(&v2, &[Controller::Cpu]).as_deref(), Some(mount.path()));
    assert_eq!(place_v2(&v2, &[]).as_deref(), Some(&*slice));
}

#[test]
fn asked_limits_that_cannot_be_had_are_errors() {
    let nowhere = Hierarchy::default();
    let limits = Limits { pids: Some(5), ..Limits::default() };
    let error = nowhere.create("p", "s", &limits).expect_err("refused");
    assert!(matches!(error, CgroupError::Unenforceable { limit: "pids", .. }), "{error}");
    assert!(nowhere.create("p", "s", &Limits::default()).expect("nothing asked").is_empty());
}

#[test]
fn names_and_values_are_checked() {
    for name in ["", "..", "a/b", ".x", "memory.max", "cgroup.procs"] {
        let made = Hierarchy::default().create(name, "s", &Limits::default());
        assert!(matches!(made, Err(CgroupError::Name(_))), "{name}");
    }
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let limits = Limits { cpus: Some(cpus), ..Limits::default() };
        assert!(matches!(Hierarchy::default().create("p", "s", &limits), Err(CgroupError::Value { .. })), "{cpus}");
    }
    assert_eq!((quota(1.5), quota(0.000_1)), (150_000, 1000));
}
