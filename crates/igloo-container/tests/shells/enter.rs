//! What a command inside sees, and what is seen of it outside.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::fixture::{Fixture, Skip, show};

const LEVELS: &[&str] = &["host", "pure", "container"];

pub(crate) const CASES: &[crate::Case] = &[
    ("exit codes", exit_codes),
    ("signals", signals),
    ("identity and place", identity),
    ("environment variables", variables),
    ("what is seen at each level", visibility),
    ("the root is read-only, the project is not", writable),
    ("devices", devices),
    ("a container's confinement", confinement),
    ("binds", binds),
    ("a project below a declared directory", project_in_usr),
    ("nested shells", nested),
    ("many layers", many_layers),
    ("descriptors", descriptors),
    ("a pipeline", pipeline),
    ("the outer process dies", outer_dies),
];

fn exit_codes(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in LEVELS {
            let code = |words: &[&str]| {
                let output = fixture.enter(user, level, &[], words).output().unwrap();
                (output.status.code(), show(&output))
            };
            for (words, expected) in [
                (&["true"][..], 0),
                (&["sh", "-c", "exit 42"], 42),
                (&["sh", "-c", "exit 255"], 255),
                (&["no-such-command"], 127),
                (&["/no/such/command"], 127),
                (&["not-executable"], 126),
                (&["/etc"], 126),
                (&["/usr/share/script"], 0),
            ] {
                let (code, text) = code(words);
                assert_eq!(code, Some(expected), "{} {level} {words:?}: {text}", user.name);
            }
            let (_, text) = code(&["no-such-command"]);
            assert!(text.contains("`no-such-command` is not in this environment"), "{text}");
        }
    }
    Ok(())
}

fn signals(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in LEVELS {
            let status = fixture.enter(user, level, &[], &["sh", "-c", "kill -9 $$"]).status().unwrap();
            assert_eq!(status.signal(), Some(9), "{level}");
            // One that comes from outside, to the process that the caller knows.
            let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
            let mut command = fixture.enter(user, level, &[], &["sh", "-c", script]);
            let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).unwrap();
            assert_eq!(line, "ready\n");
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
            assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got it\n", Some(3)), "{} {level}", user.name);
        }
    }
    Ok(())
}

fn identity(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in LEVELS {
            let seen = fixture.sh(user, level, "id -u; whoami; pwd; cat /etc/declared; touch made; stat -c %u made");
            let expected = format!("{0}\n{1}\n{2}\nyes\n{0}\n", user.uid, user.name, user.project.display());
            assert_eq!(seen, expected, "{level}");
            let metadata = fs::metadata(user.project.join("made")).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), user.uid);
            let elsewhere = fixture.enter(user, level, &["--workdir", "/no/such"], &["pwd"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&elsewhere.stdout).trim(), user.project.to_str().unwrap());
        }
        let name = fixture.sh(user, "container", "hostname; cat /etc/hostname; grep -c inside /etc/hosts; echo $$");
        assert_eq!(name, "inside\ninside\n1\n2\n");
    }
    Ok(())
}

fn variables(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in LEVELS {
            let mut command = fixture.enter(user, level, &[], &["env"]);
            let output = command.env("SECRET_TOKEN", "x").env("TERM", "dumb").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.contains("SECRET_TOKEN"), *level == "host", "{level}\n{text}");
            assert!(text.contains("TERM=dumb") && text.contains("PATH=/usr/local/bin:/usr/bin:/bin"), "{text}");
        }
    }
    Ok(())
}

fn visibility(fixture: &Fixture) -> Result<(), Skip> {
    let outside = fixture.path().join("outside");
    fs::write(&outside, "x").unwrap();
    for user in &fixture.users {
        let home = if user.uid == 0 { "/root".to_owned() } else { format!("/home/{}", user.name) };
        let host_home = fs::metadata(&home).is_ok();
        let sees = |level: &str, options: &[&str], path: &str| {
            fixture.enter(user, level, options, &["test", "-e", path]).status().unwrap().success()
        };
        assert!(sees("host", &[], outside.to_str().unwrap()));
        fs::write(user.state.join("history"), "x").unwrap();
        for level in ["pure", "container"] {
            assert!(!sees(level, &[], outside.to_str().unwrap()), "{level}");
            assert!(sees(level, &[], &format!("{home}/history")), "{level}");
            // What is at home is hidden, unless it is asked for.
            let marker = format!("{home}/.igloo-test-{}", std::process::id());
            if host_home && user.uid != 0 {
                fs::write(&marker, "x").unwrap();
                assert!(!sees(level, &[], &marker), "{level}");
                assert!(sees(level, &["--keep-home"], &marker), "{level}");
                fs::remove_file(&marker).unwrap();
            }
            let roots = fixture.sh(user, level, "ls /");
            let names: Vec<&str> = roots.lines().collect();
            let mut expected = vec!["bin", "dev", "etc", "home", "proc", "run", "sys", "tmp", "usr", "var"];
            if user.uid == 0 {
                expected.insert(5, "root");
            }
            assert_eq!(names, expected, "{level}");
            let mounts = fixture.sh(user, level, "cat /proc/self/mountinfo");
            let left = mounts.lines().filter(|l| l.contains("skeleton") && !l.contains("lowerdir")).count();
            assert_eq!(left, 0, "{mounts}");
        }
        assert_eq!(fixture.sh(user, "host", "test -e /usr/bin/apt-get && echo there; echo"), "\n");
        assert!(fixture.sh(user, "pure", "ps").lines().count() > 4);
        assert!(fixture.sh(user, "container", "ps").lines().count() <= 5);
    }
    Ok(())
}

fn writable(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in LEVELS {
            let script = "for d in / /usr /etc /var; do touch $d/x 2>/dev/null && echo $d; done; \
                          for d in . /tmp /var/tmp /dev/shm ~; do touch $d/igloo-x || echo not $d; rm -f $d/igloo-x; done";
            let script = script.replace("rm -f", "busybox rm -f");
            assert_eq!(fixture.sh(user, level, &script), "", "{} {level}", user.name);
        }
        assert_eq!(fixture.sh(user, "pure", "stat -c %a /tmp /run/user/*"), "1777\n700\n");
    }
    Ok(())
}

fn devices(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for level in ["pure", "container"] {
            let seen = fixture.sh(
                user,
                level,
                "ls /dev; echo x > /dev/null; dd if=/dev/urandom bs=8 count=1 2>/dev/null | wc -c",
            );
            let expected = "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n8\n";
            assert_eq!(seen, expected, "{} {level}", user.name);
        }
    }
    Ok(())
}

fn confinement(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let status = fixture.sh(user, "container", "cat /proc/self/status");
        for wanted in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
            assert!(status.contains(wanted), "{} {wanted}\n{status}", user.name);
        }
        let script = "mount -t tmpfs x /tmp 2>/dev/null && echo mount; umount /tmp 2>/dev/null && echo umount; \
                      busybox unshare -U true 2>/dev/null && echo unshare; \
                      echo h > /proc/sysrq-trigger 2>/dev/null && echo sysrq; \
                      echo x > /proc/sys/kernel/core_pattern 2>/dev/null && echo core; \
                      busybox head -c1 /proc/kcore 2>/dev/null | grep -q . && echo kcore; \
                      cat /proc/1/environ 2>/dev/null && echo environ; readlink /proc/1/exe; \
                      ls /proc/1/root 2>/dev/null && echo root; kill -9 1; kill -0 1 || echo killed; echo end";
        assert_eq!(fixture.sh(user, "container", script), "end\n", "{}", user.name);
        let output = fixture.enter(user, "container", &["--no-network"], &["ip", "-o", "link"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.lines().all(|l| !l.contains("eth0")) && text.contains("LOOPBACK,UP"), "{}", show(&output));
    }
    Ok(())
}

fn binds(fixture: &Fixture) -> Result<(), Skip> {
    let source = fixture.path().join("bound");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let source = source.to_str().unwrap();
    for user in &fixture.users {
        for level in LEVELS {
            let script =
                "cat /opt/a/b/file /bin/one /var/cache/two; touch /opt/a/b/x 2>/dev/null || echo refused; ls /bin/sh";
            let [a, b, c] = [
                format!("{source}=/opt/a/b=ro"),
                format!("{source}/file=/bin/one"),
                format!("{source}/file=/var/cache/two"),
            ];
            // At the host level, /opt is the host's own, where nothing is to be made.
            let (a, script) = if *level == "host" {
                (a.replace("/opt/", "/usr/local/"), script.replace("/opt/", "/usr/local/"))
            } else {
                (a, script.to_owned())
            };
            let options = ["--bind", &a, "--bind", &b, "--bind", &c];
            let output = fixture.enter(user, level, &options, &["sh", "-c", &script]).output().unwrap();
            let expected = "content\ncontent\ncontent\nrefused\n/bin/sh\n";
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{level}: {}", show(&output));
        }
        let output = fixture.enter(user, "pure", &["--bind", "/no/such=/x"], &["true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such"), "{}", show(&output));
    }
    Ok(())
}

fn project_in_usr(fixture: &Fixture) -> Result<(), Skip> {
    let Some(root) = fixture.users.iter().find(|u| u.uid == 0) else {
        return Err(Skip("only root can have a project there".into()));
    };
    let project = Path::new("/usr/share/igloo-test-project");
    fs::create_dir_all(project).unwrap();
    fs::write(project.join("file"), "here\n").unwrap();
    for level in LEVELS {
        let lowers = fixture.lowers(0);
        let project = project.to_str().unwrap();
        let args = [
            "enter",
            "--isolation",
            level,
            "--lowers",
            &lowers,
            "--project",
            project,
            "--workdir",
            project,
            "--",
            "sh",
        ];
        let mut command = fixture.command(root, &args);
        let output =
            command.args(["-c", "pwd; cat file; ls /usr/share/script; touch x && busybox rm x"]).output().unwrap();
        let expected = format!("{project}\nhere\n/usr/share/script\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{level}: {}", show(&output));
    }
    fs::remove_dir_all(project).unwrap();
    Ok(())
}

fn nested(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let exe = fixture.exe.to_str().unwrap().to_owned();
        let lowers = fixture.lowers(0);
        let (project, state) = (user.project.to_str().unwrap(), user.state.to_str().unwrap());
        // The test program is dynamic: what it needs is shown to the inner one.
        let libraries = ["/lib64=/lib64", "/lib=/lib"];
        let inner = |level: &str| {
            [
                &exe,
                "--act",
                "enter",
                "--isolation",
                level,
                "--lowers",
                &lowers,
                "--project",
                project,
                "--home",
                state,
                "--",
                "pwd",
            ]
            .map(str::to_owned)
        };
        for level in LEVELS {
            let words = inner(level);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let bind = format!("{0}={0}", fixture.path().display());
            let mut options = vec!["--bind", bind.as_str()];
            for library in libraries.iter().filter(|l| Path::new(l.split('=').next().unwrap()).exists()) {
                options.extend(["--bind", library]);
            }
            let output = fixture.enter(user, level, &options, &words).output().unwrap();
            if *level == "container" {
                assert_eq!(output.status.code(), Some(125), "{}", show(&output));
                assert!(
                    String::from_utf8_lossy(&output.stderr).contains("cannot make namespaces"),
                    "{}",
                    show(&output)
                );
            } else {
                assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), project, "{level} {}", show(&output));
            }
        }
    }
    Ok(())
}

fn many_layers(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        for (more, isolation) in [(100, "pure"), (700, "host")] {
            let lowers = fixture.lowers(more);
            let (project, state) = (user.project.to_str().unwrap(), user.state.to_str().unwrap());
            let args =
                ["enter", "--isolation", isolation, "--lowers", &lowers, "--project", project, "--home", state, "--"];
            let output = fixture.command(user, &args).args(["sh", "-c", "ls /usr/share | wc -l"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (more + 1).to_string(), "{}", show(&output));
        }
    }
    Ok(())
}

fn descriptors(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        // Below that level they are the caller's to give.
        let seen = fixture.sh(user, "container", "ls /proc/self/fd");
        assert_eq!(seen, "0\n1\n2\n3\n", "3 is the directory that ls reads");
    }
    Ok(())
}

fn pipeline(fixture: &Fixture) -> Result<(), Skip> {
    use std::io::Write;
    for user in &fixture.users {
        for level in LEVELS {
            let mut command = fixture.enter(user, level, &[], &["sh", "-c", "cat; cat nothing 2>/dev/null || exit 5"]);
            let piped = std::process::Stdio::piped;
            let mut child = command.stdin(piped()).stdout(piped()).spawn().unwrap();
            let text = "line\n".repeat(100_000);
            let mut input = child.stdin.take().unwrap();
            let writer = {
                let text = text.clone();
                std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap())
            };
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            assert_eq!(output.status.code(), Some(5));
            assert_eq!(output.stdout.len(), text.len(), "{level}");
        }
    }
    Ok(())
}

fn outer_dies(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let script = "echo $$; sleep 1234567 & exec sleep 7654321";
        let mut command = fixture.enter(user, "container", &[], &["sh", "-c", script]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe is closed when everyone who has it is gone.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut output, &mut rest).unwrap();
        assert!(rest.is_empty());
    }
    Ok(())
}
