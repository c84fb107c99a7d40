//! Whatever is killed, stopped or deleted at whatever moment: the next `up --wait` brings everything up, no row that
//! PostgreSQL has committed is lost, and `down` leaves nothing.
//!
//! `tests/chaos ROUNDS [SEED [PERSON]]` runs as many rounds as you like; a few are part of every run.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::guestbook::{find, is_alive, mounts_and_links, supervisors, wait_until};
use crate::world::{Person, people};

const MANIFEST: &str = r#"
[project]
name = "chaos"
[sources.debian]
suite = "bookworm"

[services.db]
packages = ["@base", "postgresql-15"]
user = "postgres"
setup = ["sh", "-c", "initdb -D /var/lib/postgresql/data --auth=trust && echo host all all 0.0.0.0/0 trust >> /var/lib/postgresql/data/pg_hba.conf"]
run = ["postgres", "-D", "/var/lib/postgresql/data", "-c", "listen_addresses=*"]
volumes = ["data:/var/lib/postgresql/data", "tmpfs:/run/postgresql"]
ports = ["PORT:5432"]
ready = { exec = ["pg_isready", "--quiet"] }
restart = "always"
stop-signal = "SIGINT"

[services.cache]
packages = ["busybox-static"]
run = ["busybox", "nc", "-ll", "-p", "6000", "-e", "busybox", "cat"]
ready = { tcp = 6000 }
restart = "always"
env = { VERSION = "0" }

[services.web]
packages = ["busybox-static"]
needs = ["db", "cache", { service = "migrate", condition = "completed" }]
run = ["busybox", "sh", "-c", "trap 'exit 0' TERM; echo up; while :; do busybox sleep 0.05; done"]
ready = { log = "^up" }
restart = "always"
replicas = 2

[tasks.migrate]
packages = ["busybox-static"]
needs = ["cache"]
run = ["busybox", "sh", "-c", "echo x | busybox nc -w1 cache 6000"]
"#;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % n
    }
}

/// As much of PostgreSQL's protocol as a question takes.
struct Database(TcpStream);

impl Database {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut this = Self(stream);
        let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(body.len() + 4).expect("short");
        this.0.write_all(&[&length.to_be_bytes()[..], body].concat())?;
        this.answer()?;
        Ok(this)
    }

    /// The first column of the answer.
    fn ask(&mut self, question: &str) -> io::Result<Vec<String>> {
        let length = u32::try_from(question.len() + 5).expect("short");
        self.0.write_all(&[b"Q", &length.to_be_bytes()[..], question.as_bytes(), b"\0"].concat())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Vec<String>> {
        let mut rows = Vec::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; usize::try_from(length).expect("32 bits").saturating_sub(4)];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(rows),
                b'E' => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
                b'D' => rows.push(String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()),
                _ => {}
            }
        }
    }
}

/// Writes rows as long as it lives, and knows which the database has promised to keep.
struct Load {
    over: Arc<AtomicBool>,
    promised: Arc<Mutex<Vec<u64>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn begin(port: u16) -> Self {
        let (over, promised) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_over, promises) = (Arc::clone(&over), Arc::clone(&promised));
        let thread = std::thread::spawn(move || {
            let mut next = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                let session = Database::connect(port).and_then(|mut db| {
                    db.ask("CREATE TABLE IF NOT EXISTS t (id bigint PRIMARY KEY)")?;
                    while !is_over.load(Ordering::Relaxed) {
                        next += 1;
                        db.ask(&format!("INSERT INTO t VALUES ({next})"))?;
                        promises.lock().expect("lock").push(next);
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Ok(())
                });
                if session.is_err() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { over, promised, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct World<'w> {
    person: &'w Person,
    project: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    port: u16,
    random: Random,
    /// Every process of ours that was ever seen, with the time of its start.
    seen: BTreeSet<(u32, String)>,
    log: Vec<String>,
}

fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("pid");
    let _ = kill_process(pid, signal);
}

impl World<'_> {
    fn igloo(&self, words: &[&str]) -> crate::world::Run {
        self.person.igloo(&self.project, words)
    }

    /// The supervisor and all that came of it.
    fn processes(&mut self) -> Vec<u32> {
        let mut all = supervisors(self.person, &self.project);
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, r)| r.split_whitespace().nth(1)?.parse::<u32>().ok());
            parents.extend(parent.map(|parent| (pid, parent)));
        }
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            all.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
            at += 1;
        }
        self.seen.extend(all.iter().filter_map(|pid| Some((*pid, start_time(*pid)?))));
        all
    }

    fn remove(&mut self, path: PathBuf) {
        self.log.push(format!("rm -rf {}", path.display()));
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }

    fn kill(&mut self, what: &str, pid: Option<u32>) {
        self.log.push(format!("kill -9 {what} {pid:?}"));
        pid.inspect(|pid| send(*pid, Signal::KILL));
    }

    fn wreck(&mut self, running: &mut Child) {
        let all = self.processes();
        let any = |random: &mut Random, from: &[u32]| (!from.is_empty()).then(|| from[random.below(from.len())]);
        match self.random.below(12) {
            0 | 1 => self.kill("supervisor", all.first().copied()),
            2 => self.kill("sandbox", all.get(1).copied()),
            3 | 4 => {
                let one = any(&mut self.random, all.get(1..).unwrap_or_default());
                self.kill("somebody", one);
            }
            5 => {
                let one = any(&mut self.random, &all);
                self.log.push(format!("stop {one:?} for a while"));
                if let Some(pid) = one {
                    send(pid, Signal::STOP);
                    std::thread::sleep(Duration::from_millis(300));
                    send(pid, Signal::CONT);
                }
            }
            6 => self.remove(self.runtime.join("control.sock")),
            7 => self.remove(self.runtime.clone()),
            8 => {
                let names = ["addresses.json", "ports.json", "events.jsonl", "specs", "logs", "supervisor.log"];
                let name = names[self.random.below(names.len())];
                self.remove(self.state.join(name));
            }
            // As after a reboot: nothing runs, what was in memory is gone.
            9 => {
                self.kill("supervisor", all.first().copied());
                self.remove(self.runtime.clone());
            }
            10 => {
                self.log.push("kill -9 igloo itself".to_owned());
                let _ = running.kill();
            }
            _ => {
                let words = [["up", "--wait"].as_slice(), &["down"], &["restart", "db"], &["stop"]];
                let words = words[self.random.below(words.len())];
                self.log.push(format!("at the same time {words:?}"));
                self.igloo(words);
            }
        }
    }

    fn operation(&mut self, round: usize) -> Child {
        let words: &[&str] = match self.random.below(7) {
            0 | 1 => &["up", "--wait"],
            2 => &["restart"],
            3 => &["restart", "db"],
            4 => &["down"],
            5 => &["stop", "web"],
            _ => {
                let path = self.project.join("igloo.toml");
                let text = fs::read_to_string(&path).expect("read");
                let at = text.find("VERSION = \"").expect("a version") + 11;
                let end = at + text[at..].find('"').expect("its end");
                fs::write(&path, format!("{}{round}{}", &text[..at], &text[end..])).expect("write");
                &["up", "-d"]
            }
        };
        self.log.push(format!("igloo {}", words.join(" ")));
        let mut command: Command = self.person.igloo_command(&self.project, words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run igloo")
    }

    fn round(&mut self, round: usize, load: &Load, verified: &mut usize) {
        self.log.clear();
        let mut running = self.operation(round);
        for _ in 0..=self.random.below(2) {
            let pause = self.random.below(600);
            self.log.push(format!("{pause} ms later"));
            std::thread::sleep(Duration::from_millis(u64::try_from(pause).expect("small")));
            self.wreck(&mut running);
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        while running.try_wait().expect("wait").is_none() {
            assert!(Instant::now() < deadline, "round {round}: it hangs: {:#?}", self.log);
            std::thread::sleep(Duration::from_millis(10));
        }
        let up = self.igloo(&["up", "--wait", "--timeout", "90"]);
        assert!(up.code() == Some(0), "{} round {round}: {:#?}\n{up:?}", self.person.name, self.log);
        let services = self.igloo(&["ps", "--json"]).json();
        for name in ["db", "cache", "web", "web.2"] {
            let state = &find(&services, name)["state"];
            assert_eq!(state, "ready", "{} round {round}: {name} {:#?} {services}", self.person.name, self.log);
        }
        assert_eq!(supervisors(self.person, &self.project).len(), 1, "round {round}: {:#?}", self.log);
        let promised = load.promised.lock().expect("lock").clone();
        let from = promised.get(verified.saturating_sub(100)).copied().unwrap_or(0);
        let question = format!("SELECT id FROM t WHERE id >= {from}");
        // One whose backend was killed recovers by itself, as ever, and takes a moment for it.
        let deadline = Instant::now() + Duration::from_secs(30);
        let rows = loop {
            match Database::connect(self.port).and_then(|mut db| db.ask(&question)) {
                Ok(rows) => break rows,
                // Wrecked before its first row.
                Err(_) if promised.is_empty() => break Vec::new(),
                Err(e) => assert!(Instant::now() < deadline, "round {round}: {e}: {:#?}", self.log),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let rows: BTreeSet<u64> = rows.iter().map(|r| r.parse().expect("a number")).collect();
        let lost: Vec<&u64> = promised.iter().filter(|id| **id >= from && !rows.contains(id)).collect();
        assert!(lost.is_empty(), "{} round {round}: {lost:?} are lost: {:#?}", self.person.name, self.log);
        *verified = promised.len();
    }

    fn down(&mut self) {
        self.processes();
        self.igloo(&["down"]).ok();
        let left =
            |(pid, started): &(u32, String)| is_alive(u64::from(*pid)) && start_time(*pid).as_ref() == Some(started);
        let seen = std::mem::take(&mut self.seen);
        wait_until("all processes have ended", || !seen.iter().any(left));
        assert_eq!(supervisors(self.person, &self.project), Vec::<u32>::new());
        assert_eq!(mounts_and_links(), Vec::<String>::new());
        assert!(TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }
}

fn chaos(person: &Person, rounds: usize, seed: u64) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let project = person.project("chaos", &MANIFEST.replace("PORT", &port.to_string()));
    let id = person.igloo(&project, &["config", "--json"]).json()["project"]["id"].as_str().expect("id").to_owned();
    let find_dir = |base: &Path| base.join("projects").join(&id);
    person.igloo(&project, &["up", "--wait"]).ok();
    let mut world = World {
        person,
        state: find_dir(&person.state()),
        runtime: person.runtime().join(&id),
        project,
        port,
        random: Random(seed | 1),
        seen: BTreeSet::new(),
        log: Vec::new(),
    };
    assert!(world.state.is_dir(), "{:?}", world.state);
    assert!(world.runtime.is_dir(), "{:?}", world.runtime);
    let load = Load::begin(port);
    let mut verified = 0;
    for round in 1..=rounds {
        println!("{} seed {seed} round {round}/{rounds}", person.name);
        world.round(round, &load, &mut verified);
        if round % 5 == 0 || round == rounds {
            world.down();
            world.igloo(&["up", "--wait"]).ok();
        }
    }
    let promised = load.promised.lock().expect("lock").len();
    println!("{}: {rounds} rounds clean, {promised} rows kept", person.name);
    drop(load);
    world.down();
    world.igloo(&["down", "--volumes"]).ok();
}

#[test]
fn a_few_rounds() {
    for (person, seed) in people().iter().zip([11, 22, 33]) {
        chaos(person, 3, seed);
    }
}

#[test]
#[ignore = "takes as long as it is told to: tests/chaos"]
fn many_rounds() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual);
    let rounds = usize::try_from(number("IGLOO_CHAOS_ROUNDS", 20)).expect("small");
    let seed = number("IGLOO_CHAOS_SEED", 1);
    let who = std::env::var("IGLOO_CHAOS_PERSON").unwrap_or_default();
    for person in people().iter().filter(|p| who.is_empty() || p.name == who) {
        chaos(person, rounds, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}
