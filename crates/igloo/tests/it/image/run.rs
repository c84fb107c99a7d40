//! `igloo image run`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::boxes;
use crate::world::people;

#[test]
fn an_image_runs_here_with_the_callers_streams_and_exit_code() {
    for person in people() {
        let project = boxes(&person);
        let run = |words: &[&str]| person.igloo(&project, &[&["image", "run"], words].concat());
        assert_eq!(run(&["box"]).ok(), "ran well\n", "{}", person.name);
        let sh = |script: &str| run(&["box", "--", "busybox", "sh", "-c", script]);
        assert_eq!(sh("exit 7").code(), Some(7));
        assert_eq!(
            sh("pwd; cat main; echo; echo $GREETING $HOME; id -u").ok(),
            "/srv/app\nthe code\nhello there /root\n0\n"
        );
        let missing = run(&["box", "--", "no-such-command"]);
        assert_eq!(missing.code(), Some(127), "{missing:?}");
        assert!(missing.stderr().contains("no-such-command"), "{missing:?}");
        assert_eq!(run(&["box", "--", "/etc/motd"]).code(), Some(126));
        // Owners and modes as the image says, and nothing of this machine.
        assert_eq!(sh("busybox stat -c '%a %u' /tmp /etc/motd").ok(), "1777 0\n600 0\n");
        assert_eq!(sh(&format!("test -e {}", project.display())).code(), Some(1));
        assert_eq!(sh("busybox ip link | busybox grep -c '^[0-9]'").ok(), "1\n", "loopback alone");
        // Writable, and gone with the run.
        assert_eq!(sh("echo x > new && echo more >> main && cat new").ok(), "x\n");
        assert_eq!(sh("cat main; ls").ok(), "the codemain\n");
        // Other users, variables, directories and entry points.
        let as_user = run(&[
            "box",
            "-u",
            "1234:56",
            "-w",
            "/made",
            "-e",
            "A=1",
            "-e",
            "HOME",
            "--",
            "busybox",
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $A $HOME; echo x > x",
        ]);
        let home = project.parent().expect("home").display();
        assert_eq!(as_user.ok(), format!("1234\n56\n/made\n1 {home}\n"));
        assert_eq!(run(&["box", "--entrypoint", "busybox", "--", "echo", "other"]).ok(), "other\n");
        let said = run(&["box", "-u", "nobody-knows"]).fails();
        assert!(said.contains("has no user `nobody-knows`"), "{said}");
        // What is mounted.
        fs::create_dir(project.join("shared")).expect("mkdir");
        fs::write(project.join("shared/in"), "from outside").expect("write");
        person.own(&project);
        let mounted = |volume: &str, script: &str| run(&["box", "-v", volume, "--", "busybox", "sh", "-c", script]);
        assert_eq!(mounted("./shared:/s", "cat /s/in; echo back > /s/out").ok(), "from outside");
        assert_eq!(fs::read_to_string(project.join("shared/out")).expect("read"), "back\n");
        assert_ne!(mounted("./shared:/s:ro", "echo x > /s/more").code(), Some(0));
    }
}

#[test]
fn input_and_signals_are_passed_on() {
    for person in people() {
        let project = boxes(&person);
        // Of its own, so that what is left is known to be of these runs.
        let state = project.join("state");
        let run = |words: &[&str]| {
            let mut command =
                person.igloo_command(&project, &[&["image", "run", "box", "--", "busybox"], words].concat());
            command.env("IGLOO_STATE_DIR", &state).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn")
        };
        let mut child = run(&["wc", "-c"]);
        child.stdin.take().expect("stdin").write_all(b"12345").expect("write");
        assert_eq!(String::from_utf8_lossy(&child.wait_with_output().expect("wait").stdout).trim(), "5");
        let ended = |signal: Signal, script: &str| {
            let mut child = run(&["sh", "-c", script]);
            let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
            assert_eq!(lines.next().expect("a line").expect("text"), "up");
            kill_process(Pid::from_child(&child), signal).expect("kill");
            let status = child.wait().expect("wait");
            (status.code(), std::os::unix::process::ExitStatusExt::signal(&status))
        };
        let script = "trap 'exit 11' USR1; trap 'exit 12' USR2; trap 'exit 13' TERM; echo up; while :; do busybox sleep 0.1; done";
        assert_eq!(ended(Signal::USR2, script), (Some(12), None), "{}", person.name);
        // The image says by which signal it is to be stopped.
        assert_eq!(ended(Signal::TERM, script), (Some(11), None));
        // One that nobody thought of.
        assert_eq!(ended(Signal::USR2, "echo up; exec busybox sleep 1000"), (None, Some(12)));
        // And when we are killed, nothing goes on.
        let mut child = run(&["sh", "-c", "echo up; exec busybox sleep 98765"]);
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "up");
        child.kill().expect("kill");
        child.wait().expect("wait");
        // The end of what it wrote is the end of all who could write.
        assert!(lines.next().is_none());
        // What the killed one left is removed by the next, which leaves nothing either.
        let left = || {
            let all = fs::read_dir(state.join("image-runs")).expect("list").flatten();
            all.filter(|e| e.file_name() != "lock").count()
        };
        assert_eq!(left(), 1);
        assert!(run(&["true"]).wait().expect("wait").success());
        assert_eq!(left(), 0);
    }
}

#[test]
fn at_a_terminal_a_program_has_one() {
    if !super::has("script") {
        return;
    }
    for person in people() {
        let project = boxes(&person);
        let words = "igloo image run box -u 1000 -- busybox sh -c 'tty; stty size; echo x > /dev/tty; exit 9'";
        let output = person
            .command("script")
            .args(["-qec", &format!("stty rows 33 cols 99; {words}"), "/dev/null"])
            .env("TERM", "dumb")
            .current_dir(&project)
            .output()
            .expect("script");
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "").replace("^@", "");
        assert_eq!(output.status.code(), Some(9), "{}: {said}", person.name);
        assert!(said.ends_with("/dev/pts/0\n33 99\nx\n"), "{}: {said:?}", person.name);
    }
}

#[test]
fn images_of_others_forms_run_here() {
    for person in people() {
        let project = boxes(&person);
        let all = ["-o", "out", "--oci-archive", "oci.tar", "--docker-archive", "docker.tar"];
        person.igloo(&project, &[&["image", "build"][..], &all].concat()).ok();
        for image in ["oci:out", "oci-archive:oci.tar", "docker-archive:docker.tar", "./docker.tar", "out"] {
            assert_eq!(person.igloo(&project, &["image", "run", image]).ok(), "ran well\n", "{} {image}", person.name);
        }
    }
}

#[test]
fn a_run_that_was_killed_while_it_unpacked_leaves_nothing_that_the_next_one_trips_over() {
    let person = people().pop().expect("somebody");
    let project = boxes(&person);
    person.igloo(&project, &["image", "build", "-o", "out"]).ok();
    let cache = project.join("cache");
    let run = || {
        let mut command = person.igloo_command(&project, &["image", "run", "oci:out"]);
        command.env("IGLOO_CACHE_DIR", &cache);
        command
    };
    let trees = cache.join("oci/trees");
    let mut killed = 0;
    for moment in [1, 2, 5, 10, 20, 40] {
        let _ = fs::remove_dir_all(&trees);
        let mut child = run().stdout(Stdio::null()).spawn().expect("spawn");
        let ended = loop {
            if super::files(&trees) >= moment {
                break false;
            }
            if child.try_wait().expect("wait").is_some() {
                break true;
            }
        };
        drop(child.kill());
        drop(child.wait());
        killed += usize::from(!ended);
        let output = run().output().expect("igloo");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ran well\n", "killed at file {moment}");
        let names = fs::read_dir(&trees).expect("list").flatten().map(|e| e.file_name());
        let names: Vec<_> = names.filter(|name| name != ".lock").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
    assert!(killed > 2, "only {killed} runs were killed");
}
