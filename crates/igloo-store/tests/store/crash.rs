//! Kills, full disks, and several at once.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use igloo_base::event::Silent;
use igloo_store::Store;

use crate::support::*;

fn assert_sound(root: &Path) {
    let store = Store::open(root).expect("open");
    let report = store.verify(true, &Silent).expect("verify");
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn a_kill_at_any_instant_leaves_a_sound_store() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    fs::create_dir(dir.join("debs")).expect("mkdir");
    debs_in(&dir.join("debs"), 6);
    let end = Instant::now() + Duration::from_secs(12);
    let mut kills = 0u32;
    while Instant::now() < end && kills < 60 {
        let mut child = helper("churns", &[("SEED", &kills.to_string())])
            .env("ROOT", &root)
            .env("DEBS", dir.join("debs"))
            .stdout(Stdio::null())
            .spawn()
            .expect("spawn");
        std::thread::sleep(Duration::from_millis(50 + u64::from(kills * 37 % 300)));
        assert!(child.try_wait().expect("wait").is_none(), "it died by itself");
        child.kill().expect("kill");
        child.wait().expect("wait");
        kills += 1;
        assert_sound(&root);
    }
    assert!(kills >= 10, "{kills} kills");
    // Whatever was left behind is no obstacle, and goes.
    let debs = debs_in(&dir.join("debs"), 6);
    let store = Store::open(&root).expect("open");
    add(&store, &debs);
    store.remove_roots("churn").expect("remove");
    store.collect(false, &|_| false, &Silent).expect("collect");
    assert_eq!(object_count(&root), 6);
    drop(store);
    assert_sound(&root);
    let store = Store::open(&root).expect("open");
    store.collect(false, &|_| false, &Silent).expect("collect");
    drop(store);
    assert_eq!(object_count(&root), 0);
    assert!(staging_is_empty(&root));
    if let Some(output) = nix(&root, "nix-store", &["--verify", "--check-contents"]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn many_processes_add_the_same() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    let children: Vec<_> = (0..4)
        .map(|i| {
            let debs = dir.join(format!("debs{i}"));
            fs::create_dir(&debs).expect("mkdir");
            let mut command = helper("adds", &[("COUNT", "5")]);
            command.env("ROOT", &root).env("DEBS", debs).stdout(Stdio::piped()).spawn().expect("spawn")
        })
        .collect();
    let mut answers: Vec<Vec<String>> = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        answers.push(text.lines().filter_map(|l| l.strip_prefix("path=")).map(str::to_owned).collect());
    }
    assert_eq!(answers[0].len(), 5);
    assert!(answers.iter().all(|a| *a == answers[0]));
    assert_eq!(object_count(&root), 5, "no lock files are left");
    assert!(staging_is_empty(&root));
    assert_sound(&root);
}

#[test]
fn adding_and_collecting_at_once() {
    let (_guard, dir) = tempdir();
    let store = Store::open(&dir.join("root")).expect("open");
    let debs = debs_in(&dir, 8);
    std::thread::scope(|scope| {
        let adder = scope.spawn(|| {
            for some in debs.chunks(2).cycle().take(12) {
                let paths = add(&store, some);
                assert!(paths.iter().all(|p| store.exists(p)), "protected from its collector");
            }
        });
        while !adder.is_finished() {
            store.collect(false, &|_| false, &Silent).expect("collect");
        }
    });
    assert!(store.verify(true, &Silent).expect("verify").is_good());
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("mkdir");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status().ok()?;
        status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let (_guard, dir) = tempdir();
    let root = dir.join("root");
    if !is_root() {
        return skip("this needs root, to mount a small disk");
    }
    let Some(_disk) = SmallDisk::mount(&root, "size=20m,mode=755") else { return skip("mount is not allowed here") };
    let first = {
        let store = Store::open(&root).expect("open");
        add(&store, &debs_in(&dir, 5))
    };
    let big = write_deb(&dir, "big", Tar::default().file("./big", &noise(7, 30 << 20)));
    {
        let store = Store::open(&root).expect("open");
        let error = store.add_debs(std::slice::from_ref(&big), &Silent, 1).expect_err("full");
        let source = std::error::Error::source(&error).expect("source").to_string();
        assert!(error.to_string().contains("data/big") && source.contains("No space left"), "{error}: {source}");
        assert!(store.verify(true, &Silent).expect("verify").is_good());
    }
    assert!(staging_is_empty(&root));
    // Fill it to the last byte: even then, a collection finds room.
    let filler = root.join("filler");
    let _ = fs::write(&filler, vec![1; 64 << 20]);
    let store = Store::open(&root).expect("open");
    let report = store.collect(false, &|p| *p == first[0], &Silent).expect("collect on a full disk");
    assert_eq!(report.dead.len(), 4);
    fs::remove_file(&filler).expect("remove");
    assert!(store.verify(true, &Silent).expect("verify").is_good());
    let status = Command::new("mount").args(["-o", "remount,size=100m"]).arg(&root).status().expect("mount");
    assert!(status.success());
    add(&store, &[big]);
    assert!(store.verify(true, &Silent).expect("verify").is_good());
}
