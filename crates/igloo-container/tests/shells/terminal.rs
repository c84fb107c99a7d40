//! At a terminal: an interactive shell outside starts commands inside, as a person would.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fixture::{Fixture, Skip, User};

pub(crate) const CASES: &[crate::Case] = &[
    ("interrupt and exit code at a terminal", interrupt),
    ("stop and go on at a terminal", stop),
    ("background at a terminal", background),
    ("an interactive shell inside", interactive),
    ("a pipeline at a terminal", pipeline),
    ("an orphan at a terminal does not hang", orphan),
];

const LEVELS: &[&str] = &["host", "pure", "container"];
const INTERRUPT: &str = "\x03";
const STOP: &str = "\x1a";

/// A terminal with a program that has it as its controlling one.
struct Terminal {
    master: File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(user: &User, program: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        tcsetwinsize(&master, size(24, 80)).unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
        let own = rustix::process::geteuid().as_raw() == user.uid;
        let id = user.uid.to_string();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]);
        if !own {
            std::os::unix::fs::chown(name.to_str().unwrap(), Some(user.uid), None).unwrap();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
            command.env("HOME", format!("/home/{}", user.name)).env("USER", &user.name);
        }
        command.args(program).current_dir(&user.project).env("PS1", "").env("TERM", "dumb").env_remove("HISTFILE");
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        Self { master: master.into(), child, seen: String::new() }
    }

    fn shell(user: &User) -> Self {
        let mut terminal = Self::start(user, &["bash", "--norc", "--noprofile", "-i"]);
        // What is typed shall not look like what is answered.
        terminal.line("stty -echo; PS1= PS2=; bind 'set enable-bracketed-paste off' 2>/dev/null; echo rea''dy");
        terminal.expect("ready");
        terminal
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self, text: &str) {
        self.send(&format!("{text}\n"));
    }

    /// Reads until this text comes, and forgets all up to it.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let left = rustix::time::Timespec::try_from(left).unwrap();
            let mut fds = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            let ready = rustix::event::poll(&mut fds, Some(&left)).unwrap();
            assert!(ready > 0, "`{text}` did not come; seen: {:?}", self.seen);
            let mut buffer = [0; 4096];
            let n = self.master.read(&mut buffer).unwrap_or(0);
            assert!(n > 0, "end of output before `{text}`; seen: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    /// Waits until a command that does nothing but wait is in the foreground.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(300));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The words with which a person would enter.
fn words(fixture: &Fixture, user: &User, level: &str, options: &str) -> String {
    format!(
        "{} --act enter --isolation {level} --lowers {} --project {} --home {} {options} --",
        fixture.exe.display(),
        fixture.lowers(0),
        user.project.display(),
        user.state.display()
    )
}

fn each(fixture: &Fixture, case: impl Fn(&mut Terminal, &str)) -> Result<(), Skip> {
    if Command::new("setsid").arg("--version").output().is_err() || !Path::new("/bin/bash").exists() {
        return Err(Skip("no setsid or no bash".into()));
    }
    for user in &fixture.users {
        for level in LEVELS {
            case(&mut Terminal::shell(user), &words(fixture, user, level, ""));
        }
    }
    Ok(())
}

fn interrupt(fixture: &Fixture) -> Result<(), Skip> {
    each(fixture, |terminal, enter| {
        terminal.line(&format!("{enter} sh -c 'echo started; exec sleep 1000'; echo code=$?"));
        terminal.expect("started");
        terminal.settle();
        terminal.send(INTERRUPT);
        // A command that died of an interrupt ends the line that it is part of.
        terminal.line("echo code=$?");
        terminal.expect("code=130");
        terminal.line(&format!(
            "{enter} sh -c 'trap \"echo caught; exit 9\" INT; echo started; while :; do sleep 0.05; done'"
        ));
        terminal.expect("started");
        terminal.send(INTERRUPT);
        terminal.expect("caught");
        terminal.line("echo code=$?");
        terminal.expect("code=9");
    })
}

fn stop(fixture: &Fixture) -> Result<(), Skip> {
    each(fixture, |terminal, enter| {
        let script = "trap \"echo on again\" CONT; echo started; while :; do sleep 0.05; done";
        terminal.line(&format!("{enter} sh -c '{script}'"));
        terminal.expect("started");
        for _ in 0..3 {
            terminal.settle();
            terminal.send(STOP);
            terminal.expect("Stopped");
            terminal.line("echo shell is ba''ck");
            terminal.expect("shell is back");
            terminal.line("fg >/dev/null");
            terminal.expect("on again");
        }
        terminal.settle();
        terminal.send(INTERRUPT);
        terminal.line("echo code=$?");
        terminal.expect("code=130");
    })
}

fn background(fixture: &Fixture) -> Result<(), Skip> {
    each(fixture, |terminal, enter| {
        // dd, since busybox's own `read` waits before it reads, which is allowed in the background.
        let script = "echo started; line=$(dd bs=100 count=1 2>/dev/null); echo got $line";
        terminal.line(&format!("{enter} sh -c '{script}' &"));
        terminal.expect("started");
        // It wants to read and is stopped for it.
        terminal.line("sleep 0.7; jobs; echo shell is ba''ck");
        terminal.expect("Stopped");
        terminal.expect("shell is back");
        terminal.line("fg >/dev/null");
        terminal.settle();
        terminal.line("a line");
        terminal.expect("got a line");
        terminal.line(&format!("{enter} sh -c 'echo started; sleep 0.3; echo ended' & wait; echo code=$?"));
        terminal.expect("started");
        terminal.expect("ended");
        terminal.expect("code=0");
    })
}

fn interactive(fixture: &Fixture) -> Result<(), Skip> {
    let libraries: String =
        ["/lib", "/lib64"].iter().filter(|l| Path::new(l).exists()).map(|l| format!("--bind {l}={l} ")).collect();
    for user in &fixture.users {
        for level in LEVELS {
            for shell in ["sh -i", "bash --norc --noprofile -i"] {
                let mut terminal = Terminal::shell(user);
                let options = format!("{libraries} --bind /bin/bash=/usr/local/bin/bash");
                terminal.line(&format!("{} {shell}", words(fixture, user, level, &options)));
                terminal.line("PS1=; echo ins''ide");
                terminal.expect("inside");
                terminal.line("echo sta''rted; sleep 1000");
                terminal.expect("started");
                terminal.settle();
                terminal.send(INTERRUPT);
                terminal.line("echo code=$?");
                terminal.expect("code=130");
                terminal.line("echo sta''rted; sleep 1000");
                terminal.expect("started");
                terminal.settle();
                terminal.send(STOP);
                terminal.expect("Stopped");
                terminal.line("jobs | wc -l; kill %1; fg; echo still insi''de");
                terminal.expect("still inside");
                tcsetwinsize(&terminal.master, size(41, 101)).unwrap();
                terminal.line("stty size");
                terminal.expect("41 101");
                if *level == "pure" {
                    terminal.line("tty");
                    terminal.expect("/dev/pts/");
                }
                terminal.line("exit 7");
                terminal.line("echo code=$?; echo out''side");
                terminal.expect("code=7");
                terminal.expect("outside");
                // The terminal is the outer shell's again.
                terminal.line("read x && echo re''ad $x");
                terminal.settle();
                terminal.line("typed");
                terminal.expect("read typed");
            }
        }
    }
    Ok(())
}

fn pipeline(fixture: &Fixture) -> Result<(), Skip> {
    each(fixture, |terminal, enter| {
        terminal.line(&format!("{enter} sh -c 'echo one; read x; echo got $x' | cat; echo co''de=${{PIPESTATUS[0]}}"));
        terminal.expect("one");
        terminal.line("a line");
        terminal.expect("got a line");
        terminal.expect("code=0");
        terminal.line(&format!("{enter} sh -c 'echo started; exec sleep 1000' | cat"));
        terminal.expect("started");
        terminal.settle();
        terminal.send(STOP);
        terminal.expect("Stopped");
        terminal.line("fg >/dev/null");
        terminal.settle();
        terminal.send(INTERRUPT);
        terminal.line("echo code=${PIPESTATUS[0]}");
        terminal.expect("code=130");
    })
}

/// Without a shell above nobody could let us go on, so that a stop must not stop us.
fn orphan(fixture: &Fixture) -> Result<(), Skip> {
    for user in &fixture.users {
        let line = words(fixture, user, "container", "");
        let mut program: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
        let script = "trap 'echo on again' CONT; echo started; while :; do sleep 0.05; done";
        program.extend(["sh", "-c", script]);
        let mut terminal = Terminal::start(user, &program);
        terminal.expect("started");
        terminal.settle();
        terminal.send(STOP);
        terminal.expect("on again");
        terminal.send(INTERRUPT);
        terminal.child.wait().unwrap();
    }
    Ok(())
}
